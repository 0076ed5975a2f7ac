"""Images beside what was done to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from nmutant_cli.report.figures.style import WRONG, image_of, styled
from nmutant_cli.types import AnyArray


@dataclass(frozen=True)
class PanelRow:
    """One row of :func:`image_panel`: a sample of one attack set and one mutation of it.

    The images have shape ``(h, w)`` or ``(h, w, channels)`` with 1 or 3 channels and values in
    [0, 1]; a mutation may leave that range and is clipped to be shown. Labels are what the network
    calls each image, a class number or name.
    """

    title: str
    original: AnyArray
    adversarial: AnyArray
    mutation: AnyArray
    original_label: int | str
    adversarial_label: int | str
    mutation_label: int | str


@styled
def image_panel(rows: Sequence[PanelRow], dataset: str) -> Figure:
    """For each row: original, adversarial image, their difference, a mutation with its label.

    The difference has its own scale in each row; of an RGB image it is that of the channel that
    changed most.
    """
    lines = max(1, len(rows))
    figure = Figure(figsize=(8.0, 1.95 * lines + 0.7), layout="constrained")
    figure.suptitle(f"{dataset}: a sample of each attack and a mutation of it", x=0.02, ha="left")
    if not rows:
        figure.text(0.5, 0.5, "no adversarial samples", ha="center")
        return figure
    grid = figure.subplots(lines, 4, squeeze=False)
    for row, axes in zip(rows, grid, strict=True):
        original, adversarial, mutation = map(
            image_of, (row.original, row.adversarial, row.mutation)
        )
        change = adversarial - original
        if change.ndim == 3:
            strongest = np.abs(change).argmax(axis=2, keepdims=True)
            change = np.take_along_axis(change, strongest, axis=2)[..., 0]
        shown = (
            (axes[0], original, "original", row.original_label),
            (axes[1], adversarial, "adversarial", row.adversarial_label),
            (axes[3], mutation, "mutated", row.mutation_label),
        )
        for ax, image, title, label in shown:
            ax.imshow(np.clip(image, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            colour = "black" if label == row.original_label else WRONG
            ax.set_title(f"{title}: {label}", size=10, loc="center", color=colour)
        limit = float(np.abs(change).max()) or 1.0
        scale = {"vmin": -limit, "vmax": limit, "cmap": "RdBu_r", "interpolation": "nearest"}
        drawn = axes[2].imshow(change, **scale)
        axes[2].set_title("difference", size=10, loc="center")
        bar = figure.colorbar(drawn, ax=axes[2], ticks=[-limit, 0, limit], fraction=0.05, pad=0.03)
        bar.ax.set_yticklabels([f"−{limit:.2f}", "0", f"+{limit:.2f}"], size=8)
        bar.outline.set_visible(False)
        for ax in axes:
            ax.set_xticks([])
            ax.set_yticks([])
            for spine in ax.spines.values():
                spine.set_visible(True)
        axes[0].set_ylabel(row.title, size=11, weight="bold", labelpad=8)
    return figure
