"""ROC curves of kappa(x), a panel for each step size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, PercentFormatter

from nmutant_cli.report.figures.style import GREY, colours, styled
from nmutant_cli.report.roc import roc_curve
from nmutant_cli.report.tables import NORMAL
from nmutant_cli.report.text import number


@styled
def roc_figure(
    kappa: pd.DataFrame, titles: Mapping[str, str], step_sizes: Sequence[float], dataset: str
) -> Figure:
    """True positive rate of each adversarial set against the false alarms among normal samples.

    ``kappa`` as for `tables.table1`. Sets without samples have no curve. The horizontal axis is the
    square root of the rate: what matters is on its left.
    """
    steps = sorted(step_sizes)
    figure = Figure(figsize=(1.8 + 3.1 * len(steps), 3.9), layout="constrained")
    figure.suptitle(
        f"{dataset}: adversarial against normal samples by kappa alone", x=0.02, ha="left"
    )
    panels = figure.subplots(1, len(steps), sharex=True, sharey=True, squeeze=False)[0]
    adversarial = {slug: title for slug, title in titles.items() if slug != NORMAL}
    palette = colours(adversarial.values())
    for axes, step in zip(panels, steps, strict=True):
        at_step = kappa[np.isclose(kappa["step_size"].to_numpy(float), step)]
        normal = at_step.loc[at_step["samples"] == NORMAL, "kappa"].to_numpy()
        for slug, title in adversarial.items():
            values = at_step.loc[at_step["samples"] == slug, "kappa"].to_numpy()
            if len(values) and len(normal):
                false, true = roc_curve(normal, values)
                axes.plot(false, true, color=palette[title], linewidth=1.6, label=title)
        axes.set_title(f"step size {number(step)}")
        axes.grid()
    panels[0].set_xscale("function", functions=(np.sqrt, np.square))
    panels[0].set_xlim(0, 1)
    panels[0].set_ylim(0, 1.01)
    ticks = [0, 0.01, 0.05, 0.2, 0.5, 1]
    for axes in panels:
        diagonal = np.linspace(0, 1, 101)
        axes.plot(diagonal, diagonal, color=GREY, linewidth=1, linestyle="--", label="chance")
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("false alarms (square root)")
    panels[0].set_ylabel("found")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    return figure
