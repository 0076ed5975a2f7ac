"""Intervals of a chance: against known values, and by exact coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import beta
from scipy.stats import binom

from nmutant_cli.detection.exact import ends
from nmutant_cli.detection.intervals import (
    anytime,
    binomial,
    clopper_pearson,
    count_interval,
    mean_interval,
)
from nmutant_cli.detection.sprt import SequentialTest
from nmutant_cli.mutation.sensitivity import half_width


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


@pytest.mark.parametrize("n", [1, 7, 60, 900])
@pytest.mark.parametrize("confidence", [0.9, 0.999])
def test_clopper_pearson_is_that_of_the_beta_distribution(n, confidence):
    tail = (1 - confidence) / 2
    for count in {1, n // 3, n // 2, n - 1} - {0, n}:
        low = stats.beta.ppf(tail, count, n - count + 1)
        high = stats.beta.isf(tail, count + 1, n - count)
        assert clopper_pearson(count, n, confidence) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize(("n", "p"), [(0, 0.3), (1, 0.5), (40, 0.999), (20_000, 0.01)])
def test_binomial_is_that_of_scipy(n, p):
    expected = binom.pmf(np.arange(n + 1), n, p)
    np.testing.assert_allclose(binomial(n, p), expected, rtol=1e-8, atol=1e-300)


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


@pytest.mark.parametrize(
    ("zero", "a", "b", "n"),
    [(0.75, 0.2, 19, 500), (0.75, 0.15, 20, 500), (0.8, 0.1, 12, 500), (0.05, 0.6, 5, 150)],
    ids=["like normal samples", "rarer", "rarer still", "like an attack"],
)
def test_the_interval_of_a_mean_kappa_covers_it(zero, a, b, n):
    """kappa is 0 for a share of the images, else Beta(a, b); counted over 1,000 mutations."""
    mean, rng, tries = (1 - zero) * a / (a + b), np.random.default_rng(1), 1000
    inside, as_published = 0, 0
    for _ in range(tries):
        kappa = np.where(rng.random(n) < zero, 0, rng.beta(a, b, n))
        kappas = rng.binomial(1000, kappa) / 1000
        low, high = mean_interval(kappas, 0.99)
        assert low <= kappas.mean() <= high
        inside += low <= mean <= high
        as_published += abs(kappas.mean() - mean) <= half_width(kappas, 0.99)
    assert inside >= 0.985 * tries
    if zero > 0.5:
        assert as_published <= 0.97 * tries


def test_the_interval_of_a_mean_is_that_of_the_paper_where_values_are_many_and_symmetric():
    values = np.random.default_rng(0).random(20_000)
    low, high = mean_interval(values, 0.99)
    assert high - values.mean() == pytest.approx(half_width(values, 0.99), rel=0.02)
    assert values.mean() - low == pytest.approx(half_width(values, 0.99), rel=0.02)
    assert mean_interval([0.3, 0.3], 0.99) == (0.3, 0.3)
    assert np.isnan(mean_interval([], 0.99)).all()
    assert mean_interval([0.0, 1.0], 0.99) == (0, 1)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([0.0] * 45 + [0.1] * 4 + [0.5], 0.0009027537, 0.1561455262),  # 0.0988914 without one more
        ([0.1, 0.2, 0.3, 0.6], 0.1113460682, 0.7437550869),  # 0.6113599 with one more
    ],
)
def test_the_interval_of_a_mean_where_its_equation_was_solved_by_halving(values, low, high):
    assert mean_interval(values, 0.99) == pytest.approx((low, high))


@pytest.mark.parametrize(("count", "n", "confidence"), [(3, 20, 0.95), (40, 90, 0.8)])
def test_anytime_ends_where_the_likelihood_is_that_of_the_mixture_times_the_error(
    count, n, confidence
):
    mixture = beta(count + 0.5, n - count + 0.5) / beta(0.5, 0.5)
    for end in anytime(count, n, confidence):
        assert end**count * (1 - end) ** (n - count) == pytest.approx((1 - confidence) * mixture)


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


@pytest.mark.parametrize(("n", "chance"), [(500, 0.04), (452, 0.8), (3, 0.0), (3, 1.0)])
def test_a_count_interval_is_the_binomial_one_where_all_chances_are_equal(n, chance):
    expected = binom.ppf([0.005, 0.995], n, chance)
    assert count_interval(np.full(n, chance), 0.99) == pytest.approx(expected)


def test_a_count_interval_of_chances_that_differ():
    # 0, 1, 2 with probability 0.18, 0.74, 0.08.
    assert count_interval(np.array([0.1, 0.8]), 0.6) == (1, 1)
    assert count_interval(np.array([0.1, 0.8]), 0.7) == (0, 1)
    assert count_interval(np.array([0.1, 0.8]), 0.9) == (0, 2)
