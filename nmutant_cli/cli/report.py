"""``nmutant report``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nmutant_cli.cli.options import experiment_command, show

if TYPE_CHECKING:
    from nmutant_cli.experiment import Experiment


@click.command("report")
@experiment_command
def command(experiment: Experiment) -> None:
    """Write the tables, the figures and report.html.

    Makes every earlier stage first where it is not done.
    """
    from nmutant_cli import reporting
    from nmutant_cli.tables import to_text

    paths = reporting.report(experiment)
    first, second = reporting.table1(experiment), reporting.table2(experiment)
    show(f"{to_text(first)}\n\n{to_text(second)}", *paths)
