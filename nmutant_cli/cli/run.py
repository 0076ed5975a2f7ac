"""``nmutant run``."""

from __future__ import annotations

import click

from nmutant_cli.cli.options import experiment_command
from nmutant_cli.cli.report import write

command = click.command(
    "run",
    help="""All stages in order: train, attack, measure-kappa, detect, report.

    Goes on where a stopped run left off.
    """,
)(experiment_command(write))
