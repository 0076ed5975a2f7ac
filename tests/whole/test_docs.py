"""Tables of docs/ that have a CSV of results/ behind them hold its numbers.

A comment above the table names the file and how to read it:

    <!-- results/mnist/table2.csv; where rule = published; by samples; columns n, identified -->

``by``: the first cells of a row are the values of these columns. The numbers (and verdicts) of its
other cells are then, in order, among those of the ``columns`` in the rows of the file so chosen,
rounded or cut off as they are printed; a number in ``columns`` stands for itself. Without ``by``
each number has to be somewhere in these columns. ``order X``: the file's rows are first grouped by
X. ``without X``: a column of the table that is not compared. ``<!-- no CSV -->`` says that no file
is behind a table.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT

PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "results/README.md"]
WHOLE = {"reproduction.md", "reproduction-cifar10.md", "evaluation.md"}
"""Pages on which each table has a comment."""
WORDS = {"reproduced", "same conclusion", "differs"}
NUMBER = re.compile(r"(?<![\w.])[-+−]?\d[\d,]*(?:\.\d+)?")


def tables(page):
    """``(comment, rows)`` of each table, each row as its cells; the first is the heading."""
    comment, rows, found = "", [], []
    for line in [*page.read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
        elif rows:
            found.append((comment, rows[:1] + rows[2:]))
            comment, rows = "", []
        if line.startswith("<!--"):
            comment = line.removeprefix("<!--").removesuffix("-->").strip()
        elif line and not line.startswith("|"):
            comment = ""
    return found


def number(text):
    return float(text.replace(",", "").replace("−", "-"))


def key(value):
    """``C&W``, ``cw`` and ``1.0``, ``1`` are the same."""
    text = str(value)
    return f"{number(text):g}" if NUMBER.fullmatch(text) else re.sub(r"\W", "", text).casefold()


def contents(cells):
    """The verdicts and the numbers of these cells, as they are printed."""
    for cell in cells:
        yield from [cell] if cell in WORDS else NUMBER.findall(cell.replace("5/6", ""))


def parts(value):
    """A number, a verdict, or the numbers in a text."""
    if not isinstance(value, str):
        return [value]
    return [part if part in WORDS else number(part) for part in contents([value])]


def same(printed, value):
    if printed in WORDS or value in WORDS:
        return printed == value
    if not math.isfinite(value):
        return False
    decimals = len(printed.partition(".")[2])
    cut_off = int(value * 10**decimals) / 10**decimals
    shown = number(printed)
    return abs(shown - value) <= 0.5 * 10**-decimals + 1e-9 or shown == cut_off


def behind(comment):
    """The chosen rows of the file behind a table, and the names given to by, columns, without."""
    path, *clauses = (part.strip() for part in comment.split(";"))
    frame, given = pd.read_csv(ROOT / path), {"by": [], "columns": [], "without": []}
    for clause in clauses:
        verb, _, rest = clause.partition(" ")
        if verb == "where":
            column, _, value = (part.strip() for part in rest.partition("="))
            frame = frame[frame[column].map(key) == key(value)]
        elif verb == "order":
            places = {value: place for place, value in enumerate(frame[rest].unique())}
            frame = frame.sort_values(rest, key=lambda c, at=places: c.map(at), kind="stable")
        else:
            given[verb] = [name.strip() for name in rest.split(",")]
    return frame, given


def wrong(comment, rows):
    """Rows that hold something that is not in the file behind the table."""
    frame, given = behind(comment)
    names, by = given["columns"], given["by"]
    kept = [i for i, name in enumerate(rows[0]) if i >= len(by) and name not in given["without"]]
    assert len(frame), "no row of the file is chosen"
    for cells in rows[1:]:
        chosen = frame
        for column, cell in zip(by, cells, strict=False):
            chosen = chosen[chosen[column].map(key) == key(cell)]
        values = [
            value
            for _, row in chosen.iterrows()
            for name in names
            for value in parts(name if NUMBER.fullmatch(name) else row[name])
        ]
        there = iter(values)
        for printed in contents(cells[i] for i in kept):
            if not by:
                there = iter(values)
            if not any(same(printed, value) for value in there):
                yield f"{' | '.join(cells)}: {printed}"
                break


CHECKED = [
    pytest.param(comment, rows, id=f"{page.name}-{place}")
    for page in PAGES
    for place, (comment, rows) in enumerate(tables(page))
    if comment.startswith("results/")
]


def test_tables_with_a_file_behind_them_say_so():
    assert len(CHECKED) > 15
    for page in PAGES:
        for comment, rows in tables(page):
            assert comment or page.name not in WHOLE, f"{page.name}: {' | '.join(rows[0])}"


@pytest.mark.parametrize(("comment", "rows"), CHECKED)
def test_a_table_holds_the_numbers_of_the_file_behind_it(comment, rows):
    assert list(wrong(comment, rows)) == []


def test_a_wrong_number_or_verdict_is_found(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("samples,mu,n,share,verdict\nFGSM,1,10,2.46,differs\nFGSM,2,20,3.0,differs\n")
    comment = f"{path}; by samples; columns n, share, verdict"
    heading = ["samples", "n", "share", "verdict", "share"]

    def found(*cells):
        return list(wrong(comment, [heading, ["FGSM", *cells]]))

    assert found("10", "2.5%", "differs", "3") == []
    assert found("10", "2.46", "differs", "20 of 3.00") == []
    assert found("10", "2.4", "differs", "3") == [], "cut off, as #Mutations are"
    assert found("10", "2.6", "differs", "3")
    assert found("10", "2.5", "reproduced", "3")
    assert found("20", "2.5", "differs", "3"), "the number of another row"
