"""Table 1 of several networks beside the published one, a panel for each step size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nmutant_cli.paper.published import TABLE1_KEY, table1
from nmutant_cli.report.figures.style import GREY, styled
from nmutant_cli.report.text import number


@styled
def spread_figure(runs: Sequence[pd.DataFrame], dataset: str) -> Figure:
    """A dot for each network's mean kappa, with the published mean and its 99% interval.

    ``runs``: Table 1 of each network. The horizontal axis is logarithmic; a kappa of 0 has no dot.
    """
    every = pd.concat([run.assign(network=i) for i, run in enumerate(runs)], ignore_index=True)
    every = every.dropna(subset="kappa_percent")
    theirs = table1().set_index(TABLE1_KEY)
    steps = sorted(every["step_size"].unique())
    names = list(dict.fromkeys(every["samples"]))
    figure = Figure(figsize=(1.6 + 3.0 * len(steps), 1.6 + 0.42 * len(names)), layout="constrained")
    figure.suptitle(
        f"{dataset}: kappa of {len(runs)} networks beside the published one", x=0.02, ha="left"
    )
    panels = figure.subplots(1, len(steps), sharey=True, squeeze=False)[0]
    for axes, step in zip(panels, steps, strict=True):
        for y, name in enumerate(names):
            at = every[(every["step_size"] == step) & (every["samples"] == name)]
            found = at["kappa_percent"].to_numpy(float)
            found = found[found > 0]
            key = (dataset, step, name)
            if key in theirs.index:
                mean, half = theirs.loc[key, ["kappa_percent", "ci99_percent"]].to_numpy(float)
                low = max(mean - half, mean / 100)
                axes.plot(
                    [low, mean + half],
                    [y, y],
                    color=GREY,
                    linewidth=7,
                    alpha=0.35,
                    label="published, 99% interval",
                )
                axes.plot(mean, y, "|", color="black", markersize=14, label="published")
            axes.plot(
                found,
                np.full(len(found), y),
                "o",
                color="#0072B2",
                markersize=5,
                alpha=0.8,
                label="ours, a network each",
            )
        axes.set_title(f"step size {number(step)}")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="x")
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(
        unique.values(), unique.keys(), loc="outside lower center", ncols=3, frameon=False
    )
    return figure
