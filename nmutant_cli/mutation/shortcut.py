"""Labels of mutated images that are come by without asking for each, and what they have in common.

Something is found out once about an image that has seen enough mutations of a kind. It gives the
labels and leads of further ones; those in doubt (`mutation.doubt`) are asked, together with the
mutations of other kinds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nmutant_cli.mutation.doubt import Doubt, Ranked
from nmutant_cli.mutation.operator import Mutations
from nmutant_cli.types import Bools, Floats, Images, Ints, Labels

Ask = Callable[[Ints, Mutations], Ranked]
"""The label and lead of image ``owner[i]`` after ``mutations[i]``: ``(n,)`` each."""


class Shortcuts(Protocol):
    """What a `sensitivity.Labeller` has that knows shortcuts."""

    def ranked(self, images: Images, mutations: Mutations) -> Ranked:
        """The label of each mutated image, and its logit's lead over the second."""
        ...

    def over(self, images: Images, ask: Ask) -> Ask:
        """``ask`` about ``images``, by way of the shortcuts."""
        ...


@dataclass(frozen=True)
class Asking:
    """How a shortcut asks: ``ask`` as cheaply as the labels allow, ``exactly`` for leads as well.

    ``blur()``: by how much the leads that ``ask`` gives may be off. ``room``: `Doubt.settled`.
    """

    ask: Ask
    exactly: Ask
    blur: Callable[[], float]
    room: Callable[[int], int]


class Shortcut(ABC):
    """``n`` images, asked about by ``asking``.

    Before ``enough`` mutations of the kind an image's are asked as they come: finding out costs
    as much as asking about some.
    """

    def __init__(self, n: int, doubt: Doubt, enough: int, asking: Asking) -> None:
        self._doubt, self._enough, self._asking = doubt, enough, asking
        self._seen, self._known = np.zeros(n, np.int64), np.zeros(n, bool)

    @abstractmethod
    def takes(self, mutations: Mutations) -> Bools:
        """Which ``mutations`` are of the kind: ``(n,)``."""

    @abstractmethod
    def find_out(self, images: Ints) -> None:
        """About the ``images`` with these numbers, once."""

    @abstractmethod
    def cheaply(self, owner: Ints, mutations: Mutations) -> tuple[Labels, Floats, Floats]:
        """Labels and leads, and in proportion to what each lead may be wrong: ``(n,)`` each."""

    def ranked(self, owner: Ints, mutations: Mutations) -> Ranked:
        """The label and lead of image ``owner[i]`` after ``mutations[i]``: ``(n,)`` each."""
        asking = self._asking
        if self._doubt.in_vain:
            return asking.ask(owner, mutations)
        taken = self.takes(mutations)
        self._see(owner[taken])
        cheap = taken & self._known[owner]
        rows, others = np.flatnonzero(cheap), np.flatnonzero(~cheap)
        label, lead = np.zeros(len(owner), np.int64), np.zeros(len(owner))
        found, its_lead, scale = self.cheaply(owner[rows], mutations[rows])

        def ask(which: Ints) -> Ranked:
            nonlocal others  # they fill the batches of the first call
            asked, n = np.concatenate([others, rows[which]]), len(others)
            said, by = asking.ask(owner[asked], mutations[asked])
            label[others], lead[others] = said[:n], by[:n]
            others, said, by = others[:0], said[n:], by[n:]
            # No excess is for certain but one over the most that the lead may be.
            return said, (by + asking.blur() * (said == found[which])) / scale[which]

        def exactly(which: Ints) -> Ranked:
            asked = rows[which]
            said, by = asking.exactly(owner[asked], mutations[asked])
            return said, by / scale[which]

        def room(count: int) -> int:
            return asking.room(count + len(others)) - len(others)

        label[rows], its_lead = self._doubt.settled(found, its_lead / scale, ask, room, exactly)
        lead[rows] = its_lead * scale
        if len(others):
            ask(np.zeros(0, np.int64))
        return label, lead

    def _see(self, owner: Ints) -> None:
        self._seen += np.bincount(owner, minlength=len(self._seen))
        new = np.flatnonzero((self._seen >= self._enough) & ~self._known)
        if len(new):
            self.find_out(new)
            self._known[new] = True
