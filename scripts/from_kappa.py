"""Table 2 worked out from Table 1: what the rule ``published`` makes of a distribution of kappa.

    python scripts/from_kappa.py runs/mnist runs/mnist-seed1 --out results/mnist

For each row the exact expectation under the kappas that a run measured, beside what the run's own
detection found with fresh mutations, and under Beta-distributed kappas with the mean and interval
of the published Table 1. Writes from-kappa.csv. Nothing is fitted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import roots_jacobi

from nmutant_cli.detection.exact import Mixture
from nmutant_cli.detection.sprt import SequentialTest
from nmutant_cli.files import read_records
from nmutant_cli.paper import published
from nmutant_cli.report.tables import to_csv, to_text
from nmutant_cli.types import Verdict

SIZE_OF_NORMAL = 1000
"""Behind the published interval of the normal samples, which are 500 (protocol, section 2)."""


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


def rows(run: Path, kappas: pd.DataFrame, step: float) -> pd.DataFrame:
    found = pd.read_csv(run / "table2.csv")
    found = found[found["rule"] == "published"]
    theirs = published.table2().set_index(published.TABLE2_KEY)
    first = published.table1().set_index(published.TABLE1_KEY)
    made = []
    for _, row in found.iterrows():
        name, key = row["samples"], (row["dataset"], row["samples"], row["mu"])
        kappa1, mu = row["kappa1"], row["mu"]
        test = SequentialTest("published", kappa1, (2 * mu - 1) * kappa1)
        own = kappas.loc[kappas["title"] == name, "kappa"].to_numpy()
        line = {"run": run.name, "dataset": row["dataset"], "samples": name, "mu": mu}
        line |= {"n": row["n"], "identified_percent": 100 * row["identified"] / row["n"]}
        line |= {"mutations": row["mutations"], "label_changes": row["label_changes"]}
        parts = {"own": Mixture(own)}
        if key in theirs.index:
            said = theirs.loc[key]
            mean, interval = first.loc[(row["dataset"], step, name)] / 100
            normal = name == "normal"
            size = SIZE_OF_NORMAL if normal else said["adversary"]
            parts["table1"] = beta(mean, interval, size)
            share = said["identified"] / (published.NORMAL_SAMPLES if normal else said["adversary"])
            line |= {
                "published_identified_percent": 100 * share,
                "published_mutations": said["mutations"],
                "published_label_changes": said["label_changes"],
            }
        for source, mixture in parts.items():
            share, mutations, changes = expected(mixture, test, name == "normal")
            line |= {
                f"from_{source}_identified_percent": share,
                f"from_{source}_mutations": mutations,
                f"from_{source}_label_changes": changes,
            }
        made.append(line)
    return pd.DataFrame(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--step", type=float, default=1.0, help="the step size of detection")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    titles = {"normal": "normal", "fgsm": "FGSM", "cw": "C&W", "jsma": "JSMA", "bb": "BB"}
    titles |= {"wl": "WL"}
    parts = []
    for run in args.runs:
        kappas = read_records(run / "kappa.csv")
        kappas = kappas[kappas["step_size"] == args.step]
        parts.append(rows(run, kappas.assign(title=kappas["samples"].map(titles)), args.step))
    table = pd.concat(parts, ignore_index=True)
    print(to_text(table))
    if args.out:
        path = args.out / "from-kappa.csv"
        path.write_text(to_csv(table), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
