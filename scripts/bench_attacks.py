"""Our C&W and JSMA beside Foolbox and the Adversarial Robustness Toolbox (ART), one run.

    pip install foolbox adversarial-robustness-toolbox
    python scripts/bench_attacks.py --out results/bench-attacks.json
    python scripts/bench_attacks.py --check --data cifar10

Every tool attacks the same network, images and targets with the same parameters. The tools take
turns, ``--repeats`` times; the ratios are medians over the turns of seconds per sample, theirs
over ours, with the smallest and largest. The first call of ours, which compiles, is not timed;
neither is one image's worth of the others. The networks are the committed ones, of the MNIST slice
and of results/cifar10; on the latter only C&W is timed.

With ``--check`` nothing is timed and no other tool is needed. C&W in batches of 1, 7 and 200: the
same successes, how far the L2 distances lie apart; for each confidence, the successes that reach
the margin. JSMA: whole runs as those of a literal transcription.
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

from nmutant_cli.attacks import craft
from nmutant_cli.attacks.batches import BATCH_SIZE
from nmutant_cli.attacks.cw import margin_of
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
CHECKED_BATCHES = (1, 7, 200)
Attack = Callable[[Images, Labels], AnyArray]


def main() -> None:
    args = arguments()
    figures: Figures = {}
    for name in args.data:
        data = load_dataset(name)
        model = inference.load(args.model or NETWORKS[name], data.image_shape)
        label = inference.predict_labels(model, data.x_test[:2000])
        (right,) = np.nonzero(label == data.y_test[:2000])
        count = {"jsma": args.jsma_images, "cw": args.images if name == "mnist" else args.fewer}
        chosen = right[np.arange(max(count.values())) % len(right)]
        x, turn = data.x_test[chosen], np.arange(len(chosen))
        target = (label[chosen] + 1 + turn % (data.n_classes - 1)) % data.n_classes
        if args.check:
            check_cw(model, data, x[: count["cw"]], target[: count["cw"]], args)
            check_jsma(model, data, x[: count["jsma"]], target[: count["jsma"]], args.gamma)
            continue
        if "jsma" in args.attacks and name == "mnist":
            figures |= bench_jsma(model, data, x, target, args)
        if "cw" in args.attacks:
            x, target = x[: count["cw"]], target[: count["cw"]]
            for confidence in args.confidence:
                figures |= bench_cw(model, data, x, target, args, confidence)
    if not args.check:
        report(figures, args.out, "foolbox", "adversarial-robustness-toolbox")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--model", type=Path, help="another trained .keras file")
    parser.add_argument("--attacks", nargs="+", default=["jsma", "cw"], choices=("jsma", "cw"))
    parser.add_argument("--check", action="store_true", help="how right, not how fast")
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
    jsma = JSMAParams(method="jsma", theta=1.0, gamma=args.gamma)
    n = args.jsma_images
    tools: dict[str, tuple[Attack, int]] = {
        "nmutant": (ours(model, jsma, data), n),
        "ART, batches of 1": (art_jsma(model, jsma, data, 1), n),
        "ART, one batch": (art_jsma(model, jsma, data, n), n),
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
        "gradients alone": (gradients_alone(model, args.search_steps * args.iterations), len(x)),
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
        pixels = (np.abs(change) > 1 / 510).sum(axis=1)
        print(
            f"{name:<18} {count:>7} {np.median(seconds[name]):>9.4f} {span:>22} "
            f"{success.mean():>8.1%} {np.linalg.norm(change, axis=1).mean():>7.3f} "
            f"{pixels.mean():>7.1f}"
        )
        if name != "nmutant":
            figures[f"{named}.{name.replace(', ', '_').replace(' ', '_')}"] = ratios.tolist()
    return figures


def ours(model: keras.Model, params: CWParams | JSMAParams, data: Dataset) -> Attack:
    def run(x: Images, target: Labels) -> AnyArray:
        rng = [stream(0, "bench", i) for i in range(len(x))]
        return craft(model, x, target, params, data.bounds, rng).x_adv

    return run


def gradients_alone(model: keras.Model, iterations: int) -> Attack:
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


def check_cw(
    model: keras.Model, data: Dataset, x: Images, y: Labels, args: argparse.Namespace
) -> None:
    rngs = [stream(0, "check", i) for i in range(len(x))]
    for confidence in args.confidence:
        made = craft(model, x, y, cw_params(args, confidence), data.bounds, rngs)
        margin = margin_of(inference.logits_fn(model)(made.x_adv), y, targeted=True)[made.success]
        print(
            f"C&W confidence {confidence:g}: {len(margin)} of {len(x)} succeed, "
            f"{(margin >= confidence).sum()} of {len(margin)} reach the margin, smallest "
            f"{margin.min(initial=np.inf):.4f}"
        )
    params = cw_params(args, 0.0)
    batches = [craft(model, x, y, params, data.bounds, rngs, batch_size=n) for n in CHECKED_BATCHES]
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
