"""C&W by an attacker who knows that the labels of mutants are watched.

Expectation over transformation (Athalye et al. 2018, arXiv 1707.07397) with the paper's mutation
operator for the transformations: the loss of C&W's targeted L2 attack (`cw`) is taken not at the
image but as a mean over mutants of it, drawn afresh in every iteration,

    |delta|^2 + const * mean over m of max(confidence - margin(x + delta + step_size * m), 0),

with margin the target's logit minus the largest other one. The change of variable, Adam and the
binary search over ``const`` are those of `cw`.

When an image counts as found is our choice. The iterations are tests as well, for their mutants are
new to the image: of those of the last `WINDOW` iterations (20 draws: 200 mutants) at most a share
of ``tolerance`` had another label than the target, and the image's own margin is ``confidence``
now. One iteration would not do: an image with a kappa of 5% passes 20 mutants in every third, and
among hundreds of iterations the nearest image is the luckiest one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from nmutant_cli.attacks import cw
from nmutant_cli.attacks.batches import PredictLogits
from nmutant_cli.config.attacks import AdaptiveParams
from nmutant_cli.config.settings import Mutation
from nmutant_cli.mutation.graph import Mutate
from nmutant_cli.mutation.operator import draw
from nmutant_cli.types import AnyArray, Bounds, Images, Labels

BATCH_SIZE = 1
"""Images under way. More gain nothing on a CPU, where mutants fill the batch, and an image's place
among others would show in the last bits of its logits, then in hundreds of iterations."""
WINDOW = 10

_mutate = Mutate()


def run(
    predict_logits: PredictLogits,
    x: Images,
    y: Labels,
    params: AdaptiveParams,
    bounds: Bounds,
    rng: Sequence[np.random.Generator],
    *,
    batch_size: int = BATCH_SIZE,
) -> Images:
    """The nearest images (L2) found that keep the label ``y`` when mutated.

    ``rng`` holds one generator per image, for its mutations. Returns images of the shape of ``x``,
    inside ``bounds``; where the attack fails, the original image. The network is asked about
    ``batch_size`` * (``params.draws`` + 1) rows at a time.
    """
    slots = _Slots(x, y, params, bounds, rng, batch_size)
    while slots.fill():
        slots.descend(predict_logits)
    return slots.x_adv


class _Slots(cw._Slots):
    def __init__(
        self,
        x: Images,
        y: Labels,
        params: AdaptiveParams,
        bounds: Bounds,
        rng: Sequence[np.random.Generator],
        rows: int,
    ) -> None:
        super().__init__(x, y, params, bounds, rows)
        self.adaptive, self.rng, self.at_once = params, rng, rows
        self.mutation = Mutation(amplitude=params.amplitude)
        self.changed = np.zeros((rows, WINDOW), np.float32)
        """The share of mutants with another label in the last iterations, the newest at the end."""

    def _restart(self, row: int) -> None:
        super()._restart(row)
        self.changed[row] = np.inf

    def iterate(
        self, predict_logits: PredictLogits, rows: slice, iterations: AnyArray
    ) -> Sequence[Any]:
        *results, changed = _iterate(
            predict_logits,
            self.x[self.image[rows]],
            self.y[self.image[rows]],
            np.float32(self.params.confidence),
            np.float32(self.adaptive.tolerance),
            np.float32(self.params.learning_rate),
            np.asarray(self.bounds, np.float32),
            self.const[rows],
            self.best_l2[rows],
            self.iteration[rows],
            iterations,
            self.changed[rows],
            *self._draw(self.image[rows], iterations),
            *self.state[:, rows],
        )
        self.changed[rows] = changed
        return results

    def _draw(self, images: AnyArray, iterations: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray]:
        """Corners, levels and patches as `Mutate` takes them, ``(tenth, images, 1 + draws, ...)``.

        The first mutation of each image is left as nothing, for the label of the image itself; so
        are those of an image for iterations that it does not do.
        """
        side = min(self.mutation.max_rectangle, *self.x.shape[1:3])
        leading = (self.tenth, len(images), 1 + self.adaptive.draws)
        corners = np.zeros((*leading, 4), np.int32)
        level = np.zeros(leading, np.float32)
        patch = np.zeros((*leading, side, side, self.x.shape[3]), np.float32)
        for i, (image, count) in enumerate(zip(images, iterations, strict=True)):
            if image < 0:
                continue
            n = (count, self.adaptive.draws)
            m = draw(self.rng[image], count * n[1], self.x.shape[1:], self.mutation)
            edges = np.stack([m.top, m.left, m.top + m.height, m.left + m.width], axis=1)
            corners[:count, i, 1:] = edges.reshape(*n, 4)
            level[:count, i, 1:] = m.level.reshape(n)
            patch[:count, i, 1:] = m.patch.reshape(*n, *patch.shape[3:])
        step = np.float32(self.adaptive.step_size)
        return corners, step * level, step * patch


@tf.function
def _iterate(
    predict_logits: PredictLogits,
    x: Any,
    y: Any,
    confidence: Any,
    tolerance: Any,
    learning_rate: Any,
    bounds: Any,
    const: Any,
    best_l2: Any,
    done: Any,
    iterations: Any,
    changed: Any,
    corners: Any,
    level: Any,
    patch: Any,
    delta: Any,
    first: Any,
    second: Any,
) -> tuple[Any, ...]:
    """`cw._iterate` at mutants: those of iteration k are ``corners[k]`` etc.; and ``changed``."""
    start = cw.start_at(x, bounds)
    shape = level.shape[1:]
    rows = shape[0] * shape[1]
    smallest = tf.fill(tf.shape(const), np.float32(np.inf))
    found = tf.zeros_like(const, tf.bool)
    best = x
    for k in tf.range(tf.reduce_max(iterations)):
        with tf.GradientTape() as tape:
            tape.watch(delta)
            x_new = cw.image_at(start + delta, bounds)
            mutants = _mutate(
                [
                    tf.repeat(x_new, shape[1], axis=0),
                    tf.reshape(corners[k], [rows, 4]),
                    tf.reshape(level[k], [rows]),
                    tf.reshape(patch[k], [rows, *patch.shape[3:]]),
                ]
            )
            margin = cw.margins(predict_logits(mutants), tf.repeat(y, shape[1]))
            margin = tf.reshape(margin, shape)
            squares = tf.reduce_sum(tf.square(x_new - x), [1, 2, 3])
            hinge = tf.reduce_mean(tf.nn.relu(confidence - margin[:, 1:]), 1)
            loss = squares + const * hinge
        gradient = tape.gradient(loss, delta)
        going = k < iterations
        l2 = tf.sqrt(squares)
        share = tf.reduce_mean(tf.cast(margin[:, 1:] <= 0, tf.float32), 1, keepdims=True)
        changed = tf.where(going[:, None], tf.concat([changed[:, 1:], share], 1), changed)
        steady = tf.reduce_mean(changed, 1) <= tolerance + 1e-6
        own = margin[:, 0]
        success = going & steady & (own > 0) & (own >= confidence)
        better = success & (l2 < best_l2)
        found |= success
        best_l2 = tf.where(better, l2, best_l2)
        best = tf.where(tf.reshape(better, [-1, 1, 1, 1]), x_new, best)
        smallest = tf.where(going, tf.minimum(smallest, loss), smallest)
        rate = tf.where(going, learning_rate, 0.0)
        delta, first, second = cw.adam(delta, first, second, gradient, rate, done + k + 1)
    return smallest, best, best_l2, found, delta, first, second, changed
