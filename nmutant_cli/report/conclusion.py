"""What a run found, in three sentences: for the terminal and for the top of the page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nmutant_cli.report.tables import NORMAL
from nmutant_cli.report.text import number


def conclusion(
    first: pd.DataFrame, second: pd.DataFrame, roc: pd.DataFrame, step_size: float
) -> list[str]:
    """Sensitivity at ``step_size``, AUC there, and what the sequential test makes of it.

    The arguments are Table 1 (`tables.table1`), Table 2 and `roc.roc_table` of one run. Of several
    rules it is ``wald`` that is spoken of, of several mu the smallest. One sentence says so where
    there are no normal samples, or no others.
    """
    kappas, auc = (
        table[np.isclose(table["step_size"], step_size) & (table["n"] > 0)].set_index("samples")
        for table in (first, roc)
    )
    others = kappas["kappa_percent"].drop(index=NORMAL, errors="ignore")
    if NORMAL not in kappas.index or others.empty:
        return ["Nothing to compare: there are no normal samples, or no others."]
    normal = float(kappas["kappa_percent"][NORMAL])
    wrong = ", or of one that the network labels wrongly anyway (WL)" if "WL" in others else ""
    return [
        f"At step size {number(step_size)}, {short(normal)}% of random mutations change the label "
        f"of a normal image, and {_range(others)} that of an adversarial one{wrong}.",
        f"{_apart(auc)}: by the share of label changes, κ, the AUC is "
        f"{_range(auc['auc_percent'])}; 50% is guessing, 100% perfect.",
        _of_test(second[second["n"] > 0]),
    ]


def short(percent: float) -> str:
    """About two digits; 0 and 100 only for none and all; empty if missing."""
    if np.isnan(percent):
        return ""
    if percent in (0, 100):
        return f"{percent:.0f}"
    decimals = 2 if percent < 0.995 else 1 if percent < 9.95 or percent >= 99 else 0
    return f"{min(max(percent, 0.01), 99.9):.{decimals}f}"


def _apart(auc: pd.DataFrame) -> str:
    """Which sets are more sensitive than normal images, by the 95% interval of their AUC."""
    above, below = auc["auc_low"] > 50, auc["auc_high"] < 50
    if above.all():
        return "Every set is more sensitive than normal images"
    parts = [
        ("more sensitive than normal images", above),
        ("less sensitive", below),
        ("not clearly more or less sensitive", ~above & ~below),
    ]
    return "; ".join(
        f"{_listed(list(auc.index[which]))} {'is' if which.sum() == 1 else 'are'} {text}"
        for text, which in parts
        if which.any()
    )


def _of_test(table: pd.DataFrame) -> str:
    rule = "wald" if (table["rule"] == "wald").any() else table["rule"].iloc[0]
    mu = table["mu"].min()
    rows = table[(table["rule"] == rule) & (table["mu"] == mu)].set_index("samples")
    rows = rows[~rows.index.duplicated()]  # what was asked as published comes second
    identified = 100 * rows["identified"] / rows["n"]
    undecided = 100 * rows.loc[NORMAL, "undecided"] / rows.loc[NORMAL, "n"]
    return (
        f"The sequential test ({rule}, μ = {number(mu)}) calls "
        f"{_range(identified.drop(index=NORMAL))} of a set adversarial, and "
        f"{short(identified[NORMAL])}% of the normal images by mistake; it leaves "
        f"{short(undecided)}% of these undecided."
    )


def _range(percent: pd.Series) -> str:
    """The smallest and the largest of the sets' percentages, and whose they are."""
    ends = percent.sort_values(kind="stable").iloc[[0, -1]]
    texts = [f"{short(value)}% ({name})" for name, value in ends.items()]
    return " to ".join(dict.fromkeys(texts))


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
