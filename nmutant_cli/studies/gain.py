"""Is one choice of mutations and step size better than another? On the half that chose neither.

Holds two detectors that count label changes against one another, each as `nmutant compare` scored
it in a run of its own, on the same networks and samples. Images are redrawn in pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from nmutant_cli.errors import ArtifactError
from nmutant_cli.pipeline import artefacts
from nmutant_cli.pipeline.compare import needed
from nmutant_cli.pipeline.scores import CHANGES, CLEAN, changes_in, in_first_half
from nmutant_cli.report.roc import threshold
from nmutant_cli.report.tables import NORMAL
from nmutant_cli.studies.study import Findings, Inputs
from nmutant_cli.types import Bools, Floats, Ints

FALSE_ALARMS = 0.05
RESAMPLES = 2000
KEYS = ["samples", "index", "source_index"]


def study(inputs: Inputs, *, first: str, second: str, same: bool) -> Findings:
    """better.csv: figures of both on the second half of every set, and the second's gain.

    AUC and the true positive rate at 5% of the clean images in percent, with 95% intervals of the
    gain. With ``same`` as many mutations of both are looked at, and it is better-MUTATIONS.csv.
    """
    rng = np.random.default_rng(0)
    prefix = f"{first}-"
    files = sorted((inputs.runs[0] / "compare").glob(f"{prefix}*.csv"))
    networks = [path.stem.removeprefix(prefix) for path in files] or ["base"]
    rows, name = [], "better"
    for network in networks:
        names = artefacts.scores(first, network), artefacts.scores(second, network)
        tables, changes = _scores(inputs, names)
        if same:
            fewest = min(one.shape[1] for one in changes)
            changes = [one[:, :fewest] for one in changes]
            name = f"better-{fewest}"
        rows += _rows(tables[0], changes, rng)
    return Findings({name: pd.DataFrame(rows).round(2)})


def figures(clean: Floats, normal: Floats, adversarial: Floats) -> tuple[float, float]:
    """AUC and true positive rate of scores, in percent."""
    truth = np.repeat([0, 1], [len(normal), len(adversarial)])
    auc = roc_auc_score(truth, np.concatenate([normal, adversarial]))
    return 100 * auc, 100 * float((adversarial > threshold(clean, FALSE_ALARMS)).mean())


def _scores(inputs: Inputs, files: tuple[str, str]) -> tuple[list[pd.DataFrame], list[Bools]]:
    """The files of scores of the two detectors, and the label changes in each."""
    tables, changes = [], []
    for run, file in zip(inputs.runs, files, strict=True):
        table = inputs.table(run, file, KEYS)
        of_detector = changes_in(table)
        if of_detector is None:
            raise ArtifactError(f"{run / file}: holds no label changes; name another detector")
        if not CHANGES.items() <= inputs.entry(run, file).items():
            raise ArtifactError(
                f"{run / file}: is of an earlier version; run nmutant compare again"
            )
        tables.append(table)
        changes.append(of_detector)
    if not tables[0][KEYS].equals(tables[1][KEYS]):
        raise ArtifactError(
            f"{inputs.runs[1] / files[1]}: holds other samples than {inputs.runs[0] / files[0]}; "
            "compare both on copies of one run"
        )
    return tables, changes


def _rows(
    table: pd.DataFrame, changes: list[Bools], rng: np.random.Generator
) -> list[dict[str, Any]]:
    of = table["samples"].to_numpy()
    second = ~in_first_half(table["source_index"])
    rows = []
    for slug in dict.fromkeys(of):
        if slug not in (CLEAN, NORMAL):
            where = [np.flatnonzero(of == CLEAN)]
            where += [np.flatnonzero((of == name) & second) for name in (NORMAL, slug)]
            rows.append({"samples": slug, **_row(changes, where, rng)})
    return rows


def _row(changes: list[Bools], where: list[Ints], rng: np.random.Generator) -> dict[str, Any]:
    """``where``: the rows of clean, normal and adversarial images."""
    scores = [one.mean(axis=1) for one in changes]
    both = [figures(*(score[w] for w in where)) for score in scores]
    drawn = []
    for _ in range(RESAMPLES):
        again = [rng.choice(w, len(w)) for w in where]
        before, after = (figures(*(score[w] for w in again)) for score in scores)
        drawn.append((after[0] - before[0], after[1] - before[1]))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    row: dict[str, Any] = {"n": len(where[2])}
    for k, name in enumerate(("auc", "tpr_at_5")):
        row |= {f"{name}_first": both[0][k], f"{name}_second": both[1][k]}
        row |= {f"{name}_gain": both[1][k] - both[0][k]}
        row |= {f"{name}_gain_low": low[k], f"{name}_gain_high": high[k]}
    for end, one, score in zip(("first", "second"), changes, scores, strict=True):
        limit = threshold(score[where[0]], FALSE_ALARMS)
        row[f"passes_normal_{end}"] = 1 + needed(one[where[1]], limit).mean()
    return row
