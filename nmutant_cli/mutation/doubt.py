"""Which of the labels that were come by cheaply are to be asked exactly.

A label is in doubt where the lead of its logit over the second is no larger than a bound: twice as
much as a cheap lead was too large by in the first rows. A larger excess, seen later, is a reason
for a new bound. Some of the other rows are audited; a label that differs there is such an excess,
so the bound more than doubles and the rows are gone through again. What comes out is what is said
exactly.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from nmutant_cli.mutation.audit import Counts
from nmutant_cli.types import Bools, Floats, Ints, Labels

log = logging.getLogger("nmutant")

LEARNT = 2_000
"""Rows that are asked both ways, evenly spread over the first calls, for the first bound."""
FACTOR = 2.0
"""The bound over the largest excess."""
AUDITED = 0.01
"""The least share of the rows without doubt that is asked exactly."""
IN_VAIN = 0.7
"""The share of rows in doubt above which the cheap way is not worth it."""

Ranked = tuple[Labels, Floats]
"""Labels, and by how much the logit of each leads."""


class Doubt:
    """The doubt about labels come by in one way, named ``way``; counts go to ``counts``.

    ``bound``: a lead above it is no doubt.
    """

    def __init__(self, way: str, counts: Counts) -> None:
        self._way, self._counts = way, counts
        self.bound = 0.0
        self._learnt = self._settled = self._doubted = 0

    @property
    def in_vain(self) -> bool:
        """Whether nearly all rows are in doubt, as far as is known."""
        return self._settled > LEARNT and self._doubted > IN_VAIN * self._settled

    def settled(
        self,
        label: Labels,
        lead: Floats,
        ask: Callable[[Ints], Ranked],
        room: Callable[[int], int],
        learn: Callable[[Ints], Ranked] | None = None,
    ) -> Ranked:
        """The labels ``(n,)`` and leads, those in doubt as ``ask(rows)`` says them.

        A lead that is no number is a doubt. ``room(k)``: how many rows the batches for k of them
        have room for; they are filled up with rows to audit. ``learn(rows)`` is asked for the first
        bound, if the leads that ``ask`` gives are not good enough.
        """
        n = len(label)
        cheap, cheap_lead, label, lead = label, lead, label.copy(), lead.copy()
        left = min(max(LEARNT - self._learnt, 0), n)
        self._learnt += left
        both, done = np.zeros(n, bool), np.zeros(n, bool)
        both[_spread(np.arange(n), left)] = True

        def differs(rows: Ints, ask: Callable[[Ints], Ranked] = ask) -> Bools:
            label[rows], lead[rows] = ask(rows)
            done[rows] = True
            other = label[rows] != cheap[rows]
            excess = cheap_lead[rows] - np.where(other, -lead[rows], lead[rows])
            self._learn(excess, learning=left > 0)
            return other

        def doubted() -> Bools:
            return both | ~(cheap_lead > self.bound)  # NaN is a doubt, too

        if left:
            differs(np.flatnonzero(both), learn or ask)
        doubt = doubted()
        new = doubt & ~done
        rows = np.flatnonzero(new | self._audited(new, ~doubt, room))
        while len(rows):
            wrong = int((differs(rows) & ~doubt[rows]).sum())
            if wrong:
                self._counts.disagreed += wrong
                log.info("%s: %d audited labels differ, bound %g", self._way, wrong, self.bound)
            doubt = doubted()  # what was found out may put further rows in doubt
            new = doubt & ~done
            if new.any():
                new |= self._audited(new, ~doubt & ~done, room)
            rows = np.flatnonzero(new)
        self._settled += n - left
        self._doubted += int((doubt & ~both).sum())
        self._counts.first += n
        self._counts.again += int(doubt.sum())
        self._counts.audited += int((done & ~doubt).sum())
        self._counts.bound = max(self._counts.bound, self.bound)
        return label, lead

    def _learn(self, excess: Floats, *, learning: bool) -> None:
        known = excess[~np.isnan(excess)]
        if len(known) and (learning or known.max() > self.bound):
            self.bound = max(self.bound, FACTOR * float(known.max()))

    def _audited(self, asked: Bools, clear: Bools, room: Callable[[int], int]) -> Bools:
        """Which of the ``clear`` rows to ask besides: a share, and what fills up the batches."""
        rows, fixed = np.flatnonzero(clear), int(asked.sum())
        wanted = fixed + int(np.ceil(AUDITED * len(rows)))
        audited = np.zeros(len(clear), bool)
        audited[_spread(rows, min(room(wanted) - fixed, len(rows)))] = True
        return audited


def _spread(rows: Ints, count: int) -> Ints:
    """``count`` of the ``rows``, evenly."""
    return rows[(np.arange(count) * len(rows)) // max(count, 1)]
