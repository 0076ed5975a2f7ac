"""Table 1 and Table 2 against literal loops, and what they look like when written."""

import io
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmutant_cli.errors import ArtifactError
from nmutant_cli.mutation.sensitivity import half_width
from nmutant_cli.report.tables import formatted, means, table1, table2, to_csv, to_text

TITLES = {"normal": "normal", "fgsm": "FGSM", "cw": "C&W", "wl": "WL"}
STEPS = (1.0, 5.0, 10.0)
MUS = (1.2, 2.0)
RULES = ("wald", "published")
VERDICTS = ("adversarial", "normal", "undecided")


def kappa_frame(rows):
    """Rows of (samples, step_size, kappa)."""
    return pd.DataFrame(rows, columns=["samples", "step_size", "kappa"])


def detection_frame(rows):
    """Rows of (samples, rule, mu, verdict, mutations, label_changes)."""
    columns = ["samples", "rule", "mu", "verdict", "mutations", "label_changes"]
    return pd.DataFrame(rows, columns=columns)


def run_table2(rows, **changes):
    arguments = {
        "titles": TITLES,
        "dataset": "MNIST",
        "sizes": {},
        "rules": ("wald",),
        "kappa1": 0.0017,
        "mus": (1.2,),
    }
    return table2(detection_frame(rows), **(arguments | changes))


def test_the_interval_is_that_of_the_paper():
    # 100 values 0 and 100 values 1: population standard deviation 0.5, n = 200.
    values = [0.0, 1.0] * 100
    assert half_width(values, 0.99) == pytest.approx(2.576 * 0.5 / math.sqrt(200), rel=1e-4)
    assert half_width(values, 0.95) == pytest.approx(1.960 * 0.5 / math.sqrt(200), rel=1e-4)
    assert half_width([0.3], 0.99) == 0
    assert math.isnan(half_width([], 0.99))


def test_table_1_has_the_rows_of_the_paper_in_its_order():
    rows = [("fgsm", 5.0, 0.2), ("fgsm", 5.0, 0.4), ("normal", 1.0, 0.001), ("fgsm", 1.0, 0.1)]
    table = table1(kappa_frame(rows), TITLES, "MNIST", [5.0, 1.0])
    assert to_csv(table) == (
        "dataset,step_size,samples,n,kappa_percent,ci99_percent,kappa_low,kappa_high\n"
        "MNIST,1,normal,1,0.10,0.00,0.10,0.10\n"
        "MNIST,1,FGSM,1,10.00,0.00,10.00,10.00\n"
        "MNIST,1,C&W,0,,,,\n"
        "MNIST,1,WL,0,,,,\n"
        "MNIST,5,normal,0,,,,\n"
        "MNIST,5,FGSM,2,30.00,18.21,11.79,48.21\n"
        "MNIST,5,C&W,0,,,,\n"
        "MNIST,5,WL,0,,,,\n"
    )


def test_the_interval_column_is_named_after_its_level():
    rows = kappa_frame([("fgsm", 1.0, 0.5)])
    for confidence, name in (
        (0.95, "ci95_percent"),
        (0.99, "ci99_percent"),
        (0.999, "ci99.9_percent"),
    ):
        assert table1(rows, TITLES, "digits", [1.0], confidence).columns[5] == name


kappa_rows = st.lists(
    st.tuples(
        st.sampled_from(list(TITLES)),
        st.sampled_from(STEPS),
        st.integers(0, 1000).map(lambda changes: changes / 1000),
    ),
    max_size=40,
)


@settings(max_examples=50, deadline=None)
@given(kappa_rows)
def test_table_1_equals_a_literal_loop(rows):
    table = table1(kappa_frame(rows), TITLES, "digits", STEPS).to_dict("records")
    expected = []
    for step in STEPS:
        for slug, title in TITLES.items():
            total = squares = n = 0
            for samples, step_size, kappa in rows:
                if samples == slug and step_size == step:
                    n, total, squares = n + 1, total + kappa, squares + kappa**2
            mean = total / n if n else math.nan
            deviation = math.sqrt(max(0, squares / n - mean**2)) if n else math.nan
            half = 2.5758293 * deviation / math.sqrt(n) if n else math.nan
            expected.append((step, title, n, 100 * mean, 100 * half))
    assert len(table) == len(expected)
    for row, (step, title, n, mean, half) in zip(table, expected, strict=True):
        assert (row["dataset"], row["step_size"], row["samples"]) == ("digits", step, title)
        assert row["n"] == n
        assert row["kappa_percent"] == pytest.approx(mean, abs=0.00501, nan_ok=True)
        assert row["ci99_percent"] == pytest.approx(half, abs=0.00501, nan_ok=True)


def test_means_are_table_1_before_rounding():
    rows = kappa_frame([("fgsm", 1.0, 0.001), ("fgsm", 1.0, 0.0), ("fgsm", 1.0, 0.0)])
    exact = means(rows, TITLES, "digits", [1.0], 0.99).loc[1, "kappa_percent"]
    assert exact == pytest.approx(0.1 / 3)
    assert table1(rows, TITLES, "digits", [1.0]).loc[1, "kappa_percent"] == 0.03


def test_table_2_counts_as_the_paper_does():
    rows = [
        ("fgsm", "wald", 1.2, "adversarial", 10, 2),
        ("fgsm", "wald", 1.2, "adversarial", 13, 3),
        ("fgsm", "wald", 1.2, "normal", 900, 0),
        ("fgsm", "wald", 1.2, "undecided", 2000, 1),
        ("normal", "wald", 1.2, "normal", 132, 0),
        ("normal", "wald", 1.2, "normal", 133, 1),
        ("normal", "wald", 1.2, "adversarial", 8, 4),
        ("normal", "wald", 1.2, "undecided", 2000, 3),
    ]
    titles = {"normal": "normal", "fgsm": "FGSM"}
    assert to_csv(run_table2(rows, titles=titles, sizes={"normal": 4, "fgsm": 4})) == (
        "dataset,samples,rule,kappa1,mu,n,adversary,identified,accuracy_percent,"
        "mutations,label_changes,undecided\n"
        "MNIST,FGSM,wald,0.0017,1.2,4,4,2,50.00,11.50,2.50,1\n"
        "MNIST,normal,wald,0.0017,1.2,4,0,1,75.00,132.50,0.50,1\n"
    )


detection_rows = st.lists(
    st.tuples(
        st.sampled_from(list(TITLES)),
        st.sampled_from(RULES),
        st.sampled_from(MUS),
        st.sampled_from(VERDICTS),
        st.integers(1, 2000),
        st.integers(0, 50),
    ),
    max_size=60,
)


@settings(max_examples=50, deadline=None)
@given(detection_rows)
def test_table_2_equals_a_literal_loop(rows):
    table = run_table2(rows, rules=RULES, mus=reversed(MUS)).to_dict("records")
    keys = [(s, r, m) for s in ("fgsm", "cw", "wl", "normal") for r in RULES for m in MUS]
    assert len(table) == len(keys)
    for row, (slug, rule, mu) in zip(table, keys, strict=True):
        size = identified = undecided = right = mutations = changes = 0
        for samples, by, at, verdict, read, changed in rows:
            if (samples, by, at) != (slug, rule, mu):
                continue
            size += 1
            identified += verdict == "adversarial"
            undecided += verdict == "undecided"
            if verdict == ("normal" if slug == "normal" else "adversarial"):
                right, mutations, changes = right + 1, mutations + read, changes + changed
        share = identified / size if size else math.nan
        accuracy = 1 - share if slug == "normal" else share
        assert (row["samples"], row["rule"], row["mu"]) == (TITLES[slug], rule, mu)
        assert row["kappa1"] == 0.0017
        assert row["n"] == size
        assert row["adversary"] == (0 if slug == "normal" else size)
        assert (row["identified"], row["undecided"]) == (identified, undecided)
        assert row["accuracy_percent"] == pytest.approx(100 * accuracy, abs=0.00501, nan_ok=True)
        for column, total in (("mutations", mutations), ("label_changes", changes)):
            mean = total / right if right else math.nan
            assert row[column] == pytest.approx(mean, abs=0.00501, nan_ok=True)


def test_undecided_everywhere_leaves_the_means_empty():
    rows = [(s, "wald", 1.2, "undecided", 2000, 0) for s in ("normal", "fgsm")]
    text = to_csv(run_table2(rows, titles={"normal": "normal", "fgsm": "FGSM"}))
    assert "MNIST,FGSM,wald,0.0017,1.2,1,1,0,0.00,,,1\n" in text
    assert "MNIST,normal,wald,0.0017,1.2,1,0,0,100.00,,,1\n" in text


def test_no_samples_at_all_still_give_every_row():
    assert table1(kappa_frame([]), TITLES, "digits", STEPS)["n"].tolist() == [0] * 12
    table = run_table2([])
    assert table["adversary"].tolist() == [0] * 4
    assert formatted(table)["accuracy_percent"].tolist() == [""] * 4


def test_records_read_back_from_a_file_give_the_same_tables():
    mus = (1.1, 1.3)
    rows = [("fgsm", "wald", mu, "adversarial", 7, 3) for mu in mus]
    detections = detection_frame(rows)
    read = pd.read_csv(io.StringIO(detections.to_csv(index=False)))
    read["mu"] = np.nextafter(read["mu"], 9)  # a fast parser can be off in the last bit
    table = table2(read, TITLES, "digits", {"fgsm": 1}, ["wald"], 0.1, mus)
    assert table.loc[:1, "identified"].tolist() == [1, 1]


@pytest.mark.parametrize("column", ["samples", "step_size", "kappa"])
def test_a_missing_column_of_kappa_csv_is_named(column):
    frame = kappa_frame([("fgsm", 1.0, 0.5)]).drop(columns=column)
    with pytest.raises(ArtifactError, match=f"kappa.csv: no column {column}"):
        table1(frame, TITLES, "digits", STEPS)


@pytest.mark.parametrize(
    "column", ["samples", "rule", "mu", "verdict", "mutations", "label_changes"]
)
def test_a_missing_column_of_detections_csv_is_named(column):
    frame = detection_frame([("fgsm", "wald", 1.2, "normal", 1, 0)]).drop(columns=column)
    with pytest.raises(ArtifactError, match=f"detections.csv: no column {column}"):
        table2(frame, TITLES, "digits", {}, ["wald"], 0.1, [1.2])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("fgsm", 1.0, 1.5), "outside"),
        (("fgsm", 1.0, math.nan), "column kappa is not all numbers"),
        (("fgsm", "one", 0.5), "column step_size is not all numbers"),
        (("bim", 1.0, 0.5), "unknown sample set 'bim'"),
    ],
)
def test_a_damaged_kappa_csv_is_refused(row, message):
    with pytest.raises(ArtifactError, match=message):
        table1(kappa_frame([row]), TITLES, "digits", STEPS)


def test_a_damaged_detections_csv_is_refused():
    with pytest.raises(ArtifactError, match="unknown verdict 'maybe'"):
        run_table2([("fgsm", "wald", 1.2, "maybe", 1, 0)])
    with pytest.raises(ArtifactError, match=r"1 of 2 FGSM samples for rule wald, mu 1\.2"):
        run_table2([("fgsm", "wald", 1.2, "normal", 1, 0)], sizes={"fgsm": 2})


def test_the_text_is_aligned_and_has_no_nan():
    text = to_text(table1(kappa_frame([("fgsm", 1.0, 0.125)]), TITLES, "MNIST", [1.0]))
    assert text.splitlines() == [
        "dataset  step_size  samples  n  kappa_percent  ci99_percent  kappa_low  kappa_high",
        "MNIST            1  normal   0",
        "MNIST            1  FGSM     1          12.50          0.00      12.50       12.50",
        "MNIST            1  C&W      0",
        "MNIST            1  WL       0",
    ]


def test_a_table_without_rows_is_its_heading():
    assert to_text(pd.DataFrame(columns=["a", "b"])) == "a  b"
    assert to_csv(pd.DataFrame(columns=["a", "b"])) == "a,b\n"
