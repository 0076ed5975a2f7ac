"""Choosing a sequential test whose false-alarm rate over inputs is bounded, with a guarantee.

alpha bounds an error about one input's kappa; how often a normal *input* is called adversarial
depends on how kappa differs among inputs. Here it is bounded whatever their distribution.

**Nested tests.** Let ``theta = p1 (1-p0) / (p0 (1-p1))`` be the odds ratio of a Wald test. With
``s = log_theta(1 + p0 (theta - 1))`` its boundaries for the number c of changes in n mutations are

    adversarial at  c >= upper / ln(theta) + s n,      normal at  c <= lower / ln(theta) + s n,

so with theta, alpha, beta and cap held fixed, raising s (that is, p0) lifts both lines: a sequence
of label changes that is not called adversarial at one s is not at any higher s. Each sequence has a
**score** S, the highest s at which it is adversarial (see `scores`). The test at s calls an input
adversarial only if S >= s. S has in it all of the randomness: of the input, of its mutations,
and of the error alpha of the test.

**The guarantee** (split conformal prediction, training-conditional: Vovk 2012, arXiv 1209.2673).
Step size, theta, alpha, beta and cap are chosen on other images than those which follow. Let
S_1 .. S_n be the scores of n clean images drawn like the inputs to come, each with mutations
of its own, and put s just above the (n-a)-th smallest of them, or higher. With q the (1-t)-quantile
of S, i.e. P(S > q) <= t <= P(S >= q): the false-alarm rate exceeds t only if s <= q, so only if at
most a of the n scores are q or higher, each of which is so with chance t or more. That has
probability P(Binomial(n, t) <= a) at most. `allowed_alarms` gives the largest a for which it is
at most 1 - probability. Nothing is estimated: a kappa from few mutations makes the test weaker,
never the promise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nmutant_cli.detection.exact import Mixture
from nmutant_cli.detection.intervals import binomial, clopper_pearson
from nmutant_cli.detection.sprt import SequentialTest, TestBatch
from nmutant_cli.errors import ConfigError, DataError
from nmutant_cli.own_model.calibration import Evidence, Promise, Rate, Requirement
from nmutant_cli.types import Bools, Floats, Ints, Verdict

ODDS = (2.0, 4.0, 8.0, 16.0, 32.0)
"""Odds ratios of p1 to p0 that are tried."""
CAPS = (1.0, 0.5, 0.25)
"""Caps that are tried, as shares of the mutations that were measured."""
LEAST = 20
"""Clean images needed to choose a test, and as many to check it."""

Changes = Mapping[float, Bools]
"""By step size: whether each mutation changed the label, ``(images, mutations)``."""


class Design(NamedTuple):
    """All of a test but its p0."""

    step_size: float
    odds: float
    cap: int


@dataclass(frozen=True)
class Chosen:
    """A certified test, the step size it is for, the promise and the evidence."""

    test: SequentialTest
    step_size: float
    promise: Promise
    evidence: Evidence


@dataclass(frozen=True)
class Kappas:
    """The kappas at one step size: those of clean images, and of each adversarial set."""

    clean: Mixture
    adversarial: Sequence[Mixture]

    def expected(self, test: SequentialTest) -> tuple[float, float]:
        """The power, a mean over the sets, and the mean number of mutations of a clean image."""
        powers = [mixture.under(test).adversarial for mixture in self.adversarial]
        cost = self.clean.under(test).mean_mutations
        return min(1.0, float(np.mean(powers))), float(cost)


def allowed_alarms(n: int, target: float, probability: float) -> int:
    """The largest a with P(Binomial(n, target) <= a) <= 1 - probability; -1 if there is none."""
    chances = binomial(n, target).cumsum()
    return int(np.searchsorted(chances, 1 - probability, side="right")) - 1


def images_needed(target: float, probability: float) -> int:
    """The fewest clean images that can certify ``target``: one alarm among them is too many."""
    n = max(1, math.floor(math.log1p(-probability) / math.log1p(-target)))
    while allowed_alarms(n, target, probability) < 0:
        n += 1
    return n


def parts(n: int, requirement: Requirement, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Rows to choose the test with, to certify it with, and to check it on, at random.

    Half of the images certify, or more where the promise needs more; the rest is halved.

    Raises DataError if there are too few.
    """
    target, probability = requirement.target, requirement.probability
    needed = images_needed(target, probability)
    if n < needed + 2 * LEAST:
        fewer = max(n, 2 * LEAST + 1)
        lowest = math.ceil(1e3 - 1e3 * (1 - probability) ** (1 / (fewer - 2 * LEAST))) / 1e3
        raise DataError(
            f"{n} clean images are too few to promise {target:.2%} false alarms with probability "
            f"{probability:.2%}: it takes {needed + 2 * LEAST} or more ({needed} to certify it, "
            f"{LEAST} to choose, {LEAST} to check it); give {needed + 2 * LEAST - n} more, "
            f"or with {fewer} images a --target of {lowest} or above, or a lower --probability"
        )
    order = rng.permutation(n)
    certify = max(-(-n // 2), needed)
    choose = (n - certify) // 2
    return order[:choose], order[choose : choose + certify], order[choose + certify :]


def scores(changes: Bools, odds: float, alpha: float, beta: float) -> Floats:
    """The highest s at which each sequence is called adversarial: ``(n,)`` for ``(n, cap)``.

    It is called so at mutation i if s is at most ``(c_i - upper / ln odds) / i`` and, at every
    earlier j, below ``(c_j - lower / ln odds) / j``: else the test has ended with "normal".
    """
    upper, lower = math.log((1 - beta) / alpha), math.log(beta / (1 - alpha))
    n = np.arange(1, changes.shape[1] + 1)
    c = changes.cumsum(axis=1)
    adversarial = (c - upper / math.log(odds)) / n
    normal = np.minimum.accumulate((c - lower / math.log(odds)) / n, axis=1)
    adversarial[:, 1:] = np.minimum(adversarial[:, 1:], normal[:, :-1])
    return adversarial.max(axis=1)


def raised_above(score: float, odds: float, alpha: float, beta: float, cap: int) -> SequentialTest:
    """The Wald test of this odds ratio whose s lies just above ``score``.

    Never below the s at which an input without a label change is "normal" at the cap, for then
    nothing would be.
    """
    s = max(score, _unchanged(odds, alpha, beta) / cap)
    s *= 1 + 1e-9  # so that rounding cannot call what has this very score adversarial
    p0 = math.expm1(s * math.log(odds)) / (odds - 1)
    return SequentialTest("wald", p0, odds * p0 / (1 + (odds - 1) * p0), alpha, beta, cap)


def _unchanged(odds: float, alpha: float, beta: float) -> float:
    """s times the mutations without a label change after which a test says "normal"."""
    return math.log((1 - alpha) / beta) / math.log(odds)


def decide(test: SequentialTest, changes: Bools) -> TestBatch:
    """The test on sequences of changes ``(n, cap or more)`` that have been measured."""
    tests = TestBatch(test, len(changes))
    tests.advance(np.arange(len(changes)), changes)
    return tests


def choose(
    clean: Changes,
    adversarial: Mapping[str, Changes],
    requirement: Requirement,
    rng: np.random.Generator,
    *,
    kappa: float | None = None,
    seed: int = 0,
    ratios: Sequence[float] = ODDS,
    shares: Sequence[float] = CAPS,
) -> Chosen:
    """The cheapest test with the wanted power, made to keep the promise on clean images.

    With the first of the `parts` and one half of each adversarial set every step size, odds ratio
    (``ratios``) and cap (``shares`` of the mutations) is given the p0 that its scores ask for; the
    exact recursion over the measured kappas then gives the power (the mean over the sets; with no
    sets, at the one ``kappa``) and the mean number of mutations of a clean image. Taken is the
    cheapest of those with the wanted power, else the most powerful. The second part gives the p0
    that is certified, the third part and the other halves the evidence, with ``rng``'s ``seed``.

    Raises DataError if there are too few images, or neither an adversarial set nor a ``kappa``;
    ConfigError if too few mutations were measured for alpha and beta.
    """
    choosing, certifying, checking = parts(len(next(iter(clean.values()))), requirement, rng)
    halves = {name: _halves(name, changes, rng) for name, changes in adversarial.items()}
    if not halves and kappa is None:
        raise DataError("a calibration needs adversarial images, or the kappa to be detected")
    alarms = allowed_alarms(len(certifying), requirement.target, requirement.probability)
    kappas = {
        step: Kappas(
            _mixture(changes[choosing]),
            [_mixture(adversarial[name][step][rows]) for name, (rows, _) in halves.items()]
            or [Mixture(np.array([kappa]))],
        )
        for step, changes in clean.items()
    }
    learning = {step: changes[choosing] for step, changes in clean.items()}
    tried = designs(clean, requirement, ratios, shares)
    allowed = len(choosing) * alarms // len(certifying)
    best = cheapest(tried, learning, kappas, allowed, requirement)
    step = best.step_size
    test = fitted(best, clean[step][certifying], alarms, requirement)
    power, cost = kappas[step].expected(test)
    promise = Promise(
        false_alarm_rate=requirement.target,
        probability=requirement.probability,
        images=len(certifying),
        alarms=alarms,
    )
    evidence = Evidence(
        false_alarms=called(test, clean[step][checking]),
        detected={
            name: called(test, adversarial[name][step][rows]) for name, (_, rows) in halves.items()
        },
        wanted_power=requirement.power,
        expected_power=power,
        mean_mutations=cost,
        seed=seed,
    )
    return Chosen(test, step, promise, evidence)


def cheapest(
    tried: Sequence[Design],
    clean: Changes,
    kappas: Mapping[float, Kappas],
    allowed: int,
    requirement: Requirement,
) -> Design:
    """The cheapest design with the wanted power, else the most powerful one."""
    ranks = {}
    for design in tried:
        test = fitted(design, clean[design.step_size], allowed, requirement)
        power, cost = kappas[design.step_size].expected(test)
        ranks[design] = (0.0 if power >= requirement.power else 1 - power), cost
    return min(ranks, key=ranks.__getitem__)


def designs(
    clean: Changes, requirement: Requirement, ratios: Sequence[float], shares: Sequence[float]
) -> list[Design]:
    """What is tried: caps at which "normal" can be said well before them.

    Raises ConfigError if there is none.
    """
    tried = [
        Design(step, odds, cap)
        for step, changes in clean.items()
        for odds in ratios
        for cap in (int(changes.shape[1] * share) for share in shares)
        if cap > 2 * _unchanged(odds, requirement.alpha, requirement.beta)
    ]
    if not tried:
        least = math.floor(2 * _unchanged(max(ratios), requirement.alpha, requirement.beta)) + 1
        raise ConfigError(
            f"mutations: {next(iter(clean.values())).shape[1]} for each image are too few for "
            f"alpha {requirement.alpha:g} and beta {requirement.beta:g}; give {least} or more"
        )
    return tried


def fitted(
    design: Design, changes: Bools, allowed: int, requirement: Requirement
) -> SequentialTest:
    """The test of this design that calls at most ``allowed`` of these images adversarial."""
    odds, cap, alpha, beta = design.odds, design.cap, requirement.alpha, requirement.beta
    by_score = np.sort(scores(changes[:, :cap], odds, alpha, beta))
    return raised_above(by_score[-1 - allowed], odds, alpha, beta, cap)


def called(test: SequentialTest, changes: Bools) -> Rate:
    """How many sequences of changes ``test`` calls adversarial."""
    verdicts = decide(test, changes).verdict
    return rate(int((verdicts == Verdict.ADVERSARIAL).sum()), len(changes))


def rate(count: int, n: int) -> Rate:
    """A share with its interval; 0 of 0 is 0."""
    share = count / n if n else 0.0
    return Rate(images=n, count=count, rate=share, interval=clopper_pearson(count, n))


def _halves(name: str, changes: Changes, rng: np.random.Generator) -> tuple[Ints, Ints]:
    order = rng.permutation(len(next(iter(changes.values()))))
    if len(order) < 2:
        raise DataError(f"{name}: {len(order)} adversarial images; a calibration needs 2 or more")
    return order[: len(order) // 2], order[len(order) // 2 :]


def _mixture(changes: Bools) -> Mixture:
    """The kappas of sequences of changes; equal ones are worked out once."""
    kappas, counts = np.unique(changes.mean(axis=1), return_counts=True)
    return Mixture(kappas, counts.astype(np.float64))
