"""The stage attack: adversarial samples, from the network that is looked at to what counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nmutant_cli.config.attacks import AttackParams, SubstituteParams
from nmutant_cli.config.settings import Settings
from nmutant_cli.datasets import Dataset
from nmutant_cli.errors import AttackError
from nmutant_cli.networks.inference import predict_labels
from nmutant_cli.pipeline.samples import (
    NO_TARGET,
    Recorder,
    SampleSet,
    from_8_bits,
    keys,
    to_8_bits,
)
from nmutant_cli.seeding import stream
from nmutant_cli.types import Ints, Labels, Predict

if TYPE_CHECKING:
    import keras


def pairs(
    params: AttackParams, data: Dataset, attempts: int, first: int = 0
) -> tuple[Ints, Labels]:
    """Which test images are attacked, and towards which class: two arrays ``(attempts,)``.

    As docs/protocol.md has it under MNIST: attacks. ``untargeted``: the first images, ``first`` of
    them left aside, or those held out to train a substitute if these are more. ``one``: the same,
    each towards one of the 9 other classes, these in turn. ``others``: each towards all 9. ``all``:
    as many images of each class, each towards all 10.

    Raises AttackError if there are too few test images.
    """
    n, classes = len(data.y_test), data.n_classes
    substitute = substitute_of(params)
    first = max(first, substitute.holdout if substitute else 0)
    if params.targets == "untargeted":
        index = np.arange(first, first + attempts)
        target = np.full(attempts, NO_TARGET)
    elif params.targets in ("one", "others"):
        each = 1 if params.targets == "one" else classes - 1
        index = first + np.arange(attempts) // each
        step = np.arange(attempts) % (classes - 1)
        target = step + (step >= data.y_test[np.minimum(index, n - 1)])
    else:
        images = -(-attempts // classes)
        each = -(-images // classes)
        left = data.y_test[first:]
        chosen = np.concatenate([np.flatnonzero(left == k)[:each] for k in range(classes)]) + first
        # In rounds over the classes, so that a short run is balanced as well.
        rank = np.concatenate([np.arange((left == k).sum())[:each] for k in range(classes)])
        chosen = chosen[np.argsort(rank, kind="stable")]
        index = chosen.repeat(classes)[:attempts]
        target = np.tile(np.arange(classes), len(chosen))[:attempts]
    if len(index) < attempts or index.max() >= n:
        besides = f", {first} of them left aside" if first else ""
        raise AttackError(
            f"attack.attempts: {attempts} need more than the {n} test images{besides}"
        )
    return index, target


def adversarial(
    name: str, model: keras.Model, data: Dataset, settings: Settings
) -> tuple[SampleSet, dict[str, Any]]:
    """Attack set ``name`` of the settings, a row for each attempt, and what to note of it.

    A sample counts if its label after the attack is not the true one. A pair whose target is the
    label that the network gives anyway is an attempt too, but there is nothing to attack.

    Raises AttackError if the data set is too small or the network does not fit.
    """
    from nmutant_cli.attacks import craft

    params = settings.attack.sets[name]
    index, target = pairs(params, data, settings.attack.attempts, settings.attack.first)
    x, true = data.x_test[index], data.y_test[index]
    record = Recorder(name, model, data, settings, index, target)
    before = record(x)
    untargeted = params.targets == "untargeted"
    rows = np.flatnonzero(before != target)
    attacked, notes = _attacked(name, model, data, settings, index[rows], target[rows])

    image, n = x.copy(), len(x)
    l0, l2, linf = np.zeros(n, np.int64), np.zeros(n), np.zeros(n)
    if len(rows):
        made = craft(
            attacked,
            x[rows],
            before[rows] if untargeted else target[rows],
            params,
            data.bounds,
            [
                stream(settings.seed, data.name, "attack", name, int(i), int(target[k]))
                for k, i in zip(rows, index[rows], strict=True)
            ],
            judge=lambda images: record(images, rows=rows),
        )
        image[rows], l0[rows], l2[rows], linf[rows] = made.x_adv, made.l0, made.l2, made.linf
    image8 = to_8_bits(image)
    label, label8 = record(image, 1), record(from_8_bits(image8), 2)
    counts = label != true
    if not settings.attack.count_already_wrong:
        counts &= before == true
    notes |= {
        "attempts": n,
        "adversarial": int(counts.sum()),
        "already_wrong": int((before != true).sum()),
        "still_adversarial_in_8_bits": int((counts & (label8 != true)).sum()),
        "mean_l2": round(float(l2[counts].mean()), 6) if counts.any() else None,
    }
    samples = SampleSet(
        index, true, label, target, image, image8, label8, l0, l2, linf, counts,
    )  # fmt: skip
    return samples, notes


def substitute_of(params: AttackParams) -> SubstituteParams | None:
    """How the network that the attack looks at is trained, where it is not the guarded one."""
    return params if isinstance(params, SubstituteParams) else getattr(params, "substitute", None)


def _attacked(
    name: str, model: keras.Model, data: Dataset, settings: Settings, index: Ints, target: Labels
) -> tuple[Any, dict[str, Any]]:
    """The network that the attack on these samples looks at, and what to note of it."""
    if (substitute := substitute_of(settings.attack.sets[name])) is not None:
        return _substitute(name, model, data, substitute, settings)
    if not settings.attack.stochastic:
        return model, {}

    from nmutant_cli.attacks.stochastic import Stochastic

    drawn = keys(index, target, 1, settings.seed, data.name, "dropout", name)
    return Stochastic(model, drawn[:, 0]), {}


def _substitute(
    name: str, model: keras.Model, data: Dataset, params: SubstituteParams, settings: Settings
) -> tuple[Any, dict[str, Any]]:

    from nmutant_cli.attacks.blackbox import train_substitute

    oracle = _oracle(name, model, data, settings)
    if params.holdout >= len(data.x_test):
        raise AttackError(
            f"attack.sets.{name}.holdout: {params.holdout} of {len(data.x_test)} test images"
        )
    made = train_substitute(
        oracle,
        data.x_test[: params.holdout],
        data.n_classes,
        params,
        data.bounds,
        stream(settings.seed, data.name, "substitute", name),
    )
    agreement = made.agreement(oracle, data.x_test[params.holdout :])
    return made.model, {"queries": made.queries, "substitute_agreement": round(agreement, 4)}


def _oracle(name: str, model: keras.Model, data: Dataset, settings: Settings) -> Predict:
    if not settings.attack.stochastic:
        return lambda images: predict_labels(model, images)
    from nmutant_cli.mutation.dropout import stochastic_labels

    # What is asked, in which order, is fixed, so the k-th question has the k-th key.
    rng = stream(settings.seed, data.name, "oracle", name)
    labels = stochastic_labels(model)
    return lambda images: labels(images, rng.integers(2**31, size=len(images), dtype=np.int32))
