"""C&W and JSMA on a trained network, against what they promise.

    python scripts/check_attacks.py --data mnist --model mnist.keras

C&W for batch sizes 1, 7 and 200: the same successes, how far the L2 distances lie apart; for
three confidences, the share of the successes that reach the margin. JSMA against the literal
transcription of the tests: the same pair given the same gradients, whole runs alike.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import keras
import numpy as np

from nmutant_cli.attacks import craft, jsma
from nmutant_cli.attacks.cw import margin_of
from nmutant_cli.config.attacks import CWParams, JSMAParams
from nmutant_cli.datasets import Dataset, load_dataset
from nmutant_cli.networks import inference
from nmutant_cli.seeding import stream
from nmutant_cli.types import Images, Labels

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import test_attack_jsma as transcription

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist", choices=("digits", "mnist", "cifar10"))
    parser.add_argument("--model", type=Path, required=True, help="a trained .keras file")
    parser.add_argument("--cw-images", type=int, default=200)
    parser.add_argument("--confidence", type=float, nargs="*", default=[0.0, 5.0, 20.0])
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=[1, 7, 200])
    parser.add_argument("--pairs", type=int, default=50, help="image-target pairs for JSMA")
    parser.add_argument("--gamma", type=float, default=0.1)
    parser.add_argument("--compared-steps", type=int, default=1200)
    args = parser.parse_args()
    data = load_dataset(args.data)
    model = inference.load(args.model, data.image_shape)
    label = inference.predict_labels(model, data.x_test)
    (right,) = np.nonzero(label == data.y_test)
    chosen = right[: max(args.cw_images, args.pairs)]
    n_classes = data.n_classes
    target = (label[chosen] + 1 + np.arange(len(chosen)) % (n_classes - 1)) % n_classes
    x = data.x_test[chosen]
    check_cw(model, data, x[: args.cw_images], target[: args.cw_images], args)
    check_jsma(model, data, x[: args.pairs], target[: args.pairs], args)


def check_cw(
    model: keras.Model, data: Dataset, x: Images, y: Labels, args: argparse.Namespace
) -> None:
    rngs = [stream(SEED, "check", i) for i in range(len(x))]

    def cw(confidence: float, batch_size: int | None = None) -> tuple[Images, np.ndarray]:
        params = CWParams(
            method="cw", binary_search_steps=1, max_iterations=100, learning_rate=0.1,
            initial_const=10, confidence=confidence,
        )  # fmt: skip
        made = craft(model, x, y, params, data.bounds, rngs, batch_size=batch_size)
        return made.x_adv, made.success

    for confidence in args.confidence:
        x_adv, success = cw(confidence)
        margin = margin_of(inference.logits_fn(model)(x_adv), y, targeted=True)[success]
        reached = (margin >= confidence).sum()
        print(
            f"C&W confidence {confidence:g}: {success.sum()} of {len(x)} succeed, {reached} of "
            f"{success.sum()} reach the margin, smallest {margin.min(initial=np.inf):.4f}"
        )
    first: Images | None = None
    for size in args.batch_sizes:
        x_adv, success = cw(0.0, size)
        if first is None:
            first, succeeded = x_adv, success
        l2, l2_first = (np.linalg.norm((a - x).reshape(len(x), -1), axis=1) for a in (x_adv, first))
        near = np.abs(l2 - l2_first) <= 0.01 * l2_first
        print(
            f"C&W batch size {size}: same success {(success == succeeded).sum()}, L2 within 1% "
            f"{near.sum()}, identical {(x_adv == first).all(axis=(1, 2, 3)).sum()} of {len(x)}"
        )


def check_jsma(
    model: keras.Model, data: Dataset, x: Images, y: Labels, args: argparse.Namespace
) -> None:
    steps = []
    search = jsma.best_pair

    def spy(alpha, beta, domain, theta):  # type: ignore[no-untyped-def]
        pair = search(alpha, beta, domain, theta)
        steps.append((alpha, beta, domain.copy(), theta, pair))
        return pair

    jsma.best_pair = spy  # type: ignore[assignment]
    ours = jsma.run(model, x, y, JSMAParams(method="jsma", gamma=args.gamma), data.bounds)
    jsma.best_pair = search
    compared = steps[:: max(1, len(steps) // args.compared_steps)][: args.compared_steps]
    same = sum(transcription.table_pair(*step[:4]) == step[4] for step in compared)
    print(f"JSMA, gamma {args.gamma:g}: same pair in {same} of {len(compared)} steps compared")
    alike = 0
    for image, target, result in zip(x, y, ours, strict=True):
        gradients = transcription.own_gradients(model, target)
        literal, _ = transcription.literal_jsma(gradients, image, target, 1.0, args.gamma)
        alike += np.array_equal(literal, result)
    print(f"JSMA, gamma {args.gamma:g}: {alike} of {len(x)} whole runs identical")


if __name__ == "__main__":
    main()
