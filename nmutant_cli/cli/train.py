"""``nmutant train``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nmutant_cli.cli.options import experiment_command, show

if TYPE_CHECKING:
    from nmutant_cli.pipeline.experiment import Experiment


@click.command("train")
@experiment_command
def command(experiment: Experiment) -> None:
    """Train the networks."""
    import pandas as pd

    from nmutant_cli.report.tables import to_text

    names = ["base", *experiment.settings.variants]
    paths = [experiment.model_path(name) for name in names]
    counts = [experiment.run[path.name]["counts"] for path in paths]
    frame = pd.DataFrame(
        {
            "network": names,
            "train_accuracy_percent": [100 * c["train_accuracy"] for c in counts],
            "test_accuracy_percent": [100 * c["test_accuracy"] for c in counts],
        }
    )
    show(to_text(frame), *paths)
