"""Networks: built, trained, saved and loaded."""

import logging
import typing
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import python

from nmutant_cli.config.fields import DROPOUT_LAYERS as DROPOUTS
from nmutant_cli.config.fields import NetworkName
from nmutant_cli.config.networks import Model
from nmutant_cli.datasets import Dataset
from nmutant_cli.errors import ModelError
from nmutant_cli.networks import inference, training
from nmutant_cli.networks.architectures import NETWORKS

SHAPES = {name: (32, 32, 3) for name in NETWORKS if name.startswith("cifar10")}


def small(shape=(28, 28, 1), n=40):
    rng = np.random.default_rng(1)
    x = rng.random((n, *shape), dtype=np.float32)
    y = np.arange(n) % 10
    return Dataset("fake", x, y, x[:20], y[:20], "digest")


def weights(model):
    return [np.asarray(w) for w in model.get_weights()]


def test_the_names_are_those_of_the_settings():
    assert set(NETWORKS) == set(typing.get_args(NetworkName)) == set(DROPOUTS)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_gives_logits(network):
    data = small(SHAPES.get(network, (28, 28, 1)), 4)
    model = training.build(Model(network=network), data, 0, "test")
    logits = inference.logits_fn(model, batch_size=3)(data.x_train)
    assert logits.shape == (4, 10)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert inference.logits_fn(model, batch_size=3)(data.x_train[:0]).shape == (0, 10)
    labels = inference.predict_labels(model, data.x_train, batch_size=3)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, logits.argmax(axis=1))
    assert (
        sum(isinstance(layer, keras.layers.Dropout) for layer in model.layers) == DROPOUTS[network]
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_the_papers_initialization_has_filters_of_unit_norm(network):
    data = small(SHAPES.get(network, (28, 28, 1)), 1)
    model = training.build(Model(network=network, initialization="paper"), data, 0, "test")
    for variable, value in zip(model.weights, weights(model), strict=True):
        if value.ndim == 1:
            scales = variable.name in {"gamma", "moving_variance"}
            np.testing.assert_array_equal(value, 1 if scales else 0)
        else:
            norms = np.sqrt(np.square(value).sum(axis=tuple(range(value.ndim - 1))))
            np.testing.assert_allclose(norms, 1, rtol=1e-5)


def test_keras_initialization_is_glorot():
    data = small((28, 28, 1), 1)
    model = training.build(Model(network="substitute", initialization="keras"), data, 0, "test")
    kernel = weights(model)[0]
    limit = np.sqrt(6 / sum(kernel.shape))
    assert 0.99 * limit < np.abs(kernel).max() <= limit
    assert abs(kernel.mean()) < 0.01 * limit


@pytest.mark.parametrize("network", ["mnist", "cifar10_basic"])
def test_the_same_seed_trains_the_same_network(network):
    data = small(n=20)
    settings = Model(network=network, epochs=1, batch_size=10)
    first, report = training.train(settings, data, 3, "a")
    again, report_again = training.train(settings, data, 3, "a")
    other, _ = training.train(settings, data, 4, "a")
    for one, two in zip(weights(first), weights(again), strict=True):
        np.testing.assert_array_equal(one, two)
    assert any(
        not np.array_equal(a, b) for a, b in zip(weights(first), weights(other), strict=True)
    )
    assert report == report_again
    assert report.parameters == first.count_params()
    labels = inference.predict_labels(first, data.x_train)
    assert report.train_accuracy == (labels == data.y_train).mean()


def test_training_learns():
    data = small()
    _, report = training.train(
        Model(network="substitute", epochs=25, batch_size=10, initialization="keras"), data, 0, "a"
    )
    assert report.train_accuracy > 0.9


@pytest.fixture
def trained_in():
    def train(**changes):
        settings = Model(network="cifar10_basic", epochs=3, batch_size=10, **changes)
        model, _ = training.train(settings, small((8, 8, 1)), 3, "a")
        return model

    return train


def test_training_in_bfloat16_gives_another_network_in_float32(trained_in, tmp_path):
    plain, half = trained_in(), trained_in(precision="bfloat16")
    assert {str(w.dtype) for w in half.weights} == {"float32"}
    for a, b in zip(weights(plain), weights(half), strict=True):
        np.testing.assert_allclose(a, b, atol=0.05)
    assert any(not np.array_equal(a, b) for a, b in zip(weights(plain), weights(half), strict=True))
    half.save(tmp_path / "model.keras")
    loaded = inference.load(tmp_path / "model.keras", (8, 8, 1))
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"  # for what is built next


def test_step_by_step_and_by_keras_the_weights_come_out_the_same(trained_in, monkeypatch):
    steps = []
    monkeypatch.setattr(training.tqdm, "update", lambda self, n=1: steps.append(n))
    own = trained_in()
    monkeypatch.setattr(training.backend, "on_cpu", lambda: False)  # as on a GPU
    for a, b in zip(weights(own), weights(trained_in()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    per_network = 3 * -(-len(small((8, 8, 1)).x_train) // 10)
    assert steps == [1] * (2 * per_network)


def test_moved_images_are_windows_of_the_reflected_image():
    x = small((9, 7, 2), 162).x_train
    moves = np.array(list(np.ndindex(training.MOVES)))
    for image, (down, right, mirrored), found in zip(
        x, moves, training.moved(x, moves), strict=True
    ):
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), "reflect")
        window = padded[down : down + 9, right : right + 7]
        np.testing.assert_array_equal(found, window[:, ::-1] if mirrored else window)
    np.testing.assert_array_equal(training.moved(x[:1], np.array([[4, 4, 0]])), x[:1])


def test_every_epoch_moves_the_images_anew(monkeypatch):
    data = small((8, 8, 1), 12)
    seen = []
    real = training.go_through

    def go_through(model, x, *further):
        seen.append(np.sort(x.reshape(len(x), -1), axis=1))  # moved images have other values
        real(model, x, *further)

    monkeypatch.setattr(training, "go_through", go_through)
    for augment in (False, True):
        training.train(Model(network="substitute", epochs=2, augment=augment), data, 0, "a")
    plain, again, first, second = (np.unique(x, axis=0) for x in seen)
    np.testing.assert_array_equal(plain, again)
    assert not np.array_equal(first, plain)
    assert not np.array_equal(first, second)


def test_weight_decay_draws_weights_to_nothing():
    """AdamW without a gradient: every step takes rate * decay of each weight."""
    data = small((8, 8, 1), 20)
    settings = Model(network="substitute", epochs=3, batch_size=10, learning_rate=1e-3)
    plain, _ = training.train(settings, data, 0, "a")
    decayed, _ = training.train(settings.model_copy(update={"weight_decay": 50.0}), data, 0, "a")
    norms = [np.linalg.norm(weights(m)[0]) for m in (plain, decayed)]
    assert norms[1] / norms[0] == pytest.approx(0.95**6, rel=0.02)


@pytest.mark.parametrize(("words", "warned"), [("fma avx2", True), ("fma avx512_bf16", False)])
def test_a_processor_without_bfloat16_is_named(trained_in, monkeypatch, caplog, words, warned):
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: f"flags : {words}\n")
    monkeypatch.setattr(training, "log", logging.getLogger("test"))  # ours may be told to be quiet
    trained_in(precision="bfloat16")
    assert any("in emulation" in line for line in caplog.messages) == warned


def test_cosine_ends_where_the_rate_is_nothing(monkeypatch):
    data = small(n=25)
    rates = []
    real = training.go_through

    def go_through(model, *further):
        real(model, *further)
        rates.append(float(model.optimizer.learning_rate))

    monkeypatch.setattr(training, "go_through", go_through)
    settings = Model(network="substitute", epochs=4, batch_size=10, schedule="cosine")
    training.train(settings, data, 0, "a")
    expected = 1e-3 * (1 + np.cos(np.pi * np.arange(1, 5) / 4)) / 2
    np.testing.assert_allclose(rates, expected, atol=1e-9)


def test_a_later_setting_at_its_default_leaves_the_recipe_as_it_was():
    recipe = Model(network="mnist").recipe()
    assert recipe == {
        "network": "mnist",
        "epochs": 6,
        "batch_size": 128,
        "learning_rate": 0.001,
        "label_range": None,
        "initialization": "paper",
        "dropout": None,
    }
    assert Model(network="mnist", precision="bfloat16").recipe()["precision"] == "bfloat16"


@pytest.mark.parametrize("network", NETWORKS)
def test_as_many_drop_rates_as_the_network_takes(network):
    data = small(SHAPES.get(network, (28, 28, 1)), 1)
    taken = DROPOUTS[network]
    model = training.build(Model(network=network, dropout=[0.25] * taken), data, 0, "test")
    rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == [0.25] * taken
    expected = rf"^model\.dropout: .* has {taken + 1} rates, the network {network} takes {taken}$"
    with pytest.raises(ModelError, match=expected):
        training.build(Model(network=network, dropout=[0.25] * (taken + 1)), data, 0, "test")


def test_a_network_too_large_for_the_images():
    with pytest.raises(ModelError, match=r"^model\.network: mnist cannot be built for .*$"):
        training.build(Model(network="mnist"), small((8, 8, 1), 1), 0, "test")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.keras"
    model = training.build(Model(network="mnist"), small(), 0, "test")
    model.save(path)
    return path, model


def test_a_saved_network_is_loaded(saved):
    path, model = saved
    loaded = inference.load(path, (28, 28, 1))
    for one, two in zip(weights(model), weights(loaded), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_saved_network_opens_with_plain_keras(saved, tmp_path):
    path, model = saved
    images = small().x_train[:3]
    np.save(tmp_path / "images.npy", images)
    code = (
        "import keras, numpy, sys\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "numpy.save(sys.argv[2] + '/logits.npy', model.predict(numpy.load(sys.argv[2] + "
        "'/images.npy'), verbose=0))\n"
        "assert not any(name.startswith('nmutant') for name in sys.modules)\n"
    )
    done = python(code, path, tmp_path)
    assert done.returncode == 0, done.stderr
    logits = np.load(tmp_path / "logits.npy")
    np.testing.assert_allclose(logits, inference.logits_fn(model)(images), rtol=1e-4, atol=1e-4)


def refused(path, shape=(28, 28, 1)):
    with pytest.raises(ModelError) as caught:
        inference.load(path, shape)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert len(text.splitlines()) == 1
    return text.removeprefix(f"{path}: ")


def test_a_missing_model(tmp_path):
    assert refused(tmp_path / "none.keras") == "no such model file"
    (tmp_path / "folder.keras").mkdir()
    assert refused(tmp_path / "folder.keras") == "no such model file"


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.9999])
def test_a_truncated_model(saved, tmp_path, kept):
    content = saved[0].read_bytes()
    path = tmp_path / "short.keras"
    path.write_bytes(content[: int(len(content) * kept)])
    assert refused(path).startswith("not a readable Keras model")


def test_a_file_that_is_no_model(tmp_path):
    path = tmp_path / "text.keras"
    path.write_text("text")
    assert refused(path).startswith("not a readable Keras model")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}")
    assert refused(path).startswith("not a readable Keras model")
    path = tmp_path / "model.h5"
    path.write_text("text")
    assert refused(path) == "not a .keras file, the only format that is loaded"


def test_a_model_of_another_input_shape(saved, tmp_path):
    expected = "takes images of shape (28, 28, 1), the data has (32, 32, 3)"
    assert refused(saved[0], (32, 32, 3)) == expected
    inputs = [keras.Input((3,)), keras.Input((4,))]
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Concatenate()(inputs)))
    model.save(tmp_path / "two.keras")
    assert refused(tmp_path / "two.keras").startswith(
        "takes images of shape [(None, 3), (None, 4)]"
    )


def test_lambda_code_is_never_run(tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "lambda.keras"

    code = lambda x, trace=str(trace): (open(trace, "w").close(), x)[1]  # noqa: E731
    lambda_layer = keras.layers.Lambda(code)
    model = keras.Sequential([keras.Input((28, 28, 1)), lambda_layer])
    model.save(path)
    trace.unlink()  # building it ran the code
    assert refused(path) == "contains Lambda code, which is never run"
    assert not trace.exists()
