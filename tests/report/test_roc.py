"""ROC figures against scikit-learn, and relabelling against a literal count."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from nmutant_cli.report.figures.roc import roc_figure
from nmutant_cli.report.figures.style import to_png
from nmutant_cli.report.relabelling import relabelling
from nmutant_cli.report.roc import called, roc_curve, roc_table, with_intervals

TITLES = {"normal": "normal", "fgsm": "FGSM"}
kappas = st.lists(st.integers(0, 12).map(lambda n: n / 12), min_size=1, max_size=60)


def table(normal, adversarial, seed=0, steps=(1.0,)):
    frame = pd.DataFrame(
        {
            "samples": ["normal"] * len(normal) + ["fgsm"] * len(adversarial),
            "step_size": 1.0,
            "kappa": [*normal, *adversarial],
        }
    )
    return roc_table(frame, TITLES, "MNIST", steps, seed)


@settings(max_examples=60, deadline=None)
@given(kappas, kappas)
def test_auc_and_rates_are_those_of_scikit_learn(normal, adversarial):
    row = table(normal, adversarial).iloc[0]
    truth = [0] * len(normal) + [1] * len(adversarial)
    scores = [*normal, *adversarial]
    assert row["auc_percent"] == pytest.approx(
        100 * metrics.roc_auc_score(truth, scores), abs=0.006
    )
    false, true, _ = metrics.roc_curve(truth, scores, drop_intermediate=False)
    ours = roc_curve(np.array(normal), np.array(adversarial))
    np.testing.assert_allclose(ours, (false, true))
    for limit in (1, 5):
        best = max(t for f, t in zip(false, true, strict=True) if f <= limit / 100 + 1e-12)
        assert row[f"tpr_at_{limit}_percent"] == pytest.approx(100 * best, abs=0.006)
        assert 0 <= row[f"tpr_at_{limit}_low"] <= row[f"tpr_at_{limit}_high"] <= 100
    assert 0 <= row["auc_low"] <= row["auc_high"] <= 100


@settings(max_examples=60, deadline=None)
@given(kappas, kappas, st.sampled_from([0.01, 0.05, 0.3]))
def test_ties_are_broken_so_that_exactly_the_rate_is_called(clean, adversarial, rate):
    clean, adversarial = np.array(clean), np.array(adversarial)
    assert called(clean, clean, rate).mean() == pytest.approx(rate)
    chances = called(adversarial, clean, rate)
    assert ((chances >= 0) & (chances <= 1)).all()
    assert (np.diff(chances[adversarial.argsort()]) >= 0).all()
    exact = with_intervals(clean, adversarial, np.random.default_rng(0), exact=True)
    for k, limit in enumerate((0.01, 0.05)):
        found = called(adversarial, clean, limit).mean()
        assert exact[3 + 3 * k] == pytest.approx(100 * found, abs=0.006)


def test_ties_broken_by_lot_come_to_the_same():
    rng = np.random.default_rng(3)
    clean, adversarial = (rng.binomial(3, p, 4000) / 3 for p in (0.05, 0.4))
    # Noise smaller than any difference decides between equal ones.
    lots = [scores + rng.uniform(0, 0.01, 4000) for scores in (clean, adversarial)]
    limit = np.quantile(lots[0], 0.95)
    expected = called(adversarial, clean, 0.05).mean()
    assert (lots[1] > limit).mean() == pytest.approx(expected, abs=0.02)
    assert abs((adversarial > 0.4).mean() - expected) > 0.05, "ties matter here"


def test_the_interval_covers_the_true_auc_as_often_as_it_says():
    # kappa_nor ~ U[0, 1], kappa_adv = max of two: the AUC is 2/3.
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        normal, adversarial = rng.random(80), rng.random((80, 2)).max(axis=1)
        row = table(normal.round(2), adversarial.round(2), seed).iloc[0]
        covered += row["auc_low"] <= 66.67 <= row["auc_high"]
    assert 180 <= covered <= 198, "about 190 of 200"


def test_a_set_without_samples_has_empty_values():
    row = table([0.1, 0.2], []).iloc[0]
    assert row["n"] == 0
    assert row.drop(["dataset", "step_size", "samples", "n"]).isna().all()


def test_a_sets_interval_does_not_depend_on_the_other_sets_and_steps():
    rng = np.random.default_rng(2)
    frame = pd.concat(
        pd.DataFrame({"samples": slug, "step_size": step, "kappa": rng.random(40).round(2)})
        for step in (1.0, 5.0)
        for slug in ("cw", "normal", "fgsm")
    )
    titles = {"normal": "normal", "cw": "C&W", "fgsm": "FGSM"}
    both = roc_table(frame, titles, "MNIST", [1.0, 5.0], 0).set_index(["samples", "step_size"])
    alone = roc_table(frame[frame["samples"] != "cw"], TITLES, "MNIST", [5.0], 0)
    pd.testing.assert_frame_equal(
        alone.set_index(["samples", "step_size"]), both.loc[[("FGSM", 5.0)]]
    )
    ends = ["auc_low", "auc_high"]
    same = frame.assign(samples=frame["samples"].replace("cw", "fgsm"))
    twice = pd.concat([same, same.assign(samples=same["samples"].replace("fgsm", "cw"))])
    drawn = roc_table(twice, titles, "MNIST", [1.0], 0)
    assert drawn.loc[0, "auc_percent"] == drawn.loc[1, "auc_percent"]
    assert (drawn.loc[0, ends] != drawn.loc[1, ends]).any(), "each set draws its own"


def test_the_same_seed_gives_the_same_intervals():
    values = np.random.default_rng(1).random((2, 50)).round(2)
    pd.testing.assert_frame_equal(table(*values, 3), table(*values, 3))
    assert not table(*values, 3).equals(table(*values, 4))


def test_relabelling_counts_what_it_says():
    rows = [
        # samples, true, label, majority
        ("normal", 3, 3, 3),
        ("normal", 3, 3, 5),
        ("normal", 4, 1, 4),
        ("fgsm", 2, 7, 2),
        ("fgsm", 2, 7, 7),
        ("fgsm", 2, 7, 1),
    ]
    frame = pd.DataFrame(rows, columns=["samples", "true", "label", "majority"])
    found = relabelling(frame.assign(step_size=5.0), TITLES, "MNIST", [5.0])
    assert found["samples"].tolist() == ["normal", "FGSM"]
    columns = ["n", "right_before", "right_after", "restored", "spoiled"]
    assert found[columns].to_numpy().tolist() == [[3, 2, 2, 1, 1], [3, 0, 1, 1, 0]]


def test_the_figure_has_a_panel_for_each_step_and_no_curve_without_samples():
    rng = np.random.default_rng(0)
    frame = pd.concat(
        pd.DataFrame({"samples": slug, "step_size": step, "kappa": rng.random(40) ** power})
        for step in (1.0, 5.0)
        for slug, power in (("normal", 4), ("fgsm", 1))
    )
    titles = TITLES | {"cw": "C&W"}
    figure = roc_figure(frame, titles, [1.0, 5.0], "MNIST")
    assert len(figure.axes) == 2
    names = [line.get_label() for line in figure.axes[0].get_lines()]
    assert names == ["FGSM", "chance"]
    assert to_png(figure) == to_png(roc_figure(frame, titles, [1.0, 5.0], "MNIST"))
