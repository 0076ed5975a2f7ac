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
import tensorflow as tf

from nmutant_cli.attacks.batches import BATCH_SIZE, PredictLogits
from nmutant_cli.config.attacks import CWParams, NearestParams
from nmutant_cli.errors import AttackError
from nmutant_cli.types import AnyArray, Bounds, Images, Labels

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
NO_UPPER_BOUND = 1e10
PATIENCE = 4
"""Tenths of the iterations without a smaller loss that end a step of the search."""


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
    inside ``bounds``; where the attack fails, the original image. ``rng`` is not used.

    An image that is done gives its place in the batch to the next one. The network is always asked
    about `BATCH_SIZE` rows: hundreds of iterations would make a difference of the last bits, which
    depend on their number, visible. ``batch_size``, the number of images under way, is rounded up
    to a multiple of that.
    """
    slots = _Slots(x, y, params, bounds, -(-batch_size // BATCH_SIZE) * BATCH_SIZE)
    while slots.fill():
        slots.descend(predict_logits)
    return slots.x_adv


class _Slots:
    """``rows`` places, each with the whole state of one image's search."""

    def __init__(
        self, x: Images, y: Labels, params: NearestParams, bounds: Bounds, rows: int
    ) -> None:
        self.x, self.y, self.params, self.bounds = x, y, params, bounds
        self.x_adv = x.copy()
        self.at_once = BATCH_SIZE
        self.next = 0
        self.tenth = -(-params.max_iterations // 10)
        self.image = np.full(rows, -1)
        """Index of the image in each place, -1 where it is free."""
        self.step = np.zeros(rows, int)
        self.iteration = np.zeros(rows, np.int32)
        self.const = np.zeros(rows, np.float32)
        self.lower, self.upper = np.zeros(rows), np.zeros(rows)
        self.found = np.zeros(rows, bool)
        self.loss = np.zeros(rows, np.float32)
        self.stale = np.zeros(rows, int)
        """Tenths of the iterations since the smallest loss last fell."""
        self.best_l2 = np.zeros(rows, np.float32)
        # w - w_0, and Adam's two moments
        self.state = np.zeros((3, rows, *x.shape[1:]), np.float32)

    def fill(self) -> bool:
        """Put the next images into free places; False once nothing is left to do."""
        for row in np.flatnonzero(self.image < 0)[: len(self.x) - self.next]:
            self.image[row] = self.next
            self.next += 1
            self.step[row] = 0
            self.const[row] = self.params.initial_const
            self.lower[row], self.upper[row] = 0, NO_UPPER_BOUND
            self.best_l2[row] = np.inf
            self._restart(row)
        return bool((self.image >= 0).any())

    def _restart(self, row: int) -> None:
        self.iteration[row] = 0
        self.found[row] = False
        self.loss[row] = np.inf
        self.stale[row] = 0
        self.state[:, row] = 0

    def descend(self, predict_logits: PredictLogits) -> None:
        """A tenth of the iterations in every place, then settle those whose step is over."""
        active = self.image >= 0
        left = self.params.max_iterations - self.iteration
        iterations = np.where(active, np.minimum(left, self.tenth), 0).astype(np.int32)
        parts = []
        for first in range(0, len(active), self.at_once):
            rows = slice(first, first + self.at_once)
            results = self.iterate(predict_logits, rows, iterations[rows])
            parts.append([np.asarray(result) for result in results])
        loss, best, best_l2, found, *state = map(np.concatenate, zip(*parts, strict=True))
        if not np.isfinite(loss[active]).all():
            raise AttackError(
                f"{self.params.method}: the network's logits or gradients became NaN or infinite"
            )
        self.state = np.stack(state)
        self.iteration += iterations
        self.found |= found & active
        better = active & (best_l2 < self.best_l2)
        self.x_adv[self.image[better]] = best[better]
        self.best_l2 = np.where(better, best_l2, self.best_l2)
        over = self.iteration >= self.params.max_iterations
        self.stale = np.where(loss > self.loss * np.float32(0.9999), self.stale + 1, 0)
        self.loss = np.minimum(self.loss, loss)
        if self.params.abort_early:
            over |= self.stale >= PATIENCE
        for row in np.flatnonzero(active & over):
            self._end_step(int(row))

    def iterate(
        self, predict_logits: PredictLogits, rows: slice, iterations: AnyArray
    ) -> Sequence[Any]:
        """``iterations`` steps of Adam in the places ``rows``; results as of `_iterate`."""
        return _iterate(
            predict_logits,
            self.x[self.image[rows]],
            self.y[self.image[rows]],
            np.float32(1 if self.params.targets != "untargeted" else -1),
            np.float32(self.params.confidence),
            np.float32(self.params.learning_rate),
            np.asarray(self.bounds, np.float32),
            self.const[rows],
            self.best_l2[rows],
            self.iteration[rows],
            iterations,
            *self.state[:, rows],
        )

    def _end_step(self, row: int) -> None:
        """Narrow the search for ``const``; free the place after the last step."""
        const = float(self.const[row])
        if self.found[row]:
            self.upper[row] = min(self.upper[row], const)
        else:
            self.lower[row] = max(self.lower[row], const)
        bounded = self.upper[row] < NO_UPPER_BOUND
        self.const[row] = (self.lower[row] + self.upper[row]) / 2 if bounded else const * 10
        self.step[row] += 1
        steps = self.params.binary_search_steps
        if steps >= 10 and self.step[row] == steps - 1:
            self.const[row] = self.upper[row]  # the last of many steps takes what worked
        if self.step[row] == steps:
            self.image[row] = -1
        else:
            self._restart(row)


@tf.function
def _iterate(
    predict_logits: PredictLogits,
    x: Any,
    y: Any,
    sign: Any,
    confidence: Any,
    learning_rate: Any,
    bounds: Any,
    const: Any,
    best_l2: Any,
    done: Any,
    iterations: Any,
    delta: Any,
    first: Any,
    second: Any,
) -> tuple[Any, ...]:
    """``iterations[i]`` steps of Adam for image i, after ``done[i]`` earlier ones.

    Returns the smallest loss, the best image with its L2 distance, whether the attack succeeded in
    one of these steps, and the new state.
    """
    start = start_at(x, bounds)
    rows = [-1, 1, 1, 1]
    smallest = tf.fill(tf.shape(const), np.float32(np.inf))
    found = tf.zeros_like(const, tf.bool)
    best = x
    for k in tf.range(tf.reduce_max(iterations)):
        with tf.GradientTape() as tape:
            tape.watch(delta)
            x_new = image_at(start + delta, bounds)
            margin = sign * margins(predict_logits(x_new), y)
            squares = tf.reduce_sum(tf.square(x_new - x), [1, 2, 3])
            loss = squares + const * tf.nn.relu(confidence - margin)
        gradient = tape.gradient(loss, delta)
        going = k < iterations
        l2 = tf.sqrt(squares)
        success = going & (margin > 0) & (margin >= confidence)
        better = success & (l2 < best_l2)
        found |= success
        best_l2 = tf.where(better, l2, best_l2)
        best = tf.where(tf.reshape(better, rows), x_new, best)
        smallest = tf.where(going, tf.minimum(smallest, loss), smallest)
        rate = tf.where(going, learning_rate, 0.0)
        delta, first, second = adam(delta, first, second, gradient, rate, done + k + 1)
    return smallest, best, best_l2, found, delta, first, second


def start_at(x: Any, bounds: Any) -> Any:
    """The w whose image is x, up to a millionth that keeps it finite; the shape of ``x``."""
    half, lower = (bounds[1] - bounds[0]) / 2, bounds[0]
    return tf.atanh(((x - lower) / half - 1) * 0.999999)


def image_at(w: Any, bounds: Any) -> Any:
    """The image that w stands for, inside ``bounds``."""
    half, lower = (bounds[1] - bounds[0]) / 2, bounds[0]
    return (tf.tanh(w) + 1) * half + lower


def margins(logits: Any, y: Any) -> Any:
    """The logit of ``y`` minus the largest other one, a tensor of shape ``(n,)``."""
    own = tf.gather(logits, y, batch_dims=1)
    others = tf.where(tf.one_hot(y, tf.shape(logits)[1], True, False), -np.inf, logits)
    return own - tf.reduce_max(others, 1)


def adam(
    delta: Any, first: Any, second: Any, gradient: Any, learning_rate: Any, time: Any
) -> tuple[Any, Any, Any]:
    """Step ``time[i]`` of Adam for image i, counted from 1: the new w - w_0 and two moments."""
    time = tf.cast(time, tf.float32)
    rate = learning_rate * tf.sqrt(1 - BETA_2**time) / (1 - BETA_1**time)
    first = BETA_1 * first + (1 - BETA_1) * gradient
    second = BETA_2 * second + (1 - BETA_2) * tf.square(gradient)
    delta -= tf.reshape(rate, [-1, 1, 1, 1]) * first / (tf.sqrt(second) + EPSILON)
    return delta, first, second


def margin_of(logits: AnyArray, y: Labels, targeted: bool) -> AnyArray:
    """The margin that ``confidence`` bounds from below, shape ``(n,)``, in units of a logit."""
    rows = np.arange(len(y))
    others = logits.copy()
    others[rows, y] = -np.inf
    margin = logits[rows, y] - others.max(axis=1)
    return margin if targeted else -margin
