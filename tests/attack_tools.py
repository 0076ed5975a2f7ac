"""A small network with fixed random weights, and images for it. No training."""

from __future__ import annotations

from functools import cache

import keras
import numpy as np
from keras import layers

from nmutant_cli.networks.architectures import initialize
from nmutant_cli.seeding import stream
from nmutant_cli.types import Bounds

BOUNDS = Bounds(0.0, 1.0)
CLASSES = 5


@cache
def network(channels: int = 1) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((8, 8, channels)),
            layers.Conv2D(6, 3, strides=2, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(CLASSES),
        ]
    )
    initialize(model, stream(3, "tests", channels), "paper")
    return model


def images(n: int, channels: int = 1) -> np.ndarray:
    return stream(4, "images", channels).random((n, 8, 8, channels), dtype=np.float32)


def logits(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict_on_batch(x))


def labels(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return logits(model, x).argmax(axis=1).astype(np.int64)


def targets(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """A class other than the current label for each image, all classes in turn."""
    return (labels(model, x) + 1 + np.arange(len(x)) % (CLASSES - 1)) % CLASSES


def generators(n: int, first: int = 0) -> list[np.random.Generator]:
    return [stream(5, "attack", i) for i in range(first, first + n)]
