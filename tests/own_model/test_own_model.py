"""A user's own model: opened in every form, and what is said of one that is of no use."""

from __future__ import annotations

import re
import sys

import keras
import numpy as np
import own
import pytest

from nmutant_cli import Calibration, Detector, calibrate, kappa
from nmutant_cli.config.mutation import Mutation
from nmutant_cli.errors import ModelError
from nmutant_cli.files import file_digest
from nmutant_cli.mutation.operator import MutationStream, apply
from nmutant_cli.own_model.answers import as_labels
from nmutant_cli.own_model.model import labels_under, open_model
from nmutant_cli.own_model.scaling import scaling


def test_a_keras_file(tmp_path):
    path = tmp_path / "net.keras"
    own.network().save(path)
    model = open_model(str(path))
    assert model.shape == own.SHAPE
    assert (model.network.name, model.network.sha256) == ("net.keras", file_digest(path))
    assert model.note == ""
    here = labels_under(own.labels, Mutation(), 5)(4.0)
    drawn = MutationStream(own.SHAPE, Mutation(), 1, 0).take(0, 5)
    there = labels_under(model.predict, Mutation(), 5)(4.0)
    assert (here(own.IMAGES[:5], drawn) == there(own.IMAGES[:5], drawn)).all()


@pytest.mark.parametrize("channels_first", [True, False])
@pytest.mark.parametrize("batch", ["n", 5, 1])
def test_an_onnx_file(tmp_path, channels_first, batch):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    own.save_onnx(path, channels_first, batch)
    model = open_model(str(path))
    assert model.shape == own.SHAPE
    order = "channels, height, width" if channels_first else "height, width, channels"
    assert model.note.startswith(f"takes ({order})")
    assert model.predict(own.IMAGES) == pytest.approx(own.scores(own.IMAGES), abs=1e-4)
    assert (as_labels(model.predict(own.IMAGES), 12) == own.labels(own.IMAGES)).all()


def test_a_function_beside_the_user(tmp_path, monkeypatch):
    (tmp_path / "my_own_net.py").write_text(
        "from own import labels\nclass Held:\n    best = staticmethod(labels)\n"
        "def broken(images):\n    raise RuntimeError('no\\nluck')\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    model = open_model("my_own_net:Held.best")
    assert (model.predict(own.IMAGES) == own.labels(own.IMAGES)).all()
    assert (model.shape, model.network.sha256) == (None, None)
    with pytest.raises(
        ModelError, match=r"failed on images .* \(RuntimeError: no luck, .*my_own_net\.py:5\)"
    ):
        open_model("my_own_net:broken").predict(own.IMAGES)
    with pytest.raises(ModelError, match="my_own_net:number: is of type int, not a function"):
        open_model("my_own_net:number")
    with pytest.raises(ModelError, match="my_own_net:absent: cannot be imported"):
        open_model("my_own_net:absent")


def test_the_folder_of_the_user_stands_last_and_only_while_his_module_is_imported(
    tmp_path, monkeypatch
):
    """A file of his that is called as a library's module is not taken for it, then or later."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('not the library')\n")
    (tmp_path / "his_helper.py").write_text("from own import labels\n")
    (tmp_path / "his_net.py").write_text("import colorsys\nfrom his_helper import labels\n")
    path = list(sys.path)
    assert (open_model("his_net:labels").predict(own.IMAGES) == own.labels(own.IMAGES)).all()
    assert sys.path == path
    with pytest.raises(ModelError, match="his_nut:labels: cannot be imported"):
        open_model("his_nut:labels")
    assert sys.path == path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent.keras", "absent.keras: no such model file"),
        ("absent.onnx", "absent.onnx: no such model file"),
        (
            "model.h5",
            "model.h5: not a model; give a .keras, .onnx or .pt2 file, or",
        ),
        ("model.pth", "or package.module:function; it may hold code, which is never run"),
        ("absent.pt2", "absent.pt2: no such model file"),
        ("no_such_module:f", "no_such_module:f: cannot be imported (ModuleNotFoundError"),
        (":f", ":f: cannot be imported"),
    ],
)
def test_no_such_model(name, said):
    with pytest.raises(ModelError, match=re.escape(said)):
        open_model(name)


def test_files_that_are_no_models_for_images(tmp_path):
    pytest.importorskip("onnxruntime")
    for name in ("net.keras", "net.onnx"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(ModelError, match=r"not a readable (Keras|ONNX) model"):
            open_model(str(tmp_path / name))
    keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)]).save(tmp_path / "flat.keras")
    with pytest.raises(ModelError, match=r"flat.keras: takes \(None, 5\), not images"):
        open_model(str(tmp_path / "flat.keras"))


def test_a_keras_model_of_one_score(tmp_path):
    model = keras.Sequential(
        [keras.Input(own.SHAPE), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    with pytest.raises(ModelError, match=r"it must give .n, classes. with 2 classes or more"):
        labels_under(model, Mutation(), 5)


def test_a_keras_model_for_images_of_any_size():
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            layers.Conv2D(3, 3),
            layers.GlobalAveragePooling2D(),
        ]
    )
    label = labels_under(model, Mutation(), 5)(4.0)
    drawn = MutationStream(own.SHAPE, Mutation(), 1, 0).take(0, 5)
    mutated = apply(own.IMAGES[:5], drawn, 4.0)
    expected = np.asarray(model(mutated)).argmax(axis=1)
    assert (label(own.IMAGES[:5], drawn) == expected).all()


def test_large_images_are_asked_about_a_few_at_a_time(monkeypatch):
    """A call of the model holds no more values than fit, and the result is the same."""
    whole, asked = kappa(own.labels, own.IMAGES, 8, 30), []

    def label(images):
        asked.append(len(images))
        return own.labels(images)

    monkeypatch.setattr("nmutant_cli.own_model.model.VALUES", 7 * 64 + 5)
    assert (kappa(label, own.IMAGES, 8, 30) == whole).all()
    assert max(asked) == 7
    calibration = Calibration(step_size=8, p0=0.05, p1=0.2, cap=90, image_shape=own.SHAPE)
    found, few = (Detector(f, calibration).detect(own.IMAGES) for f in (own.labels, label))
    assert (found.changes == few.changes).all()
    clean = np.random.default_rng(0).random((100, *own.SHAPE), dtype=np.float32)
    calibrate(label, clean, own.IMAGES, target=0.2, step_sizes=(8,), mutations=20)
    assert max(asked) == 7


def test_a_keras_file_with_a_mean_for_each_channel(tmp_path):
    layers = [keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    model.save(tmp_path / "net.keras")
    mean, std = [0.2, 0.5, 0.7], [0.1, 0.4, 2.0]
    opened = open_model(str(tmp_path / "net.keras"), scaling(2, mean, std))
    images = np.random.default_rng(0).random((5, 4, 4, 3), np.float32)
    expected = np.asarray(model((2 * images - np.array(mean, np.float32)) / np.array(std)))
    np.testing.assert_allclose(np.asarray(opened.predict(images)), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ([3, -1], [3, -1]),
        (np.array([2.0, 1.0]), [2, 1]),
        ([[0.1, 0.9], [0.8, 0.2]], [1, 0]),
        (np.array([[1, 2, 3], [5, 4, 3]]), [2, 0]),
    ],
)
def test_labels_and_scores(answer, expected):
    found = as_labels(answer, 2)
    assert found.tolist() == expected
    assert found.dtype == np.int64


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([1], r"int64 of shape \(1,\) for 2 images; it must give labels \(2,\) or scores"),
        ([[0.5], [0.6]], r"shape \(2, 1\) .*; make a label of a single score first"),
        ([0.5, 0.6], r"shape \(2,\) .*; make a label of a single score first"),
        ([np.nan, 1], r"shape \(2,\)"),
        ([[np.nan, 1], [0, 1]], "gave NaN as a score"),
        (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\)"),
        (np.zeros((3, 2)), r"shape \(3, 2\)"),
        ([[1], [1, 2]], "lists of different lengths"),
        ([["cat"], ["dog"]], r"<U3 of shape \(2, 1\)"),
        (None, r"object of shape \(\)"),
    ],
)
def test_answers_of_no_use(answer, said):
    with pytest.raises(ModelError, match=said):
        as_labels(answer, 2)
