"""What many workers would gain: the pieces are measured here, their meeting is simulated.

    pip install ray
    python scripts/simulate.py --out results/workers.json

Measured, on MNIST's network: the start of Ray and of a worker with its network, and a worker's
seconds for a piece of 50,000 mutations; with two of Ray's workers that do nothing, what the driver
needs to hand out a piece of MNIST's or of ImageNet's images and to collect the answer; the bytes of
a piece. A ResNet-50's labels a second are those in ``--rates``. Simulated: one driver that hands
out one piece after the other, over a link of 1 Gbit/s of its own, to workers that are each a
machine like this one.
"""

from __future__ import annotations

import argparse
import heapq
import json
import pickle
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from bench import RESULTS, SLICE, mnist
from measured import Figures, report, seconds, stream

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.mutation.sensitivity import images_at_once
from nmutant_cli.pipeline.jobs import CountChanges, Here, Job, NetworkFile
from nmutant_cli.pipeline.ray import OnRay
from nmutant_cli.types import Images

WORKERS = (1, 4, 16, 64, 256)
MUTATIONS = 1000
TOGETHER = images_at_once(MUTATIONS)
LINK = 125e6
"""Bytes a second that leave the driver."""
ASKED = 5 / 6
"""Mutations that change something; the others are not asked about."""


class Idle(Job):
    """A job without a network: what is left is to send it and its answers."""

    def done_with(self, label: Any) -> Any:
        return [[0, 0, 0] for _ in self.sources]


def piece(kind: type[Job], images: Images) -> Job:
    network = NetworkFile(SLICE / "model.keras", Mutation(), None, 1000, False)
    sources = [stream(images.shape[1:], i) for i in range(len(images))]
    return kind(network, 1.0, CountChanges(MUTATIONS), images, None, sources)


def makespan(
    pieces: int, workers: int, *, start: float, driver: float, sending: float, work: float
) -> float:
    """Seconds until the last of ``pieces`` is answered.

    ``driver``: what each costs the driver, which does one at a time; ``sending``: seconds on its
    link, one at a time too; ``start``, ``work``: what a worker needs first, and for a piece.
    """
    free = [start] * workers
    driver_free = link_free = 0.0
    for _ in range(pieces):
        driver_free = max(heapq.heappop(free), driver_free) + driver
        link_free = max(driver_free, link_free) + sending
        heapq.heappush(free, link_free + work)
    return max(free)


def measured(images: Images, large: Images, rounds: int) -> Figures:
    figures: Figures = {}
    job, many, here = piece(Job, images), piece(Idle, images), Here()
    job[:1].done_with(here.label(job.network, job.step_size))  # compiles
    for _ in range(rounds):
        workers = OnRay(2)
        took = seconds(lambda w=workers: list(w({"first": job[:1]})))  # type: ignore[misc]
        figures.setdefault("worker_start_seconds", []).append(took)
        workers.close()
        took = seconds(lambda: job.done_with(here.label(job.network, job.step_size)))
        figures.setdefault("piece_seconds.mnist", []).append(took)
    workers = OnRay(2)
    for name, idle in (("mnist", many), ("imagenet", piece(Idle, large))):
        list(workers({str(i): idle for i in range(4)}))
        for _ in range(rounds):
            took = seconds(lambda j=idle: list(workers({str(i): j for i in range(20)})))  # type: ignore[misc]
            figures.setdefault(f"driver_seconds_for_a_piece.{name}", []).append(took / 20)
        figures[f"piece_megabytes.{name}"] = [len(pickle.dumps(idle)) / 1e6]
    workers.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--rates", type=Path, default=RESULTS / "bench-xeon.json", help="of bench.py"
    )
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    _, images = mnist()
    rng = np.random.default_rng(0)
    large = rng.random((TOGETHER, 224, 224, 3), dtype=np.float32)
    figures = measured(np.resize(images, (TOGETHER, *images.shape[1:])), large, args.rounds)
    each = {name: median(values) for name, values in figures.items()}
    bench = json.loads(args.rates.read_text())["figures"]
    rate = bench["forward_images_per_second.resnet50"]["median"]
    # 3,000 samples at three step sizes; all of ImageNet's validation images at one.
    sets = {
        "mnist": (3000 * 3 // TOGETHER, each["piece_seconds.mnist"]),
        "imagenet": (50_000 // TOGETHER, TOGETHER * MUTATIONS * ASKED / rate),
    }
    for name, (pieces, work) in sets.items():
        alone = pieces * work
        for workers in WORKERS:
            took = makespan(
                pieces,
                workers,
                start=each["worker_start_seconds"],
                driver=each[f"driver_seconds_for_a_piece.{name}"],
                sending=1e6 * each[f"piece_megabytes.{name}"] / LINK,
                work=work,
            )
            figures[f"minutes.{name}.{workers}_workers"] = [took / 60]
            figures[f"times_one_worker.{name}.{workers}_workers"] = [alone / took]
    report(figures, args.out, "ray")


if __name__ == "__main__":
    main()
