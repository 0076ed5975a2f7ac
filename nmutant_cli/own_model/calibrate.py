"""Calibrating: measure label changes of clean and adversarial images, choose the test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nmutant_cli.config.fields import Section
from nmutant_cli.config.mutation import Mutation
from nmutant_cli.errors import ConfigError, DataError
from nmutant_cli.files import digest_of
from nmutant_cli.mutation.sensitivity import Labeller, Subjects, changes_of, streams
from nmutant_cli.own_model.answers import Answer
from nmutant_cli.own_model.asking import LOG, Journal, Patient, duration
from nmutant_cli.own_model.calibration import Calibration, ModelIdentity, Requirement
from nmutant_cli.own_model.guarantee import Chosen, choose, parts
from nmutant_cli.own_model.images import checked
from nmutant_cli.own_model.model import labels_under
from nmutant_cli.seeding import stream
from nmutant_cli.types import AnyArray, Bools, Images, Labels

STEP_SIZES = (1.0, 5.0, 10.0)
"""Those of the paper."""
AGAIN = 100
"""So many clean images are asked about twice."""
CLEAN = "clean images"
"""What these are called among the sets."""
USEFUL = 0.5
"""A detector that finds fewer adversarial images than this share is doubtful."""


def calibrate(
    predict: Answer,
    clean: AnyArray,
    adversarial: AnyArray | Mapping[str, AnyArray] | None = None,
    *,
    target: float = 0.05,
    probability: float = 0.95,
    power: float = 0.9,
    kappa: float | None = None,
    step_sizes: Sequence[float] = STEP_SIZES,
    mutations: int = 300,
    mutation: Mutation | None = None,
    alpha: float = 0.05,
    beta: float = 0.05,
    seed: int = 0,
    batch_size: int = 1000,
    network: ModelIdentity | None = None,
    require_power: float = 0,
    journal: Path | str | None = None,
    progress: Callable[[int], None] = lambda images: None,
) -> Calibration:
    """A test that calls at most a share ``target`` of normal inputs adversarial.

    It holds with ``probability`` over the choice of ``clean``, for inputs that come from where
    those come from (see `guarantee`). ``clean``: ``(n, h, w, c)`` floats in [0, 1] that the model
    was not trained on, with wrongly labelled ones among them as they come. ``adversarial``: such
    an array or several by name, to choose the test that finds a share ``power`` of them with the
    fewest mutations. Without them, give one step size and the ``kappa`` of adversarial inputs.

    ``mutations`` of each image are measured at each of ``step_sizes``; no cap is larger.
    ``mutation``, ``alpha`` and ``beta`` are those of the detector. ``progress`` is told how many
    images were measured at one step size. ``journal``: a file for the labels, from which the same
    call goes on; it knows the model by ``network`` alone. Logged are how many labels are needed,
    and why the detector may be of no use (``evidence.doubts``).

    >>> import numpy as np
    >>> from nmutant_cli import calibrate
    >>> def is_bright(images):
    ...     return (images.mean(axis=(1, 2, 3)) > 0.5).astype(int)
    >>> clean = np.ones((8, 8, 1)) * np.linspace(0, 1, 200).reshape(-1, 1, 1, 1)
    >>> at_the_boundary = np.full((20, 8, 8, 1), 0.501)
    >>> calibration = calibrate(is_bright, clean, at_the_boundary, target=0.1, mutations=20)
    >>> calibration.promise.images, calibration.promise.false_alarm_rate
    (100, 0.1)

    Raises ConfigError for a setting out of range, DataError for unfit or too few images or less
    power than ``require_power``, ModelError for a model of no use, ArtifactError for the journal.
    """
    mutation = mutation or Mutation()
    requirement = Requirement(target, probability, power, alpha, beta)
    sets = _checked(clean, adversarial, requirement, kappa, step_sizes)
    kept = _journal(journal, sets, [*step_sizes], mutations, seed, mutation, network)
    label = _patient(labels_under(predict, mutation, batch_size, sets[CLEAN].shape[1:]), kept)
    twice = _asked_twice(label, sets, step_sizes, mutations, kept)
    measured = partial(_changes, label, step_sizes, mutation, seed, mutations, progress)
    changes = {name: measured(images) for name, images in sets.items()}
    rng = stream(seed, "calibrate", "parts")
    chosen = choose(changes.pop(CLEAN), changes, requirement, rng, kappa=kappa, seed=seed)
    _told(doubts := _doubts(chosen, *twice, sets), chosen, require_power)
    return _calibration(chosen, mutation, sets[CLEAN], network, len(np.unique(twice[0])), doubts)


def _patient(label: Callable[[float], Labeller], kept: Journal) -> Callable[[float], Labeller]:
    return lambda step_size: Patient(label(step_size), kept)


def _asked_twice(
    label: Callable[[float], Labeller],
    sets: Mapping[str, Images],
    step_sizes: Sequence[float],
    mutations: int,
    kept: Journal,
) -> tuple[Labels, Labels]:
    """The labels of the clean images, and once more those of the first `AGAIN`.

    Says before how many labels are needed for everything, and after how long that takes.
    """
    clean = sets[CLEAN]
    total = sum(map(len, sets.values())) * len(step_sizes) * (mutations + 1)
    total += len(clean) + len(clean[:AGAIN])
    known = f"; the journal has {kept.known:,}" if kept.known else ""
    LOG.warning("at most %s labels are needed%s", f"{total:,}", known)
    own, again = (Subjects(label(step_sizes[0]), images).own for images in (clean, clean[:AGAIN]))
    if kept.asked:
        rate = kept.asked / max(kept.seconds, 1e-9)
        left = duration((total - kept.known) / rate)
        LOG.warning("at %s labels a second that takes %s", f"{rate:,.0f}", left)
    return own, again


def _told(doubts: Sequence[str], chosen: Chosen, require_power: float) -> None:
    """Raises DataError for less power than is required; else the doubts are logged."""
    power = chosen.evidence.power
    if power < require_power:
        found = f"a power of {power:.1%} was found, {require_power:.1%} is required"
        raise DataError("; ".join([found, *doubts]))
    for doubt in doubts:
        LOG.error("DOUBT: %s", doubt)


def _journal(path: Path | str | None, sets: Mapping[str, Images], *settings: Any) -> Journal:
    """It is for these images and settings, which say what labels are asked for in which order."""
    images = [*map(_digest, sets.values())]
    plain = [s.model_dump(mode="json") if isinstance(s, Section) else s for s in settings]
    return Journal(None if path is None else Path(path), digest_of([images, plain]))


def _digest(array: Images) -> str:
    return hashlib.sha256(array.data).hexdigest()


def _doubts(chosen: Chosen, own: Labels, again: Labels, sets: Mapping[str, Images]) -> list[str]:
    """Why the detector may be of no use, though what is promised of it holds."""
    doubts = []
    if len(np.unique(own)) == 1:
        doubts.append(
            f"all {len(own)} clean images get the same label; does the model take images in [0, 1]?"
        )
    if changed := int((own[: len(again)] != again).sum()):
        doubts.append(
            f"asked twice, the model gives {changed} of {len(again)} clean images another label; "
            "without a mutation it should not: switch off what is random in it"
        )
    known = {_digest(image) for image in sets[CLEAN]}
    for name, images in sets.items():
        if name != CLEAN and (same := sum(_digest(image) in known for image in images)):
            doubts.append(
                f"{name}: {same} of its {len(images)} images are among the clean ones; give "
                "adversarial ones"
            )
    evidence = chosen.evidence
    if evidence.power < min(USEFUL, evidence.wanted_power):
        what = "of the adversarial images" if len(sets) > 1 else "of inputs with this kappa"
        doubts.append(
            f"only {evidence.power:.1%} {what} are found; are they adversarial for this model, and "
            "does it get what it was trained on? Other step sizes or more clean images may help"
        )
    return doubts


def _checked(
    clean: AnyArray,
    adversarial: AnyArray | Mapping[str, AnyArray] | None,
    requirement: Requirement,
    kappa: float | None,
    step_sizes: Sequence[float],
) -> dict[str, Images]:
    """Clean images and adversarial sets; what cannot succeed is refused before it is measured."""
    if kappa is not None and not 0 < kappa < 1:
        raise ConfigError(f"kappa: {kappa} is not allowed; it must be in (0, 1)")
    if not step_sizes or not all(0 < step < np.inf for step in step_sizes):
        raise ConfigError(f"step_sizes: {step_sizes} is not allowed; give numbers above 0")
    given = adversarial if isinstance(adversarial, Mapping) else {"adversarial": adversarial}
    if CLEAN in given:
        raise ConfigError(f"adversarial: a set cannot be called {CLEAN!r}")
    sets = {CLEAN: checked(clean)}
    shape = sets[CLEAN].shape[1:]
    sets |= {
        name: checked(images, shape, name) for name, images in given.items() if images is not None
    }
    parts(len(sets[CLEAN]), requirement, np.random.default_rng(0))
    if len(sets) == 1 and (kappa is None or len(step_sizes) != 1):
        raise DataError(
            "without adversarial images a calibration needs one step size and the kappa, at that "
            "step size, of the inputs to be detected (--step-size, --kappa)"
        )
    return sets


def _changes(
    label: Callable[[float], Labeller],
    step_sizes: Sequence[float],
    mutation: Mutation,
    seed: int,
    mutations: int,
    progress: Callable[[int], None],
    images: Images,
) -> dict[float, Bools]:
    sources = streams(images, mutation, seed, "calibrate")
    return {
        step: changes_of(label(step), images, sources, mutations, progress) for step in step_sizes
    }


def _calibration(
    chosen: Chosen,
    mutation: Mutation,
    images: Images,
    network: ModelIdentity | None,
    labels: int,
    doubts: Sequence[str],
) -> Calibration:
    rows, columns, channels = images.shape[1:]
    return Calibration(
        **asdict(chosen.test),
        step_size=chosen.step_size,
        mutation=mutation,
        image_shape=(rows, columns, channels),
        network=network,
        promise=chosen.promise,
        evidence=chosen.evidence.model_copy(update={"labels": labels, "doubts": tuple(doubts)}),
    )
