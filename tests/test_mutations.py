from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nmutant_cli.config import Mutation
from nmutant_cli.mutations import (
    BLACKOUT,
    LIGHT,
    OCCLUSION,
    Mutations,
    MutationStream,
    apply,
    draw,
    identity,
)
from nmutant_cli.types import Bounds

SHAPE = (28, 28, 1)


def literal(rng, shape, wanted):
    """One mutation as the operator is written down: all of r is drawn, whatever the kind."""
    rows, columns = shape[:2]
    divisor = rng.integers(1, wanted.max_divisor + 1, shape)
    r = wanted.amplitude * (rng.random(shape) - 0.5) / divisor
    kind = wanted.kinds[rng.integers(len(wanted.kinds))]
    height, width = rng.integers(1, wanted.max_rectangle + 1, 2)
    top, left = rng.integers(0, rows - height + 1), rng.integers(0, columns - width + 1)
    inside = np.s_[top : top + height, left : left + width]
    mutation = np.zeros(shape)
    if kind == "light":
        mutation[:] = r.mean()
    elif kind == "occlusion":
        mutation[inside] = r[inside]
    elif r[inside].mean() < 0:
        mutation[inside] = -1
    return kind, mutation


def dense(mutations, shape):
    """What each mutation adds to an image."""
    return apply(np.zeros((len(mutations), *shape), np.float32), mutations, 1.0)


@pytest.mark.parametrize("shape", [(28, 28, 1), (12, 10, 3)])
def test_the_operator_has_the_distribution_that_is_written_down(shape):
    wanted = Mutation(amplitude=4.0 if shape[2] == 3 else 1.0)
    rng = np.random.default_rng(5)
    n = 6000
    ours = draw(rng, n, shape, wanted)
    theirs = [literal(rng, shape, wanted) for _ in range(n)]
    added = dense(ours, shape)
    for name, kind in (("light", LIGHT), ("occlusion", OCCLUSION), ("blackout", BLACKOUT)):
        a = added[ours.kind == kind]
        b = np.stack([m for k, m in theirs if k == name])
        assert abs(len(a) - len(b)) < 6 * np.sqrt(n)
        for statistic in (
            lambda m: m.sum(axis=(1, 2, 3)),
            lambda m: np.abs(m).max(axis=(1, 2, 3)),
            lambda m: (m != 0).sum(axis=(1, 2, 3)),
            lambda m: (m != 0).any(axis=(2, 3)).argmax(axis=1),
            lambda m: (m != 0).any(axis=(1, 3)).argmax(axis=1),
        ):
            assert stats.ks_2samp(statistic(a), statistic(b)).pvalue > 1e-4, name


def test_about_one_mutation_in_six_changes_nothing():
    drawn = draw(np.random.default_rng(0), 30_000, SHAPE, Mutation())
    assert abs(drawn.is_identity.mean() - 1 / 6) < 0.01
    assert (drawn.kind[drawn.is_identity] == BLACKOUT).all()


def test_only_the_kinds_asked_for_are_drawn():
    drawn = draw(np.random.default_rng(0), 500, SHAPE, Mutation(kinds=("blackout", "light")))
    assert set(drawn.kind) == {LIGHT, BLACKOUT}
    assert not drawn.patch.any()


@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    channels=st.sampled_from([1, 3]),
    rectangle=st.integers(1, 5),
    step=st.floats(0.25, 20),
    seed=st.integers(0, 2**32),
)
def test_a_mutation_stays_inside_the_image_and_scales_with_the_step(
    rows, columns, channels, rectangle, step, seed
):
    shape = (rows, columns, channels)
    drawn = draw(np.random.default_rng(seed), 40, shape, Mutation(max_rectangle=rectangle))
    assert (drawn.top >= 0).all()
    assert (drawn.left >= 0).all()
    assert (drawn.top + drawn.height <= rows).all()
    assert (drawn.left + drawn.width <= columns).all()
    unit = dense(drawn, shape)
    images = np.zeros((40, *shape), np.float32)
    np.testing.assert_allclose(apply(images, drawn, step), unit * np.float32(step), rtol=1e-6)
    assert (unit[drawn.is_identity] == 0).all()
    clipped = apply(images + 0.5, drawn, step, Bounds(0, 1))
    assert clipped.min() >= 0
    assert clipped.max() <= 1


def test_applying_leaves_the_images_alone():
    images = np.full((5, *SHAPE), 0.5, np.float32)
    apply(images, draw(np.random.default_rng(1), 5, SHAPE, Mutation()), 3.0)
    assert (images == 0.5).all()


def same(a: Mutations, b: Mutations) -> bool:
    return all((x == y).all() for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


@settings(max_examples=40)
@given(start=st.integers(0, 200), count=st.integers(1, 100), cut=st.integers(0, 100))
def test_any_stretch_of_a_stream_is_the_same_in_any_order(start, count, cut):
    whole = MutationStream(SHAPE, Mutation(), 3, "mnist", "detect", 17).take(0, 300)
    other = MutationStream(SHAPE, Mutation(), 3, "mnist", "detect", 17)
    cut = min(cut, count)
    later = other.take(start + cut, count - cut) if cut < count else None
    parts = [p for p in (other.take(start, cut) if cut else None, later) if p is not None]
    assert same(Mutations.concatenate(parts), whole[start : start + count])


def test_samples_have_streams_of_their_own():
    one = MutationStream(SHAPE, Mutation(), 3, "detect", 1).take(0, 64)
    two = MutationStream(SHAPE, Mutation(), 3, "detect", 2).take(0, 64)
    assert (one.noise != two.noise).mean() > 0.9


def test_identity_changes_nothing():
    nothing = identity(3, (8, 8, 3))
    assert nothing.is_identity.all()
    images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    assert (apply(images, nothing, 10) == images).all()
