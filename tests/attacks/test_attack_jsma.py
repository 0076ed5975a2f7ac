"""JSMA against a literal transcription of the method, the pair search, the stopping rules."""

from __future__ import annotations

import attack_tools as tools
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from nmutant_cli.attacks import craft, jsma
from nmutant_cli.config.attacks import JSMAParams
from nmutant_cli.errors import AttackError


def literal_pair(alpha, beta, domain, theta):
    """All pairs p < q one after the other; the first of the best."""
    best, pair = -np.inf, None
    for p in range(len(alpha)):
        for q in range(p + 1, len(alpha)):
            if not (domain[p] and domain[q]):
                continue
            a, b = alpha[p] + alpha[q], beta[p] + beta[q]
            valid = (a > 0 and b < 0) if theta > 0 else (a < 0 and b > 0)
            if valid and -a * b > best:
                best, pair = -a * b, (p, q)
    return pair


def table_pair(alpha, beta, domain, theta):
    """The same by the table of all pairs, for images of some size."""
    a, b = alpha[:, None] + alpha, beta[:, None] + beta
    sign = 1 if theta > 0 else -1
    valid = (sign * a > 0) & (sign * b < 0) & np.triu(np.outer(domain, domain), 1)
    score = np.where(valid, -a * b, -np.inf)
    p, q = np.unravel_index(score.argmax(), score.shape)
    return (int(p), int(q)) if valid[p, q] else None


def literal_jsma(gradients, x, target, theta, gamma):
    """One image, step by step; ``gradients(x)`` is (label, alpha, beta). Image and pairs."""
    flat = x.flatten()
    domain = flat < 1 if theta > 0 else flat > 0
    path = []
    for _ in range(int(np.floor(flat.size * gamma / 2))):
        if domain.sum() < 2:
            break
        label, alpha, beta = gradients(flat.reshape(x.shape))
        if label == target:
            break
        pair = table_pair(alpha, beta, domain, theta)
        if pair is None:
            break
        for k in pair:
            flat[k] = np.clip(flat[k] + np.float32(theta), 0, 1)
            domain[k] = False
        path.append(pair)
    return flat.reshape(x.shape), path


@tf.function
def jacobian_of(model, images):
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(images)
        logits = model(images)
        each = tf.unstack(logits, axis=1)
    return logits, tf.stack([tape.gradient(logit, images) for logit in each])


def own_gradients(model, target):
    """Alpha and beta from the whole Jacobian, one image at a time."""

    def gradients(x):
        logits, jacobian = jacobian_of(model, tf.constant(x[None]))
        jacobian = jacobian.numpy().reshape(len(jacobian), -1).astype(float)
        alpha = jacobian[target]
        return logits.numpy()[0].argmax(), alpha, np.delete(jacobian, target, axis=0).sum(axis=0)

    return gradients


def recorded(monkeypatch, model, x, y, params):
    """Run the attack; the pairs it chose, each with the gradients it chose it from."""
    steps = []
    search = jsma.best_pair

    def spy(alpha, beta, domain, theta):
        pair = search(alpha, beta, domain, theta)
        steps.append((alpha, beta, domain.copy(), pair))
        return pair

    monkeypatch.setattr(jsma, "best_pair", spy)
    return jsma.run(model, x, y, params, tools.BOUNDS), steps


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("theta", [1.0, 0.4, -1.0])
def test_the_same_gradients_always_give_the_same_pair(monkeypatch, channels, theta):
    model, x = tools.network(channels), tools.images(50, channels)
    params = JSMAParams(method="jsma", theta=theta, gamma=0.2)
    _, steps = recorded(monkeypatch, model, x, tools.targets(model, x), params)
    assert len(steps) > 50
    for alpha, beta, domain, pair in steps:
        assert pair == table_pair(alpha, beta, domain, theta)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("theta", [1.0, -1.0])
def test_whole_runs_take_the_paths_of_the_literal_transcription(channels, theta):
    model, x = tools.network(channels), tools.images(50, channels)
    x[:, :2] = (x[:, :2] > 0.5).astype(np.float32)  # some features at the ends of the range
    y = tools.targets(model, x)
    params = JSMAParams(method="jsma", theta=theta, gamma=0.2)
    ours = jsma.run(model, x, y, params, tools.BOUNDS)
    same, pairs = 0, 0
    for i in range(len(x)):
        literal, path = literal_jsma(own_gradients(model, y[i]), x[i], y[i], theta, 0.2)
        same += np.array_equal(ours[i], literal)
        pairs += len(path)
    assert pairs > 100
    assert same >= 0.95 * len(x)


numbers = st.one_of(
    st.integers(-3, 3).map(float),  # many ties
    st.floats(-1, 1, width=32),
    st.floats(-(2.0**-90), 2.0**-90, width=32),
)


@st.composite
def searches(draw):
    n = draw(st.integers(0, 12))
    vector = st.lists(numbers, min_size=n, max_size=n).map(lambda values: np.array(values, float))
    domain = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    return draw(vector), draw(vector), domain, draw(st.sampled_from([1.0, 0.3, -1.0]))


@given(searches())
def test_the_pair_search_is_exact_with_ties(search):
    assert jsma.best_pair(*search) == literal_pair(*search)


@given(searches())
def test_the_table_is_the_literal_search(search):
    if len(search[0]):
        assert table_pair(*search) == literal_pair(*search)


@pytest.mark.parametrize("columns", [1, 3, 256])
def test_the_search_in_parts_is_exact_where_no_feature_surpasses_another(monkeypatch, columns):
    monkeypatch.setattr(jsma, "COLUMNS", columns)
    rng = np.random.default_rng(1)
    for _ in range(20):
        u = rng.random(40) - 0.3
        alpha, beta = u, u - 0.4  # what gains in alpha loses in -beta: every feature is needed
        assert len(jsma._surpassed_at_most_once(alpha, -beta)) == 40
        domain = rng.random(40) < 0.9
        assert jsma.best_pair(alpha, beta, domain, 1.0) == table_pair(alpha, beta, domain, 1.0)


def test_memory_is_bounded_for_3072_features():
    import tracemalloc

    u = np.linspace(-0.3, 0.7, 3072)  # the worst case: no feature can be left out
    tracemalloc.start()
    pair = jsma.best_pair(u, u - 0.4, np.ones(3072, bool), 1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pair is not None
    assert peak < 60e6


def test_ties_go_to_the_smallest_p_and_then_the_smallest_q():
    ones = np.ones(6)
    domain = np.array([False, True, True, False, True, True])
    assert jsma.best_pair(ones, -ones, domain, 1.0) == (1, 2)
    alpha = np.array([1.0, 2, 1, 2, 2, 1])
    assert jsma.best_pair(alpha, -alpha, np.ones(6, bool), 1.0) == (1, 3)


def linear(weights):
    """A network of two classes whose logits are linear: known gradients."""
    weights = tf.constant(np.float32(weights))
    return lambda x: tf.reshape(x, [-1, weights.shape[0]]) @ weights


def attack(network, x, y, **settings):
    params = JSMAParams(method="jsma", **settings)
    return jsma.run(network, np.float32(x), np.array(y), params, tools.BOUNDS)


def test_without_a_valid_pair_the_image_stays_as_it_is():
    # CleverHans 3 changed feature 0 twice here.
    x = np.full((2, 2, 2, 1), 0.5)
    network = linear([[1, -1]] * 4)  # every feature speaks against class 1
    np.testing.assert_array_equal(attack(network, x, [1, 1], gamma=1.0), np.float32(x))


def test_features_at_the_maximum_are_not_in_the_domain():
    x = np.array([[1, 0, 0.5, 0]]).reshape(1, 2, 2, 1)
    network = linear([[-9, 9], [-1, 1], [-0.1, 0.5], [1, -1]])
    done = attack(lambda x: tf.add(network(x), [100.0, 0.0]), x, [1], gamma=1.0).flatten()
    np.testing.assert_array_equal(done, [1, 1, 1, 0])  # not features 0 and 1


def test_a_negative_theta_lowers_features_and_leaves_those_at_the_minimum():
    x = np.array([[0, 1, 0.5, 1]]).reshape(1, 2, 2, 1)
    network = linear([[9, -9], [3, -1], [2, -1], [1, -0.5]])
    done = attack(
        lambda x: tf.add(network(x), [50.0, 0.0]), x, [1], gamma=0.5, theta=-1.0
    ).flatten()
    np.testing.assert_array_equal(done, [0, 0, 0, 1])


def test_it_stops_at_the_target_and_after_so_many_pairs():
    x = np.zeros((1, 4, 4, 1))
    network = linear([[-1, 1]] * 16)
    for bias, gamma, changed in ((7.0, 1.0, 4), (1000.0, 0.5, 8), (1000.0, 0.3, 4)):
        done = attack(lambda x, bias=bias: tf.add(network(x), [bias, 0.0]), x, [1], gamma=gamma)
        assert (done == 1).sum() == changed
        assert (done == 0).sum() == 16 - changed


def test_the_network_sees_running_images_only(monkeypatch):
    model, x = tools.network(), tools.images(40)
    calls = []
    gradients = jsma._gradients

    def spy(predict_logits, images, labels):
        calls.append(len(images))
        return gradients(predict_logits, images, labels)

    monkeypatch.setattr(jsma, "_gradients", spy)
    y = tools.targets(model, x)
    y[5:] = tools.labels(model, x)[5:]  # 35 images have their target from the start
    params = JSMAParams(method="jsma", gamma=0.2)
    jsma.run(model, x, y, params, tools.BOUNDS, batch_size=5)
    limit = int(64 * 0.2 / 2)
    assert set(calls) == {5}
    assert len(calls) <= 35 / 5 + 5 * limit / 5 + 5


def test_a_gradient_that_is_not_finite_is_refused():
    network = linear([[1, -1]] * 4)
    x = np.full((1, 2, 2, 1), 0.5)
    with pytest.raises(AttackError, match="gradient is NaN"):
        attack(lambda x: network(tf.sqrt(x - 0.5)), x, [1], gamma=1.0)


def test_success_and_pixels_on_the_small_network():
    model, x = tools.network(3), tools.images(30, 3)
    params = JSMAParams(method="jsma", gamma=0.5)
    result = craft(model, x, tools.targets(model, x), params, tools.BOUNDS, tools.generators(30))
    assert result.success.mean() > 0.9
    assert result.l0.max() <= 2 * int(192 * 0.5 / 2)
    assert (result.l0 % 2 == 0).all()
