"""The L2 attack of Carlini and Wagner (2017, arXiv 1608.04644), batched.

From CleverHans 4's ``CarliniWagnerL2`` this keeps the parameter names and defaults, the change of
variable x = tanh(w), the loss and the schedule of the binary search. CleverHans's class itself
does not run on Keras 3 and could not be subclassed usefully. Repaired:

- ``targets`` decides whether the attack is targeted; there any label meant targeted.
- ``const``, its bounds, the best result and Adam's state belong to one image; there ``const`` had
  the shape of the image, which coupled the images of a batch and broke on RGB.
- ``confidence`` is a margin between two logits; there it was added to all logits, to no effect.
- A step of the binary search counts as a success if the attack succeeded in that step, as in the
  authors' code; there one success made every later step count as one.
- ``abort_early`` looks at one image's loss, and stops after four tenths of the iterations in
  which its smallest value did not fall. There it compared two single values of the sum over the
  batch. A single image's loss rises for a while when Adam overshoots: stopping after one such
  tenth made the mean L2 of 64 MNIST images 20% larger (100 iterations), after four 0%.
- Adam starts afresh in each step of the search, with the authors' epsilon of 1e-8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from nmutant_cli.attacks.batches import BATCH_SIZE, PredictLogits, about
from nmutant_cli.attacks.search import Descent, Problem, Slots, State, margins, minimise
from nmutant_cli.config.attacks import CWParams
from nmutant_cli.networks import backend
from nmutant_cli.types import AnyArray, Bounds, Images, Labels


def run(
    predict_logits: PredictLogits,
    x: Images,
    y: Labels,
    params: CWParams,
    bounds: Bounds,
    rng: Sequence[np.random.Generator] = (),
    *,
    batch_size: int = BATCH_SIZE,
) -> Images:
    """The nearest images (L2) found whose logit margin is at least ``confidence``.

    The margin is the logit of ``y`` minus the largest other one for a targeted attack, and the
    negative of that for an untargeted one. Each step of the binary search minimises, by Adam,
    |x_adv - x|^2 + const * max(confidence - margin, 0). Returns images of the shape of ``x``,
    inside ``bounds``; where the attack fails, the original image. ``rng``, one generator per image,
    is used by restarts alone.

    An image that is done gives its place in the batch to the next one. The network is always asked
    about `BATCH_SIZE` rows: hundreds of iterations would make a difference of the last bits, which
    depend on their number, visible. ``batch_size``, the number of images under way, is rounded up
    to a multiple of that.
    """
    sign = np.float32(1 if params.targets != "untargeted" else -1)
    rows = -(-batch_size // BATCH_SIZE) * BATCH_SIZE
    slots = Slots(x, y, params, bounds, rng, rows, at_once=BATCH_SIZE)

    def iterate(images: AnyArray, problem: Problem, state: State) -> Descent:
        about(predict_logits, images, BATCH_SIZE, problem.iterations)
        return _iterate(predict_logits, sign, problem, state)

    while slots.fill():
        slots.descend(iterate)
    return slots.x_adv


@backend.compiled
def _iterate(predict_logits: PredictLogits, sign: Any, problem: Problem, state: State) -> Descent:
    """`search.minimise` the penalty max(confidence - margin, 0)."""

    def objective(_: Any, x_new: Any, memory: Any) -> tuple[Any, Any, Any]:
        margin = sign * margins(predict_logits(x_new), problem.y)
        enough = ops.logical_and(margin > 0, margin >= problem.confidence)
        return ops.relu(problem.confidence - margin), enough, memory

    return minimise(objective, problem, state)


def margin_of(logits: AnyArray, y: Labels, targeted: bool) -> AnyArray:
    """The margin that ``confidence`` bounds from below, shape ``(n,)``, in units of a logit."""
    rows = np.arange(len(y))
    others = logits.copy()
    others[rows, y] = -np.inf
    margin = logits[rows, y] - others.max(axis=1)
    return margin if targeted else -margin
