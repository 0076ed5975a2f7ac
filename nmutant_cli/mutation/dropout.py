"""A network asked with its dropout on, its masks keyed so that a label hangs on nothing else.

Keras 3 only: TensorFlow, JAX and PyTorch draw the same masks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from nmutant_cli.errors import ModelError
from nmutant_cli.networks import backend
from nmutant_cli.networks.inference import padded_batches
from nmutant_cli.types import AnyArray, Images, Labels


class KeyedDropout(keras.layers.Layer):
    """Dropout whose mask is a hash of ``(key of the row, position)``.

    Left on at inference, an ordinary dropout layer makes a label depend on what else was in the
    batch and on what was asked before; here it depends on the row's key alone.
    """

    def __init__(self, rate: float, salt: int, dtype: Any = None) -> None:
        super().__init__(dtype=dtype)
        self._rate, self._salt = rate, salt
        self._drop = backend.fused(self._dropped)

    def call(self, inputs: list[Any]) -> Any:
        return self._drop(*inputs)

    def _dropped(self, values: Any, key: Any) -> Any:
        size = int(np.prod(values.shape[1:]))
        key = mix(ops.bitwise_xor(key, self._salt))
        position = mix(ops.arange(size, dtype="int32"))
        bits = mix(ops.bitwise_xor(key[:, None], position[None, :]))
        keep = ops.cast(ops.cast(bits, "float32") * 2.0**-31 >= self._rate, values.dtype)
        return values * ops.reshape(keep, (-1, *values.shape[1:])) / (1 - self._rate)

    def compute_output_shape(self, input_shape: list[Any]) -> Any:
        return input_shape[0]


def mix(x: Any) -> Any:
    """MurmurHash3's finaliser on 31 bits, in int32 (which wraps on every backend)."""
    mask = 0x7FFFFFFF
    for shift, factor in ((16, 0x45D9F3B), (15, 0x2C1B3C6D), (16, 1)):
        x = ops.bitwise_and(x, mask)
        x = ops.bitwise_xor(x, ops.right_shift(x, shift)) * factor
    return ops.bitwise_and(x, mask)


def dropout_on(model: keras.Model) -> keras.Model:
    """The network with its dropout on: ``[images, key (n,) int32]`` to logits.

    The masks of a row depend on its key alone. The weights are those of ``model``. Raises
    ModelError if that is no keras.Sequential or has no dropout.
    """
    images, key = keras.Input(model.input_shape[1:]), keras.Input((), dtype="int32")
    logits = with_dropout(model, images, key)
    if not any(isinstance(layer, keras.layers.Dropout) and layer.rate for layer in model.layers):
        raise ModelError(f"network {model.name!r} has no dropout that could be left on")
    return keras.Model([images, key], logits)


def stochastic_labels(
    model: keras.Model, batch_size: int = 1000
) -> Callable[[Images, AnyArray], Labels]:
    """``(images, keys) -> labels``: one pass each, dropout on, its masks as the row's key has it.

    ``keys``: ``(n,)`` int32, from 0. The counterpart of `inference.predict_labels`; raises
    ModelError as `dropout_on` does.
    """
    graph = dropout_on(model)
    graph.compile(jit_compile=backend.jit())

    def labels(images: Images, keys: AnyArray) -> Labels:
        out = [np.zeros(0, np.int64)]
        batches = padded_batches(images, batch_size), padded_batches(keys, batch_size)
        for (part, used), (key, _) in zip(*batches, strict=True):
            logits = np.asarray(graph.predict_on_batch([part, key]))
            out.append(logits[:used].argmax(axis=1))
        return np.concatenate(out)

    return labels


def with_dropout(model: keras.Model, x: Any, key: Any) -> Any:
    """The logits of ``x``, masks by ``key``. Raises ModelError if ``model`` is not Sequential."""
    if not isinstance(model, keras.Sequential):
        raise ModelError(
            "dropout is left on (model.stochastic_inference, samples.stochastic, "
            "attack.stochastic) in keras.Sequential networks only"
        )
    for salt, layer in enumerate(model.layers):
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if isinstance(layer, keras.layers.Dropout):
            x = KeyedDropout(layer.rate, salt, layer.dtype_policy)([x, key])
        else:
            x = layer(x)
    return x
