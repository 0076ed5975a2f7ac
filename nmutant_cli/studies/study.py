"""What all studies have in common: which there are, what they are given, how findings are kept.

A study is a module with a function ``study``: from `Inputs` and its options to `Findings`. Nothing
heavy is imported here, for help and a wrong name are to be answered at once.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmutant_cli.config.loading import load
from nmutant_cli.errors import ArtifactError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from nmutant_cli.config.settings import Settings
    from nmutant_cli.pipeline.experiment import Experiment

Opened = Callable[["Settings", Path], contextlib.AbstractContextManager["Experiment"]]


@dataclass(frozen=True)
class Option:
    """An option of a study. A tuple as ``default``: it may be given several times."""

    name: str
    default: Any
    help: str
    kind: type


@dataclass(frozen=True)
class Study:
    """A study that there is: its line of help, how many run folders it takes, its options.

    ``config``: the settings under which it works in the run folders, where it does; "" where its
    options name them.
    """

    title: str
    least: int = 1
    most: int | None = 1
    config: str | None = None
    options: tuple[Option, ...] = ()


STUDIES = {
    "networks": Study("Tables 1 and 2 over several networks, each in a run folder.", most=None),
    "from-kappa": Study(
        "Table 2 worked out exactly from the kappas of each run, and from the published Table 1.",
        most=None,
        options=(Option("step_size", 1.0, "The step size of detection.", float),),
    ),
    "sweep": Study(
        "One thing changed at a time, on the networks of a run.",
        config="",
        options=(
            Option("variations", "one-factor", "A YAML file, or one that comes along.", str),
            Option("full", False, "At the size of the config, not at the variations' own.", bool),
            Option("only", (), "One of the variations; may be repeated.", str),
        ),
    ),
    "operators": Study(
        "Mutations, step size and rule that find most at 5% false alarms for least.",
        config="mnist",
    ),
    "detectors": Study(
        "Detectors that nmutant compare has scored, over several networks, with intervals.",
        most=None,
        config="mnist-compare",
        options=(
            Option("against", "kappa", "The detector the others are held against.", str),
            Option("mutations", 0, "So many mutations, not all; what counts changes.", int),
            Option("half", "report", "Of the images: choose or report.", str),
        ),
    ),
    "gain": Study(
        "A detector of the second run held against that of the first, with intervals.",
        least=2,
        most=2,
        options=(
            Option("first", "kappa", "The detector of the first run.", str),
            Option("second", "kappa", "That of the second run.", str),
            Option("same", False, "As many mutations of both.", bool),
        ),
    ),
    "splits": Study(
        "Does a calibration keep its promise? Many random splits of clean images.",
        config="digits",
        options=(
            Option("images", 3000, "Clean images, at most.", int),
            Option("mutations", 300, "Mutations of each image.", int),
            Option("clean", 400, "Clean images that calibrate.", int),
            Option("splits", 200, "Random splits.", int),
            Option("target", (0.01, 0.05), "A false-alarm rate; may be repeated.", float),
            Option("probability", 0.95, "With which the promise is to hold.", float),
        ),
    ),
    "cifar10": Study(
        "The open questions about the published CIFAR10 numbers. Runs: dropout off, dropout on, "
        "and one with FGSM at eps 0.3/255 where there is one.",
        least=2,
        most=3,
        config="cifar10-small",
        options=(Option("mutations", 150, "Mutations of each image.", int),),
    ),
    "authors": Study(
        "Which published MNIST numbers follow from the authors' own files. Runs, where there are "
        "any: the kappas of their images under our networks.",
        least=0,
        most=None,
        config="mnist",
        options=(
            Option("seeds", 10, "Times that decisions are drawn.", int),
            Option("mutations", 200, "Mutations of each image, for our kappas.", int),
        ),
    ),
}


@dataclass
class Inputs:
    """The run folders of a study and the config that it works under in them.

    ``read`` notes the digest of every file that was read, by run folder and name.
    """

    runs: Sequence[Path]
    open: Opened
    config: str = ""
    overrides: Sequence[str] = ()
    seed: int | None = None
    read: dict[Path, dict[str, str]] = field(default_factory=dict)
    settings: list[dict[str, Any]] = field(default_factory=list)

    def file(self, run: Path, name: str) -> Path:
        """A file of a run folder. Raises ArtifactError if there is none."""
        path = run / name
        if not path.is_file():
            raise ArtifactError(f"{path}: no such file, and this study reads it; finish the run")
        self.note(run, path)
        return path

    def note(self, run: Path, *paths: Path) -> None:
        """Keep in mind that files of a run folder were read."""
        from nmutant_cli.files import file_digest

        digests = {path.relative_to(run).as_posix(): file_digest(path) for path in paths}
        self.read.setdefault(run, {}).update(digests)

    def table(self, run: Path, name: str, columns: Sequence[str]) -> pd.DataFrame:
        """A CSV file of a run folder; a set may be called ``nan``, what is empty is missing.

        Raises ArtifactError if it is not there, cannot be read or lacks one of the ``columns``.
        """
        import pandas as pd

        path = self.file(run, name)
        try:
            table = pd.read_csv(path, keep_default_na=False, na_values=[""])
        except ValueError as error:  # which pandas' own errors are
            raise ArtifactError(f"{path}: damaged or not a CSV file; make it again") from error
        for column in columns:
            if column not in table:
                raise ArtifactError(f"{path}: no column {column}; make it again")
        return table

    def entry(self, run: Path, name: str) -> dict[str, Any]:
        """The ingredients of an artefact of a run folder, as in its manifest.

        Raises ArtifactError if they are not there.
        """
        path = self.file(run, "manifest.json")
        try:
            ingredients: dict[str, Any] = json.loads(path.read_text("utf-8"))["artefacts"][name][
                "ingredients"
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: has no entry of {name}; make it again") from error
        return ingredients

    def load(
        self, config: str | None = None, difference: Mapping[str, Any] | None = None
    ) -> Settings:
        """The settings of a config, of the study's own if none is named."""
        _, settings = load(config or self.config, self.overrides, self.seed, difference)
        self.settings.append(settings.model_dump(mode="json"))
        return settings

    def opened(self, run: Path) -> contextlib.AbstractContextManager[Experiment]:
        """The experiment in a run folder, under the study's own config."""
        return self.open(self.load(), run)


@dataclass(frozen=True)
class Findings:
    """Tables and figures by the names of their files; ``shown`` is printed, if not the tables."""

    tables: Mapping[str, pd.DataFrame]
    figures: Mapping[str, Figure] = field(default_factory=dict)
    shown: pd.DataFrame | None = None


def keep(
    name: str, findings: Findings, inputs: Inputs, options: Mapping[str, Any], folder: Path
) -> list[Path]:
    """Write tables, figures and ``study-NAME.json``, which says what they were made from."""
    from nmutant_cli.files import replacing
    from nmutant_cli.pipeline.run_folder import versions
    from nmutant_cli.report.figures.style import to_png
    from nmutant_cli.report.tables import to_csv

    made = {f"{file}.csv": to_csv(table).encode() for file, table in findings.tables.items()}
    made |= {f"figures/{file}.png": to_png(drawn) for file, drawn in findings.figures.items()}
    manifest = {
        "study": name,
        "options": dict(options),
        "settings": inputs.settings,
        "runs": [{"run": run.name, "read": read} for run, read in inputs.read.items()],
        "versions": versions(),
    }
    made[f"study-{name}.json"] = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    for file, content in made.items():
        with replacing(folder / file) as temporary:
            temporary.write_bytes(content)
    return [folder / file for file in made]
