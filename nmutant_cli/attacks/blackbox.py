"""The black-box attack of Papernot et al. (2017, arXiv 1602.02697), by a substitute network.

The schedule is that of CleverHans's tutorial ``mnist_blackbox.py`` and its
``jacobian_augmentation``: train the substitute, then double its data by a step of ``lambda``
along the sign of the gradient of the logit of each image's label, and label the new half by the
oracle. The step is negative after the first three rounds of training and positive from then on.
Different from the tutorial: the hold-out labels come from the oracle too (the tutorial took the
true ones), and new images are clipped to the bounds, as an oracle takes images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from nmutant_cli.attacks import fgsm
from nmutant_cli.attacks.batches import BATCH_SIZE, PredictLogits, in_batches, logits_at, logits_of
from nmutant_cli.config.attacks import BlackBoxParams, FGSMParams, SubstituteParams
from nmutant_cli.errors import AttackError
from nmutant_cli.networks import backend, training
from nmutant_cli.networks.architectures import NETWORKS, initialize
from nmutant_cli.types import Bounds, Images, Labels, Predict


@dataclass(frozen=True)
class Substitute:
    """A network that imitates an oracle, and how many labels it asked the oracle for."""

    model: keras.Model
    queries: int

    def agreement(self, oracle: Predict, x: Images) -> float:
        """Share of the images ``x`` to which substitute and oracle give the same label."""
        return float((logits_of(self.model, x).argmax(axis=1) == oracle(x)).mean())


def train_substitute(
    oracle: Predict,
    holdout: Images,
    n_classes: int,
    params: SubstituteParams,
    bounds: Bounds,
    rng: np.random.Generator,
    *,
    progress: str | None = None,
) -> Substitute:
    """Train a substitute for ``oracle``, of which nothing but its labels is used.

    ``holdout`` are the attacker's own images, float32 ``(n, height, width, channels)`` inside
    ``bounds``. The oracle is asked for n * 2 ** (``params.data_aug`` - 1) labels. ``rng`` draws
    the weights and the order of training.

    Raises AttackError if there are no images, the network does not fit them, or the oracle's
    labels are not classes.
    """
    if holdout.ndim != 4 or len(holdout) == 0:
        raise AttackError(
            f"blackbox: hold-out images of shape {holdout.shape}, expected (n, h, w, c)"
        )
    try:
        model = NETWORKS[params.network](holdout.shape[1:], n_classes, None)
    except ValueError as error:
        raise AttackError(
            f"blackbox: network {params.network!r} does not fit images {holdout.shape[1:]}"
        ) from error
    initialize(model, rng, "paper")
    x = holdout
    y = _ask(oracle, x, n_classes)
    for round_ in range(params.data_aug):
        training.fit(
            model,
            x,
            np.eye(n_classes)[y],
            epochs=params.epochs,
            batch_size=params.batch_size,
            learning_rate=params.learning_rate,
            rng=rng,
            progress=progress and f"{progress} {round_ + 1}/{params.data_aug}",
        )
        if round_ < params.data_aug - 1:
            step = params.lambda_ * step_sign(round_)
            new = jacobian_augmentation(model, x, y, step, bounds)
            x = np.concatenate([x, new])
            y = np.concatenate([y, _ask(oracle, new, n_classes)])
    return Substitute(model, len(y))


def step_sign(round_: int) -> int:
    """-1 after the rounds of training 0, 1, 2 and +1 after later ones."""
    return 2 * int(round_ // 3 != 0) - 1


def jacobian_augmentation(
    predict_logits: PredictLogits,
    x: Images,
    y: Labels,
    lmbda: float,
    bounds: Bounds,
    *,
    batch_size: int = BATCH_SIZE,
) -> Images:
    """``x + lmbda * sign(dF_y / dx)``, clipped to ``bounds``, F the logits; shape of ``x``."""
    sign = in_batches(
        lambda images, labels: _gradient_sign(predict_logits, images, labels),
        predict_logits,
        x,
        y,
        batch_size=batch_size,
    )
    lower, upper = np.float32(bounds.lower), np.float32(bounds.upper)
    moved: Images = np.clip(x + np.float32(lmbda) * sign, lower, upper)
    return moved


@backend.compiled
def _gradient_sign(predict_logits: PredictLogits, x: Any, y: Any) -> Any:
    (slope,), _, _ = backend.gradients(lambda x: ((logits_at(predict_logits(x), y),), ()), x)
    return ops.sign(slope)


def _ask(oracle: Predict, x: Images, n_classes: int) -> Labels:
    labels = np.asarray(oracle(x))
    if labels.shape != (len(x),) or not np.issubdtype(labels.dtype, np.integer):
        raise AttackError(
            f"blackbox: the oracle returns {labels.dtype} of shape {labels.shape}, "
            f"expected {len(x)} class indices"
        )
    if labels.min() < 0 or labels.max() >= n_classes:
        raise AttackError(
            f"blackbox: the oracle returns classes from {labels.min()} to {labels.max()}, "
            f"expected 0 to {n_classes - 1}"
        )
    return labels.astype(np.int64)


def run(
    predict_logits: PredictLogits,
    x: Images,
    y: Labels,
    params: BlackBoxParams,
    bounds: Bounds,
    rng: Sequence[np.random.Generator] = (),
    *,
    batch_size: int = BATCH_SIZE,
) -> Images:
    """FGSM with ``eps`` (L-infinity) on a substitute, ``predict_logits``.

    As in the tutorial it moves away from the label that the substitute gives, so ``y`` is not
    used here; whether the oracle was fooled is for the judge to say. Any other attack on the
    substitute is that attack's own `run` with ``Substitute.model`` as the network. ``rng`` is not
    used. Returns images of the shape of ``x``, inside ``bounds``.
    """
    guess = logits_of(predict_logits, x, batch_size=batch_size).argmax(axis=1).astype(np.int64)
    step = FGSMParams(method="fgsm", eps=params.eps)
    return fgsm.run(predict_logits, x, guess, step, bounds, rng, batch_size=batch_size)
