"""The figure of compare: what each detector finds of each sample set."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from nmutant_cli.report.figures.style import GREY, colours, styled


@styled
def comparison_figure(table: pd.DataFrame, dataset: str) -> Figure:
    """A panel for each sample set: AUC, and the true positive rate at 5% false alarms, by detector.

    ``table``: comparison.csv. Points of the second half of the images, with 95% intervals.
    """
    table = table[table["half"] == "report"]
    detectors, sets = (list(dict.fromkeys(table[key])) for key in ("detector", "samples"))
    figure = Figure(
        figsize=(3.2 + 1.9 * len(sets), 1.4 + 0.3 * len(detectors)), layout="constrained"
    )
    figure.suptitle(f"{dataset}: detectors on the same networks and samples", x=0.02, ha="left")
    panels = figure.subplots(1, len(sets), sharex=True, sharey=True, squeeze=False)[0]
    palette = colours(["tpr", "auc"])
    where = np.arange(len(detectors))[::-1]
    for axes, title in zip(panels, sets, strict=True):
        rows = table[table["samples"] == title].set_index("detector").reindex(detectors)
        for key, name, shift in (
            ("tpr_at_5", "found at 5% false alarms", -0.15),
            ("auc", "AUC", 0.15),
        ):
            value, low, high = (rows[f"{key}_{end}"] for end in ("percent", "low", "high"))
            axes.errorbar(
                value,
                where + shift,
                xerr=np.clip([value - low, high - value], 0, None),
                fmt="o",
                markersize=4,
                color=palette["auc" if key == "auc" else "tpr"],
                label=name,
            )
        axes.set_title(title)
        axes.axvline(50, color=GREY, linewidth=0.8, linestyle="--")
        axes.grid(axis="x")
    panels[0].set_xlim(-2, 102)
    panels[0].set_yticks(where, detectors)
    for axes in panels:
        axes.xaxis.set_major_formatter(PercentFormatter(100, decimals=0))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=2, frameon=False)
    return figure
