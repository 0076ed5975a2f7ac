"""What a sequential test does at any kappa, exactly: no simulation and no approximation.

The direct method (L. A. Aroian, "Sequential analysis, direct method", Technometrics 10, 1968) goes
through a test mutation by mutation and keeps the probability of every state that is still open. It
holds for any boundaries and any cap; Wald's formulas (A. Wald, "Sequential analysis", 1947, the
test itself: Ann. Math. Stat. 16, 1945) hold far from a cap only, and not for all of our rules.

Here the recursion runs on what does not depend on kappa. Of ``c`` label changes among ``t``
mutations every order is equally likely, whatever kappa is, so let ``share(t, c)`` be the
probability, given ``c`` changes in ``t``, that the test is still open. The last of the ``t`` was
a change with probability ``c / t``, hence

    share(t, c) = c/t * share(t-1, c-1) + (t-c)/t * share(t-1, c),

and what crosses a boundary is taken out as an `Ends`. One such table serves every kappa:

    P(end at (t, c) | kappa) = share * Binomial(t, kappa).pmf(c).

All terms are positive, so nothing cancels. Decisions are those of `sprt.run`: the same
floating-point expression is compared with the same thresholds. For ``published`` the state has
``C = c_1 + ... + c_t`` too, since the running sum of l(c_i, 2i) is l(C, t(t+1)). There `sprt.run`
adds t numbers and rounds t times; `Ends.margin` tells how near to a threshold any reachable sum
comes. Unless it is as small as that rounding (some 1e-11), both decide alike on every path.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nmutant_cli.detection.sprt import SequentialTest
from nmutant_cli.types import Floats, Ints, Verdict

NEGLIGIBLE = 1e-100
"""What is less probable is taken for 0; all that is dropped has a probability below 1e-90."""
BLOCK = 200_000
"""So many probabilities are held in memory at a time."""
LOG_ZERO = -1e6
"""For log(0): times 0 it is 0, times more its exponential is 0."""


@dataclass(frozen=True)
class Ends:
    """Every way in which a test can end; arrays of shape ``(ends,)`` in the order of mutations.

    ``share`` is the probability, given ``changes`` label changes among ``mutations``, that the test
    ends exactly there with ``verdict`` (UNDECIDED at the cap). ``margin`` is the least distance
    between a running sum and a threshold; infinite for the rules that compare no sum.
    """

    mutations: Ints
    changes: Ints
    verdict: Ints
    share: Floats
    margin: float


@lru_cache(maxsize=32)
def ends(test: SequentialTest) -> Ends:
    """The ends of ``test``, from one pass over its mutations."""
    published, only_changes = test.rule == "published", test.rule == "algorithm1"
    found: list[tuple[Ints, Ints, Ints, Floats]] = []
    margin = math.inf

    def end(t: int, verdict: Verdict, c: Ints, share: Floats) -> None:
        if c.size:
            c, _, share = _merged(c, np.zeros_like(c), share)
            found.append((np.full_like(c, t), c, np.full_like(c, verdict), share))

    c, total, share = np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1)
    for t in range(1, test.max_mutations + 1):
        # Each open state has two successors: with a change first, then without.
        share = np.concatenate([share * (c + 1) / t, share * (t - c) / t])
        changed = np.arange(2 * c.size) < c.size
        c = np.concatenate([c + 1, c])
        if published:
            total = np.concatenate([total, total]) + c
            ratio = np.asarray(test.log_ratio(total, t * (t + 1)))
            margin = min(margin, abs(ratio - test.upper).min(), abs(ratio - test.lower).min())
        else:
            total = np.zeros_like(c)
            ratio = np.asarray(test.log_ratio(c, t))
        adversarial, normal = ratio >= test.upper, ratio <= test.lower
        if only_changes:
            adversarial, normal = adversarial & changed, normal & changed
        end(t, Verdict.ADVERSARIAL, c[adversarial], share[adversarial])
        end(t, Verdict.NORMAL, c[normal], share[normal])
        keep = ~(adversarial | normal) & (share > NEGLIGIBLE)
        if not keep.any():
            break
        c, total, share = _merged(c[keep], total[keep], share[keep])
    else:
        end(test.max_mutations, Verdict.UNDECIDED, c, share)
    mutations, changes, verdict, shares = (
        np.concatenate(arrays) for arrays in zip(*found, strict=True)
    )
    for array in (mutations, changes, verdict, shares):
        array.setflags(write=False)  # they are kept and shared
    return Ends(mutations, changes, verdict, shares, float(margin))


def _merged(c: Ints, total: Ints, share: Floats) -> tuple[Ints, Ints, Floats]:
    """The same states with equal ones added up; at least one."""
    first_c, first = c.min(), total.min()
    width = total.max() - first + 1
    key = (c - first_c) * width + (total - first)
    dense: Floats = np.bincount(key, share).astype(np.float64, copy=False)
    at = np.flatnonzero(dense)
    return at // width + first_c, at % width + first, dense[at]


def _parts(test: SequentialTest, kappas: Floats) -> Iterator[tuple[slice, Floats]]:
    """The probability of each end, ``(k, ends)``, a slice of the ends at a time."""
    if kappas.ndim != 1 or not ((kappas >= 0) & (kappas <= 1)).all():
        raise ValueError("kappas must be a list of numbers in [0, 1]")
    all_ends = ends(test)
    log_factorial = np.array([math.lgamma(i + 1) for i in range(test.max_mutations + 1)])
    with np.errstate(divide="ignore"):
        log_kappa = np.maximum(np.log(kappas), LOG_ZERO)
        log_rest = np.maximum(np.log1p(-kappas), LOG_ZERO)
    size = max(1, BLOCK // max(1, kappas.size))
    for start in range(0, all_ends.share.size, size):
        part = slice(start, start + size)
        t, c = all_ends.mutations[part], all_ends.changes[part]
        log = log_factorial[t] - log_factorial[c] - log_factorial[t - c]
        log = log + np.outer(log_kappa, c) + np.outer(log_rest, t - c)
        # Numbers near the smallest that a float can hold would be slow.
        binomial = np.exp(log, where=log > math.log(NEGLIGIBLE), out=np.zeros_like(log))
        yield part, all_ends.share[part] * binomial


@dataclass(frozen=True)
class Curves:
    """What a test does at each of k kappas, or, without the axis k, for a `Mixture`.

    The arrays have shape ``(3, k)``, first index a `Verdict`: the ``probability`` of that verdict,
    and what it adds to the mean number of real mutations and of label changes.
    """

    test: SequentialTest
    probability: Floats
    mutations: Floats
    changes: Floats

    @property
    def adversarial(self) -> Floats:
        """P(adversarial | kappa), ``(k,)``."""
        return self.probability[Verdict.ADVERSARIAL]

    @property
    def normal(self) -> Floats:
        """P(normal | kappa), ``(k,)``."""
        return self.probability[Verdict.NORMAL]

    @property
    def undecided(self) -> Floats:
        """P(undecided | kappa), ``(k,)``: the cap is reached."""
        return self.probability[Verdict.UNDECIDED]

    @property
    def mean_mutations(self) -> Floats:
        """The average sample number in real mutations, ``(k,)``."""
        return self.mutations.sum(axis=0)

    @property
    def mean_n(self) -> Floats:
        """The average sample number as the rule counts, ``(k,)``."""
        return self.mean_mutations * self.test.count_per_mutation

    @property
    def mean_changes(self) -> Floats:
        """The mean number of label changes, ``(k,)``."""
        return self.changes.sum(axis=0)

    def given(self, verdict: Verdict) -> tuple[Floats, Floats]:
        """Mean real mutations and label changes of tests that end so; nan where none can."""
        p = self.probability[verdict]
        p = np.where(p > 0, p, np.nan)
        return self.mutations[verdict] / p, self.changes[verdict] / p


def curves(test: SequentialTest, kappas: ArrayLike) -> Curves:
    """Operating characteristic, average sample number and label changes at ``kappas``, ``(k,)``.

    Raises ValueError for a kappa outside [0, 1].
    """
    kappas = np.asarray(kappas, dtype=np.float64)
    at = ends(test)
    of_verdict = (at.verdict == np.arange(3)[:, None]).astype(np.float64)
    values = np.concatenate([of_verdict, of_verdict * at.mutations, of_verdict * at.changes])
    sums = np.zeros((9, kappas.size))
    for part, probability in _parts(test, kappas):
        sums += values[:, part] @ probability.T
    return Curves(test, sums[:3], sums[3:6], sums[6:])


def stopping(test: SequentialTest, kappas: ArrayLike) -> Floats:
    """P(the test ends after exactly t mutations | kappa), ``(k, max_mutations)``, t from 1.

    An undecided test ends at the cap, in the last column.
    """
    kappas = np.asarray(kappas, dtype=np.float64)
    out = np.zeros((kappas.size, test.max_mutations))
    for part, probability in _parts(test, kappas):
        t, first = np.unique(ends(test).mutations[part], return_index=True)
        out[:, t - 1] += np.add.reduceat(probability, first, axis=1)
    return out


def quantile(probabilities: Floats, q: float) -> Ints:
    """The least number of mutations within which a share ``q`` of the tests ends, ``(k,)``.

    ``probabilities`` are those of :func:`stopping`, ``(k, max_mutations)``; 0 < q < 1.
    """
    if not 0 < q < 1:
        raise ValueError(f"q={q:g} must lie in (0, 1)")
    return 1 + (probabilities.cumsum(axis=1) < q - 1e-12).sum(axis=1)


class Achieved(NamedTuple):
    """What alpha and beta really are: a test's errors at p0 and p1, and what it leaves open."""

    alpha: float
    """P(adversarial | p0)."""
    beta: float
    """P(normal | p1)."""
    undecided_p0: float
    undecided_p1: float


def achieved(test: SequentialTest) -> Achieved:
    """The error rates of ``test`` at its two hypotheses, cap and overshoot included."""
    at = curves(test, [test.p0, test.p1])
    values = (at.adversarial[0], at.normal[1], *at.undecided)
    return Achieved(*map(float, values))


@dataclass(frozen=True)
class Mixture:
    """Inputs that differ in kappa: a distribution of kappas, such as the measured ones of a set.

    ``kappas`` and ``weights`` have shape ``(k,)``; weights are equal where None, and need not sum
    to 1. ``Mixture(adversarial).under(test).adversarial`` is the power over that set,
    ``Mixture(normal).under(test).adversarial`` the false-alarm rate, which alpha does not bound.
    """

    kappas: Floats
    weights: Floats | None = None

    def under(self, test: SequentialTest) -> Curves:
        """The expectation over the kappas; the arrays of the result have shape ``(3,)``."""
        if not len(self.kappas):
            raise ValueError("a mixture needs at least one kappa")
        at = curves(test, self.kappas)
        arrays = (at.probability, at.mutations, at.changes)
        return Curves(test, *(np.average(a, axis=1, weights=self.weights) for a in arrays))
