"""``nmutant report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nmutant_cli.cli.options import experiment_command, show

if TYPE_CHECKING:
    from nmutant_cli.pipeline.experiment import Experiment


def check_only(config: Path, run: Path, committed: str) -> None:
    """Say what is worse than the committed results, and exit with 1 if anything is."""
    from nmutant_cli.paper.checking import check

    folder = Path(committed or Path("results") / config.stem)
    complaints = check(folder, run)
    for line in complaints:
        click.echo(line)
    if complaints:
        raise click.exceptions.Exit(1)
    click.echo(f"{folder}: no verdict is worse than the committed one")


def write(experiment: Experiment) -> None:
    """Write tables, figures and page, and print the tables."""
    from nmutant_cli.pipeline import report
    from nmutant_cli.report.tables import to_text

    paths = report.report(experiment)
    first, second = report.table1(experiment), report.table2(experiment)
    show(f"{to_text(first)}\n\n{to_text(second)}", *paths)


command = click.command(
    "report",
    help="""Write the tables, the figures and report.html.

    Makes every earlier stage first where it is not done.
    """,
)(
    click.option(
        "--check",
        is_flag=False,
        flag_value="",
        metavar="[FOLDER]",
        help="Make nothing: work out the verdicts on the published numbers anew, from this run's "
        "tables if there are any, and exit with 1 if one is worse than in FOLDER "
        "[results/NAME-OF-CONFIG].",
    )(experiment_command(write, check_only))
)
