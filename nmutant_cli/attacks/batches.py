"""Batches of one shape, and a network's logits.

TensorFlow traces a graph again for every new shape, and the last bits of its results depend on
the shape. So every attack calls the network with exactly ``batch_size`` rows, always, and drops
what it does not need; an image's result then does not depend on how large its set is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from nmutant_cli.networks import backend
from nmutant_cli.types import AnyArray, Images

PredictLogits = Callable[[Any], Any]
"""Differentiable: tensor ``(batch, height, width, channels)`` to logits ``(batch, classes)``.

Graphs are cached by the identity of this object: pass one that stays the same, for example the
``keras.Model`` itself, not a new lambda for each call.
"""

BATCH_SIZE = 40
"""On a CPU an image's logits can depend on its place in the batch, by the last bits: in batches of
20, 32, 50 and 128 here, not of 16, 40, 64 and 100 (the all-convolutional network excepted)."""


def refusals() -> tuple[type[Exception], ...]:
    """What networks raise for images of a shape they do not take."""
    if backend.name() != "tensorflow":
        return ValueError, TypeError, RuntimeError
    import tensorflow as tf

    return ValueError, TypeError, tf.errors.InvalidArgumentError


def padded(array: AnyArray, size: int) -> AnyArray:
    """``array`` filled up to ``size`` rows with copies of its last row."""
    missing = size - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


def about(
    predict_logits: PredictLogits, images: AnyArray, batch_size: int, times: AnyArray | int = 1
) -> None:
    """Say which images the next ``batch_size`` rows are, to a network that has to know.

    ``images``: their numbers; the rest fills up the batch. See `Stochastic.about`.
    """
    if backend.name() != "tensorflow":
        return  # no such network there
    from nmutant_cli.attacks.stochastic import Stochastic

    if isinstance(predict_logits, Stochastic):
        filled = np.pad(images, (0, batch_size - len(images)), constant_values=-1)
        predict_logits.about(filled, times)


def in_batches(
    fn: Callable[..., Any],
    predict_logits: PredictLogits,
    *arrays: AnyArray,
    batch_size: int,
    times: int = 1,
) -> AnyArray:
    """``fn`` over the rows of ``arrays``, exactly ``batch_size`` at a time; results joined.

    ``fn`` asks ``predict_logits`` ``times`` times about each batch.
    """
    n, parts = len(arrays[0]), []
    for start in range(0, n, batch_size):
        about(predict_logits, np.arange(start, min(start + batch_size, n)), batch_size, times)
        rows = [array[start : start + batch_size] for array in arrays]
        result = fn(*(ops.convert_to_tensor(padded(row, batch_size)) for row in rows))
        parts.append(np.asarray(result)[: len(rows[0])])
    return np.concatenate(parts)


@backend.compiled
def _forward(predict_logits: PredictLogits, x: Any) -> Any:
    return predict_logits(x)


def logits_of(
    predict_logits: PredictLogits, x: Images, *, batch_size: int = BATCH_SIZE
) -> AnyArray:
    """Logits of ``x``, shape ``(n, classes)``."""
    return in_batches(
        lambda part: _forward(predict_logits, part), predict_logits, x, batch_size=batch_size
    )


def logits_at(logits: Any, y: Any) -> Any:
    """The logit of each row's class ``y``: of shapes ``(n, classes)`` and ``(n,)`` to ``(n,)``."""
    return ops.sum(ops.where(ops.one_hot(y, logits.shape[1], dtype="bool"), logits, 0.0), 1)
