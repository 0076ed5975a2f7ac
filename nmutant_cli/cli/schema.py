"""``nmutant schema``."""

from __future__ import annotations

import click


@click.command("schema")
def command() -> None:
    """Print the JSON schema of a config file, for editors."""
    from nmutant_cli.config.loading import json_schema

    click.echo(json_schema(), nl=False)
