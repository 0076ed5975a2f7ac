"""Labels asked in bfloat16 first, and once more in float32 where that leaves a doubt.

A label is in doubt where the lead of its logit over the second is no larger than a bound: twice the
largest difference that bfloat16 makes to a lead in the first rows, at this step size of this
network. A larger difference than the bound, seen later, is a reason for a new one. Some of the
other rows are audited in float32; a label that differs there is such a difference, so the bound
more than doubles and the rows are gone through again. What comes out is what float32 says.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal

import keras
import numpy as np

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.mutation.audit import Audit
from nmutant_cli.mutation.graph import CompiledLabeller, fastest, seconds_each
from nmutant_cli.mutation.operator import Mutations
from nmutant_cli.networks import backend
from nmutant_cli.networks.inference import in_bfloat16
from nmutant_cli.types import AnyArray, Bools, Bounds, Floats, Images, Ints, Labels

log = logging.getLogger("nmutant")

WORTH = 5.0
"""Seconds for which a network is asked in float32 alone: further graphs take time to compile."""
LEARNT = 2_000
"""Mutations of each step size that are asked in both precisions, for the first bound."""
FACTOR = 2.0
"""The bound over the largest difference."""
AUDITED = 0.01
"""The least share of the rows without doubt that is asked in float32."""
AT_ONCE = 25_000_000
"""Values of the images that are taken together, which fill whole batches of those in doubt."""
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
    bfloat16_first: bool = True,
) -> Cascade | CompiledLabeller:
    """``model`` compiled with the mutation in front of it; ``at(step_size)`` is a `Labeller`.

    It is asked in bfloat16 first where that is wanted and the machine has it; see
    `CompiledLabeller` for the other settings, of which ``auto`` takes the fastest batch size.
    """

    def compiled(batch_size: int, of: keras.Model = model) -> CompiledLabeller:
        return CompiledLabeller(
            of, 1.0, mutation=mutation, clip=clip, batch_size=batch_size, stochastic=stochastic
        )

    exact = fastest(compiled) if batch_size == "auto" else compiled(batch_size)
    if not (bfloat16_first and backend.has_bfloat16()):
        return exact

    def quick() -> CompiledLabeller | None:
        found = compiled(exact.batch_size, in_bfloat16(model))
        return found if PAYS * seconds_each(found) < seconds_each(exact) else None

    return Cascade(exact, quick, audit)


class Cascade:
    """A network that is asked in bfloat16 first, at any step size.

    ``exact``: its graph in float32. ``quick`` makes the one in bfloat16 once it is worth it, or
    None where that is no faster. Counts go to ``audit``.
    """

    def __init__(
        self,
        exact: CompiledLabeller,
        quick: Callable[[], CompiledLabeller | None],
        audit: Audit,
    ) -> None:
        self.exact, self.audit = exact, audit
        self._make = quick
        self._quick: CompiledLabeller | None = None
        self._tried = False
        self.seconds = 0.0
        """Spent on asking in float32 alone."""
        self._steps: dict[float, AtStep] = {}

    def at(self, step_size: float) -> AtStep:
        """The network at one step size, with a bound of its own."""
        if step_size not in self._steps:
            self._steps[step_size] = AtStep(self, step_size)
        return self._steps[step_size]

    def quick(self, rows: int) -> CompiledLabeller | None:
        """The graph in bfloat16, unless ``rows`` are better asked in float32."""
        if self.seconds >= WORTH and not self._tried:
            self._quick, self._tried = self._make(), True
        quick = self._quick
        return None if quick is None or 2 * rows < quick.batch_size else quick


class AtStep:
    """The `sensitivity.Labeller` of a `Cascade` at one step size.

    ``bound``: a lead above it is no doubt.
    """

    def __init__(self, network: Cascade, step_size: float) -> None:
        exact = network.exact.at(step_size)
        self._network, self._step = network, step_size
        self._exact, size = exact, exact.batch_size
        # Few rows in doubt need not fill a batch.
        self._again = exact.padding_to(tuple(-(-size * part // 8) for part in range(1, 9)))
        self.batch_size, self.deterministic = size, exact.deterministic
        batches = AT_ONCE // (size * int(np.prod(exact.image_shape)))
        self.at_once = size * min(max(batches, 1), 8)
        self.bound, self._learnt, self._learning = 0.0, 0, True

    def __call__(self, images: Images, mutations: Mutations) -> Labels:
        quick = self._network.quick(len(images))
        if quick is None:
            start = time.perf_counter()
            labels = self._exact(images, mutations)
            self._network.seconds += time.perf_counter() - start
            return labels
        label, lead = quick.at(self._step).ranked(images, mutations)
        self._network.audit.first += len(label)
        left = max(LEARNT - self._learnt, 0)
        self._learning = left > 0
        both = np.arange(len(label)) < left
        self._learnt += int(both.sum())
        before = None
        while before != self.bound:  # what was found out may put further rows in doubt
            before = self.bound
            doubt = both | ~(lead > self.bound)  # NaN is a doubt, too
            asked = np.flatnonzero(doubt | self._audited(doubt))
            exact, its_lead = self._again.ranked(images[asked], mutations[asked])
            differs = label[asked] != exact
            self._learn(lead[asked], np.where(differs, -its_lead, its_lead))
            wrong = int((differs & ~doubt[asked]).sum())
            if wrong:
                self._network.audit.disagreed += wrong
                log.info("bfloat16: %d audited labels differ, the bound is %g", wrong, self.bound)
        self._count(doubt, asked)
        label[asked] = exact
        return label

    def _learn(self, lead: Floats, exact: Floats) -> None:
        difference = np.abs(lead - exact)
        known = difference[~np.isnan(difference)]
        if len(known) and (self._learning or known.max() > self.bound):
            self.bound = max(self.bound, FACTOR * float(known.max()))

    def _audited(self, doubt: Bools) -> Bools:
        """Which of the other rows to ask, evenly spread: a share, and what fills up the batches."""
        clear = np.flatnonzero(~doubt)
        wanted = int(doubt.sum()) + int(np.ceil(AUDITED * len(clear)))
        full, rest = divmod(wanted, self.batch_size)
        room = full * self.batch_size
        if rest:
            room += next(size for size in self._again.sizes if size >= rest)
        count = min(room - int(doubt.sum()), len(clear))
        audited = np.zeros(len(doubt), bool)
        audited[_spread(clear, count)] = True
        return audited

    def _count(self, doubt: Bools, asked: AnyArray) -> None:
        audit = self._network.audit
        audit.again += int(doubt.sum())
        audit.audited += len(asked) - int(doubt.sum())
        audit.bound = max(audit.bound, self.bound)


def _spread(rows: Ints, count: int) -> Ints:
    """``count`` of the ``rows``, evenly."""
    return rows[(np.arange(count) * len(rows)) // max(count, 1)]
