"""Labels of images that are lit, found between two levels of light that were asked.

A mutation of the kind light moves an image along a line, the same for all of them. So the network
is asked at a few places of it, and where it says the same on both sides of a mutation's level, and
its lead between the two is no doubt, it says the same there. A label's lead over each other label
is nearly straight from one place to the next, so the least of these leads bends upwards in the
middle: what lies straight between the two ends is rarely too large.
"""

from __future__ import annotations

import numpy as np

from nmutant_cli.mutation.doubt import Doubt
from nmutant_cli.mutation.operator import LIGHT, ImageShape, Mutations, lit
from nmutant_cli.mutation.shortcut import Asking, Shortcut
from nmutant_cli.types import Bools, Floats, Ints, Labels

PLACES = np.linspace(-4, 4, 9)
"""The levels an image is asked at, in standard deviations of the operator's."""
ENOUGH = 2 * len(PLACES)
"""Mutations of the kind that an image is asked first: by then many a test has decided."""


class Lights(Shortcut):
    """`Shortcut` for light. ``spread``: the standard deviation of a level, step size 1."""

    def __init__(
        self,
        n: int,
        shape: ImageShape,
        spread: float,
        doubt: Doubt,
        asking: Asking,
    ) -> None:
        super().__init__(n, doubt, ENOUGH, asking)
        self._shape, self._spread = shape, spread
        self._label = np.zeros((n, len(PLACES)), np.int64)
        self._lead = np.zeros((n, len(PLACES)))

    def takes(self, mutations: Mutations) -> Bools:
        """Light within the outermost places."""
        return (mutations.kind == LIGHT) & (np.abs(self._place(mutations)) <= PLACES[-1])

    def find_out(self, images: Ints) -> None:
        """Their labels and leads at all places."""
        levels = np.tile(self._spread * PLACES, len(images))
        label, lead = self._asking.ask(images.repeat(len(PLACES)), lit(levels, self._shape))
        self._label[images] = label.reshape(len(images), -1)
        self._lead[images] = lead.reshape(len(images), -1)

    def cheaply(self, owner: Ints, mutations: Mutations) -> tuple[Labels, Floats, Floats]:
        """The label on both sides and the lead straight between them; NaN where there are two."""
        place = self._place(mutations)
        left = np.searchsorted(PLACES, place).clip(1, len(PLACES) - 1) - 1
        part = (place - PLACES[left]) / (PLACES[left + 1] - PLACES[left])
        before, after = (self._lead[owner, at] for at in (left, left + 1))
        label = self._label[owner, left]
        same = label == self._label[owner, left + 1]
        lead = np.where(same, before + part * (after - before), np.nan)
        return label, lead, np.ones(len(lead))

    def _place(self, mutations: Mutations) -> Floats:
        return mutations.level.astype(np.float64) / self._spread
