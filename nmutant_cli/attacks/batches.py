"""Batches of one shape, and a network's logits.

TensorFlow traces a graph again for every new shape, and the last bits of its results depend on
the shape. So every attack calls the network with exactly ``batch_size`` rows, always, and drops
what it does not need; an image's result then does not depend on how large its set is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from nmutant_cli.types import AnyArray, Images

PredictLogits = Callable[[Any], Any]
"""Differentiable: tensor ``(batch, height, width, channels)`` to logits ``(batch, classes)``.

Graphs are cached by the identity of this object: pass one that stays the same, for example the
``keras.Model`` itself, not a new lambda for each call.
"""

BATCH_SIZE = 40
"""On a CPU an image's logits can depend on its place in the batch, by the last bits: in batches of
20, 32, 50 and 128 here, not of 16, 40, 64 and 100 (the all-convolutional network excepted)."""

REFUSALS = (ValueError, TypeError, tf.errors.InvalidArgumentError)
"""What networks raise for images of a shape they do not take."""


def padded(array: AnyArray, size: int) -> AnyArray:
    """``array`` filled up to ``size`` rows with copies of its last row."""
    missing = size - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


def in_batches(fn: Callable[..., Any], *arrays: AnyArray, batch_size: int) -> AnyArray:
    """``fn`` over the rows of ``arrays``, exactly ``batch_size`` at a time; results joined."""
    parts = []
    for start in range(0, len(arrays[0]), batch_size):
        rows = [array[start : start + batch_size] for array in arrays]
        result = fn(*(tf.constant(padded(row, batch_size)) for row in rows))
        parts.append(np.asarray(result)[: len(rows[0])])
    return np.concatenate(parts)


@tf.function
def _forward(predict_logits: PredictLogits, x: Any) -> Any:
    return predict_logits(x)


def logits_of(
    predict_logits: PredictLogits, x: Images, *, batch_size: int = BATCH_SIZE
) -> AnyArray:
    """Logits of ``x``, shape ``(n, classes)``."""
    return in_batches(lambda part: _forward(predict_logits, part), x, batch_size=batch_size)
