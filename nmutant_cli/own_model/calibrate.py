"""Calibrating: measure label changes of clean and adversarial images, choose the test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np

from nmutant_cli.config.settings import Mutation
from nmutant_cli.errors import ConfigError, DataError
from nmutant_cli.mutation.sensitivity import Labeller, changes_of, checked, streams
from nmutant_cli.own_model.answers import Answer
from nmutant_cli.own_model.calibration import Calibration, ModelIdentity, Requirement
from nmutant_cli.own_model.guarantee import Chosen, choose, parts
from nmutant_cli.own_model.model import labels_under
from nmutant_cli.seeding import stream
from nmutant_cli.types import AnyArray, Bools, Images

STEP_SIZES = (1.0, 5.0, 10.0)
"""Those of the paper."""


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
    images were measured at one step size.

    >>> import numpy as np
    >>> from nmutant_cli import calibrate
    >>> def is_bright(images):
    ...     return (images.mean(axis=(1, 2, 3)) > 0.5).astype(int)
    >>> clean = np.ones((8, 8, 1)) * np.linspace(0, 1, 200).reshape(-1, 1, 1, 1)
    >>> at_the_boundary = np.full((20, 8, 8, 1), 0.501)
    >>> calibration = calibrate(is_bright, clean, at_the_boundary, target=0.1, mutations=20)
    >>> calibration.promise.images, calibration.promise.false_alarm_rate
    (100, 0.1)

    Raises ConfigError for a setting out of range, DataError for unfit or too few images,
    ModelError for a model of no use.
    """
    mutation = mutation or Mutation()
    requirement = Requirement(target, probability, power, alpha, beta)
    images, attacked = _checked(clean, adversarial, requirement, kappa, step_sizes)
    label = labels_under(predict, mutation, batch_size, images.shape[1:])
    measured = partial(_changes, label, step_sizes, mutation, seed, mutations, progress)
    chosen = choose(
        measured(images),
        {name: measured(array) for name, array in attacked.items()},
        requirement,
        stream(seed, "calibrate", "parts"),
        kappa=kappa,
        seed=seed,
    )
    return _calibration(chosen, mutation, images, network)


def _checked(
    clean: AnyArray,
    adversarial: AnyArray | Mapping[str, AnyArray] | None,
    requirement: Requirement,
    kappa: float | None,
    step_sizes: Sequence[float],
) -> tuple[Images, dict[str, Images]]:
    """Clean images and adversarial sets; what cannot succeed is refused before it is measured."""
    if kappa is not None and not 0 < kappa < 1:
        raise ConfigError(f"kappa: {kappa} is not allowed; it must be in (0, 1)")
    if not step_sizes or not all(0 < step < np.inf for step in step_sizes):
        raise ConfigError(f"step_sizes: {step_sizes} is not allowed; give numbers above 0")
    sets = adversarial if isinstance(adversarial, Mapping) else {"adversarial": adversarial}
    images = checked(clean, None)
    attacked = {
        name: checked(array, images.shape[1:]) for name, array in sets.items() if array is not None
    }
    parts(len(images), requirement, np.random.default_rng(0))
    if not attacked and (kappa is None or len(step_sizes) != 1):
        raise DataError(
            "without adversarial images a calibration needs one step size and the kappa, at that "
            "step size, of the inputs to be detected"
        )
    return images, attacked


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
    chosen: Chosen, mutation: Mutation, images: Images, network: ModelIdentity | None
) -> Calibration:
    rows, columns, channels = images.shape[1:]
    return Calibration(
        **asdict(chosen.test),
        step_size=chosen.step_size,
        mutation=mutation,
        image_shape=(rows, columns, channels),
        network=network,
        promise=chosen.promise,
        evidence=chosen.evidence,
    )
