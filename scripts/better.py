"""Is one choice of mutations and step size better than another? On the half that chose neither.

    nmutant compare --config mnist && nmutant compare --config mnist-best
    python scripts/better.py runs/mnist runs/mnist-best --out results/mnist-best

Holds the scores "kappa" of two runs on the same networks and samples against one another: AUC and
the true positive rate at 5% of the clean images, on the second half of every set, and the second
run's minus the first's with a 95% interval. Images are redrawn in pairs. Writes better.csv.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

FALSE_ALARMS = 0.05
RESAMPLES = 2000


def figures(clean: Any, normal: Any, adversarial: Any) -> tuple[float, float]:
    """AUC and true positive rate, in percent."""
    from sklearn.metrics import roc_auc_score

    from nmutant_cli.comparison import threshold

    truth = np.repeat([0, 1], [len(normal), len(adversarial)])
    auc = roc_auc_score(truth, np.concatenate([normal, adversarial]))
    return 100 * auc, 100 * float((adversarial > threshold(clean, FALSE_ALARMS)).mean())


def compared(runs: list[Path], network: str, rng: np.random.Generator) -> list[dict[str, Any]]:
    from nmutant_cli.comparing import CLEAN, in_first_half
    from nmutant_cli.comparison import changes_in, needed, threshold
    from nmutant_cli.measuring import read_records
    from nmutant_cli.tables import NORMAL

    frames = [read_records(run / "compare" / f"kappa-{network}.csv") for run in runs]
    keys = ["samples", "index", "source_index"]
    if not frames[0][keys].equals(frames[1][keys]):
        raise SystemExit(f"{network}: the two runs have other samples")
    of = frames[0]["samples"].to_numpy()
    second = ~in_first_half(frames[0]["source_index"])
    scores = [frame["score"].to_numpy(float) for frame in frames]
    rows = []
    for slug in dict.fromkeys(of):
        if slug in (CLEAN, NORMAL):
            continue
        where = [np.flatnonzero(of == CLEAN)]
        where += [np.flatnonzero((of == name) & second) for name in (NORMAL, slug)]
        found = [figures(*(score[w] for w in where)) for score in scores]
        drawn = []
        for _ in range(RESAMPLES):
            again = [rng.choice(w, len(w)) for w in where]
            first, other = (figures(*(score[w] for w in again)) for score in scores)
            drawn.append((other[0] - first[0], other[1] - first[1]))
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        row: dict[str, Any] = {"samples": slug, "n": len(where[2])}
        for k, name in enumerate(("auc", "tpr_at_5")):
            row |= {f"{name}_{run.name}": found[i][k] for i, run in enumerate(runs)}
            row |= {f"{name}_gain": found[1][k] - found[0][k]}
            row |= {f"{name}_gain_low": low[k], f"{name}_gain_high": high[k]}
        for run, frame, score in zip(runs, frames, scores, strict=True):
            changes = changes_in(frame, len(frame["changes"].iloc[0]) * 4)
            mutations = mutations_of(run)
            if changes is not None:
                limit = threshold(score[where[0]], FALSE_ALARMS)
                read = needed(changes[where[1]][:, :mutations], limit)
                row[f"passes_normal_{run.name}"] = 1 + read.mean()
        rows.append(row)
    return rows


def mutations_of(run: Path) -> int:
    entries = json.loads((run / "manifest.json").read_text())["artefacts"]
    name = next(name for name in entries if name.startswith("compare/kappa-"))
    return int(entries[name]["ingredients"]["compare"]["mutations"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs=2, type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    names = sorted(p.stem.partition("-")[2] for p in (args.runs[0] / "compare").glob("kappa-*.csv"))
    rows = [row for name in names for row in compared(args.runs, name, rng)]
    table = pd.DataFrame(rows).round(2)
    args.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out / "better.csv", index=False)
    print(table.to_string(index=False))
    print(args.out / "better.csv")


if __name__ == "__main__":
    main()
