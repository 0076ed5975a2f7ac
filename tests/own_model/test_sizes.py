"""One network as a function, an ONNX file and in PyTorch, at the sizes and channels of many."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from nmutant_cli import Calibration, Detector, calibrate
from nmutant_cli.own_model.detector import Verdicts
from nmutant_cli.own_model.model import open_model
from nmutant_cli.own_model.scaling import scaling

pytestmark = pytest.mark.slow
SHAPES = [(side, side, channels) for side in (16, 32, 224) for channels in (1, 3)]
FILTERS, CLASSES, CLEAN = 8, 4, 60


class Network:
    """A convolution, ReLU, the mean over the image, a dense layer; and what it is asked about."""

    def __init__(self, shape):
        rng = np.random.default_rng(shape[0] + shape[2])
        self.shape, self.stride, channels = shape, max(1, shape[0] // 16), shape[2]
        self.mean = rng.uniform(0.3, 0.6, channels).astype(np.float32)
        self.std = rng.uniform(0.2, 0.4, channels).astype(np.float32)
        self.kernel = rng.normal(0, 0.5, (FILTERS, channels, 3, 3)).astype(np.float32)
        self.bias = rng.normal(0, 0.3, FILTERS).astype(np.float32)
        self.weights = rng.normal(0, 1, (FILTERS, CLASSES)).astype(np.float32)
        light = rng.random((CLEAN, 1, 1, channels), np.float32)
        self.clean = (0.8 * light + 0.2 * rng.random((CLEAN, *shape), np.float32)).clip(0, 1)
        self.offset = np.zeros(CLASSES, np.float32)
        self.offset = -self.scores(self.clean).mean(axis=0)  # so that each label is somebody's
        # Between two images of different labels, just over the boundary.
        labels = self.labels(self.clean)
        pairs = [(i, np.flatnonzero(labels != labels[i])) for i in range(CLEAN)]
        ends = [(self.clean[i], self.clean[others[0]]) for i, others in pairs if len(others)][:12]
        near, far = (np.stack(side) for side in zip(*ends, strict=True))
        own = self.labels(near)
        for _ in range(8):
            middle = (near + far) / 2
            same = (self.labels(middle) == own)[:, None, None, None]
            near, far = np.where(same, middle, near), np.where(same, far, middle)
        self.adversarial = far

    def labels(self, images):
        return self.scores(images).argmax(axis=1)

    def scores(self, images):
        x = (images - self.mean) / self.std
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        windows = windows[:, :: self.stride, :: self.stride]
        n, rows, columns = windows.shape[:3]
        flat = windows.reshape(n, rows * columns, -1) @ self.kernel.reshape(FILTERS, -1).T
        pooled = np.maximum(flat + self.bias, 0).mean(axis=1)
        return pooled @ self.weights + self.offset

    def module(self):
        import torch
        from torch import nn

        net = nn.Sequential(
            nn.Conv2d(self.shape[2], FILTERS, 3, self.stride),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(FILTERS, CLASSES),
        )
        with torch.no_grad():
            arrays = (self.kernel, self.bias, self.weights.T.copy(), self.offset)
            for parameter, array in zip(net.parameters(), arrays, strict=True):
                parameter.copy_(torch.tensor(array))
        return net.eval()

    def save_onnx(self, path: Path) -> None:
        from onnx import TensorProto, helper, numpy_helper, save

        node, tensor = helper.make_node, helper.make_tensor_value_info
        rows, columns, channels = self.shape
        nodes = [
            node("Conv", ["x", "kernel", "bias"], ["hidden"], strides=[self.stride] * 2),
            node("Relu", ["hidden"], ["positive"]),
            node("GlobalAveragePool", ["positive"], ["pooled"]),
            node("Flatten", ["pooled"], ["flat"]),
            node("Gemm", ["flat", "weights", "offset"], ["scores"]),
        ]
        arrays = {name: vars(self)[name] for name in ("kernel", "bias", "weights", "offset")}
        graph = helper.make_graph(
            nodes,
            "net",
            [tensor("x", TensorProto.FLOAT, ["n", channels, rows, columns])],
            [tensor("scores", TensorProto.FLOAT, ["n", CLASSES])],
            [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        )
        opset = [helper.make_opsetid("", 17)]
        save(helper.make_model(graph, opset_imports=opset, ir_version=10), str(path))


@cache
def network(shape) -> Network:
    return Network(shape)


def outcome(predict, net: Network) -> tuple[Calibration, Verdicts]:
    made = calibrate(
        predict, net.clean, net.adversarial, target=0.2, step_sizes=(4.0,), mutations=30
    )
    looked_at = np.concatenate([net.clean[:12], net.adversarial])
    return made, Detector(predict, made).detect(looked_at)


@cache
def expected(shape) -> tuple[Calibration, Verdicts]:
    net = network(shape)
    return outcome(net.labels, net)


def predict_of(form: str, net: Network, folder: Path):
    given = {"mean": net.mean, "std": net.std}
    if form == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
        net.save_onnx(folder / "net.onnx")
        return open_model(str(folder / "net.onnx"), scaling(**given)).predict
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    if form == "pt2":
        sizes = ({0: torch.export.Dim("n")},)
        example = torch.zeros(2, net.shape[2], *net.shape[:2])
        program = torch.export.export(net.module(), (example,), dynamic_shapes=sizes)
        torch.export.save(program, folder / "net.pt2")
        return open_model(str(folder / "net.pt2"), scaling(**given)).predict
    from nmutant_cli.torch import predict

    return predict(net.module(), **given)


@pytest.mark.parametrize("form", ["onnx", "module", "pt2"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_same_verdicts_in_every_form(shape, form, tmp_path):
    net = network(shape)
    made, found = outcome(predict_of(form, net, tmp_path), net)
    calibration, verdicts = expected(shape)
    assert made == calibration
    for field in fields(Verdicts):
        name = field.name
        assert (getattr(found, name) == getattr(verdicts, name)).all(), name
    assert set(verdicts.adversarial) == {True, False}
