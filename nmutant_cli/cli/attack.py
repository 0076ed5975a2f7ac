"""``nmutant attack``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nmutant_cli.cli.options import experiment_command, show

if TYPE_CHECKING:
    from nmutant_cli.pipeline.experiment import Experiment


@click.command("attack")
@experiment_command
def command(experiment: Experiment) -> None:
    """Craft the adversarial samples, and choose the normal and the wrongly labelled (WL) ones.

    Trains the networks first where they are not there.
    """
    import pandas as pd

    from nmutant_cli.report.tables import to_text

    rows = []
    for slug, samples in experiment.all_samples().items():
        chosen = samples.counted()
        row = (experiment.titles[slug], len(samples), len(chosen))
        rows.append(
            (*row, chosen.l0.mean(), chosen.l2.mean(), chosen.linf.mean())
            if len(chosen)
            else (*row, None, None, None)
        )
    columns = ["samples", "tried", "counted", "mean_l0", "mean_l2", "mean_linf"]
    frame = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[3:], float))
    show(to_text(frame), *(experiment.samples_path(slug) for slug in experiment.titles))
