"""The black-box attack: what it asks of the oracle, and the augmentation."""

from __future__ import annotations

from functools import cache

import attack_tools as tools
import numpy as np
import pytest
import tensorflow as tf

from nmutant_cli.attacks import blackbox, craft, fgsm
from nmutant_cli.config.attacks import BlackBoxParams, CWParams, FGSMParams
from nmutant_cli.errors import AttackError
from nmutant_cli.seeding import stream

SMALL = BlackBoxParams(method="blackbox", holdout=12, data_aug=3, epochs=1, batch_size=16)
HOLDOUT = tools.images(12)


class Spy:
    """An oracle that gives labels only, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, x):
        self.asked.append(x.copy())
        return tools.labels(tools.network(), x)


@cache
def trained():
    return train(Spy())


def train(oracle, params=SMALL, holdout=HOLDOUT, name="substitute"):
    rng = stream(1, "tests", name)
    return blackbox.train_substitute(oracle, holdout, tools.CLASSES, params, tools.BOUNDS, rng)


def test_the_sign_of_lambda_is_that_of_the_tutorial():
    assert [blackbox.step_sign(k) for k in range(8)] == [-1, -1, -1, 1, 1, 1, 1, 1]


def test_the_oracle_is_asked_once_for_each_image_and_counted():
    spy = Spy()
    substitute = train(spy)
    assert [len(x) for x in spy.asked] == [12, 12, 24]
    assert substitute.queries == 12 * 2 ** (3 - 1) == sum(map(len, spy.asked))
    np.testing.assert_array_equal(spy.asked[0], HOLDOUT)
    for x in spy.asked:
        assert x.dtype == np.float32
        assert x.min() >= 0
        assert x.max() <= 1


def test_the_substitute_learns_from_all_that_it_asked_for(monkeypatch):
    learnt = []
    monkeypatch.setattr(blackbox.training, "fit", lambda model, x, y, **options: learnt.append(x))
    spy = Spy()
    train(spy)
    assert [len(x) for x in learnt] == [12, 24, 48]
    np.testing.assert_array_equal(learnt[-1], np.concatenate(spy.asked))


def test_each_round_steps_by_lambda_in_the_sign_of_that_round(monkeypatch):
    steps = []
    augment = blackbox.jacobian_augmentation

    def spy(model, x, y, lmbda, bounds):
        steps.append(lmbda)
        return augment(model, x, y, lmbda, bounds)

    monkeypatch.setattr(blackbox, "jacobian_augmentation", spy)
    monkeypatch.setattr(blackbox.training, "fit", lambda *args, **options: None)
    settings = {"holdout": 2, "data_aug": 6, "epochs": 1, "lambda": 0.2}
    train(Spy(), BlackBoxParams(method="blackbox", **settings), HOLDOUT[:2])
    assert steps == [-0.2, -0.2, -0.2, 0.2, 0.2]


def test_the_augmentation_is_a_clipped_step_along_the_sign_of_the_labels_gradient():
    model, y = tools.network(), np.arange(12) % tools.CLASSES
    new = blackbox.jacobian_augmentation(model, HOLDOUT, y, -0.3, tools.BOUNDS)
    for i in range(12):
        image = tf.constant(HOLDOUT[i : i + 1])
        with tf.GradientTape() as tape:
            tape.watch(image)
            logit = model(image)[0, y[i]]
        gradient = tape.gradient(logit, image).numpy()[0]
        far = np.abs(gradient) > 1e-6
        expected = np.clip(HOLDOUT[i] - np.float32(0.3) * np.sign(gradient), 0, 1)
        np.testing.assert_allclose(new[i][far], expected[far], atol=1e-7)


def test_training_twice_gives_the_same_network_and_another_stream_another():
    same, again, other = trained(), train(Spy()), train(Spy(), name="other")
    for a, b, c in zip(*(m.model.get_weights() for m in (same, again, other)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


def test_agreement_is_the_share_of_equal_labels():
    substitute = trained()
    x = tools.images(30)
    expected = np.mean(tools.labels(substitute.model, x) == tools.labels(tools.network(), x))
    assert substitute.agreement(Spy(), x) == expected


def test_the_attack_is_fgsm_away_from_the_substitutes_own_label():
    substitute, x = trained(), tools.images(10)
    wrong = np.zeros(10, np.int64)
    made = blackbox.run(substitute.model, x, wrong, SMALL, tools.BOUNDS)
    guess = tools.labels(substitute.model, x)
    step = FGSMParams(method="fgsm", eps=SMALL.eps)
    expected = fgsm.run(substitute.model, x, guess, step, tools.BOUNDS)
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize(
    "params",
    [SMALL, FGSMParams(method="fgsm"),
     CWParams(method="cw", targets="untargeted", binary_search_steps=1, max_iterations=10)],
    ids=lambda params: params.method,
)  # fmt: skip
def test_any_attack_runs_on_the_substitute_and_the_oracle_judges(params):
    spy, substitute, x = Spy(), trained(), tools.images(10)
    y = tools.labels(tools.network(), x)
    result = craft(substitute.model, x, y, params, tools.BOUNDS, tools.generators(10), judge=spy)
    np.testing.assert_array_equal(result.label, tools.labels(tools.network(), result.x_adv))
    np.testing.assert_array_equal(result.success, result.label != y)


@pytest.mark.parametrize(
    ("oracle", "holdout", "message"),
    [
        (
            lambda x: tools.logits(tools.network(), x),
            HOLDOUT,
            r"returns float32 of shape \(12, 5\)",
        ),
        (lambda x: np.zeros(len(x)), HOLDOUT, "returns float64"),
        (lambda x: np.full(len(x), 5), HOLDOUT, "classes from 5 to 5, expected 0 to 4"),
        (Spy(), HOLDOUT[:0], "hold-out images of shape"),
        (Spy(), HOLDOUT[0], "hold-out images of shape"),
    ],
)
def test_a_bad_oracle_or_hold_out_set_is_refused(oracle, holdout, message):
    with pytest.raises(AttackError, match=message):
        train(oracle, holdout=holdout)


def test_a_network_that_does_not_fit_is_refused():
    with pytest.raises(AttackError, match="does not fit images"):
        train(Spy(), BlackBoxParams(method="blackbox", network="mnist"))
