"""Labels under mutation that the shortcuts of a run change, and that another batch size changes.

    python scripts/labels.py --mnist 1000000 --cifar10 50000 --out results/labels.json

The networks and images are those of ``bench.py``, the step sizes 1, 5 and 10 in turn. bfloat16
comes first where the processor has it, even if that takes longer.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from bench import allconv, mnist
from measured import Figures, asking, report, stream
from tqdm import tqdm

from nmutant_cli.mutation import cascade
from nmutant_cli.mutation.audit import Audit
from nmutant_cli.mutation.sensitivity import Subjects

TOGETHER = 20_000
STEP_SIZES = (1.0, 5.0, 10.0)


def differing(figures: Figures, name: str, model: Any, images: Any, count: int) -> None:
    """Labels under mutation that the shortcuts change, and that another batch size changes."""
    audit, compared = Audit(), {"shortcuts": 0, "batch_size": 0}
    ways = [
        {
            "exact": asking(model, 1000, shortcuts=False, step_size=step_size),
            "shortcuts": asking(model, 1000, audit=audit, step_size=step_size),
            "batch_size": asking(model, 250, shortcuts=False, step_size=step_size),
        }
        for step_size in STEP_SIZES
    ]
    for first in tqdm(range(0, count, TOGETHER), desc=name, disable=None):
        some = min(count - first, TOGETHER)
        drawn = stream(images.shape[1:], "differing", first).take(0, some)
        owner = np.arange(some) % len(images)
        found = {
            way: Subjects(label, images).mutated(owner, drawn)
            for way, label in ways[first // TOGETHER % len(ways)].items()
        }
        for way in compared:
            compared[way] += int((found[way] != found["exact"]).sum())
    figures[f"labels_compared.{name}"] = [count]
    for way, changed in compared.items():
        figures[f"labels_that_{way}_changes.{name}"] = [changed]
    for key, value in audit.as_counts().items():
        figures[f"{key}.{name}"] = [value]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mnist", type=int, default=1_000_000, help="so many labels")
    parser.add_argument("--cifar10", type=int, default=50_000, help="the same, all-convolutional")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    cascade.WORTH = cascade.PAYS = 0.0
    figures: Figures = {}
    differing(figures, "mnist", *mnist(), args.mnist)
    differing(figures, "cifar10_allconv", *allconv(), args.cifar10)
    report(figures, args.out)


if __name__ == "__main__":
    main()
