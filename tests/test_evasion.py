"""Joint success of attacks against detectors, by hand and its order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmutant_cli.errors import ArtifactError
from nmutant_cli.report.evasion import ATTEMPT, WORST, joint_success
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
    columns = ["detector", "attack", "budget", "images", "joint_success_percent"]
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
        found = {name: np.array(curve) for name, curve in percents(table, detector).items()}
        for curve in found.values():
            assert (np.diff(curve) >= 0).all()
            assert (curve <= found[WORST]).all()
        assert found[WORST].max() <= 100


def test_a_missing_column_is_named():
    with pytest.raises(ArtifactError, match="no column passed"):
        joint_success(CASE.drop(columns="passed"), [1.0])


def test_no_attempts_give_an_empty_table():
    assert joint_success(CASE[:0], [1.0]).empty


def test_the_figure_has_a_panel_for_each_detector_and_a_line_for_each_attack():
    table = joint_success(CASE, [0, 1, 2, 3, 4])
    figure = evasion_figure(table, "MNIST")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["kappa", "none"]
    names = [line.get_label() for line in figure.axes[0].get_lines()]
    assert names == ["cw", "adaptive", WORST]
    assert to_png(figure) == to_png(evasion_figure(table, "MNIST"))
    many = pd.concat([table.assign(detector=f"d{i}") for i in range(6)])
    assert sum(axes.axison for axes in evasion_figure(many, "MNIST").axes) == 6
