"""``nmutant calibrate``: for a user's own model and images, or the network of an experiment."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nmutant_cli.cli.inputs import (
    BATCH,
    IMAGES_HELP,
    MODEL_HELP,
    Skipped,
    TakesPaths,
    open_model,
    usable,
    writable,
)
from nmutant_cli.cli.options import OPTIONS, complete_config, examples, opened, prepare
from nmutant_cli.cli.scaling import scaling_options
from nmutant_cli.config.loading import load
from nmutant_cli.errors import ConfigError, NMutantError

if TYPE_CHECKING:
    from nmutant_cli.config.mutation import Mutation
    from nmutant_cli.own_model.answers import OwnModel
    from nmutant_cli.own_model.calibration import Calibration, Rate
    from nmutant_cli.types import Images

run_dir_option = OPTIONS[2]
share = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command(
    "calibrate",
    cls=TakesPaths,
    epilog=examples(
        "nmutant calibrate --model mine.keras --images clean/ --adversarial adv/ --out mine.yaml",
        "nmutant calibrate --model my:f --images x.npy --kappa 0.1 --step-size 5 --out f.yaml",
        "nmutant calibrate --config digits --target 0.1 --out digits.yaml",
    ),
)
@click.option("--model", metavar="MODEL", help=MODEL_HELP)
@click.option(
    "--images",
    metavar="PATH...",
    multiple=True,
    help=f"Clean ones it was not trained on. {IMAGES_HELP}",
)
@click.option("--adversarial", metavar="PATH...", multiple=True, help="Adversarial ones, likewise.")
@scaling_options
@click.option(
    "--config",
    metavar="NAME_OR_PATH",
    shell_complete=complete_config,
    help="Instead of these: the network of an experiment, its clean test images that are not "
    "normal samples, and its attacks on that network.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Change one setting of the config, or without one of the section mutation, as "
    "mutation.max_rectangle=24 for large images; may be repeated.",
)
@run_dir_option
@click.option("--target", type=share, default=0.05, show_default=True, help="False-alarm rate.")
@click.option(
    "--probability",
    type=share,
    default=0.95,
    show_default=True,
    help="That the rate is at most the target.",
)
@click.option(
    "--power", type=share, default=0.9, show_default=True, help="Share of attacks to be found."
)
@click.option("--kappa", type=share, help="Of adversarial inputs, where there are none to measure.")
@click.option(
    "--step-size",
    "step_sizes",
    type=click.FloatRange(0, min_open=True),
    multiple=True,
    help="To be tried; may be repeated.  [default: 1, 5, 10]",
)
@click.option(
    "--mutations",
    type=click.IntRange(4, 1_000_000),
    default=300,
    show_default=True,
    help="Measured for each image and step size; the largest cap.",
)
@click.option(
    "--require-power",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    metavar="SHARE",
    help="An error, and no file, if a smaller share of the adversarial images is found.",
)
@click.option(
    "--batch-size",
    type=BATCH,
    default=1000,
    show_default=True,
    help="Images in one call of the model, at most.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="The calibration, for `nmutant detect --calibration`.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the calibration as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, only results and errors.")
@click.option("-v", "--verbose", is_flag=True, help="Name all that is skipped; show tracebacks.")
def calibrate(
    model: str | None,
    images: Sequence[str],
    adversarial: Sequence[str],
    config: str | None,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    out: Path,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    scaled: Mapping[str, Any],
    **choice: Any,
) -> None:
    """Choose a test that keeps a false-alarm rate, with a guarantee.

    Mutates clean images that the model was not trained on, and adversarial ones to know what is
    to be found. At most a share --target of normal inputs will be called adversarial; that holds
    with --probability over the choice of the clean images.

    The labels are kept in FILE.journal until it is done: the same command goes on where it stopped.
    """
    prepare(quiet, verbose)
    writable(out)
    choice["journal"] = journal = out.with_name(f"{out.name}.journal")
    choice["step_sizes"] = choice["step_sizes"] or (1.0, 5.0, 10.0)
    try:
        if config is not None:
            if model or images or adversarial:
                raise ConfigError("--config stands instead of --model, --images and --adversarial")
            if scaled:
                raise ConfigError("--scale, --mean and --std go with --model")
            calibration = _of_experiment(config, overrides, run_dir, quiet, verbose, choice)
        elif model is None or not images:
            raise ConfigError("give --model and --images, or --config")
        elif run_dir:
            raise ConfigError("--run-dir goes with --config")
        else:
            choice["mutation"] = _mutation(overrides)
            own = open_model(model, quiet, scaled)
            calibration = _of_own(own, images, adversarial, quiet, verbose, choice)
    except NMutantError:
        if journal.exists():
            click.echo(f"{journal}: the labels so far; the same command goes on", err=True)
        raise
    calibration.save(out)
    journal.unlink(missing_ok=True)
    if as_json:
        click.echo(json.dumps(calibration.model_dump(mode="json", exclude_none=True), indent=1))
        return
    click.echo(_summary(calibration))
    click.echo(f"\n{out}")


def _mutation(overrides: tuple[str, ...]) -> Mutation:
    """The mutations that ``--set mutation.KEY=VALUE`` asks for."""
    for override in overrides:
        if not override.startswith("mutation."):
            raise ConfigError(f"--set {override}: without --config only mutation.KEY can be set")
    return load("digits", overrides)[1].mutation


def _of_own(
    model: OwnModel,
    images: Sequence[str],
    adversarial: Sequence[str],
    quiet: bool,
    verbose: bool,
    choice: Mapping[str, Any],
) -> Calibration:
    import numpy as np

    from nmutant_cli.own_model.calibrate import calibrate

    def stacked(paths: Sequence[str], shape: Any) -> Images:
        items = usable(paths, shape, Skipped(verbose))
        return np.stack([item.image for item in items if item.image is not None])

    clean = stacked(images, model.shape)
    attacked = {"adversarial": stacked(adversarial, clean.shape[1:])} if adversarial else {}
    total = (len(clean) + sum(map(len, attacked.values()))) * len(choice["step_sizes"])
    with _bar(total, quiet) as progress:
        return calibrate(
            model.predict, clean, attacked, network=model.network, progress=progress, **choice
        )


def _of_experiment(
    config: str,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    quiet: bool,
    verbose: bool,
    choice: Mapping[str, Any],
) -> Calibration:
    path, settings = load(config, overrides)
    if settings.model.stochastic_inference:
        raise ConfigError(
            "model.stochastic_inference: a detector asks the network without dropout; "
            "calibrate with --set model.stochastic_inference=false"
        )
    folder = run_dir or Path("runs") / path.stem
    with opened(settings, folder, quiet=quiet, verbose=verbose) as experiment:
        import numpy as np

        from nmutant_cli.files import file_digest
        from nmutant_cli.own_model.calibrate import calibrate
        from nmutant_cli.own_model.calibration import ModelIdentity

        data = experiment.data
        unused = np.ones(len(data.x_test), bool)
        unused[experiment.samples("normal").index] = False
        sets = {}
        for slug in settings.attack.sets:
            if experiment.network_of(slug) != "base":
                continue
            samples = experiment.samples(slug).counted()
            images, label = samples.rounded(settings.attack.eight_bit)
            adversarial = images[label != samples.true]  # rounded, some no longer are
            if len(adversarial) > 1:
                sets[slug] = adversarial
        network = experiment.model_path()
        total = (int(unused.sum()) + sum(map(len, sets.values()))) * len(choice["step_sizes"])
        with _bar(total, quiet) as progress:
            return calibrate(
                experiment.model(),
                data.x_test[unused],
                sets,
                mutation=settings.mutation,
                network=ModelIdentity(name=network.name, sha256=file_digest(network)),
                progress=progress,
                **choice,
            )


@contextmanager
def _bar(total: int, quiet: bool) -> Iterator[Any]:
    from tqdm import tqdm

    with tqdm(total=total, desc="measure", unit="image", disable=True if quiet else None) as bar:
        yield bar.update


def _summary(calibration: Calibration) -> str:
    promise, evidence = calibration.promise, calibration.evidence
    assert promise is not None
    assert evidence is not None
    lines = [
        f"different labels of the clean images: {evidence.labels}",
        f"step size {calibration.step_size:g}, p0 {calibration.p0:.4g}, p1 {calibration.p1:.4g}, "
        f"cap {calibration.cap}: {evidence.mean_mutations:.1f} mutations for a clean image on "
        "average",
        f"promised: at most {promise.false_alarm_rate:.2%} false alarms with probability "
        f"{promise.probability:.2%} ({promise.alarms} alarms in {promise.images} clean images)",
        f"held-out false alarms: {_rate(evidence.false_alarms)}",
    ]
    lines += [f"detected of {name}: {_rate(rate)}" for name, rate in evidence.detected.items()]
    if evidence.expected_power < evidence.wanted_power:
        lines.append(
            f"no test had the wanted power of {evidence.wanted_power:.1%}; this one has "
            f"{evidence.expected_power:.1%}"
        )
    return "\n".join(lines)


def _rate(rate: Rate) -> str:
    low, high = rate.interval
    return f"{rate.rate:.2%} ({rate.count} of {rate.images}; 95% interval {low:.2%} to {high:.2%})"
