"""What all figures share: colours, axes, and how one becomes a PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from nmutant_cli.report.tables import NORMAL
from nmutant_cli.report.text import number
from nmutant_cli.types import AnyArray, Floats

P = ParamSpec("P")
R = TypeVar("R")

KNOWN = {"FGSM": "#0072B2", "C&W": "#D55E00", "JSMA": "#009E73", "BB": "#CC79A7", "WL": "#E69F00"}
"""The sample sets of the paper in the colour-blind-safe palette of Okabe and Ito."""
FURTHER = ("#56B4E9", "#882255", "#6B5B00", "#332288", "#44AA99")
GREY = "#8A8A8A"
"""Normal samples."""
WRONG = "#B03A00"
"""A label that is not the original's."""
MARKERS = "osD^vP*Xh<>"
DPI = 144
STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.axisbelow": True,
    "grid.color": "#E2E2E2",
    "figure.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
}


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run ``function`` under our style whatever the user's matplotlibrc says."""

    @wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()  # leaves the backend alone
            matplotlib.rcParams.update(STYLE)
            return function(*args, **kwargs)

    return inner


@styled
def to_png(figure: Figure, dpi: int = DPI) -> bytes:
    """``figure`` as a PNG file, without the time or program in its metadata."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each printed name of a sample set; the paper's sets always have theirs."""
    names = list(dict.fromkeys(names))
    unknown = [name for name in names if name not in KNOWN and name != NORMAL]
    given = {name: FURTHER[i % len(FURTHER)] for i, name in enumerate(unknown)}
    return {name: GREY if name == NORMAL else {**KNOWN, **given}[name] for name in names}


def log_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic y axis with plain numbers at 1, 2, 5, 10, ..."""
    axes.set_yscale("log")
    axes.set_ylim(low / 1.15, high * 1.2)
    ticks = [m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5)]
    axes.yaxis.set_major_locator(FixedLocator([t for t in ticks if low / 1.15 <= t <= high * 1.2]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def image_of(image: AnyArray) -> Floats:
    """``(h, w)`` for a grey image, ``(h, w, 3)`` for RGB."""
    values = np.asarray(image, dtype=np.float64)
    return values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
