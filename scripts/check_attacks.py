"""How right our C&W and JSMA are, on the networks of ``bench_attacks.py``.

    python scripts/check_attacks.py --data cifar10 --gamma 0.02 --confidence 0 5 20

C&W in batches of 1, 7 and 200: the same successes, how far the L2 distances lie apart; for each
confidence, the successes that reach the margin. JSMA: whole runs as those of a literal
transcription.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from bench_attacks import NETWORKS, attacked, ours

from nmutant_cli.attacks import craft
from nmutant_cli.attacks.cw import margin_of
from nmutant_cli.config.attacks import CWParams, JSMAParams
from nmutant_cli.datasets import Dataset
from nmutant_cli.networks import inference
from nmutant_cli.seeding import stream
from nmutant_cli.types import AnyArray, Images, Labels

CHECKED_BATCHES = (1, 7, 200)
CW = CWParams(
    method="cw", binary_search_steps=1, max_iterations=100, learning_rate=0.1, initial_const=10.0
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="mnist", choices=NETWORKS)
    parser.add_argument("--model", type=Path, help="another trained .keras file")
    parser.add_argument("--images", type=int, default=100, help="images for C&W")
    parser.add_argument("--jsma-images", type=int, default=50)
    parser.add_argument("--gamma", type=float, default=0.1)
    parser.add_argument("--confidence", type=float, nargs="+", default=[0.0, 5.0, 20.0])
    args = parser.parse_args()
    model, data, x, y = attacked(args.data, args.model, max(args.images, args.jsma_images))
    check_cw(model, data, x[: args.images], y[: args.images], args.confidence)
    check_jsma(model, data, x[: args.jsma_images], y[: args.jsma_images], args.gamma)


def check_cw(
    model: keras.Model, data: Dataset, x: Images, y: Labels, confidences: list[float]
) -> None:
    rngs = [stream(0, "check", i) for i in range(len(x))]
    for confidence in confidences:
        made = craft(
            model, x, y, CW.model_copy(update={"confidence": confidence}), data.bounds, rngs
        )
        margin = margin_of(inference.logits_fn(model)(made.x_adv), y, targeted=True)[made.success]
        print(
            f"C&W confidence {confidence:g}: {len(margin)} of {len(x)} succeed, "
            f"{(margin >= confidence).sum()} of {len(margin)} reach the margin, smallest "
            f"{margin.min(initial=np.inf):.4f}"
        )
    batches = [craft(model, x, y, CW, data.bounds, rngs, batch_size=n) for n in CHECKED_BATCHES]
    first, first_l2 = batches[0], lengths(batches[0].x_adv - x)
    for size, other in zip(CHECKED_BATCHES, batches, strict=True):
        near = np.abs(lengths(other.x_adv - x) - first_l2) <= 0.01 * first_l2
        print(
            f"C&W batch size {size}: same success {(other.success == first.success).sum()}, L2 "
            f"within 1% {near.sum()}, identical "
            f"{(other.x_adv == first.x_adv).all(axis=(1, 2, 3)).sum()} of {len(x)}"
        )


def lengths(change: AnyArray) -> AnyArray:
    return np.linalg.norm(change.reshape(len(change), -1), axis=1)


def check_jsma(model: keras.Model, data: Dataset, x: Images, y: Labels, gamma: float) -> None:
    params = JSMAParams(method="jsma", theta=1.0, gamma=gamma)
    made = ours(model, params, data)(x, y)
    alike = sum(
        np.array_equal(literal_jsma(model, image, target, gamma), result)
        for image, target, result in zip(x, y, made, strict=True)
    )
    print(f"JSMA, gamma {gamma:g}: {alike} of {len(x)} whole runs identical")


def literal_jsma(model: keras.Model, x: AnyArray, target: int, gamma: float) -> AnyArray:
    """One image at theta 1, step by step, from the whole Jacobian and the table of all pairs."""
    flat = x.flatten()
    domain = flat < 1
    for _ in range(int(flat.size * gamma / 2)):
        logits, jacobian = jacobian_of(model, tf.constant(flat.reshape(1, *x.shape)))
        if domain.sum() < 2 or logits.numpy()[0].argmax() == target:
            break
        rows = jacobian.numpy().reshape(len(jacobian), -1).astype(float)
        alpha, beta = rows[target], np.delete(rows, target, axis=0).sum(axis=0)
        a, b = alpha[:, None] + alpha, beta[:, None] + beta
        valid = (a > 0) & (b < 0) & np.triu(np.outer(domain, domain), 1)
        if not valid.any():
            break
        pair = list(np.unravel_index(np.where(valid, -a * b, -np.inf).argmax(), a.shape))
        flat[pair], domain[pair] = 1, False
    return flat.reshape(x.shape)


@tf.function
def jacobian_of(model: Any, images: Any) -> Any:
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(images)
        logits = model(images)
        each = tf.unstack(logits, axis=1)
    return logits, tf.stack([tape.gradient(logit, images) for logit in each])


if __name__ == "__main__":
    main()
