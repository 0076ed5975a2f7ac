"""Our C&W and JSMA beside Foolbox and the Adversarial Robustness Toolbox (ART), one run.

    pip install foolbox adversarial-robustness-toolbox
    python scripts/bench_attacks.py --out results/bench-attacks.json

Every tool attacks the same network, images and targets with the same parameters. The tools take
turns, ``--repeats`` times; the ratios are medians over the turns of seconds per sample, theirs
over ours, with the smallest and largest. A first call of each, with one image, is not timed. The
networks are those of the MNIST slice and of results/cifar10; on the latter only C&W is timed.
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
from measured import Figures, report

from nmutant_cli.attacks import craft, jsma
from nmutant_cli.attacks.batches import BATCH_SIZE
from nmutant_cli.config.attacks import CWParams, JSMAParams
from nmutant_cli.datasets import Dataset, load_dataset
from nmutant_cli.networks import inference
from nmutant_cli.seeding import stream
from nmutant_cli.types import AnyArray, Images, Labels

RESULTS = Path(__file__).parent.parent / "results"
NETWORKS = {
    "mnist": RESULTS / "mnist/slice/model.keras",
    "cifar10": RESULTS / "cifar10/model.keras",
}
Attack = Callable[[Images, Labels], AnyArray]


def main() -> None:
    args = arguments()
    figures: Figures = {}
    for name in args.data:
        count = max(args.jsma_images, args.images if name == "mnist" else args.fewer)
        model, data, x, target = attacked(name, args.model, count)
        if "jsma" in args.attacks and name == "mnist":
            figures |= bench_jsma(model, data, x, target, args)
        if "cw" in args.attacks:
            few = slice(args.images if name == "mnist" else args.fewer)
            for confidence in args.confidence:
                figures |= bench_cw(model, data, x[few], target[few], args, confidence)
    report(figures, args.out, "foolbox", "adversarial-robustness-toolbox")


def attacked(
    name: str, path: Path | None, count: int
) -> tuple[keras.Model, Dataset, Images, Labels]:
    """A network, its data set, ``count`` images that it gets right, and a target for each."""
    data = load_dataset(name)
    model = inference.load(path or NETWORKS[name], data.image_shape)
    label = inference.predict_labels(model, data.x_test[:2000])
    (right,) = np.nonzero(label == data.y_test[:2000])
    chosen = right[np.arange(count) % len(right)]
    step = 1 + np.arange(count) % (data.n_classes - 1)
    return model, data, data.x_test[chosen], (label[chosen] + step) % data.n_classes


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--model", type=Path, help="another trained .keras file")
    parser.add_argument("--attacks", nargs="+", default=["jsma", "cw"], choices=("jsma", "cw"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--gamma", type=float, default=0.1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jsma-images", type=int, default=200)
    parser.add_argument("--images", type=int, default=200, help="images for C&W on MNIST")
    parser.add_argument("--fewer", type=int, default=40, help="images for C&W on CIFAR10")
    parser.add_argument("--art-images", type=int, default=0, help="images for ART's slow C&W")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--search-steps", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--initial-const", type=float, default=10.0)
    parser.add_argument("--confidence", type=float, nargs="+", default=[0.0])
    return parser.parse_args()


def bench_jsma(
    model: keras.Model, data: Dataset, x: Images, y: Labels, args: argparse.Namespace
) -> Figures:
    params = JSMAParams(method="jsma", theta=1.0, gamma=args.gamma)
    n, own = args.jsma_images, ours(model, params, data)
    tools: dict[str, tuple[Attack, int]] = {
        "nmutant": (own, n),
        "ART, batches of 1": (art_jsma(model, params, data, 1), n),
        "ART, one batch": (art_jsma(model, params, data, n), n),
        "gradients alone": (jsma_gradients(own, x[:n], y[:n]), n),
    }
    print(f"\nJSMA on {data.name}, theta 1, gamma {args.gamma:g}")
    return compare(f"jsma.{data.name}", tools, model, x, y, args.repeats)


def bench_cw(
    model: keras.Model,
    data: Dataset,
    x: Images,
    y: Labels,
    args: argparse.Namespace,
    confidence: float,
) -> Figures:
    cw = cw_params(args, confidence)
    tools: dict[str, tuple[Attack, int]] = {
        "nmutant": (ours(model, cw, data), len(x)),
        "Foolbox": (foolbox_cw(model, cw, data), len(x)),
        "gradients alone": (cw_gradients(model, args.search_steps * args.iterations), len(x)),
    }
    if args.art_images:
        tools["ART, one batch"] = (art_cw(model, cw, data, args.art_images), args.art_images)
    print(
        f"\nC&W L2 on {data.name}, {args.search_steps} x {args.iterations} iterations, const "
        f"{args.initial_const:g}, learning rate {args.learning_rate:g}, "
        f"confidence {confidence:g}"
    )
    named = f"cw.{data.name}" + (f"_confidence_{confidence:g}" if confidence else "")
    return compare(named, tools, model, x, y, args.repeats)


def cw_params(args: argparse.Namespace, confidence: float) -> CWParams:
    return CWParams(
        method="cw",
        binary_search_steps=args.search_steps,
        max_iterations=args.iterations,
        learning_rate=args.learning_rate,
        initial_const=args.initial_const,
        confidence=confidence,
    )


def compare(
    named: str,
    tools: dict[str, tuple[Attack, int]],
    model: keras.Model,
    x: Images,
    target: Labels,
    repeats: int,
) -> Figures:
    """Time the tools in turns, print one table, and return how many times as long each takes."""
    for run, _ in tools.values():
        run(x[:1], target[:1])
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    results: dict[str, AnyArray] = {}
    for _ in range(repeats):
        for name, (run, count) in tools.items():
            start = time.perf_counter()
            results[name] = run(x[:count], target[:count])
            seconds[name].append((time.perf_counter() - start) / count)

    figures: Figures = {}
    head = ("tool", "samples", "s/sample", "times ours (min, max)", "success", "L2", "pixels")
    print("{:<18} {:>7} {:>9} {:>22} {:>8} {:>7} {:>7}".format(*head))
    for name, (_, count) in tools.items():
        x_adv = np.asarray(results[name])
        success = inference.predict_labels(model, x_adv) == target[:count]
        change = (x_adv - x[:count]).reshape(count, -1)[success]
        ratios = np.array(seconds[name]) / np.array(seconds["nmutant"])
        span = f"{np.median(ratios):.1f} ({ratios.min():.1f}, {ratios.max():.1f})"
        # C&W moves every pixel a little: count those that 8 bits would show.
        l2, pixels = (
            (np.linalg.norm(change, axis=1).mean(), (np.abs(change) > 1 / 510).sum(axis=1).mean())
            if len(change)
            else (np.nan, np.nan)
        )
        print(
            f"{name:<18} {count:>7} {np.median(seconds[name]):>9.4f} {span:>22} "
            f"{success.mean():>8.1%} {l2:>7.3f} {pixels:>7.1f}"
        )
        if name != "nmutant":
            figures[f"{named}.{name.replace(', ', '_').replace(' ', '_')}"] = ratios.tolist()
    return figures


def ours(model: keras.Model, params: CWParams | JSMAParams, data: Dataset) -> Attack:
    def run(x: Images, target: Labels) -> AnyArray:
        rng = [stream(0, "bench", i) for i in range(len(x))]
        return craft(model, x, target, params, data.bounds, rng).x_adv

    return run


def jsma_gradients(attack: Attack, x: Images, target: Labels) -> Attack:
    """The calls for gradients that our JSMA makes on these images, and nothing else."""
    calls: list[tuple[Any, ...]] = []
    asked = jsma._gradients

    def noted(*args: Any) -> Any:
        calls.append(args)
        return asked(*args)

    jsma._gradients = noted
    attack(x, target)
    jsma._gradients = asked

    def run(x: Images, _: Labels) -> AnyArray:
        for args in calls:
            [np.asarray(part) for part in asked(*args)]
        return x

    return run


def cw_gradients(model: keras.Model, iterations: int) -> Attack:
    """What no attack of so many iterations can do without; the images stay as they are."""

    @tf.function
    def gradient(images: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(tf.gather(model(images), y, axis=1, batch_dims=1))
        return tape.gradient(loss, images)

    def run(x: Images, target: Labels) -> AnyArray:
        for first in range(0, len(x), BATCH_SIZE):
            part = slice(first, first + BATCH_SIZE)
            images, y = tf.constant(x[part]), tf.constant(target[part])
            for _ in range(iterations):
                gradient(images, y)
        return x

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
