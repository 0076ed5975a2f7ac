"""Joint success of attacks against detectors, by hand and its order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import nmutant, options
from hypothesis import given, settings
from hypothesis import strategies as st

from nmutant_cli.config.loading import load
from nmutant_cli.errors import ArtifactError
from nmutant_cli.files import read_records
from nmutant_cli.pipeline.evade import _adversarial, published_adversarial
from nmutant_cli.pipeline.samples import SampleSet
from nmutant_cli.pipeline.scores import changes_in
from nmutant_cli.report.evasion import (
    ATTEMPT,
    WORST,
    budgets,
    by_attack,
    curves,
    joint_success,
)
from nmutant_cli.report.figures.evasion import evasion_figure
from nmutant_cli.report.figures.style import to_png


def attempts(*rows):
    return pd.DataFrame(rows, columns=list(ATTEMPT))


def percents(table, detector="kappa"):
    """``{attack: [percent at each budget]}``."""
    here = table[table["detector"] == detector]
    return here.groupby("attack")["joint_success_percent"].apply(list).to_dict()


CASE = attempts(
    # detector, attack, image, l2, fooled, passed
    ("kappa", "cw", 0, 1.0, True, True),
    ("kappa", "cw", 0, 0.5, True, False),
    ("kappa", "cw", 1, 1.0, True, False),
    ("kappa", "cw", 2, 1.5, False, True),
    ("kappa", "cw", 3, 3.0, True, True),
    ("kappa", "adaptive", 0, 2.0, True, True),
    ("kappa", "adaptive", 1, 2.0, True, True),
    ("kappa", "adaptive", 2, 4.0, True, True),
    ("kappa", "adaptive", 3, 0.0, False, True),
    ("none", "cw", 0, 0.5, True, True),
)


def test_a_case_by_hand():
    table = joint_success(CASE, [0.7, 1, 2, 3.5])
    assert percents(table) == {
        "cw": [0, 25, 25, 50],
        "adaptive": [0, 0, 50, 50],
        WORST: [0, 25, 50, 75],
    }
    assert percents(table, "none") == {"cw": [100] * 4, WORST: [100] * 4}
    columns = ["detector", "attack", "budget", "images", "joint_success_percent", "low", "high"]
    assert table.columns.tolist() == columns
    assert table[table["detector"] == "kappa"]["images"].eq(4).all()


def test_attempts_on_an_image_count_once():
    rows = [("d", "a", i // 9, 1.0, i % 9 == 0, True) for i in range(18)]
    table = joint_success(attempts(*rows), [1.0])
    assert table["joint_success_percent"].tolist() == [100, 100]
    assert table["images"].tolist() == [2, 2]


one = st.tuples(
    st.sampled_from(["kappa", "lid"]), st.sampled_from(["cw", "adaptive", "noise"]),
    st.integers(0, 4), st.floats(0, 5), st.booleans(), st.booleans(),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(one, min_size=1, max_size=60))
def test_it_rises_with_the_budget_and_the_worst_case_is_the_worst(rows):
    # All attacks on all images: an attempt that failed, where there is none.
    every = [(d, a, i, 0.0, False, False) for d, a, *_ in rows for i in range(5)]
    table = joint_success(attempts(*rows, *every), np.linspace(0, 5, 11))
    for detector in table["detector"].unique():
        by_attack_name = {
            name: np.array(curve) for name, curve in percents(table, detector).items()
        }
        for curve in by_attack_name.values():
            assert (np.diff(curve) >= 0).all()
            assert (curve <= by_attack_name[WORST]).all()
        assert by_attack_name[WORST].max() <= 100


def test_a_missing_column_is_named():
    with pytest.raises(ArtifactError, match="no column passed"):
        joint_success(CASE.drop(columns="passed"), [1.0])


def test_no_attempts_give_an_empty_table():
    assert joint_success(CASE[:0], [1.0]).empty


def test_the_figure_has_a_line_for_each_detector_with_its_interval():
    table = joint_success(CASE, [0, 1, 2, 3, 4])
    figure = evasion_figure(table, "MNIST")
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines) == ["kappa", "none"]
    for detector, line in lines.items():
        assert line.get_ydata().tolist() == percents(table, detector)[WORST]
    assert len(axes.collections) == 2
    assert to_png(figure) == to_png(evasion_figure(table, "MNIST"))
    many = pd.concat([table.assign(detector=f"d{i}") for i in range(14)])
    looks = [
        (line.get_color(), line.get_linestyle())
        for line in evasion_figure(many, "MNIST").axes[0].get_lines()
    ]
    assert len(set(looks)) == 14


def test_every_share_has_its_interval():
    table = joint_success(CASE, [0.7, 1]).set_index(["detector", "attack", "budget"])
    row = table.loc[("kappa", "cw", 1.0)]
    # 1 of 4: the beta quantiles at 2.5 and 97.5%
    assert row[["low", "high"]].tolist() == pytest.approx([0.63, 80.59], abs=0.01)
    assert table.loc[("kappa", "cw", 0.7), ["low", "high"]].tolist() == [0, 60.24]


def test_attacks_by_hand():
    table = by_attack(CASE[CASE["detector"] == "kappa"])
    assert table.columns.tolist() == [
        "detector", "attack", "attempts", "fooled_percent", "joint_success_percent", "low", "high",
        "median_l2",
    ]  # fmt: skip
    assert table["attack"].tolist() == ["cw", "adaptive"]
    assert table["attempts"].tolist() == [5, 4]
    assert table["fooled_percent"].tolist() == [80, 75]
    assert table["joint_success_percent"].tolist() == [40, 75]
    assert table["low"].tolist() == pytest.approx([5.27, 19.41], abs=0.01)
    assert table["median_l2"].tolist() == [2, 2]


def test_the_worst_case_leaves_out_attacks_on_other_images():
    rows = [("d", attack, image, 1.0, True, attack != "b") for attack in "abc" for image in (0, 1)]
    table = curves(attempts(*rows, ("d", "other", 9, 0.5, True, True)))
    assert table["budget"].unique().tolist() == pytest.approx(np.arange(21) / 20)
    assert set(table["attack"]) == {"a", "b", "c", "other", WORST}
    assert table[table["attack"] == WORST]["images"].eq(2).all()
    assert percents(table, "d")["other"] == 10 * [0] + 11 * [100]
    assert percents(table, "d")[WORST] == 20 * [0] + [100]


@pytest.mark.parametrize(
    ("reach", "size"),
    [(1.0, 0.05), (0.9, 0.02), (7.3, 0.2), (39, 1), (40, 2), (255, 10), (2e-3, 1e-4)],
)
def test_budgets_end_where_the_worst_cases_hardly_rise(reach, size):
    """The nearest that evades counts, whatever else is tried on the image."""
    rows = [("d", "a", 0, reach, True, True), ("d", "b", 0, 9 * reach, True, True)]
    rows += [("e", "a", 0, reach / 3, True, True), ("e", "b", 1, 5 * reach, True, False)]
    found = budgets(attempts(*rows))
    np.testing.assert_allclose(np.diff(found), size)
    assert found[0] == 0
    assert found[-2] < reach <= found[-1]


def test_budgets_leave_out_one_in_a_hundred():
    rows = [("d", "a", image, 1.0 + (image == 7), True, True) for image in range(200)]
    assert budgets(attempts(*rows))[-1] == 1
    assert budgets(attempts(*rows[:50]))[-1] == 2


@pytest.mark.parametrize(
    "attempt", [("d", "a", 0, 2.0, True, False), ("d", "a", 0, 0.0, True, True)]
)
def test_budgets_where_nothing_evades_or_all_without_a_distance(attempt):
    assert budgets(attempts(attempt))[-1] == 1


def test_the_published_rule_is_that_of_table_2():
    detection = load("mnist")[1].detection
    calm, nervous = np.zeros((3, 200), bool), np.ones((2, 200), bool)
    assert not published_adversarial(calm, detection, 0.0017).any()
    assert published_adversarial(nervous, detection, 0.0017).all()


SMALL = ("compare.clean=400", "compare.mutations=20", "compare.detectors=[kappa,margin]")


def test_the_stage_counts_what_fools_and_passes(folder):
    outcome = nmutant("evade", *options(folder, *SMALL))
    assert outcome.code == 0, outcome
    paths = [
        folder / name for name in ("evasion.csv", "evasion-attacks.csv", "figures/evasion.png")
    ]
    assert outcome.stdout.splitlines()[-3:] == [str(path) for path in paths]
    table = pd.read_csv(paths[1]).set_index(["detector", "attack"])
    scores = read_records(folder / "compare" / "margin-base.csv")
    clean = scores.loc[scores["samples"] == "clean", "score"].tolist()
    limit = min(t for t in clean if sum(c > t for c in clean) <= 0.05 * len(clean))
    changes = changes_in(read_records(folder / "compare" / "kappa-base.csv"))
    assert changes.shape[1] == 20
    for slug, title in (("fgsm", "FGSM"), ("cw", "C&W"), ("jsma", "JSMA"), ("bb", "BB")):
        samples = SampleSet.load(folder / "adversarial" / f"{slug}.npz")
        of_set = scores[scores["samples"] == slug].set_index("index")["score"]
        fooled, both = 0, 0
        for i in range(len(samples)):
            if samples.counts[i] and samples.label8[i] != samples.true[i]:
                fooled += 1
                both += of_set[i] <= limit
        row = table.loc[("logit margin", title)] if ("logit margin", title) in table.index else None
        assert row is not None, table.index
        assert row["attempts"] == len(samples)
        assert row["fooled_percent"] == pytest.approx(100 * fooled / len(samples), abs=0.01)
        assert row["joint_success_percent"] == pytest.approx(100 * both / len(samples), abs=0.01)
        assert ("published rule, mu 1.2", title) in table.index
    made = [path.stat().st_mtime_ns for path in paths]
    assert nmutant("evade", "-q", *options(folder, *SMALL)).code == 0
    assert [path.stat().st_mtime_ns for path in paths] == made


def test_ties_are_broken_by_a_lot_for_each_image():
    clean = pd.DataFrame({"samples": "clean", "source_index": range(1000), "score": 0.0})
    clean.loc[:199, "score"] = 1.0
    tried = pd.DataFrame({"samples": "cw", "source_index": np.arange(4000) // 2, "score": 1.0})
    frame = pd.concat([clean, tried], ignore_index=True)
    (caught,) = _adversarial(load("mnist")[1], "margin", frame, None).values()
    of_set = caught[1000:].reshape(-1, 2)
    assert (of_set[:, 0] == of_set[:, 1]).all(), "one lot for all attempts on an image"
    assert of_set.mean() == pytest.approx(0.25, abs=0.04), "5% of all, 20% tie"
    assert not caught[200:1000].any()
