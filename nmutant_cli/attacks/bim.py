"""The basic iterative method (Kurakin et al. 2017, arXiv 1607.02533), CleverHans's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cleverhans.tf2.attacks.basic_iterative_method import basic_iterative_method

from nmutant_cli.attacks.batches import BATCH_SIZE, PredictLogits, in_batches
from nmutant_cli.attacks.fgsm import NORMS
from nmutant_cli.config.attacks import BIMParams
from nmutant_cli.errors import AttackError
from nmutant_cli.types import Bounds, Images, Labels


def run(
    predict_logits: PredictLogits,
    x: Images,
    y: Labels,
    params: BIMParams,
    bounds: Bounds,
    rng: Sequence[np.random.Generator] = (),
    *,
    batch_size: int = BATCH_SIZE,
) -> Images:
    """``nb_iter`` FGSM steps of length ``eps_iter``, each cut back to the ``eps`` ball around x.

    Away from ``y``, or towards it if ``params.targets`` is not ``"untargeted"``. ``rng`` is not
    used. Returns images of the shape of ``x``, inside ``bounds``.

    Raises AttackError if ``eps_iter`` is above ``eps``.
    """
    if params.eps_iter > params.eps:
        raise AttackError(f"bim: eps_iter ({params.eps_iter:g}) is above eps ({params.eps:g})")
    return in_batches(
        lambda images, labels: basic_iterative_method(
            predict_logits,
            images,
            params.eps,
            params.eps_iter,
            params.nb_iter,
            NORMS[params.norm],
            clip_min=bounds.lower,
            clip_max=bounds.upper,
            y=labels,
            targeted=params.targets != "untargeted",
            sanity_checks=False,  # they raise a ValueError with NumPy 2
        ),
        predict_logits,
        x,
        y,
        batch_size=batch_size,
        times=params.nb_iter,
    )
