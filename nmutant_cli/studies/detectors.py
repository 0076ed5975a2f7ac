"""Detectors side by side over several networks, each compared in a run folder of its own.

What one network says of its detectors says little of the next one. Every figure is the mean over
the networks, with two intervals: over images, redrawn on each network, and over networks. A
detector is held against another one in pairs: on the same images of the same networks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t

from nmutant_cli.datasets import DATASET_TITLES
from nmutant_cli.detectors import DETECTORS
from nmutant_cli.errors import ArtifactError, did_you_mean
from nmutant_cli.pipeline.compare import HALVES
from nmutant_cli.pipeline.experiment import titles_of
from nmutant_cli.pipeline.scores import CLEAN, changes_in, in_first_half
from nmutant_cli.report.figures.comparison import comparison_figure
from nmutant_cli.report.roc import CONFIDENCE, FALSE_ALARMS, RESAMPLES, called, figures
from nmutant_cli.report.tables import NORMAL
from nmutant_cli.seeding import stream
from nmutant_cli.studies.study import Findings, Inputs
from nmutant_cli.types import AnyArray, Bools, Floats, Ints

KEYS = ["samples", "index", "source_index"]
RATE = FALSE_ALARMS[-1]
FIGURES = ("auc", f"tpr_at_{100 * RATE:g}")


class OfNetwork(NamedTuple):
    """The scores of all detectors on one network: ``rows`` says of what, and is the same for all.

    ``scores`` by the detector's name; ``judged``: which rows are of the half that is looked at;
    ``digest`` is that of the network.
    """

    run: Path
    rows: pd.DataFrame
    judged: Bools
    scores: Mapping[str, Floats]
    digest: str


def study(inputs: Inputs, *, against: str, mutations: int, half: str) -> Findings:
    """detectors.csv, differences.csv and the figure detectors.png, of one half of the images.

    With ``mutations`` the detectors that count label changes see so many of them and no more; that
    number, and the half where it is ``choose``, are then part of the names.
    """
    if half not in HALVES:
        raise ArtifactError(f"--half {half}: known are {', '.join(HALVES)}")
    if mutations < 0:
        raise ArtifactError(f"--mutations {mutations}: has to be positive, or 0 for all")
    settings = inputs.load()
    titles = titles_of(settings)
    networks = [
        network for run in inputs.runs for network in _networks(inputs, run, mutations, half)
    ]
    names = list(networks[0].scores)
    _check(networks, against)
    tables: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for slug, title in titles.items():
        if slug != NORMAL:
            of_set = _of_set(networks, names, slug, against, settings.seed)
            for table, rows in zip(tables, of_set, strict=True):
                table.extend({**row, "samples": title} for row in rows)
    if not tables[0]:
        raise ArtifactError("runs: no scores of the sets of this config; name that of the runs")
    places = [DETECTORS[name].title for name in names], list(titles.values())
    for rows in tables:
        rows.sort(
            key=lambda row: (places[0].index(row["detector"]), places[1].index(row["samples"]))
        )
    found, differences = (pd.DataFrame(rows).round(2) for rows in tables)
    if not mutations:
        found = found.merge(_asked(inputs, half), "left", ["detector", "samples"])
    heading = f"{DATASET_TITLES[settings.dataset]}, {len(networks)} networks"
    drawn = comparison_figure(found.assign(half="report"), heading)
    ending = (f"-{half}" if half != "report" else "") + (f"-{mutations}" if mutations else "")
    named = {f"detectors{ending}": found, f"differences{ending}": differences}
    return Findings(named, {f"detectors{ending}": drawn})


def _check(networks: Sequence[OfNetwork], against: str) -> None:
    first = networks[0]
    for network in networks:
        if list(network.scores) != list(first.scores):
            raise ArtifactError(f"{network.run}: compares other detectors than {first.run}")
    if against not in first.scores:
        raise ArtifactError(
            f"--against {against}: no scores of it; there are those of {', '.join(first.scores)}"
            f"{did_you_mean(against, first.scores)}"
        )
    if len({network.digest for network in networks}) < len(networks):
        raise ArtifactError("runs: two of them hold the same network; give each once")


def _asked(inputs: Inputs, half: str) -> pd.DataFrame:
    """Means over the runs of what else their comparison.csv says of that half."""
    columns = ["passes", "sequential_percent", "sequential_alarms_percent", "sequential_passes"]
    keys = ["detector", "samples"]
    tables = [inputs.table(run, "comparison.csv", [*keys, "half", *columns]) for run in inputs.runs]
    every = pd.concat(tables)
    every = every[every["half"] == half]
    return every.groupby(keys, sort=False)[columns].mean().round(2).reset_index()


def _networks(inputs: Inputs, run: Path, mutations: int, half: str) -> list[OfNetwork]:
    """Every network of a run with the scores on it, in the order of `DETECTORS`."""
    files: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted((run / "compare").glob("*-*.csv")):
        detector, network = path.stem.split("-", 1)
        files[network][detector] = path.relative_to(run).as_posix()
    if not files:
        raise ArtifactError(f"{run}: no scores of detectors; run nmutant compare first")
    found = []
    for by_detector in files.values():
        tables = {
            name: inputs.table(run, by_detector[name], [*KEYS, "score"])
            for name in DETECTORS
            if name in by_detector
        }
        rows = next(iter(tables.values()))[KEYS]
        for name, table in tables.items():
            if not table[KEYS].equals(rows):
                raise ArtifactError(f"{run / by_detector[name]}: holds other samples than the rest")
        scores = {
            name: _score(table, mutations, run / by_detector[name])
            for name, table in tables.items()
        }
        judged = in_first_half(rows["source_index"]) == HALVES[half]
        digest = inputs.entry(run, next(iter(by_detector.values())))["network"]
        found.append(OfNetwork(run, rows, judged, scores, digest))
    return found


def _score(table: pd.DataFrame, mutations: int, path: Path) -> Floats:
    """The scores in a file, of label changes those of the first ``mutations`` where there are."""
    changes = changes_in(table) if mutations else None
    if changes is None:
        return table["score"].to_numpy(float)
    if mutations > changes.shape[1]:
        raise ArtifactError(f"{path}: has {changes.shape[1]} mutations, not {mutations}")
    return np.asarray(changes[:, :mutations].mean(axis=1))


def _of_set(
    networks: Sequence[OfNetwork], names: Sequence[str], slug: str, against: str, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of one sample set, of all detectors and of their differences to ``against``."""
    single, drawn, alarms, sizes = [], [], [], []
    for network in networks:
        clean, normal, of_set = _where(network, slug)
        if not (len(of_set) and len(normal) and len(clean)):
            continue
        # The same images are drawn for every detector.
        rng = stream(seed, "detectors", slug, network.digest)
        times = [
            rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), RESAMPLES)
            for rows in (clean, normal, of_set)
        ]
        times = [np.concatenate([np.ones((1, one.shape[1]), int), one]) for one in times]
        both = np.stack(
            [_figures(network.scores[name], (clean, normal, of_set), times) for name in names]
        )
        single.append(both[:, :, 0])
        drawn.append(both[:, :, 1:])
        scores = network.scores
        alarms.append([called(scores[n][normal], scores[n][clean], RATE).mean() for n in names])
        sizes.append(len(of_set))
    if not single:
        return [], []
    of_network, redrawn = np.stack(single), np.mean(drawn, axis=0)
    start = {"samples": slug, "networks": len(sizes), "n": sum(sizes)}
    base = list(names).index(against)
    rows, differences = [], []
    for k, name in enumerate(names):
        title = {"detector": DETECTORS[name].title}
        row = {**title, "needs": DETECTORS[name].needs, **start}
        row |= _summary(of_network[:, k], redrawn[k], "percent")
        row["alarms_at_5_percent"] = 100 * float(np.mean(alarms, axis=0)[k])
        rows.append(row)
        if k != base:
            gains = _summary(of_network[:, k] - of_network[:, base], redrawn[k] - redrawn[base])
            differences.append({**title, "against": DETECTORS[against].title, **start, **gains})
    return rows, differences


def _where(network: OfNetwork, slug: str) -> tuple[Ints, Ints, Ints]:
    """The rows of the clean images, and of the half judged of the normal ones and of the set."""
    of = network.rows["samples"].to_numpy()
    normal, of_set = ((of == name) & network.judged for name in (NORMAL, slug))
    return np.flatnonzero(of == CLEAN), np.flatnonzero(normal), np.flatnonzero(of_set)


def _figures(scores: Floats, where: tuple[Ints, Ints, Ints], times: Sequence[AnyArray]) -> AnyArray:
    """AUC against normal images, true positive rate at 5% of clean ones: ``(2, 1 + resamples)``.

    ``times``: how often each image counts, ``(1 + resamples, images)``, for clean, normal and
    adversarial ones.
    """
    clean, normal, of_set = where
    (auc, *_), (*_, rate) = (
        figures(*_counts([scores[rows], scores[of_set]], [often, times[2]]), exact=True)
        for rows, often in ((normal, times[1]), (clean, times[0]))
    )
    return np.stack([auc, rate])


def _counts(scores: Sequence[Floats], times: Sequence[AnyArray]) -> list[AnyArray]:
    """How often each score occurs among each kind of image, by falling score."""
    values, which = np.unique(-np.concatenate(scores), return_inverse=True)
    counts, first = [], 0
    for one, often in zip(scores, times, strict=True):
        own = which[first : first + len(one)]
        first += len(one)
        order = np.argsort(own, kind="stable")
        present, starts = np.unique(own[order], return_index=True)
        count = np.zeros((len(often), len(values)), int)
        count[:, present] = np.add.reduceat(often[:, order], starts, axis=1)
        counts.append(count)
    return counts


def _summary(of_network: AnyArray, redrawn: AnyArray, end: str = "gain") -> dict[str, float]:
    """Mean over networks ``(networks, figures)``; intervals over images and over networks.

    ``redrawn``: ``(figures, resamples)``, means over the networks as well. Over networks:
    ``mean -+ t s / sqrt(networks)``, empty below three.
    """
    tails = (1 - CONFIDENCE) / 2
    row: dict[str, float] = {}
    k = len(of_network)
    for i, name in enumerate(FIGURES):
        values = 100 * of_network[:, i]
        low, high = 100 * np.quantile(redrawn[i], [tails, 1 - tails])
        reach = np.nan
        if k >= 3:
            reach = float(t.ppf(1 - tails, k - 1) * values.std(ddof=1) / np.sqrt(k))
        row |= {f"{name}_{end}": values.mean(), f"{name}_low": low, f"{name}_high": high}
        row |= {f"{name}_lowest": values.min(), f"{name}_highest": values.max()}
        row |= {
            f"{name}_networks_low": values.mean() - reach,
            f"{name}_networks_high": values.mean() + reach,
        }
    return row
