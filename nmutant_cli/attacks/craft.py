"""The wrapper around every attack: validate, attack, clip, judge, measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nmutant_cli.config.attacks import AttackParams
from nmutant_cli.errors import AttackError, first_line
from nmutant_cli.types import AnyArray, Bools, Bounds, Floats, Images, Ints, Labels, Predict

if TYPE_CHECKING:
    from nmutant_cli.attacks.batches import PredictLogits


@dataclass(frozen=True)
class Crafted:
    """Adversarial images and what became of them; every array has ``n`` rows.

    ``label`` is what the judge says of ``x_adv``; ``success`` is ``label == y`` for a targeted
    attack and ``label != y`` otherwise. The norms are of ``x_adv - x`` over all pixels and
    channels: ``l0`` counts the values that differ, ``l2`` and ``linf`` are in units of a pixel.
    """

    x_adv: Images
    label: Labels
    success: Bools
    l0: Ints
    l2: Floats
    linf: Floats


def craft(
    predict_logits: PredictLogits,
    x: Images,
    y: Labels,
    params: AttackParams,
    bounds: Bounds,
    rng: Sequence[np.random.Generator],
    *,
    judge: Predict | None = None,
    batch_size: int | None = None,
) -> Crafted:
    """Attack ``x`` with the method that ``params`` belongs to.

    ``predict_logits`` is the attacked network, differentiable, giving logits ``(n, classes)``.
    ``x`` is float32 ``(n, height, width, channels)`` inside ``bounds``. ``y`` is int64 ``(n,)``:
    the targets of a targeted attack, else the labels to get away from. ``rng`` holds one
    generator per image. ``judge`` gives the label of each result, by default the attacked
    network. ``batch_size`` is the number of rows the network is given at a time, always exactly
    (C&W rounds it up to a multiple of 40), by default what suits the attack. Each image's result
    depends on the image, its label and its generator only, not on the other images.

    Raises AttackError if an argument is not as said above, if the network returns anything but
    finite logits, or if a target is the label that the judge gives already.
    """
    from nmutant_cli.attacks import attack, batches

    run = attack(getattr(params, "method", type(params).__name__))
    targeted = params.targets != "untargeted"
    _check_images(x, bounds)
    _check_labels(y, len(x), len(rng))
    if batch_size is not None and batch_size < 1:
        raise AttackError(f"batch_size: {batch_size}, expected 1 or more")
    judge_batch = batch_size or batches.BATCH_SIZE

    def logits(images: Images) -> AnyArray:
        return batches.logits_of(predict_logits, images, batch_size=judge_batch)

    def label_of(images: Images) -> Labels:
        labels = judge(images) if judge else logits(images).argmax(axis=1)
        return np.asarray(labels).astype(np.int64)

    try:
        before = logits(x)
    except batches.refusals() as error:
        raise AttackError(
            f"the network does not take images of shape {x.shape[1:]}: {first_line(error)}"
        ) from error
    _check_logits(before, y)
    if targeted:
        _check_targets(label_of(x) if judge else before.argmax(axis=1), y)
    options = {} if batch_size is None else {"batch_size": batch_size}
    x_adv = run(predict_logits, x, y, params, bounds, rng, **options)
    x_adv = np.clip(x_adv, np.float32(bounds.lower), np.float32(bounds.upper))
    label = label_of(x_adv)
    return Crafted(x_adv, label, label == y if targeted else label != y, *distances(x_adv, x))


def distances(x_adv: Images, x: Images) -> tuple[Ints, Floats, Floats]:
    """L0, L2 and L-infinity of each image's change, arrays of shape ``(n,)``."""
    change = (x_adv.astype(np.float64) - x).reshape(len(x), -1)
    return (
        np.count_nonzero(change, axis=1),
        np.linalg.norm(change, axis=1),
        np.abs(change).max(axis=1),
    )


def _check_images(x: Images, bounds: Bounds) -> None:
    if not isinstance(x, np.ndarray) or x.ndim != 4:
        shape = getattr(x, "shape", None)
        raise AttackError(f"x: shape {shape}, expected (n, height, width, channels)")
    if x.dtype != np.float32:
        raise AttackError(f"x: dtype {x.dtype}, expected float32")
    if x.size == 0:
        raise AttackError(f"x: shape {x.shape}, there is nothing to attack")
    if not np.isfinite(x).all():
        raise AttackError("x: holds NaN or infinite values")
    if not bounds.lower < bounds.upper:
        raise AttackError(f"bounds: {bounds.lower:g} is not below {bounds.upper:g}")
    if x.min() < np.float32(bounds.lower) or x.max() > np.float32(bounds.upper):
        raise AttackError(
            f"x: values from {x.min():g} to {x.max():g}, "
            f"outside the bounds {bounds.lower:g} to {bounds.upper:g}"
        )


def _check_labels(y: Labels, n: int, generators: int) -> None:
    if not isinstance(y, np.ndarray) or y.dtype != np.int64:
        kind = getattr(y, "dtype", type(y).__name__)
        raise AttackError(f"y: {kind}, expected class indices as int64")
    if y.shape != (n,):
        raise AttackError(f"y: shape {y.shape}, expected ({n},): one class index per image")
    if generators != n:
        raise AttackError(f"rng: {generators} generators for {n} images")


def _check_targets(current: Labels, y: Labels) -> None:
    (same,) = np.nonzero(current == y)
    if len(same):
        raise AttackError(
            f"y: the target of image {same[0]} is class {y[same[0]]}, which the network gives "
            f"it already ({len(same)} of {len(y)} images); leave such images out"
        )


def _check_logits(logits: AnyArray, y: Labels) -> None:
    if logits.ndim != 2 or len(logits) != len(y):
        raise AttackError(
            f"the network returns shape (batch, {', '.join(map(str, logits.shape[1:]))}), "
            "expected logits of shape (batch, classes)"
        )
    if not np.isfinite(logits).all():
        raise AttackError("the network returns NaN or infinite logits")
    if logits.min() >= 0 and logits.max() <= 1 and np.allclose(logits.sum(axis=1), 1, atol=1e-3):
        raise AttackError(
            "the network returns probabilities (every row sums to 1), the attacks need logits: "
            "leave out the final softmax"
        )
    if y.min() < 0 or y.max() >= logits.shape[1]:
        raise AttackError(
            f"y: classes from {y.min()} to {y.max()}, the network has 0 to {logits.shape[1] - 1}"
        )
