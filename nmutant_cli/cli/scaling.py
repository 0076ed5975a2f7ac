"""``--scale``, ``--mean`` and ``--std``: what the model in a file gets of an image."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from nmutant_cli.errors import ConfigError

SCALING = ("scale", "mean", "std")


def scaling_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options; it gets those that were given as a dict called ``scaled``."""

    @functools.wraps(command)
    def with_scaled(*arguments: Any, **options: Any) -> None:
        scaled = {name: options.pop(name) for name in SCALING}
        given = {name: value for name, value in scaled.items() if value is not None}
        command(*arguments, scaled=given, **options)

    each = "a number, or one for each channel with commas between them"
    for option in (
        click.option("--std", callback=_numbers, metavar="S[,S,S]", help="Divided by, last."),
        click.option("--mean", callback=_numbers, metavar="M[,M,M]", help=f"Taken away: {each}."),
        click.option(
            "--scale",
            callback=_numbers,
            metavar="X",
            help="Multiplied with first, where the file of --model wants other values than [0, 1].",
        ),
    ):
        with_scaled = option(with_scaled)
    return with_scaled


def _numbers(
    context: click.Context, option: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    try:
        return None if value is None else tuple(map(float, value.split(",")))
    except ValueError:
        raise ConfigError(
            f"{option.opts[0]}: {value!r} is not allowed; give a number, or one for each channel "
            "with commas between them"
        ) from None
