"""The detectors that are compared: the contract, and each against a literal version of itself."""

from __future__ import annotations

import warnings

import attack_tools as tools
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import layers
from sklearn.metrics import roc_auc_score

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.config.settings import Compare
from nmutant_cli.detectors import mutated_models
from nmutant_cli.detectors.contract import NetworkView, digest
from nmutant_cli.detectors.lid import LID, LIMIT, lid
from nmutant_cli.detectors.mutated_models import (
    AGREEMENT,
    RATES,
    ActivationInverse,
    GaussianFuzzing,
    NeuronSwitch,
    WeightShuffle,
)
from nmutant_cli.detectors.odds import FEWEST, NOISES, UNKNOWN, Odds
from nmutant_cli.detectors.scores import Energy, Margin, Softmax
from nmutant_cli.detectors.squeezing import Squeezing, reduce_depth, smooth
from nmutant_cli.detectors.weight_operators import OPERATORS
from nmutant_cli.errors import DataError, ModelError
from nmutant_cli.networks.architectures import initialize

MUTATED = (GaussianFuzzing, WeightShuffle, NeuronSwitch, ActivationInverse)
KINDS = (Softmax, Margin, Energy, Odds, Squeezing, *MUTATED, LID)
MUTATIONS = 12
CLEAN, ASKED = tools.images(300)[:220], tools.images(300)[220:]


def network(channels=1, filters=4, units=12):
    """Of every layer that our networks have, with random weights that no other test sees."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, channels)),
            layers.Conv2D(filters, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(units, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(5),
        ]
    )
    initialize(model, np.random.default_rng(channels), "paper")
    return model


def network_for(kind):
    """Of a few neurons hardly one can be mutated and the network still be good."""
    return network(1, 16, 100) if kind in MUTATED else network()


def guard(model=None, seed=1, batch_size=100):
    settings = Compare(mutations=MUTATIONS)
    return NetworkView(model or network(), settings, Mutation(), 1.0, seed, batch_size=batch_size)


def known(n=20):
    """Stripes, which are far from `tools.images`."""
    images = np.zeros((n, 8, 8, 1), np.float32)
    images[:, ::2] = np.linspace(0.5, 1, n, dtype=np.float32)[:, None, None, None]
    return images


def fitted(kind, **options):
    detector = kind(guard(**{"model": network_for(kind), **options}))
    detector.fit(CLEAN, known())
    return detector


@pytest.fixture
def lenient(monkeypatch):
    """Of a network that was never trained, mutants are good that mutate something."""
    monkeypatch.setattr(mutated_models, "AGREEMENT", 0.5)
    monkeypatch.setattr(mutated_models, "PROBES", 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("lenient")
def test_a_score_is_finite_and_hangs_on_its_image_alone(kind):
    detector = fitted(kind)
    scores = detector.score(ASKED)
    assert scores.shape == (80,)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    assert len(set(scores)) > 1
    order = np.random.default_rng(0).permutation(80)
    for part in (order, order[:7], [3], np.tile(order, 3)):
        np.testing.assert_allclose(detector.score(ASKED[part]), scores[part], rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(detector.score(ASKED), scores)
    np.testing.assert_array_equal(fitted(kind).score(ASKED), scores)
    assert detector.score(ASKED[:0]).shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("lenient")
def test_the_network_and_the_images_stay_as_they_are(kind):
    model, images = network_for(kind), ASKED.copy()
    before = model.get_weights()
    fitted(kind, model=model).score(images)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(images, ASKED)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("lenient")
def test_passes_are_those_that_a_score_takes(kind, monkeypatch):
    detector, asked = fitted(kind), []
    predict = keras.Model.predict_on_batch
    monkeypatch.setattr(
        keras.Model, "predict_on_batch", lambda *args: asked.append(1) or predict(*args)
    )
    detector.score(CLEAN[:100])  # one batch
    assert len(asked) == detector.passes


def test_softmax_and_margin_are_those_of_the_logits():
    view = guard()
    view.__dict__["logits"] = lambda images: np.log(
        [[0.7, 0.1, 0.2], [0.25, 0.5, 0.25]], dtype=np.float32
    )
    np.testing.assert_allclose(Softmax(view).score(ASKED), [0.3, 0.5], rtol=1e-6)
    np.testing.assert_allclose(Margin(view).score(ASKED), [-np.log(3.5), -np.log(2)], rtol=1e-6)


def test_the_energy_is_that_of_the_logits():
    view = guard()
    view.__dict__["logits"] = lambda images: np.array([[0, 0], [1000, 3]], np.float32)
    np.testing.assert_allclose(Energy(view).score(ASKED), [-np.log(2), -1000])


def literal_falls(view, image):
    """The label, and the mean fall of each margin for each noise, one noisy copy at a time."""
    model, rng = view.model, view.stream("odds", digest(image))

    def margins(x, label):
        logits = np.asarray(model(x[None]))[0].astype(np.float64)
        return [logits[label] - logit for logit in logits]

    label = int(np.asarray(model(image[None])).argmax())
    before = margins(image, label)
    falls = {noise: [] for noise in NOISES}
    for copy in range(MUTATIONS):
        kind, eps = NOISES[copy % len(NOISES)]
        if kind == "normal":
            drawn = rng.standard_normal(image.shape)
        elif kind == "sign":
            drawn = rng.choice((-1.0, 1.0), image.shape)
        else:
            drawn = rng.uniform(-1, 1, image.shape)
        noisy = np.minimum(np.maximum(image + eps * drawn, 0), 1).astype(np.float32)
        after = margins(noisy, label)
        falls[kind, eps].append([old - new for old, new in zip(before, after, strict=True)])
    return label, [np.mean(falls[noise], axis=0) for noise in NOISES]


def test_the_odds_test_is_the_literal_one():
    detector, view = Odds(guard()), guard()
    detector.fit(CLEAN[:60], known())
    clean = [literal_falls(view, image) for image in CLEAN[:60]]
    scores, asked = detector.score(ASKED[:12]), [literal_falls(view, x) for x in ASKED[:12]]
    for score, (label, falls) in zip(scores, asked, strict=True):
        usual = np.array([of_clean for its, of_clean in clean if its == label])
        if len(usual) < FEWEST:
            assert score == UNKNOWN
            continue
        z = [
            np.mean(
                [(falls[e][j] - usual[:, e, j].mean()) / usual[:, e, j].std() for e in range(9)]
            )
            for j in range(5)
            if j != label
        ]
        assert score == pytest.approx(max(z), rel=0.01, abs=0.02)
    assert (scores > UNKNOWN).sum() > 6


def test_the_odds_test_sees_a_margin_that_noise_lowers():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(2, activation="relu"),  # |sum - 10| in two parts
            layers.Dense(2),
        ]
    )
    sums = np.repeat(np.array([[1, -1]], np.float32), 64, axis=0)
    falling = np.array([[-10, 0], [-10, 0]], np.float32)
    model.set_weights(
        [sums, np.array([-10, 10], np.float32), falling, np.array([0, -1e4], np.float32)]
    )
    detector = fitted(Odds, model=model)
    at_the_peak = ASKED * (10 / ASKED.sum(axis=(1, 2, 3), keepdims=True))
    scores = np.concatenate([detector.score(ASKED), detector.score(at_the_peak)])
    assert roc_auc_score(np.repeat([0, 1], 80), scores) > 0.95


def test_the_odds_test_needs_clean_images():
    with pytest.raises(DataError, match="odds: no label with 3 clean images or more"):
        Odds(guard()).fit(CLEAN[:0], known())


def test_softmax_tells_apart_images_that_the_network_is_sure_of():
    view = guard()
    view.__dict__["logits"] = lambda images: np.array([[50, 0], [60, 0]], np.float32)
    np.testing.assert_allclose(Softmax(view).score(ASKED), np.exp([-50.0, -60.0]))


pixels = arrays(np.float32, (2, 5, 4, 3), elements=st.integers(0, 255).map(lambda p: p / 255))


@settings(max_examples=30, deadline=None)
@given(pixels, st.sampled_from([1, 5]))
def test_squeezers_are_the_literal_ones(images, bits):
    smoothed = smooth(images)
    for n, i, j, c in np.ndindex(images.shape):
        window = [images[n, max(i - a, 0), max(j - b, 0), c] for a in (0, 1) for b in (0, 1)]
        assert smoothed[n, i, j, c] == sorted(window)[2]
    levels = np.linspace(0, 1, 2**bits)
    nearest = levels[np.abs(images[..., None] - levels).argmin(axis=-1)]
    np.testing.assert_allclose(reduce_depth(images, bits), nearest, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("channels", [1, 3])
def test_squeezers_are_those_of_art(channels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        art = pytest.importorskip("art.defences.preprocessor")
    images = tools.images(20, channels)
    np.testing.assert_array_equal(smooth(images), art.SpatialSmoothing(window_size=2)(images)[0])
    for bits in (1, 5):
        theirs = art.FeatureSqueezing(clip_values=(0, 1), bit_depth=bits)(images)[0]
        np.testing.assert_allclose(reduce_depth(images, bits), theirs, rtol=1e-6)


@pytest.mark.parametrize(("channels", "bits"), [(1, 1), (3, 5)])
def test_squeezing_takes_the_larger_distance(channels, bits):
    view, images = guard(network(channels)), tools.images(30, channels)
    expected = [
        max(
            np.abs(view.softmax(x) - view.softmax(squeeze(x))).sum()
            for squeeze in (smooth, lambda x: reduce_depth(x, bits))
        )
        for x in np.split(images, 30)
    ]
    np.testing.assert_allclose(Squeezing(view).score(images), expected, rtol=1e-4)


def mutated(operator, weights, rate=0.2, seed=0):
    before = [w.copy() for w in weights]
    after = OPERATORS[operator](weights, rate, np.random.default_rng(seed))
    for old, kept, new in zip(before, weights, after, strict=True):
        np.testing.assert_array_equal(old, kept)
        assert (new.shape, new.dtype) == (old.shape, np.float32)
    return after


def tensors(*shapes):
    """Tensors in which no number occurs twice."""
    numbers = iter(np.random.default_rng(1).permutation(100_000).astype(np.float32) + 1)
    return [np.array([next(numbers) for _ in range(np.prod(s))], "f4").reshape(s) for s in shapes]


def neurons_that_differ(old, new):
    return [k for k in range(old.shape[-1]) if not np.array_equal(old[..., k], new[..., k])]


def test_gaussian_fuzzing_draws_a_share_of_all_numbers_anew():
    weights = [np.full((50, 40), 3, np.float32), *tensors((100, 90), (1000,))]
    constant, *others = mutated("GF", weights)
    np.testing.assert_array_equal(constant, 3)  # a tensor without spread
    differ = [old != new for old, new in zip(weights[1:], others, strict=True)]
    assert sum(d.sum() for d in differ) == pytest.approx(0.2 * 10_000, rel=0.1)
    drawn = others[0][differ[0]]
    assert drawn.mean() == pytest.approx(weights[1].mean(), rel=0.1)
    assert drawn.std() == pytest.approx(weights[1].std(), rel=0.1)


def test_weight_shuffle_moves_weights_within_a_share_of_the_neurons():
    weights = tensors((3, 3, 2, 30), (30,), (40, 20), (20,))
    after = mutated("WS", weights)
    differ = [neurons_that_differ(old, new) for old, new in zip(weights, after, strict=True)]
    assert len(differ[0]) + len(differ[2]) == 0.2 * 50
    assert differ[1] == differ[3] == []
    for old, new in zip(weights, after, strict=True):
        for k in range(old.shape[-1]):
            assert sorted(old[..., k].ravel()) == sorted(new[..., k].ravel())


def test_neuron_switch_trades_weights_within_a_layer():
    weights = tensors((3, 3, 2, 30), (30,), (40, 9), (9,), (7, 12))
    after = mutated("NS", weights)
    for k in (1, 2, 3):  # biases, and a layer of fewer than ten
        np.testing.assert_array_equal(after[k], weights[k])
    for k in (0, 4):
        columns = [{c.tobytes() for c in np.moveaxis(t[k], -1, 0)} for t in (weights, after)]
        assert columns[0] == columns[1]
    for rate, most in ((0.01, 0), (0.1, 2), (0.2, 2), (0.5, 6)):
        moved = [
            len(neurons_that_differ(weights[4], mutated("NS", weights, rate, seed)[4]))
            for seed in range(20)
        ]
        assert max(moved) == most  # 0.12, 1.2, 2.4 and 6 of 12; one alone stays where it is


def test_activation_inverse_turns_the_sign_of_a_neurons_output():
    weights = tensors((3, 3, 2, 30), (30,), (40, 20), (20,))
    after = mutated("NAI", weights)
    turned = []
    for k in (0, 2):
        neurons = neurons_that_differ(weights[k], after[k])
        assert neurons == neurons_that_differ(weights[k + 1], after[k + 1])  # their biases
        signs = np.ones(weights[k].shape[-1], np.float32)
        signs[neurons] = -1
        np.testing.assert_array_equal(after[k], weights[k] * signs)
        np.testing.assert_array_equal(after[k + 1], weights[k + 1] * signs)
        turned += neurons
    assert len(turned) == 0.2 * 50


@pytest.mark.parametrize("kind", MUTATED)
@pytest.mark.usefixtures("lenient")
def test_mutated_networks_are_the_good_ones_at_the_largest_rate(kind, monkeypatch):
    model = network_for(kind)
    detector = fitted(kind, model=model)
    assert [mutant.number for mutant in detector.mutants] == list(range(MUTATIONS))
    assert ((1 - detector.changes(CLEAN).mean(axis=0)) >= mutated_models.AGREEMENT).all()
    changes = detector.changes(ASKED)
    assert changes.dtype == bool
    np.testing.assert_array_equal(detector.score(ASKED), changes.sum(axis=1) / MUTATIONS)

    # Each by hand, on a copy of its own.
    view, other = guard(model), keras.models.clone_model(model)
    for mutant, changed in zip(detector.mutants, changes.T, strict=True):
        rng = view.stream("models", kind.operator, mutant.number, mutant.attempt)
        other.set_weights(OPERATORS[kind.operator](model.get_weights(), mutant.rate, rng))
        np.testing.assert_array_equal(
            tools.labels(other, ASKED) != tools.labels(model, ASKED), changed
        )

    (rate,) = {mutant.rate for mutant in detector.mutants}
    assert rate < RATES[0]
    for larger in RATES[: RATES.index(rate)]:
        mutants = (mutated_models.Mutant(larger, n) for n in range(mutated_models.PROBES))
        agreed = [detector._labels(m, CLEAN) == tools.labels(model, CLEAN) for m in mutants]
        assert min(one.mean() for one in agreed) < mutated_models.AGREEMENT
    monkeypatch.setattr(mutated_models, "AGREEMENT", 2)
    with pytest.raises(ModelError, match="most mutants do not agree on 200% of the clean images"):
        fitted(kind, model=model)


def test_where_not_all_are_good_at_any_rate_most_are_enough(monkeypatch):
    bad = {(0.5, n, 0) for n in range(2)} | {(rate, 2, 0) for rate in RATES if rate < 0.5}
    bad |= {(rate, n, 0) for rate in RATES if rate > 0.5 for n in (0, 1)}

    def labels(self, mutant, images):
        wrong = 0 if mutant in bad else 1
        return wrong * tools.labels(self.view.model, images) + (1 - wrong) * -1

    monkeypatch.setattr(GaussianFuzzing, "_labels", labels)
    monkeypatch.setattr(mutated_models, "PROBES", 3)
    detector = fitted(GaussianFuzzing)
    assert [mutant[:3] for mutant in detector.mutants[:4]] == [
        (0.3, 0, 0), (0.3, 1, 0), (0.3, 2, 1), (0.3, 3, 0),
    ]  # fmt: skip


def test_a_normalization_is_not_mutated():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )
    detector = ActivationInverse(guard(model))
    detector._labels(mutated_models.Mutant(0.9, 0), ASKED)
    for old, new in zip(
        model.layers[1].get_weights(), detector._copy.layers[1].get_weights(), strict=True
    ):
        np.testing.assert_array_equal(old, new)


def test_a_mutant_that_is_not_good_is_drawn_again(monkeypatch):
    monkeypatch.setattr(mutated_models, "RATES", (0.07,))
    monkeypatch.setattr(mutated_models, "PROBES", 0)
    detector = fitted(GaussianFuzzing)
    assert any(mutant.attempt for mutant in detector.mutants)
    assert ((1 - detector.changes(CLEAN).mean(axis=0)) >= AGREEMENT).all()


def test_another_seed_draws_other_mutants():
    changes = [fitted(GaussianFuzzing, seed=seed).changes(ASKED) for seed in (1, 2)]
    assert (changes[0] != changes[1]).any()


def literal_lid(points, reference, k):
    dimensions = []
    for point in points.astype(np.float64):
        distances = []
        for other in reference.astype(np.float64):
            distance = np.sqrt(((point - other) ** 2).sum())
            if distance > 0:
                distances.append(distance)
        nearest = sorted(distances)[:k]
        dimensions.append(-k / sum(np.log(r / nearest[-1]) for r in nearest))
    return dimensions


@pytest.mark.parametrize("k", [2, 20])
def test_lid_is_the_literal_one(k):
    rng = np.random.default_rng(0)
    points, reference = (rng.standard_normal((n, 7)).astype(np.float32) for n in (30, 100))
    points[:3] = reference[:3]
    np.testing.assert_allclose(lid(points, reference, k), literal_lid(points, reference, k))


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_lid_is_the_dimension(dimension):
    rng = np.random.default_rng(0)
    flat = np.zeros((20_000, 10))
    flat[:, :dimension] = rng.random((20_000, dimension))
    inside = np.abs(flat[:, :dimension] - 0.5).max(axis=1) < 0.2
    estimates = lid(flat[inside][:200], flat, 100)
    assert estimates.mean() == pytest.approx(dimension, rel=0.1)


def test_lid_is_finite_where_distances_say_nothing():
    cross = np.concatenate([np.eye(20), -np.eye(20)])
    assert lid(np.zeros((1, 20)), cross).tolist() == [LIMIT]
    assert lid(np.zeros((2, 3)), np.zeros((30, 3))).tolist() == [0, 0]
    mostly_here = np.repeat([0.0, 1, 2], [15, 10, 5])[:, None]
    assert lid(np.zeros((1, 1)), mostly_here).tolist() == [0], "15 others are not 20"


def test_lid_looks_at_each_layer_and_learns_what_is_adversarial():
    model = network()
    detector, order = fitted(LID, model=model), guard().stream("lid", "reference").permutation(220)
    features = detector._features(ASKED)
    for column, layer in zip(features.T, (0, 1, 3, 5), strict=True):  # no Flatten, no Dropout
        upto = keras.Sequential(model.layers[: layer + 1])
        points, reference = (
            np.asarray(upto.predict_on_batch(x)).reshape(len(x), -1)
            for x in (ASKED, CLEAN[order[:100]])
        )
        np.testing.assert_allclose(column, literal_lid(points, reference, 20), rtol=1e-4)
    scores = detector.score(np.concatenate([ASKED, known(31)]))
    assert roc_auc_score(np.repeat([0, 1], [80, 31]), scores) > 0.85


def test_lid_needs_images():
    for clean, adversarial, said in (
        (CLEAN[:199], known(), "199 clean images, needs 200"),
        (CLEAN, known(9), "9 known images, needs 10"),
    ):
        with pytest.raises(DataError, match=said):
            LID(guard()).fit(clean, adversarial)
