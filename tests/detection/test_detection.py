"""Sensitivity and batched detection against one-by-one loops, on a model with clear margins."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.detection.detect import detect
from nmutant_cli.detection.sprt import SequentialTest, run
from nmutant_cli.mutation.operator import MutationStream, apply
from nmutant_cli.mutation.sensitivity import (
    FixedMutations,
    NumpyLabeller,
    Subjects,
    half_width,
    majority_of,
    tally,
)

SHAPE = (6, 6, 1)
SETTINGS = Mutation()
STEP = 3.0


def predict(images):
    """Which quarter of the grey scale the brightest corner is in: labels from pixels alone."""
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1], 0]
    return np.clip(np.floor(corners.max(axis=1) * 4), 0, 3).astype(np.int64)


IMAGES = np.random.default_rng(3).random((24, *SHAPE)).astype(np.float32)
LABELS = predict(IMAGES)


def streams(rows, purpose="detect"):
    return [MutationStream(SHAPE, SETTINGS, 11, purpose, int(row)) for row in rows]


def literal_changes(row, count, label=None):
    """Whether each mutation of one image changes its label, one call of the model for each."""
    drawn = streams([row])[0].take(0, count)
    own = predict(IMAGES[row : row + 1])[0] if label is None else label
    return [
        bool(predict(apply(IMAGES[row : row + 1], drawn[i : i + 1], STEP))[0] != own)
        for i in range(count)
    ]


@pytest.mark.parametrize("labels", [None, (LABELS + 1) % 4])
def test_kappa_equals_a_literal_loop(labels):
    subjects = Subjects(NumpyLabeller(predict, STEP), IMAGES, labels)
    found = tally(subjects, streams(range(24)), 40)
    for row, count in enumerate(found.changes):
        assert count == sum(literal_changes(row, 40, None if labels is None else labels[row]))
    assert found.changes.sum() > 0


@pytest.mark.parametrize("labels", [None, (LABELS + 1) % 4])
def test_the_majority_label_equals_a_count_of_votes(labels):
    found = tally(Subjects(NumpyLabeller(predict, 4 * STEP), IMAGES, labels), streams(range(24)), 5)
    own = LABELS if labels is None else labels
    for row in range(24):
        drawn = streams([row])[0].take(0, 5)
        votes = list(predict(apply(np.repeat(IMAGES[row : row + 1], 5, axis=0), drawn, 4 * STEP)))
        most = {label for label in range(4) if votes.count(label) == max(map(votes.count, votes))}
        assert found.majority[row] == (own[row] if own[row] in most else min(most))
    assert labels is None or (found.majority != own).any()


@pytest.mark.parametrize(("own", "majority"), [(3, 3), (1, 1), (2, 1), (0, 1)])
def test_the_majority_in_a_tie_is_the_own_label_or_else_the_smallest(own, majority):
    assert majority_of(np.array([3, 1, 3, 2, 1]), own) == majority


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 300),
    order=st.permutations(range(24)),
    cut=st.integers(0, 24),
    deterministic=st.booleans(),
)
def test_kappa_is_the_same_for_any_batch_order_and_resume_point(batch, order, cut, deterministic):
    expected = tally(Subjects(NumpyLabeller(predict, STEP), IMAGES), streams(range(24)), 50)
    changes, majority = np.zeros((2, 24), np.int64)
    for rows in (order[:cut], order[cut:]):
        label = NumpyLabeller(predict, STEP, batch_size=batch, deterministic=deterministic)
        subjects = Subjects(label, IMAGES[list(rows)])
        found = tally(subjects, streams(rows), 50)
        changes[list(rows)], majority[list(rows)] = found.changes, found.majority
    assert (changes == expected.changes).all()
    assert (majority == expected.majority).all()


def test_one_list_can_serve_all_images():
    shared = streams([0])[0].take(0, 64)
    subjects = Subjects(NumpyLabeller(predict, STEP), IMAGES)
    counts = tally(subjects, [FixedMutations(shared)] * 24, 64).changes
    for row in (0, 7, 23):
        images = np.repeat(IMAGES[row : row + 1], 64, axis=0)
        assert counts[row] == (predict(apply(images, shared, STEP)) != LABELS[row]).sum()


def test_a_deterministic_model_is_not_asked_about_mutations_that_change_nothing():
    asked = []

    def spy(images):
        asked.append(len(images))
        return predict(images)

    drawn = streams([0])[0].take(0, 60)
    tally(Subjects(NumpyLabeller(spy, STEP), IMAGES[:1]), [FixedMutations(drawn)], 60)
    assert sum(asked) == 1 + 60 - drawn.is_identity.sum()


TESTS = [
    SequentialTest(rule, p0, p1, cap=cap)
    for rule in ("wald", "algorithm1", "published")
    for p0, p1, cap in ((0.02, 0.1, 90), (0.1, 0.4, 30), (0.005, 0.011, 120))
]


@settings(max_examples=25, deadline=None)
@given(
    block=st.one_of(st.none(), st.integers(1, 130)),
    batch=st.integers(1, 300),
    order=st.permutations(range(24)),
    cut=st.integers(0, 24),
)
def test_batched_detection_decides_as_the_literal_loop_mutation_by_mutation(
    block, batch, order, cut
):
    expected = {
        row: [run(test, literal_changes(row, 120)) for test in TESTS] for row in EXPECTED_ROWS
    }
    for rows in (order[:cut], order[cut:]):
        subjects = Subjects(NumpyLabeller(predict, STEP, batch_size=batch), IMAGES[list(rows)])
        found = detect(subjects, streams(rows), TESTS, block)
        for i, row in enumerate(rows):
            for test, outcome in zip(found, expected.get(row, []), strict=False):
                got = (test.verdict[i], test.n[i], test.c[i], test.mutations[i])
                assert got == (outcome.verdict, outcome.n, outcome.c, outcome.mutations)


EXPECTED_ROWS = (0, 3, 8, 15, 23)


def test_all_rows_and_all_rules_against_the_literal_loop():
    found = detect(Subjects(NumpyLabeller(predict, STEP), IMAGES), streams(range(24)), TESTS)
    for row in range(24):
        changes = literal_changes(row, 120)
        for test, one in zip(TESTS, found, strict=True):
            outcome = run(test, changes)
            got = (one.verdict[row], one.n[row], one.c[row], one.mutations[row])
            assert got == (outcome.verdict, outcome.n, outcome.c, outcome.mutations), test
    assert {v for one in found for v in one.verdict} == {0, 1, 2}, "every verdict is met"


@pytest.mark.parametrize("block", [None, 7])
def test_the_votes_are_the_labels_of_the_mutations_that_each_test_read(block):
    subjects = Subjects(NumpyLabeller(predict, 4 * STEP), IMAGES)
    for detected in detect(subjects, streams(range(24)), TESTS, block, votes=True):
        for row, votes in enumerate(detected.votes):
            read = detected.mutations[row]
            mutated = apply(IMAGES[[row] * read], streams([row])[0].take(0, read), 4 * STEP)
            assert votes == Counter(predict(mutated).tolist())
    assert max(len(votes) for votes in detected.votes) > 2
    assert not any(detect(subjects, streams(range(24)), TESTS[:1])[0].votes)


def test_no_samples_no_decisions():
    nobody = Subjects(NumpyLabeller(predict, STEP), IMAGES[:0])
    assert len(detect(nobody, [], TESTS)[0].verdict) == 0
    assert len(tally(nobody, [], 10).changes) == 0


def test_the_interval_is_z_times_the_population_deviation():
    assert half_width([0.0, 1.0], 0.99) == pytest.approx(2.5758 * 0.5 / np.sqrt(2), rel=1e-4)
