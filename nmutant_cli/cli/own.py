"""``nmutant calibrate``, and what it shares with ``nmutant detect``: a user's model and images."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nmutant_cli.cli.options import OPTIONS, opened, prepare, quiet_imports
from nmutant_cli.cli.scaling import scaling_options
from nmutant_cli.config.loading import load
from nmutant_cli.errors import ConfigError, DataError

if TYPE_CHECKING:
    from nmutant_cli.own_model.answers import OwnModel, Shape
    from nmutant_cli.own_model.calibration import Calibration, Rate
    from nmutant_cli.own_model.images import Item
    from nmutant_cli.types import Images

MODEL_HELP = (
    "A .keras, .onnx or .pt2 file, or package.module:function from images to labels or scores."
)
IMAGES_HELP = "A folder of images, an image, an .npy or .npz file, or - for a list of paths."

config_option, set_option, run_dir_option = OPTIONS[:3]
share = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command("calibrate")
@click.option("--model", metavar="MODEL", help=MODEL_HELP)
@click.option("--images", metavar="PATH", help=f"Clean ones it was not trained on. {IMAGES_HELP}")
@click.option("--adversarial", metavar="PATH", help=f"Adversarial ones. {IMAGES_HELP}")
@scaling_options
@click.option(
    "--config",
    metavar="NAME_OR_PATH",
    help="Instead of these: the network of an experiment, its clean test images that are not "
    "normal samples, and its attacks on that network.",
)
@set_option
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
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="The calibration, for `nmutant detect --calibration`.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress, only results and errors.")
def calibrate(
    model: str | None,
    images: str | None,
    adversarial: str | None,
    config: str | None,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    out: Path,
    quiet: bool,
    scaled: Mapping[str, Any],
    **choice: Any,
) -> None:
    """Choose a test that keeps a false-alarm rate, with a guarantee.

    Mutates clean images that the model was not trained on, and adversarial ones to know what is
    to be found. At most a share --target of normal inputs will be called adversarial; that holds
    with --probability over the choice of the clean images.
    """
    choice["step_sizes"] = choice["step_sizes"] or (1.0, 5.0, 10.0)
    if config is not None:
        if model or images or adversarial:
            raise ConfigError("--config stands instead of --model, --images and --adversarial")
        if scaled:
            raise ConfigError("--scale, --mean and --std go with --model")
        calibration = _of_experiment(config, overrides, run_dir, quiet, choice)
    elif model is None or images is None:
        raise ConfigError("give --model and --images, or --config")
    elif overrides or run_dir:
        raise ConfigError("--set and --run-dir go with --config")
    else:
        opened_model = open_model(model, quiet, scaled)
        calibration = _of_own(opened_model, images, adversarial, quiet, choice)
    calibration.save(out)
    click.echo(_summary(calibration))
    click.echo(f"\n{out}")


def _of_own(
    model: OwnModel, images: str, adversarial: str | None, quiet: bool, choice: Mapping[str, Any]
) -> Calibration:
    import numpy as np

    from nmutant_cli.own_model.calibrate import calibrate

    def stacked(path: str, shape: Any) -> Images:
        return np.stack([item.image for item in usable(path, shape) if item.image is not None])

    clean = stacked(images, model.shape)
    attacked = {} if adversarial is None else {"adversarial": stacked(adversarial, clean.shape[1:])}
    total = (len(clean) + sum(map(len, attacked.values()))) * len(choice["step_sizes"])
    with _bar(total, quiet) as progress:
        return calibrate(
            model.predict, clean, attacked, network=model.network, progress=progress, **choice
        )


def _of_experiment(
    config: str, overrides: tuple[str, ...], run_dir: Path | None, quiet: bool, choice: Any
) -> Calibration:
    path, settings = load(config, overrides)
    if settings.model.stochastic_inference:
        raise ConfigError(
            "model.stochastic_inference: a detector asks the network without dropout; "
            "calibrate with --set model.stochastic_inference=false"
        )
    with opened(settings, run_dir or Path("runs") / path.stem, quiet=quiet) as experiment:
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


def open_model(name: str, quiet: bool, scaled: Mapping[str, Any]) -> OwnModel:
    """The user's model; how its file was read is said on stderr."""
    prepare(quiet)
    from nmutant_cli.own_model import model as own_model
    from nmutant_cli.own_model.scaling import scaling

    if name.endswith(".keras") and "keras" not in sys.modules:
        with quiet_imports():
            from nmutant_cli.networks import backend

            backend.require()
            import keras  # noqa: F401 - its import talks
    model = own_model.open_model(name, scaling(**scaled) if scaled else None)
    if model.note and not quiet:
        click.echo(f"{name}: {model.note}", err=True)
    return model


def usable(path: str, shape: Shape | None) -> Iterator[Item]:
    """The images at ``path``; each that cannot be used is named on stderr.

    Raises DataError if none can be used.
    """
    from nmutant_cli.own_model.images import read

    skipped, any_good = 0, False
    listed: Iterable[str] = sys.stdin if path == "-" else ()
    for item in read(path, shape, listed):
        if item.image is None:
            click.echo(f"{item.name}: {item.problem}; skipped", err=True)
            skipped += 1
        else:
            any_good = True
            yield item
    if not any_good:
        raise DataError(f"{path}: none of its {skipped} inputs can be used")
