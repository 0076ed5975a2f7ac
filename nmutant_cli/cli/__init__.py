"""The command ``nmutant``. Heavy libraries are imported inside the commands."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import logging
import traceback

import click

from nmutant_cli import __version__
from nmutant_cli.errors import NMutantError, not_installed

COMMANDS = {
    "train": "stages:train",
    "attack": "stages:attack",
    "measure-kappa": "stages:measure_kappa",
    "detect": "detect:detect",
    "report": "stages:report",
    "compare": "stages:compare",
    "evade": "stages:evade",
    "study": "study:command",
    "run": "stages:run",
    "plan": "plan:plan",
    "estimate": "plan:estimate",
    "calibrate": "own:calibrate",
    "configs": "plan:configs",
    "schema": "plan:schema",
}
"""Where each command is, as module:attribute, in the order of ``nmutant --help``."""

INTERRUPTED = 130
"""The exit code that shells expect of a program stopped by Ctrl-C."""


class OneLineError(click.ClickException):
    """A user's mistake, in one line and with exit code 2."""

    exit_code = 2


class Commands(click.Group):
    """Loads a command's module when the command is asked for, and shortens our errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name].split(":")
        command: click.Command = getattr(
            importlib.import_module(f"nmutant_cli.cli.{module}"), attribute
        )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and args[0] not in COMMANDS:
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        log = logging.getLogger("nmutant")
        log.setLevel(logging.WARNING)
        try:
            return super().invoke(ctx)
        except NMutantError as error:
            if error.__cause__ and log.isEnabledFor(logging.INFO):  # with -v
                traceback.print_exception(error.__cause__)
            raise OneLineError(" ".join(str(error).split())) from error
        except ModuleNotFoundError as error:
            library = (error.name or "").partition(".")[0]
            if not library or importlib.util.find_spec(library) is not None:
                raise
            raise OneLineError(not_installed(library)) from error
        except KeyboardInterrupt:
            click.echo("\nStopped. What was finished is kept: the same command goes on.", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nmutant")
def main() -> None:
    """Detect adversarial samples by mutation testing, and check what arXiv 1805.05010 found.

    Every command makes the earlier stages it needs, reuses what is up to date in the run folder,
    and goes on where a stopped run left off.
    """
