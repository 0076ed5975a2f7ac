"""What every command has in common: its options, and opening the experiment they describe."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from nmutant_cli.config.loading import config_folder, load
from nmutant_cli.errors import ConfigError

if TYPE_CHECKING:
    from nmutant_cli.config.settings import Settings
    from nmutant_cli.pipeline.experiment import Experiment


def examples(*lines: str) -> str:
    """The end of a command's help: commands to copy."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def complete_config(ctx: click.Context, param: click.Parameter, start: str) -> list[CompletionItem]:
    """For the shell: the names of configs that come along, and files."""
    names = sorted(path.stem for path in config_folder().glob("*.yaml"))
    known = [CompletionItem(name) for name in names if name.startswith(start)]
    return [CompletionItem(start, type="file"), *known]


OPTIONS = [
    click.option(
        "--config",
        "config",
        default="digits",
        show_default=True,
        metavar="NAME_OR_PATH",
        shell_complete=complete_config,
        help="A YAML file, or the name of a config that comes along; see `nmutant configs`.",
    ),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="Change one setting; may be repeated.",
    ),
    click.option(
        "--run-dir",
        type=click.Path(path_type=Path),
        help="Where artefacts are kept.  [default: runs/NAME-OF-CONFIG]",
    ),
    click.option("--seed", type=click.IntRange(min=0), help="Change the seed of the config."),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Processes that measure kappa and detect, with Ray; they change no result.",
    ),
    click.option("--ray", metavar="ADDRESS", help="Let a Ray cluster measure kappa and detect."),
    click.option("--force", is_flag=True, help="Make everything again that this command needs."),
    click.option("-q", "--quiet", is_flag=True, help="No progress, only results and errors."),
    click.option("-v", "--verbose", is_flag=True, help="Say what is made and what is reused."),
]


def experiment_command(
    function: Callable[..., None],
    instead: Callable[[Path, Path, Any], None] | None = None,
) -> Callable[..., None]:
    """Give a command the common options; it is called with the opened `Experiment`.

    What options of its own it has, it is given by name. A command with an option ``check`` has
    ``instead``, called with the config's path, the run folder and the option's value where it is
    given; nothing is then opened or made.
    """

    @functools.wraps(function)
    def command(
        config: str,
        overrides: tuple[str, ...],
        run_dir: Path | None,
        seed: int | None,
        workers: int | None,
        ray: str | None,
        force: bool,
        quiet: bool,
        verbose: bool,
        check: Any = None,
        **own: Any,
    ) -> None:
        path, settings = load(config, overrides, seed)
        folder = run_dir or Path("runs") / path.stem
        if check is not None and instead is not None:
            instead(path, folder, check)
            return
        with opened(
            settings,
            folder,
            quiet=quiet,
            force=force,
            verbose=verbose,
            workers=workers,
            ray=ray,
        ) as experiment:
            function(experiment, **own)

    wrapped: Callable[..., None] = command
    for option in reversed(OPTIONS):
        wrapped = option(wrapped)
    return wrapped


class _AboveBars(logging.Handler):
    """Writes lines to stderr without tearing a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(record.getMessage(), file=sys.stderr)


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Keep stderr shut: TensorFlow's C++ writes there on import, whatever it is told."""
    # Its messages about absent GPUs are no news to the user.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    shut = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(shut, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(shut)


def prepare(quiet: bool, verbose: bool = False) -> logging.Logger:
    """Before Keras is imported: what may be said on stderr, and that results are to repeat."""
    if quiet and verbose:
        raise ConfigError("-q and -v: give the one or the other")
    log = logging.getLogger("nmutant")
    log.handlers, log.propagate = [_AboveBars()], False
    log.setLevel(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if quiet and not logging.root.handlers:
        logging.root.addHandler(logging.NullHandler())  # else Python prints libraries' warnings
    # The same seed is to give the same network.
    os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")
    # TensorFlow's own choice on an older processor is its slower library.
    if platform.machine() in ("x86_64", "AMD64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # A GPU's own choice is to keep 10 bits of each factor: labels would flip near boundaries.
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
    return log


@contextlib.contextmanager
def opened(
    settings: Settings,
    folder: Path,
    *,
    quiet: bool,
    force: bool = False,
    verbose: bool = False,
    workers: int | None = None,
    ray: str | None = None,
) -> Iterator[Experiment]:
    """The experiment of these settings in this run folder, which is locked."""
    log = prepare(quiet, verbose)
    spread = ray is not None or (workers or 1) > 1
    if spread and importlib.util.find_spec("ray") is None:
        raise ConfigError("--workers and --ray: Ray is not installed: pip install ray")

    from nmutant_cli.pipeline.run_folder import RunFolder

    resolved = settings.model_dump(mode="json")
    with RunFolder(folder, force=force, say=log.warning, settings=resolved) as run:
        with quiet_imports():
            from nmutant_cli.networks import backend

            backend.require()
            from nmutant_cli.pipeline.experiment import Experiment
            from nmutant_cli.pipeline.jobs import Here

            if spread:  # Ray is an extra
                from nmutant_cli.pipeline.ray import OnRay

        with contextlib.closing(OnRay(workers, ray) if spread else Here()) as who:
            yield Experiment(settings, run, quiet=quiet, workers=who)


def show(text: str, *paths: Path) -> None:
    """Print a table and the paths it was written to."""
    click.echo(text)
    click.echo()
    for path in paths:
        click.echo(path)
