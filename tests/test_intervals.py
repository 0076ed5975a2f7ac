"""Intervals of a chance: against known values, and by exact coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from nmutant_cli.detection.exact import ends
from nmutant_cli.detection.intervals import anytime, clopper_pearson
from nmutant_cli.detection.sprt import SequentialTest


@pytest.mark.parametrize(
    ("count", "n", "expected"),
    [
        (0, 0, (0, 1)),
        (0, 10, (0, 0.3084971)),  # 1 - 0.025 ** (1 / 10)
        (10, 10, (0.6915029, 1)),
        (4, 20, (0.0573340, 0.4366140)),  # R: binom.test(4, 20)
    ],
)
def test_clopper_pearson(count, n, expected):
    assert clopper_pearson(count, n) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.77])
def test_clopper_pearson_covers(p):
    counts = np.arange(51)
    low, high = zip(*(clopper_pearson(int(c), 50, 0.9) for c in counts), strict=True)
    inside = (np.array(low) <= p) & (p <= np.array(high))
    assert binom.pmf(counts, 50, p)[inside].sum() >= 0.9


@pytest.mark.parametrize(
    "test",
    [SequentialTest("wald", 0.05, 0.2, cap=80), SequentialTest("published", 0.1, 0.3, cap=100)],
)
@pytest.mark.parametrize("kappa", [0.003, 0.05, 0.12, 0.3, 0.9])
def test_anytime_covers_where_a_sequential_test_stops(test, kappa):
    """The exact chance, over all ways in which the test can end."""
    at = ends(test)
    low, high = anytime(at.changes, at.mutations, 0.9)
    chance = at.share * binom.pmf(at.changes, at.mutations, kappa)
    assert chance.sum() == pytest.approx(1, abs=1e-9)
    assert chance[(low <= kappa) & (kappa <= high)].sum() >= 0.9


def test_anytime_is_an_interval_around_the_share():
    counts, n = np.array([0, 0, 5, 50, 50]), np.array([0, 50, 50, 50, 10_000])
    low, high = anytime(counts, n)
    assert (low[0], high[0]) == (0, 1)
    assert low[1] == 0
    assert 0.09 < high[1] < 0.12
    assert high[3] == 1
    share = counts[1:] / n[1:]
    assert (low[1:] <= share).all()
    assert (share <= high[1:]).all()
    assert high[4] - low[4] < 0.01
    wider = anytime(counts, n, 0.99)
    assert (wider[0] <= low).all()
    assert (high <= wider[1]).all()
