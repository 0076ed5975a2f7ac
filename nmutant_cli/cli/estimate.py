"""``nmutant estimate``."""

from __future__ import annotations

import click

from nmutant_cli.cli.options import OPTIONS, prepare, quiet_imports
from nmutant_cli.config.loading import load

config_option, set_option = OPTIONS[:2]


@click.command("estimate")
@config_option
@set_option
def command(config: str, overrides: tuple[str, ...]) -> None:
    """Say how long a whole run of a config will take on this machine, at most.

    Measures for some seconds how fast its network trains and labels; makes nothing.
    """
    path, settings = load(config, overrides)
    prepare(quiet=True)
    with quiet_imports():
        from nmutant_cli.networks import backend

        backend.require()
        from nmutant_cli.pipeline.estimate import estimate
    from nmutant_cli.datasets import load_dataset
    from nmutant_cli.report.tables import to_text

    table = estimate(settings, load_dataset(settings.dataset))
    click.echo(to_text(table.round({"per_second": 0, "minutes": 1})))
    click.echo(f"\n{path.stem}: at most {table['minutes'].iloc[-1]:.0f} minutes here")
