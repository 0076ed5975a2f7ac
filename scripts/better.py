"""Is one choice of mutations and step size better than another? On the half that chose neither.

    nmutant compare --config mnist && nmutant compare --config mnist-best
    python scripts/better.py runs/mnist runs/mnist-best --out results/mnist-best/better.csv

Holds two detectors that count label changes against one another, on the same networks and samples:
AUC and the true positive rate at 5% of the clean images, on the second half of every set, and the
second one's minus the first one's with a 95% interval. Images are redrawn in pairs.
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

    from nmutant_cli.pipeline.compare import threshold

    truth = np.repeat([0, 1], [len(normal), len(adversarial)])
    auc = roc_auc_score(truth, np.concatenate([normal, adversarial]))
    return 100 * auc, 100 * float((adversarial > threshold(clean, FALSE_ALARMS)).mean())


def compared(
    runs: list[Path], names: list[str], network: str, same: bool, rng: np.random.Generator
) -> list[dict[str, Any]]:
    from nmutant_cli.files import read_records
    from nmutant_cli.pipeline.compare import changes_in, needed, threshold
    from nmutant_cli.pipeline.scores import CLEAN, in_first_half
    from nmutant_cli.report.tables import NORMAL

    files = [f"compare/{name}-{network}.csv" for name in names]
    frames = [read_records(run / file) for run, file in zip(runs, files, strict=True)]
    keys = ["samples", "index", "source_index"]
    if not frames[0][keys].equals(frames[1][keys]):
        raise SystemExit(f"{network}: the two have other samples")
    changes = []
    for run, file, frame in zip(runs, files, frames, strict=True):
        entry = json.loads((run / "manifest.json").read_text())["artefacts"][file]
        found = changes_in(frame, entry["ingredients"]["compare"]["mutations"])
        if found is None:
            raise SystemExit(f"{run / file}: holds no label changes")
        changes.append(found)
    if same:
        fewest = min(found.shape[1] for found in changes)
        changes = [found[:, :fewest] for found in changes]
    scores = [found.mean(axis=1) for found in changes]
    of = frames[0]["samples"].to_numpy()
    second = ~in_first_half(frames[0]["source_index"])
    rows = []
    for slug in dict.fromkeys(of):
        if slug in (CLEAN, NORMAL):
            continue
        where = [np.flatnonzero(of == CLEAN)]
        where += [np.flatnonzero((of == name) & second) for name in (NORMAL, slug)]
        both = [figures(*(score[w] for w in where)) for score in scores]
        drawn = []
        for _ in range(RESAMPLES):
            again = [rng.choice(w, len(w)) for w in where]
            first, other = (figures(*(score[w] for w in again)) for score in scores)
            drawn.append((other[0] - first[0], other[1] - first[1]))
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        row: dict[str, Any] = {"samples": slug, "n": len(where[2])}
        for k, name in enumerate(("auc", "tpr_at_5")):
            row |= {f"{name}_first": both[0][k], f"{name}_second": both[1][k]}
            row |= {f"{name}_gain": both[1][k] - both[0][k]}
            row |= {f"{name}_gain_low": low[k], f"{name}_gain_high": high[k]}
        for end, found, score in zip(("first", "second"), changes, scores, strict=True):
            limit = threshold(score[where[0]], FALSE_ALARMS)
            row[f"passes_normal_{end}"] = 1 + needed(found[where[1]], limit).mean()
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs=2, type=Path)
    parser.add_argument("--detectors", nargs=2, default=["kappa", "kappa"])
    parser.add_argument("--same", action="store_true", help="as many mutations of both")
    parser.add_argument("--out", type=Path, required=True, help="the CSV file")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    parts = sorted((args.runs[0] / "compare").glob(f"{args.detectors[0]}-*.csv"))
    networks = [part.stem.rpartition("-")[2] for part in parts]
    rows = [
        row
        for network in networks
        for row in compared(args.runs, args.detectors, network, args.same, rng)
    ]
    table = pd.DataFrame(rows).round(2)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out, index=False)
    print(table.to_string(index=False))
    print(args.out)


if __name__ == "__main__":
    main()
