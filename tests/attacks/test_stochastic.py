"""Dropout left on where labels are recorded and where a network is attacked."""

from __future__ import annotations

import json
from functools import cache
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from attack_tools import BOUNDS, generators
from conftest import ROOT, nmutant, options
from test_attack_craft import EVERY, name

from nmutant_cli.attacks import craft, stochastic
from nmutant_cli.attacks.stochastic import Stochastic
from nmutant_cli.config import loading
from nmutant_cli.config.attacks import CWParams, FGSMParams
from nmutant_cli.config.settings import Settings
from nmutant_cli.datasets import Dataset
from nmutant_cli.errors import ModelError
from nmutant_cli.files import digest_of
from nmutant_cli.mutation.dropout import dropout_on, mix, stochastic_labels
from nmutant_cli.networks.architectures import NETWORKS, initialize
from nmutant_cli.networks.inference import predict_labels
from nmutant_cli.pipeline import attack, experiment, kappa, samples
from nmutant_cli.pipeline.experiment import Experiment
from nmutant_cli.seeding import stream

LOOKING = [p for p in EVERY if p.method in ("fgsm", "bim", "pgd", "jsma")]
# Done in tenths of 3 iterations, the last of 1; images end early, and so get out of step.
LOOKING.append(
    CWParams(
        method="cw",
        binary_search_steps=3,
        max_iterations=25,
        learning_rate=0.5,
        initial_const=10,
    )
)


@cache
def network():
    model = NETWORKS["cifar10_basic"]((8, 8, 1), 10, [0.5])
    initialize(model, stream(3, "tests", "dropout"), "keras")
    return model


def images(n):
    return stream(4, "images").random((n, 8, 8, 1), dtype=np.float32)


def drawn(n, *names):
    return stream(6, "keys", *names).integers(2**31, size=n, dtype=np.int32)


# Labels


def test_a_label_under_dropout_depends_on_image_and_key_alone():
    x, keys, order = images(90), drawn(90), np.random.default_rng(0).permutation(90)
    logits = np.sort(np.asarray(dropout_on(network())([x, keys])), axis=1)
    clear = logits[:, -1] - logits[:, -2] > 1e-4
    assert clear.mean() > 0.9
    label = stochastic_labels(network())(x, keys)
    assert label.dtype == np.int64
    small = stochastic_labels(network(), batch_size=7)
    assert (small(x[order], keys[order]) == label[order])[clear[order]].all()
    assert (small(x[:1], keys[:1]) == label[:1]).all()
    assert (label != predict_labels(network(), x)).any(), "dropout is on"
    assert (label != stochastic_labels(network())(x, drawn(90, "other"))).any()
    assert small(x[:0], keys[:0]).shape == (0,)


@pytest.mark.parametrize("rate", [None, 0.0])
def test_a_network_without_dropout_is_refused(rate):
    inside = [keras.layers.Dropout(rate)] if rate is not None else []
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), *inside, keras.layers.Dense(5)]
    )
    for use in (stochastic_labels, lambda model: Stochastic(model, drawn(3))):
        with pytest.raises(ModelError, match="has no dropout that could be left on"):
            use(model)


# Attacks


def labels_for(params, n):
    plain = predict_labels(network(), images(n))
    return plain if params.targets == "untargeted" else (plain + 1 + np.arange(n) % 9) % 10


def nobody(x):
    """A judge that takes no target for reached: with dropout on an image may have it by chance."""
    return np.full(len(x), -1)


def made(params, rows, n=22, judge=nobody, **more):
    """The attack on some of n images, dropout on."""
    attacked = Stochastic(network(), drawn(n)[rows])
    x, y = images(n)[rows], labels_for(params, n)[rows]
    return craft(attacked, x, y, params, BOUNDS, generators(n)[rows], judge=judge, **more).x_adv


@pytest.mark.parametrize("params", LOOKING, ids=name)
def test_batch_mates_do_not_matter(params):
    whole = made(params, slice(None))
    np.testing.assert_array_equal(whole, made(params, slice(None)))
    parts = [made(params, part) for part in (slice(2), slice(2, 3), slice(3, None))]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert not np.array_equal(whole, images(22)), "it attacks"


@pytest.mark.parametrize("params", LOOKING, ids=name)
def test_the_batch_size_does_not_matter(params):
    whole, small = made(params, slice(None)), made(params, slice(None), batch_size=8)
    assert np.isclose(whole, small, atol=1e-4).all(axis=(1, 2, 3)).mean() > 0.9


@pytest.mark.parametrize("params", LOOKING, ids=name)
def test_every_call_meets_a_fresh_mask_by_count(params, monkeypatch):
    asked = []

    def recording(model):
        graph = dropout_on(model)

        def ask(inputs):
            tf.numpy_function(lambda key: asked.append(int(key[0])), [inputs[1]], [])
            return graph(inputs)

        return ask

    monkeypatch.setattr(stochastic, "dropout_on", recording)
    made(params, slice(3, 4), judge=None)
    key = drawn(22)[3]
    counted = [int(mix(key ^ np.asarray(mix(np.int32(k))))) for k in range(len(asked))]
    assert asked == counted
    assert len(set(asked)) == len(asked) > 1


@pytest.mark.parametrize("params", LOOKING, ids=name)
def test_dropout_is_on_for_the_attack(params):
    n = 22
    plain = craft(
        network(), images(n), labels_for(params, n), params, BOUNDS, generators(n), judge=nobody
    )
    assert not np.array_equal(plain.x_adv, made(params, slice(None)))


def test_fgsm_steps_along_the_gradient_under_the_second_mask():
    """The first call is `craft`'s own, which looks whether the network takes the images."""
    params = FGSMParams(method="fgsm", eps=0.1)
    x, y = tf.constant(images(22)), labels_for(params, 22)
    key = mix(drawn(22) ^ np.asarray(mix(np.int32(1))))
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = dropout_on(network())([x, key])
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
    gradient = tape.gradient(loss, x).numpy()
    far = np.abs(gradient) > 1e-6
    expected = np.clip(images(22) + np.float32(0.1) * np.sign(gradient), 0, 1)
    np.testing.assert_allclose(made(params, slice(None))[far], expected[far], atol=1e-6)


# Sample sets

SETS = {
    "fgsm": {"method": "fgsm", "eps": 0.05},
    "cw": {"method": "cw", "max_iterations": 20, "binary_search_steps": 1, "learning_rate": 0.1},
    "jsma": {"method": "jsma"},
    "bb": {"method": "blackbox", "holdout": 5, "data_aug": 2, "epochs": 1},
}


def data(n_test=60, n_train=120):
    x, y = images(300), stream(4, "labels").integers(10, size=300)
    return Dataset("fake", x[60 : 60 + n_train], y[60 : 60 + n_train], x[:n_test], y[:n_test], "d")


def settings(attempts=12, labels=True, attack=True, **chosen):
    return Settings.model_validate(
        {
            "dataset": "digits",
            "model": {"network": "cifar10_basic"},
            "attack": {"attempts": attempts, "sets": SETS, "stochastic": attack},
            "samples": {"normal": 40, "wl": 500, "stochastic": labels, **chosen},
        }
    )


def passes(x, index, target, which, *names):
    """The labels of single passes, from the definition."""
    keys = [
        stream(20180514, "fake", "mask", *names, int(i), int(t)).integers(
            2**31, size=3, dtype=np.int32
        )[which]
        for i, t in zip(index, target, strict=True)
    ]
    return stochastic_labels(network())(x, np.array(keys))


def test_a_normal_sample_has_the_label_of_its_pass():
    found = samples.normal(network(), data(), settings())
    expected = passes(found.image, found.index, found.target, 0, "normal")
    np.testing.assert_array_equal(found.label, expected)
    np.testing.assert_array_equal(found.label8, found.label)
    assert (found.label != predict_labels(network(), found.image)).any()
    off = samples.normal(network(), data(), settings(labels=False))
    np.testing.assert_array_equal(off.label, predict_labels(network(), off.image))
    np.testing.assert_array_equal(off.index, found.index)


def test_normal_samples_that_are_right_are_right_in_their_pass():
    wanted = settings(normal=5, normal_correct_only=True)
    found = samples.normal(network(), data(), wanted)
    np.testing.assert_array_equal(found.label, found.true)
    np.testing.assert_array_equal(
        found.label, passes(found.image, found.index, found.target, 0, "normal")
    )
    assert (predict_labels(network(), found.image) != found.true).any()


def test_wrongly_labelled_samples_are_wrong_in_their_pass_whatever_else_there_is():
    found = samples.wrongly_labelled(network(), data(), settings())
    assert (found.label != found.true).all()
    labels = passes(data().x_train, np.arange(120), np.full(120, -1), 0, "wl")
    np.testing.assert_array_equal(found.index, np.flatnonzero(labels != data().y_train))
    off = samples.wrongly_labelled(network(), data(), settings(labels=False))
    assert set(off.index) != set(found.index)
    fewer = samples.wrongly_labelled(network(), data(n_train=70), settings())
    same = found.index < 70
    np.testing.assert_array_equal(fewer.index, found.index[same])
    np.testing.assert_array_equal(fewer.label, found.label[same])


@pytest.mark.parametrize("slug", SETS)
def test_an_attack_set_records_three_passes_and_does_not_depend_on_its_size(slug):
    found, notes = attack.adversarial(slug, network(), data(), settings())
    where = found.index, found.target
    before = passes(data().x_test[found.index], *where, 0, slug)
    np.testing.assert_array_equal(found.label, passes(found.image, *where, 1, slug))
    eight_bit = samples.from_8_bits(found.image8)
    np.testing.assert_array_equal(found.label8, passes(eight_bit, *where, 2, slug))
    np.testing.assert_array_equal(found.counts, found.label != found.true)
    assert notes["already_wrong"] == (before != found.true).sum()
    # A label that is aimed at anyway leaves nothing to attack.
    untouched = before == found.target
    np.testing.assert_array_equal(found.image[untouched], data().x_test[found.index[untouched]])
    more, _ = attack.adversarial(slug, network(), data(), settings(attempts=20))
    np.testing.assert_allclose(more.image[:12], found.image, atol=1e-5)
    np.testing.assert_array_equal(more.label[:12], found.label)


@pytest.mark.parametrize("slug", SETS)
def test_either_of_the_two_settings_moves_an_attack_set(slug):
    off, labels, attacked = (
        attack.adversarial(slug, network(), data(), settings(50, **on))[0]
        for on in (
            {"labels": False, "attack": False},
            {"labels": True, "attack": False},
            {"labels": False, "attack": True},
        )
    )
    assert (off.label != labels.label).any()
    assert not np.array_equal(off.image, attacked.image)
    np.testing.assert_array_equal(attacked.label, predict_labels(network(), attacked.image))


# Runs


@pytest.mark.parametrize("change", [None, "samples.stochastic=true", "attack.stochastic=true"])
def test_what_was_made_before_there_were_these_settings_still_has_its_digest(monkeypatch, change):
    """Of the committed run of cifar10-small, whose dropout was on when mutations were labelled."""
    manifest = ROOT / "results" / "cifar10-dropout" / "manifest.json"
    entries = json.loads(manifest.read_text())["artefacts"]
    found = {}

    class Folder:
        path = manifest.parent

        def make(self, name, ingredients, build):
            found[name] = digest_of(ingredients)
            return self.path / name

    def sha256(path):
        return entries[str(path.relative_to(manifest.parent))]["sha256"]

    for module in (experiment, kappa):
        monkeypatch.setattr(module, "file_digest", sha256)
    monkeypatch.setattr(experiment.backend, "name", lambda: "tensorflow")
    changes = ["model.stochastic_inference=true", *([change] if change else [])]
    run = Experiment(loading.load("cifar10-small", changes)[1], Folder())
    run.data = SimpleNamespace(digest=entries["samples/wl.npz"]["ingredients"]["data"])
    sets = {slug: f"adversarial/{slug}.npz" for slug in run.settings.attack.sets}
    sets |= {slug: f"samples/{slug}.npz" for slug in ("normal", "wl")}
    for slug in sets:
        run.samples_path(slug)
        kappa.kappa_of(run, slug)
    same = {name for name, digest in found.items() if digest == entries[name]["digest"]}
    attacked = {name for name in sets.values() if name.startswith("adversarial/")}
    moved = {
        None: set(),
        "samples.stochastic=true": set(found) - {"model.keras"},
        "attack.stochastic=true": attacked,
    }[change]
    assert set(found) - same == moved
    assert len(found) == 2 * len(sets) + 1


def test_a_run_compares_mutations_with_the_recorded_labels(tmp_path):
    import pandas as pd

    changes = [
        "model.network=cifar10_basic", "model.dropout=[0.5]", "model.stochastic_inference=true",
        "samples.stochastic=true", "attack.stochastic=true", "attack.sets.cw=null",
        "attack.sets.jsma=null", "attack.sets.bb=null",
    ]  # fmt: skip
    outcome = nmutant("measure-kappa", *options(tmp_path / "run", *changes))
    assert outcome.code == 0, outcome
    kappa = pd.read_csv(tmp_path / "run" / "kappa.csv")
    for slug, part in (("normal", "samples"), ("wl", "samples"), ("fgsm", "adversarial")):
        recorded = samples.SampleSet.load(tmp_path / "run" / part / f"{slug}.npz").counted()
        own = kappa[kappa["samples"] == slug]
        assert len(own) == 3 * len(recorded) > 0
        np.testing.assert_array_equal(own["label"], np.tile(recorded.label, 3))


REFUSED = [
    (["samples.stochastic=true"], "samples.stochastic: network 'base' (mnist) has no dropout"),
    (["attack.stochastic=true"], "attack.stochastic: network 'base' (mnist) has no dropout"),
    (
        ["model={network: cifar10_basic, dropout: [0]}", "attack.stochastic=true"],
        "attack.stochastic: network 'base' (cifar10_basic) has no dropout",
    ),
    (
        ["model.network=cifar10_basic", "variants.v.network=mnist", "attack.sets.fgsm.model=v",
         "samples.stochastic=true"],
        "samples.stochastic: network 'v' (mnist) has no dropout",
    ),
    (
        ["model.network=cifar10_basic", "attack.sets.new.method=adaptive",
         "attack.stochastic=true"],
        "attack.stochastic: 'adaptive' (attack.sets.new) asks with dropout off",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "line"), REFUSED, ids=[line[:60] for _, line in REFUSED])
def test_settings_that_have_nothing_to_leave_on_are_refused(changes, line, tmp_path):
    sets = [part for change in changes for part in ("--set", change)]
    outcome = nmutant("run", "--config", "digits", "--run-dir", tmp_path / "run", *sets)
    assert line in outcome.error
    assert not (tmp_path / "run").exists()


def test_a_black_box_and_its_like_may_be_asked_with_dropout_on():
    changes = [
        "model.network=cifar10_basic", "attack.stochastic=true",
        "attack.sets.new={method: adaptive, substitute: {}}",
    ]  # fmt: skip
    assert loading.load("digits", changes)[1].attack.stochastic
