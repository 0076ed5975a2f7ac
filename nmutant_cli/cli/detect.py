"""``nmutant detect``: the samples of an experiment, or a user's own model and images."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from nmutant_cli.cli.inputs import (
    BATCH,
    IMAGES_HELP,
    MODEL_HELP,
    Skipped,
    TakesPaths,
    open_model,
    usable,
)
from nmutant_cli.cli.options import OPTIONS, examples, experiment_command, prepare, show
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
FOR_OWN = ("any_model", "form", "fail_on_adversarial", "strict", "batch_size")
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
    detector: Detector, images: Sequence[str], form: str, quiet: bool, verbose: bool
) -> Counter[str]:
    """Print a verdict on each of a user's ``images``; returns the counts, and of the skipped."""
    skipped = Skipped(verbose)
    items = usable(images, detector.calibration.image_shape, skipped)
    counts = Counter(_printed(_rows(detector, items), form))
    told = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS]
    counts["skipped"] = skipped.total()
    if counts["skipped"]:
        told.append(f"{counts['skipped']} skipped")
    if not quiet:
        click.echo(", ".join(told), err=True)
    return counts


@click.command(
    "detect",
    cls=TakesPaths,
    epilog=examples(
        "nmutant detect --model mine.keras --images new/ --calibration mine.yaml",
        "nmutant detect --config digits",
    ),
)
@click.option("--model", metavar="MODEL", help=MODEL_HELP)
@click.option("--images", metavar="PATH...", multiple=True, help=IMAGES_HELP)
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
@click.option(
    "--strict",
    is_flag=True,
    help=f"Exit with {ADVERSARIAL_FOUND} unless each of --images is normal: none adversarial, "
    "undecided or skipped.",
)
@click.option(
    "--batch-size",
    type=BATCH,
    default=128,
    show_default=True,
    help="Mutated images in one call of --model, at most.",
)
@click.pass_context
def detect(
    ctx: click.Context,
    /,
    model: str | None,
    images: Sequence[str],
    calibration: Path | None,
    any_model: bool,
    form: str,
    fail_on_adversarial: bool,
    strict: bool,
    batch_size: int,
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
    if not given & {*OWN, *SCALING, *FOR_OWN}:
        if not given & {*EXPERIMENT}:
            raise ConfigError(
                "say what is to be judged: your own images (--model, --images, --calibration) or "
                "the samples of an experiment (--config NAME)"
            )
        samples_of_experiment(**common)
        return
    _only_own(ctx.command, given)
    if model is None or not images or calibration is None:
        missing = next(name for name in OWN if name not in given)
        raise ConfigError(
            f"--{missing} is missing: --model, --images and --calibration go together"
        )
    prepare(common["quiet"], common["verbose"])
    from nmutant_cli.own_model.calibration import Calibration
    from nmutant_cli.own_model.detector import Detector

    settings = Calibration.load(calibration)
    opened = open_model(model, common["quiet"], scaled)
    _fits(str(calibration), settings, opened, any_model)
    for doubt in settings.evidence.doubts if settings.evidence else ():
        click.echo(f"{calibration}: DOUBT: {doubt}", err=True)
    detector = Detector(opened.predict, settings, seed=common["seed"] or 0, batch_size=batch_size)
    counts = own_images(detector, images, form, common["quiet"], common["verbose"])
    bad = counts["adversarial"] if fail_on_adversarial or strict else 0
    if bad or (strict and counts["undecided"] + counts["skipped"]):
        raise click.exceptions.Exit(ADVERSARIAL_FOUND)


for option in OPTIONS:
    detect = option(detect)


def _only_own(command: click.Command, given: set[str]) -> None:
    """Raises ConfigError for an option of an experiment beside those for a user's images."""
    options = {parameter.name: parameter.opts[0] for parameter in command.params}
    own = next(options[name] for name in (*OWN, *SCALING, *FOR_OWN) if name in given)
    for name in NOT_OWN:
        if name in given:
            raise ConfigError(
                f"{options[name]} is for the samples of an experiment, {own} is for your own "
                "images; give the one or the other"
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
    known, this = calibration.network, model.network
    if known is None:
        return
    which = known.name
    if (known.name, known.sha256 or this.sha256) == (this.name, this.sha256):
        if known.scaling == this.scaling:
            return
        how = f"with {known.scaling}" if known.scaling else "without --scale, --mean and --std"
        raise ConfigError(f"{name}: calibrated for {which} {how}; give the same")
    if known.name == this.name:
        sha256, other = (str(network.sha256)[:12] for network in (known, this))
        which = f"another {which} (its sha256 began with {sha256}, not {other})"
    said = f"{name}: calibrated for {which}; nothing is promised of {this.name}"
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
                "label": verdicts.label[i].item(),
                "majority": verdicts.majority[i].item(),
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
