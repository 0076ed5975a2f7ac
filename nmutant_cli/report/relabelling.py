"""The majority label under mutation as a corrected label (promised in section 6 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd


def relabelling(
    kappa: pd.DataFrame, titles: Mapping[str, str], dataset: str, step_sizes: Sequence[float]
) -> pd.DataFrame:
    """How often the majority label restores the truth, and how often it spoils a right label.

    ``kappa`` has a row per sample and step size with ``samples, step_size, true, label, majority``.
    Columns: ``n``; ``right_before`` and ``right_after``, how many samples have their true label
    without and with it; ``restored`` of the wrong ones and ``spoiled`` of the right ones, counts.
    """
    rows = []
    for step in sorted(step_sizes):
        at_step = kappa[np.isclose(kappa["step_size"].to_numpy(float), step)]
        for slug, title in titles.items():
            chosen = at_step[at_step["samples"] == slug]
            before = chosen["label"] == chosen["true"]
            after = chosen["majority"] == chosen["true"]
            counts = before.sum(), after.sum(), (~before & after).sum(), (before & ~after).sum()
            rows.append((dataset, step, title, len(chosen), *map(int, counts)))
    columns = ["n", "right_before", "right_after", "restored", "spoiled"]
    return pd.DataFrame(rows, columns=["dataset", "step_size", "samples", *columns])
