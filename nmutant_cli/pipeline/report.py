"""The stage ``report``: tables, figures and one page, from the CSV files of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from nmutant_cli.config.detection import OWN, Protocol
from nmutant_cli.datasets import DATASET_TITLES
from nmutant_cli.files import file_digest, read_records
from nmutant_cli.paper import claims, published
from nmutant_cli.pipeline import artefacts
from nmutant_cli.pipeline.detect import as_published_csv, detections_csv, kappa1_of
from nmutant_cli.pipeline.experiment import Experiment
from nmutant_cli.pipeline.kappa import kappa_csv
from nmutant_cli.pipeline.pictures import neighbourhoods, panel_rows
from nmutant_cli.report import page, tables
from nmutant_cli.report.conclusion import conclusion
from nmutant_cli.report.figures.images import image_panel
from nmutant_cli.report.figures.neighbourhood import neighbourhood_figure
from nmutant_cli.report.figures.roc import roc_figure
from nmutant_cli.report.figures.sensitivity import kappa_histograms, ratio_figure
from nmutant_cli.report.figures.style import to_png
from nmutant_cli.report.relabelling import relabelling
from nmutant_cli.report.roc import roc_table

Tables = dict[str, tuple[str, pd.DataFrame]]
"""File without its ending: title on the page, and the table."""
Figures = dict[str, tuple[str, Callable[[], Figure]]]
"""Name: caption on the page, and what draws it."""
OF_OTHER_STAGES = {
    "comparison": "Detectors on the same samples: how well each tells a set from normal images",
    "evasion": "How many images an attack makes that fool the network and pass the detector",
}
"""Captions of the figures that ``compare`` and ``evade`` draw."""


def table1(experiment: Experiment) -> pd.DataFrame:
    """Table 1 of this run."""
    return tables.table1(*_table1_arguments(experiment))


def table2(experiment: Experiment) -> pd.DataFrame:
    """Table 2 of this run; with ``detection.as_published``, what each row asked beside it."""
    protocols = experiment.settings.detection.protocols()
    rules = experiment.settings.detection.rules
    own = _table2(
        experiment, detections_csv(experiment), dict.fromkeys(experiment.titles, OWN), rules
    )
    if not protocols:
        return own
    asked = _table2(experiment, as_published_csv(experiment), protocols, ("published",))
    said = {experiment.titles[slug]: str(protocol) for slug, protocol in protocols.items()}
    both = pd.concat(
        [own.assign(protocol=str(OWN)), asked.assign(protocol=asked["samples"].map(said))]
    )
    order = {title: place for place, title in enumerate(own["samples"].unique())}
    return both.sort_values("samples", key=lambda c: c.map(order), kind="stable", ignore_index=True)


def _table2(
    experiment: Experiment, records: Path, protocols: Mapping[str, Protocol], rules: Iterable[str]
) -> pd.DataFrame:
    detection = experiment.settings.detection
    sizes = {
        slug: int(experiment.samples(slug).kept(protocol.right_only).sum())
        for slug, protocol in protocols.items()
    }
    return tables.table2(
        read_records(records),
        {slug: title for slug, title in experiment.titles.items() if slug in protocols},
        DATASET_TITLES[experiment.settings.dataset],
        sizes,
        rules,
        kappa1_of(experiment),
        detection.mu,
    )


def report(experiment: Experiment) -> tuple[list[Path], list[str]]:
    """Write table1.csv, table2.csv, the figures and report.html.

    Returns their paths, in that order, and what was found, in sentences.
    """
    settings = experiment.settings
    sources = {
        "kappa": file_digest(kappa_csv(experiment)),
        "detections": file_digest(detections_csv(experiment)),
    }
    if settings.detection.protocols():
        sources["as_published"] = file_digest(as_published_csv(experiment))
    ingredients = experiment.ingredients(
        "report",
        {
            "sources": sources,
            "titles": experiment.titles,
            "confidence": settings.sensitivity.confidence,
            "step_size": settings.detection.step_size,
        },
    )
    own = _own_tables(experiment)
    first, second, roc = (own[name][1] for name in ("table1", "table2", "roc"))
    found = conclusion(first, second, roc, _shown_step(experiment))
    beside = _beside_published(experiment, first, second)
    figures = _figures(experiment)
    contents: list[tuple[str, Callable[[], bytes]]] = [
        *((f"{name}.csv", partial(_csv, table)) for name, (_, table) in (own | beside).items()),
        *((f"figures/{name}.png", partial(_png, draw)) for name, (_, draw) in figures.items()),
    ]
    paths = [
        experiment.run.make(name, ingredients, partial(_write, content))
        for name, content in contents
    ]
    more = _of_other_stages(experiment)
    captions = {name: caption for name, (caption, _) in figures.items()} | more
    folder = experiment.run.path / "figures"
    pictures = [(caption, folder / f"{name}.png") for name, caption in captions.items()]
    content = partial(_page, experiment, found, own | beside, pictures)
    if more:
        ingredients["more"] = {name: file_digest(folder / f"{name}.png") for name in more}
    page_path = experiment.run.make("report.html", ingredients, partial(_write, content))
    return [*paths, page_path], found


def _own_tables(experiment: Experiment) -> Tables:
    settings = experiment.settings
    kappas = read_records(kappa_csv(experiment))
    steps = settings.sensitivity.step_sizes
    by_step = (experiment.titles, DATASET_TITLES[settings.dataset], steps)
    return {
        "table1": ("Table 1: sensitivity to random mutation", table1(experiment)),
        "table2": ("Table 2: detection", table2(experiment)),
        "roc": (
            "Normal samples against the others, by kappa alone, with 95% intervals",
            roc_table(kappas, *by_step, settings.seed),
        ),
        "relabelling": (
            "The majority label under mutation as a corrected label",
            relabelling(kappas, *by_step),
        ),
    }


def _beside_published(experiment: Experiment, first: pd.DataFrame, second: pd.DataFrame) -> Tables:
    """Tables 1 and 2 beside the published ones, and the claims; {} for data the paper lacks."""
    if DATASET_TITLES[experiment.settings.dataset] not in set(published.table1()["dataset"]):
        return {}
    counts = experiment.run[artefacts.network("base")]["counts"]
    means = tables.means(*_table1_arguments(experiment))
    return {
        "compared/table1": (
            "Table 1 beside the published one",
            published.compare_table1(first),
        ),
        "compared/table2": (
            "Table 2 beside the published one",
            published.compare_table2(second),
        ),
        "compared/claims": (
            "The claims of the text",
            claims.claims(means, second, 1 - counts["train_accuracy"]),
        ),
    }


def _figures(experiment: Experiment) -> Figures:
    settings, titles = experiment.settings, experiment.titles
    dataset, steps = DATASET_TITLES[settings.dataset], settings.sensitivity.step_sizes
    step = _shown_step(experiment)
    kappas = read_records(kappa_csv(experiment))
    return {
        "ratio": (
            "Sensitivity of adversarial samples over that of normal ones (Figure 4)",
            lambda: ratio_figure(tables.means(*_table1_arguments(experiment)), dataset),
        ),
        "kappa": (
            f"How kappa(x) is distributed at step size {step:g}",
            lambda: kappa_histograms(kappas, titles, step, dataset),
        ),
        "roc": (
            "What any rule that looks at label changes only can reach",
            lambda: roc_figure(kappas, titles, steps, dataset),
        ),
        "neighbourhood": (
            "Figures 1 and 2: one mutation of a normal and of an adversarial image, and the labels "
            "around each along two random directions",
            lambda: neighbourhood_figure(neighbourhoods(experiment), dataset),
        ),
        "panel": (
            "An adversarial sample of each attack, and a mutation of it",
            lambda: image_panel(panel_rows(experiment), dataset),
        ),
    }


def _shown_step(experiment: Experiment) -> float:
    """The step size that is spoken of: that of the detection if kappa was measured there."""
    steps = experiment.settings.sensitivity.step_sizes
    step = experiment.settings.detection.step_size
    return step if step in steps else min(steps)


def _of_other_stages(experiment: Experiment) -> dict[str, str]:
    """Name and caption of the figures of other stages that are there and of these very samples."""
    run, found = experiment.run, {}
    samples = {slug: file_digest(experiment.samples_path(slug)) for slug in experiment.titles}
    for name, caption in OF_OTHER_STAGES.items():
        with contextlib.suppress(KeyError):  # not made
            parts = [
                run[f"compare/{part}.csv"] for part in run[f"{name}.csv"]["ingredients"]["parts"]
            ]
            same = all(part["ingredients"]["samples"] == samples for part in parts)
            if same and (run.path / "figures" / f"{name}.png").is_file():
                found[name] = caption
    return found


def _csv(table: pd.DataFrame) -> bytes:
    return tables.to_csv(table).encode()


def _png(draw: Callable[[], Figure]) -> bytes:
    return to_png(draw())


def _page(
    experiment: Experiment, found: list[str], shown: Tables, pictures: list[tuple[str, Path]]
) -> bytes:
    dataset = DATASET_TITLES[experiment.settings.dataset]
    captioned = [(caption, path.read_bytes()) for caption, path in pictures]
    named = {title: _for_page(table) for title, table in shown.values()}
    return page.render(dataset, found, captioned, named, facts(experiment)).encode()


def _write(content: Callable[[], bytes], path: Path) -> None:
    path.write_bytes(content())


def _for_page(table: pd.DataFrame) -> pd.DataFrame:
    """Without what need not be read: the paper's count that is n or 0, and rows not published."""
    if "verdict" not in table:
        return table.drop(columns="adversary", errors="ignore")
    return table[table["verdict"] != ""].reset_index(drop=True)


def facts(experiment: Experiment) -> Mapping[str, Any]:
    """What the page says of how its numbers came about."""
    settings, run = experiment.settings, experiment.run
    entry = run[artefacts.network("base")]
    dropout_on = entry["counts"].get("test_accuracy_dropout_on")
    with_dropout = {} if dropout_on is None else {"test accuracy, dropout on": dropout_on}
    attacks = {
        experiment.titles[slug]: run[artefacts.samples(slug)]["counts"]
        for slug in settings.attack.sets
    }
    return {
        "data set": settings.dataset,
        "seed": settings.seed,
        "network": settings.model.network,
        "train accuracy": entry["counts"]["train_accuracy"],
        "test accuracy": entry["counts"]["test_accuracy"],
        **with_dropout,
        "adversarial of attempts": {
            title: f"{counts['adversarial']} of {counts['attempts']}"
            for title, counts in attacks.items()
        },
        "mutations for each kappa": settings.sensitivity.mutations,
        "confidence of the intervals of kappa": settings.sensitivity.confidence,
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
