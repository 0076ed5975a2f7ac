"""The stage ``report``: tables, figures and one page, from the CSV files of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from nmutant_cli.datasets import DATASET_TITLES
from nmutant_cli.files import file_digest, read_records
from nmutant_cli.paper import claims, published
from nmutant_cli.pipeline.detect import detections_csv, kappa1_of
from nmutant_cli.pipeline.experiment import Experiment
from nmutant_cli.pipeline.kappa import kappa_csv
from nmutant_cli.pipeline.pictures import neighbourhoods, panel_rows
from nmutant_cli.report import page, tables
from nmutant_cli.report.figures.images import image_panel
from nmutant_cli.report.figures.neighbourhood import (
    neighbourhood_figure,
)
from nmutant_cli.report.figures.roc import roc_figure
from nmutant_cli.report.figures.sensitivity import kappa_histograms, ratio_figure
from nmutant_cli.report.figures.style import to_png
from nmutant_cli.report.relabelling import relabelling
from nmutant_cli.report.roc import roc_table
from nmutant_cli.seeding import stream


def table1(experiment: Experiment) -> pd.DataFrame:
    """Table 1 of this run."""
    return tables.table1(*_table1_arguments(experiment))


def table2(experiment: Experiment) -> pd.DataFrame:
    """Table 2 of this run."""
    wanted = experiment.settings.detection
    sizes = {slug: len(s.counted()) for slug, s in experiment.all_samples().items()}
    return tables.table2(
        read_records(detections_csv(experiment)),
        experiment.titles,
        DATASET_TITLES[experiment.settings.dataset],
        sizes,
        wanted.rules,
        kappa1_of(experiment),
        wanted.mu,
    )


def report(experiment: Experiment) -> list[Path]:
    """Write table1.csv, table2.csv, the figures and report.html; their paths, in that order."""
    settings, run = experiment.settings, experiment.run
    dataset = DATASET_TITLES[settings.dataset]
    kappa, detections = kappa_csv(experiment), detections_csv(experiment)
    sources = {"kappa": file_digest(kappa), "detections": file_digest(detections)}
    ingredients = experiment.ingredients(
        "report",
        {
            "sources": sources,
            "titles": experiment.titles,
            "confidence": settings.sensitivity.confidence,
            "step_size": settings.detection.step_size,
        },
    )

    def make(name: str, content: Callable[[], bytes]) -> Path:
        def build(path: Path) -> None:
            path.write_bytes(content())

        return run.make(name, ingredients, build)

    first, second = table1(experiment), table2(experiment)
    kappas = read_records(kappa)
    steps = settings.sensitivity.step_sizes
    step = settings.detection.step_size if settings.detection.step_size in steps else min(steps)

    def ratio() -> Figure:
        return ratio_figure(tables.means(*_table1_arguments(experiment)), dataset)

    def histograms() -> Figure:
        return kappa_histograms(kappas, experiment.titles, step, dataset)

    def panel() -> Figure:
        return image_panel(panel_rows(experiment), dataset)

    def roc() -> Figure:
        return roc_figure(kappas, experiment.titles, steps, dataset)

    drawn = {
        "ratio": (ratio, "Sensitivity of adversarial samples over that of normal ones (Figure 4)"),
        "kappa": (histograms, f"How kappa(x) is distributed at step size {step:g}"),
        "roc": (roc, "What any rule that looks at label changes only can reach"),
        "neighbourhood": (
            lambda: neighbourhood_figure(neighbourhoods(experiment), dataset),
            "Figures 1 and 2: one mutation of a normal and of an adversarial image, and the labels "
            "around each along two random directions",
        ),
        "panel": (panel, "An adversarial sample of each attack, and a mutation of it"),
    }
    rng = stream(settings.seed, settings.dataset, "roc")
    by_step = (experiment.titles, dataset, steps)
    own = {
        "table1": ("Table 1: sensitivity to random mutation", first),
        "table2": ("Table 2: detection", second),
        "roc": (
            "Normal samples against the others, by kappa alone, with 95% intervals",
            roc_table(kappas, *by_step, rng),
        ),
        "relabelling": (
            "The majority label under mutation as a corrected label",
            relabelling(kappas, *by_step),
        ),
    }
    paths = [
        make(f"{name}.csv", lambda f=frame: tables.to_csv(f).encode())  # type: ignore[misc]
        for name, (_, frame) in own.items()
    ]
    shown = dict(own.values())
    if dataset in set(published.table1()["dataset"]):
        beside = {
            "Table 1 beside the published one": published.compare_table1(first),
            "Table 2 beside the published one": published.compare_table2(second),
            "The claims of the text": _claims(experiment, second),
        }
        shown |= {title: _with_verdict(frame) for title, frame in beside.items()}
        for name, frame in zip(("table1", "table2", "claims"), beside.values(), strict=True):
            paths.append(make(f"compared/{name}.csv", lambda f=frame: tables.to_csv(f).encode()))  # type: ignore[misc]
    captioned = []
    for name, (draw, caption) in drawn.items():
        path = make(f"figures/{name}.png", lambda draw=draw: to_png(draw()))  # type: ignore[misc]
        paths.append(path)
        captioned.append((caption, path.read_bytes()))
    html = page.render(dataset, shown, captioned, facts(experiment)).encode()
    return [*paths, make("report.html", lambda: html)]


def _with_verdict(frame: pd.DataFrame) -> pd.DataFrame:
    """For the page: only rows that have a verdict, without columns that are the same in all."""
    rows = frame[frame["verdict"] != ""]
    same = [c for c in ("dataset", "rule", "kappa1", "undecided") if c in rows]
    return rows.drop(columns=same).reset_index(drop=True)


def _claims(experiment: Experiment, second: pd.DataFrame) -> pd.DataFrame:
    counts = experiment.run[experiment.model_path().name]["counts"]
    means = tables.means(*_table1_arguments(experiment))
    return claims.claims(means, second, 1 - counts["train_accuracy"])


def facts(experiment: Experiment) -> Mapping[str, Any]:
    """What the page says of how its numbers came about."""
    settings, run = experiment.settings, experiment.run
    entry = run[experiment.model_path().name]
    made = {
        slug: f"{run[f'adversarial/{slug}.npz']['counts']['adversarial']} of "
        f"{run[f'adversarial/{slug}.npz']['counts']['attempts']}"
        for slug in settings.attack.sets
    }
    return {
        "data set": settings.dataset,
        "seed": settings.seed,
        "network": settings.model.network,
        "train accuracy": entry["counts"]["train_accuracy"],
        "test accuracy": entry["counts"]["test_accuracy"],
        "adversarial of attempts": {experiment.titles[slug]: n for slug, n in made.items()},
        "mutations for each kappa": settings.sensitivity.mutations,
        "kappa1": kappa1_of(experiment),
        "versions": entry["versions"],
        "sha256 of the data": experiment.data.digest,
    }


def _table1_arguments(experiment: Experiment) -> tuple[Any, ...]:
    return (
        read_records(kappa_csv(experiment)),
        experiment.titles,
        DATASET_TITLES[experiment.settings.dataset],
        experiment.settings.sensitivity.step_sizes,
        experiment.settings.sensitivity.confidence,
    )
