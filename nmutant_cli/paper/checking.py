"""Guards the committed results: no verdict may become worse, no value may be changed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from nmutant_cli.errors import ArtifactError
from nmutant_cli.files import file_digest
from nmutant_cli.paper import published

COMPARE = {"table1": published.compare_table1, "table2": published.compare_table2}
ADDED = ("verdict", "reason")


def check(committed: Path, run: Path | None = None) -> list[str]:
    """What is wrong with the tables of ``run`` beside those in ``committed``, a line for each.

    Verdicts are worked out anew from the values: those of ``run/compared`` where there is such a
    folder, else the committed ones themselves. A line is a verdict that is worse than the committed
    one, a row that is gone, a published value that is not the paper's, or a table that is not the
    one its manifest speaks of. Makes nothing.

    Raises ArtifactError if a committed table or the manifest is missing or damaged.
    """
    found = run / "compared" if run and (run / "compared").is_dir() else committed
    complaints = []
    made = _digests(committed / "manifest.json")
    for name in COMPARE:
        stands = committed / f"{name}.csv"
        try:
            complaints += _of_table(name, stands, found / f"{name}.csv")
        except (ValueError, TypeError, LookupError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ArtifactError(f"{stands}: no table of ours ({reason[:160]})") from error
        if file_digest(stands) != made.get(f"compared/{name}.csv"):
            complaints.append(
                f"{stands}: not the file that {committed / 'manifest.json'} speaks of"
            )
    return complaints


def _of_table(name: str, committed: Path, found: Path) -> list[str]:
    stands, values, compare = _read(committed), _read(found), COMPARE[name]
    paper = [c for c in values.columns if c.startswith("published_")]
    again = compare(values.drop(columns=[*paper, *ADDED], errors="ignore"))
    complaints = [f"{committed}: {worse}" for worse in published.worse(again, stands)]
    expected = compare(stands.drop(columns=[*paper, *ADDED], errors="ignore"))
    if not expected[paper].equals(stands[paper].astype(expected[paper].dtypes.to_dict())):
        complaints.append(f"{committed}: a published value is not the paper's")
    return complaints


def _digests(manifest: Path) -> dict[str, str]:
    try:
        artefacts = json.loads(manifest.read_text(encoding="utf-8"))["artefacts"]
        return {name: entry["sha256"] for name, entry in artefacts.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{manifest}: cannot be read ({error})") from error


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    table["verdict"] = table.get("verdict", pd.Series(dtype=str)).fillna("")
    return table
