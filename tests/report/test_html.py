"""The report page: complete, escaped, and in need of nothing from outside."""

import base64
import re
from html import unescape
from html.parser import HTMLParser

import pandas as pd
import pytest

from nmutant_cli.report.page import COLUMNS, RULES, render
from nmutant_cli.report.tables import table1, table2

TITLES = {"normal": "normal", "cw": "C&W"}
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Checks that tags nest, and collects tags with their attributes and the text of cells."""

    def __init__(self, text):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


@pytest.fixture
def tables():
    kappa = pd.DataFrame({"samples": ["normal"], "step_size": [1.0], "kappa": [0.0013]})
    detections = pd.DataFrame(
        {
            "samples": ["normal", "normal"],
            "rule": ["wald", "published"],
            "mu": 1.2,
            "verdict": "normal",
            "mutations": [4322, 132],
            "label_changes": 0,
        }
    )
    return {
        "Table 1": table1(kappa, TITLES, "MNIST", [1.0]),
        "Table 2": table2(detections, TITLES, "MNIST", {}, ["wald", "published"], 0.0017, [1.2]),
    }


def test_the_page_holds_the_tables_with_numbers_to_the_right(tables):
    page = Page(render("MNIST", [], [], tables, {}))
    assert page.cells[:9] == [
        *("Samples", "n", "κ (%)"),
        *("normal", "1", "0.13 (0.13–0.13)"),
        *("C&W", "0", ""),
    ]
    cells = [attributes.get("class") for tag, attributes in page.tags if tag == "td"]
    assert cells[:3] == [None, "number", "number"]


def test_a_column_that_is_the_same_in_every_row_is_said_once(tables):
    text = " ".join(unescape(render("MNIST", [], [], tables, {})).split())
    assert "In every row: Data set MNIST, Step size 1." in text
    frame = pd.DataFrame({"a": [1, 2], "b": [3, 3], "c": [None, None]})
    assert Page(render("MNIST", [], [], {"t": frame}, {})).cells == ["a", "1", "2"]
    assert Page(render("MNIST", [], [], {"t": frame[:1]}, {})).cells[:2] == ["a", "b"]


def test_an_interval_stands_in_brackets_behind_its_value():
    values = {"auc_percent": [95.2, 99.64], "auc_low": [91.4, 98.46], "auc_high": [98.6, 100.0]}
    page = Page(render("MNIST", [], [], {"t": pd.DataFrame(values)}, {}))
    assert page.cells == ["AUC (%)", "95 (91–99)", "99.6 (98–100)"]


def test_what_was_found_and_the_figures_come_before_the_tables(tables):
    text = render("MNIST", ["Found & said."], [("drawn", b"png")], tables, {"seed": 1})
    places = [text.index(part) for part in ("Found &amp; said.", "drawn", "Table 1", "seed")]
    assert places == sorted(places)


def test_columns_and_the_rules_in_use_are_explained(tables):
    text = unescape(render("MNIST", [], [], tables, {}))
    definitions = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    for column in ("samples", "rule", "n", "accuracy_percent"):
        heading, meaning = COLUMNS[column]
        assert meaning is None or definitions[heading] == meaning
    assert definitions["wald"] == RULES["wald"]
    assert definitions["published"] == RULES["published"]
    assert "algorithm1" not in definitions
    paper = {"Paper": pd.DataFrame({"ci99_percent": [0.1]})}
    assert "the 99% confidence interval" in render("MNIST", [], [], paper, {})


def test_a_table_of_other_columns_is_shown_under_their_names():
    frame = pd.DataFrame({"note": ["ratio"], "mine": [37.384]})
    page = Page(render("MNIST", [], [], {"Claims": frame}, {}))
    assert page.cells == ["note", "mine", "ratio", "37.38"]


def test_rows_are_grouped_by_the_first_column_that_varies():
    frame = pd.DataFrame({"dataset": "MNIST", "samples": list("aabb"), "mu": [1, 2, 1, 2]})
    page = Page(render("MNIST", [], [], {"t": frame}, {}))
    rows = [attributes.get("class") for tag, attributes in page.tags if tag == "tr"]
    assert rows == [None, None, None, "group", None]  # heading first


def test_figures_are_embedded_with_their_captions():
    page = Page(render("MNIST", [], [("κ & more", b"\x89PNG bytes")], {}, {}))
    (image,) = [attributes for tag, attributes in page.tags if tag == "img"]
    assert image["alt"] == "κ & more"
    kind, _, data = image["src"].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == b"\x89PNG bytes"


def test_facts_are_spelled_out():
    facts = {"Seed": 7, "Accuracy": 0.9891234567, "Versions": {"python": "3.11"}, "Steps": [1.0, 5]}
    text = render("MNIST", [], [], {}, facts)
    assert re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text) == [
        ("Seed", "7"),
        ("Accuracy", "0.989123"),
        ("Versions", "python 3.11"),
        ("Steps", "1, 5"),
    ]


def test_everything_given_is_escaped():
    bad = "<script>alert('x')</script>\"&"
    frame = pd.DataFrame({bad: [bad]})
    text = render(bad, [bad], [(bad, b"")], {bad: frame}, {bad: bad})
    assert "<script" not in text
    assert Page(text).cells == [bad, bad]


def test_the_page_asks_for_nothing_from_outside(tables):
    text = render("MNIST", [], [("a figure", b"png")], tables, {"Seed": 1})
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    sources = [a[key] for _, a in Page(text).tags for key in ("src", "href") if key in a]
    assert len(sources) == 1
    assert sources[0].startswith("data:")


def test_an_empty_run_still_gives_a_page():
    text = render("digits", [], [], {"Table 1": pd.DataFrame(columns=["dataset", "n"])}, {})
    assert "no rows" in Page(text).cells


def test_the_page_is_the_same_each_time(tables):
    assert render("MNIST", [], [], tables, {"a": 1}) == render("MNIST", [], [], tables, {"a": 1})


def test_published_columns_are_named_after_ours():
    frame = pd.DataFrame({"kappa_percent": [1.0], "published_kappa_percent": [2.0], "verdict": "x"})
    page = render("MNIST", [], [], {"Beside": frame}, {})
    assert "κ (%), published" in page
    assert "Verdict" in page
