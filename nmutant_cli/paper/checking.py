"""Guards results that were kept: nothing may become worse, nothing may be changed by hand."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path

import pandas as pd

from nmutant_cli.errors import ArtifactError, first_line
from nmutant_cli.files import fault_reason, file_digest, replacing
from nmutant_cli.paper import published

COMPARE = {"table1": published.compare_table1, "table2": published.compare_table2}
ADDED = ("verdict", "distance")
"""Columns beside the values of a run and the ``published_`` ones."""
SUMS = "SHA256SUMS"


def check(committed: Path, run: Path | None = None) -> list[str]:
    """What is wrong with the kept results in ``committed``, a line for each. Makes nothing.

    Of the folder alone: every file has the digest in its ``SHA256SUMS``; every CSV that a manifest
    speaks of is that of the manifest (of Tables 1 and 2 the columns that the run made, since a
    verdict is no measurement); the published values are the paper's; the verdicts are no better
    than the rules of `published` give to the values now.

    With ``run``, the folder of another run, also: no row of its tables is worse than the committed
    one (`published.worse`), and none is gone.

    Raises ArtifactError if a committed file is missing or damaged, or if the run has no tables.
    """
    if not committed.is_dir():
        raise ArtifactError(f"{committed}: no folder of kept results; name one with --check FOLDER")
    _digests(committed / "manifest.json")
    complaints = changed(committed)
    for name in COMPARE:
        stands = committed / f"{name}.csv"
        found = run / "compared" / f"{name}.csv" if run else stands
        if not found.is_file() and run:
            raise ArtifactError(
                f"{found}: this run has no tables to check; make them first with `nmutant report`"
            )
        try:
            complaints += _of_table(name, stands, found)
        except (ValueError, TypeError, LookupError) as error:
            raise ArtifactError(f"{stands}: no table of ours ({first_line(error)})") from error
    return complaints


def changed(folder: Path) -> list[str]:
    """Files in ``folder`` that are not those of its ``SHA256SUMS`` or of a manifest beside them.

    Raises ArtifactError if one of the two cannot be read.
    """
    sums = folder / SUMS
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
        listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{sums}: cannot be read ({fault_reason(error)})") from error
    complaints = [
        f"{folder / name}: missing" for name in sorted(listed) if name not in _files(folder)
    ]
    for name, path in _files(folder).items():
        if file_digest(path) != listed.get(name):
            complaints.append(
                f"{path}: not the file that {sums} speaks of; if that is meant, run `make renew`"
            )
    for manifest in sorted(folder.rglob("manifest.json")):
        complaints += _of_manifest(manifest)
    return complaints


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS`` of every file below ``folder``, as ``sha256sum`` does."""
    lines = [f"{file_digest(path)}  {name}\n" for name, path in _files(folder).items()]
    with replacing(folder / SUMS) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def _files(folder: Path) -> dict[str, Path]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    return {path.relative_to(folder).as_posix(): path for path in sorted(paths)}


def _of_manifest(manifest: Path) -> list[str]:
    """CSV files beside ``manifest`` that are not those it speaks of."""
    digests = _digests(manifest)
    complaints = []
    for path in sorted(manifest.parent.glob("*.csv")):
        if path.stem in COMPARE:
            found, made = _digest_of_values(path), digests.get(path.name, "")
        else:
            found = file_digest(path)
            made = digests.get(path.name) or digests.get(f"compared/{path.name}", found)
        if found != made:
            complaints.append(f"{path}: not the values that {manifest} speaks of")
    return complaints


def _digest_of_values(path: Path) -> str:
    """sha256 of a kept Table 1 or 2 as the run wrote it, without what was set beside it."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            heading, *rows = csv.reader(file)
    except (OSError, ValueError, csv.Error) as error:
        raise ArtifactError(f"{path}: cannot be read ({fault_reason(error)})") from error
    kept = [i for i, c in enumerate(heading) if not c.startswith("published_") and c not in ADDED]
    text = io.StringIO()
    lines = ([row[i] if i < len(row) else "" for i in kept] for row in (heading, *rows))
    csv.writer(text, lineterminator="\n").writerows(lines)
    return hashlib.sha256(text.getvalue().encode()).hexdigest()


def _of_table(name: str, committed: Path, found: Path) -> list[str]:
    stands, values, compare = _read(committed), _read(found), COMPARE[name]
    again = compare(without_verdicts(values))
    complaints = [f"{committed}: {worse}" for worse in published.worse(again, stands)]
    expected = compare(without_verdicts(stands))
    paper = [c for c in expected if str(c).startswith("published_")]
    if not expected[paper].equals(stands[paper].astype(expected[paper].dtypes.to_dict())):
        complaints.append(f"{committed}: a published value is not the paper's")
    return complaints


def without_verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """A table of a run, from one with verdicts."""
    beside = table.columns.str.startswith("published_") | table.columns.isin(ADDED)
    return table.loc[:, ~beside]


def _digests(manifest: Path) -> dict[str, str]:
    try:
        artefacts = json.loads(manifest.read_text(encoding="utf-8"))["artefacts"]
        return {name: entry["sha256"] for name, entry in artefacts.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{manifest}: cannot be read ({fault_reason(error)})") from error


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({fault_reason(error)})") from error
    table["verdict"] = table.get("verdict", pd.Series(dtype=str)).fillna("")
    return table
