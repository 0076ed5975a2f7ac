"""Tables 1 and 2 over several networks, each in a run folder of its own.

One network's interval says nothing about the next one. How every value lies over the networks,
beside the published one. The runs may differ in size: say so where you show it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import t

from nmutant_cli.paper.published import TABLE1_KEY, TABLE2_KEY, of_own_label, table1, table2
from nmutant_cli.report.figures.networks import spread_figure
from nmutant_cli.studies.study import Findings, Inputs

TABLE1_SPREAD = ["kappa_percent"]
TABLE2_SPREAD = ["accuracy_percent", "mutations"]


def study(inputs: Inputs) -> Findings:
    """networks-table1.csv, networks-table2.csv and the figure networks.png."""
    first = [inputs.table(r, "table1.csv", [*TABLE1_KEY, *TABLE1_SPREAD]) for r in inputs.runs]
    second = [
        inputs.table(r, "table2.csv", ["rule", *TABLE2_KEY, *TABLE2_SPREAD]) for r in inputs.runs
    ]
    tables = {"networks-table1": spread_table1(first), "networks-table2": spread_table2(second)}
    figure = spread_figure(first, first[0]["dataset"].iloc[0])
    return Findings(tables, {"networks": figure})


def spread_table1(runs: Sequence[pd.DataFrame], confidence: float = 0.95) -> pd.DataFrame:
    """`spread` of several runs' Table 1, with the published kappa."""
    return spread(runs, table1(), TABLE1_KEY, TABLE1_SPREAD, confidence)


def spread_table2(runs: Sequence[pd.DataFrame], confidence: float = 0.95) -> pd.DataFrame:
    """`spread` of several runs' Table 2 (rule ``published``, own label), beside the published."""
    chosen = [of_own_label(run) for run in runs]
    return spread(chosen, table2(), TABLE2_KEY, TABLE2_SPREAD, confidence)


def spread(
    runs: Sequence[pd.DataFrame],
    published: pd.DataFrame,
    key: list[str],
    values: list[str],
    confidence: float,
) -> pd.DataFrame:
    """For each row of the tables: how its values lie over the networks.

    A run in which a set has no samples does not count for that set. Columns for each value:
    ``_mean``, ``_lowest`` and ``_highest`` over the ``networks``; ``_from`` and ``_to``, the
    prediction interval for one more network, mean -+ t * s * sqrt(1 + 1 / networks), empty below
    three networks; ``published_``; ``_inside``, whether that lies in the prediction interval; and
    ``_below``, its rank: how many of the networks lie below it.
    """
    every = pd.concat(runs, ignore_index=True).dropna(subset=values)
    theirs = published.set_index(key)
    rows = []
    for name, group in every.groupby(key, sort=False):
        row = {**dict(zip(key, name, strict=True)), "networks": len(group)}
        k = len(group)
        for value in values:
            found = group[value].to_numpy(float)
            mean, reach = found.mean(), np.nan
            if k >= 3:
                quantile = t.ppf((1 + confidence) / 2, k - 1)
                reach = quantile * found.std(ddof=1) * np.sqrt(1 + 1 / k)
            said = float(theirs[value].get(name, np.nan))
            inside = "" if np.isnan(said + reach) else "yes" if abs(said - mean) <= reach else "no"
            row |= {
                f"{value}_mean": mean,
                f"{value}_lowest": found.min(),
                f"{value}_highest": found.max(),
                f"{value}_from": mean - reach,
                f"{value}_to": mean + reach,
                f"published_{value}": said,
                f"{value}_inside": inside,
                f"{value}_below": "" if np.isnan(said) else int((found < said).sum()),
            }
        rows.append(row)
    return pd.DataFrame(rows)
