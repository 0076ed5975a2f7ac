"""The paper's numbers and claims as data, and a verdict on ours beside each of them.

``published_table1.csv`` and ``published_table2.csv`` are Tables 1 and 2 of
arXiv 1805.05010 as printed. Verdicts, best first:

- ``reproduced``: within the joint 99% interval; for #Mutations and #Label changes of Table 2, which
  have none, within `NEAR`;
- ``same conclusion``: the value differs, but what the paper concludes from it holds, and it is at
  most `ORDER` times as large or as small;
- ``differs``: neither.

``distance`` says how far a row is from the published one, as a sum of |ln(ours / published)|: 0 is
equal, 0.69 a factor of two, inf that one of the two is 0 or that ours is missing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.resources import files
from statistics import NormalDist

import numpy as np
import pandas as pd

from nmutant_cli.config.detection import OWN
from nmutant_cli.errors import ArtifactError

VERDICTS = ("reproduced", "same conclusion", "differs")
NOT_PUBLISHED = ""

TABLE1_KEY = ["dataset", "step_size", "samples"]
TABLE2_KEY = ["dataset", "samples", "mu"]
TABLE1_VALUES = ["kappa_percent", "ci99_percent"]
TABLE2_VALUES = ["adversary", "identified", "accuracy_percent", "mutations", "label_changes"]

NEAR, ORDER = 0.2, 2.0
"""As published: within 20%. Of the published order: at most a factor of two away. Both are chosen,
not measured."""
FARTHER = 0.1
"""How much the distance of a row that differs may grow: about a tenth, for labels that flip on
another processor."""
NORMAL_SAMPLES = 500
"""Behind each normal row of the published Table 2."""
Z99 = NormalDist().inv_cdf(0.995)


def table1() -> pd.DataFrame:
    """Table 1 as published: ``dataset, step_size, samples, kappa_percent, ci99_percent``."""
    return _read("published_table1.csv")


def table2() -> pd.DataFrame:
    """Table 2 as published; its decision rule is the one called ``published`` here."""
    return _read("published_table2.csv")


def compare_table1(ours: pd.DataFrame) -> pd.DataFrame:
    """``ours`` (Table 1 of a run) with ``published_`` columns, a ``verdict`` and a ``distance``.

    What is compared are the odds kappa / (1 - kappa): 100% is not near 60%. ``same conclusion``: at
    most twice or half the published odds, and on the same side, that is an adversarial set above
    the normal samples of its step by more than the joint interval, the normal samples below every
    adversarial set. ``reproduced``: no further off either, and within the joint interval. Of
    ours that is ``kappa_low`` to ``kappa_high``; tables made before there were these have only
    ``ci99_percent``.
    """
    merged = _beside(ours, table1(), TABLE1_KEY, TABLE1_VALUES)
    merged["distance"] = [
        _apart(_odds(row["kappa_percent"]), _odds(row["published_kappa_percent"]))
        for _, row in merged.iterrows()
    ]
    merged.loc[merged["published_kappa_percent"].isna(), "distance"] = np.nan

    def verdict(row: pd.Series) -> str:
        if pd.isna(row["published_kappa_percent"]):
            return NOT_PUBLISHED
        # Rounded as it is written: half of what is printed as 0.26 is 0.13.
        if round(row["distance"], 2) > round(math.log(ORDER), 2):
            return "differs"
        higher = row["published_kappa_percent"] - row["kappa_percent"]
        joint = math.hypot(_reach(row, up=higher > 0), row["published_ci99_percent"])
        if abs(higher) <= joint:
            return "reproduced"
        step = merged[merged["step_size"] == row["step_size"]].dropna(subset="kappa_percent")
        normal = step[step["samples"] == "normal"]
        adversarial = step[step["samples"] != "normal"]
        if row["samples"] == "normal":
            above = adversarial["kappa_percent"].to_numpy() > row["kappa_percent"]
        else:
            above = np.array(
                [
                    row["kappa_percent"] - other["kappa_percent"]
                    > math.hypot(_reach(row, up=False), _reach(other, up=True))
                    for _, other in normal.iterrows()
                ]
            )
        return "same conclusion" if len(above) and above.all() else "differs"

    verdicts = [verdict(row) for _, row in merged.iterrows()]
    distance = merged.pop("distance")
    return merged.assign(verdict=verdicts, distance=distance)


def compare_table2(ours: pd.DataFrame) -> pd.DataFrame:
    """``ours`` (Table 2 of a run) with the published values, a verdict and a distance for each row.

    Only the rows that `asked_as_published` names have any. ``reproduced``: the share of identified
    samples within the joint 99% interval of the two, #Mutations (floored, as published) and #Label
    changes within 20%. ``same conclusion``: #Mutations and #Label changes at most twice or half the
    published ones; of an adversarial set most samples are identified, and the share within 20% of
    the published one; of normal samples at most twice or half as many, or as many as the joint
    interval allows. The distance is the sum of three: of the shares (with one more sample
    identified and one more not, so that none is 0), #Mutations and #Label changes.
    """
    merged = _beside(ours, table2(), TABLE2_KEY, TABLE2_VALUES)
    others = ~asked_as_published(merged)
    merged.loc[others, [f"published_{column}" for column in TABLE2_VALUES]] = np.nan
    judged = [_judged2(row) for _, row in merged.iterrows()]
    merged["verdict"] = [verdict for verdict, _ in judged]
    merged["distance"] = [distance for _, distance in judged]
    return merged


def asked_as_published(table2: pd.DataFrame) -> pd.Series:
    """Which rows of a Table 2 the published ones stand beside: a bool for each.

    Those of the rule ``published``; of a set with two protocols, those that ask what the paper did.
    """
    rows = table2["rule"] == "published"
    if "protocol" in table2:
        otherwise = table2["protocol"] != str(OWN)
        rows &= otherwise | ~table2["samples"].isin(table2.loc[otherwise, "samples"])
    return rows


def of_own_label(table2: pd.DataFrame) -> pd.DataFrame:
    """The rows of the rule ``published`` that every run has: the attacked network, own label."""
    rows = table2[table2["rule"] == "published"]
    return rows[rows["protocol"] == str(OWN)] if "protocol" in rows else rows


def _judged2(row: pd.Series) -> tuple[str, float]:
    """Verdict and distance of a row of Table 2."""
    if pd.isna(row["published_identified"]):
        return NOT_PUBLISHED, math.nan
    if not row["n"]:
        return "differs", math.inf
    is_normal = row["samples"] == "normal"
    counts = row["identified"], row["published_identified"]
    sizes = row["n"], NORMAL_SAMPLES if is_normal else row["published_adversary"]
    share, published_share = (c / n for c, n in zip(counts, sizes, strict=True))
    mutations = _apart(row["mutations"] // 1, row["published_mutations"])  # nan: none is right
    changes = _apart(row["label_changes"], row["published_label_changes"])
    near, order = math.log(1 + NEAR), math.log(ORDER)
    as_many = _same_share(counts[0], sizes[0], counts[1], sizes[1])
    smoothed = ((c + 1) / (n + 2) for c, n in zip(counts, sizes, strict=True))
    distance = _apart(*smoothed) + mutations + changes
    if as_many and max(mutations, changes) <= near:
        return "reproduced", distance
    if is_normal:
        holds = as_many or _apart(share, published_share) <= order
    else:
        holds = share > 0.5 and _apart(share, published_share) <= near
    return "same conclusion" if holds and max(mutations, changes) <= order else "differs", distance


def _reach(row: pd.Series, up: bool) -> float:
    """How far the interval of our mean kappa reaches up or down, in percent."""
    end = row.get("kappa_high" if up else "kappa_low", math.nan)
    return row["ci99_percent"] if pd.isna(end) else abs(end - row["kappa_percent"])


def _odds(percent: float) -> float:
    return percent / (100 - percent) if percent != 100 else math.inf


def _apart(ours: float, theirs: float) -> float:
    """|ln(ours / theirs)|: 0 where they are equal, inf where one is 0, infinite or nan."""
    if ours == theirs:
        return 0.0
    both = 0 < ours < math.inf and 0 < theirs < math.inf
    return abs(math.log(ours / theirs)) if both else math.inf


def _same_share(count: float, n: float, other: float, other_n: float) -> bool:
    """Whether 0 lies in the 99% interval of the difference of two shares.

    The interval is that of Agresti and Caffo (2000): one success and one failure are added to each.
    """
    shares = (count + 1) / (n + 2), (other + 1) / (other_n + 2)
    variance = sum(p * (1 - p) / (m + 2) for p, m in zip(shares, (n, other_n), strict=True))
    return bool(abs(shares[0] - shares[1]) <= Z99 * math.sqrt(variance))


@dataclass(frozen=True)
class Worse:
    """A row that is worse than the one that was committed."""

    row: str
    committed: str
    found: str

    def __str__(self) -> str:
        return f"{self.row}: {self.found}, was {self.committed}"


def worse(found: pd.DataFrame, committed: pd.DataFrame) -> list[Worse]:
    """Rows of ``found`` that are worse than in ``committed``, and rows that are gone.

    Worse is a lower verdict, and for a row that differs from the paper a distance that is more than
    `FARTHER` larger. A row without a verdict, such as one of ``wald``, is held to the committed
    values: the share identified within the joint 99% interval, #Mutations and #Label changes within
    20%.

    Raises ArtifactError if ``committed`` has no verdicts or no distances.
    """
    key = TABLE1_KEY if "step_size" in committed else [*TABLE2_KEY, "rule"]
    for column in (*key, "verdict", "distance"):
        if column not in committed:
            raise ArtifactError(f"the committed table has no column {column!r}")
    key += [column for column in ("protocol",) if column in committed]
    found = found.reindex(columns=[*found.columns.union(key, sort=False)])
    now = {_key(row, key): row for _, row in found.iterrows()}
    result = []
    for _, before in committed.iterrows():
        name = _key(before, key)
        pair = _worse(now.get(name), before)
        if pair is not None:
            result.append(Worse(" ".join(name), *pair))
    return result


def _worse(after: pd.Series | None, before: pd.Series) -> tuple[str, str] | None:
    """What the committed row was and what it is now, if that is worse."""
    judged = before["verdict"] in VERDICTS
    if after is None:
        return before["verdict"] or "there", "missing"
    if not judged:
        if "rule" not in before or _same_values(after, before):
            return None
        return _values(before), _values(after)
    if after["verdict"] not in VERDICTS:
        return before["verdict"], "not comparable"
    ranks = [VERDICTS.index(row["verdict"]) for row in (before, after)]
    if ranks[1] > ranks[0]:
        return before["verdict"], after["verdict"]
    if min(ranks) == 2 and after["distance"] > before["distance"] + FARTHER:
        return f"{before['distance']:.2f}", f"differs by {after['distance']:.2f}"
    return None


def _same_values(after: pd.Series, before: pd.Series) -> bool:
    counted = [(row["identified"], row["n"]) for row in (after, before)]
    means = [
        _apart(after[column], before[column]) <= math.log(1 + NEAR)
        or (pd.isna(after[column]) and pd.isna(before[column]))
        for column in ("mutations", "label_changes")
    ]
    return all(means) and _same_share(*counted[0], *counted[1])


def _values(row: pd.Series) -> str:
    return (
        f"{row['identified']:g} of {row['n']:g}, #Mutations {row['mutations']:g}, "
        f"#Label changes {row['label_changes']:g}"
    )


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
