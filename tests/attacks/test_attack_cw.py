"""C&W: batch sizes, confidence, the binary search, early abort, what CleverHans 4 had wrong."""

from __future__ import annotations

import attack_tools as tools
import numpy as np
import pytest

from nmutant_cli.attacks import craft, cw, search
from nmutant_cli.config.attacks import CWParams
from nmutant_cli.errors import AttackError
from nmutant_cli.types import Bounds

SETTINGS = {"max_iterations": 60, "learning_rate": 0.1, "initial_const": 1.0}


def made(x, targets="all", batch_size=None, labels=None, **settings):
    model = tools.network(x.shape[-1])
    params = CWParams(method="cw", targets=targets, **(SETTINGS | settings))
    y = tools.labels(model, x) if targets == "untargeted" else tools.targets(model, x)
    y = y if labels is None else labels
    return craft(model, x, y, params, tools.BOUNDS, tools.generators(len(x)), batch_size=batch_size)


def reached_margin(x, result, targets):
    model = tools.network(x.shape[-1])
    y = tools.targets(model, x) if targets == "all" else tools.labels(model, x)
    return cw.margin_of(tools.logits(model, result.x_adv), y, targets == "all")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("targets", ["all", "untargeted"])
def test_batches_of_1_7_and_200_give_the_same(channels, targets):
    x = tools.images(20, channels)
    one, *others = (
        made(x, targets, size, binary_search_steps=3, max_iterations=30) for size in (1, 7, 200)
    )
    assert one.success.all()
    for other in others:
        np.testing.assert_array_equal(one.success, other.success)
        assert np.mean(np.abs(other.l2 / one.l2 - 1) < 0.01) >= 0.99


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("targets", ["all", "untargeted"])
@pytest.mark.parametrize("confidence", [0.0, 0.2, 0.5])
def test_the_margin_reaches_the_confidence(channels, targets, confidence):
    x = tools.images(20, channels)
    result = made(x, targets, confidence=confidence, binary_search_steps=5)
    assert result.success.mean() >= 0.9
    margin = reached_margin(x, result, targets)[result.success]
    assert (margin >= confidence - 1e-4).all()
    assert np.median(margin) < confidence + 0.2  # near it, not far beyond


def test_more_confidence_costs_more_distance():
    x = tools.images(20)
    near, far = made(x), made(x, confidence=0.5)
    both = near.success & far.success
    assert both.sum() > 15
    assert (far.l2 > near.l2)[both].all()


def test_true_labels_without_a_target_are_moved_away_from():
    # CleverHans 4 takes any label as a target and moves towards the truth.
    x = tools.images(20)
    result = made(x, "untargeted")
    assert result.success.all()
    np.testing.assert_array_equal(result.success, result.label != tools.labels(tools.network(), x))


def test_a_failed_image_comes_back_as_the_original():
    x = tools.images(4)
    result = made(x, confidence=1000.0, binary_search_steps=1)
    np.testing.assert_array_equal(result.x_adv, x)
    assert not result.success.any()


def test_the_binary_search_gets_nearer_for_each_image():
    x = tools.images(20)
    one = made(x, binary_search_steps=1, initial_const=100.0)
    six = made(x, binary_search_steps=6, initial_const=100.0)
    assert one.success.all()
    assert (six.l2 <= one.l2 + 1e-6).all()
    assert six.l2.mean() < 0.95 * one.l2.mean()


def test_the_binary_search_raises_a_const_that_is_too_small():
    x = tools.images(10)
    assert made(x, binary_search_steps=1, initial_const=1e-4).success.mean() < 0.3
    assert made(x, binary_search_steps=6, initial_const=1e-4).success.all()


def schedule(founds, steps, initial=1.0):
    """The values of const in turn, given whether the attack succeeds with each."""
    x = tools.images(1)
    params = CWParams(method="cw", binary_search_steps=steps, initial_const=initial)
    slots = search.Slots(x, np.array([0]), params, tools.BOUNDS, (), 1, at_once=1)
    slots.fill()
    consts = []
    for found in founds:
        consts.append(float(slots.const[0]))
        slots.found[0] = found
        slots._end_step(0)
    return consts, slots


def test_the_schedule_of_const():
    consts, slots = schedule([False, False, True, False, True], 5)
    assert consts == [1, 10, 100, 55, 77.5]
    assert slots.image[0] == -1
    consts, _ = schedule([True, True, False], 4)
    # A failure counts although earlier steps succeeded, unlike CleverHans 4.
    assert consts == [1, 0.5, 0.25]
    consts, _ = schedule([True] * 5 + [False] * 5, 10)
    assert consts[-1] == consts[4]  # the last of ten or more takes the smallest that worked


def test_early_abort_stops_an_image_by_its_own_loss(monkeypatch):
    x = tools.images(3)
    calls = []
    iterate = cw._iterate

    def spy(*args):
        calls.append(np.array(args[2].iterations))
        return iterate(*args)

    monkeypatch.setattr(cw, "_iterate", spy)
    # With this const the loss is smallest at the start and never falls.
    stuck = {"initial_const": 1e-6, "binary_search_steps": 1, "max_iterations": 100}
    made(x, batch_size=3, **stuck)
    assert len(calls) <= search.PATIENCE + 2
    calls.clear()
    made(x, batch_size=3, abort_early=False, **stuck)
    assert len(calls) == 10


def test_early_abort_costs_next_to_nothing():
    x = tools.images(20)
    with_abort, without = made(x, abort_early=True), made(x, abort_early=False)
    np.testing.assert_array_equal(with_abort.success, without.success)
    assert with_abort.l2.mean() <= 1.01 * without.l2.mean()


@pytest.mark.parametrize("iterations", [1, 7, 10, 25])
def test_the_number_of_iterations_is_kept(monkeypatch, iterations):
    done = []
    iterate = cw._iterate

    def spy(*args):
        done.append(np.array(args[2].iterations))
        return iterate(*args)

    monkeypatch.setattr(cw, "_iterate", spy)
    made(
        tools.images(5), batch_size=2, max_iterations=iterations, abort_early=False,
        binary_search_steps=2,
    )  # fmt: skip
    assert np.sum(done) == 5 * 2 * iterations


def test_other_bounds_than_0_to_1():
    model, bounds = tools.network(), Bounds(-3.0, 5.0)
    x = tools.images(5) * 8 - 3
    params = CWParams(method="cw", **SETTINGS)
    result = craft(model, x, tools.targets(model, x), params, bounds, tools.generators(5))
    assert result.success.all()
    assert result.x_adv.min() >= -3
    assert result.x_adv.max() <= 5


def test_a_loss_that_is_not_finite_is_refused():
    import tensorflow as tf

    model, x = tools.network(), tools.images(2)

    def breaks(images):  # finite at the images themselves only
        return model(images) + tf.where(tf.reduce_all(images == x[:1]), 0.0, np.nan)

    params = CWParams(method="cw", **SETTINGS)
    with pytest.raises(AttackError, match="became NaN"):
        cw.run(breaks, x, tools.targets(model, x), params, tools.BOUNDS)
