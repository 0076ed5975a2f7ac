"""A user's own model for the tests: one network as Keras, ONNX and a function, with its images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import keras

SHAPE = (8, 8, 1)
CLASSES = 3
rng = np.random.default_rng(4)
KERNEL = rng.normal(0, 0.5, (3, 3, 1, 4)).astype(np.float32)
BIAS = rng.normal(0, 0.1, 4).astype(np.float32)
WEIGHTS = rng.normal(0, 0.3, (6 * 6 * 4, CLASSES)).astype(np.float32)
OFFSET = rng.normal(0, 0.1, CLASSES).astype(np.float32)
ONNX_WEIGHTS = ("kernel", "bias", "weights", "offset")
IMAGES8 = rng.integers(0, 256, (12, *SHAPE), dtype=np.uint8)
IMAGES = IMAGES8.astype(np.float32) / np.float32(255)


def scores(images):
    """The network in NumPy: a convolution, ReLU, a dense layer."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))
    hidden = np.einsum("nhwcij,ijco->nhwo", windows, KERNEL) + BIAS
    return np.maximum(hidden, 0).reshape(len(images), -1) @ WEIGHTS + OFFSET


def labels(images):
    return scores(images).argmax(axis=1)


def network() -> keras.Model:
    import keras

    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES),
        ]
    )
    model.set_weights([KERNEL, BIAS, WEIGHTS, OFFSET])
    return model


def module():
    """The network in PyTorch, with dropout that is to be off."""
    import torch
    from torch import nn

    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten())
    net.append(nn.Linear(6 * 6 * 4, CLASSES))
    first = WEIGHTS.reshape(6, 6, 4, CLASSES).transpose(2, 0, 1, 3).reshape(-1, CLASSES)
    arrays = (KERNEL.transpose(3, 2, 0, 1), BIAS, first.T, OFFSET)
    with torch.no_grad():
        for parameter, array in zip(net.parameters(), arrays, strict=True):
            parameter.copy_(torch.tensor(array.copy()))
    return net


def save_onnx(path: Path, channels_first: bool = True, batch: str | int = "n") -> None:
    """The network as an ONNX file."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    node = helper.make_node
    x = "x" if channels_first else "first"
    nodes = [
        node("Conv", [x, "kernel", "bias"], ["hidden"]),
        node("Relu", ["hidden"], ["positive"]),
        node("Transpose", ["positive"], ["last"], perm=[0, 2, 3, 1]),
        node("Flatten", ["last"], ["flat"]),
        node("Gemm", ["flat", "weights", "offset"], ["scores"]),
    ]
    shape = [batch, 1, 8, 8]
    if not channels_first:
        nodes.insert(0, node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2]))
        shape = [batch, 8, 8, 1]
    values = (KERNEL.transpose(3, 2, 0, 1), BIAS, WEIGHTS, OFFSET)
    arrays = dict(zip(ONNX_WEIGHTS, values, strict=True))
    graph = helper.make_graph(
        nodes,
        "own",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    checker.check_model(model)
    save(model, str(path))


def save_pngs(folder: Path) -> None:
    folder.mkdir()
    for i, image in enumerate(IMAGES8):
        Image.fromarray(image[..., 0]).save(folder / f"{i:02}.png")
