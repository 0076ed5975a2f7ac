"""Projected gradient descent (Madry et al. 2018, arXiv 1706.06083).

CleverHans's own steps (`fast_gradient_method`, `clip_eta`) from a start of our own: CleverHans
draws the start for a whole batch from TensorFlow's global seed, so an image's start would depend
on the batch it is in. Here each image has its own generator. Without a random start the result
is that of CleverHans's `projected_gradient_descent`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method
from cleverhans.tf2.utils import clip_eta

from nmutant_cli.attacks.batches import BATCH_SIZE, PredictLogits, in_batches
from nmutant_cli.attacks.fgsm import NORMS
from nmutant_cli.config.attacks import PGDParams
from nmutant_cli.errors import AttackError
from nmutant_cli.types import AnyArray, Bounds, Images, Labels


def run(
    predict_logits: PredictLogits,
    x: Images,
    y: Labels,
    params: PGDParams,
    bounds: Bounds,
    rng: Sequence[np.random.Generator],
    *,
    batch_size: int = BATCH_SIZE,
) -> Images:
    """``nb_iter`` FGSM steps of length ``eps_iter`` inside the ``eps`` ball around ``x``.

    ``rng`` holds one generator per image, for its start (``rand_init``): uniform in the ball.
    Away from ``y``, or towards it if ``params.targets`` is not ``"untargeted"``. Returns images
    of the shape of ``x``, inside ``bounds``.

    Raises AttackError if ``eps_iter`` is above ``eps``.
    """
    if params.eps_iter > params.eps:
        raise AttackError(f"pgd: eps_iter ({params.eps_iter:g}) is above eps ({params.eps:g})")
    norm = NORMS[params.norm]
    start = np.zeros_like(x)
    if params.rand_init:
        start = np.stack(
            [_in_ball(generator, x.shape[1:], params.norm, params.eps) for generator in rng]
        )

    def project(eta: Any, images: Any) -> Any:
        inside = images + clip_eta(eta, norm, params.eps)
        return tf.clip_by_value(inside, bounds.lower, bounds.upper)

    def descend(images: Any, labels: Any, eta: Any) -> Any:
        x_adv = project(eta, images)
        for _ in range(params.nb_iter):
            x_adv = fast_gradient_method(
                predict_logits,
                x_adv,
                params.eps_iter,
                norm,
                clip_min=bounds.lower,
                clip_max=bounds.upper,
                y=labels,
                targeted=params.targets != "untargeted",
            )
            x_adv = project(x_adv - images, images)
        return x_adv

    return in_batches(
        descend, predict_logits, x, y, start, batch_size=batch_size, times=params.nb_iter
    )


def _in_ball(rng: np.random.Generator, shape: tuple[int, ...], norm: str, eps: float) -> AnyArray:
    """A point uniform in the ball of radius ``eps``."""
    if norm == "inf":
        return rng.uniform(-eps, eps, shape).astype(np.float32)
    # A random direction, and a radius by the inverse of its distribution r ** dimensions.
    direction = rng.standard_normal(shape)
    radius = eps * rng.random() ** (1 / direction.size)
    return (radius * direction / np.linalg.norm(direction)).astype(np.float32)
