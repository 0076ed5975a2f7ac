"""Joint success against the attacker's budget, a panel for each detector."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from nmutant_cli.report.evasion import WORST
from nmutant_cli.report.figures.style import FURTHER, styled

COLUMNS = 3
FAINT = "#CFCFCF"
OTHERS = "the other attacks"


@styled
def evasion_figure(table: pd.DataFrame, dataset: str) -> Figure:
    """A line for each attack, the worst case in black. ``table`` as of `evasion.joint_success`.

    As many attacks have a colour as there are colours to tell apart: those that rank highest
    against some detector, by success over all budgets. The others are grey.
    """
    detectors = list(dict.fromkeys(table["detector"]))
    attacks = [name for name in dict.fromkeys(table["attack"]) if name != WORST]
    success = table.pivot_table("joint_success_percent", "attack", "detector").loc[attacks]
    ranks = success.rank(ascending=False).agg(["min", "mean"], axis=1)
    best = ranks.sort_values(["min", "mean"], kind="stable").index[: len(FURTHER)]
    palette = dict(zip(best, FURTHER, strict=False)) | {WORST: "black"}
    attacks.sort(key=lambda name: name in palette)  # grey lines lie below the others
    columns = max(1, min(COLUMNS, len(detectors)))
    lines = max(1, -(-len(detectors) // columns))
    figure = Figure(figsize=(2.2 + 3.4 * columns, 0.9 + 3.1 * lines), layout="constrained")
    figure.suptitle(
        f"{dataset}: images that fool the network and pass the detector", x=0.02, ha="left"
    )
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes, detector in zip(grid.flat, detectors, strict=False):
        here = table[table["detector"] == detector]
        for attack in [*attacks, WORST]:
            curve = here[here["attack"] == attack].sort_values("budget")
            if len(curve):
                axes.plot(
                    curve["budget"],
                    curve["joint_success_percent"],
                    color=palette.get(attack, FAINT),
                    linewidth=2.6 if attack == WORST else 1.8 if attack in palette else 1.0,
                    drawstyle="steps-post",
                    label=attack if attack in palette else OTHERS,
                )
        axes.set_title(detector)
        axes.grid()
        axes.yaxis.set_major_formatter(PercentFormatter(100, decimals=0))
    grid[0, 0].set_ylim(-1, 101)
    for axes in grid.flat[len(detectors) :]:
        axes.set_axis_off()
    for axes in grid.flat[: len(detectors)][-columns:]:  # nothing stands below them
        axes.set_xlabel("L2 budget")
        axes.tick_params(labelbottom=True)
    for axes in grid[:, 0]:
        axes.set_ylabel("joint success")
    named = {
        label: handle
        for axes in grid.flat
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    named |= {OTHERS: named.pop(OTHERS)} if OTHERS in named else {}  # comes last
    figure.legend(named.values(), named.keys(), loc="outside right upper", frameon=False)
    return figure
