"""The sequential probability ratio test (Wald 1945) and the two rules the paper stands on.

``c`` label changes in ``n`` mutations have the log likelihood ratio (section 5 of the paper)

    l(c, n) = c * ln(p1 / p0) + (n - c) * ln((1 - p1) / (1 - p0)).

``kappa >= p1`` is accepted ("adversarial") at ``ln((1 - beta) / alpha)`` or above and
``kappa <= p0`` ("normal") at ``ln(beta / (1 - alpha))`` or below. The rules differ in what is
compared, and when:

- ``wald``: l(c, n), after every mutation. The correct test.
- ``algorithm1``: l(c, n), but only after a mutation that changed the label, as Algorithm 1 is
  printed. Without a label change it never ends before the cap.
- ``published``: what gave Table 2 (docs/protocol.md, The three rules).
  ``n`` grows by 2 for each mutation, and
  what is compared is the running sum of l(c, n), although l is a sum already. Checked after every
  mutation; the cap counts ``n``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from nmutant_cli.types import AnyArray, Bools, Floats, Ints, Verdict

RULES = ("wald", "algorithm1", "published")


@dataclass(frozen=True)
class SequentialTest:
    """One sequential test: a rule, two hypotheses, two error bounds and a cap.

    ``0 < p0 < p1 < 1``; ``alpha`` bounds P(adversarial | kappa <= p0) and ``beta``
    P(normal | kappa >= p1), for the rule ``wald`` without a cap. ``cap`` is the largest ``n``.

    >>> from nmutant_cli import SequentialTest
    >>> from nmutant_cli.detection.sprt import run
    >>> test = SequentialTest("wald", p0=0.01, p1=0.1)
    >>> run(test, [False, True, True]).verdict.name, run(test, [False] * 40).mutations
    ('ADVERSARIAL', 31)

    Raises ValueError for values outside these ranges or an unknown rule.
    """

    __test__ = False  # not a test class, whatever pytest thinks

    rule: str
    p0: float
    p1: float
    alpha: float = 0.05
    beta: float = 0.05
    cap: int = 2000

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"unknown rule {self.rule!r}, known are {', '.join(RULES)}")
        if not 0 < self.p0 < self.p1 < 1:
            raise ValueError(f"0 < p0 < p1 < 1 does not hold for p0={self.p0:g}, p1={self.p1:g}")
        if not (0 < self.alpha < 0.5 and 0 < self.beta < 0.5):
            raise ValueError(f"alpha={self.alpha:g}, beta={self.beta:g} must lie in (0, 0.5)")
        if self.cap < 1:
            raise ValueError(f"cap={self.cap} must be at least 1")

    @property
    def count_per_mutation(self) -> int:
        """By how much ``n`` grows for one mutation."""
        return 2 if self.rule == "published" else 1

    @property
    def max_mutations(self) -> int:
        """Real mutations after which an undecided test ends."""
        return -(-self.cap // self.count_per_mutation)

    @cached_property
    def shortest(self) -> int:
        """No test of this kind ends before so many real mutations."""
        # Nothing moves faster than all labels changed or none, looked at each time.
        test = replace(self, rule="wald") if self.rule == "algorithm1" else self
        ends = (run(test, np.full(self.max_mutations, changed)) for changed in (True, False))
        return min(end.mutations for end in ends)

    @property
    def upper(self) -> float:
        """The threshold of "adversarial"."""
        return math.log((1 - self.beta) / self.alpha)

    @property
    def lower(self) -> float:
        """The threshold of "normal"."""
        return math.log(self.beta / (1 - self.alpha))

    @property
    def weights(self) -> tuple[float, float]:
        """What a changed and an unchanged label add to l: ``(> 0, < 0)``."""
        return math.log(self.p1 / self.p0), math.log((1 - self.p1) / (1 - self.p0))

    def log_ratio(self, c: AnyArray | int, n: AnyArray | int) -> AnyArray | float:
        """l(c, n), elementwise."""
        changed, unchanged = self.weights
        return c * changed + (n - c) * unchanged


@dataclass(frozen=True)
class Outcome:
    """How a test ended: ``n`` as the rule counts, ``c`` label changes, real ``mutations`` read."""

    verdict: Verdict
    n: int
    c: int
    mutations: int


def run(test: SequentialTest, changes: AnyArray) -> Outcome:
    """The rule, one mutation after the other: the literal loop that `TestBatch` is held against.

    ``changes``: booleans, whether each mutation in turn changed the label. UNDECIDED after the
    cap, or where ``changes`` ends earlier.
    """
    c = n = mutations = 0
    total = 0.0
    for changed in changes:
        if n >= test.cap:
            break
        mutations += 1
        n += test.count_per_mutation
        c += bool(changed)
        ratio = float(test.log_ratio(c, n))
        if test.rule == "published":
            total += ratio
            ratio = total
        if test.rule == "algorithm1" and not changed:
            continue
        if ratio >= test.upper:
            return Outcome(Verdict.ADVERSARIAL, n, c, mutations)
        if ratio <= test.lower:
            return Outcome(Verdict.NORMAL, n, c, mutations)
    return Outcome(Verdict.UNDECIDED, n, c, mutations)


class TestBatch:
    """One `SequentialTest` on many samples at once, fed with blocks of label changes.

    Arrays of shape ``(samples,)``: ``verdict`` (`Verdict`), ``n``, ``c``, ``mutations`` as in
    `Outcome`, ``open`` (neither decided nor at the cap). Every number is the one `run` gives,
    to the last bit: sums are formed in the same order.
    """

    __test__ = False

    def __init__(self, test: SequentialTest, samples: int) -> None:
        self.test = test
        self.verdict: Ints = np.full(samples, Verdict.UNDECIDED, np.int64)
        self.c: Ints = np.zeros(samples, np.int64)
        self.mutations: Ints = np.zeros(samples, np.int64)
        self.open: Bools = np.ones(samples, bool)
        self._total: Floats = np.zeros(samples)

    @property
    def n(self) -> Ints:
        return self.mutations * self.test.count_per_mutation

    def advance(self, rows: Ints, changes: Bools) -> None:
        """Read the next ``changes``, shape ``(len(rows), block)``, of the samples ``rows``.

        Samples that are no longer open ignore what they are given.
        """
        keep = self.open[rows]
        rows, changes = rows[keep], changes[keep]
        if not len(rows):
            return
        block = min(changes.shape[1], self.test.max_mutations - int(self.mutations[rows].min()))
        changes = changes[:, :block]
        read = self.mutations[rows, None] + np.arange(1, block + 1)
        c = self.c[rows, None] + changes.cumsum(axis=1)
        ratio = np.asarray(self.test.log_ratio(c, read * self.test.count_per_mutation))
        if self.test.rule == "published":
            ratio[:, 0] += self._total[rows]
            ratio = ratio.cumsum(axis=1)
            self._total[rows] = ratio[:, -1]

        within = read <= self.test.max_mutations
        checked = within & changes if self.test.rule == "algorithm1" else within
        adversarial = checked & (ratio >= self.test.upper)
        normal = checked & (ratio <= self.test.lower)
        ends = adversarial | normal | (read == self.test.max_mutations)
        ended = ends.any(axis=1)
        last = np.where(ended, ends.argmax(axis=1), block - 1)
        at = np.arange(len(rows)), last
        self.mutations[rows], self.c[rows] = read[at], c[at]
        self.verdict[rows[adversarial[at]]] = Verdict.ADVERSARIAL
        self.verdict[rows[normal[at]]] = Verdict.NORMAL
        self.open[rows[ended]] = False
