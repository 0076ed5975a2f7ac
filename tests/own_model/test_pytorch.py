"""A PyTorch module, in memory and exported; skipped where PyTorch is not installed."""

from __future__ import annotations

import io
import os
import zipfile

import numpy as np
import own
import pytest

import nmutant_cli
from nmutant_cli import Calibration, Detector
from nmutant_cli.errors import ConfigError, DataError, ModelError
from nmutant_cli.files import file_digest
from nmutant_cli.own_model.model import open_model
from nmutant_cli.own_model.scaling import scaling

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")
CALIBRATION = Calibration(step_size=8, p0=0.05, p1=0.2, cap=90, image_shape=own.SHAPE)


def predict(*given, **more):
    from nmutant_cli.torch import predict

    return predict(*given, **more)


def export(module, path, shape=(2, 1, 8, 8), fixed=False):
    example = torch.zeros(shape)
    sizes = None if fixed else ({0: torch.export.Dim("n")},)
    program = torch.export.export(module, (example,), dynamic_shapes=sizes)
    torch.export.save(program, path)
    return str(path)


@pytest.mark.parametrize("batch_size", [1, 5, 128])
def test_a_module_gives_the_labels_of_the_function(batch_size):
    module = own.module().train()
    label = predict(module, batch_size=batch_size)
    found = label(own.IMAGES)
    assert (found == own.labels(own.IMAGES)).all()
    assert found.dtype == np.int64
    assert not module.training
    module.train()
    assert (label(own.IMAGES) == found).all(), "dropout is off whenever it is asked"
    assert label(own.IMAGES[:0]).shape == (0,)
    assert all(p.grad is None for p in module.parameters())


def test_a_detector_of_a_module_is_that_of_the_function():
    found = Detector(predict(own.module()), CALIBRATION).detect(own.IMAGES)
    expected = Detector(own.labels, CALIBRATION).detect(own.IMAGES)
    for name in ("verdict", "changes", "mutations", "label", "majority"):
        assert (getattr(found, name) == getattr(expected, name)).all()
    assert set(found.adversarial) == {True, False}


@pytest.mark.parametrize("of", [float, list, np.array, torch.tensor])
def test_mean_and_std_are_those_the_module_was_trained_with(of):
    seen = []

    class Seen(torch.nn.Module):
        def forward(self, x):
            seen.append(x)
            return torch.zeros(len(x), 3)

    images = np.random.default_rng(0).random((4, 5, 6, 3), np.float32)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    if of is float:
        mean, std = [0.4] * 3, [0.2] * 3
    given = (0.4, 0.2) if of is float else (of(mean), of(std))
    predict(Seen(), mean=given[0], std=given[1])(images)
    expected = (images - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(seen[0].numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)
    predict(Seen(), scale=255, mean=of(mean) if of is not float else 0.4)(images)
    expected = 255 * images - np.array(mean)
    np.testing.assert_allclose(seen[1].numpy(), expected.transpose(0, 3, 1, 2), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_the_precision_is_that_of_the_weights(dtype):
    module = own.module().to(getattr(torch, dtype))
    assert (predict(module)(own.IMAGES) == own.labels(own.IMAGES)).mean() > 0.7


def test_a_bare_module_is_refused_with_the_remedy(tmp_path, monkeypatch):
    said = r"this is a PyTorch module; give predict\(module, mean=..., std=...\) instead"
    module, images = own.module(), own.IMAGES
    many = np.random.default_rng(0).random((120, *own.SHAPE), np.float32)
    for use in (
        lambda: Detector(module, CALIBRATION),
        lambda: nmutant_cli.kappa(module, images),
        lambda: nmutant_cli.calibrate(module, many, images),
    ):
        with pytest.raises(ModelError, match=said):
            use()
    (tmp_path / "net_in_torch.py").write_text("import own\nnet = own.module()\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=said):
        open_model("net_in_torch:net")


class Gives(torch.nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: (x, x), "the module gave a tuple, not a tensor of scores"),
        (lambda x: {"logits": x}, "the module gave a dict, not a tensor"),
        (lambda x: x.mean((1, 2, 3), keepdim=True)[..., 0, 0], "make a label of a single score"),
        (lambda x: x.mean((2, 3)).repeat(1, 2) * torch.nan, "gave NaN as a score"),
    ],
)
def test_modules_that_give_no_scores(answer, said):
    with pytest.raises(ModelError, match=said):
        predict(Gives(answer))(own.IMAGES)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"std": 0}, ConfigError, "std: 0 is not allowed; give a number above 0, or one for each"),
        ({"mean": [0.1, np.nan]}, ConfigError, "mean: .* is not allowed; give a number, or one"),
        ({"scale": -1}, ConfigError, "scale: -1 is not allowed; give a number above 0$"),
        ({"scale": [1, 2]}, ConfigError, "scale: .* is not allowed"),
        ({"mean": [0.1, 0.2, 0.3]}, DataError, "mean: has 3 values, the images have 1 channels"),
    ],
)
def test_scalings_that_cannot_be(given, error, said):
    with pytest.raises(error, match=said):
        predict(own.module(), **given)(own.IMAGES)


def test_only_a_module_is_taken():
    with pytest.raises(ModelError, match=r"takes a torch.nn.Module, not a function"):
        predict(own.labels)


@pytest.mark.parametrize("fixed", [False, True])
def test_an_exported_program(tmp_path, fixed):
    path = export(own.module().eval(), tmp_path / "net.pt2", fixed=fixed)
    model = open_model(path)
    assert model.shape == own.SHAPE
    assert model.network.sha256 == file_digest(tmp_path / "net.pt2")
    assert model.note == "takes (channels, height, width) = (1, 8, 8)"
    assert model.predict(own.IMAGES) == pytest.approx(own.scores(own.IMAGES), abs=1e-4)
    for n in (1, 3):
        assert model.predict(own.IMAGES[:n]) == pytest.approx(own.scores(own.IMAGES[:n]), abs=1e-4)


def test_an_exported_program_with_scaling(tmp_path):
    path = export(own.module().eval(), tmp_path / "net.pt2")
    scaled = open_model(path, scaling(255, 127.5, 63.75))
    images = own.IMAGES * 0.5
    expected = own.scores((255 * images - 127.5) / 63.75)
    assert scaled.predict(images) == pytest.approx(expected, abs=1e-4)
    assert scaled.network != open_model(path).network
    with pytest.raises(DataError, match="mean: has 3 values, the images have 1 channels"):
        open_model(path, scaling(1, [0.1, 0.2, 0.3]))


@pytest.mark.parametrize("layer", ["Dropout", "Dropout2d", "AlphaDropout", "BatchNorm2d"])
def test_a_program_exported_for_training_is_refused(tmp_path, layer):
    more = getattr(torch.nn, layer)(*([1] if layer == "BatchNorm2d" else []))
    net = torch.nn.Sequential(more, own.module())
    path = export(net.train(), tmp_path / "train.pt2")
    with pytest.raises(ModelError, match=r"train.pt2: was exported for training; call eval\(\)"):
        open_model(path)
    assert open_model(export(net.eval(), tmp_path / "eval.pt2")).shape == own.SHAPE


def test_programs_that_take_no_images(tmp_path):
    path = export(torch.nn.Linear(5, 2), tmp_path / "flat.pt2", (2, 5))
    with pytest.raises(ModelError, match=r"flat.pt2: takes \[.*5\]\], not one batch of images"):
        open_model(path)


def test_what_is_no_program(tmp_path, capfd):
    path = tmp_path / "net.pt2"
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"net.pt2: not a program that torch.export.save wrote"):
        open_model(str(path))
    torch.save(own.module().state_dict(), path)
    with pytest.raises(ModelError, match=r"net.pt2: not a readable program of torch.export.save"):
        open_model(str(path))
    assert capfd.readouterr() == ("", "")


class Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_code_is_unpickled(tmp_path):
    """A program whose example inputs are a pickle that does something."""
    path = export(own.module().eval(), tmp_path / "net.pt2")
    pickle = io.BytesIO()
    torch.save(((Harm(str(tmp_path / "harm")),), {}), pickle)
    bad = tmp_path / "bad.pt2"
    with zipfile.ZipFile(path) as good, zipfile.ZipFile(bad, "w") as out:
        for name in good.namelist():
            harmful = "sample_inputs" in name
            out.writestr(name, pickle.getvalue() if harmful else good.read(name))
    with pytest.raises(ModelError, match="not a readable program"):
        open_model(str(bad))
    assert not (tmp_path / "harm").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
