"""The fast gradient sign method (Goodfellow et al. 2015, arXiv 1412.6572).

CleverHans's own on TensorFlow. Its form for JAX cannot be imported any more; on JAX and PyTorch the
gradient is Keras's, and the step is taken in NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from nmutant_cli.attacks.batches import BATCH_SIZE, PredictLogits, in_batches
from nmutant_cli.config.attacks import FGSMParams
from nmutant_cli.networks import backend
from nmutant_cli.types import AnyArray, Bounds, Images, Labels

NORMS = {"inf": np.inf, "1": 1, "2": 2}


def run(
    predict_logits: PredictLogits,
    x: Images,
    y: Labels,
    params: FGSMParams,
    bounds: Bounds,
    rng: Sequence[np.random.Generator] = (),
    *,
    batch_size: int = BATCH_SIZE,
) -> Images:
    """One step of length ``eps`` along the gradient of the cross-entropy.

    Away from ``y``, or towards it if ``params.targets`` is not ``"untargeted"``. An image whose
    softmax is saturated has a gradient of exactly zero and comes back unchanged. ``rng`` is not
    used. Returns images of the shape of ``x``, inside ``bounds``.
    """
    step = _cleverhans if backend.name() == "tensorflow" else _step
    return in_batches(
        lambda images, labels: step(predict_logits, images, labels, params, bounds),
        predict_logits,
        x,
        y,
        batch_size=batch_size,
    )


def _cleverhans(
    predict_logits: PredictLogits, x: Any, y: Any, params: FGSMParams, bounds: Bounds
) -> Any:
    from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method

    return fast_gradient_method(
        predict_logits,
        x,
        params.eps,
        NORMS[params.norm],
        clip_min=bounds.lower,
        clip_max=bounds.upper,
        y=y,
        targeted=params.targets != "untargeted",
    )


def _step(
    predict_logits: PredictLogits, x: Any, y: Any, params: FGSMParams, bounds: Bounds
) -> AnyArray:
    slope = np.asarray(_slope(predict_logits, x, y))
    if params.targets != "untargeted":
        slope = -slope
    direction, axes = np.sign(slope), (1, 2, 3)
    if params.norm == "1":
        size = np.abs(slope)
        largest = size == size.max(axes, keepdims=True)
        direction = direction * largest / largest.sum(axes, keepdims=True)
    elif params.norm == "2":
        direction = slope / np.sqrt(np.maximum((slope**2).sum(axes, keepdims=True), 1e-12))
    before = np.asarray(keras.ops.convert_to_numpy(x))
    return (before + np.float32(params.eps) * direction).clip(*bounds).astype(np.float32)


@backend.compiled
def _slope(predict_logits: PredictLogits, x: Any, y: Any) -> Any:
    """The gradient of each image's cross-entropy."""

    def loss(x: Any) -> Any:
        logits = predict_logits(x)
        entropy = keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)
        return (entropy,), ()

    return backend.gradients(loss, x)[0][0]
