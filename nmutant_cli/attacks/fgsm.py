"""The fast gradient sign method (Goodfellow et al. 2015, arXiv 1412.6572), CleverHans's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method

from nmutant_cli.attacks.batches import BATCH_SIZE, PredictLogits, in_batches
from nmutant_cli.config.attacks import FGSMParams
from nmutant_cli.types import Bounds, Images, Labels

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
    return in_batches(
        lambda images, labels: fast_gradient_method(
            predict_logits,
            images,
            params.eps,
            NORMS[params.norm],
            clip_min=bounds.lower,
            clip_max=bounds.upper,
            y=labels,
            targeted=params.targets != "untargeted",
        ),
        predict_logits,
        x,
        y,
        batch_size=batch_size,
    )
