"""The same network with gradients that take less time.

TensorFlow's gradient of a convolution by its input is slow on the CPU where the stride is above 1
and the channels are few, and where the kernel has only one place on its input: the first and the
last convolution of the MNIST network. That of the first takes longer than the whole forward pass.
Where there is one place, the gradient by the weights is slow, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
from keras import ops

from nmutant_cli.networks import backend
from nmutant_cli.networks.inference import padded_batches
from nmutant_cli.types import AnyArray, Images

FEW = 4
"""Channels of an input that are few."""
AT_ONCE = 25
"""Images whose gradients are computed together."""

_made: WeakKeyDictionary[keras.Model, keras.Model] = WeakKeyDictionary()


def quick(network: Any) -> Any:
    """``network`` with such layers replaced, which share its weights; as it is where none is slow.

    The logits are the same to the bit, the gradient by the images up to rounding; for gradients by
    the weights it is of no use. One network always gives the same object, so that its graphs are
    kept.
    """
    if network not in _made:
        made = _replaced(network, _slow, Convolution)
        if made is network:
            return network
        _made[network] = made
    return _made[network]


def to_train(network: keras.Model) -> keras.Model:
    """``network``, or one that shares its weights and takes less time to train."""
    found: keras.Model = _replaced(network, _one_place, Matrix)
    return found


def _replaced(network: Any, which: Callable[[Any], bool], by: Callable[[Any], Any]) -> Any:
    """``network`` with layers replaced, as it is where there are none to replace."""
    known = isinstance(network, keras.Sequential) or hasattr(network, "operations")  # a graph
    if backend.name() != "tensorflow" or not known or not any(map(which, network.layers)):
        return network
    return keras.models.clone_model(
        network, clone_function=lambda layer: by(layer) if which(layer) else layer
    )


def by_pixel(network: Any, images: Images) -> tuple[AnyArray, AnyArray]:
    """Logits ``(n, classes)`` and the gradient of each by ``images``: ``(n, classes, h, w, c)``."""
    found = [
        [np.asarray(out)[:used] for out in _by_pixel(quick(network), batch)]
        for batch, used in padded_batches(images, AT_ONCE)
    ]
    logits, slopes = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return logits, slopes


@backend.compiled
def _by_pixel(network: Any, x: Any) -> tuple[Any, Any]:
    def each(x: Any) -> tuple[Any, Any]:
        return tuple(ops.unstack(network(x), axis=1)), ()

    slopes, logits, _ = backend.gradients(each, x)
    return ops.stack(logits, axis=1), ops.stack(slopes, axis=1)


def _slow(layer: Any) -> bool:
    """Whether `Convolution` can take the place of ``layer``, and is worth it."""
    if not _plain(layer):
        return False
    *_, rows, columns, channels = layer.input.shape
    few = layer.strides[0] > 1 and channels <= FEW and None not in (rows, columns)
    return few or _one_place(layer)


def _one_place(layer: Any) -> bool:
    """Whether ``layer`` is a convolution whose kernel has one place on its input."""
    if not _plain(layer) or layer.padding != "valid":
        return False
    return bool(layer.kernel_size == tuple(layer.input.shape[1:3]))


def _plain(layer: Any) -> bool:
    """Whether ``layer`` is a convolution that other layers here can stand for."""
    return (
        type(layer) is keras.layers.Conv2D
        and layer.built
        and layer.strides[0] == layer.strides[1]
        and layer.dilation_rate == (1, 1)
        and layer.groups == 1
        and layer.data_format == "channels_last"
        and layer.dtype_policy.name == "float32"
    )


class InPlace(keras.layers.Layer):
    """What stands in the place of ``layer``, with its weights."""

    def __init__(self, layer: keras.layers.Conv2D) -> None:
        super().__init__(name=layer.name)
        self.layer = layer

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)


class Convolution(InPlace):
    """A `keras.layers.Conv2D` with another gradient by its input, `slope_by_input`."""

    def call(self, inputs: Any) -> Any:
        layer = self.layer
        kernel = ops.stop_gradient(layer.kernel)
        stride, padding, size = layer.strides[0], layer.padding, inputs.shape[1:3]

        @ops.custom_gradient
        def convolved(inputs: Any) -> tuple[Any, Any]:
            out = ops.conv(inputs, kernel, stride, padding, "channels_last")

            def gradient(*args: Any, upstream: Any = None) -> Any:
                (slope,) = args if upstream is None else (upstream,)
                return slope_by_input(slope, kernel, stride, padding, size)

            return out, gradient

        out = convolved(inputs)
        if layer.use_bias:
            out = ops.add(out, ops.reshape(layer.bias, (1, 1, 1, -1)))
        return layer.activation(out)


class Matrix(InPlace):
    """A `keras.layers.Conv2D` whose kernel has one place, as a product of matrices."""

    def call(self, inputs: Any) -> Any:
        layer = self.layer
        by_value = ops.reshape(layer.kernel, (-1, layer.filters))
        out = ops.reshape(inputs, (-1, by_value.shape[0])) @ by_value
        if layer.use_bias:
            out = ops.add(out, layer.bias)
        return layer.activation(ops.reshape(out, (-1, 1, 1, layer.filters)))


def slope_by_input(slope: Any, kernel: Any, stride: int, padding: str, size: Any) -> Any:
    """The gradient by an input of ``size`` (rows, columns), from that by a convolution's output.

    ``slope``: ``(n, rows, columns, filters)``. ``kernel``: ``(height, width, channels, filters)``.

    For an input value it is a sum over the kernels that reach it, and which these are goes by its
    place within a stride. So all places of a stride are output channels of one convolution of
    stride 1, then moved to where they belong (sub-pixel convolution, Shi et al. 2016,
    arXiv 1609.05158). A kernel that has one place only is a matrix.
    """
    height, width, channels, filters = kernel.shape
    if (height, width) == tuple(size) and padding == "valid":
        by_value = ops.transpose(ops.reshape(kernel, (-1, filters)))
        return ops.reshape(ops.reshape(slope, (-1, filters)) @ by_value, (-1, *kernel.shape[:3]))
    down, across = -(-height // stride), -(-width // stride)
    whole = [[0, down * stride - height], [0, across * stride - width], [0, 0], [0, 0]]
    by_place = ops.reshape(
        ops.pad(kernel, whole), (down, stride, across, stride, channels, filters)
    )
    by_place = ops.transpose(ops.flip(by_place, (0, 2)), (0, 2, 5, 1, 3, 4))
    by_place = ops.reshape(by_place, (down, across, filters, stride * stride * channels))
    round_about = [[0, 0], [down - 1] * 2, [across - 1] * 2, [0, 0]]
    placed = ops.conv(ops.pad(slope, round_about), by_place, 1, "valid", "channels_last")
    rows, columns = placed.shape[1:3]
    placed = ops.reshape(placed, (-1, rows, columns, stride, stride, channels))
    placed = ops.transpose(placed, (0, 1, 3, 2, 4, 5))
    placed = ops.reshape(placed, (-1, rows * stride, columns * stride, channels))
    # What the input was padded with is cut off; what no kernel reached is 0.
    crop, room = [], []
    for side, kernel_side, had, out in zip(
        size, (height, width), placed.shape[1:3], slope.shape[1:3], strict=True
    ):
        added = max((out - 1) * stride + kernel_side - side, 0) // 2 if padding == "same" else 0
        crop.append(slice(added, added + side))
        room.append([0, max(added + side - had, 0)])
    return ops.pad(placed[:, crop[0], crop[1]], [[0, 0], *room, [0, 0]])
