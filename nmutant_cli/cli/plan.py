"""What can be said before a run: ``nmutant plan``, ``estimate``, ``configs``, ``schema``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nmutant_cli.cli.options import OPTIONS, examples, prepare, quiet_imports
from nmutant_cli.config.loading import config_folder, json_schema, load
from nmutant_cli.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from nmutant_cli.detection.sprt import SequentialTest

config_option, set_option = OPTIONS[:2]

LEGEND = """\
P(adv|p0), P(norm|p1): the errors that alpha and beta are to bound ({alpha:g}% and {beta:g}%).
open|p0, open|p1: undecided at the cap of n = {cap} ("published" counts a mutation twice). All in %.
mean@k: mean number of real mutations at kappa k."""


@click.command(
    "plan",
    epilog=examples(
        "nmutant plan --config mnist",
        "nmutant plan --config digits --kappa1 0.002 --set detection.cap=500 --output plans",
    ),
)
@config_option
@set_option
@click.option(
    "--kappa1",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="VALUE",
    help="Short for --set detection.kappa1=VALUE, for a config that has it measured.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Also draw the OC and ASN curves, as plan.png in this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def plan(
    config: str,
    overrides: tuple[str, ...],
    kappa1: float | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Show what the sequential tests of a config will do, before anything is run.

    For each rule and mu: the true error rates, how many tests end undecided at the cap, and how
    many mutations are needed. Exact, from the settings alone: no data, network or run folder.
    """
    if kappa1 is not None:
        overrides = (*overrides, f"detection.kappa1={kappa1!r}")
    path, settings = load(config, overrides)
    detection = settings.detection
    if detection.kappa1 == "measured":
        raise ConfigError(
            f"{path}: detection.kappa1 is measured, which needs a run; "
            "give a number to plan with, such as --kappa1 0.002"
        )
    from nmutant_cli.detection.sprt import SequentialTest
    from nmutant_cli.report.text import number, rows_to_text

    tests: dict[str, dict[float, SequentialTest]] = {
        rule: {
            mu: SequentialTest(
                rule,
                *detection.hypotheses(detection.kappa1, mu),
                alpha=detection.alpha,
                beta=detection.beta,
                cap=detection.cap,
            )
            for mu in detection.mu
        }
        for rule in detection.rules
    }
    rows = _rows(tests)
    if as_json:
        plain = [row | {name: float(row[name]) for name in ("p0", "p1")} for row in rows]
        click.echo(json.dumps(plain, indent=1))
    else:
        click.echo(rows_to_text(rows))
        click.echo()
        percent = {"alpha": 100 * detection.alpha, "beta": 100 * detection.beta}
        click.echo(LEGEND.format(**percent, cap=detection.cap))
    if output is not None:
        from nmutant_cli.report.figures.plan import plan_figure
        from nmutant_cli.report.figures.style import to_png

        title = f"{path.stem}: κ1 = {number(detection.kappa1)}, cap {detection.cap}"
        png = to_png(plan_figure(tests, title))
        try:
            output.mkdir(parents=True, exist_ok=True)
            (output / "plan.png").write_bytes(png)
        except OSError as error:
            raise ArtifactError(f"{output}: cannot be written ({error.strerror})") from error
        if not as_json:
            click.echo()
            click.echo(output / "plan.png")


def _rows(tests: dict[str, dict[float, SequentialTest]]) -> list[dict[str, str | float]]:
    from nmutant_cli.detection.exact import curves
    from nmutant_cli.report.text import number

    rows: list[dict[str, str | float]] = []
    for rule, by_mu in tests.items():
        for mu, test in by_mu.items():
            at = curves(test, [0, test.p0, test.p1, 0.1])
            rows.append(
                {
                    "rule": rule,
                    "mu": mu,
                    "p0": number(test.p0),
                    "p1": number(test.p1),
                    "P(adv|p0)": 100 * at.adversarial[1],
                    "P(norm|p1)": 100 * at.normal[2],
                    "open|p0": 100 * at.undecided[1],
                    "open|p1": 100 * at.undecided[2],
                    "mean@0": at.mean_mutations[0],
                    "mean@p0": at.mean_mutations[1],
                    "mean@p1": at.mean_mutations[2],
                    "mean@0.1": at.mean_mutations[3],
                }
            )
    return rows


@click.command("estimate", epilog=examples("nmutant estimate --config mnist"))
@config_option
@set_option
def estimate(config: str, overrides: tuple[str, ...]) -> None:
    """Say about how long a whole run of a config will take on this machine.

    Measures for some seconds how fast its network trains and labels; makes nothing. Attacks are
    taken to need all their iterations.
    """
    path, settings = load(config, overrides)
    prepare(quiet=True)
    with quiet_imports():
        from nmutant_cli.networks import backend

        backend.require()
        from nmutant_cli.pipeline import estimate as stage
    from nmutant_cli.datasets import load_dataset
    from nmutant_cli.report.tables import to_text

    table = stage.estimate(settings, load_dataset(settings.dataset))
    click.echo(to_text(table.round({"per_second": 0, "minutes": 1})))
    click.echo(f"\n{path.stem}: about {table['minutes'].iloc[-1]:.0f} minutes here")


@click.command("configs", epilog=examples("nmutant configs"))
def configs() -> None:
    """List the configs that come along: names for --config, and what each is."""
    known = sorted(config_folder().glob("*.yaml"), key=lambda path: path.stem)
    width = max(len(path.stem) for path in known)
    for path in known:
        line = path.read_text(encoding="utf-8").splitlines()[0]
        click.echo(f"{path.stem.ljust(width)}  {line.removeprefix('# ')}")


@click.command("schema", epilog=examples("nmutant schema > configs/schema.json"))
def schema() -> None:
    """Print the JSON schema of a config file, for editors."""
    click.echo(json_schema(), nl=False)
