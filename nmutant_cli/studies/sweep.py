"""Settings changed one at a time, on the networks and samples of a run.

Variations are a YAML file (``configs/studies``): a base config, what all of them change, what makes
them small, and what each changes. Each is measured in a folder of its own beside the run; networks
and samples of the run, and all that the first variation has, are used again where they fit. Goes on
where it was stopped.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from nmutant_cli.config.fields import Section
from nmutant_cli.config.loading import config_folder, find, merged, validated
from nmutant_cli.config.settings import Settings
from nmutant_cli.datasets import DATASET_TITLES
from nmutant_cli.errors import ConfigError, did_you_mean
from nmutant_cli.files import read_records
from nmutant_cli.networks import inference
from nmutant_cli.paper.published import compare_table2
from nmutant_cli.pipeline.detect import detections_csv, kappa1_of
from nmutant_cli.pipeline.experiment import Experiment
from nmutant_cli.pipeline.kappa import kappa_csv
from nmutant_cli.pipeline.run_folder import copy_samples
from nmutant_cli.pipeline.samples import from_8_bits
from nmutant_cli.report.tables import table1, table2
from nmutant_cli.report.text import number
from nmutant_cli.studies.study import Findings, Inputs


class Variations(Section):
    """What is changed, and whether Table 1 (``kappa``) or 2 (``detections``) is looked at."""

    config: str
    table: Literal["kappa", "detections"]
    settings: dict[str, Any] = Field(default_factory=dict)
    """Changed in all of them."""
    size: dict[str, Any] = Field(default_factory=dict)
    """Changed in all of them, unless they are wanted in full."""
    variations: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """By name."""


def study(inputs: Inputs, *, variations: str, full: bool, only: tuple[str, ...]) -> Findings:
    """NAME.csv, with the rows of Table 1 or 2 for each variation."""
    (run,) = inputs.runs
    path = find(variations, asked="--variations ", folder=config_folder() / "studies")
    sweep = validated(Variations, path)
    for name in only:
        if name not in sweep.variations:
            hint = did_you_mean(name, sweep.variations)
            raise ConfigError(f"--only {name}: {path} has no such variation{hint}")
    tables = []
    first = None
    for position, (name, settings) in enumerate(_each(inputs, sweep, path, full).items()):
        if only and name not in only:
            continue
        folder = run.with_name(f"{run.name}-{path.stem}-{position}{'-full' if full else ''}")
        if not folder.exists():
            inputs.file(run, "manifest.json")
            if first is None:
                copy_samples(run, folder)
            else:
                shutil.copytree(first, folder)
        first = first or folder
        with inputs.open(settings, folder) as experiment:
            tabulate = {"kappa": _table1, "detections": _table2}[sweep.table]
            tables.append(tabulate(experiment, name))
            inputs.note(folder, folder / f"{sweep.table}.csv")
    table = pd.concat(tables, ignore_index=True)
    if sweep.table == "detections":
        return Findings({path.stem: table})
    at = table["samples"] + ", step " + table["step_size"].map(number)
    wide = table.assign(at=at).pivot(index="change", columns="at", values="kappa_percent")
    shown = wide.loc[table["change"].unique(), at.unique()].reset_index()
    return Findings({path.stem: table}, shown=shown)


def _each(inputs: Inputs, sweep: Variations, path: Path, full: bool) -> dict[str, Settings]:
    """The settings of every variation; ConfigError if two are the same, as --set can make them."""
    common = merged(sweep.settings, {} if full else sweep.size)
    found: dict[str, Settings] = {}
    for name, changes in sweep.variations.items():
        try:
            settings = inputs.load(sweep.config, merged(common, changes))
            same = [other for other, those in found.items() if those == settings]
            if same:
                raise ConfigError(f"is the same as {same[0]}, with the --set given")
        except ConfigError as error:
            raise ConfigError(f"{path}: variations.{name}: {error}") from error
        found[name] = settings
    return found


def _table1(experiment: Experiment, name: str) -> pd.DataFrame:
    settings = experiment.settings
    table = table1(
        read_records(kappa_csv(experiment)),
        experiment.titles,
        DATASET_TITLES[settings.dataset],
        settings.sensitivity.step_sizes,
        settings.sensitivity.confidence,
    )
    table.insert(0, "change", name)
    return table


def _table2(experiment: Experiment, name: str) -> pd.DataFrame:
    """Table 2 of the attack sets, with the share that the asked network labels otherwise.

    That is before any mutation. A set of the very network that is asked has no rows.
    """
    settings, detection = experiment.settings, experiment.settings.detection
    asked = detection.model
    if asked is None:
        raise ConfigError(f"{name}: detection.model: is not set; name the network to ask")
    titles = {
        slug: experiment.titles[slug]
        for slug, params in settings.attack.sets.items()
        if params.model != asked
    }
    records = read_records(detections_csv(experiment))
    samples = {slug: experiment.samples(slug).counted() for slug in titles}
    table = table2(
        records[records["samples"].isin(list(titles))],
        titles,
        DATASET_TITLES[settings.dataset],
        {slug: len(those) for slug, those in samples.items()},
        detection.rules,
        kappa1_of(experiment),
        detection.mu,
    )
    model = experiment.model(asked)
    otherwise = {
        titles[slug]: 100
        * np.mean(inference.predict_labels(model, from_8_bits(those.image8)) != those.label)
        for slug, those in samples.items()
    }
    return compare_table2(table).assign(
        labels_from=asked, label_differs_percent=table["samples"].map(otherwise)
    )
