"""How fast kappa and detection are beside the network's own forward pass, and what they need.

    python scripts/bench.py --out results/bench.json

Every figure is a ratio within one run: the sides take turns, ``--rounds`` times, and its median,
smallest and largest value are printed and written. The MNIST network and images are the committed
slice's, the all-convolutional network that of results/cifar10, its images CIFAR10's (set
NMUTANT_DATA_DIR). Labels are come by as in a run: found between others under light, and asked in
bfloat16 first where that is faster.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from bench_scale import NMUTANT, growth, memory, wider
from measured import Figures, asking, forward, report, seconds, shared, stream

from nmutant_cli import Calibration, Detector
from nmutant_cli.datasets import load_dataset
from nmutant_cli.detection import sprt
from nmutant_cli.detection.detect import detect
from nmutant_cli.mutation import cascade
from nmutant_cli.mutation.operator import MutationStream, apply, identity
from nmutant_cli.mutation.sensitivity import Subjects, tally
from nmutant_cli.networks import backend, inference
from nmutant_cli.networks.architectures import NETWORKS
from nmutant_cli.networks.training import compiled, computing_in, go_through
from nmutant_cli.pipeline.samples import SampleSet, from_8_bits

RESULTS = Path(__file__).parent.parent / "results"
SLICE, ALLCONV = RESULTS / "mnist/slice", RESULTS / "cifar10/model.keras"
BATCHES = (250, 500, 1000, 2000)
TEST = sprt.SequentialTest("wald", p0=0.0017, p1=0.0051, cap=2000)
"""MNIST's kappa1 at mu 2, which can say normal under the cap."""
CIFAR10_TEST = sprt.SequentialTest("wald", p0=0.2, p1=0.28, cap=300)

TENSORFLOW = [sys.executable, "-c", "import tensorflow"]
STARTS = {
    "nmutant_--help": [*NMUTANT, "--help"],
    "a_config_error": [*NMUTANT, "detect", "--set", "detection.alpha=0"],
}
"""Commands that are to answer before TensorFlow would be imported."""


def best_batch(model: Any, images: Any) -> int:
    rates = {}
    for batch in BATCHES:
        forward(model, images[:batch], batch)
        rates[batch] = max(forward(model, images[: 2 * batch], batch) for _ in range(3))
    return max(rates, key=lambda b: rates[b])


def mnist() -> tuple[Any, Any]:
    """The attacked network and its images in the slice: normal, C&W, JSMA and WL."""
    sets = [SampleSet.load(SLICE / f"{name}.npz") for name in ("normal", "cw", "jsma", "wl")]
    images = np.concatenate([from_8_bits(s.image8) for s in sets])
    return inference.load(SLICE / "model.keras"), images


def allconv() -> tuple[Any, Any]:
    """The attacked network of results/cifar10, and test images."""
    return inference.load(ALLCONV), load_dataset("cifar10").x_test[:100].astype(np.float32)


def kappa(figures: Figures, name: str, model: Any, images: Any, rounds: int, count: int) -> int:
    """Mutations a second over images a second of the bare network at its best batch size.

    At step size 1 but where another is said.
    """
    many = np.resize(images, (max(BATCHES) * 2, *images.shape[1:]))
    batch = best_batch(model, many)
    sources = [shared(images.shape[1:], 1000)] * count
    some = images[:count]
    ways = {
        f"kappa_over_forward.{name}": asking(model, batch),
        f"kappa_at_step_5_over_forward.{name}": asking(model, batch, step_size=5.0),
        f"kappa_at_step_10_over_forward.{name}": asking(model, batch, step_size=10.0),
        f"kappa_in_float32_over_forward.{name}": asking(model, batch, shortcuts=False),
    }
    for label in ways.values():  # compiles, and learns the bounds
        tally(Subjects(label, some), sources, 1000)
    for _ in range(rounds):
        bare = forward(model, many, batch)
        for way, label in ways.items():
            asked = Subjects(label, some)  # nothing is known of the images
            rate = count * 1000 / seconds(lambda a=asked: tally(a, sources, 1000))  # type: ignore[misc]
            figures.setdefault(way, []).append(rate / bare)
        figures.setdefault(f"forward_images_per_second.{name}", []).append(bare)
    figures[f"forward_best_batch.{name}"] = [batch]
    return batch


def decided(
    figures: Figures, name: str, model: Any, images: Any, batch: int, test: sprt.SequentialTest
) -> Iterator[tuple[float, Any]]:
    """Mutations that decisions on ``images`` used a second, and the decisions, for each round.

    The rate is noted over that of the bare network.
    """
    sources = [stream(images.shape[1:], i) for i in range(len(images))]
    label = asking(model, batch)
    detect(Subjects(label, images), sources, [test])  # compiles, and learns the bounds
    while True:
        bare = forward(model, np.resize(images, (4 * batch, *images.shape[1:])), batch)
        start = time.perf_counter()
        (found,) = detect(Subjects(label, images), sources, [test])
        rate = found.mutations.sum() / (time.perf_counter() - start)
        figures.setdefault(f"detect_over_forward.{name}", []).append(rate / bare)
        yield rate, found


def detection(figures: Figures, model: Any, images: Any, batch: int, rounds: int) -> None:
    """`decided` on 500 images, and over the loop on five of them."""
    many = np.resize(images, (500, *images.shape[1:]))
    sources = [stream(many.shape[1:], i) for i in range(len(many))]
    some = slice(0, len(many), 100)
    compiled = inference.logits_fn(model, 1)
    for rate, found in islice(decided(figures, "mnist", model, many, batch, TEST), rounds):
        for name, predict in (("loop", eager(model)), ("compiled_loop", compiled)):
            start = time.perf_counter()
            literal = [loop(predict, x, s) for x, s in zip(many[some], sources[some], strict=True)]
            slow = sum(o.mutations for o in literal) / (time.perf_counter() - start)
            figures.setdefault(f"detect_over_{name}.mnist", []).append(rate / slow)
        same = [
            (o.verdict, o.n, o.c) == (v, n, c)
            for o, v, n, c in zip(
                literal, found.verdict[some], found.n[some], found.c[some], strict=True
            )
        ]
        figures.setdefault("loop_same_verdicts_percent.mnist", []).append(
            100 * float(np.mean(same))
        )


def trained(figures: Figures, network: str, rounds: int) -> None:
    """Images a second that training takes, in each precision that the processor has."""
    rng = np.random.default_rng(0)
    x = rng.random((512, 32, 32, 3), dtype=np.float32)
    y = np.eye(10, dtype=np.float32)[rng.integers(0, 10, len(x))]
    for precision in ("float32", *(("bfloat16",) if backend.has_bfloat16() else ())):
        with computing_in(precision):
            model = compiled(NETWORKS[network]((32, 32, 3), 10, None), 5e-4)

        def epoch(model: Any = model) -> None:
            go_through(model, x, y, 128, lambda: None)

        epoch()
        rates = [len(x) / seconds(epoch) for _ in range(rounds)]
        figures[f"training_images_per_second.{network}_{precision}"] = rates


def eager(model: Any) -> Any:
    """The network called as it stands, not compiled, as a literal loop would."""
    return lambda images: np.asarray(model(images))


def loop(predict: Any, image: Any, source: MutationStream) -> sprt.Outcome:
    """One image as the authors did it: mutate once, ask the network about one image, look."""
    own = predict(apply(image[None], identity(1, image.shape), 1.0)).argmax()

    def changes() -> Any:
        for i in range(TEST.max_mutations):
            yield predict(apply(image[None], source.take(i, 1), 1.0)).argmax() != own

    return sprt.run(TEST, changes())


def one_pass(model: Any, images: Any, count: int) -> float:
    """Seconds of one call of the bare network with ``count`` images."""
    images = np.resize(images, (count, *images.shape[1:]))
    forward(model, images, count)  # compiles
    return statistics.median(count / forward(model, images, count) for _ in range(5))


def latency(figures: Figures, model: Any, images: Any, rounds: int) -> None:
    """One image, one verdict: milliseconds, and times one forward pass of as many images as the
    test read mutations."""
    detector = Detector(model, Calibration(step_size=1, p0=TEST.p0, p1=TEST.p1, cap=TEST.cap))
    alone: dict[int, float] = {}
    took, over = [], []
    for _ in range(rounds):
        for i in range(len(images)):
            start = time.perf_counter()
            found = detector.detect(images[i : i + 1])
            took.append(time.perf_counter() - start)
            read = int(found.mutations[0])
            if read not in alone:
                alone[read] = one_pass(model, images, read)
            over.append(took[-1] / alone[read])
    for share in (50, 99):
        figures[f"latency_ms_p{share}.mnist"] = [1000 * float(np.percentile(took, share))]
        figures[f"latency_over_one_pass_p{share}.mnist"] = [float(np.percentile(over, share))]


def startup(figures: Figures, rounds: int) -> None:
    """Seconds that a command takes, over those that importing TensorFlow takes."""

    def start(command: list[str]) -> float:
        return seconds(lambda: subprocess.run(command, capture_output=True, check=False))

    for _ in range(rounds):
        tensorflow = start(TENSORFLOW)
        for name, command in STARTS.items():
            key = f"startup_over_tensorflow.{name}"
            figures.setdefault(key, []).append(start(command) / tensorflow)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--wider", action="store_true", help="more classes, larger images too")
    parser.add_argument("--memory", action="store_true", help="a whole MNIST run too, for its peak")
    args = parser.parse_args()
    figures: Figures = {}
    cascade.WORTH = 0.0  # from the first call on, as in the long run of which this is a piece
    network, images = mnist()
    growth(figures, network, images, 1000, args.rounds)
    batch = kappa(figures, "mnist", network, images, args.rounds, 40)
    detection(figures, network, images, batch, args.rounds)
    latency(figures, network, images, args.rounds)
    network, images = allconv()
    batch = kappa(figures, "cifar10_allconv", network, images, args.rounds, 10)
    rates = decided(figures, "cifar10_allconv", network, images, batch, CIFAR10_TEST)
    list(islice(rates, args.rounds))
    trained(figures, "cifar10_allconv", args.rounds)
    if args.wider:
        wider(figures, args.rounds)
    startup(figures, args.rounds)
    if args.memory:
        memory(figures)
    report(figures, args.out)


if __name__ == "__main__":
    main()
