"""The committed results: their verdicts stand, and a frozen slice still gives the same counts."""

from __future__ import annotations

import pandas as pd
import pytest
from conftest import ROOT

from nmutant_cli.config.loading import load
from nmutant_cli.paper.checking import changed, check

FOLDERS = sorted(path for path in (ROOT / "results").iterdir() if path.is_dir())
RESULTS = sorted(path.parent for path in (ROOT / "results").glob("*/table1.csv"))
SLICES = sorted(path.parent for path in (ROOT / "results").glob("*/slice/counts.csv"))

ids = {"ids": lambda folder: folder.relative_to(ROOT / "results").as_posix()}


def test_there_are_committed_results():
    assert RESULTS
    assert SLICES


@pytest.mark.parametrize("folder", FOLDERS, **ids)
def test_every_file_is_the_one_that_was_kept(folder):
    assert changed(folder) == []


@pytest.mark.parametrize("folder", RESULTS, **ids)
def test_tables_1_and_2_stand_beside_the_papers_and_are_those_of_their_manifest(folder):
    assert check(folder) == []


def test_the_committed_verdicts_are_those_of_the_present_rules(script):
    renew = script("renew")
    tables = renew.with_verdicts()
    assert len(tables) >= 7
    stale = [path for path in tables if renew.renewed(path) != path.read_text(encoding="utf-8")]
    assert stale == [], "run `make renew`"


@pytest.mark.parametrize("batch_size", [1000, pytest.param(37, marks=pytest.mark.slow)])
@pytest.mark.parametrize("folder", SLICES, **ids)
def test_the_frozen_slice_gives_the_golden_counts(folder, batch_size, script):
    golden = script("keep_results")
    counts, verdicts = golden.measure(folder, load(folder.parent.name)[1], batch_size)
    expected = pd.read_csv(folder / "counts.csv")
    same = ["samples", "row", "step_size"]
    pd.testing.assert_frame_equal(counts[same], expected[same])
    # Another processor may round a logit differently: a label at the boundary may flip.
    flips = (counts["changes"] - expected["changes"]).abs()
    assert flips.max() <= 2
    assert flips.sum() <= 0.0005 * len(counts) * golden.MUTATIONS
    assert (counts["majority"] != expected["majority"]).sum() <= 1
    decided = pd.read_csv(folder / "verdicts.csv")
    pd.testing.assert_frame_equal(
        verdicts[["samples", "row", "rule"]], decided[["samples", "row", "rule"]]
    )
    other = (verdicts[["verdict", "n", "c"]] != decided[["verdict", "n", "c"]]).any(axis=1)
    assert other.sum() <= 0.02 * len(decided)
