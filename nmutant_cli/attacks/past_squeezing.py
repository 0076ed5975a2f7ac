"""C&W by an attacker who knows that images are squeezed (`detectors.squeezing`).

The target's margin is asked for on the image and on both of its squeezed forms, so that all three
get the same softmax:

    |delta|^2 + const * mean over s of max(confidence - margin(s(x + delta)), 0),

s being nothing, the reduction of the depth, and the median of 2x2 pixels. Rounding has no gradient;
the backward pass takes it for nothing (BPDA, Athalye et al. 2018, arXiv 1802.00420), as He et al.
(2017, arXiv 1706.04701) did against this detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from nmutant_cli.attacks.batches import BATCH_SIZE, PredictLogits
from nmutant_cli.attacks.search import Descent, Problem, Slots, State, margins, minimise
from nmutant_cli.config.attacks import PastSqueezingParams
from nmutant_cli.networks import backend, gradients
from nmutant_cli.types import AnyArray, Bounds, Images, Labels


def run(
    predict_logits: PredictLogits,
    x: Images,
    y: Labels,
    params: PastSqueezingParams,
    bounds: Bounds,
    rng: Sequence[np.random.Generator],
    *,
    batch_size: int = BATCH_SIZE,
) -> Images:
    """The nearest images (L2) found whose margin is ``confidence``, squeezed or not.

    The margin is the logit of the target ``y`` minus the largest other one. ``rng`` holds one
    generator per image, for restarts. Returns images of the shape of ``x``, inside ``bounds``;
    where the attack fails, the original image. The network is asked about 3 * `BATCH_SIZE` rows at
    a time; ``batch_size`` is rounded up as by `cw.run`.
    """
    rows = -(-batch_size // BATCH_SIZE) * BATCH_SIZE
    network = gradients.quick(predict_logits)
    slots = Slots(x, y, params, bounds, rng, rows, at_once=BATCH_SIZE)
    last = np.float32(2**params.bits - 1)

    def iterate(images: AnyArray, problem: Problem, state: State) -> Descent:
        return _iterate(network, last, problem, state)

    while slots.fill():
        slots.descend(iterate)
    return slots.x_adv


@backend.compiled
def _iterate(predict_logits: PredictLogits, last: Any, problem: Problem, state: State) -> Descent:
    """`search.minimise` the mean penalty of the image and its squeezed forms."""

    def objective(_: Any, x_new: Any, memory: Any) -> tuple[Any, Any, Any]:
        forms = ops.concatenate([x_new, reduced(x_new, last), smoothed(x_new)], 0)
        margin = ops.reshape(margins(predict_logits(forms), ops.tile(problem.y, [3])), (3, -1))
        lowest = ops.min(margin, 0)
        enough = ops.logical_and(lowest > 0, lowest >= problem.confidence)
        return ops.mean(ops.relu(problem.confidence - margin), 0), enough, memory

    return minimise(objective, problem, state)


def reduced(x: Any, last: Any) -> Any:
    """``x`` in [0, 1] at ``last + 1`` levels; the gradient is that of ``x``."""
    return x + ops.stop_gradient(ops.round(x * last) / last - x)


def smoothed(x: Any) -> Any:
    """The third smallest of each pixel and its three neighbours above and to the left, mirrored."""
    up = ops.concatenate([x[:, :1], x[:, :-1]], 1)
    left, both = (ops.concatenate([one[:, :, :1], one[:, :, :-1]], 2) for one in (x, up))
    return ops.sort(ops.stack([x, up, left, both]), 0)[2]
