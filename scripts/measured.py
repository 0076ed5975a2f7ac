"""What the benchmarks measured: printed, and written beside the machine it was measured on."""

from __future__ import annotations

import json
import os
import platform
import statistics
from importlib.metadata import version
from pathlib import Path

from nmutant_cli.networks import backend

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
