"""The adaptive attack and the random noise that is its control."""

from __future__ import annotations

from functools import cache

import attack_tools as tools
import keras
import numpy as np
import pytest
from keras import layers

from nmutant_cli.attacks import adaptive, blackbox, craft, cw, noise, search
from nmutant_cli.config.attacks import AdaptiveParams, CWParams, NoiseParams
from nmutant_cli.config.mutation import Mutation
from nmutant_cli.config.settings import Settings
from nmutant_cli.datasets import Dataset
from nmutant_cli.errors import AttackError
from nmutant_cli.mutation.operator import apply, draw
from nmutant_cli.pipeline import attack
from nmutant_cli.seeding import stream

SETTINGS = {
    "method": "adaptive", "targets": "one", "max_iterations": 60, "learning_rate": 0.2,
    "initial_const": 100,
}  # fmt: skip
N = 6


@cache
def linear() -> keras.Model:
    """Where the margin alone decides whether a mutation changes the label."""
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(5)])
    rng = stream(6, "linear")
    model.set_weights([rng.standard_normal(w.shape) / 8 for w in model.get_weights()])
    return model


def made(rows=slice(N), generators=None, batch_size=None, **settings):
    x = tools.images(N)
    y = tools.targets(linear(), x)
    generators = tools.generators(N) if generators is None else generators
    return craft(
        linear(), x[rows], y[rows], AdaptiveParams(**(SETTINGS | settings)), tools.BOUNDS,
        generators[rows], batch_size=batch_size,
    )  # fmt: skip


def kappa(images, step_size=1.0, **mutation):
    """The share of 500 fresh mutations that change the label of each image."""
    changed = []
    for image, label in zip(images, tools.labels(linear(), images), strict=True):
        mutations = draw(stream(7, "fresh"), 500, image.shape, Mutation(**mutation))
        mutants = apply(np.repeat(image[None], 500, axis=0), mutations, step_size)
        changed.append((tools.labels(linear(), mutants) != label).mean())
    return np.array(changed)


def test_the_images_keep_their_label_under_fresh_mutations_and_those_of_cw_do_not():
    x = tools.images(N)
    settings = {"binary_search_steps": 3, "max_iterations": 100, "learning_rate": 0.1}
    plain = craft(
        linear(), x, tools.targets(linear(), x),
        CWParams(method="cw", initial_const=1, **settings), tools.BOUNDS, tools.generators(N),
    )  # fmt: skip
    result = made(**settings)
    assert plain.success.all()
    assert result.success.all()
    assert kappa(plain.x_adv).mean() > 0.2
    assert kappa(result.x_adv).mean() < 0.02
    assert (result.l2 > plain.l2).all()


@pytest.mark.parametrize(("kind", "step_size"), [("gaussian", 2.0), ("translation", 0.5)])
def test_it_is_made_for_the_mutations_it_is_given(kind, step_size):
    settings = {"binary_search_steps": 3, "max_iterations": 100, "learning_rate": 0.1}
    own = made(**settings, mutation={"kinds": [kind]}, step_size=step_size, tolerance=0.02)
    plain = searched("cw", initial_const=1)
    assert own.success.all()
    assert kappa(own.x_adv, step_size, kinds=[kind]).mean() < 0.04
    assert kappa(plain.x_adv, step_size, kinds=[kind]).mean() > 0.2


def test_a_restart_begins_elsewhere_and_the_nearest_image_is_kept():
    for method, settings in (("adaptive", {}), ("cw", {"initial_const": 1})):
        once, thrice = (searched(method, restarts=k, **settings) for k in (0, 2))
        assert once.success.all()
        assert thrice.success.all()
        assert (thrice.l2 <= once.l2 + 1e-6).all(), "the first search is the same"
        assert (thrice.x_adv != once.x_adv).any()
        alone = searched(method, slice(2, 3), restarts=2, **settings)
        np.testing.assert_array_equal(alone.x_adv, thrice.x_adv[2:3])


def searched(method, rows=slice(N), **settings):
    kind = {"cw": CWParams, "adaptive": AdaptiveParams}[method]
    x = tools.images(N)
    few = {"max_iterations": 40, "binary_search_steps": 2, "learning_rate": 0.2, "targets": "one"}
    given = {"method": method, "initial_const": 30} | few | settings
    return craft(
        linear(), x[rows], tools.targets(linear(), x)[rows], kind(**given), tools.BOUNDS,
        tools.generators(N)[rows],
    )  # fmt: skip


def test_a_restart_begins_where_its_generator_says():
    x = tools.images(3)
    params = CWParams(method="cw", restarts=1)
    slots = search.Slots(x, np.arange(3), params, tools.BOUNDS, tools.generators(3), 3, at_once=3)
    slots.fill()
    noise = tools.generators(3)[1].normal(0, search.NEARBY, x[1].shape)
    bounds = np.array(tools.BOUNDS, np.float32)
    begun = search.image_at(search.start_at(x[1], bounds) + slots._nearby(1), bounds)
    np.testing.assert_allclose(begun, (x[1] + noise).clip(0, 1), atol=1e-4)


def test_an_image_alone_and_among_others_gives_the_same():
    whole = made()
    for i in (0, 3):
        np.testing.assert_array_equal(made(slice(i, i + 1)).x_adv, whole.x_adv[i : i + 1])
    together = made(batch_size=4)
    np.testing.assert_array_equal(together.success, whole.success)
    np.testing.assert_allclose(together.x_adv, whole.x_adv, atol=1e-4)


def test_the_mutations_are_those_of_each_images_generator():
    whole, again = made(), made()
    np.testing.assert_array_equal(whole.x_adv, again.x_adv)
    generators = tools.generators(N)
    generators[2] = tools.generators(1, first=99)[0]
    other = made(generators=generators).x_adv != whole.x_adv
    assert other.any(axis=(1, 2, 3)).tolist() == [i == 2 for i in range(N)]


@pytest.mark.parametrize(
    "kinds", [{}, {"kinds": ["gaussian"]}, {"kinds": ["occlusion", "translation", "contrast"]}]
)
def test_mutants_are_those_of_the_operator_and_the_first_is_the_image_itself(kinds):
    x, draws = tools.images(2), 4
    params = AdaptiveParams(
        **(SETTINGS | {"draws": draws, "step_size": 3, "mutation": {"amplitude": 2} | kinds})
    )
    draw_block = adaptive._Draws(params, x.shape[1:], tools.generators(2))
    corners, level, patch, warp = draw_block(np.array([0, 1, -1]), np.array([6, 2, 0]))
    mutations = draw(tools.generators(1)[0], 6 * draws, x.shape[1:], params.mutation)
    expected = apply(np.repeat(x[:1], 6 * draws, axis=0), mutations, 3)
    expected = expected.reshape(6, draws, *x.shape[1:])
    for k in range(6):
        block = [np.repeat(x[:1], 1 + draws, axis=0), corners[k, 0], level[k, 0], patch[k, 0]]
        block += [one[k, 0] for one in warp]
        mutants = np.asarray(adaptive._mutate(block))
        np.testing.assert_allclose(mutants[0], x[0], rtol=0, atol=1e-6 if warp else 0)
        np.testing.assert_allclose(mutants[1:], expected[k], atol=1e-6)
    for place, done in ((1, 2), (2, 0)):  # nothing is drawn for iterations that are not done
        drawn = [level] if not kinds else [level, patch]
        assert any(one[:done, place].any() for one in drawn) == bool(done)
        assert not level[done:, place].any()
        assert not patch[done:, place].any()


@pytest.mark.parametrize("confidence", [0.0, 0.5])
def test_the_margin_of_the_image_reaches_the_confidence(confidence):
    result = made(confidence=confidence)
    assert result.success.all()
    targets = tools.targets(linear(), tools.images(N))
    margin = cw.margin_of(tools.logits(linear(), result.x_adv), targets, True)
    assert (margin >= confidence - 1e-4).all()


def test_mutants_are_pushed_to_the_aim_and_the_image_has_to_have_the_confidence():
    slow = {"learning_rate": 0.02, "max_iterations": 100}
    usual = made(confidence=1.0, **slow)
    assert usual.success.all()
    np.testing.assert_array_equal(usual.x_adv, made(confidence=1.0, aim=1.0, **slow).x_adv)
    # Nothing pushes beyond the aim, so no image gets as far as the confidence.
    assert not made(confidence=1.0, aim=0.01, **slow).success.any()
    assert made(confidence=0.0, aim=0.5, **slow).success.all()


def test_a_failed_image_comes_back_as_the_original():
    result = made(confidence=1000.0)
    np.testing.assert_array_equal(result.x_adv, tools.images(N))
    # Nine iterations in a row are one too few.
    with pytest.raises(ValueError, match="greater than or equal to 10"):
        AdaptiveParams(method="adaptive", max_iterations=adaptive.WINDOW - 1)


def test_a_tolerance_is_used_and_kept_to():
    settings = {"step_size": 4, "initial_const": 30, "max_iterations": 100}
    strict, lax = made(**settings), made(**settings, tolerance=0.15)
    assert not strict.success.any()
    assert lax.success.all()
    changed = kappa(lax.x_adv, 4.0)
    assert changed.max() < 0.3
    assert 0.05 < changed.mean() < 0.2


def test_a_loss_that_is_not_finite_is_refused():
    x = tools.images(1)
    params = AdaptiveParams(**SETTINGS)
    with pytest.raises(AttackError, match=r"adaptive: .* became NaN"):
        adaptive.run(
            lambda images: linear()(images) * np.nan, x, np.array([1]), params, tools.BOUNDS,
            tools.generators(1),
        )  # fmt: skip


def data_set(n=40):
    x = tools.images(n)
    y = np.arange(n) % tools.CLASSES
    return Dataset("digits", x, y, x, y, "", n_classes=tools.CLASSES)


def test_one_other_class_for_each_image_in_turn_and_a_hold_out_left_aside():
    data = data_set()
    for substitute, aside, first in (
        (None, 0, 0), ({"holdout": 12}, 0, 12), (None, 5, 5), ({"holdout": 12}, 5, 12)
    ):  # fmt: skip
        params = AdaptiveParams(**SETTINGS, substitute=substitute)
        index, target = attack.pairs(params, data, 20, aside)
        np.testing.assert_array_equal(index, first + np.arange(20))
        assert (target != data.y_test[index]).all()
        assert set(target) == set(range(tools.CLASSES))
    for targets, each in (("others", 4), ("all", 5)):
        params = AdaptiveParams(**(SETTINGS | {"targets": targets}), substitute={"holdout": 12})
        index, target = attack.pairs(params, data, 10)
        assert index.min() >= 12
        assert len(set(index)) == -(-10 // each)
    with pytest.raises(AttackError, match="40 test images, 12 of them left aside"):
        attack.pairs(params, data, 1000)


def test_a_set_with_a_substitute_is_crafted_on_it_and_judged_by_the_network(monkeypatch):
    asked = []

    def train(oracle, holdout, n_classes, params, bounds, rng):
        asked.append((len(holdout), params.epochs))
        return blackbox.Substitute(tools.network(), 0)

    monkeypatch.setattr(blackbox, "train_substitute", train)
    settings = Settings.model_validate(
        {
            "dataset": "digits",
            "model": {"network": "substitute"},
            "attack": {
                "attempts": 3,
                "sets": {"transfer": SETTINGS | {"substitute": {"holdout": 12, "epochs": 2}}},
            },
        }
    )
    found, notes = attack.adversarial("transfer", linear(), data_set(), settings)
    assert asked == [(12, 2)]
    assert notes["substitute_agreement"] < 1
    moved = found.l2 > 0
    assert moved.any()
    on_substitute = tools.labels(tools.network(), found.image)
    np.testing.assert_array_equal(on_substitute[moved], found.target[moved])
    np.testing.assert_array_equal(found.label, tools.labels(linear(), found.image))


def test_noise_has_the_length_asked_for_and_is_clipped_by_the_wrapper():
    x, params = tools.images(8), NoiseParams(method="noise", eps=2.5)
    y = tools.labels(tools.network(), x)
    args = (params, tools.BOUNDS, tools.generators(8))
    free = noise.run(tools.network(), x, y, *args)
    np.testing.assert_allclose(np.linalg.norm((free - x).reshape(8, -1), axis=1), 2.5, rtol=1e-5)
    one = noise.run(
        tools.network(), x[3:4], y[3:4], params, tools.BOUNDS, tools.generators(1, first=3)
    )
    np.testing.assert_array_equal(one, free[3:4])
    kept = craft(tools.network(), x, y, params, tools.BOUNDS, tools.generators(8))
    np.testing.assert_array_equal(kept.x_adv, free.clip(0, 1))
    assert (kept.l2 < 2.5).all()
