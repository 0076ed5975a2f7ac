"""C&W by an attacker who knows that the labels of mutants are watched.

Expectation over transformation (Athalye et al. 2018, arXiv 1707.07397), the transformations being
the detector's mutations: the loss of C&W's targeted L2 attack (`cw`) is taken not at the image but
as a mean over mutants of it, drawn afresh in every iteration,

    |delta|^2 + const * mean over m of max(aim - margin(m(x + delta)), 0),

with m(x) = x + step_size * m for the paper's mutations (`mutation.operator` has the others) and
margin the target's logit minus the largest other one. A mean lets a few mutants lag behind, so
where nearly none may have another label, the margin that all are pushed to, ``aim``, has to be
larger than the one asked of the image. The change of variable, Adam, the restarts
and the binary search over ``const`` are those of `search`.

When an image counts as found is our choice. The iterations are tests as well, for their mutants are
new to the image: of those of the last `WINDOW` iterations (20 draws: 200 mutants) at most a share
of ``tolerance`` had another label than the target, and the image's own margin is ``confidence``
now. Among hundreds of iterations the nearest such image is the luckiest one, and the window is that
of the images before it. So it is kept only if of `FRESH` mutants more no larger share has another
label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from nmutant_cli.attacks.batches import PredictLogits
from nmutant_cli.attacks.search import Descent, Problem, Slots, State, margins, minimise, tenth
from nmutant_cli.config.attacks import AdaptiveParams
from nmutant_cli.mutation.graph import Mutate, arguments
from nmutant_cli.mutation.operator import (
    WARPING,
    ImageShape,
    Mutations,
    draw,
    identity,
    patch_side,
)
from nmutant_cli.networks import backend, gradients
from nmutant_cli.types import AnyArray, Bounds, Images, Labels

BATCH_SIZE, ACCELERATED = 1, 50
"""Images under way, on a CPU and on an accelerator. More gain nothing on a CPU, where mutants fill
the batch, and an image's place among others would show in the last bits of its logits, then in
hundreds of iterations."""
WINDOW = 10
FRESH = 200

_mutate = Mutate()


def run(
    predict_logits: PredictLogits,
    x: Images,
    y: Labels,
    params: AdaptiveParams,
    bounds: Bounds,
    rng: Sequence[np.random.Generator],
    *,
    batch_size: int | None = None,
) -> Images:
    """The nearest images (L2) found that keep the label ``y`` when mutated.

    ``rng`` holds one generator per image, for its mutations. Returns images of the shape of ``x``,
    inside ``bounds``; where the attack fails, the original image. The network is asked about
    ``batch_size`` * (``params.draws`` + 1) rows at a time.
    """
    if batch_size is None:
        batch_size = BATCH_SIZE if backend.device().startswith("CPU") else ACCELERATED
    network = gradients.quick(predict_logits)
    slots = Slots(x, y, params, bounds, rng, batch_size, at_once=batch_size, memory=WINDOW)
    draws = _Draws(params, x.shape[1:], rng)
    tolerance = np.float32(params.tolerance)
    aim = np.float32(params.confidence if params.aim is None else params.aim)

    def iterate(images: AnyArray, problem: Problem, state: State) -> Descent:
        block = draws(images, problem.iterations)
        descent = _iterate(network, tolerance, aim, block, problem, state)
        best_l2, found = np.array(descent.state.best_l2), np.array(descent.found)
        for row in np.flatnonzero(best_l2 < state.best_l2):
            mutations = draws.fresh(images[row])
            changed = _changed(network, descent.best[row], problem.y[row], mutations)
            if changed > params.tolerance + 1e-6:
                best_l2[row], found[row] = state.best_l2[row], False
        return descent._replace(found=found, state=descent.state._replace(best_l2=best_l2))

    while slots.fill():
        slots.descend(iterate)
    return slots.x_adv


class Block(NamedTuple):
    """Mutations as `Mutate` takes them, each of shape ``(iterations, images, 1 + draws, ...)``.

    ``warp``: gain and affine where the images are warped, else nothing.
    """

    corners: AnyArray
    level: AnyArray
    patch: AnyArray
    warp: tuple[AnyArray, ...]


class _Draws:
    """Draws the mutations of each image, from its generator, as they are asked for."""

    def __init__(
        self, params: AdaptiveParams, shape: ImageShape, rng: Sequence[np.random.Generator]
    ) -> None:
        self.params, self.shape, self.rng = params, shape, rng
        self.warps = not WARPING.isdisjoint(params.mutation.kinds)

    def __call__(self, images: AnyArray, iterations: AnyArray) -> Block:
        """A tenth of the iterations for ``images``, indices of which -1 stands for none.

        The first mutation of each image is left as nothing, for the label of the image itself; so
        are those of an image for iterations that it does not do.
        """
        leading = (tenth(self.params), len(images), 1 + self.params.draws)
        nothing = identity(1, self.shape, patch_side(self.params.mutation, self.shape))
        block = [
            np.broadcast_to(one[0], (*leading, *one.shape[1:])).copy()
            for one in self._arguments(nothing)
        ]
        for i, (image, count) in enumerate(zip(images, iterations, strict=True)):
            if image < 0:
                continue
            drawn = self._drawn(image, count * self.params.draws)
            for whole, one in zip(block, drawn, strict=True):
                whole[:count, i, 1:] = one.reshape(count, self.params.draws, *one.shape[1:])
        corners, level, patch, *warp = block
        return Block(corners, level, patch, tuple(warp))

    def fresh(self, image: int) -> list[AnyArray]:
        """`FRESH` mutations of an image, as `Mutate` takes them."""
        return self._drawn(image, FRESH)

    def _drawn(self, image: int, n: int) -> list[AnyArray]:
        return self._arguments(draw(self.rng[image], n, self.shape, self.params.mutation))

    def _arguments(self, mutations: Mutations) -> list[AnyArray]:
        return arguments(mutations, self.params.step_size, self.shape if self.warps else None)


@backend.compiled
def _iterate(
    predict_logits: PredictLogits,
    tolerance: Any,
    aim: Any,
    block: Block,
    problem: Problem,
    state: State,
) -> Descent:
    """`search.minimise` the mean penalty of mutants: those of iteration k are ``block[...][k]``.

    The state remembers the share of mutants with another label in each of the last iterations.
    """
    shape = block.level.shape[1:]
    rows = shape[0] * shape[1]

    def objective(k: Any, x_new: Any, memory: Any) -> tuple[Any, Any, Any]:
        mutants = _mutate(
            [
                ops.repeat(x_new, shape[1], axis=0),
                ops.reshape(block.corners[k], (rows, 4)),
                ops.reshape(block.level[k], (rows,)),
                ops.reshape(block.patch[k], (rows, *block.patch.shape[3:])),
                *(ops.reshape(one[k], (rows, *one.shape[3:])) for one in block.warp),
            ]
        )
        margin = margins(predict_logits(mutants), ops.repeat(problem.y, shape[1]))
        margin = ops.reshape(margin, shape)
        own, margin = margin[:, 0], margin[:, 1:]
        changed = ops.mean(ops.cast(margin <= 0, "float32"), 1, keepdims=True)
        memory = ops.concatenate([memory[:, 1:], changed], 1)
        steady = ops.mean(memory, 1) <= tolerance + 1e-6
        apart = ops.logical_and(own > 0, own >= problem.confidence)
        enough = ops.logical_and(steady, apart)
        return ops.mean(ops.relu(aim - margin), 1), enough, memory

    return minimise(objective, problem, state)


@backend.compiled
def _changed(predict_logits: PredictLogits, image: Any, y: Any, mutations: list[Any]) -> Any:
    """The share of mutants of one image whose label is not ``y``."""
    mutants = _mutate([ops.repeat(image[None], FRESH, axis=0), *mutations])
    margin = margins(predict_logits(mutants), ops.repeat(y, FRESH))
    return ops.mean(ops.cast(margin <= 0, "float32"))
