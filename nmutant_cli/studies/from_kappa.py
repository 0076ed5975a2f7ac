"""Table 2 worked out from Table 1: what the rule ``published`` makes of a distribution of kappa.

For each row the exact expectation under the kappas that a run measured, beside what the run's own
detection found with fresh mutations, and under Beta-distributed kappas with the mean and interval
of the published Table 1. Nothing is fitted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import roots_jacobi

from nmutant_cli.detection.exact import Mixture
from nmutant_cli.detection.sprt import SequentialTest
from nmutant_cli.errors import ArtifactError
from nmutant_cli.paper import published
from nmutant_cli.report.tables import KAPPA_COLUMNS
from nmutant_cli.studies.study import Findings, Inputs
from nmutant_cli.types import Verdict

TITLES = {"normal": "normal", "fgsm": "FGSM", "cw": "C&W", "jsma": "JSMA", "bb": "BB", "wl": "WL"}
SIZE_OF_NORMAL = 1000
"""Behind the published interval of the normal samples, which are 500 (protocol, section 2)."""
ROW = ("dataset", "samples", "rule", "kappa1", "mu", "n", "identified", "mutations")


def study(inputs: Inputs, *, step_size: float) -> Findings:
    """from-kappa.csv."""
    rows = [row for run in inputs.runs for row in _rows(inputs, run, step_size)]
    return Findings({"from-kappa": pd.DataFrame(rows)})


def beta(mean: float, interval: float, size: float, nodes: int = 60) -> Mixture:
    """Kappas from the Beta distribution with this mean, and this 99% interval for ``size``."""
    variance = (interval * np.sqrt(size) / published.Z99) ** 2
    strength = mean * (1 - mean) / variance - 1
    x, weights = roots_jacobi(nodes, (1 - mean) * strength - 1, mean * strength - 1)
    return Mixture((x + 1) / 2, weights)


def expected(mixture: Mixture, test: SequentialTest, normal: bool) -> tuple[float, float, float]:
    """Share identified in percent, #Mutations and #Label changes as Table 2 counts them."""
    at = mixture.under(test)
    mutations, changes = at.given(Verdict.NORMAL if normal else Verdict.ADVERSARIAL)
    return 100 * float(at.adversarial), 2 * float(mutations), float(changes)


def _rows(inputs: Inputs, run: Path, step: float) -> list[dict[str, Any]]:
    kappas = inputs.table(run, "kappa.csv", KAPPA_COLUMNS)
    kappas = kappas[kappas["step_size"] == step]
    if kappas.empty:
        raise ArtifactError(f"{run / 'kappa.csv'}: no kappa at step size {step:g}; name another")
    titles = kappas["samples"].map(TITLES)
    table = inputs.table(run, "table2.csv", [*ROW, "label_changes"])
    rows = []
    for _, row in published.of_own_label(table).iterrows():
        name = row["samples"]
        own = kappas.loc[titles == name, "kappa"].to_numpy()
        if not len(own):  # no samples, or a set that the paper has not
            continue
        test = SequentialTest("published", row["kappa1"], (2 * row["mu"] - 1) * row["kappa1"])
        parts = {"own": Mixture(own)}
        line = {"run": run.name, "dataset": row["dataset"], "samples": name, "mu": row["mu"]}
        line |= {"n": row["n"], "identified_percent": 100 * row["identified"] / row["n"]}
        line |= {"mutations": row["mutations"], "label_changes": row["label_changes"]}
        theirs = _published(row["dataset"], name, row["mu"], step)
        if theirs is not None:
            parts["table1"] = theirs[0]
            line |= theirs[1]
        for source, mixture in parts.items():
            share, mutations, changes = expected(mixture, test, name == "normal")
            line |= {
                f"from_{source}_identified_percent": share,
                f"from_{source}_mutations": mutations,
                f"from_{source}_label_changes": changes,
            }
        rows.append(line)
    return rows


def _published(
    dataset: str, name: str, mu: float, step: float
) -> tuple[Mixture, dict[str, float]] | None:
    """The kappas that the published Table 1 stands for, and that row of the published Table 2."""
    first, second = published.table1(), published.table2()
    first = first[(first[published.TABLE1_KEY] == [dataset, step, name]).all(axis=1)]
    second = second[(second[published.TABLE2_KEY] == [dataset, name, mu]).all(axis=1)]
    if first.empty or second.empty:
        return None
    said = second.iloc[0]
    mean, interval = first[published.TABLE1_VALUES].to_numpy(float)[0] / 100
    normal = name == "normal"
    tried = published.NORMAL_SAMPLES if normal else said["adversary"]
    return beta(mean, interval, SIZE_OF_NORMAL if normal else tried), {
        "published_identified_percent": 100 * said["identified"] / tried,
        "published_mutations": float(said["mutations"]),
        "published_label_changes": float(said["label_changes"]),
    }
