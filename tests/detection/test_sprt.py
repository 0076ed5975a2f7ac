from __future__ import annotations

import itertools
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmutant_cli.config.detection import Detection
from nmutant_cli.detection.sprt import RULES, SequentialTest, TestBatch, run
from nmutant_cli.types import Verdict

MU = (1.2, 1.5, 1.8, 2.0)


def mnist(rule, mu, cap=10_000):
    p0, p1 = Detection().hypotheses(0.0017, mu)
    return SequentialTest(rule, p0, p1, cap=cap)


@pytest.mark.parametrize(("mu", "n"), zip(MU, (132, 84, 66, 58), strict=True))
def test_published_stops_where_table_2_says_without_a_change(mu, n):
    outcome = run(mnist("published", mu, cap=2000), [False] * 2000)
    assert (outcome.verdict, outcome.n, outcome.c) == (Verdict.NORMAL, n, 0)
    assert outcome.mutations == n / 2


@pytest.mark.parametrize(("mu", "n"), zip(MU, (4322, 1728, 1080, 864), strict=True))
def test_wald_needs_far_more_without_a_change(mu, n):
    outcome = run(mnist("wald", mu), [False] * 10_000)
    assert (outcome.verdict, outcome.n, outcome.mutations) == (Verdict.NORMAL, n, n)


@pytest.mark.parametrize(("mu", "stop"), zip(MU, ((8, 4), (6, 3), (6, 3), (4, 2)), strict=True))
def test_published_stops_where_table_2_says_when_every_label_changes(mu, stop):
    outcome = run(mnist("published", mu), [True] * 50)
    assert (outcome.verdict, outcome.n, outcome.c) == (Verdict.ADVERSARIAL, *stop)


def test_evidence_at_a_threshold_is_enough():
    test = SequentialTest("wald", 0.2, 0.8, alpha=0.2, beta=0.2)
    assert test.weights[0] == test.upper
    assert run(test, [True]).verdict == Verdict.ADVERSARIAL
    batch = TestBatch(test, 1)
    batch.advance(np.array([0]), np.array([[True]]))
    assert batch.verdict.tolist() == [Verdict.ADVERSARIAL]


def test_algorithm_1_as_printed_never_ends_without_a_change():
    outcome = run(mnist("algorithm1", 2.0, cap=5000), [False] * 6000)
    assert (outcome.verdict, outcome.n) == (Verdict.UNDECIDED, 5000)


def test_the_cap_of_published_counts_twice():
    # Around one half, a change and the mutation that is counted twice outweigh each other.
    outcome = run(SequentialTest("published", 0.4999, 0.5001, cap=2000), [True] * 4000)
    assert (outcome.verdict, outcome.n, outcome.mutations) == (Verdict.UNDECIDED, 2000, 1000)


@given(c=st.integers(0, 50), extra=st.integers(0, 500), p0=st.floats(0.01, 0.4))
def test_the_log_ratio_is_that_of_the_likelihoods(c, extra, p0):
    test, n = SequentialTest("wald", p0, 2 * p0), c + extra
    likelihood = [math.log(p) * c + math.log1p(-p) * (n - c) for p in (test.p1, test.p0)]
    assert test.log_ratio(c, n) == pytest.approx(likelihood[0] - likelihood[1], abs=1e-9)


probability = st.floats(0.001, 0.9)


@st.composite
def any_test(draw):
    p0 = draw(probability)
    p1 = draw(st.floats(p0 + 0.001, 0.99))
    error = st.floats(0.001, 0.4)
    return SequentialTest(
        draw(st.sampled_from(RULES)), p0, p1, draw(error), draw(error), draw(st.integers(1, 150))
    )


def of_several_blocks(test):
    """With an example of each rule in which decisions take several blocks."""
    for rule in RULES:
        slow = SequentialTest(rule, 0.02, 0.08, cap=150)
        example = {"test": slow, "kappas": [0, 0.03, 0.1, 0.3], "blocks": [5] * 30, "seed": 1}
        test = hypothesis.example(**example)(test)
    return test


@given(
    test=any_test(),
    kappas=st.lists(st.floats(0, 1), min_size=1, max_size=8),
    blocks=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    seed=st.integers(0, 2**32),
)
@of_several_blocks
def test_batched_tests_decide_as_the_literal_loop_does(test, kappas, blocks, seed):
    length = sum(blocks)
    changes = np.random.default_rng(seed).random((len(kappas), length)) < np.array(kappas)[:, None]
    batched, at = TestBatch(test, len(kappas)), 0
    for block in blocks:
        rows = np.flatnonzero(batched.open)
        batched.advance(rows, changes[rows, at : at + block])
        at += block
    for i, row in enumerate(changes):
        literal = run(test, row)
        assert batched.verdict[i] == literal.verdict
        assert (batched.n[i], batched.c[i]) == (literal.n, literal.c)
        assert batched.mutations[i] == literal.mutations
        ended = literal.verdict != Verdict.UNDECIDED or literal.n >= test.cap
        assert batched.open[i] == (not ended)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("p0", "p1", "cap"), [(0.01, 0.3, 90), (0.2, 0.9, 90), (0.5, 0.99, 90), (0.1, 0.11, 7)]
)
def test_no_decision_is_shorter_than_the_shortest(rule, p0, p1, cap):
    test = SequentialTest(rule, p0, p1, cap=cap)
    every = itertools.product([False, True], repeat=min(test.max_mutations, 10))
    found = min(run(test, changes).mutations for changes in every)
    if rule == "algorithm1":
        assert 1 <= test.shortest <= found
    else:
        assert test.shortest == found


def test_wald_keeps_its_error_bounds():
    """Far from the cap, false alarms at p0 and misses at p1 are at most alpha and beta."""
    test = SequentialTest("wald", 0.05, 0.15, cap=100_000)
    rng = np.random.default_rng(1)
    n = 4000
    for kappa, wrong in ((test.p0, Verdict.ADVERSARIAL), (test.p1, Verdict.NORMAL)):
        batched = TestBatch(test, n)
        while batched.open.any():
            rows = np.flatnonzero(batched.open)
            batched.advance(rows, rng.random((len(rows), 100)) < kappa)
        rate = (batched.verdict == wrong).mean()
        assert 0 < rate < 0.05 + 3 * math.sqrt(0.05 * 0.95 / n)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rule": "walt"},
        {"p0": 0.0},
        {"p1": 1.0},
        {"p0": 0.3, "p1": 0.2},
        {"alpha": 0.0},
        {"beta": 0.5},
        {"cap": 0},
    ],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=r"rule|p0|alpha|cap"):
        SequentialTest(**({"rule": "wald", "p0": 0.1, "p1": 0.2} | wrong))
