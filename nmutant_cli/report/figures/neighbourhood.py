"""Figures 1 and 2 of the paper as pictures of a run: one mutation of a normal and of an
adversarial image, and the labels that the network gives around each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nmutant_cli.report.figures.style import FURTHER, KNOWN, WRONG, image_of, styled
from nmutant_cli.types import AnyArray, Ints, Predict

POINTS = 81
"""The map has so many points a side."""
TOGETHER = 12
"""Rows of the map asked for in one call: a whole batch of 1,000 images."""
COLOURS = (*KNOWN.values(), *FURTHER)


@dataclass(frozen=True)
class Neighbourhood:
    """An image, a mutation of it, and the labels around it.

    ``image``, ``mutated``: ``(h, w, c)`` in [0, 1], the mutated one possibly beyond. ``around``:
    ``(k, k)`` labels on a square with the image in its middle and sides of twice ``reach`` (L2).
    """

    title: str
    image: AnyArray
    label: int
    mutated: AnyArray
    mutated_label: int
    around: Ints
    reach: float


def labels_around(
    predict: Predict, image: AnyArray, reach: float, rng: np.random.Generator, points: int = POINTS
) -> Ints:
    """Labels on a square through ``image`` along two random orthogonal directions.

    ``image``: ``(h, w, c)``. Result ``(points, points)``, from -``reach`` to ``reach`` (L2) along
    each direction; nothing is clipped, as mutations are not.
    """
    first, second = np.linalg.qr(rng.standard_normal((image.size, 2)))[0].T
    steps = np.linspace(-reach, reach, points)
    rows = []
    for down in np.array_split(steps, -(-points // TOGETHER)):
        moved = image.reshape(-1) + down[:, None, None] * first + steps[:, None] * second
        rows.append(predict(moved.reshape(-1, *image.shape).astype(np.float32)))
    return np.concatenate(rows).reshape(points, points).astype(np.int64)


def share_of_other_labels(around: Ints, label: int) -> float:
    """The share of the disc inscribed in the square whose label is not ``label``."""
    axis = np.linspace(-1, 1, len(around))
    disc = np.add.outer(axis**2, axis**2) <= 1
    return float((around != label)[disc].mean())


@styled
def neighbourhood_figure(rows: Sequence[Neighbourhood], dataset: str) -> Figure:
    """For each row the image, the mutation with its label, and the map of labels around."""
    figure = Figure(figsize=(7.6, 2.5 * max(1, len(rows)) + 0.9), layout="constrained")
    figure.suptitle(f"{dataset}: the same mutation, and the labels around", x=0.02, ha="left")
    if not rows:
        figure.text(0.5, 0.5, "no adversarial samples", ha="center")
        return figure
    seen = sorted({int(label) for row in rows for label in np.unique(row.around)})
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(seen))]
    grid = figure.subplots(len(rows), 3, squeeze=False)
    for row, axes in zip(rows, grid, strict=True):
        for ax, image, title, label in (
            (axes[0], row.image, row.title, row.label),
            (axes[1], row.mutated, "mutated", row.mutated_label),
        ):
            shown = np.clip(image_of(image), 0, 1)
            ax.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            changed = label != row.label
            ax.set_title(f"{title}: {label}", loc="center", color=WRONG if changed else "black")
        axes[2].imshow(
            np.searchsorted(seen, row.around),
            cmap=ListedColormap(colours),
            vmin=-0.5,
            vmax=len(seen) - 0.5,
            interpolation="nearest",
            extent=(-row.reach, row.reach, -row.reach, row.reach),
            origin="lower",
        )
        axes[2].plot(0, 0, "o", color="white", markeredgecolor="black", markersize=7)
        share = share_of_other_labels(row.around, row.label)
        axes[2].set_title(f"{share:.0%} of the disc has another label", size=10, loc="center")
        angle = np.linspace(0, 2 * np.pi, 200)
        axes[2].plot(
            row.reach * np.cos(angle), row.reach * np.sin(angle), color="white", linewidth=1
        )
        axes[2].set_xlabel("L2 distance", size=9)
        for ax in axes[:2]:
            ax.set_xticks([])
            ax.set_yticks([])
    patches = [
        Patch(color=colour, label=str(name)) for colour, name in zip(colours, seen, strict=True)
    ]
    figure.legend(handles=patches, title="label", loc="outside right center", frameon=False)
    return figure
