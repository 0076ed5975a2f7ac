"""Labels under mutation that the shortcuts of a run change, and that another batch size changes.

    python scripts/labels.py --out results/labels.json

An hour for the all-convolutional network of CIFAR10 where it labels 700 images a second.

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

TOGETHER = 100_000
STEP_SIZES = (1.0, 5.0, 10.0)


def differing(figures: Figures, name: str, model: Any, images: Any, count: int, sized: int) -> None:
    """Of ``count`` labels those that the shortcuts change, of ``sized`` another batch size."""
    counted = {
        "shortcuts": ("labels_compared", count),
        "batch_size": ("labels_compared_at_another_batch_size", sized),
    }
    audit, changed = Audit(), dict.fromkeys(counted, 0)
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
        labels = ways[first // TOGETHER % len(ways)]
        exact = Subjects(labels["exact"], images).mutated(owner, drawn)
        for way, (_, until) in counted.items():
            if first < until:
                found = Subjects(labels[way], images).mutated(owner, drawn)
                changed[way] += int((found != exact).sum())
    for way, (key, until) in counted.items():
        figures[f"{key}.{name}"] = [min(until, count)]
        figures[f"labels_that_{way}_changes.{name}"] = [changed[way]]
    for key, value in audit.as_counts().items():
        figures[f"{key}.{name}"] = [value]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="labels of each network")
    parser.add_argument("--sized", type=int, default=300_000, help="at another batch size, too")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    cascade.WORTH = cascade.PAYS = 0.0
    figures: Figures = {}
    differing(figures, "mnist", *mnist(), args.count, args.sized)
    differing(figures, "cifar10_allconv", *allconv(), args.count, args.sized)
    report(figures, args.out)


if __name__ == "__main__":
    main()
