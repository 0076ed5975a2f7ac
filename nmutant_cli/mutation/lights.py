"""Labels of images that are lit, found between two levels of light that were asked.

A mutation of the kind light moves an image along a line, the same for all of them. So the network
is asked at a few places of it, and where it says the same on both sides of a mutation's level, and
its lead between the two is no doubt (`mutation.doubt`), it says the same there. A label's lead over
each other label is nearly straight from one place to the next, so the least of these leads bends
upwards in the middle: what lies straight between the two ends is rarely too large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nmutant_cli.mutation.doubt import Doubt, Ranked
from nmutant_cli.mutation.operator import LIGHT, ImageShape, Mutations, lit
from nmutant_cli.types import Floats, Images, Ints, Labels

PLACES = np.linspace(-4, 4, 9)
"""The levels an image is asked at, in standard deviations of the operator's."""


@dataclass(frozen=True)
class Lighting:
    """How the labels of lit images are found for one network at one step size.

    ``spread``: the standard deviation of a level, step size 1. ``room``: see `Doubt.settled`.
    """

    spread: float
    doubt: Doubt
    ranked: Callable[[Images, Mutations], Ranked]
    room: Callable[[int], int]


class Lights:
    """What is known of ``n`` images under light. ``ask`` gives the labels of rows and their leads.

    An image is asked at all places once it has seen as many mutations of this kind: up to there
    they are asked themselves.
    """

    def __init__(
        self,
        lighting: Lighting,
        n: int,
        shape: ImageShape,
        ask: Callable[[Ints, Mutations], Ranked],
    ) -> None:
        self._lighting, self._ask, self._shape = lighting, ask, shape
        self._seen, self._known = np.zeros(n, np.int64), np.zeros(n, bool)
        self._label = np.zeros((n, len(PLACES)), np.int64)
        self._lead = np.zeros((n, len(PLACES)))

    def labels(self, owner: Ints, mutations: Mutations) -> Labels:
        """The label of image ``owner[i]`` after ``mutations[i]``: ``(n,)``."""
        place = mutations.level.astype(np.float64) / self._lighting.spread
        known = (mutations.kind == LIGHT) & (np.abs(place) <= PLACES[-1])
        self._look(owner[known])
        between = known & self._known[owner]
        rows, others = np.flatnonzero(between), np.flatnonzero(~between)
        out = np.zeros(len(owner), np.int64)

        def ask(which: Ints) -> Ranked:
            nonlocal others  # they fill the batches of the first call
            asked = np.concatenate([others, rows[which]])
            label, lead = self._ask(owner[asked], mutations[asked])
            out[others], n = label[: len(others)], len(others)
            others = others[:0]
            return label[n:], lead[n:]

        def room(count: int) -> int:
            return self._lighting.room(count + len(others)) - len(others)

        cheap = self._between(owner[rows], place[rows])
        out[rows], _ = self._lighting.doubt.settled(*cheap, ask, room)
        if len(others):
            ask(np.zeros(0, np.int64))
        return out

    def _look(self, owner: Ints) -> None:
        """Ask at all places about the images that have seen enough light."""
        self._seen += np.bincount(owner, minlength=len(self._seen))
        new = np.flatnonzero((self._seen >= len(PLACES)) & ~self._known)
        if not len(new):
            return
        levels = np.tile(self._lighting.spread * PLACES, len(new))
        label, lead = self._ask(new.repeat(len(PLACES)), lit(levels, self._shape))
        self._label[new] = label.reshape(len(new), -1)
        self._lead[new] = lead.reshape(len(new), -1)
        self._known[new] = True

    def _between(self, owner: Ints, place: Floats) -> Ranked:
        """The label on both sides and the lead straight between them; NaN where there are two."""
        left = np.searchsorted(PLACES, place).clip(1, len(PLACES) - 1) - 1
        part = (place - PLACES[left]) / (PLACES[left + 1] - PLACES[left])
        before, after = (self._lead[owner, at] for at in (left, left + 1))
        label = self._label[owner, left]
        same = label == self._label[owner, left + 1]
        return label, np.where(same, before + part * (after - before), np.nan)
