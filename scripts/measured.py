"""What benchmarks measure with, and how it is printed and written beside the machine's name."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.mutation.audit import Audit
from nmutant_cli.mutation.cascade import labeller
from nmutant_cli.mutation.operator import MutationStream
from nmutant_cli.mutation.sensitivity import FixedMutations, Labeller
from nmutant_cli.networks import backend, inference

Figures = dict[str, list[float]]
"""A figure and what each round gave."""


def report(figures: Figures, out: Path | None, *libraries: str) -> None:
    """Median, smallest and largest of each figure, to stdout and to ``out``.

    ``libraries``: packages besides Keras's own whose versions matter.
    """
    shown = {
        name: {
            "median": round(statistics.median(values), 3),
            "min": round(min(values), 3),
            "max": round(max(values), 3),
            "runs": len(values),
        }
        for name, values in figures.items()
    }
    print(f"{'':44}{'median':>10}{'min':>10}{'max':>10}{'runs':>6}")
    for name, row in shown.items():
        print(f"{name:44}" + "".join(f"{row[k]:10g}" for k in ("median", "min", "max")), end="")
        print(f"{row['runs']:6d}")
    machine = {
        "device": backend.device(),
        "processor": processor(),
        "backend": backend.name(),
        "python": platform.python_version(),
        **{library: version(library) for library in ("keras", backend.name(), "numpy", *libraries)},
    }
    print(", ".join(f"{k} {v}" for k, v in machine.items()))
    if out:
        out.write_text(json.dumps({"machine": machine, "figures": shown}, indent=1) + "\n")
        print(out)


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if os.name == "posix" else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def forward(model: Any, images: Any, batch: int) -> float:
    """Images a second through the compiled network alone."""
    logits = inference.logits_fn(model, batch)
    return len(images) / seconds(lambda: logits(images))


def shared(shape: Any, count: int) -> FixedMutations:
    return FixedMutations(stream(shape, "shared").take(0, count))


def stream(shape: Any, *names: str | int) -> MutationStream:
    return MutationStream(shape, Mutation(), 0, "bench", *names)


def asking(
    model: Any,
    batch: int,
    *,
    shortcuts: bool = True,
    audit: Audit | None = None,
    step_size: float = 1.0,
) -> Labeller:
    """What labels mutated images; without ``shortcuts`` each label is asked in float32."""
    audit = audit or Audit()
    label = labeller(model, audit, mutation=Mutation(), batch_size=batch, shortcuts=shortcuts)
    return label.at(step_size)
