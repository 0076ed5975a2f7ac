"""A user's own model, images and output on the command line: options, opening, reading."""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nmutant_cli.cli.options import quiet_imports
from nmutant_cli.errors import ArtifactError, DataError
from nmutant_cli.files import fault_reason, file_digest

if TYPE_CHECKING:
    from nmutant_cli.own_model.answers import OwnModel, Shape
    from nmutant_cli.own_model.images import Item

MODEL_HELP = (
    "A .keras, .onnx or .pt2 file, or package.module:function from images to labels or scores."
)
PATHS = ("--images", "--adversarial")
IMAGES_HELP = (
    "Folders (with those in them), images, .npy or .npz files, or - for a list of paths; several "
    "may follow, and the option may be repeated."
)

BATCH = click.IntRange(1, 1_000_000)


class TakesPaths(click.Command):
    """``--images a.png b.png`` is taken for ``--images a.png --images b.png``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_repeated(args)))


def _repeated(args: Sequence[str]) -> Iterator[str]:
    option, first = "", False
    for arg in args:
        if arg.startswith("-") and arg != "-":
            name, value_given, _ = arg.partition("=")
            option, first = name if name in PATHS else "", not value_given
        elif option and not first:
            yield option
        else:
            first = False
        yield arg


class Skipped:
    """Names on stderr what is skipped: the first input of each kind of problem, then how many."""

    def __init__(self, every: bool) -> None:
        self._every = every
        self.counts: Counter[str] = Counter()

    def add(self, item: Item) -> None:
        kind = re.sub(r"[\d.e+-]+", "", item.problem)  # but for the numbers it is the same
        self.counts[kind] += 1
        if self._every or self.counts[kind] == 1:
            click.echo(f"{item.name}: {item.problem}; skipped", err=True)

    def total(self) -> int:
        return self.counts.total()

    def close(self) -> None:
        """Say how many were skipped without being named."""
        more = 0 if self._every else self.total() - len(self.counts)
        if more:
            what = "1 more like this is" if more == 1 else f"{more} more like these are"
            click.echo(f"{what} skipped (-v names each)", err=True)


def usable(
    paths: Sequence[str], shape: Shape | None, skipped: Skipped | None = None
) -> Iterator[Item]:
    """The images at ``paths``; what cannot be used is named on stderr, and counted in ``skipped``.

    Raises DataError if none can be used.
    """
    from nmutant_cli.own_model.images import read

    skipped, any_good = skipped or Skipped(every=False), False
    listed: Iterable[str] = sys.stdin if "-" in paths else ()
    for item in read(paths, shape, listed):
        if item.image is None:
            skipped.add(item)
        else:
            any_good = True
            yield item
    skipped.close()
    if not any_good:
        raise DataError(f"{', '.join(paths[:3])}: none of {skipped.total()} inputs can be used")


def open_model(name: str, quiet: bool, scaled: Mapping[str, Any]) -> OwnModel:
    """The user's model; how its file was read is said on stderr."""
    from nmutant_cli.own_model import model as own_model
    from nmutant_cli.own_model.scaling import scaling

    if name.endswith(".keras") and "keras" not in sys.modules:
        with quiet_imports():
            from nmutant_cli.networks import backend

            backend.require()
            import keras  # noqa: F401 - its import talks
    model = own_model.open_model(name, scaling(**scaled) if scaled else None)
    module = sys.modules.get(name.partition(":")[0])
    source = getattr(module, "__file__", None)
    if model.network.sha256 is None and source:  # two functions may have one name
        network = model.network.model_copy(update={"sha256": file_digest(Path(source))})
        model = replace(model, network=network)
    if model.note and not quiet:
        click.echo(f"{name}: {model.note}", err=True)
    return model


def writable(out: Path) -> None:
    """Raises ArtifactError if ``out`` cannot be written once all is measured."""
    folder = next(folder for folder in out.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ArtifactError(f"{out}: cannot be written ({fault_reason(error)})") from error
