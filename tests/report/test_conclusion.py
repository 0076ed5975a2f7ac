"""What a run found, in words: the numbers of its tables, and no more than they say."""

import pandas as pd
import pytest

from nmutant_cli.report.conclusion import conclusion, short

SETS = ["normal", "FGSM", "C&W", "WL"]


def tables(auc, n=(50, 50, 50, 50)):
    first = pd.DataFrame(
        {"step_size": 10.0, "samples": SETS, "n": n, "kappa_percent": [2.31, 5.83, 22.6, 8.9]}
    )
    second = pd.DataFrame(
        {
            "samples": [*SETS, *SETS],
            "rule": "wald",
            "mu": [1.2] * 4 + [2.0] * 4,
            "n": n * 2,
            "identified": [2, 13, 50, 36, 0, 0, 0, 0],
            "undecided": [5, 0, 0, 0, 50, 50, 50, 50],
        }
    )
    rows = [(10.0, name, 50, *three) for name, three in zip(SETS[1:], auc, strict=True)]
    columns = ["step_size", "samples", "n", "auc_percent", "auc_low", "auc_high"]
    other = first.assign(step_size=1.0, kappa_percent=77.0)
    return pd.concat([other, first]), second, pd.DataFrame(rows, columns=columns)


def test_three_sentences_by_hand():
    found = conclusion(*tables([(75, 68, 82), (99.1, 98, 99.9), (91, 85, 95)]), 10)
    assert found == [
        "At step size 10, 2.3% of random mutations change the label of a normal image, and 5.8% "
        "(FGSM) to 23% (C&W) that of an adversarial one, or of one that the network labels wrongly "
        "anyway (WL).",
        "Every set is more sensitive than normal images: by the share of label changes, κ, the AUC "
        "is 75% (FGSM) to 99.1% (C&W); 50% is guessing, 100% perfect.",
        "The sequential test (wald, μ = 1.2) calls 26% (FGSM) to 100% (C&W) of a set adversarial, "
        "and 4.0% of the normal images by mistake; it leaves 10% of these undecided.",
    ]


def test_rows_asked_as_published_are_not_taken_for_the_run_s_own():
    first, second, roc = tables([(75, 68, 82)] * 3)
    asked = second.assign(identified=0, undecided=0)
    both = pd.concat([second, asked])
    assert conclusion(first, both, roc, 10) == conclusion(first, second, roc, 10)


@pytest.mark.parametrize(
    ("auc", "said"),
    [
        ([(40, 35, 45), (99, 98, 100), (51, 45, 57)], "C&W is more sensitive than normal images; "
         "FGSM is less sensitive; WL is not clearly more or less sensitive: by"),
        ([(40, 35, 45), (41, 35, 45), (45, 40, 49)], "FGSM, C&W and WL are less sensitive: by"),
    ],
)  # fmt: skip
def test_a_set_that_is_not_more_sensitive_is_named(auc, said):
    assert conclusion(*tables(auc), 10)[1].startswith(said)


@pytest.mark.parametrize("n", [(0, 50, 50, 50), (50, 0, 0, 0)])
def test_nothing_is_concluded_without_samples(n):
    (said,) = conclusion(*tables([(75, 68, 82)] * 3, n), 10)
    assert said.startswith("Nothing to compare")


def test_percentages_are_short_and_100_is_all():
    shown = {
        0: "0", 0.001: "0.01", 0.127: "0.13", 0.996: "1.0", 5.83: "5.8", 9.96: "10", 54.4: "54",
        99.64: "99.6", 99.99: "99.9", 100: "100", float("nan"): "",
    }  # fmt: skip
    assert [short(value) for value in shown] == list(shown.values())
