"""Which mutations, step size and rule find most at 5% false alarms, for the fewest forward passes.

Looks at the first half of the images alone, the one that the stage compare calls "choose"; what is
chosen is then reported on the other. Thresholds come from clean images. Goes on where it was
stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.detection.sprt import SequentialTest, TestBatch
from nmutant_cli.detectors import NetworkView, kappa
from nmutant_cli.files import file_digest, read_records
from nmutant_cli.pipeline.compare import needed
from nmutant_cli.pipeline.experiment import Experiment
from nmutant_cli.pipeline.kappa import measured
from nmutant_cli.pipeline.scores import (
    CHANGES,
    CLEAN,
    changes_in,
    changes_text,
    clean_images,
    in_first_half,
    view_of,
)
from nmutant_cli.report.roc import threshold
from nmutant_cli.report.tables import NORMAL
from nmutant_cli.studies.study import Findings, Inputs
from nmutant_cli.types import Bools, Images, Ints, Verdict

CLEAN_KAPPAS = (0.01, 0.04, 0.1)
"""For each of these the largest step size at which clean images' mean kappa is no higher."""
MUTATIONS = 100
CLEAN_IMAGES = 300
"""For the thresholds, of each network."""
FALSE_ALARMS = 0.05
CLOSE = 2.0
SHOWN = 12

Rule = Callable[[Bools, str], tuple[Bools, Ints]]
"""From label changes ``(n, MUTATIONS)`` on a network: which are adversarial, mutations read."""
ChangesOf = dict[str, Bools]
"""By sample set."""

log = logging.getLogger("nmutant")


class Mixed(kappa.LargerOcclusion):
    """What looks at details and what looks at places, half of the mutations each."""

    title = "kappa, larger occlusion and translation"

    def operator(self, view: NetworkView) -> Mutation:
        kinds = ("occlusion", "blackout", "translation", "rotation")
        return super().operator(view).model_copy(update={"kinds": kinds})


KINDS: tuple[type[kappa.Kappa], ...] = (
    kappa.Calibrated, kappa.LargerOcclusion, kappa.Gaussian, kappa.Translation, Mixed,
)  # fmt: skip


def study(inputs: Inputs) -> Findings:
    """operators.csv, best first.

    Of all settings within `CLOSE` points of the best mean true positive rate over the sets, the one
    with the fewest forward passes for a clean image leads.
    """
    (run,) = inputs.runs
    rows = []
    with inputs.opened(run) as experiment:
        sets = experiment.settings.attack.sets
        networks = list(dict.fromkeys(map(experiment.network_of, sets)))
        clean = clean_images(experiment)
        for kind in KINDS:
            for step in step_sizes(kind, _view(experiment, networks[0]), clean[::2]):
                paths = {n: _counted(experiment, kind, step, n, clean) for n in networks}
                changes = {network: _changes_in(path) for network, path in paths.items()}
                rows += _rows(experiment, kind.title, step, changes)
                inputs.note(run, *paths.values())
                log.info("%s, step size %.4g", kind.title, step)
        inputs.note(run, *map(experiment.model_path, networks))
        inputs.note(run, *map(experiment.samples_path, experiment.titles))
    table = pd.DataFrame(rows).round(2)
    close = table["mean_tpr_percent"] >= table["mean_tpr_percent"].max() - CLOSE
    table = table.assign(close=close).sort_values(
        ["close", "passes_clean", "mean_tpr_percent"], ascending=[False, True, False]
    )
    table = table.drop(columns="close")
    return Findings({"operators": table}, shown=table.head(SHOWN))


def step_sizes(kind: type[kappa.Kappa], view: NetworkView, clean: Images) -> list[float]:
    """The step sizes of `kappa.GRID` that are tried: for each of `CLEAN_KAPPAS` the largest."""
    detector = kind(view)
    detector.mutations = 50
    largest: dict[float, float] = {}
    for step in kappa.GRID:
        detector.step_size = step
        mean = detector.changes(clean[:200]).mean()
        largest |= {target: step for target in CLEAN_KAPPAS if mean <= target}
        if mean > max(CLEAN_KAPPAS):
            break
    return sorted(set(largest.values()))


def rules(clean: ChangesOf) -> dict[str, Rule]:
    """Every rule that keeps false alarms at 5% of each network's clean images, by name."""
    found: dict[str, Rule] = {f"count of {m}": _count(clean, m) for m in (10, 25, 50, MUTATIONS)}
    for p0 in (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.3):
        for ratio in (1.5, 2.0, 3.0):
            p1 = round(p0 * ratio, 4)
            rule = _wald(p0, p1)
            if all(rule(changes, n)[0].mean() <= FALSE_ALARMS for n, changes in clean.items()):
                found[f"wald {p0:g} against {p1:g}"] = rule
    return found


def _count(clean: ChangesOf, m: int) -> Rule:
    """More changes among ``m`` than 95% of the clean images; asking ends when that is settled."""

    def rule(changes: Bools, network: str) -> tuple[Bools, Ints]:
        limit = threshold(clean[network][:, :m].mean(axis=1), FALSE_ALARMS)
        return changes[:, :m].mean(axis=1) > limit, needed(changes[:, :m], limit)

    return rule


def _wald(p0: float, p1: float) -> Rule:
    test = SequentialTest("wald", p0, p1, 0.05, 0.05, MUTATIONS)

    def rule(changes: Bools, network: str) -> tuple[Bools, Ints]:
        tests = TestBatch(test, len(changes))
        tests.advance(np.arange(len(changes)), changes)
        return np.asarray(tests.verdict == Verdict.ADVERSARIAL), tests.mutations

    return rule


def _view(experiment: Experiment, network: str) -> NetworkView:
    settings = experiment.settings.compare.model_copy(update={"mutations": MUTATIONS})
    return replace(view_of(experiment, network), settings=settings)


def _counted(
    experiment: Experiment, kind: type[kappa.Kappa], step: float, network: str, clean: Images
) -> Path:
    """The label changes of clean images and of the first half of each set on a network."""
    settings = experiment.settings
    ingredients = {
        "samples": {s: file_digest(experiment.samples_path(s)) for s in experiment.titles},
        "network": file_digest(experiment.model_path(network)),
        "compare": settings.compare.model_dump(mode="json"),
        "mutation": settings.mutation.model_dump(mode="json"),
        "seed": settings.seed,
        "sizes": [MUTATIONS, CLEAN_IMAGES],
        **CHANGES,
    }

    def build(path: Path) -> None:
        detector = kind(_view(experiment, network))
        detector.step_size = step
        images = {CLEAN: clean[1::2][:CLEAN_IMAGES]}
        for slug in experiment.titles:
            if slug != NORMAL and experiment.network_of(slug) == network:
                whole, _, where = measured(experiment, slug)
                images[slug] = whole[in_first_half([source for _, source in where])]
        rows = [
            (slug, text)
            for slug, chosen in images.items()
            if len(chosen)
            for text in changes_text(detector.changes(chosen))
        ]
        pd.DataFrame(rows, columns=["samples", "changes"]).to_csv(path, index=False)

    name = f"operators/{kind.__name__}-{step:.4g}-{network}.csv"
    return experiment.run.make(name, ingredients, build)


def _changes_in(path: Path) -> ChangesOf:
    groups = read_records(path).groupby("samples", sort=False)
    by_set = {str(slug): changes_in(part) for slug, part in groups}
    return {slug: changes for slug, changes in by_set.items() if changes is not None}


def _rows(
    experiment: Experiment, title: str, step: float, changes: dict[str, ChangesOf]
) -> list[dict[str, Any]]:
    """A row for each rule. ``changes``: by network."""
    of_clean = {network: sets[CLEAN] for network, sets in changes.items()}
    titles = experiment.titles
    rows = []
    for name, rule in rules(of_clean).items():
        tprs = {
            slug: 100 * rule(of_set, network)[0].mean()
            for network, sets in changes.items()
            for slug, of_set in sets.items()
            if slug != CLEAN
        }
        verdicts = [rule(of_set, network) for network, of_set in of_clean.items()]
        rows.append(
            {
                "mutations": title,
                "step_size": step,
                "rule": name,
                "mean_tpr_percent": np.mean(list(tprs.values())),
                "lowest_tpr_percent": min(tprs.values()),
                "clean_alarms_percent": 100 * np.mean([alarms.mean() for alarms, _ in verdicts]),
                "passes_clean": 1 + np.mean([read.mean() for _, read in verdicts]),
                **{titles[slug]: tprs[slug] for slug in titles if slug in tprs},
            }
        )
    return rows
