"""Intervals for a chance, from how often something happened, for a mean kappa, for a count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from nmutant_cli.types import Bools, Floats


def clopper_pearson(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a chance that showed ``count`` times in ``n`` independent tries.

    Clopper and Pearson (Biometrika 26, 1934). (0, 1) for no tries.
    """
    if n == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2

    def lowest(count: int) -> float:
        if count == 0:
            return 0.0
        # Where P(Binomial(n, p) >= count), which rises with p, reaches the tail: halve the way.
        below, above = 0.0, count / n
        for _ in range(60):
            middle = (below + above) / 2
            reached = binomial(n, middle)[count:].sum() >= tail
            below, above = (below, middle) if reached else (middle, above)
        return above

    return lowest(count), 1 - lowest(n - count)


def binomial(n: int, p: float) -> Floats:
    """P(Binomial(n, p) = k) for k from 0 to n, ``(n + 1,)``; 0 < p < 1 where n is above 0."""
    k = np.arange(n + 1)
    log_factorial = np.array([math.lgamma(i + 1) for i in range(n + 1)])
    log = log_factorial[n] - log_factorial - log_factorial[::-1]
    return np.exp(log + k * math.log(p) + (n - k) * math.log1p(-p))


def anytime(count: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """The interval of a chance, wherever counting stopped: two arrays ``(k,)``, as the arguments.

    A sequential test stops because of what it has seen, which an interval for a fixed ``n`` does
    not allow for. This one holds at all ``n`` at once: it keeps each p for which

        p^count (1-p)^(n-count)  >=  (1 - confidence) * E[P^count (1-P)^(n-count)],

    P drawn from Beta(1/2, 1/2). For the true p the ratio of the two sides is a martingale that
    starts at 1, and by Ville's inequality (1939) it ever passes 1 / (1 - confidence) with chance
    1 - confidence at most (Robbins, Ann. Math. Stat. 41, 1970). (0, 1) for no tries.
    """
    c, n = (np.asarray(a, np.float64) for a in np.broadcast_arrays(count, n))
    least = math.log(1 - confidence) + _log_beta(c + 0.5, n - c + 0.5) - _log_beta(0.5, 0.5)

    def inside(p: Floats) -> Bools:
        with np.errstate(divide="ignore", invalid="ignore"):
            changed = np.where(c > 0, c * np.log(p), 0)
            return changed + np.where(n > c, (n - c) * np.log1p(-p), 0) >= least

    # The likelihood has one peak, at c / n: halve the way from there to 0 and to 1.
    peak = np.where(n > 0, c / np.maximum(n, 1), 0.5)
    edge = np.stack([np.zeros_like(c), np.ones_like(c)])
    kept, outside = np.stack([peak, peak]), edge
    for _ in range(60):
        middle = (kept + outside) / 2
        within = inside(middle)
        kept, outside = np.where(within, middle, kept), np.where(within, outside, middle)
    lower, upper = np.where(inside(edge), edge, kept)
    return lower, upper


def mean_interval(kappas: Floats | Sequence[float], confidence: float) -> tuple[float, float]:
    """The interval of the mean of ``kappas``, values in [0, 1]: its lower and its upper end.

    Most kappas of normal samples are 0 and a few are large. A sample that has too few of the large
    ones has a mean and a standard deviation that are both too small, so the interval that is so
    many standard errors either way (Table 1's) misses on one side: on 500 values of that kind it
    covers 95% at a nominal 99%. This one is Hall's (J. R. Stat. Soc. B 54, 1992), whose cubic
    transformation takes the skewness out of the t statistic; for the upper end the largest value
    counts once more where that makes it higher, since the largest of all has seldom been seen. It
    covers 99% there (``tests/detection/test_intervals.py``).

    NaN for no values; for values that are all the same, that value.
    """
    values = np.asarray(kappas, np.float64)
    if not len(values):
        return math.nan, math.nan
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    once_more = np.append(values, values.max())
    upper = max(_hall(values, -z), _hall(once_more, -z))
    return max(0.0, _hall(values, z)), min(1.0, upper)


def count_interval(chances: Floats, confidence: float) -> tuple[float, float]:
    """Between which counts this share of runs lies, exactly: thing i counts with ``chances[i]``.

    ``chances``: ``(n,)``, independent. Each end has half of the rest outside it, at most.
    """
    distribution = np.ones(1)
    for chance in chances:
        distribution = np.convolve(distribution, [1 - chance, chance])
    outside = (1 - confidence) / 2
    low, high = np.searchsorted(distribution.cumsum(), [outside, 1 - outside])
    return float(low), float(high)


def _hall(values: Floats, z: float) -> float:
    """mean - t * std / sqrt(n), where t has the normal quantile z once its skewness is out."""
    n, mean, deviation = len(values), float(values.mean()), float(values.std())
    if np.ptp(values) == 0:
        return mean
    skewness = float(((values - mean) ** 3).mean()) / deviation**3
    a = skewness / (3 * math.sqrt(n))
    # The transformation is t + a t^2 + a^2 t^3 / 3 + a / 2; this is where it equals z.
    t = (math.cbrt(1 + 3 * a * (z - a / 2)) - 1) / a if abs(a) > 1e-9 else z
    return mean - t * deviation / math.sqrt(n)


def _log_beta(a: ArrayLike, b: ArrayLike) -> Floats:
    gamma = np.vectorize(math.lgamma, otypes=[np.float64])
    return gamma(a) + gamma(b) - gamma(np.add(a, b))
