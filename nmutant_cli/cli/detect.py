"""``nmutant detect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nmutant_cli.cli.options import experiment_command, show

if TYPE_CHECKING:
    from nmutant_cli.experiment import Experiment


@click.command("detect")
@experiment_command
def command(experiment: Experiment) -> None:
    """Run the sequential tests on every sample (Table 2).

    Trains, attacks and measures the normal kappa first (for a measured kappa1), where that is
    not done.
    """
    from nmutant_cli.measuring import detections_csv
    from nmutant_cli.reporting import table2
    from nmutant_cli.tables import to_text

    path = detections_csv(experiment)
    show(to_text(table2(experiment)), path)
