"""A network under mutation at any step size, asked as cheaply as its labels allow.

Where the machine is faster in bfloat16, a label is asked in it first and once more in float32 where
that leaves a doubt (`mutation.doubt`). The label under light is found between two others
(`mutation.lights`), that with an occlusion from gradients (`mutation.slopes`). What comes out is
what float32 says.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Literal

import keras
import numpy as np

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.mutation.audit import Audit
from nmutant_cli.mutation.doubt import Doubt, Ranked
from nmutant_cli.mutation.graph import CompiledLabeller, fastest, seconds_each
from nmutant_cli.mutation.lights import Lights
from nmutant_cli.mutation.operator import ImageShape, Mutations, light_spread, patch_side
from nmutant_cli.mutation.shortcut import Ask, Asking, Shortcuts
from nmutant_cli.mutation.slopes import MOST, Gradients, Slopes
from nmutant_cli.networks import backend, gradients
from nmutant_cli.networks.inference import in_bfloat16
from nmutant_cli.types import Bounds, Images, Ints, Labels

WORTH = 5.0
"""Seconds for which a network is asked in float32 alone: further graphs take time to compile."""
AT_ONCE = 25_000_000
"""Values of the images that are taken together, which fill whole batches of those in doubt."""
PARTS = (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64)
"""Of 64 of a batch, which rows are filled up to: few rows need not fill it."""
PAYS = 1.2
"""So many times as fast as float32 must bfloat16 be to be asked first."""


def labeller(
    model: keras.Model,
    audit: Audit,
    *,
    mutation: Mutation,
    clip: Bounds | None = None,
    batch_size: int | Literal["auto"] = 1000,
    stochastic: bool = False,
    shortcuts: bool = True,
) -> Cascade | CompiledLabeller:
    """``model`` compiled with the mutation in front of it; ``at(step_size)`` is a `Labeller`.

    Without ``shortcuts`` it is asked in float32 alone, for every label; see `CompiledLabeller` for
    the other settings, of which ``auto`` takes the fastest batch size.
    """

    def compiled(batch_size: int, of: keras.Model = model) -> CompiledLabeller:
        return CompiledLabeller(
            of, 1.0, mutation=mutation, clip=clip, batch_size=batch_size, stochastic=stochastic
        )

    exact = fastest(compiled) if batch_size == "auto" else compiled(batch_size)
    if not shortcuts:
        return exact

    def quick() -> tuple[CompiledLabeller, float] | None:
        if not backend.has_bfloat16():
            return None
        found = compiled(exact.batch_size, in_bfloat16(model))
        times = seconds_each(exact) / seconds_each(found)
        return (found, times) if times > PAYS else None

    cascade = Cascade(exact, quick, audit)
    if not stochastic:  # else no two mutations meet the same network
        cascade.spread = _spread(mutation, exact.image_shape)
        cascade.gradients = _gradients(model, mutation, clip)
    return cascade


def _spread(mutation: Mutation, shape: ImageShape) -> float | None:
    """Of the levels of light, if there is light."""
    return light_spread(mutation, shape) if "light" in mutation.kinds else None


def _gradients(model: keras.Model, mutation: Mutation, clip: Bounds | None) -> Gradients | None:
    """Where there are occlusions, and gradients are worth it."""
    shape, classes, kinds = model.input_shape[1:], model.output_shape[-1], mutation.kinds
    # Clipped or large patches do not change the logits in proportion.
    small = clip is None and "gaussian" not in kinds and classes * int(np.prod(shape)) <= MOST
    # NumPy works the slopes out: on a GPU that is not known to pay.
    able = backend.on_cpu() and backend.name() in backend.TRAINING
    if not ("occlusion" in kinds and small and able):
        return None
    side = patch_side(mutation, shape)
    return Gradients(functools.partial(gradients.by_pixel, model), classes, side)


class Cascade:
    """A network under mutation, at any step size.

    ``exact``: its graph in float32. ``quick`` makes the one in bfloat16 once it is worth it, and
    says how many times as fast it is; None where that is no faster. Counts go to ``audit``.
    """

    def __init__(
        self,
        exact: CompiledLabeller,
        quick: Callable[[], tuple[CompiledLabeller, float] | None],
        audit: Audit,
    ) -> None:
        self.exact, self.audit = exact, audit
        self.spread: float | None = None
        """Of the levels of light, if labels are to be found between them."""
        self.gradients: Gradients | None = None
        """If labels are to be come by with them."""
        self._make = quick
        self._quick: CompiledLabeller | None = None
        self.times = 1.0
        """How many times as fast as in float32 a label is asked."""
        self._tried = False
        self.seconds = 0.0
        """Spent on asking in float32 alone."""
        self._steps: dict[float, AtStep] = {}

    def at(self, step_size: float) -> AtStep:
        """The network at one step size, with bounds of its own."""
        if step_size not in self._steps:
            self._steps[step_size] = AtStep(self, step_size)
        return self._steps[step_size]

    def quick(self) -> CompiledLabeller | None:
        """The graph in bfloat16, once it is worth it and where it is faster."""
        if self.seconds >= WORTH and not self._tried:
            self._tried, made = True, self._make()
            if made is not None:
                self._quick, self.times = made
        return self._quick


class AtStep:
    """The `sensitivity.Labeller` of a `Cascade` at one step size."""

    def __init__(self, network: Cascade, step_size: float) -> None:
        exact = network.exact.at(step_size)
        size = exact.batch_size
        self._network, self._step = network, step_size
        self._exact = exact.padding_to(tuple(-(-size * part // 64) for part in PARTS))
        self.batch_size, self.deterministic = size, exact.deterministic
        batches = AT_ONCE // (size * int(np.prod(exact.image_shape)))
        self.at_once = size * min(max(batches, 1), 8)
        audit = network.audit
        self.doubt = Doubt("bfloat16", audit.bfloat16)
        self._light, self._occlusion = Doubt("light", audit.light), Doubt("slopes", audit.occlusion)
        ways = network.spread, network.gradients
        self.shortcuts: Shortcuts | None = None if ways == (None, None) else self

    def __call__(self, images: Images, mutations: Mutations) -> Labels:
        return self.ranked(images, mutations)[0]

    def ranked(self, images: Images, mutations: Mutations) -> Ranked:
        """The label of each mutated image, and its logit's lead over the second."""
        quick = self._network.quick()
        if quick is None:
            start = time.perf_counter()
            found = self._exact.ranked(images, mutations)
            self._network.seconds += time.perf_counter() - start
            return found
        quick = quick.at(self._step).padding_to(self._exact.sizes)
        label, lead = quick.ranked(images, mutations)

        def exactly(rows: Ints) -> Ranked:
            return self._exact.ranked(images[rows], mutations[rows])

        return self.doubt.settled(label, lead, exactly, self._room)

    def over(self, images: Images, ask: Ask) -> Ask:
        """`Shortcuts.over`."""
        spread, by_pixel = self._network.spread, self._network.gradients

        def exactly(owner: Ints, mutations: Mutations) -> Ranked:
            return self._exact.ranked(images[owner], mutations)

        if by_pixel is not None:
            asking = Asking(ask, exactly, lambda: self.doubt.bound, self._room)
            doubt, times = self._occlusion, self._network.times
            ask = Slopes(images, by_pixel, self._step, times, doubt, asking).ranked
        if spread is not None:
            asking = Asking(ask, exactly, lambda: 0.0, self._room)  # its own are as blurred
            ask = Lights(len(images), images.shape[1:], spread, self._light, asking).ranked
        return ask

    def _room(self, rows: int) -> int:
        """How many rows the batches for ``rows`` have room for."""
        full, rest = divmod(rows, self.batch_size)
        last = next(size for size in self._exact.sizes if size >= rest) if rest else 0
        return full * self.batch_size + last
