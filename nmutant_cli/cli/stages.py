"""The commands that make the stages of an experiment, and what they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nmutant_cli.cli.options import examples, experiment_command, show

if TYPE_CHECKING:
    from nmutant_cli.pipeline.experiment import Experiment


@click.command(
    "train",
    epilog=examples(
        "nmutant train --config mnist",
        "nmutant train --config digits --set model.epochs=10 --run-dir runs/longer",
    ),
)
@experiment_command
def train(experiment: Experiment) -> None:
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


@click.command(
    "attack",
    epilog=examples(
        "nmutant attack --config digits",
        "nmutant attack --config digits --set attack.sets.fgsm.eps=0.3 --run-dir runs/stronger",
    ),
)
@experiment_command
def attack(experiment: Experiment) -> None:
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


@click.command(
    "measure-kappa",
    epilog=examples(
        "nmutant measure-kappa --config digits",
        "nmutant measure-kappa --config mnist --workers 4",
    ),
)
@experiment_command
def measure_kappa(experiment: Experiment) -> None:
    """Measure the sensitivity kappa of every sample (Table 1).

    Trains and attacks first where that is not done.
    """
    from nmutant_cli.pipeline.kappa import kappa_csv
    from nmutant_cli.pipeline.report import table1
    from nmutant_cli.report.tables import to_text

    path = kappa_csv(experiment)
    show(to_text(table1(experiment)), path)


@click.command(
    "compare",
    epilog=examples(
        "nmutant compare --config digits",
        "nmutant compare --config digits --set 'compare.detectors=[kappa, softmax]' --json",
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Print both tables and the paths as JSON.")
@experiment_command
def compare(experiment: Experiment, as_json: bool) -> None:
    """Put detectors side by side on the sample sets: comparison.csv, costs.csv, a figure.

    Trains and attacks first where that is not done. The next `nmutant report` shows the figure on
    its page.
    """
    from nmutant_cli.pipeline import compare as stage
    from nmutant_cli.report.tables import to_text

    paths = stage.compare(experiment)
    table, costs = (stage.read_table(path) for path in paths[:2])
    if as_json:
        rows = {
            name: json.loads(frame.to_json(orient="records"))
            for name, frame in (("comparison", table), ("costs", costs))
        }
        click.echo(json.dumps(rows | {"files": [str(path) for path in paths]}, indent=1))
        return
    show(f"{to_text(stage.short(table))}\n\n{to_text(costs)}", *paths)


@click.command(
    "evade",
    epilog=examples(
        "nmutant evade --config digits",
        "nmutant evade --config mnist-adaptive --run-dir runs/adaptive",
    ),
)
@experiment_command
def evade(experiment: Experiment) -> None:
    """How often attacks fool the network and pass a detector: evasion.csv, a figure.

    Compares the detectors first where that is not done.
    """
    from nmutant_cli.files import read_records
    from nmutant_cli.pipeline import evade
    from nmutant_cli.report.tables import to_text

    paths = evade.evade(experiment)
    show(to_text(read_records(paths[1])), *paths)


def _check_only(config: Path, run: Path, committed: str) -> None:
    """Say what of a run is worse than the committed results, and exit with 1 if anything is."""
    from nmutant_cli.paper.checking import check

    folder = Path(committed or Path("results") / config.stem)
    complaints = check(folder, run)
    for line in complaints:
        click.echo(line)
    if complaints:
        raise click.exceptions.Exit(1)
    click.echo(f"{run}: no row of Tables 1 and 2 is worse than in {folder}")


def _write(experiment: Experiment) -> None:
    """Write tables, figures and page, and say what was found."""
    from nmutant_cli.pipeline import report as stage

    paths, found = stage.report(experiment)
    click.echo("\n".join(found))
    click.echo(f"\nopen {paths[-1]}")


report = click.command(
    "report",
    help="""Write the tables, the figures and report.html, and say what was found.

    Makes every earlier stage first where it is not done.
    """,
    epilog=examples(
        "nmutant report --config digits",
        "nmutant report --config mnist --check results/mnist",
    ),
)(
    click.option(
        "--check",
        is_flag=False,
        flag_value="",
        metavar="[FOLDER]",
        help="Make nothing: hold this run's Tables 1 and 2 against those in FOLDER "
        "[results/NAME-OF-CONFIG], and exit with 1 if a row is worse. It is an error if the run "
        "has no tables yet.",
    )(experiment_command(_write, _check_only))
)

run = click.command(
    "run",
    help="""All stages in order: train, attack, measure-kappa, detect, report.

    Ends with what was found, in three sentences; the tables are in the run folder and on the page.
    Goes on where a stopped run left off.
    """,
    epilog=examples(
        "nmutant run --config digits",
        "nmutant run --config mnist --seed 7 --run-dir runs/mnist-seed7",
    ),
)(experiment_command(_write))
