"""``nmutant compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nmutant_cli.cli.options import experiment_command, show

if TYPE_CHECKING:
    from nmutant_cli.pipeline.experiment import Experiment


@click.command("compare")
@experiment_command
def command(experiment: Experiment) -> None:
    """Put detectors side by side on the sample sets: comparison.csv, costs.csv, a figure.

    Trains and attacks first where that is not done.
    """
    from nmutant_cli.pipeline.compare import compare, read_table, short
    from nmutant_cli.report.tables import to_text

    paths = compare(experiment)
    table, costs = (read_table(path) for path in paths[:2])
    show(f"{to_text(short(table))}\n\n{to_text(costs)}", *paths)
