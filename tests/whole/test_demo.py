"""What the demo is to show, for more than one seed: every set is more sensitive than normal images.

By `nmutant run --config digits`, but for the step size that is looked at.
"""

from __future__ import annotations

import pytest
from conftest import nmutant

from nmutant_cli.config.loading import load
from nmutant_cli.files import read_records
from nmutant_cli.report.roc import roc_table
from nmutant_cli.report.tables import table1

SETS = {"normal": "normal", "fgsm": "FGSM", "cw": "C&W", "jsma": "JSMA", "bb": "BB", "wl": "WL"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [None, 1, 7], ids=["default", "1", "7"])
def test_every_set_lies_above_normal_images(seed, tmp_path):
    step = load("digits")[1].detection.step_size
    assert step == 10
    other = [] if seed is None else ["--seed", str(seed)]
    outcome = nmutant(
        *("measure-kappa", "-q", "--config", "digits", "--run-dir", tmp_path / "run"),
        *("--set", f"sensitivity.step_sizes=[{step:g}]", *other),
    )
    assert outcome.code == 0, outcome.stderr
    kappa = read_records(tmp_path / "run" / "kappa.csv")
    table = table1(kappa, SETS, "digits", [step], 0.99).set_index("samples")
    normal = table.loc["normal"]
    for name in list(SETS.values())[1:]:
        row = table.loc[name]
        assert row["n"] >= 20, name
        lowest = row["kappa_percent"] - row["ci99_percent"]
        assert lowest > normal["kappa_percent"] + normal["ci99_percent"], (name, row, normal)
    areas = roc_table(kappa, SETS, "digits", [step], seed or 20180514)
    assert (areas["auc_low"] > 50).all(), areas
