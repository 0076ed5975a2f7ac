"""What a detector learns from, where its thresholds lie and what it is judged by are three things.

A detector that remembers everything it is given is put in the place of one of ours; the table is
counted again, literally, from its scores.
"""

from __future__ import annotations

import shutil
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from conftest import nmutant, options

from nmutant_cli.datasets import load_dataset
from nmutant_cli.detectors import DETECTORS, Candidate
from nmutant_cli.pipeline.compare import read_table
from nmutant_cli.pipeline.samples import SampleSet, from_8_bits

SETS = {"FGSM": "fgsm", "C&W": "cw", "JSMA": "jsma", "BB": "bb", "WL": "wl"}
KNOWN = "cw"


class Witness(Candidate):
    """Scores an image by a hash of what it shows, and keeps what it was given."""

    title, needs, supervised, passes = "Witness", "scores", True, 1.0
    given: ClassVar[dict[str, np.ndarray]] = {}

    def fit(self, clean, known):
        self.given.update(clean=clean, known=known)

    def score(self, images):
        self.given["scored"] = images
        return np.array([hash_of(image) % 40 for image in images], float)


def hash_of(image):
    return int(np.rint(255 * image.astype(np.float64)).sum())


def in_first_half(index):
    """Knuth's multiplicative hash, in Python's own integers."""
    return int(index) * 2654435761 % 2**32 < 2**31


def shown(images):
    return {image.tobytes() for image in images}


@pytest.fixture(scope="module")
def compared(finished, tmp_path_factory):
    """The samples of a run, what the witness saw of them, its scores, and the table of them."""
    folder = tmp_path_factory.mktemp("halves") / "run"
    shutil.copytree(finished, folder)
    changes = ("compare.clean=301", "compare.detectors=[softmax]", f"compare.known={KNOWN}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DETECTORS, "softmax", Witness)
        outcome = nmutant("compare", *options(folder, *changes))
    assert outcome.code == 0, outcome.stderr
    samples = {}
    for slug in ("normal", *SETS.values()):
        where = "samples" if slug in ("normal", "wl") else "adversarial"
        samples[slug] = SampleSet.load(folder / where / f"{slug}.npz").counted()
    scores = pd.read_csv(folder / "compare" / "softmax-base.csv")
    return samples, dict(Witness.given), scores, read_table(folder / "comparison.csv")


def test_it_learns_from_one_half_of_the_known_set_alone(compared):
    samples, given, _, _ = compared
    half = [in_first_half(index) for index in samples[KNOWN].index]
    assert 0 < sum(half) < len(half)
    assert shown(given["known"]) == shown(from_8_bits(samples[KNOWN].image8[half]))


def test_thresholds_come_from_clean_images_that_it_did_not_learn_from(compared):
    _, given, scores, _ = compared
    thresholds = given["scored"][(scores["samples"] == "clean").to_numpy()]
    assert (len(given["clean"]), len(thresholds)) == (151, 150)
    assert not shown(given["clean"]) & shown(thresholds)


def test_clean_images_are_in_no_sample_set(compared):
    samples, given, scores, _ = compared
    x_test = load_dataset("digits").x_test
    thresholds = given["scored"][(scores["samples"] == "clean").to_numpy()]
    clean = shown(given["clean"]) | shown(thresholds)
    assert clean <= shown(x_test)
    for slug, of_set in samples.items():
        if slug != "wl":  # of the training images
            assert not clean & shown(x_test[of_set.index]), slug


def test_every_figure_is_of_its_own_half(compared):
    _, _, scores, table = compared
    of = dict(list(scores.groupby("samples")))
    clean = sorted(of["clean"]["score"])
    checked = 0
    for row in table.itertuples():
        first = row.half == "choose"
        assert first or row.half == "report"
        values = judged(of[SETS[row.samples]], first)
        normal = judged(of["normal"], first)
        assert row.n == len(values)
        if not values or not normal:
            continue
        above = [(v > w) + (v == w) / 2 for v in values for w in normal]
        assert row.auc_percent == pytest.approx(100 * np.mean(above), abs=0.006)
        for rate in (1, 5):
            found, alarms = (100 * mean_called(s, clean, rate / 100) for s in (values, normal))
            assert getattr(row, f"tpr_at_{rate}_percent") == pytest.approx(found, abs=0.006)
            assert getattr(row, f"alarms_at_{rate}_percent") == pytest.approx(alarms, abs=0.006)
            assert mean_called(clean, clean, rate / 100) == pytest.approx(rate / 100)
        checked += 1
    assert checked > 4


def mean_called(scores, clean, rate):
    """Scores above the threshold, and of those on it the share that makes the rate of ``clean``."""
    limit = min(t for t in clean if sum(c > t for c in clean) <= rate * len(clean))
    missing = rate * len(clean) - sum(c > limit for c in clean)
    share = missing / sum(c == limit for c in clean)
    return sum(1 if s > limit else share if s == limit else 0 for s in scores) / len(scores)


def judged(of_set, first):
    return [s for s, i in zip(of_set["score"], of_set["source_index"], strict=True)
            if in_first_half(i) == first]  # fmt: skip
