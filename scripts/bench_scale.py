"""How the work grows: with samples, with classes and pixels, and the memory it takes."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from typing import Any

import keras
import numpy as np
from measured import Figures, asking, forward, seconds, shared

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.mutation.graph import CompiledLabeller
from nmutant_cli.mutation.sensitivity import Subjects, tally
from nmutant_cli.networks.architectures import NETWORKS

NMUTANT = [sys.executable, "-c", "from nmutant_cli.cli import main; main()"]


def growth(figures: Figures, model: Any, images: Any, batch: int, rounds: int) -> None:
    """Seconds and peak memory of kappa with 20 mutations for 100, 1,000 and 10,000 samples."""
    label = CompiledLabeller(model, 1.0, mutation=Mutation(), batch_size=batch)
    sizes = (100, 1_000, 10_000)
    for _ in range(rounds):
        took = []
        for size in sizes:
            subjects = Subjects(label, np.resize(images, (size, *images.shape[1:])))
            sources = [shared(images.shape[1:], 20)] * size
            took.append(seconds(lambda a=subjects, b=sources: tally(a, b, 20)))  # type: ignore[misc]
            figures.setdefault(f"peak_memory_mb.{size}_samples", []).append(peak_mb())
        slope = np.polyfit(np.log(sizes), np.log(took), 1)[0]
        figures.setdefault("time_growth_exponent", []).append(float(slope))


def wider(figures: Figures, rounds: int) -> None:
    """Kappa over the bare network for more classes and larger images, in float32.

    The residual network, and ResNet-50 at ImageNet's size (docs/cluster.md works from its rate).
    """
    build = NETWORKS["cifar10_resnet"]
    for side, classes, mutations in (
        (32, 10, 1000), (32, 100, 1000), (32, 1000, 1000), (64, 10, 300), (128, 10, 100)
    ):  # fmt: skip
        model = build((side, side, 3), classes, None)
        of_size(figures, f"{side}_pixels_{classes}_classes", model, 100, mutations, rounds)
    of_size(figures, "resnet50", keras.applications.ResNet50(weights=None), 32, 128, rounds)


def of_size(
    figures: Figures, name: str, model: Any, batch: int, mutations: int, rounds: int
) -> None:
    """``mutations`` of each of two images, over as many images of the bare network."""
    shape = model.input_shape[1:]
    images = np.random.default_rng(0).random((2 * mutations, *shape), dtype=np.float32)
    asked = Subjects(asking(model, batch, shortcuts=False), images[:2])
    sources = [shared(shape, mutations)] * 2
    tally(asked, [shared(shape, batch)] * 2, batch)
    forward(model, images[:batch], batch)
    for _ in range(rounds):
        bare = forward(model, images, batch)
        rate = 2 * mutations / seconds(lambda: tally(asked, sources, mutations))
        figures.setdefault(f"kappa_in_float32_over_forward.{name}", []).append(rate / bare)
        figures.setdefault(f"forward_images_per_second.{name}", []).append(bare)


def peak_mb(who: int = resource.RUSAGE_SELF) -> float:
    return resource.getrusage(who).ru_maxrss / 1000


def memory(figures: Figures) -> None:
    """Peak memory of the MNIST run with everything at paper size that lies in memory at once.

    One epoch, 50 mutations and a cap of 100 do with the time; work is done in pieces of at most
    50,000 mutations whatever their number.
    """
    changes = ["model.epochs=1", "variants.longer.epochs=1"]
    changes += ["detection.cap=100", "sensitivity.mutations=50"]
    with tempfile.TemporaryDirectory() as folder:
        words = [word for change in changes for word in ("--set", change)]
        command = [*NMUTANT, "run", "-q", "--config", "mnist", "--run-dir", folder]
        subprocess.run([*command, *words], check=True, stdout=subprocess.DEVNULL)
    figures["peak_memory_mb.mnist_run"] = [peak_mb(resource.RUSAGE_CHILDREN)]
