"""The wrapper around the attacks: bad input, measures, independence of images."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError

import attack_tools as tools
import keras
import numpy as np
import pytest
import tensorflow as tf

from nmutant_cli.attacks import attack, craft
from nmutant_cli.config.attacks import (
    METHODS,
    AdaptiveParams,
    BIMParams,
    BlackBoxParams,
    CWParams,
    FGSMParams,
    JSMAParams,
    NoiseParams,
    PastSqueezingParams,
    PGDParams,
)
from nmutant_cli.errors import AttackError
from nmutant_cli.types import Bounds

FGSM = FGSMParams(method="fgsm", eps=0.1)
TARGETED = FGSMParams(method="fgsm", eps=0.1, targets="others")
EVERY = [
    FGSM,
    BIMParams(method="bim", eps=0.1, eps_iter=0.03, nb_iter=4),
    PGDParams(method="pgd", eps=0.1, eps_iter=0.03, nb_iter=4),
    PGDParams(method="pgd", eps=0.5, eps_iter=0.2, nb_iter=4, norm="2"),
    CWParams(method="cw", binary_search_steps=2, max_iterations=30, learning_rate=0.05),
    JSMAParams(method="jsma", theta=1.0, gamma=0.3),
    BlackBoxParams(method="blackbox", eps=0.1),
    AdaptiveParams(method="adaptive", max_iterations=15, draws=7, learning_rate=0.3),
    PastSqueezingParams(
        method="past_squeezing",
        bits=1,
        binary_search_steps=2,
        max_iterations=30,
        learning_rate=0.05,
    ),
    NoiseParams(method="noise", eps=1.0),
]


def made(params, x, y, first=0, **options):
    generators = tools.generators(len(x), first)
    return craft(tools.network(x.shape[-1]), x, y, params, tools.BOUNDS, generators, **options)


def labels_for(params, x):
    model = tools.network(x.shape[-1])
    targeted = params.targets != "untargeted"
    return tools.targets(model, x) if targeted else tools.labels(model, x)


def name(params):
    return f"{params.method}-{getattr(params, 'norm', '')}"


def test_every_attack_has_a_function_and_a_test_here():
    assert {params.method for params in EVERY} == set(METHODS)
    for method in METHODS:
        assert callable(attack(method))


def test_an_unknown_attack_is_refused_with_the_names_of_those_there_are():
    with pytest.raises(AttackError, match=r"'deepfool'.*fgsm, bim, pgd, cw, jsma, blackbox"):
        attack("deepfool")


def test_importing_the_package_does_not_import_tensorflow():
    code = "import sys, nmutant_cli.attacks; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("params", EVERY, ids=name)
@pytest.mark.parametrize("channels", [1, 3])
def test_results_are_inside_the_bounds_and_measured(params, channels):
    x = tools.images(6, channels)
    y = labels_for(params, x)
    result = made(params, x, y)
    assert result.x_adv.shape == x.shape
    assert result.x_adv.dtype == np.float32
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    change = result.x_adv.astype(float) - x
    for i in range(len(x)):
        assert result.l0[i] == (change[i] != 0).sum()
        assert result.l2[i] == pytest.approx(np.sqrt((change[i] ** 2).sum()))
        assert result.linf[i] == abs(change[i]).max()
    targeted = params.targets != "untargeted"
    np.testing.assert_array_equal(result.success, (result.label == y) == targeted)
    assert result.label.dtype == np.int64


@pytest.mark.parametrize("params", EVERY, ids=name)
def test_twice_the_same_and_two_halves_are_the_whole(params):
    x = tools.images(22)
    y = labels_for(params, x)
    whole, again = made(params, x, y), made(params, x, y)
    np.testing.assert_array_equal(whole.x_adv, again.x_adv)
    halves = [made(params, x[:9], y[:9]), made(params, x[9:], y[9:], first=9)]
    np.testing.assert_array_equal(whole.x_adv, np.concatenate([half.x_adv for half in halves]))
    np.testing.assert_array_equal(whole.label, np.concatenate([half.label for half in halves]))


@pytest.mark.parametrize("params", EVERY, ids=name)
def test_other_images_do_not_matter(params):
    x = tools.images(8)
    y = labels_for(params, x)
    others = 1 - x
    others[3] = x[3]
    y_others = labels_for(params, others)
    y_others[3] = y[3]
    one, other = made(params, x, y), made(params, others, y_others)
    np.testing.assert_array_equal(one.x_adv[3], other.x_adv[3])


@pytest.mark.parametrize("params", EVERY, ids=name)
def test_sets_of_another_size_are_not_traced_again(params):
    model = tools.network()
    traced = []

    def predict(x):
        traced.append(x.shape)
        return model(x)

    x = tools.images(70)
    y = labels_for(params, x)
    craft(predict, x[:3], y[:3], params, tools.BOUNDS, tools.generators(3))
    before = len(traced)
    craft(predict, x, y, params, tools.BOUNDS, tools.generators(70))
    assert len(traced) == before


def test_the_judge_gives_the_labels():
    x = tools.images(4)
    seen = []

    def judge(images):
        seen.append(images)
        return np.array([0, 1, 2, 3])

    result = made(FGSM, x, np.array([0, 0, 0, 3]), judge=judge)
    np.testing.assert_array_equal(result.label, [0, 1, 2, 3])
    np.testing.assert_array_equal(result.success, [False, True, True, False])
    np.testing.assert_array_equal(seen[-1], result.x_adv)


def test_the_result_is_frozen():
    x = tools.images(1)
    with pytest.raises(FrozenInstanceError):
        made(FGSM, x, labels_for(FGSM, x)).success = None


X = tools.images(3)
Y = np.array([0, 1, 2])


def changed(value):
    x = X.copy()
    x[1, 2, 3] = value
    return x


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (changed(np.nan), Y, "x: holds NaN"),
        (changed(np.inf), Y, "x: holds NaN or infinite"),
        (changed(1.01), Y, "outside the bounds 0 to 1"),
        (changed(-0.01), Y, "outside the bounds 0 to 1"),
        (X * 255, Y, "outside the bounds 0 to 1"),
        (X[0], Y, r"x: shape \(8, 8, 1\), expected \(n, height"),
        (X[..., 0], Y, r"x: shape \(3, 8, 8\)"),
        (X.tolist(), Y, "x: shape None"),
        (X.astype(np.float64), Y, "x: dtype float64, expected float32"),
        ((X * 255).astype(np.uint8), Y, "x: dtype uint8"),
        (X[:0], Y[:0], "nothing to attack"),
        (X, Y[:2], r"y: shape \(2,\), expected \(3,\)"),
        (X, np.eye(5, dtype=np.int64)[Y], r"y: shape \(3, 5\)"),
        (X, Y.astype(np.float32), "y: float32, expected class indices as int64"),
        (X, Y.astype(np.int32), "y: int32"),
        (X, [0, 1, 2], "y: list"),
        (X, np.array([0, 1, 5]), "y: classes from 0 to 5, the network has 0 to 4"),
        (X, np.array([0, -1, 2]), "y: classes from -1"),
        (tools.images(3, channels=3)[:, :4], Y, r"does not take images of shape \(4, 8, 3\)"),
    ],
)
def test_bad_images_and_labels_are_refused(x, y, message):
    with pytest.raises(AttackError, match=message) as caught:
        craft(tools.network(), x, y, FGSM, tools.BOUNDS, tools.generators(len(x)))
    assert "\n" not in str(caught.value)


def test_a_target_that_is_the_current_label_is_refused():
    y = tools.targets(tools.network(), X)
    y[1] = tools.labels(tools.network(), X)[1]
    with pytest.raises(AttackError, match=rf"the target of image 1 is class {y[1]}.*1 of 3"):
        made(TARGETED, X, y)


def test_a_target_that_is_the_judges_label_is_refused():
    y = tools.targets(tools.network(), X)
    with pytest.raises(AttackError, match="3 of 3 images"):
        made(TARGETED, X, y, judge=lambda images: y)


def test_the_number_of_generators_and_the_batch_size_are_checked():
    with pytest.raises(AttackError, match="rng: 2 generators for 3 images"):
        craft(tools.network(), X, Y, FGSM, tools.BOUNDS, tools.generators(2))
    with pytest.raises(AttackError, match="batch_size: 0"):
        made(FGSM, X, Y, batch_size=0)
    with pytest.raises(AttackError, match="bounds: 1 is not below 0"):
        craft(tools.network(), X, Y, FGSM, Bounds(1, 0), tools.generators(3))


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        (lambda x: tf.nn.softmax(tools.network()(x)), "returns probabilities.*needs? logits"),
        (lambda x: tools.network()(x)[:, 0], "expected logits of shape"),
        (lambda x: tools.network()(x)[:, None], r"\(batch, 1, 5\)"),
        (lambda x: tools.network()(x) * np.inf, "NaN or infinite logits"),
    ],
)
def test_a_network_that_does_not_give_logits_is_refused(predict, message):
    with pytest.raises(AttackError, match=message):
        craft(predict, X, Y, FGSM, tools.BOUNDS, tools.generators(3))


def test_a_network_with_a_softmax_layer_is_refused():
    model = keras.Sequential([tools.network(), keras.layers.Softmax()])
    with pytest.raises(AttackError, match="leave out the final softmax"):
        craft(model, X, Y, FGSM, tools.BOUNDS, tools.generators(3))
