"""Our C&W and JSMA beside Foolbox and the Adversarial Robustness Toolbox (ART), one run.

    pip install foolbox adversarial-robustness-toolbox
    python scripts/bench_attacks.py --model mnist.keras

Every tool attacks the same network, images and targets with the same parameters. The tools take
turns, ``--repeats`` times; the ratios are medians over the turns of seconds per sample, theirs
over ours, with the smallest and largest. The first call of ours, which compiles, is not timed;
neither is one image's worth of the others.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nmutant_cli.attacks import craft
from nmutant_cli.config.attacks import CWParams, JSMAParams
from nmutant_cli.config.settings import Model
from nmutant_cli.datasets import Dataset, load_dataset
from nmutant_cli.networks import inference, training
from nmutant_cli.seeding import stream
from nmutant_cli.types import AnyArray, Images, Labels

Attack = Callable[[Images, Labels], AnyArray]


def main() -> None:
    args = arguments()
    data = load_dataset(args.data)
    model = load_or_train(args, data)
    label = inference.predict_labels(model, data.x_test)
    (right,) = np.nonzero(label == data.y_test)
    count = max(args.images, args.jsma_images)
    chosen = right[np.arange(count) % len(right)]
    x = data.x_test[chosen]
    target = (label[chosen] + 1 + np.arange(count) % (data.n_classes - 1)) % data.n_classes

    if "jsma" in args.attacks:
        jsma = JSMAParams(method="jsma", theta=1.0, gamma=0.1)
        tools: dict[str, tuple[Attack, int]] = {
            "nmutant": (ours(model, jsma, data), args.jsma_images),
            "ART, batches of 1": (art_jsma(model, jsma, data, 1), args.jsma_images),
            "ART, one batch": (art_jsma(model, jsma, data, args.jsma_images), args.jsma_images),
        }
        compare("JSMA, theta 1, gamma 0.1", tools, model, x, target, args.repeats)
    for confidence in args.confidence if "cw" in args.attacks else ():
        cw = CWParams(
            method="cw",
            binary_search_steps=args.search_steps,
            max_iterations=args.iterations,
            learning_rate=args.learning_rate,
            initial_const=args.initial_const,
            confidence=confidence,
        )
        tools = {
            "nmutant": (ours(model, cw, data), args.images),
            "Foolbox": (foolbox_cw(model, cw, data), args.images),
        }
        if args.art_images:
            tools["ART, one batch"] = (art_cw(model, cw, data, args.art_images), args.art_images)
        title = (
            f"C&W L2, {args.search_steps} x {args.iterations} iterations, const "
            f"{args.initial_const:g}, learning rate {args.learning_rate:g}, "
            f"confidence {confidence:g}"
        )
        compare(title, tools, model, x, target, args.repeats)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist", choices=("digits", "mnist", "cifar10"))
    parser.add_argument("--model", type=Path, help="a trained .keras file; trained if absent")
    parser.add_argument("--network", default="mnist", help="network to train without --model")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--attacks", nargs="+", default=["jsma", "cw"], choices=("jsma", "cw"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jsma-images", type=int, default=100)
    parser.add_argument("--images", type=int, default=200, help="images for C&W")
    parser.add_argument("--art-images", type=int, default=20, help="images for ART's slow C&W")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--search-steps", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--initial-const", type=float, default=10.0)
    parser.add_argument("--confidence", type=float, nargs="+", default=[0.0])
    return parser.parse_args()


def load_or_train(args: argparse.Namespace, data: Dataset) -> keras.Model:
    if args.model:
        return inference.load(args.model, data.image_shape)
    settings = Model(network=args.network, epochs=args.epochs, initialization="keras")
    return training.train(settings, data, args.seed, "bench", progress="training")[0]


def compare(
    title: str,
    tools: dict[str, tuple[Attack, int]],
    model: keras.Model,
    x: Images,
    target: Labels,
    repeats: int,
) -> None:
    """Time the tools in turns and print one table."""
    for run, _ in tools.values():
        run(x[:1], target[:1])
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    results: dict[str, AnyArray] = {}
    for _ in range(repeats):
        for name, (run, count) in tools.items():
            start = time.perf_counter()
            results[name] = run(x[:count], target[:count])
            seconds[name].append((time.perf_counter() - start) / count)

    print(f"\n{title}")
    head = ("tool", "samples", "s/sample", "times ours (min, max)", "success", "L2", "pixels")
    print("{:<18} {:>7} {:>9} {:>22} {:>8} {:>7} {:>7}".format(*head))
    for name, (_, count) in tools.items():
        x_adv = np.asarray(results[name])
        success = inference.predict_labels(model, x_adv) == target[:count]
        change = (x_adv - x[:count]).reshape(count, -1)[success]
        ratios = np.array(seconds[name]) / np.array(seconds["nmutant"])
        span = f"{np.median(ratios):.1f} ({ratios.min():.1f}, {ratios.max():.1f})"
        # C&W moves every pixel a little: count those that 8 bits would show.
        pixels = (np.abs(change) > 1 / 510).sum(axis=1)
        print(
            f"{name:<18} {count:>7} {np.median(seconds[name]):>9.4f} {span:>22} "
            f"{success.mean():>8.1%} {np.linalg.norm(change, axis=1).mean():>7.3f} "
            f"{pixels.mean():>7.1f}"
        )


def ours(model: keras.Model, params: CWParams | JSMAParams, data: Dataset) -> Attack:
    def run(x: Images, target: Labels) -> AnyArray:
        rng = [stream(0, "bench", i) for i in range(len(x))]
        return craft(model, x, target, params, data.bounds, rng).x_adv

    return run


def foolbox_cw(model: keras.Model, params: CWParams, data: Dataset) -> Attack:
    import foolbox

    wrapped = foolbox.TensorFlowModel(model, bounds=tuple(data.bounds))
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=params.binary_search_steps,
        steps=params.max_iterations,
        stepsize=params.learning_rate,
        confidence=params.confidence,
        initial_const=params.initial_const,
        abort_early=params.abort_early,
    )

    def run(x: Images, target: Labels) -> AnyArray:
        criterion = foolbox.criteria.TargetedMisclassification(tf.constant(target))
        x_adv = np.asarray(attack.run(wrapped, tf.constant(x), criterion)).copy()
        # Where it fails Foolbox returns a black image, which may be of the target class by chance.
        failed = ~x_adv.any(axis=(1, 2, 3))
        x_adv[failed] = x[failed]
        return x_adv

    return run


def art_classifier(model: keras.Model, data: Dataset) -> Any:
    from art.estimators.classification import TensorFlowV2Classifier

    return TensorFlowV2Classifier(
        model,
        nb_classes=data.n_classes,
        input_shape=data.image_shape,
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=tuple(data.bounds),
    )


def art_cw(model: keras.Model, params: CWParams, data: Dataset, batch_size: int) -> Attack:
    from art.attacks.evasion import CarliniL2Method

    attack = CarliniL2Method(
        art_classifier(model, data),
        confidence=params.confidence,
        targeted=True,
        learning_rate=params.learning_rate,
        binary_search_steps=params.binary_search_steps,
        max_iter=params.max_iterations,
        initial_const=params.initial_const,
        batch_size=batch_size,
        verbose=False,
    )
    return lambda x, target: attack.generate(x, np.eye(data.n_classes)[target])


def art_jsma(model: keras.Model, params: JSMAParams, data: Dataset, batch_size: int) -> Attack:
    from art.attacks.evasion import SaliencyMapMethod

    attack = SaliencyMapMethod(
        art_classifier(model, data),
        theta=params.theta,
        gamma=params.gamma,
        batch_size=batch_size,
        verbose=False,
    )
    return lambda x, target: attack.generate(x, np.eye(data.n_classes)[target])


if __name__ == "__main__":
    main()
