"""Tables of several networks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nmutant_cli.report.figures.networks import spread_figure
from nmutant_cli.studies.networks import spread_table1, spread_table2


def run(kappas, samples="FGSM"):
    return pd.DataFrame(
        {"dataset": "MNIST", "step_size": 1.0, "samples": samples, "kappa_percent": kappas}
    )


def test_mean_range_and_published_value_stand_side_by_side():
    found = spread_table1([run([4.0]), run([5.0]), run([6.0])]).iloc[0]
    assert (found["networks"], found["kappa_percent_mean"]) == (3, 5.0)
    assert (found["kappa_percent_lowest"], found["kappa_percent_highest"]) == (4.0, 6.0)
    # t(0.975, 2) = 4.3027, s = 1
    assert found["kappa_percent_to"] == pytest.approx(5 + 4.3027 * np.sqrt(4 / 3), rel=1e-4)
    assert (found["published_kappa_percent"], found["kappa_percent_inside"]) == (4.86, "yes")
    assert found["kappa_percent_below"] == 1


def test_a_value_far_away_is_said_to_lie_outside():
    found = spread_table1([run([1.0]), run([1.1]), run([1.2])]).iloc[0]
    assert found["kappa_percent_inside"] == "no"


def test_two_networks_give_no_interval_and_a_set_without_samples_does_not_count():
    found = spread_table1([run([4.0]), run([5.0]), run([np.nan])]).iloc[0]
    assert found["networks"] == 2
    assert np.isnan(found["kappa_percent_from"])
    assert found["kappa_percent_inside"] == ""


def test_a_further_network_lies_in_the_interval_as_often_as_it_says():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        *known, new = rng.normal(5, 1, 6)
        found = spread_table1([run([kappa]) for kappa in known]).iloc[0]
        inside += found["kappa_percent_from"] <= new <= found["kappa_percent_to"]
    assert 365 <= inside <= 395, "about 380 of 400"


def test_only_the_rule_published_is_looked_at():
    rows = [("published", 80.0, 60.0), ("wald", 99.0, 300.0)]
    table = pd.DataFrame(rows, columns=["rule", "accuracy_percent", "mutations"])
    table = table.assign(dataset="MNIST", samples="FGSM", mu=1.2)
    asked = table.assign(protocol=["own label", "own label"])
    other = table.head(1).assign(accuracy_percent=10.0, protocol="labels of other")
    found = spread_table2([table, table, pd.concat([asked, other])])
    assert len(found) == 1
    assert found.iloc[0]["accuracy_percent_mean"] == 80.0
    assert found.iloc[0]["published_mutations"] == 56


def dots(axes):
    """The points of our networks, as (kappa in percent, row)."""
    ours = [line for line in axes.lines if line.get_label().startswith("ours")]
    return sorted(tuple(point) for line in ours for point in line.get_xydata().tolist())


def test_the_figure_has_a_dot_for_each_network_and_the_published_interval():
    figure = spread_figure([pd.concat([run([k]), run([9 * k], "XY")]) for k in (4.0, 5.0)], "MNIST")
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "step size 1"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["FGSM", "XY"]
    assert dots(axes) == [(4, 0), (5, 0), (36, 1), (45, 1)]
    (interval,) = [line for line in axes.lines if line.get_label() == "published, 99% interval"]
    assert interval.get_xdata() == pytest.approx([4.86 - 0.61, 4.86 + 0.61])


def test_a_set_without_samples_and_a_kappa_of_zero_have_no_dot():
    figure = spread_figure([run([np.nan]), run([0.0]), run([3.0])], "MNIST")
    assert dots(figure.axes[0]) == [(3, 0)]
