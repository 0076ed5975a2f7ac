"""The paper's numbers and claims as data, and a verdict on ours beside each of them.

``published_table1.csv`` and ``published_table2.csv`` are Tables 1 and 2 of
arXiv 1805.05010 as printed. Verdicts, best first:

- ``reproduced``: within the joint 99% interval; for #Mutations of Table 2, which has none, within
  `NEAR`;
- ``same conclusion``: the value differs, but what the paper concludes from it holds;
- ``differs``: neither. ``reason`` says why, where we know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.resources import files
from statistics import NormalDist

import numpy as np
import pandas as pd

from nmutant_cli.errors import ArtifactError

VERDICTS = ("reproduced", "same conclusion", "differs")
NOT_PUBLISHED = ""

TABLE1_KEY = ["dataset", "step_size", "samples"]
TABLE2_KEY = ["dataset", "samples", "mu"]
TABLE1_VALUES = ["kappa_percent", "ci99_percent"]
TABLE2_VALUES = ["adversary", "identified", "accuracy_percent", "mutations", "label_changes"]

NEAR, ORDER = 0.2, 2.0
"""#Mutations as published: within 20%. Of the published order: at most a factor of two away. Both
are chosen, not measured."""
FEW_FALSE_ALARMS = 0.1
"""Of the normal samples; the paper has 0.02 to 0.036."""
NORMAL_SAMPLES = 500
"""Behind each normal row of the published Table 2."""
Z99 = NormalDist().inv_cdf(0.995)

REASONS = {
    ("MNIST", name): "the published rows behave as if kappa were 1 for most samples, as when the "
    "labels come from a network other than the attacked one (docs/reproduction.md)"
    for name in ("C&W", "JSMA", "BB")
}
"""Why rows of Table 2 differ."""


def table1() -> pd.DataFrame:
    """Table 1 as published: ``dataset, step_size, samples, kappa_percent, ci99_percent``."""
    return _read("published_table1.csv")


def table2() -> pd.DataFrame:
    """Table 2 as published; its decision rule is the one called ``published`` here."""
    return _read("published_table2.csv")


def compare_table1(ours: pd.DataFrame) -> pd.DataFrame:
    """``ours`` (Table 1 of a run) with ``published_`` columns and a ``verdict``.

    A cell that differs keeps the ``same conclusion`` if kappa lies on the same side: an adversarial
    set above the normal samples of its step by more than the joint interval, the normal samples
    below every adversarial set.
    """
    merged = _beside(ours, table1(), TABLE1_KEY, TABLE1_VALUES)

    def verdict(row: pd.Series) -> str:
        if pd.isna(row["published_kappa_percent"]):
            return NOT_PUBLISHED
        if pd.isna(row["kappa_percent"]):
            return "differs"
        joint = math.hypot(row["ci99_percent"], row["published_ci99_percent"])
        if abs(row["kappa_percent"] - row["published_kappa_percent"]) <= joint:
            return "reproduced"
        step = merged[merged["step_size"] == row["step_size"]].dropna(subset="kappa_percent")
        normal = step[step["samples"] == "normal"]
        adversarial = step[step["samples"] != "normal"]
        if row["samples"] == "normal":
            above = adversarial["kappa_percent"].to_numpy() > row["kappa_percent"]
        else:
            apart = np.hypot(normal["ci99_percent"], row["ci99_percent"])
            above = (row["kappa_percent"] - normal["kappa_percent"] > apart).to_numpy()
        return "same conclusion" if len(above) and above.all() else "differs"

    merged["verdict"] = [verdict(row) for _, row in merged.iterrows()]
    return merged


def compare_table2(ours: pd.DataFrame) -> pd.DataFrame:
    """``ours`` (Table 2 of a run) with the published values and a verdict for each row.

    Only rows of the rule ``published`` have any. ``reproduced``: the share of identified samples
    within the joint 99% interval of the two and #Mutations (floored, as published) within 20%.
    ``same conclusion``: most adversarial samples are identified, with at most twice the published
    mutations; of normal samples less than a tenth is.
    """
    merged = _beside(ours, table2(), TABLE2_KEY, TABLE2_VALUES)
    others = merged["rule"] != "published"
    merged.loc[others, [f"published_{column}" for column in TABLE2_VALUES]] = np.nan
    merged["verdict"] = [_verdict2(row) for _, row in merged.iterrows()]
    merged["reason"] = [
        REASONS.get((row["dataset"], row["samples"]), "") if row["verdict"] == "differs" else ""
        for _, row in merged.iterrows()
    ]
    return merged


def _verdict2(row: pd.Series) -> str:
    if pd.isna(row["published_identified"]):
        return NOT_PUBLISHED
    if not row["n"]:
        return "differs"
    is_normal = row["samples"] == "normal"
    size = NORMAL_SAMPLES if is_normal else row["published_adversary"]
    as_many = _same_share(row["identified"], row["n"], row["published_identified"], size)
    mutations = row["mutations"] // 1 / row["published_mutations"]  # nan where none is right
    if as_many and abs(mutations - 1) <= NEAR:
        return "reproduced"
    alarms = row["identified"] / row["n"]
    holds = alarms < FEW_FALSE_ALARMS if is_normal else alarms > 0.5
    return "same conclusion" if holds and 1 / ORDER <= mutations <= ORDER else "differs"


def _same_share(count: float, n: float, other: float, other_n: float) -> bool:
    """Whether 0 lies in the 99% interval of the difference of two shares.

    The interval is that of Agresti and Caffo (2000): one success and one failure are added to each.
    """
    shares = (count + 1) / (n + 2), (other + 1) / (other_n + 2)
    variance = sum(p * (1 - p) / (m + 2) for p, m in zip(shares, (n, other_n), strict=True))
    return bool(abs(shares[0] - shares[1]) <= Z99 * math.sqrt(variance))


@dataclass(frozen=True)
class Worse:
    """A row whose verdict is worse than the one that was committed."""

    row: str
    committed: str
    found: str

    def __str__(self) -> str:
        return f"{self.row}: {self.found}, was {self.committed}"


def worse(found: pd.DataFrame, committed: pd.DataFrame) -> list[Worse]:
    """Rows of ``found`` with a worse verdict than in ``committed``, and rows that are gone.

    Raises ArtifactError if ``committed`` has no verdicts.
    """
    key = TABLE1_KEY if "step_size" in committed else [*TABLE2_KEY, "rule"]
    for column in (*key, "verdict"):
        if column not in committed:
            raise ArtifactError(f"the committed table has no column {column!r}")
    now = {_key(row, key): row["verdict"] for _, row in found.iterrows()}
    result = []
    for _, row in committed.iterrows():
        name, before = _key(row, key), row["verdict"]
        if before not in VERDICTS:
            continue
        after = now.get(name, "missing")
        if after not in VERDICTS or VERDICTS.index(after) > VERDICTS.index(before):
            result.append(Worse(" ".join(name), before, after or "not comparable"))
    return result


def _key(row: pd.Series, columns: list[str]) -> tuple[str, ...]:
    return tuple(
        f"{column} {row[column]:g}" if isinstance(row[column], float | int) else str(row[column])
        for column in columns
    )


def _beside(
    ours: pd.DataFrame, theirs: pd.DataFrame, key: list[str], values: list[str]
) -> pd.DataFrame:
    renamed = theirs[[*key, *values]].rename(columns={v: f"published_{v}" for v in values})
    return ours.merge(renamed, on=key, how="left", validate="many_to_one")


def _read(name: str) -> pd.DataFrame:
    with (files("nmutant_cli.paper") / name).open(encoding="utf-8") as file:
        return pd.read_csv(file)
