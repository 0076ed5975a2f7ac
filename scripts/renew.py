"""Renew what follows from the kept results: the verdicts, and the digests of all files.

    python scripts/renew.py

For every folder of results/: the verdict columns of the tables as the present rules give them (the
measured columns stay), then its SHA256SUMS. Needed where a rule of nmutant_cli/paper/published.py
changes, or a study has been made anew.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nmutant_cli.paper.checking import COMPARE, without_verdicts, write_sums
from nmutant_cli.report.tables import to_csv

RESULTS = Path(__file__).parents[1] / "results"
OF_STUDY = ["labels_from", "label_differs_percent"]
"""Columns of other-network.csv behind the verdicts."""


def with_verdicts(results: Path = RESULTS) -> list[Path]:
    """The kept tables that have a verdict on each row."""
    return sorted([*results.glob("*/table[12].csv"), *results.glob("*/other-network.csv")])


def renewed(path: Path) -> str:
    """The text of a table with the verdicts that the rules give now."""
    table = pd.read_csv(path)
    behind = [column for column in OF_STUDY if column in table]
    compare = COMPARE.get(path.stem, COMPARE["table2"])
    judged = compare(without_verdicts(table.drop(columns=behind)))
    if behind:
        judged = judged.assign(**{c: table[c] for c in behind})
    return to_csv(judged)


def main() -> None:
    for path in with_verdicts():
        path.write_text(renewed(path), encoding="utf-8")
    for folder in sorted(path for path in RESULTS.iterdir() if path.is_dir()):
        write_sums(folder)
        print(folder)


if __name__ == "__main__":
    main()
