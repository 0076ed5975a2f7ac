"""Joint success of the worst case against the attacker's budget, a line for each detector."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from nmutant_cli.report.evasion import WORST
from nmutant_cli.report.figures.style import FURTHER, KNOWN, styled

COLOURS = (*KNOWN.values(), *FURTHER)
STYLES = ("-", "--", ":")


@styled
def evasion_figure(table: pd.DataFrame, dataset: str) -> Figure:
    """Of `evasion.joint_success` the rows of the worst case, with their 95% intervals."""
    table = table[table["attack"] == WORST]
    figure = Figure(figsize=(8.4, 4.4), layout="constrained")
    figure.suptitle(
        f"{dataset}: images that fool the network and pass the detector", x=0.02, ha="left"
    )
    axes = figure.subplots()
    for place, detector in enumerate(dict.fromkeys(table["detector"])):
        curve = table[table["detector"] == detector].sort_values("budget")
        turn, colour = divmod(place, len(COLOURS))
        axes.fill_between(
            curve["budget"], curve["low"], curve["high"], step="post", linewidth=0,
            color=COLOURS[colour], alpha=0.12,
        )  # fmt: skip
        axes.plot(
            curve["budget"], curve["joint_success_percent"], drawstyle="steps-post", linewidth=2,
            color=COLOURS[colour], linestyle=STYLES[turn % len(STYLES)], label=detector,
        )  # fmt: skip
    axes.grid()
    axes.set_ylim(-1, 101)
    axes.yaxis.set_major_formatter(PercentFormatter(100, decimals=0))
    axes.set_xlabel("how far the image may be moved (L2)")
    axes.set_ylabel("of the images, by the best attack")
    figure.legend(loc="outside right upper", frameon=False)
    return figure
