"""What each sequential test does over the whole range of kappa: OC and ASN curves."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from nmutant_cli.detection.exact import curves
from nmutant_cli.detection.sprt import SequentialTest
from nmutant_cli.report.figures.style import GREY, MARKERS, log_axis, styled
from nmutant_cli.report.text import number

LOG_BELOW = 0.05
"""The p0 below which the axis of kappa is logarithmic."""
POINTS = 161


@styled
def plan_figure(tests: Mapping[str, Mapping[float, SequentialTest]], title: str) -> Figure:
    """P(adversarial), P(undecided) and the mean number of mutations against kappa.

    ``tests[rule][mu]``: a column of panels for each rule, a curve for each mu. The first row is the
    operating characteristic, with a mark at each p0 and p1 and dashed lines at alpha and 1 - beta,
    where the marks would lie at best; the last is the average sample number in real mutations.
    """
    everyone = [test for by_mu in tests.values() for test in by_mu.values()]
    smallest = min(test.p0 for test in everyone)
    log = smallest < LOG_BELOW
    kappas = np.geomspace(smallest / 10, 1, POINTS) if log else np.linspace(0, 1, POINTS)
    # The marks are points of the curves, however few others there are.
    kappas = np.unique([*kappas, *(p for test in everyone for p in (test.p0, test.p1))])
    mus = list(dict.fromkeys(mu for by_mu in tests.values() for mu in by_mu))
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(mus)))
    palette = dict(zip(mus, shades, strict=True))

    size = (2.2 + 3.0 * len(tests), 7.6)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, x=0.02, ha="left")
    least = 1e9
    grid = figure.subplots(3, len(tests), sharex=True, sharey="row", squeeze=False)
    for column, (rule, by_mu) in zip(grid.T, tests.items(), strict=True):
        column[0].set_title(rule, weight="bold")
        for marker, (mu, test) in zip(MARKERS * 9, by_mu.items(), strict=False):
            at = curves(test, kappas)
            least = min(least, at.mean_mutations.min())
            values = (at.adversarial, at.undecided, at.mean_mutations)
            for axes, value in zip(column, values, strict=True):
                axes.plot(kappas, value, color=palette[mu], linewidth=1.6, zorder=3)
            marks = np.searchsorted(kappas, (test.p0, test.p1))
            shown = {"color": palette[mu], "linestyle": "", "markersize": 5, "zorder": 4}
            column[0].plot(
                kappas[marks], at.adversarial[marks], marker=marker, clip_on=False, **shown
            )
        test = next(iter(by_mu.values()))
        for promised in (test.alpha, 1 - test.beta):
            column[0].axhline(promised, color=GREY, linewidth=1, linestyle="--")
        for axes in column:
            axes.grid(axis="y")
            _kappa_axis(axes, log, kappas[0])
        column[-1].set_xlabel("κ" + (" (log scale)" if log else ""))
    for axes in grid[:2, 0]:
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    log_axis(grid[2, 0], least, max(test.max_mutations for test in everyone))
    names = ("P(adversarial | κ)", "P(undecided | κ)", "mean mutations (log scale)")
    for axes, name in zip(grid[:, 0], names, strict=True):
        axes.set_ylabel(name)
    figure.align_ylabels(grid[:, 0])
    lines = [
        Line2D([], [], color=palette[mu], marker=marker, markersize=5, label=f"μ = {number(mu)}")
        for marker, mu in zip(MARKERS * 9, mus, strict=False)
    ]
    lines.append(Line2D([], [], color="black", marker="o", linestyle="", label="at p0, p1"))
    lines.append(Line2D([], [], color=GREY, linestyle="--", label="α, 1 − β"))
    figure.legend(handles=lines, loc="outside right upper", frameon=False)
    return figure


def _kappa_axis(axes: Axes, log: bool, first: float) -> None:
    axes.set_xlim(first, 1)
    if log:
        axes.set_xscale("log")
        decades = [10.0**e for e in range(-8, 1) if 10.0**e >= first]
        axes.xaxis.set_major_locator(FixedLocator(decades))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(FixedLocator([0, 0.2, 0.4, 0.6, 0.8, 1]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
