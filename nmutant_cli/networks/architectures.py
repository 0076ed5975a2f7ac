"""The networks, as plain functions ``(input_shape, n_classes, dropout) -> keras.Model`` of logits.

Adding one: write a function, add it to `NETWORKS`, add a row to the test of networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import layers

from nmutant_cli.types import AnyArray

Architecture = Callable[[tuple[int, ...], int, Sequence[float] | None], keras.Model]


def mnist(shape: tuple[int, ...], n_classes: int, dropout: Sequence[float] | None) -> keras.Model:
    """CleverHans 2's tutorial network, the paper's for MNIST
    (docs/protocol.md, MNIST: network)."""
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(64, 8, strides=2, padding="same", activation="relu"),
            layers.Conv2D(128, 6, strides=2, padding="valid", activation="relu"),
            layers.Conv2D(128, 5, strides=1, padding="valid", activation="relu"),
            layers.Flatten(),
            layers.Dense(n_classes),
        ],
        name="mnist",
    )


def cifar10_basic(
    shape: tuple[int, ...], n_classes: int, dropout: Sequence[float] | None
) -> keras.Model:
    """The earlier public CIFAR10 network: two convolutions and a dense layer.

    docs/protocol.md, CIFAR10: network; the default drop rate of 0.4 is ours.
    """
    (rate,) = dropout if dropout is not None else (0.4,)
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(32, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(1024, activation="relu"),
            layers.Dropout(rate),
            layers.Dense(n_classes),
        ],
        name="cifar10_basic",
    )


def cifar10_allconv(
    shape: tuple[int, ...], n_classes: int, dropout: Sequence[float] | None
) -> keras.Model:
    """The all-convolutional CIFAR10 network (Springenberg et al. 2015), the last public one.

    ``dropout`` are the three drop rates; the public version KEEPS 0.2, 0.5 and 0.5
    (docs/protocol.md, CIFAR10: dropout).
    """
    first, second, third = dropout if dropout is not None else (0.8, 0.5, 0.5)

    def conv(filters: int, size: int, strides: int = 1) -> layers.Layer:
        return layers.Conv2D(filters, size, strides=strides, padding="same", activation="relu")

    return keras.Sequential(
        [
            keras.Input(shape),
            conv(96, 3),
            layers.Dropout(first),
            conv(96, 3),
            conv(96, 3, strides=2),
            layers.Dropout(second),
            conv(192, 3),
            conv(192, 3),
            conv(192, 3, strides=2),
            layers.Dropout(third),
            conv(192, 3),
            conv(192, 1),
            conv(n_classes, 1),
            layers.GlobalAveragePooling2D(),
        ],
        name="cifar10_allconv",
    )


def cifar10_resnet(
    shape: tuple[int, ...], n_classes: int, dropout: Sequence[float] | None
) -> keras.Model:
    """A small residual network (He et al. 2016), not one of the paper's.

    Three stages of a convolution, pooling and a residual pair, as in Page's ResNet-9 (2018) at half
    its width. Pooling comes before normalization, and the first convolution has none: that is what
    a processor takes longest for.
    """

    def normalized(x: AnyArray) -> AnyArray:
        return layers.ReLU()(layers.BatchNormalization()(x))

    def conv(x: AnyArray, filters: int) -> AnyArray:
        return layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)

    images = keras.Input(shape)
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(images)
    for filters in (64, 128, 256):
        x = normalized(layers.MaxPooling2D(2)(conv(x, filters)))
        pair = normalized(conv(normalized(conv(x, filters)), filters))
        x = layers.Add()([x, pair])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(n_classes)(x), name="cifar10_resnet")


def substitute(
    shape: tuple[int, ...], n_classes: int, dropout: Sequence[float] | None
) -> keras.Model:
    """CleverHans's black-box substitute: two dense layers of 200
    (docs/protocol.md, MNIST: black box)."""
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Flatten(),
            layers.Dense(200, activation="relu"),
            layers.Dense(200, activation="relu"),
            layers.Dense(n_classes),
        ],
        name="substitute",
    )


NETWORKS: dict[str, Architecture] = {
    "mnist": mnist,
    "cifar10_basic": cifar10_basic,
    "cifar10_allconv": cifar10_allconv,
    "cifar10_resnet": cifar10_resnet,
    "substitute": substitute,
}


def initialize(model: keras.Model, rng: np.random.Generator, how: str) -> None:
    """Set every weight from ``rng``, in place.

    ``paper``: kernels from N(0, 1), each output filter (column) scaled to unit L2 norm.
    ``keras``: Glorot uniform, Keras's default, drawn here so that every backend starts alike.
    Biases are zero, and the factors of a batch normalization one. Weights are set rather than named
    by an initializer class of ours, so that the saved file opens with plain Keras.
    """
    for variable in model.trainable_variables:
        shape = tuple(variable.shape)
        if len(shape) == 1:
            value = np.full(shape, variable.name == "gamma", float)
        elif how == "paper":
            value = rng.standard_normal(shape)
            value /= np.sqrt(np.square(value).sum(axis=tuple(range(len(shape) - 1))))
        else:
            receptive = int(np.prod(shape[:-2]))
            limit = np.sqrt(6 / (receptive * (shape[-2] + shape[-1])))
            value = rng.uniform(-limit, limit, shape)
        variable.assign(value.astype(np.float32))
