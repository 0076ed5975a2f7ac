"""Records to tables: Table 1 (sensitivity) and Table 2 (detection) of arXiv 1805.05010.

Both are plain functions of the per-sample records and leave out nothing: a sample set with no
samples has a row with empty values. ``titles`` maps each sample set, in the order of the rows, to
the name it is printed under; ``normal`` is the set of normal samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

from nmutant_cli.detection.intervals import mean_interval
from nmutant_cli.errors import ArtifactError
from nmutant_cli.mutation.sensitivity import half_width
from nmutant_cli.report.text import SHORTEST, aligned, number
from nmutant_cli.types import Bools

NORMAL = "normal"
VERDICTS = ("adversarial", "normal", "undecided")

KAPPA_COLUMNS = ("samples", "step_size", "kappa")
DETECTION_COLUMNS = ("samples", "rule", "mu", "verdict", "mutations", "label_changes")

WHOLE = ("n", "adversary", "identified", "undecided")
"""Columns of counts."""


def means(
    kappa: pd.DataFrame,
    titles: Mapping[str, str],
    dataset: str,
    step_sizes: Iterable[float],
    confidence: float,
) -> pd.DataFrame:
    """:func:`table1` before rounding, for what is computed from it (Figure 4)."""
    kappa = _checked(kappa, "kappa.csv", KAPPA_COLUMNS, ("step_size", "kappa"), titles)
    if not kappa["kappa"].between(0, 1).all():
        raise ArtifactError("kappa.csv: a kappa lies outside [0, 1]")
    rows = []
    for step in sorted(step_sizes):
        at_step = _equal(kappa["step_size"], step)
        for slug, title in titles.items():
            values = kappa.loc[at_step & (kappa["samples"] == slug).to_numpy(), "kappa"].to_numpy()
            mean = float(values.mean()) if values.size else math.nan
            ends = half_width(values, confidence), *mean_interval(values, confidence)
            percent = (100 * value for value in (mean, *ends))
            rows.append((dataset, step, title, values.size, *percent))
    ci = f"ci{number(100 * confidence)}_percent"
    measured = ["kappa_percent", ci, "kappa_low", "kappa_high"]
    return pd.DataFrame(rows, columns=["dataset", "step_size", "samples", "n", *measured])


def table1(
    kappa: pd.DataFrame,
    titles: Mapping[str, str],
    dataset: str,
    step_sizes: Iterable[float],
    confidence: float = 0.99,
) -> pd.DataFrame:
    """Table 1: the mean sensitivity of each sample set at each step size, with its interval.

    ``kappa`` has a row per sample and step size with ``samples`` (the set), ``step_size`` and
    ``kappa`` in [0, 1]. The result has the columns ``dataset, step_size, samples, n,
    kappa_percent, ci99_percent, kappa_low, kappa_high`` - ``ci95_percent`` at confidence 0.95 - in
    percent with two decimals, by rising step size, then in the order of ``titles``.
    ``ci99_percent`` is half the interval as the paper computes it; ``kappa_low`` and ``kappa_high``
    are the ends of one that covers where most kappas are 0 (`mean_interval`).
    """
    table = means(kappa, titles, dataset, step_sizes, confidence)
    for column in table.columns[-4:]:
        table[column] = [round(value, 2) for value in table[column]]
    return table


def table2(
    detections: pd.DataFrame,
    titles: Mapping[str, str],
    dataset: str,
    sizes: Mapping[str, int],
    rules: Iterable[str],
    kappa1: float,
    mus: Iterable[float],
) -> pd.DataFrame:
    """Table 2: what each decision rule says of each sample set, for each mu.

    ``detections`` has a row per sample, rule and mu with ``samples`` (the set), ``rule``, ``mu``,
    ``verdict`` ("adversarial", "normal" or "undecided"), ``mutations`` and ``label_changes``.
    ``sizes`` is the number of samples of each set. The columns of the result are counts of
    samples, but for these (docs/protocol.md, The columns of Table 2):

    - ``n``: the size of the set;
    - ``adversary``: the number of adversarial samples, hence 0 in the normal rows;
    - ``identified``: those with the verdict adversarial, which are false alarms in the normal rows;
    - ``accuracy_percent``: identified / size; for normal samples 1 - identified / size, so that an
      undecided one counts as not adversarial, as published;
    - ``mutations``, ``label_changes``: means over the samples decided correctly (an undecided one
      is not), nan if there are none. ``mutations`` are counted as the rule counts them, which is
      twice each for ``published``.

    The sets are in the order of ``titles`` with the normal samples last, then by rule, then by mu.
    """
    numeric = ("mu", "mutations", "label_changes")
    detections = _checked(detections, "detections.csv", DETECTION_COLUMNS, numeric, titles)
    for verdict in detections["verdict"].unique():
        if verdict not in VERDICTS:
            raise ArtifactError(
                f"detections.csv: unknown verdict {verdict!r}, known are {', '.join(VERDICTS)}"
            )
    rules, mus = list(rules), sorted(mus)
    rows = []
    for slug in sorted(titles, key=lambda name: name == NORMAL):  # stable: only normal moves
        in_set = (detections["samples"] == slug).to_numpy()
        for rule in rules:
            by_rule = in_set & (detections["rule"] == rule).to_numpy()
            for mu in mus:
                chosen = detections[by_rule & _equal(detections["mu"], mu)]
                size = sizes.get(slug, len(chosen))
                if len(chosen) != size:
                    raise ArtifactError(
                        f"detections.csv: {len(chosen)} of {size} {titles[slug]} samples "
                        f"for rule {rule}, mu {number(mu)}"
                    )
                row = (dataset, titles[slug], rule, kappa1, mu)
                rows.append(row + _outcome(chosen, normal=slug == NORMAL))
    return pd.DataFrame(
        rows,
        columns=[
            *("dataset", "samples", "rule", "kappa1", "mu", "n", "adversary", "identified"),
            *("accuracy_percent", "mutations", "label_changes", "undecided"),
        ],
    )


def _outcome(chosen: pd.DataFrame, normal: bool) -> tuple[int, int, int, float, float, float, int]:
    """The last seven columns of one row of Table 2."""
    verdict = chosen["verdict"]
    size, identified = len(chosen), int((verdict == "adversarial").sum())
    accuracy = 100 * identified / size if size else math.nan
    right = chosen[verdict == ("normal" if normal else "adversarial")]
    return (
        size,
        0 if normal else size,
        identified,
        round(100 - accuracy if normal else accuracy, 2),
        round(float(right["mutations"].mean()), 2),
        round(float(right["label_changes"].mean()), 2),
        int((verdict == "undecided").sum()),
    )


def _checked(
    frame: pd.DataFrame,
    file: str,
    columns: Iterable[str],
    numeric: Iterable[str],
    titles: Mapping[str, str],
) -> pd.DataFrame:
    """``frame`` with its ``numeric`` columns as float64, or an error that names ``file``."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ArtifactError(f"{file}: no column {', '.join(missing)}")
    frame = frame.copy()
    for column in numeric:
        try:
            frame[column] = frame[column].astype(np.float64)
        except (TypeError, ValueError):
            raise ArtifactError(f"{file}: column {column} is not all numbers") from None
        if not np.isfinite(frame[column]).all():
            raise ArtifactError(f"{file}: column {column} is not all numbers")
    for slug in frame["samples"].unique():
        if slug not in titles:
            raise ArtifactError(f"{file}: unknown sample set {slug!r}")
    return frame


def _equal(column: pd.Series, value: float) -> Bools:
    # A number read back from a CSV can differ in its last bit.
    close: Bools = np.isclose(column.to_numpy(dtype=np.float64), value, rtol=1e-9, atol=0)
    return close


def formatted(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` as text, the same on every machine: what is written, printed and shown.

    Counts are whole, settings have no trailing zeros ("1", "1.2"), other floats two decimals;
    a missing value is empty.
    """

    def style(column: str) -> Callable[[object], str]:
        if column.removeprefix("published_") in WHOLE:
            return lambda value: f"{value:.0f}"
        if column in SHORTEST:
            return lambda value: number(value)  # type: ignore[arg-type]
        if pd.api.types.is_float_dtype(frame[column]):
            return lambda value: f"{value:.2f}"
        return str

    cells = {
        column: ["" if pd.isna(value) else style(column)(value) for value in frame[column]]
        for column in frame.columns
    }
    return pd.DataFrame(cells, columns=frame.columns, dtype=str)


def is_numeric(column: pd.Series) -> bool:
    """Whether a column holds numbers, which are aligned to the right."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def to_csv(frame: pd.DataFrame) -> str:
    """A table as the text of a CSV file, with ``\\n`` line ends."""
    return formatted(frame).to_csv(index=False, lineterminator="\n")


def to_text(frame: pd.DataFrame) -> str:
    """A table as aligned plain text for the terminal, without a line end after the last row."""
    right = [column for column in frame.columns if is_numeric(frame[column])]
    return aligned({str(name): list(cells) for name, cells in formatted(frame).items()}, right)
