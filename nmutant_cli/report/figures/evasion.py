"""Joint success against the attacker's budget, a panel for each detector."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from nmutant_cli.report.evasion import WORST
from nmutant_cli.report.figures.style import FURTHER, KNOWN, colours, styled

COLUMNS = 4
DASHES = ("-", "--", ":", "-.")


@styled
def evasion_figure(table: pd.DataFrame, dataset: str) -> Figure:
    """A line for each attack, the worst case in black. ``table`` as of `evasion.joint_success`."""
    detectors = list(dict.fromkeys(table["detector"]))
    attacks = [name for name in dict.fromkeys(table["attack"]) if name != WORST]
    palette = colours(attacks) | {WORST: "black"}
    further = [name for name in attacks if name not in KNOWN]  # the palette begins again
    dashes = {name: DASHES[i // len(FURTHER) % len(DASHES)] for i, name in enumerate(further)}
    columns = max(1, min(COLUMNS, len(detectors)))
    lines = max(1, -(-len(detectors) // columns))
    figure = Figure(figsize=(2.2 + 2.8 * columns, 0.9 + 2.9 * lines), layout="constrained")
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
                    color=palette[attack],
                    linestyle=dashes.get(attack, "-"),
                    linewidth=2.2 if attack == WORST else 1.5,
                    drawstyle="steps-post",
                    label=attack,
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
    figure.legend(named.values(), named.keys(), loc="outside right upper", frameon=False)
    return figure
