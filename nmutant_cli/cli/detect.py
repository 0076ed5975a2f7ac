"""``nmutant detect``: the samples of an experiment, or a user's own model and images."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from nmutant_cli.cli.options import OPTIONS, examples, experiment_command, show
from nmutant_cli.cli.own import IMAGES_HELP, MODEL_HELP, open_model, usable
from nmutant_cli.cli.scaling import SCALING, scaling_options
from nmutant_cli.errors import ConfigError

if TYPE_CHECKING:
    from nmutant_cli.own_model.answers import OwnModel
    from nmutant_cli.own_model.calibration import Calibration
    from nmutant_cli.own_model.detector import Detector
    from nmutant_cli.own_model.images import Item
    from nmutant_cli.pipeline.experiment import Experiment

ADVERSARIAL_FOUND = 3
"""The exit code for ``--fail-on-adversarial``."""
TOGETHER = 250
COLUMNS = (
    "image", "verdict", "kappa", "lower", "upper", "mutations", "changes", "label", "majority",
)  # fmt: skip
VERDICTS = ("adversarial", "normal", "undecided")
OWN = ("model", "images", "calibration")
EXPERIMENT = ("config", "overrides", "run_dir")
NOT_OWN = (*EXPERIMENT, "force", "workers", "ray")


@experiment_command
def samples_of_experiment(experiment: Experiment) -> None:
    """The sequential tests on every sample of an experiment: detections.csv and Table 2."""
    from nmutant_cli.pipeline.detect import detections_csv
    from nmutant_cli.pipeline.report import table2
    from nmutant_cli.report.tables import to_text

    path = detections_csv(experiment)
    show(to_text(table2(experiment)), path)


def own_images(
    model: OwnModel, images: str, calibration: Calibration, form: str, seed: int, quiet: bool
) -> dict[str, int]:
    """Print a verdict on each of a user's ``images``; returns the counts."""
    from nmutant_cli.own_model.detector import Detector

    detector = Detector(model.predict, calibration, seed=seed)
    verdicts = list(_printed(_rows(detector, usable(images, calibration.image_shape)), form))
    counts = {verdict: verdicts.count(verdict) for verdict in VERDICTS}
    if not quiet:
        click.echo(", ".join(f"{n} {verdict}" for verdict, n in counts.items()), err=True)
    return counts


@click.command(
    "detect",
    epilog=examples(
        "nmutant detect --model mine.keras --images new/ --calibration mine.yaml",
        "nmutant detect --config digits",
    ),
)
@click.option("--model", metavar="MODEL", help=MODEL_HELP)
@click.option("--images", metavar="PATH", help=IMAGES_HELP)
@scaling_options
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What `nmutant calibrate` wrote for this model.",
)
@click.option(
    "--any-model", is_flag=True, help="Use a --calibration of another model; it promises nothing."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "jsonl"]),
    default="table",
    show_default=True,
    help="How verdicts on --images are printed.",
)
@click.option(
    "--fail-on-adversarial",
    is_flag=True,
    help=f"Exit with {ADVERSARIAL_FOUND} if any of --images is adversarial.",
)
@click.pass_context
def detect(
    ctx: click.Context,
    /,
    model: str | None,
    images: str | None,
    calibration: Path | None,
    any_model: bool,
    form: str,
    fail_on_adversarial: bool,
    scaled: Mapping[str, Any],
    **common: Any,
) -> None:
    """Say which images are adversarial: of your own model, or of an experiment.

    Your own images: --model, --images and --calibration give a verdict for each image; --seed
    chooses the mutations.

    An experiment: --config NAME (or --set, --run-dir) runs the sequential tests on every sample
    (Table 2). Trains, attacks and measures the normal kappa first (for a measured kappa1), where
    that is not done.
    """
    given = {
        name
        for name in ctx.params
        if ctx.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)
    }
    if not given & {*OWN, *SCALING, "any_model", "form", "fail_on_adversarial"}:
        if not given & {*EXPERIMENT}:
            raise ConfigError(
                "say what is to be judged: your own images (--model, --images, --calibration) or "
                "the samples of an experiment (--config NAME)"
            )
        samples_of_experiment(**common)
        return
    _only_own(ctx.command, given)
    if model is None or images is None or calibration is None:
        missing = next(name for name in OWN if name not in given)
        raise ConfigError(
            f"--{missing} is missing: --model, --images and --calibration go together"
        )
    from nmutant_cli.own_model.calibration import Calibration

    settings = Calibration.load(calibration)
    opened = open_model(model, common["quiet"], scaled)
    _fits(str(calibration), settings, opened, any_model)
    counts = own_images(opened, images, settings, form, common["seed"] or 0, common["quiet"])
    if fail_on_adversarial and counts["adversarial"]:
        raise click.exceptions.Exit(ADVERSARIAL_FOUND)


for option in OPTIONS:
    detect = option(detect)


def _only_own(command: click.Command, given: set[str]) -> None:
    """Raises ConfigError for an option of an experiment beside those for a user's images."""
    options = {parameter.name: parameter.opts[0] for parameter in command.params}
    for name in NOT_OWN:
        if name in given:
            raise ConfigError(
                f"{options[name]} is for the samples of an experiment, --model, --images and "
                "--calibration are for your own; give the one or the other"
            )


def _fits(name: str, calibration: Calibration, model: OwnModel, any_model: bool) -> None:
    """Raises ConfigError for a calibration of other images, or of another model if that matters."""
    shape = calibration.image_shape
    if shape is not None and model.shape is not None:
        pairs = zip(shape, model.shape, strict=True)
        if any(takes not in (None, size) for size, takes in pairs):
            raise ConfigError(
                f"{name}: image_shape: calibrated with {shape}, but {model.network.name} takes "
                f"{model.shape}"
            )
    known = calibration.network
    if known is None or known == model.network:
        return
    said = f"{name}: calibrated for {known.name}"
    if known == model.network.model_copy(update={"scaling": known.scaling}):
        how = f"with {known.scaling}" if known.scaling else "without --scale, --mean and --std"
        raise ConfigError(f"{said} {how}; give the same")
    said += ", which is not the same file; nothing is promised of another model"
    if not any_model:
        raise ConfigError(f"{said}; calibrate this one, or give --any-model")
    click.echo(said, err=True)


def _rows(detector: Detector, items: Iterator[Item]) -> Iterator[dict[str, Any]]:
    import numpy as np

    from nmutant_cli.types import Verdict

    while some := list(itertools.islice(items, TOGETHER)):
        verdicts = detector.detect(np.stack([i.image for i in some if i.image is not None]))
        for i, item in enumerate(some):
            yield {
                "image": item.name,
                "verdict": Verdict(verdicts.verdict[i]).name.lower(),
                "kappa": round(float(verdicts.kappa[i]), 6),
                "lower": round(float(verdicts.lower[i]), 6),
                "upper": round(float(verdicts.upper[i]), 6),
                "mutations": int(verdicts.mutations[i]),
                "changes": int(verdicts.changes[i]),
                "label": int(verdicts.label[i]),
                "majority": int(verdicts.majority[i]),
            }


def _printed(rows: Iterator[dict[str, Any]], form: str) -> Iterator[str]:
    """Print the rows, as they come unless they have to be aligned; yields the verdicts."""
    if form == "table":
        from nmutant_cli.report.text import rows_to_text

        kept = list(rows)
        shown = [
            row | {name: f"{row[name]:.4f}" for name in ("kappa", "lower", "upper")} for row in kept
        ]
        click.echo(rows_to_text(shown))
        yield from (row["verdict"] for row in kept)
        return
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    if form == "csv":
        writer.writeheader()
    for row in rows:
        if form == "csv":
            writer.writerow(row)
        else:
            click.echo(json.dumps(row))
        yield row["verdict"]
