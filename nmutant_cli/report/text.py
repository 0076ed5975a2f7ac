"""Rows as aligned plain text for the terminal, without pandas."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

SHORTEST = ("step_size", "mu", "kappa1")
"""Columns of settings, written without trailing zeros. Other numbers are given two decimals."""


def number(value: float) -> str:
    """``value`` with up to six significant digits and no trailing zeros: 1.0 -> "1"."""
    return f"{value:.6g}"


def rows_to_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row or more with the same columns, whose names are the first line."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    numeric = [n for n, values in columns.items() if isinstance(values[0], int | float)]
    return aligned({n: [_cell(n, value) for value in columns[n]] for n in columns}, numeric)


def _cell(column: str, value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return number(value) if column in SHORTEST else f"{value:.2f}"


def aligned(columns: Mapping[str, Sequence[str]], right: Collection[str]) -> str:
    """Columns of cells under their names, those named in ``right`` to the right."""
    lines = []
    for name, values in columns.items():
        cells = [name, *values]
        width = max(map(len, cells))
        lines.append([c.rjust(width) if name in right else c.ljust(width) for c in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*lines, strict=True))
