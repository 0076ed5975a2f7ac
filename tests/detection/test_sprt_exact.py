from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmutant_cli.config.detection import Detection
from nmutant_cli.detection.exact import Mixture, achieved, curves, ends, quantile, stopping
from nmutant_cli.detection.sprt import RULES, SequentialTest, TestBatch, run
from nmutant_cli.studies.from_kappa import beta
from nmutant_cli.types import Verdict

MNIST_MU = (1.2, 1.5, 1.8, 2.0)
CIFAR_MU = (1.01, 1.02, 1.03, 1.04)
CAPPED = SequentialTest("wald", 0.0441 * 0.9, 0.0441 * 1.1, cap=500)


def of_paper(rule, kappa1, mu, cap=2000):
    return SequentialTest(rule, *Detection().hypotheses(kappa1, mu), cap=cap)


PUBLISHED = [of_paper("published", 0.0017, mu) for mu in MNIST_MU] + [
    of_paper("published", 0.2418, mu) for mu in CIFAR_MU
]


def brute_force(test, kappas):
    """Every sequence of label changes through the literal loop, weighted by its probability."""
    steps = test.max_mutations
    sums = np.zeros((3, 3, len(kappas)))
    stops = np.zeros((len(kappas), steps))
    for changes in itertools.product((False, True), repeat=steps):
        outcome = run(test, changes)
        weight = kappas ** sum(changes) * (1 - kappas) ** (steps - sum(changes))
        sums[:, outcome.verdict] += np.outer((1, outcome.mutations, outcome.c), weight)
        stops[:, outcome.mutations - 1] += weight
    return sums, stops


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("p0", "p1", "alpha", "cap"),
    [(0.1, 0.3, 0.05, 10), (0.2, 0.6, 0.2, 12), (0.4, 0.5, 0.4, 9), (0.02, 0.9, 0.01, 11)],
)
def test_equals_the_literal_loop_on_every_path(rule, p0, p1, alpha, cap):
    test = SequentialTest(rule, p0, p1, alpha, 0.1, cap)
    kappas = np.array([0, 1e-3, p0, 0.25, p1, 0.7, 1])
    sums, stops = brute_force(test, kappas)
    at = curves(test, kappas)
    for exact, brute in zip((at.probability, at.mutations, at.changes), sums, strict=True):
        np.testing.assert_allclose(exact, brute, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(stopping(test, kappas), stops, rtol=1e-12, atol=1e-12)
    assert (at.mean_n == at.mean_mutations * test.count_per_mutation).all()


def test_published_has_as_many_mutations_in_the_brute_force_as_the_others():
    # Its cap counts twice: 12 real mutations, all paths.
    test = SequentialTest("published", 0.45, 0.46, 0.05, 0.05, cap=24)
    kappas = np.array([0.1, 0.5, 0.9])
    sums, _ = brute_force(test, kappas)
    np.testing.assert_allclose(curves(test, kappas).probability, sums[0], atol=1e-12)


@pytest.mark.parametrize("test", PUBLISHED)
def test_rounding_cannot_change_a_published_verdict(test):
    """No reachable sum comes so near a threshold that the order of additions could matter."""
    largest = test.max_mutations * 2 * max(abs(w) for w in test.weights)
    rounding = 4 * test.max_mutations * largest * np.finfo(float).eps
    assert ends(test).margin > 100 * rounding


probability = st.floats(0.001, 0.9)


@st.composite
def any_test(draw):
    p0 = draw(probability)
    p1 = draw(st.floats(p0 + 0.005, 0.99))
    error = st.floats(0.001, 0.4)
    return SequentialTest(
        draw(st.sampled_from(RULES)), p0, p1, draw(error), draw(error), draw(st.integers(1, 120))
    )


@settings(deadline=None)
@given(test=any_test(), kappas=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_what_holds_for_every_test(test, kappas):
    kappas = np.sort(kappas)
    at, stops = curves(test, kappas), stopping(test, kappas)
    np.testing.assert_allclose(at.adversarial + at.normal + at.undecided, 1, atol=1e-10)
    np.testing.assert_allclose(stops.sum(axis=1), 1, atol=1e-10)
    # One more change never makes a test less inclined to say "adversarial".
    assert (np.diff(at.adversarial) >= -1e-10).all()
    assert (np.diff(at.normal) <= 1e-10).all() or test.rule == "algorithm1"
    steps = np.arange(1, test.max_mutations + 1)
    np.testing.assert_allclose(stops @ steps, at.mean_mutations, rtol=1e-9)
    assert (at.mean_mutations <= test.max_mutations + 1e-9).all()
    assert (at.mean_changes <= at.mean_mutations + 1e-9).all()
    # Wald's identity: the mean number of changes is kappa times that of mutations.
    np.testing.assert_allclose(at.mean_changes, kappas * at.mean_mutations, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(test=any_test())
def test_without_or_with_only_changes_it_is_the_literal_loop(test):
    at, stops = curves(test, [0, 1]), stopping(test, [0, 1])
    for i, changed in enumerate((False, True)):
        outcome = run(test, [changed] * test.max_mutations)
        assert at.probability[outcome.verdict, i] == pytest.approx(1, abs=1e-12)
        assert at.mean_mutations[i] == pytest.approx(outcome.mutations)
        assert quantile(stops, 0.5)[i] == outcome.mutations


def simulated(test, kappa, count, rng):
    """``count`` tests by `sprt.TestBatch`: probabilities, means and their standard errors."""
    tests = TestBatch(test, count)
    while tests.open.any():
        rows = np.flatnonzero(tests.open)
        for part in np.array_split(rows, 1 + rows.size // 20_000):
            tests.advance(part, rng.random((part.size, 50), dtype=np.float32) < kappa)
    return tests


def z_scores(test, kappas, count, seed):
    """How many standard errors simulation lies from the exact value, ``(5, k)``.

    Rows: P of the three verdicts, mean mutations, mean changes. 0 where both agree exactly.
    """
    rng = np.random.default_rng(seed)
    kappas = np.round(np.asarray(kappas) * 2**24) / 2**24  # of which float32 noise is made
    exact, stops = curves(test, kappas), stopping(test, kappas)
    steps = np.arange(1, test.max_mutations + 1)
    z = np.zeros((5, len(kappas)))
    for i, kappa in enumerate(kappas):
        tests = simulated(test, np.float32(kappa), count, rng)
        found = [(tests.verdict == v).mean() for v in Verdict]
        p = exact.probability[:, i]
        spread = [math.sqrt(max(q * (1 - q), 1 / count) / count) for q in p]
        found += [tests.mutations.mean(), tests.c.mean()]
        variance = stops[i] @ (steps - exact.mean_mutations[i]) ** 2
        spread += [math.sqrt(max(variance, 1 / count) / count)]
        spread += [math.sqrt(max(tests.c.var(), 1 / count) / count)]
        expected = [*p, exact.mean_mutations[i], exact.mean_changes[i]]
        z[:, i] = (np.array(found) - expected) / spread
    return z


# Near the thresholds, where little else is known, and far from them.
SETTINGS = [
    (0.0397, 0.0485, 0.05, 0.05, 500),
    (0.0017, 0.0034, 0.05, 0.05, 400),
    (0.0034, 0.0102, 0.05, 0.05, 500),
    (0.2418, 0.261144, 0.05, 0.05, 300),
    (0.2418, 0.256308, 0.05, 0.05, 150),
    (0.05, 0.15, 0.05, 0.05, 300),
    (0.05, 0.15, 0.01, 0.1, 200),
    (0.4, 0.6, 0.05, 0.05, 100),
    (0.01, 0.5, 0.001, 0.001, 80),
    (0.8, 0.9, 0.1, 0.05, 200),
]


@pytest.mark.parametrize("rule", RULES)
def test_agrees_with_simulation(rule):
    z = np.stack(
        [
            z_scores(
                SequentialTest(rule, *SETTINGS[i]),
                [0.5 * SETTINGS[i][0], SETTINGS[i][1]],
                4000,
                7 + i,
            )
            for i in (0, 5, 8)
        ]
    )
    assert np.abs(z).max() < 4.5, z


@pytest.mark.slow
@pytest.mark.parametrize("setting", range(len(SETTINGS)))
@pytest.mark.parametrize("rule", RULES)
def test_agrees_with_200_000_simulated_tests_at_20_kappas(rule, setting):
    test = SequentialTest(rule, *SETTINGS[setting])
    kappas = np.linspace(0.2 * test.p0, min(1, 2.5 * test.p1), 20)
    z = z_scores(test, kappas, 200_000, setting)
    print(f"\n{rule} {setting}: max |z| {np.abs(z).max():.2f}, rms {np.sqrt((z**2).mean()):.2f}")
    assert np.abs(z).max() < 5
    assert np.sqrt((z**2).mean()) < 1.6


@pytest.mark.slow
def test_published_at_its_cap_agrees_with_simulation():
    """Many sums stay open for long here, each rounded once for every mutation."""
    test = SequentialTest("published", 0.49, 0.4905, cap=600)
    z = z_scores(test, [0.9, 0.96, 0.98, 0.985, 1], 20_000, 3)
    assert np.abs(z).max() < 4.5


def test_the_cap_that_makes_the_error_bounds_vain():
    at = curves(CAPPED, [CAPPED.p0, CAPPED.p1, 0.1])
    assert 100 * at.undecided[0] == pytest.approx(99.8, abs=0.05)
    assert 100 * at.adversarial[1] == pytest.approx(1.7, abs=0.05)
    assert 100 * at.adversarial[2] == pytest.approx(98.9, abs=0.05)
    assert at.mean_n[2] == pytest.approx(256.3, abs=0.5)
    errors = achieved(CAPPED)
    assert errors.undecided_p0 == at.undecided[0]
    assert errors.alpha < 0.001
    assert errors.beta < 0.001  # not because the test is right: because it says nothing
    assert errors.undecided_p1 > 0.98


def test_wald_s_approximations_hold_far_from_the_cap():
    """Wald 1947, sections 3.3-3.5: no overshoot, which p1 near p0 comes close to."""
    test = SequentialTest("wald", 0.20, 0.22, cap=15_000)
    at = curves(test, [test.p0, test.p1])
    assert at.undecided.max() < 0.001
    assert at.adversarial == pytest.approx([0.05, 0.95], abs=0.003)
    changed, unchanged = test.weights
    for i, p in enumerate((test.p0, test.p1)):
        said = (0.05, 0.95)[i]
        drift = p * changed + (1 - p) * unchanged
        assert at.mean_mutations[i] == pytest.approx(
            (said * test.upper + (1 - said) * test.lower) / drift, rel=0.02
        )


def test_wald_s_bounds_are_kept_without_a_cap_in_sight():
    errors = achieved(SequentialTest("wald", 0.05, 0.15, cap=3000))
    # alpha + beta bounds the sum (Wald 1945); each alone at most alpha / (1 - beta).
    assert errors.alpha + errors.beta <= 0.1
    assert errors.alpha <= 0.05 / 0.95
    assert errors.beta <= 0.05 / 0.95
    assert errors.undecided_p0 < 1e-10


@pytest.mark.parametrize(("mu", "n"), zip(MNIST_MU, (132, 84, 66, 58), strict=True))
def test_table_2_stops_without_a_change(mu, n):
    test = of_paper("published", 0.0017, mu)
    at = curves(test, [0])
    assert at.normal[0] == 1
    assert at.mean_n[0] == n
    assert 2 * quantile(stopping(test, [0]), 0.99)[0] == n


CIFAR10 = {  # size, mean and interval at step 1 (JSMA's columns are in reverse order)
    "JSMA": (299, 0.6615, 0.0316),
    "C&W": (379, 0.5406, 0.0345),
}
# identified, #Mutations, #c for each mu: Table 2, and what protocol section 1 says of one draw of
# kappas.
TABLE_2 = {
    "JSMA": [(230, 72, 25.6), (226, 52, 18.5), (223, 42, 15.3), (223, 37, 13.5)],
    "C&W": [(215, 80, 27.2), (213, 56, 19.3), (210, 43, 15.4), (214, 36, 13.2)],
}
PROTOCOL = {
    "JSMA": [(229, 75, 26.1), (226, 52, 18.4), (223, 43, 15.2), (222, 37, 13.5)],
    "C&W": [(214, 79, 26.9), (212, 56, 19.3), (209, 45, 15.7), (207, 39, 13.7)],
}


@pytest.mark.parametrize("name", CIFAR10)
def test_published_rule_predicts_table_2_of_cifar10(name):
    """Nothing is fitted. Counts vary by about 7 to 9 with the samples drawn."""
    size, mean, interval = CIFAR10[name]
    mixture = beta(mean, interval, size)
    for i, mu in enumerate(CIFAR_MU):
        at = mixture.under(of_paper("published", 0.2418, mu))
        mutations, changes = at.given(Verdict.ADVERSARIAL)
        for identified, n, c in (TABLE_2[name][i], PROTOCOL[name][i]):
            assert size * at.adversarial == pytest.approx(identified, abs=6)
            assert 2 * mutations == pytest.approx(n, rel=0.09)
            assert changes == pytest.approx(c, rel=0.05)


def test_a_correct_test_would_have_needed_far_more_on_cifar10():
    at = beta(0.6615, 0.0316, 299).under(of_paper("wald", 0.2418, 1.01))
    mutations, changes = at.given(Verdict.ADVERSARIAL)
    assert 299 * at.adversarial == pytest.approx(278, abs=3)
    assert mutations == pytest.approx(344, rel=0.03)
    assert changes == pytest.approx(197, rel=0.03)


def test_published_breaks_even_near_one_half_on_cifar10():
    for mu in CIFAR_MU:
        at = curves(of_paper("published", 0.2418, mu), np.linspace(0.45, 0.52, 71))
        assert 0.48 < np.linspace(0.45, 0.52, 71)[np.argmin(abs(at.adversarial - 0.5))] < 0.51


def test_a_mixture_is_the_mean_over_its_kappas():
    test = SequentialTest("wald", 0.05, 0.15, cap=200)
    kappas = np.array([0.0, 0.02, 0.02, 0.3])
    at = curves(test, kappas)
    mixed = Mixture(kappas).under(test)
    assert mixed.adversarial == pytest.approx(at.adversarial.mean())
    assert mixed.mean_mutations == pytest.approx(at.mean_mutations.mean())
    weighted = Mixture(np.array([0.0, 0.02, 0.3]), np.array([2, 4, 2])).under(test)
    np.testing.assert_allclose(weighted.probability, mixed.probability)
    assert Mixture(np.array([0.02])).under(test).undecided == at.undecided[1]


def test_quantiles_are_those_of_the_distribution():
    table = np.array([[0.1, 0.4, 0.5], [0, 0, 1]])
    assert quantile(table, 0.1).tolist() == [1, 3]
    assert quantile(table, 0.5).tolist() == [2, 3]
    assert quantile(table, 0.95).tolist() == [3, 3]


def test_a_verdict_that_cannot_be_has_no_mean():
    mutations, changes = curves(of_paper("algorithm1", 0.0017, 2.0), [0]).given(Verdict.NORMAL)
    assert np.isnan([mutations[0], changes[0]]).all()


def test_one_recursion_serves_all_kappas():
    test = SequentialTest("wald", 0.05, 0.15, cap=77)
    assert ends(test) is ends(test)
    with pytest.raises(ValueError, match="read-only"):
        ends(test).share[0] = 1


@pytest.mark.parametrize("kappas", [[-0.1], [1.1], [math.nan], 0.5, [[0.5]]])
def test_kappas_out_of_range_are_refused(kappas):
    with pytest.raises(ValueError, match="kappas must be"):
        curves(CAPPED, kappas)


def test_values_out_of_range_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        Mixture(np.zeros(0)).under(CAPPED)
    with pytest.raises(ValueError, match="q=1"):
        quantile(np.ones((1, 1)), 1)
