"""Detectors side by side: the tables' figures by hand, and the whole command at a tiny size."""

from __future__ import annotations

import base64
import json

import numpy as np
import pandas as pd
import pytest
from conftest import nmutant, options
from hypothesis import given
from hypothesis import strategies as st

from nmutant_cli.detection import sprt
from nmutant_cli.detection.sprt import SequentialTest
from nmutant_cli.detectors import DETECTORS
from nmutant_cli.files import read_records
from nmutant_cli.pipeline.compare import needed, read_table, sequential
from nmutant_cli.pipeline.scores import changes_in, changes_text
from nmutant_cli.report.roc import threshold

SMALL = (
    "compare.clean=400",
    "compare.mutations=10",
    "attack.attempts=24",
    "samples.normal=24",
    "attack.sets.bb=null",
)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=60), st.sampled_from([0.01, 0.05, 0.3]))
def test_not_more_than_the_promised_share_lies_above_the_threshold(scores, rate):
    clean = np.array(scores, float)
    limit = threshold(clean, rate)
    assert (clean > limit).sum() <= rate * len(clean) + 1e-9
    # Lower it to the next score that occurs, and it would be more.
    lower = clean[clean < limit].max(initial=-np.inf)
    assert (clean > lower).sum() > rate * len(clean) - 1e-9


def test_a_threshold_by_hand():
    clean = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8.0] * 10)
    assert threshold(clean, 0.01) == 8
    assert threshold(clean, 0.1) == 7
    assert threshold(clean, 0.05) == 8, "8 is shared by a tenth"


@given(
    st.lists(st.booleans(), min_size=1, max_size=25),
    st.floats(0, 1),
)
def test_asking_ends_when_the_answer_is_settled(changes, limit):
    m = len(changes)
    most = int(limit * m + 1e-9)
    n = needed(np.array([changes]), limit)[0]
    for read in range(1, m + 1):
        seen = sum(changes[:read])
        settled = seen > most or seen + (m - read) <= most
        assert settled == (read >= n)
        if settled:
            break
    assert (seen > most) == (sum(changes) > most)


@pytest.mark.parametrize("mutations", [1, 13, 400])
def test_changes_come_back_from_their_text(mutations, tmp_path):
    changes = np.random.default_rng(0).random((5, mutations)) < 0.4
    pd.DataFrame({"changes": changes_text(changes)}).to_csv(tmp_path / "scores.csv", index=False)
    np.testing.assert_array_equal(changes_in(read_records(tmp_path / "scores.csv")), changes)


def test_what_counts_no_changes_has_none():
    assert changes_in(pd.DataFrame({"score": [1.0]})) is None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    return folder, nmutant("compare", *options(folder, *SMALL))


def test_every_detector_meets_every_set(run):
    folder, outcome = run
    assert outcome.code == 0, outcome.stderr
    table = read_table(folder / "comparison.csv")
    assert table["detector"].nunique() == 17
    assert set(table["samples"]) == {"FGSM", "C&W", "JSMA", "WL"}
    assert len(table) == 17 * 4 * 2
    for key in ("auc", "tpr_at_1", "tpr_at_5"):
        low, value, high = (table[f"{key}_{end}"] for end in ("low", "percent", "high"))
        assert ((low <= value) & (value <= high))[table["n"] > 0].all()
    assert table.loc[table["n"] == 0, "auc_percent"].isna().all()
    assert set(table.loc[table["learnt_from"] != "", "detector"]) == {"LID (supervised)"}
    costs = pd.read_csv(folder / "costs.csv")
    assert (costs["passes"] >= 1).all()
    assert (costs["times_a_forward_pass"] > 0).all()
    assert "kappa, Gaussian noise" in outcome.stdout
    assert (folder / "figures" / "comparison.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["kappa", "models_ns"])
def test_passes_and_the_sequential_test_by_a_literal_count(run, name):
    folder, _ = run
    frame = read_records(folder / "compare" / f"{name}-base.csv")
    changes, clean = changes_in(frame), frame.loc[frame["samples"] == "clean", "score"]
    half = 2.5758 * clean.std(ddof=1) / np.sqrt(len(clean))
    mean = clean.mean() + half
    assert clean.mean() > 0
    test = SequentialTest("algorithm1", 0.9 * mean, 1.1 * mean, cap=10)
    limit = min(t for t in clean if (clean > t).sum() <= 0.05 * len(clean))
    tie = (0.05 * len(clean) - (clean > limit).sum()) / (clean == limit).sum()
    second = np.array([int(i) * 2654435761 % 2**32 >= 2**31 for i in frame["source_index"]])
    table = read_table(folder / "comparison.csv").set_index(["detector", "samples", "half"])
    normal = changes[second & (frame["samples"] == "normal")]
    for slug, printed in (("cw", "C&W"), ("wl", "WL")):
        row = table.loc[(DETECTORS[name].title, printed, "report")]
        rows = changes[second & (frame["samples"] == slug)]
        if not len(rows):
            continue
        ends, alarms = ([sprt.run(test, one) for one in some] for some in (rows, normal))
        found = [end.verdict.name == "ADVERSARIAL" for end in ends]
        wrong = [end.verdict.name == "ADVERSARIAL" for end in alarms]
        assert row["sequential_percent"] == pytest.approx(100 * np.mean(found), abs=0.006)
        assert row["sequential_alarms_percent"] == pytest.approx(100 * np.mean(wrong), abs=0.006)
        read = 1 + np.mean([end.mutations for end in ends])
        assert row["sequential_passes"] == pytest.approx(read, abs=0.06)
        asked = [tie * settled(one, limit - 0.1) + (1 - tie) * settled(one, limit) for one in rows]
        assert row["passes"] == pytest.approx(1 + np.mean(asked), abs=0.06)


def settled(changes, limit):
    """After how many of ten it is certain whether more than ``limit`` of them are changes."""
    for read in range(1, 11):
        least, most = sum(changes[:read]) / 10, (sum(changes[:read]) + 10 - read) / 10
        if least > limit + 1e-9 or most <= limit + 1e-9:
            return read
    raise AssertionError("never")


def test_a_network_that_never_wavers_is_tested_all_the_same():
    changes = np.zeros((3, 50), bool)
    changes[1, :30] = True
    verdict, read = sequential(changes, np.zeros(100))
    assert verdict.tolist() == [False, True, False]
    assert read[0] == 50
    assert read[1] < 30
    # 34 labels that stay are evidence enough against a share of 0.3; but Algorithm 1 does not look.
    verdict, read = sequential(np.zeros((1, 50), bool), np.full(100, 0.3))
    assert (verdict[0], read[0]) == (False, 50)


def test_the_tables_as_json(run):
    folder, _ = run
    outcome = nmutant("compare", "--json", *options(folder, *SMALL))
    printed = json.loads(outcome.stdout)
    table = read_table(folder / "comparison.csv")
    assert [row["detector"] for row in printed["comparison"]] == table["detector"].tolist()
    found = [row["auc_percent"] for row in printed["comparison"]]
    np.testing.assert_array_equal(np.array(found, float), table["auc_percent"])
    assert len(printed["costs"]) == 17
    assert printed["files"][0] == str(folder / "comparison.csv")


def test_the_page_of_a_run_shows_the_comparison_of_its_samples(run):
    folder, _ = run
    assert nmutant("report", "-q", *options(folder, *SMALL)).code == 0
    page = (folder / "report.html").read_text()
    picture = base64.b64encode((folder / "figures" / "comparison.png").read_bytes()).decode()
    assert picture in page
    assert nmutant("report", "-q", *options(folder, *SMALL, "samples.normal=23")).code == 0
    assert picture not in (folder / "report.html").read_text(), "it is of other samples"


def test_scores_are_there_for_every_sample_and_for_clean_images_besides(run):
    folder, _ = run
    scores = pd.read_csv(folder / "compare" / "squeezing-base.csv")
    assert (scores["samples"] == "clean").sum() == 200
    normal = scores[scores["samples"] == "normal"]
    assert len(normal) == 24
    assert scores["score"].between(0, 2).all()


def test_a_second_start_makes_nothing_again_and_another_folder_gives_the_same(run, tmp_path):
    folder, _ = run
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.csv")}
    assert nmutant("compare", *options(folder, *SMALL)).code == 0
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.csv")} == before
    few = (*SMALL, "compare.detectors=[lid, gaussian, models_ns]")
    assert nmutant("compare", *options(tmp_path, *few)).code == 0
    for name in ("lid", "gaussian", "models_ns"):
        file = f"compare/{name}-base.csv"
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes()


def test_mistakes_in_one_line(run):
    folder, _ = run
    error = nmutant("compare", *options(folder, *SMALL, "compare.clean=900")).error
    assert error.startswith("compare.clean: 900 asked for, ")
    none = [f"attack.sets.{name}=null" for name in ("fgsm", "cw", "jsma")]
    error = nmutant("compare", *options(folder, *SMALL, *none)).error
    assert error.startswith("attack.sets: is empty")
    on = "model.stochastic_inference=true"
    assert "stochastic_inference" in nmutant("compare", *options(folder, *SMALL, on)).error
    error = nmutant("compare", *options(folder, "compare.detectors=[kapa]")).error
    assert "compare.detectors" in error
    assert "kapa" in error
    error = nmutant("compare", *options(folder, "compare.known=fgms")).error
    assert error.endswith("did you mean 'fgsm'?")
