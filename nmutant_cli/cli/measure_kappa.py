"""``nmutant measure-kappa``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nmutant_cli.cli.options import experiment_command, show

if TYPE_CHECKING:
    from nmutant_cli.pipeline.experiment import Experiment


@click.command("measure-kappa")
@experiment_command
def command(experiment: Experiment) -> None:
    """Measure the sensitivity kappa of every sample (Table 1).

    Trains and attacks first where that is not done.
    """
    from nmutant_cli.pipeline.kappa import kappa_csv
    from nmutant_cli.pipeline.report import table1
    from nmutant_cli.report.tables import to_text

    path = kappa_csv(experiment)
    show(to_text(table1(experiment)), path)
