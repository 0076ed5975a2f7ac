"""``nmutant study``: one command for each of `STUDIES`."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

import click

from nmutant_cli.cli.options import complete_config, examples, opened, prepare, quiet_imports, show
from nmutant_cli.errors import ArtifactError, ConfigError, did_you_mean
from nmutant_cli.studies.study import STUDIES, Inputs, Option, Study, keep

QUIET = [
    click.Option(["-q", "--quiet"], is_flag=True, help="No progress, only results and errors."),
    click.Option(["-v", "--verbose"], is_flag=True, help="Say what is made."),
]


class Studies(click.Group):
    """The studies as commands, made when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(STUDIES)

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        if name not in STUDIES:
            hint = did_you_mean(name, STUDIES)
            raise ConfigError(f"study {name}: there is none; known are {', '.join(STUDIES)}{hint}")
        study = STUDIES[name]
        return click.Command(
            name, params=_params(study), callback=functools.partial(_run, name), help=study.title
        )


@click.group(
    "study",
    cls=Studies,
    epilog=examples(
        "nmutant study from-kappa runs/mnist",
        "nmutant study splits runs/digits --target 0.05 --out splits",
    ),
)
def command() -> None:
    """Ask a question of finished runs: nmutant study NAME RUN...

    Prints tables; with --out also writes them, their figures and study-NAME.json, which says what
    they were made from.
    """


def _params(study: Study) -> list[click.Parameter]:
    params: list[click.Parameter] = [
        click.Argument(["runs"], nargs=-1, metavar="RUN...", type=click.Path(path_type=Path)),
        *map(_option, study.options),
    ]
    if study.config is not None:
        own = study.config or None
        params += [
            click.Option(["--set", "overrides"], multiple=True, metavar="SECTION.KEY=VALUE",
                         help="Change one setting of the config; may be repeated."),
            click.Option(["--seed"], type=click.IntRange(min=0), help="That of the runs."),
        ]  # fmt: skip
        if own:
            params.append(
                click.Option(["--config"], default=own, show_default=True, metavar="NAME_OR_PATH",
                             shell_complete=complete_config, help="That of the runs.")
            )  # fmt: skip
    out = click.Path(file_okay=False, path_type=Path)
    return [*params, click.Option(["--out"], type=out, help="Where to write."), *QUIET]


def _option(option: Option) -> click.Option:
    return click.Option(
        [f"--{option.name.replace('_', '-')}"],
        default=option.default,
        show_default=bool(option.default),
        help=option.help,
        is_flag=option.kind is bool,
        type=option.kind,
        multiple=isinstance(option.default, tuple),
    )


def _run(
    name: str,
    runs: tuple[Path, ...],
    out: Path | None,
    quiet: bool,
    verbose: bool,
    config: str = "",
    overrides: tuple[str, ...] = (),
    seed: int | None = None,
    **options: Any,
) -> None:
    study = STUDIES[name]
    if len(runs) < study.least or (study.most is not None and len(runs) > study.most):
        count = f"{study.least}" if study.most == study.least else f"{study.least} or more"
        count = f"{study.least} or {study.most}" if study.most not in (None, study.least) else count
        raise ConfigError(f"study {name}: takes {count} run folders, {len(runs)} given")
    for run in runs:
        if not run.is_dir():
            raise ArtifactError(f"{run}: no such run folder")
    prepare(quiet, verbose)
    inputs = Inputs(
        runs, functools.partial(opened, quiet=quiet, verbose=verbose), config, overrides, seed
    )
    with quiet_imports():
        if study.config is not None:
            from nmutant_cli.networks import backend

            backend.require()
        module = importlib.import_module(f"nmutant_cli.studies.{name.replace('-', '_')}")
    findings = module.study(inputs, **options)
    from nmutant_cli.report.tables import to_text

    tables = findings.tables.values() if findings.shown is None else [findings.shown]
    paths = keep(name, findings, inputs, options, out) if out else []
    show("\n\n".join(map(to_text, tables)), *paths)
