"""The search of Carlini and Wagner (2017, arXiv 1608.04644) for the nearest image that is enough.

`cw`, `adaptive` and `past_squeezing` minimise, by Adam over w with x_adv = tanh(w) scaled to the
bounds,

    |x_adv - x|^2 + const * penalty(x_adv),

with a binary search over ``const`` for each image. They differ in their `Objective`: the penalty,
and when an image counts as found. The first search starts at the image itself, each of the
``restarts`` at a random point near it: `NEARBY` of the bounds' width on every value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from nmutant_cli.attacks.batches import logits_at
from nmutant_cli.config.attacks import NearestParams
from nmutant_cli.errors import AttackError
from nmutant_cli.networks import backend
from nmutant_cli.types import AnyArray, Bounds, Images, Labels

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
NO_UPPER_BOUND = 1e10
PATIENCE = 4
"""Tenths of the iterations without a smaller loss that end a step of the search."""
NEARBY = 0.1
"""Standard deviation of where a restart begins."""


class Problem(NamedTuple):
    """What ``n`` images are searched for; ``bounds`` ``(2,)`` and the two after it are shared.

    ``x``: ``(n, h, w, c)``. ``y``: the label aimed at or to get away from, ``(n,)``, as are
    ``const``, ``done`` (iterations that came before in this step) and ``iterations`` (those to do).
    """

    x: Any
    y: Any
    bounds: Any
    learning_rate: Any
    confidence: Any
    const: Any
    done: Any
    iterations: Any


class State(NamedTuple):
    """How far the search for ``n`` images is.

    ``best_l2``: the smallest distance so far. ``memory`` ``(n, k)``: what the objective keeps from
    one iteration to the next. ``delta``: w minus where it started; ``first``, ``second``: Adam's
    moments; all three of the shape of the images.
    """

    best_l2: Any
    memory: Any
    delta: Any
    first: Any
    second: Any


class Descent(NamedTuple):
    """What some iterations gave: the smallest loss, whether an image was found, the best one."""

    loss: Any
    found: Any
    best: Any
    state: State


Objective = Callable[[Any, Any, Any], tuple[Any, Any, Any]]
"""Iteration, images, memory to the penalty ``(n,)``, which images are enough ``(n,)``, memory."""
Iterate = Callable[[AnyArray, Problem, State], Descent]
"""`minimise` with an attack's objective, compiled; first come the indices of the images, -1: none.
"""


def minimise(objective: Objective, problem: Problem, state: State) -> Descent:
    """``problem.iterations[i]`` steps of Adam for image i; to be called inside a graph."""
    x, bounds = problem.x, problem.bounds
    start = start_at(x, bounds)
    last = ops.max(problem.iterations)

    def iteration(k: Any, smallest: Any, found: Any, best: Any, *state: Any) -> tuple[Any, ...]:
        best_l2, memory, delta, first, second = state

        def losses(delta: Any) -> tuple[tuple[Any], tuple[Any, ...]]:
            x_new = image_at(start + delta, bounds)
            penalty, enough, remembered = objective(k, x_new, memory)
            squares = ops.sum(ops.square(x_new - x), (1, 2, 3))
            return (squares + problem.const * penalty,), (x_new, squares, enough, remembered)

        (gradient,), (loss,), rest = backend.gradients(losses, delta)
        x_new, squares, enough, remembered = rest
        going = k < problem.iterations
        l2 = ops.sqrt(squares)
        success = ops.logical_and(going, enough)
        better = ops.logical_and(success, l2 < best_l2)
        rate = ops.where(going, problem.learning_rate, 0.0)
        return (
            k + 1,
            ops.where(going, ops.minimum(smallest, loss), smallest),
            ops.logical_or(found, success),
            ops.where(ops.reshape(better, (-1, 1, 1, 1)), x_new, best),
            ops.where(better, l2, best_l2),
            ops.where(going[:, None], remembered, memory),
            *adam(delta, first, second, gradient, rate, problem.done + k + 1),
        )

    smallest = ops.full_like(problem.const, np.inf)
    found = ops.zeros_like(problem.const, "bool")
    begin = (ops.zeros_like(last), smallest, found, x, *state)
    _, smallest, found, best, *state_then = ops.while_loop(lambda k, *_: k < last, iteration, begin)
    return Descent(smallest, found, best, State(*state_then))


def start_at(x: Any, bounds: Any) -> Any:
    """The w whose image is x, up to a millionth that keeps it finite; the shape of ``x``."""
    half, lower = (bounds[1] - bounds[0]) / 2, bounds[0]
    return ops.arctanh(((x - lower) / half - 1) * 0.999999)


def image_at(w: Any, bounds: Any) -> Any:
    """The image that w stands for, inside ``bounds``."""
    half, lower = (bounds[1] - bounds[0]) / 2, bounds[0]
    return (ops.tanh(w) + 1) * half + lower


def margins(logits: Any, y: Any) -> Any:
    """The logit of ``y`` minus the largest other one, a tensor of shape ``(n,)``."""
    others = ops.where(ops.one_hot(y, logits.shape[1], dtype="bool"), -np.inf, logits)
    return logits_at(logits, y) - ops.max(others, 1)


def adam(
    delta: Any, first: Any, second: Any, gradient: Any, learning_rate: Any, time: Any
) -> tuple[Any, Any, Any]:
    """Step ``time[i]`` of Adam for image i, counted from 1: the new w - w_0 and two moments."""
    time = ops.cast(time, "float32")
    rate = learning_rate * ops.sqrt(1 - BETA_2**time) / (1 - BETA_1**time)
    first = BETA_1 * first + (1 - BETA_1) * gradient
    second = BETA_2 * second + (1 - BETA_2) * ops.square(gradient)
    delta = delta - ops.reshape(rate, (-1, 1, 1, 1)) * first / (ops.sqrt(second) + EPSILON)
    return delta, first, second


class Slots:
    """``rows`` places, each with the whole state of one image's search.

    An image that is done gives its place to the next one. ``iterate`` is given ``at_once`` places
    at a time, always, and ``memory`` numbers of each to keep. ``rng`` has a generator per image,
    for where its restarts begin.
    """

    def __init__(
        self,
        x: Images,
        y: Labels,
        params: NearestParams,
        bounds: Bounds,
        rng: Sequence[np.random.Generator],
        rows: int,
        *,
        at_once: int,
        memory: int = 0,
    ) -> None:
        self.x, self.y, self.params, self.bounds, self.rng = x, y, params, bounds, rng
        self.x_adv = x.copy()
        self.at_once = at_once
        self.next = 0
        self.image = np.full(rows, -1)
        """Index of the image in each place, -1 where it is free."""
        self.search, self.step = np.zeros(rows, int), np.zeros(rows, int)
        self.iteration = np.zeros(rows, np.int32)
        self.const = np.zeros(rows, np.float32)
        self.lower, self.upper = np.zeros(rows), np.zeros(rows)
        self.found = np.zeros(rows, bool)
        self.loss = np.zeros(rows, np.float32)
        self.stale = np.zeros(rows, int)
        """Tenths of the iterations since the smallest loss last fell."""
        self.begin, *images = (np.zeros((rows, *x.shape[1:]), np.float32) for _ in range(4))
        """Where every step of a search begins: w minus that of the image."""
        self.state = State(
            np.zeros(rows, np.float32), np.zeros((rows, memory), np.float32), *images
        )

    def fill(self) -> bool:
        """Put the next images into free places; False once nothing is left to do."""
        for row in np.flatnonzero(self.image < 0)[: len(self.x) - self.next]:
            self.image[row] = self.next
            self.next += 1
            self.search[row] = 0
            self.state.best_l2[row] = np.inf
            self.begin[row] = 0
            self._begin_search(row)
        return bool((self.image >= 0).any())

    def _begin_search(self, row: int) -> None:
        self.step[row] = 0
        self.const[row] = self.params.initial_const
        self.lower[row], self.upper[row] = 0, NO_UPPER_BOUND
        self._begin_step(row)

    def _begin_step(self, row: int) -> None:
        self.iteration[row] = 0
        self.found[row] = False
        self.loss[row] = np.inf
        self.stale[row] = 0
        self.state.memory[row] = np.inf
        for array, begin in zip(self.state[2:], (self.begin[row], 0, 0), strict=True):
            array[row] = begin

    def descend(self, iterate: Iterate) -> None:
        """A tenth of the iterations in every place, then settle those whose step is over."""
        params, active = self.params, self.image >= 0
        left = params.max_iterations - self.iteration
        iterations = np.where(active, np.minimum(left, tenth(params)), 0).astype(np.int32)
        groups = range(0, len(active), self.at_once)
        parts = [
            self._part(iterate, slice(first, first + self.at_once), iterations) for first in groups
        ]
        loss, found, best = (np.concatenate(one) for one in list(zip(*parts, strict=True))[:3])
        if not np.isfinite(loss[active]).all():
            raise AttackError(
                f"{params.method}: the network's logits or gradients became NaN or infinite"
            )
        before = self.state.best_l2
        states = zip(*(part.state for part in parts), strict=True)
        self.state = State(*(np.concatenate(one) for one in states))
        better = active & (self.state.best_l2 < before)
        self.x_adv[self.image[better]] = best[better]
        self.iteration += iterations
        self.found |= found & active
        over = self.iteration >= params.max_iterations
        self.stale = np.where(loss > self.loss * np.float32(0.9999), self.stale + 1, 0)
        self.loss = np.minimum(self.loss, loss)
        if params.abort_early:
            over |= self.stale >= PATIENCE
        for row in np.flatnonzero(active & over):
            self._end_step(int(row))

    def _part(self, iterate: Iterate, rows: slice, iterations: AnyArray) -> Descent:
        images = self.image[rows]
        problem = Problem(
            x=self.x[images],
            y=self.y[images],
            bounds=np.asarray(self.bounds, np.float32),
            learning_rate=np.float32(self.params.learning_rate),
            confidence=np.float32(self.params.confidence),
            const=self.const[rows],
            done=self.iteration[rows],
            iterations=iterations[rows],
        )
        return iterate(images, problem, State(*(array[rows] for array in self.state)))

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
        if self.step[row] < steps:
            self._begin_step(row)
        elif self.search[row] < self.params.restarts:
            self.search[row] += 1
            self.begin[row] = self._nearby(self.image[row])
            self._begin_search(row)
        else:
            self.image[row] = -1

    def _nearby(self, image: int) -> AnyArray:
        """The w of a random point near an image, minus that of the image."""
        lower, upper = self.bounds
        noise = self.rng[image].normal(0, NEARBY * (upper - lower), self.x[image].shape)
        point = (self.x[image] + noise).clip(lower, upper).astype(np.float32)
        bounds = np.asarray(self.bounds, np.float32)
        there, here = (
            start_at(ops.convert_to_tensor(one), bounds) for one in (point, self.x[image])
        )
        return ops.convert_to_numpy(there - here)


def tenth(params: NearestParams) -> int:
    """Iterations between two looks at an image's loss."""
    return -(-params.max_iterations // 10)
