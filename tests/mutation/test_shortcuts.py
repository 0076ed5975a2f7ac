"""Labels that are come by without asking are those that asking gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.mutation import doubt
from nmutant_cli.mutation.audit import Counts
from nmutant_cli.mutation.doubt import Doubt
from nmutant_cli.mutation.lights import ENOUGH, PLACES, Lights
from nmutant_cli.mutation.operator import (
    LIGHT,
    Mutations,
    MutationStream,
    apply,
    draw,
    identity,
    light_spread,
    lit,
)
from nmutant_cli.mutation.sensitivity import FixedMutations, Subjects, tally
from nmutant_cli.mutation.shortcut import Asking
from nmutant_cli.mutation.slopes import Gradients, Slopes

SHAPE = (5, 4, 2)
EVERY = ("light", "occlusion", "blackout")


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(doubt, "LEARNT", 50)  # else all is learnt from, and asked


class Network:
    """A labeller of ``logits(images)`` with shortcuts: to light by its ``spread``, to occlusion by
    its ``gradients``, or none."""

    deterministic, batch_size, at_once = True, 64, 256

    def __init__(self, logits, spread=None, gradients=None, step_size=1.0, clip=None):
        self._logits, self._spread, self._gradients = logits, spread, gradients
        self._step, self._clip, self.rows = step_size, clip, 0
        self.times, self.blur = 1.0, 0.0
        self.counts, self.occlusion = Counts(), Counts()
        self._doubts = Doubt("light", self.counts), Doubt("slopes", self.occlusion)
        self.shortcuts = None if (spread, gradients) == (None, None) else self

    def over(self, images, ask):
        light, occlusion = self._doubts

        def exactly(owner, mutations):
            self.rows += len(owner)
            return self._exactly(images[owner], mutations)

        if self._gradients is not None:
            slopes = Gradients(self._gradients, 4, 3)
            how = Asking(ask, exactly, lambda: self.blur, lambda rows: rows)
            ask = Slopes(images, slopes, self._step, self.times, occlusion, how).ranked
        if self._spread is not None:
            how = Asking(ask, exactly, lambda: 0.0, lambda rows: rows)
            ask = Lights(len(images), SHAPE, self._spread, light, how).ranked
        return ask

    def ranked(self, images, mutations):
        assert len(images) == len(mutations) <= self.at_once
        self.rows += len(images)
        label, lead = self._exactly(images, mutations)
        sign = 1 - 2 * (np.arange(len(lead)) % 2)
        return label, np.maximum(lead + self.blur * sign, 0)

    def _exactly(self, images, mutations):
        logits = self._logits(apply(images, mutations, self._step, self._clip))
        best = np.sort(logits, axis=1)
        return logits.argmax(axis=1), best[:, -1] - best[:, -2]

    def __call__(self, images, mutations):
        return self.ranked(images, mutations)[0]


class Perceptron:
    """A network with a layer of 30 and four classes that are never far apart."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self._first, self._last = rng.standard_normal((40, 30)), rng.standard_normal((30, 4))
        self._bias = rng.standard_normal(30)

    def _inner(self, images):
        return images.reshape(len(images), -1).astype(np.float64) @ self._first + self._bias

    def __call__(self, images):
        return np.maximum(self._inner(images), 0) @ self._last

    def gradients(self, images):
        on = self._inner(images) > 0
        slopes = np.einsum("pi,ni,ik->nkp", self._first, on, self._last)
        return self(images), slopes.reshape(len(images), 4, *SHAPE)


@given(st.integers(0, 10**6), st.sampled_from([1.0, 5.0, 20.0]), st.booleans())
def test_under_a_bound_learnt_from_all_the_labels_are_those_of_asking(seed, step_size, clip):
    images = np.random.default_rng(seed).random((20, *SHAPE), dtype=np.float32)
    every, logits = Mutation(kinds=EVERY), Perceptron(seed)
    sources = [MutationStream(SHAPE, every, 0, "x", i) for i in range(len(images))]
    how = step_size, (0.0, 1.0) if clip else None
    network = Network(logits, light_spread(every, SHAPE), None if clip else logits.gradients, *how)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doubt, "LEARNT", 10**6)
        tally(Subjects(network, images), sources, 400)
    asked = network.counts.again, network.occlusion.again
    found = tally(Subjects(network, images), sources, 400)
    expected = tally(Subjects(Network(logits, None, None, *how), images), sources, 400)
    assert found.changes.tolist() == expected.changes.tolist()
    assert found.majority.tolist() == expected.majority.tolist()
    assert asked == (network.counts.first / 2, network.occlusion.first / 2), "all, the first time"
    assert network.counts.again < network.counts.first
    assert (network.occlusion.first > 0) == (not clip)


@pytest.mark.parametrize("step_size", [0.2, 1.0])
@pytest.mark.parametrize(("kind", "once", "part"), [("light", 9, 8), ("occlusion", 0, 4)])
def test_few_are_asked(kind, once, part, step_size, monkeypatch):
    monkeypatch.setattr(doubt, "LEARNT", 100)
    images = np.random.default_rng(0).random((20, *SHAPE), dtype=np.float32)
    settings = Mutation(kinds=(kind,))
    logits, spread = Perceptron(1), light_spread(settings, SHAPE)
    sources = [MutationStream(SHAPE, settings, 0, "x", i) for i in range(len(images))]
    network = Network(logits, spread, logits.gradients, step_size)
    plain = Network(logits, step_size=step_size)
    found, expected = (tally(Subjects(n, images), sources, 400) for n in (network, plain))
    assert expected.changes.sum() > 0 or step_size < 1
    assert (found.changes == expected.changes).all()
    assert (found.majority == expected.majority).all()
    assert plain.rows == 20 * 401
    counts = network.counts if kind == "light" else network.occlusion
    assert counts.audited >= 0.01 * (counts.first - counts.again)
    far = plain.rows - 20 - counts.first  # light beyond the outermost places
    assert far < 10
    assert network.rows == 20 * (1 + once) + counts.again + counts.audited + far
    assert network.rows < plain.rows / part


def test_leads_that_are_a_little_off_do_not_make_the_slopes_doubtful():
    images = np.random.default_rng(0).random((20, *SHAPE), dtype=np.float32)
    sources = [MutationStream(SHAPE, Mutation(kinds=("occlusion",)), 0, "x", i) for i in range(20)]
    found, networks = [], []
    for blur in (0.0, 0.3):
        perceptron = Perceptron(1)
        networks.append(Network(perceptron, gradients=perceptron.gradients))
        networks[-1].blur = blur
        found.append(tally(Subjects(networks[-1], images), sources, 400).changes.tolist())
    sharp, blurred = (network.occlusion for network in networks)
    assert found[0] == found[1]
    assert 0 < blurred.bound <= sharp.bound
    assert blurred.again <= sharp.again


def test_the_first_bound_is_learnt_from_the_leads_for_that():
    counts = Counts()
    unsure, label, lead = Doubt("slopes", counts), np.zeros(50, np.int64), np.full(50, 3.0)
    unsure.settled(
        label,
        lead,
        lambda rows: (label[rows], np.full(len(rows), 9.0)),
        lambda rows: rows,
        learn=lambda rows: (label[rows], np.full(len(rows), 2.5)),
    )
    assert unsure.bound == counts.bound == doubt.FACTOR * 0.5


def test_the_smallest_patches_are_not_taken_at_their_word():
    """Rounding is larger than what they do; as a share of their size it is anything."""
    images = np.random.default_rng(0).random((20, *SHAPE), dtype=np.float32)
    perceptron = Perceptron(1)
    bounds = []
    for amplitude in (1.0, 1e-6):
        network = Network(perceptron, gradients=perceptron.gradients)
        settings = Mutation(kinds=("occlusion",), amplitude=amplitude)
        sources = [MutationStream(SHAPE, settings, 0, "x", i) for i in range(20)]
        tally(Subjects(network, images), sources, 400)
        bounds.append(network.occlusion.bound)
    assert bounds[1] < bounds[0]


@pytest.mark.parametrize("times", [1, 3])
def test_the_slopes_are_asked_for_once_and_only_where_there_are_many(times):
    images = np.random.default_rng(0).random((3, *SHAPE), dtype=np.float32)
    network, asked = Perceptron(2), []

    def gradients(of):
        asked.append(len(of))
        return network.gradients(of)

    asking = Network(network, gradients=gradients)
    asking.times = float(times)
    subjects, enough = Subjects(asking, images), 8 * times
    drawn = draw(np.random.default_rng(0), 2 * enough, SHAPE, Mutation(kinds=("occlusion",)))
    for image, part, calls in (
        (0, slice(enough - 1), []),  # less than two passes for each of four classes
        (0, slice(enough - 1, enough), [1]),
        (0, slice(enough, 2 * enough), [1]),
        (2, slice(2 * enough), [1, 1]),
    ):
        subjects.mutated(np.full(len(drawn[part]), image), drawn[part])
        assert asked == calls


def test_what_is_nearly_always_in_doubt_is_given_up(monkeypatch):
    monkeypatch.setattr(doubt, "LEARNT", 50)
    rng = np.random.default_rng(0)
    images = rng.random((10, *SHAPE), dtype=np.float32)
    network = Perceptron(3)

    def nonsense(of):
        logits, slopes = network.gradients(of)
        return logits, 50 * rng.permuted(slopes, axis=1)

    settings = Mutation(kinds=("occlusion",))
    label = Network(network, gradients=nonsense)
    sources = [MutationStream(SHAPE, settings, 0, i) for i in range(len(images))]
    for start in (0, 200):
        some = [FixedMutations(source.take(start, 200)) for source in sources]
        found, plain = (tally(Subjects(n, images), some, 200) for n in (label, Network(network)))
        assert (found.changes == plain.changes).all()
        assert label.occlusion.first == 2000, "none in the second round"


def crossing(at):
    """Two classes, the second from a mean brightness of ``at`` on."""

    def logits(images):
        light = images.reshape(len(images), -1).astype(np.float64).mean(axis=1)
        return np.stack([np.zeros(len(light)), light - at], axis=1)

    return logits


SETTINGS = Mutation(kinds=("light",))
SPREAD = light_spread(SETTINGS, SHAPE)


def under(levels, network, images=None):
    """The labels of a black image under ``levels``, in standard deviations."""
    images = np.zeros((1, *SHAPE), np.float32) if images is None else images
    subjects = Subjects(network, images)
    levels = SPREAD * np.asarray(levels)
    return subjects.mutated(np.zeros(len(levels), int), lit(levels, SHAPE)), subjects


@pytest.mark.parametrize("at", [-3.9, -1.5, 0.3, 1.0, 2.999, 5.0])
def test_where_the_label_changes_between_two_places_it_is_asked(at):
    levels = np.linspace(-6, 6, 997)
    network = Network(crossing(at * SPREAD), SPREAD)
    found, _ = under(levels, network)
    assert (found == (levels > at)).all()


def test_beyond_the_outermost_places_it_is_asked():
    def logits(images):
        light = images.reshape(len(images), -1).astype(np.float64).mean(axis=1) / SPREAD
        return np.stack([np.ones(len(light)), 2.0 * (np.abs(light) > 4.5)], axis=1)

    levels = np.linspace(-6, 6, 1000)
    network = Network(logits, SPREAD)
    found, _ = under(levels, network)
    assert (found == (np.abs(levels) > 4.5)).all()
    assert network.counts.first == (np.abs(levels) <= PLACES[-1]).sum()


def test_a_stretch_that_differs_is_found_by_the_audit_and_all_is_asked_again(monkeypatch):
    monkeypatch.setattr(doubt, "LEARNT", 0)

    def logits(images):
        light = images.reshape(len(images), -1).astype(np.float64).mean(axis=1) / SPREAD
        bump = 3 * ((light > 1.2) & (light < 1.8))
        return np.stack([np.ones(len(light)), bump], axis=1)

    levels = np.linspace(-4, 4, 4000)
    network = Network(logits, SPREAD)
    found, _ = under(levels, network)
    assert network.counts.disagreed > 0
    assert network.counts.bound == 2 * (1 + 2)
    assert (found == ((levels > 1.2) & (levels < 1.8))).all()


def test_a_network_that_gives_no_number_is_asked():
    def logits(images):
        light = images.reshape(len(images), -1).astype(np.float64).mean(axis=1)
        return np.stack([np.where(light > 0, np.nan, 1.0), light], axis=1)

    levels = np.linspace(-4, 4, 500)
    found, _ = under(levels, Network(logits, SPREAD))
    expected, _ = under(levels, Network(logits))
    assert (found == expected).all()


def test_an_image_that_has_seen_little_light_is_asked_as_it_comes():
    network = Network(crossing(0.5 * SPREAD), SPREAD)
    few = ENOUGH - 1
    _, subjects = under(np.linspace(-2, 1.9, few), network)
    assert network.rows == 1 + few
    assert network.counts.first == 0
    subjects.mutated(np.zeros(1, int), lit(np.array([SPREAD]), SHAPE))
    assert network.rows == 1 + few + len(PLACES) + 1, "all places, and the first one learnt from"
    assert network.counts.first == 1


def test_what_is_no_light_is_always_asked():
    level = np.full(300, 0.5 * SPREAD, np.float32)
    other = lit(level, SHAPE)
    other.kind[:] = LIGHT + 2
    network = Network(crossing(SPREAD), SPREAD)
    Subjects(network, np.zeros((1, *SHAPE), np.float32)).mutated(np.zeros(300, int), other)
    assert (network.rows, network.counts.first) == (301, 0)


def test_nobody_and_nothing():
    network = Network(crossing(1), SPREAD)
    empty = Subjects(network, np.zeros((0, *SHAPE), np.float32))
    assert empty.own.shape == (0,)
    assert tally(empty, [], 5).changes.shape == (0,)
    alone = Subjects(network, np.zeros((1, *SHAPE), np.float32))
    found = tally(alone, [FixedMutations(identity(30, SHAPE))], 30)
    assert found.changes.tolist() == [0]


@pytest.mark.parametrize("amplitude", [1.0, 4.0])
@pytest.mark.parametrize("max_divisor", [1, 20])
def test_the_spread_is_that_of_the_levels_drawn(amplitude, max_divisor):
    settings = Mutation(kinds=("light",), amplitude=amplitude, max_divisor=max_divisor)
    drawn = draw(np.random.default_rng(0), 20_000, SHAPE, settings)
    assert drawn.level.std() == pytest.approx(light_spread(settings, SHAPE), rel=0.02)


def test_a_level_is_added_everywhere_as_the_operator_does():
    drawn = draw(np.random.default_rng(0), 50, SHAPE, SETTINGS)
    images = np.random.default_rng(1).random((50, *SHAPE), dtype=np.float32)
    made: Mutations = lit(drawn.level, SHAPE)
    np.testing.assert_array_equal(apply(images, made, 5.0), apply(images, drawn, 5.0))
