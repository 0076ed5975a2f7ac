"""Scores to tables: how well each detector tells each sample set from normal images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from nmutant_cli.datasets import DATASET_TITLES
from nmutant_cli.detection.sprt import SequentialTest, TestBatch
from nmutant_cli.detectors import DETECTORS
from nmutant_cli.files import file_digest, read_records
from nmutant_cli.pipeline import artefacts
from nmutant_cli.pipeline.experiment import Experiment
from nmutant_cli.pipeline.scores import (
    CLEAN,
    changes_in,
    in_first_half,
    known_to,
    scored,
)
from nmutant_cli.report.figures.comparison import comparison_figure
from nmutant_cli.report.roc import FALSE_ALARMS, called, threshold, with_intervals
from nmutant_cli.report.tables import NORMAL
from nmutant_cli.seeding import stream
from nmutant_cli.types import Bools, Floats, Ints, Verdict

RELAXED = 0.1
"""``relaxScale`` of the code of ICSE 2019."""
HALVES = {"choose": True, "report": False}
"""Which half of a set, by name; the value says whether it is the first one."""


def compare(experiment: Experiment) -> list[Path]:
    """Write comparison.csv, costs.csv and the figure; their paths, in that order."""
    settings, parts = experiment.settings, scored(experiment)
    digests = {"-".join(key): file_digest(part) for key, part in parts.items()}
    frames = {key: read_records(part) for key, part in parts.items()}
    ingredients = experiment.ingredients("compare", {"parts": digests, "table": 5})

    def table(path: Path) -> Mapping[str, Any]:
        rows = [row for key, frame in frames.items() for row in _rows(experiment, *key, frame)]
        names, titles = list(settings.compare.detectors), list(experiment.titles.values())
        detectors = [DETECTORS[name].title for name in names]
        rows.sort(key=lambda row: (detectors.index(row["detector"]), titles.index(row["samples"])))
        pd.DataFrame(rows).to_csv(path, index=False, lineterminator="\n")
        return {"rows": len(rows)}

    def costs(path: Path) -> None:
        _costs(experiment, list(parts)).to_csv(path, index=False, lineterminator="\n")

    written = [
        experiment.run.make("comparison.csv", ingredients, table),
        experiment.run.make("costs.csv", ingredients, costs),
    ]

    def figure(path: Path) -> None:
        drawn = comparison_figure(read_table(written[0]), DATASET_TITLES[settings.dataset])
        drawn.savefig(path, format="png")

    sources = {"figure": 2, "sources": [file_digest(path) for path in written]}
    return [*written, experiment.run.make("figures/comparison.png", sources, figure)]


def _rows(
    experiment: Experiment, name: str, network: str, frame: pd.DataFrame
) -> list[dict[str, Any]]:
    """A row for each set and half: figures in percent with 95% bootstrap intervals.

    AUC is against the normal samples of the same half. The true positive rates are those where
    exactly that share of the clean images is called adversarial, ties broken at random
    (`roc.called`); the share of the normal samples that is called so stands beside them.
    ``passes``: forward passes of a decision at 5%, where the network is asked no longer once the
    count of label changes cannot come out otherwise. ``sequential_``: what `sequential` decides.
    """
    settings, kind = experiment.settings, DETECTORS[name]
    known = experiment.titles[known_to(experiment, network)] if kind.supervised else ""
    first = in_first_half(frame["source_index"])
    of = {slug: (frame["samples"] == slug).to_numpy() for slug in (CLEAN, *experiment.titles)}
    scores = frame["score"].to_numpy(float)
    clean = scores[of[CLEAN]]
    changes = changes_in(frame)
    whole = experiment.run[artefacts.scores(name, network)]["counts"]["passes"]
    rows = []
    for slug, title in experiment.titles.items():
        for half, is_first in HALVES.items():
            chosen = of[slug] & (first == is_first)
            if slug == NORMAL or not of[slug].any():
                continue
            values, normal = scores[chosen], scores[of[NORMAL] & (first == is_first)]
            rng = stream(settings.seed, settings.dataset, "compare", name, network, slug, half)
            figures = {"auc": with_intervals(normal, values, rng)[:3]}
            rates = np.reshape(with_intervals(clean, values, rng, exact=True)[3:], (-1, 3))
            keys = [f"tpr_at_{100 * rate:g}" for rate in FALSE_ALARMS]
            figures |= dict(zip(keys, rates, strict=True))
            row = {
                "detector": kind.title,
                "needs": kind.needs,
                "learnt_from": known,
                "samples": title,
                "half": half,
                "n": len(values),
            }
            for key, three in figures.items():
                ends = (f"{key}_{end}" for end in ("percent", "low", "high"))
                row |= dict(zip(ends, three, strict=True))
            for rate in FALSE_ALARMS:
                alarms = called(normal, clean, rate).mean() if len(normal) else np.nan
                row[f"alarms_at_{100 * rate:g}_percent"] = round(100 * float(alarms), 2)
            row["passes"] = whole
            if changes is not None and len(values):
                row["passes"] = round(_passes(changes[chosen], clean), 1)
                row |= _sequential(changes, clean, chosen, of[NORMAL] & (first == is_first))
            rows.append(row)
    return rows


def _passes(changes: Bools, clean: Floats) -> float:
    """Mean forward passes of a decision at 5%; whether ties count is drawn before it."""
    limit = threshold(clean, FALSE_ALARMS[-1])
    tie = float(called(np.array([limit]), clean, FALSE_ALARMS[-1])[0])
    one = 1 / changes.shape[1]
    either = (needed(changes, limit - one).mean(), needed(changes, limit).mean())
    return 1 + tie * float(either[0]) + (1 - tie) * float(either[1])


def _sequential(changes: Bools, clean: Floats, chosen: Bools, normal: Bools) -> dict[str, float]:
    """Percent of the ``chosen`` and of the ``normal`` rows called adversarial, forward passes."""
    found, alarms = (sequential(changes[rows], clean) for rows in (chosen, normal))
    return {
        "sequential_percent": round(100 * float(found[0].mean()), 2),
        "sequential_alarms_percent": round(100 * float(alarms[0].mean()), 2)
        if len(alarms[0])
        else np.nan,
        "sequential_passes": round(1 + float(found[1].mean()), 1),
    }


def sequential(changes: Bools, clean: Floats) -> tuple[Bools, Ints]:
    """What the test of Wang et al. (ICSE 2019) says, and after how many mutations; both ``(n,)``.

    As their public code: Algorithm 1 of the paper, which looks only at a label change, with p0 and
    p1 a `RELAXED` share below and above the mean score of ``clean`` images, taken at the upper end
    of its 99% interval; error bounds of 5%; undecided is normal. No error where no clean label ever
    changes: then the smallest share that can be seen stands for that mean.
    """
    mutations = changes.shape[1]
    upper = clean.mean() + NormalDist().inv_cdf(0.995) * clean.std(ddof=1) / np.sqrt(len(clean))
    mean = float(np.clip(upper, 1 / (mutations * len(clean)), 0.9))
    p0, p1 = (1 - RELAXED) * mean, (1 + RELAXED) * mean
    tests = TestBatch(SequentialTest("algorithm1", p0, p1, cap=mutations), len(changes))
    tests.advance(np.arange(len(changes)), changes)
    return np.asarray(tests.verdict == Verdict.ADVERSARIAL), tests.mutations


def needed(changes: Bools, limit: float) -> Ints:
    """Mutations after which it is settled whether a share above ``limit`` changes the label.

    ``changes``: ``(n, mutations)``; returns ``(n,)``.
    """
    mutations = changes.shape[1]
    most = int(limit * mutations + 1e-9)
    """Changes of an image that is called normal."""
    above = changes.cumsum(axis=1) > most
    below = (~changes).cumsum(axis=1) >= mutations - most
    return (above | below).argmax(axis=1) + 1


def _costs(experiment: Experiment, parts: list[tuple[str, str]]) -> pd.DataFrame:
    """What a score costs, a row for each detector: medians over the networks.

    ``seconds`` of one image among many, and that over what the bare network takes for an image,
    measured in the same minute.
    """
    rows = []
    for name in dict.fromkeys(name for name, _ in parts):
        counts = [
            experiment.run[artefacts.scores(*key)]["counts"] for key in parts if key[0] == name
        ]
        ratios = [one["seconds_per_image"] / one["seconds_per_forward_pass"] for one in counts]
        row = {
            "detector": DETECTORS[name].title,
            "needs": DETECTORS[name].needs,
            "passes": np.median([one["passes"] for one in counts]),
            "seconds": np.median([one["seconds_per_image"] for one in counts]),
            "times_a_forward_pass": np.median(ratios),
        }
        rows.append({k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in row.items()})
    return pd.DataFrame(rows)


def read_table(path: Path) -> pd.DataFrame:
    """comparison.csv or costs.csv; an empty value is a figure of no samples."""
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    return table.fillna({"learnt_from": ""}) if "learnt_from" in table else table


def short(table: pd.DataFrame) -> pd.DataFrame:
    """AUC in percent on the second half, a row for each detector and a column for each set."""
    table = table[table["half"] == "report"]
    wide = table.pivot_table("auc_percent", "detector", "samples", sort=False)
    return wide.rename_axis(columns=None).reset_index()
