"""Intervals for a chance, from how often something happened; arrays in, arrays out."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from nmutant_cli.types import Bools, Floats


def clopper_pearson(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a chance that showed ``count`` times in ``n`` independent tries.

    Clopper and Pearson (Biometrika 26, 1934). (0, 1) for no tries.
    """
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    lower = float(beta.ppf(tail, count, n - count + 1)) if count else 0.0
    upper = float(beta.isf(tail, count + 1, n - count)) if count < n else 1.0
    return lower, upper


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
    ends = []
    for edge in (np.zeros_like(c), np.ones_like(c)):
        kept, outside = peak, edge
        for _ in range(60):
            middle = (kept + outside) / 2
            within = inside(middle)
            kept, outside = np.where(within, middle, kept), np.where(within, outside, middle)
        ends.append(np.where(inside(edge), edge, kept))
    return ends[0], ends[1]


def _log_beta(a: ArrayLike, b: ArrayLike) -> Floats:
    gamma = np.vectorize(math.lgamma, otypes=[np.float64])
    return gamma(a) + gamma(b) - gamma(np.add(a, b))
