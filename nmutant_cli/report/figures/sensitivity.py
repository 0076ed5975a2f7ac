"""Figure 4, the distributions of kappa(x) and a panel of images.

Every function takes tables or arrays and returns a matplotlib ``Figure``; none shows or saves it,
or touches pyplot's state. :func:`to_png` turns a figure into bytes that depend on nothing but the
figure (and the version of matplotlib).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

from nmutant_cli.errors import ArtifactError
from nmutant_cli.report.figures.style import (
    GREY,
    MARKERS,
    colours,
    log_axis,
    styled,
)
from nmutant_cli.report.tables import NORMAL
from nmutant_cli.report.text import number
from nmutant_cli.types import Floats

LOG_FROM = 20
"""The spread of the ratios from which Figure 4 has a logarithmic axis."""
BINS = 25
NOR = r"$\kappa_\mathrm{nor}$"
RATIO = r"$\kappa_\mathrm{adv}\,/\,\kappa_\mathrm{nor}$"


def ratios(means: pd.DataFrame) -> pd.DataFrame:
    """kappa_adv / kappa_nor: a row per step size, a column per adversarial set (Figure 4).

    ``means`` has the columns ``samples, step_size, kappa_percent``: Table 1, the published one, or
    better `tables.means`, which is not rounded. nan where a set has no samples,
    where there are no normal ones, and where kappa_nor is 0.
    """
    for column in ("samples", "step_size", "kappa_percent"):
        if column not in means.columns:
            raise ArtifactError(f"table 1: no column {column}")
    names = list(dict.fromkeys(means["samples"]))
    wide = means.pivot(index="step_size", columns="samples", values="kappa_percent")
    wide = wide.reindex(columns=names).astype(np.float64)
    normal = wide[NORMAL] if NORMAL in wide else pd.Series(np.nan, wide.index)
    return wide.drop(columns=NORMAL, errors="ignore").div(normal.where(normal > 0), axis=0)


@styled
def ratio_figure(means: pd.DataFrame, dataset: str) -> Figure:
    """Figure 4: kappa_adv / kappa_nor against the step size, one line per adversarial set.

    ``means`` as for :func:`ratios`. A step size at which kappa_nor is 0 has no ratio: it is left
    out and named under the axis. The axis is logarithmic where the ratios spread more than 20
    times.
    """
    table = ratios(means)
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    steps = table.index.to_numpy(dtype=np.float64)
    palette = colours(table.columns)
    values = table.to_numpy(dtype=np.float64)
    shown = values[np.isfinite(values) & (values > 0)]
    for marker, name in zip(MARKERS * 3, table.columns, strict=False):
        line = table[name].to_numpy(dtype=np.float64)
        if np.isfinite(line).any():
            (drawn,) = axes.plot(steps, line, marker=marker, color=palette[name], label=name)
            drawn.set(linewidth=1.8, clip_on=False, zorder=3)
    if shown.size:
        axes.axhline(1, color=GREY, linewidth=1.2, linestyle="--", label="no difference")
        figure.legend(loc="outside right upper", frameon=False)
    else:
        axes.text(0.5, 0.5, "no ratio to show", transform=axes.transAxes, ha="center")
    if steps.size:  # room for the steps without a ratio too
        margin = 0.05 * np.ptp(steps) or 1.0
        axes.set_xlim(steps.min() - margin, steps.max() + margin)
    if shown.size and shown.max() > LOG_FROM * shown.min():
        log_axis(axes, min(1.0, shown.min()), max(1.0, shown.max()))
        axes.set_ylabel(f"{RATIO} (times, log scale)")
    else:
        axes.set_ylim(0, 1.08 * max(1.0, shown.max(initial=0)))
        axes.set_ylabel(f"{RATIO} (times)")
    normal = means.loc[means["samples"] == NORMAL]
    zero = [number(step) for step in normal.loc[normal["kappa_percent"] == 0, "step_size"]]
    note = f"\nno ratio at step size {', '.join(zero)}: {NOR} is 0" if zero else ""
    axes.set_xlabel(f"step size of the mutations{note}")
    axes.set_xticks(steps, [number(step) for step in steps])
    axes.grid(axis="y")
    axes.set_title(
        f"{dataset}: how many times more sensitive\nadversarial samples are than normal ones",
        weight="bold",
    )
    return figure


@styled
def kappa_histograms(
    kappa: pd.DataFrame, titles: Mapping[str, str], step_size: float, dataset: str
) -> Figure:
    """The distribution of kappa(x): a panel for the normal samples and for each adversarial set.

    ``kappa`` as for `tables.table1`. A set without samples at ``step_size`` has
    no panel; the normal samples are in grey behind the others. The axis of kappa ends where the
    data do. The vertical axis is the square root of the share, so that a few samples among hundreds
    can be seen beside a bar near 100%.
    """
    at_step = kappa[np.isclose(kappa["step_size"].to_numpy(dtype=np.float64), step_size)]
    found = {
        title: at_step.loc[at_step["samples"] == slug, "kappa"].to_numpy(dtype=np.float64)
        for slug, title in titles.items()
    }
    palette = colours(found)
    sets = {title: values for title, values in found.items() if values.size}
    normal = sets.get(NORMAL)
    columns = min(3, max(1, len(sets)))
    lines = max(1, -(-len(sets) // columns))
    size = (max(5.0, 3.2 * columns), 2.4 * lines + 1.0)
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat)
    # The axes are shared: what is set on the first holds for all.
    top = max((float(values.max()) for values in sets.values()), default=1.0) or 0.05  # all are 0
    panels[0].set_xlim(0, top)
    panels[0].set_yscale("function", functions=(np.sqrt, np.square))
    panels[0].set_ylim(0, 100)
    panels[0].yaxis.set_major_locator(FixedLocator([0, 1, 5, 20, 50, 100]))
    panels[0].xaxis.set_major_locator(MaxNLocator(5))
    panels[0].xaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=""))
    for axes, (title, values) in zip(panels, sets.items(), strict=False):
        axes.grid(axis="y")
        if normal is not None:
            _bars(axes, normal, top, GREY, outline=False)
        if title != NORMAL:
            _bars(axes, values, top, palette[title], outline=True)
        mean = f"mean {100 * values.mean():.2f}%, n = {values.size}"
        axes.set_title(f"{title}{' (grey)' if title == NORMAL else ''}: {mean}", size=10)
    if not sets:
        panels[0].text(0.5, 25, "no samples", ha="center")
    for axes in panels[len(sets) or 1 :]:
        axes.remove()
    for axes in panels[max(0, len(sets) - columns) : len(sets)]:
        axes.tick_params(labelbottom=True)  # the lowest panel of each column
    figure.supxlabel("κ(x): share of the mutations that change the label (%)", size=10)
    figure.supylabel("share of the samples (%, √ scale)", size=10)
    title = f"{dataset}: sensitivity κ(x) at step size {number(step_size)}"
    figure.suptitle(title, x=0.02, ha="left")
    return figure


def _bars(axes: Axes, values: Floats, top: float, colour: str, outline: bool) -> None:
    """One histogram over [0, top], in percent of the samples."""
    counts, edges = np.histogram(values, bins=BINS, range=(0, top))
    share = 100 * counts / values.size
    alpha = 0.25 if outline else 0.5
    axes.stairs(share, edges, fill=True, color=colour, alpha=alpha, linewidth=0)
    if outline:
        axes.stairs(share, edges, color=colour, linewidth=1.8)
