"""What the commands for a user's own model share: opening it, and reading its images."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from nmutant_cli.cli.options import quiet_imports
from nmutant_cli.errors import DataError

if TYPE_CHECKING:
    from nmutant_cli.own_model.images import Item
    from nmutant_cli.own_model.model import OwnModel, Shape

MODEL_HELP = "A .keras or .onnx file, or package.module:function from images to labels or scores."
IMAGES_HELP = "A folder of images, an image, an .npy or .npz file, or - for a list of paths."


def open_model(name: str, quiet: bool) -> OwnModel:
    """The user's model; how an ONNX file was read is said on stderr."""
    from nmutant_cli.own_model import model as own_model

    if name.endswith(".keras") and "keras" not in sys.modules:
        with quiet_imports():
            from nmutant_cli.networks import backend

            backend.require()
            import keras  # noqa: F401 - its import talks
    model = own_model.open_model(name)
    if model.note and not quiet:
        click.echo(f"{name}: {model.note}", err=True)
    return model


def usable(path: str, shape: Shape | None) -> Iterator[Item]:
    """The images at ``path``; each that cannot be used is named on stderr.

    Raises DataError if none can be used.
    """
    from nmutant_cli.own_model.images import read

    skipped, any_good = 0, False
    listed: Iterable[str] = sys.stdin if path == "-" else ()
    for item in read(path, shape, listed):
        if item.image is None:
            click.echo(f"{item.name}: {item.problem}; skipped", err=True)
            skipped += 1
        else:
            any_good = True
            yield item
    if not any_good:
        raise DataError(f"{path}: none of its {skipped} inputs can be used")
