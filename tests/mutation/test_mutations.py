from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.mutation.operator import (
    BLACKOUT,
    DEGREES,
    KINDS,
    LIGHT,
    OCCLUSION,
    SPREAD,
    STRETCH,
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


def test_the_divisor_runs_from_1_to_the_largest():
    wanted = Mutation(kinds=("occlusion",), max_divisor=2)
    noise = draw(np.random.default_rng(0), 4000, SHAPE, wanted).patch
    sizes = np.abs(noise[noise != 0])
    # Divided by 1 half of them lie above 1/4, divided by 2 none does.
    assert abs((sizes > 0.25).mean() - 0.25) < 0.02
    assert sizes.max() <= 0.5


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


def one_kind(kind, n=50, shape=SHAPE, seed=0):
    return draw(np.random.default_rng(seed), n, shape, Mutation(kinds=(kind,)))


def test_further_kinds_leave_the_draws_of_the_published_ones_alone():
    """Kinds are drawn after what was there before, so that no published number moves."""
    drawn = draw(np.random.default_rng(3), 200, SHAPE, Mutation())
    assert not drawn.warp.any()
    assert drawn.patch.shape[1:3] == (3, 3)


def test_gaussian_noise_has_its_spread_on_every_value():
    added = dense(one_kind("gaussian", 300, (12, 9, 3)), (12, 9, 3))
    assert stats.kstest(added.ravel()[:20_000] / SPREAD, "norm").pvalue > 1e-4
    assert np.abs(np.corrcoef(added[:, 0, 0, 0], added[:, 0, 0, 1])[0, 1]) < 0.25


def test_a_translation_by_whole_pixels_moves_the_pixels_and_repeats_the_edge():
    drawn = one_kind("translation", 1)
    images = np.random.default_rng(0).random((1, *SHAPE), np.float32)
    warp = np.array([[1, -2, 0, 0]], np.float32)
    moved = apply(images, Mutations(**{**vars(drawn), "warp": warp}), 1.0)
    rows, columns = np.arange(28) - 1, np.arange(28) + 2
    expected = images[0][rows.clip(0)][:, columns.clip(None, 27)]
    np.testing.assert_allclose(moved[0], expected, atol=1e-6)


def test_a_quarter_turn_is_that_of_numpy():
    drawn = one_kind("rotation", 1)
    images = np.random.default_rng(0).random((1, *SHAPE), np.float32)
    warp = np.array([[0, 0, np.pi / 2, 0]], np.float32)
    turned = apply(images, Mutations(**{**vars(drawn), "warp": warp}), 1.0)[0]
    # At the very edge a rounding error asks for what lies outside.
    inner = np.s_[1:-1, 1:-1]
    candidates = [np.rot90(images[0], k) for k in (1, 3)]
    assert any(np.allclose(turned[inner], c[inner], atol=1e-4) for c in candidates)


@pytest.mark.parametrize("kind", ["rotation", "translation"])
@pytest.mark.parametrize("shape", [(28, 28, 1), (9, 17, 3), (1, 5, 1)])
def test_moving_is_that_of_scipy(kind, shape):
    images = np.random.default_rng(0).random((20, *shape), np.float32)
    drawn = one_kind(kind, 20, shape)
    moved = apply(images, drawn, 5.0)
    for i, affine in enumerate(drawn.affine(5.0, shape)):
        for c in range(shape[2]):
            turn, offset = affine[:, :2], affine[:, 2]
            expected = ndimage.affine_transform(
                images[i, ..., c], turn, offset, order=1, mode="nearest"
            )
            np.testing.assert_allclose(moved[i, ..., c], expected, atol=1e-6)


@pytest.mark.parametrize("step", [0.5, 4.0])
def test_contrast_is_a_straight_line_through_the_values(step):
    images = np.random.default_rng(0).random((30, *SHAPE), np.float32)
    drawn = one_kind("contrast", 30)
    changed = apply(images, drawn, step)
    for before, after, m in zip(images, changed, range(30), strict=True):
        gain, level = step * drawn.warp[m, 3], step * drawn.level[m]
        np.testing.assert_allclose(after, before + gain * (before - 0.5) + level, atol=1e-5)
    assert np.abs(drawn.warp[:, 3]).max() <= STRETCH


def test_how_far_images_are_moved_and_turned():
    moved, turned = one_kind("translation", 2000), one_kind("rotation", 2000)
    for values, most in (
        (moved.warp[:, 0], 1),
        (moved.warp[:, 1], 1),
        (turned.warp[:, 2], np.deg2rad(DEGREES)),
    ):
        assert stats.kstest(values / most, "uniform", (-1, 2)).pvalue > 1e-4


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "blackout"])
def test_only_a_blackout_is_ever_nothing(kind):
    assert not one_kind(kind, 200).is_identity.any()
