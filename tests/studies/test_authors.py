"""The authors' own files: packed by a script, read as data, and what follows from them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, nmutant

from nmutant_cli.config.loading import load
from nmutant_cli.datasets import AUTHORS, AUTHORS_WEIGHTS, authors_file, load_authors
from nmutant_cli.detection.sprt import SequentialTest, run
from nmutant_cli.mutation.operator import apply
from nmutant_cli.mutation.sensitivity import streams
from nmutant_cli.networks.inference import predict_labels
from nmutant_cli.paper import published
from nmutant_cli.studies import authors as study
from nmutant_cli.types import Verdict

KEPT = ROOT / "results" / "mnist" / "authors.csv"
COMMIT = "c665d5691a2a91f718d892e260eecb334fbc556a"
SIZE = 8


@pytest.fixture(scope="module")
def packed():
    """What the authors' file holds, with eight images of each attack and a random network."""
    rng = np.random.default_rng(5)
    arrays = {}
    for slug in ("fgsm", "cw", "jsma"):
        arrays[f"{slug}_images"] = rng.integers(0, 256, (SIZE, 28, 28), dtype=np.uint8)
        arrays[f"{slug}_number"] = np.arange(SIZE, dtype=np.int32) * 3
        arrays[f"{slug}_true"] = np.arange(SIZE, dtype=np.int8)
        # The first is not adversarial.
        arrays[f"{slug}_label"] = np.r_[0, np.arange(SIZE - 1)].astype(np.int8)
        arrays[f"{slug}_changes"] = rng.integers(0, 200, (SIZE, 3), dtype=np.int32)
        arrays[f"normal_{slug}_changes"] = rng.integers(0, 5, (6, 3), dtype=np.int32)
    for i, shape in enumerate(AUTHORS_WEIGHTS):
        scale = 1 / np.sqrt(np.prod(shape[:-1], initial=1))
        arrays[f"weights_{i}"] = (scale * rng.standard_normal(shape)).astype(np.float32)
    return arrays


@pytest.fixture
def data(packed, arrays, data_dir):
    """A data folder with that file and a small MNIST."""
    np.savez(data_dir / AUTHORS, **packed)
    np.savez(data_dir / "mnist.npz", **arrays)
    return data_dir


# the data set


def test_what_is_read_is_what_was_packed(packed, data):
    read = load_authors(authors_file())
    for slug, theirs in read.sets.items():
        assert theirs.images.shape == (SIZE, 28, 28, 1)
        assert theirs.images.dtype == np.float32
        np.testing.assert_array_equal(
            np.rint(theirs.images[..., 0] * 255), packed[f"{slug}_images"]
        )
        np.testing.assert_array_equal(theirs.true, packed[f"{slug}_true"])
        np.testing.assert_array_equal(theirs.label, packed[f"{slug}_label"])
        np.testing.assert_array_equal(theirs.changes, packed[f"{slug}_changes"])
        np.testing.assert_array_equal(theirs.normal, packed[f"normal_{slug}_changes"])
        assert theirs.adversarial.tolist() == [False] + [True] * (SIZE - 1)
    for i, weights in enumerate(read.weights):
        np.testing.assert_array_equal(weights, packed[f"weights_{i}"])


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("fgsm_images", np.zeros((SIZE, 32, 32), np.uint8), "fgsm_images is uint8 (8, 32, 32)"),
        ("fgsm_images", np.zeros((SIZE, 28, 28), np.float32), "fgsm_images is float32"),
        ("fgsm_images", np.uint8(3), "fgsm_images is uint8 ()"),
        ("cw_true", np.full(SIZE, 10), "cw_true is int64 (8,), expected (8,), not empty, and"),
        ("cw_label", np.zeros(SIZE + 1, int), "cw_label is int64 (9,)"),
        ("jsma_changes", np.full((SIZE, 3), 1001), "whole numbers from 0 to 1000"),
        ("jsma_changes", np.full((SIZE, 3), -1), "whole numbers from 0 to 1000"),
        ("normal_jsma_changes", np.zeros((0, 3), int), "normal_jsma_changes is int64 (0, 3)"),
        ("weights_3", np.zeros(64, np.float32), "weights_3 is float32 (64,), expected finite"),
        ("weights_1", np.full(64, np.nan, np.float32), "weights_1 is float32 (64,)"),
    ],
)
def test_an_array_of_another_kind_is_named(name, array, said, packed, data):
    np.savez(data / AUTHORS, **packed | {name: array})
    error = nmutant("study", "authors").error
    assert error.startswith(f"{data / AUTHORS}: ")
    assert said in error


def test_a_pickle_is_never_loaded(packed, data):
    class Boom:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    np.savez(data / AUTHORS, **packed | {"cw_true": np.array([Boom()], object)})
    assert "pickled objects, which are never loaded" in nmutant("study", "authors").error
    (data / AUTHORS).write_bytes(pickle.dumps(Boom()))
    assert "damaged or not an .npz file" in nmutant("study", "authors").error
    (data / AUTHORS).write_bytes((data / "mnist.npz").read_bytes())
    assert "lacks the array 'fgsm_images'" in nmutant("study", "authors").error


def test_without_the_file_the_study_says_how_to_get_it(data_dir, monkeypatch):
    error = nmutant("study", "authors").error
    assert error.startswith(f"{data_dir / AUTHORS}: no such file; clone wang-jingyi/cleverhans")
    assert "scripts/authors.py CLONE --out" in error
    monkeypatch.delenv("NMUTANT_DATA_DIR")
    error = nmutant("study", "authors").error
    assert error.startswith(f"{AUTHORS}: NMUTANT_DATA_DIR is not set; clone")


# the study


@pytest.fixture(scope="module")
def table(packed, tmp_path_factory):
    """authors.csv of the small files, with a run whose networks are theirs."""
    folder = tmp_path_factory.mktemp("authors")
    np.savez(folder / AUTHORS, **packed)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (20, 28, 28), dtype=np.uint8), np.arange(20, dtype=np.uint8) % 10
    np.savez(folder / "mnist.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    model = rebuilt(packed)
    for name in ("model.keras", "model-smoothed.keras"):
        (folder / "run").mkdir(exist_ok=True)
        model.save(folder / "run" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NMUTANT_DATA_DIR", str(folder))
        outcome = nmutant(
            *("study", "authors", folder / "run", "--seeds", "3", "--mutations", "40"),
            *("--out", folder / "out"),
        )
    assert outcome.code == 0, outcome
    return pd.read_csv(folder / "out" / "authors.csv")


def rebuilt(packed):
    from nmutant_cli.networks.architectures import NETWORKS

    model = NETWORKS["mnist"]((28, 28, 1), 10, None)
    model.set_weights([packed[f"weights_{i}"] for i in range(8)])
    return model


def images(packed, slug):
    """The adversarial images of an attack, and the labels that were recorded."""
    return packed[f"{slug}_images"][1:, :, :, None] / np.float32(255), packed[f"{slug}_label"][1:]


def cell(table, **key):
    """The one row in which these columns have these values."""
    (row,) = table[(table[list(key)] == list(key.values())).all(axis=1)].to_dict("records")
    return row


def test_table1_is_the_mean_of_the_counts(packed, table):
    part = table[table["part"] == "table 1 from counts"]
    assert len(part) == 2 * 4 * 3
    row = cell(part, samples="FGSM", step_size=5, value="kappa_percent")
    adversarial = packed["fgsm_changes"][1:, 1] / 10
    assert row["found"] == pytest.approx(adversarial.mean(), abs=0.005)
    assert row["low"] < row["found"] < row["high"]
    assert row["published"] == 14.82
    row = cell(part, samples="C&W", step_size=10, value="ci99_percent")
    half = 2.576 * packed["cw_changes"][1:, 2].std() / 10 / np.sqrt(SIZE - 1)
    assert row["found"] == pytest.approx(half, abs=0.006)
    row = cell(part, samples="normal", step_size=1, value="kappa_percent")
    assert row["found"] == pytest.approx(packed["normal_jsma_changes"][:, 0].mean() / 10, abs=0.005)
    assert row["network"] == "attacked by JSMA"


def published_test(mu):
    return SequentialTest("published", 0.0017, (2 * mu - 1) * 0.0017)


@pytest.mark.parametrize(("samples", "key"), [("JSMA", "jsma_changes"), ("normal", "normal_cw")])
def test_table2_from_counts_is_what_many_runs_give(packed, table, samples, key):
    normal = samples == "normal"
    counts = packed["normal_cw_changes"] if normal else packed[key][1:]
    kappas = counts[:, 0] / 1000
    rng = np.random.default_rng(1)
    test, runs = published_test(1.5), 300
    ended = [run(test, rng.random(1000) < kappa) for kappa in kappas.repeat(runs)]
    said = np.array([o.verdict == Verdict.ADVERSARIAL for o in ended])
    right = np.array([o.verdict == Verdict.NORMAL for o in ended]) if normal else said
    network = f"attacked by {'C&W' if normal else samples}"
    where = {"part": "table 2 from counts", "samples": samples, "network": network, "mu": 1.5}
    rows = {v: cell(table, **where, value=v) for v in study.COUNTED}
    assert rows["identified"]["found"] == pytest.approx(said.sum() / runs, abs=0.25)
    each = said.reshape(-1, runs).sum(axis=0)
    inside = (each >= rows["identified"]["low"]) & (each <= rows["identified"]["high"])
    assert inside.mean() >= 0.98
    n, c = (np.array([getattr(o, name) for o in ended])[right].mean() for name in "nc")
    assert rows["mutations"]["found"] == pytest.approx(n, rel=0.1)
    assert rows["label_changes"]["found"] == pytest.approx(c, rel=0.1, abs=0.02)


def test_decisions_are_those_of_the_literal_loop(packed, table):
    """Every image, mutation after mutation, its label compared with the recorded one."""
    model, mutation, seed = rebuilt(packed), load("mnist")[1].mutation, load("mnist")[1].seed
    x, labels = images(packed, "jsma")
    test, found = published_test(1.2), []
    for i in range(3):
        ended = []
        sources = streams(x, mutation, seed, f"authors/{i}")
        for image, label, source in zip(x, labels, sources, strict=True):
            mutated = apply(image[None].repeat(70, axis=0), source.take(0, 70), 1.0)
            ended.append(run(test, predict_labels(model, mutated) != label))
        assert all(o.verdict != Verdict.UNDECIDED for o in ended), "70 mutations are enough"
        adversarial = [o for o in ended if o.verdict == Verdict.ADVERSARIAL]
        found.append(
            [len(adversarial), *(np.mean([getattr(o, a) for o in adversarial]) for a in "nc")]
        )
    found = np.array(found)
    where = {"part": "table 2 from images", "samples": "JSMA", "mu": 1.2}
    for value, column in zip(study.COUNTED, found.T, strict=True):
        row = cell(table, **where, value=value)
        assert row["found"] == pytest.approx(column.mean(), abs=0.006)
        assert (row["low"], row["high"]) == pytest.approx((column.min(), column.max()), abs=0.006)


def test_labels_and_kappas_under_our_networks(packed, table):
    model, mutation, seed = rebuilt(packed), load("mnist")[1].mutation, load("mnist")[1].seed
    x, labels = images(packed, "cw")
    own = predict_labels(model, x)
    for network in ("theirs, public", "run base"):
        row = cell(table, network=network, samples="C&W", value="recorded_label_percent")
        assert row["found"] == pytest.approx(100 * (own == labels).mean(), abs=0.005)
    given = np.array(
        [
            predict_labels(model, apply(image[None].repeat(40, axis=0), source.take(0, 40), 5.0))
            for image, source in zip(x, streams(x, mutation, seed, "authors"), strict=True)
        ]
    )
    where = {"network": "run base", "samples": "C&W", "step_size": 5}
    for value, compared in (("own", own), ("recorded", labels)):
        row = cell(table, **where, value=f"{value}_label_kappa_percent")
        kappa = 100 * (given != compared[:, None]).mean()
        assert row["found"] == pytest.approx(kappa, abs=0.006)
        assert row["published"] == 20.6
    assert set(table.loc[table["samples"] == "FGSM", "network"]) >= {"run smoothed"}
    accuracy = cell(table, value="accuracy_percent")
    assert accuracy["network"] == "theirs, public"
    assert 0 <= accuracy["found"] <= 100


@pytest.mark.parametrize(
    ("found", "said", "near", "expected"),
    [
        (10.5, 10, 0.5, "reproduced"),
        (10.6, 10, 0.5, "same conclusion"),
        (20, 10, 0.5, "same conclusion"),
        (20.1, 10, 0.5, "differs"),
        (5, 10, 0.5, "same conclusion"),
        (4.9, 10, 0.5, "differs"),
        (0.1, 0, 0.2, "reproduced"),
        (0.3, 0, 0.2, "differs"),
        (np.nan, 10, 0.5, "differs"),
        (10, np.nan, np.nan, ""),
    ],
)
def test_a_verdict_is_on_one_value(found, said, near, expected):
    assert study.verdict(found, said, near) == expected


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "0"], "--seeds 0: must be at least 1"),
        (["--mutations", "0"], "--mutations 0: must be at least 1"),
        (["nowhere"], "nowhere: no such run folder"),
    ],
)
def test_a_mistake_is_one_line(arguments, said, data):
    assert said in nmutant("study", "authors", *arguments).error


# the committed table


def test_the_committed_table_says_what_is_claimed():
    table = pd.read_csv(KEPT)
    first = table[(table["part"] == "table 1 from counts") & (table["value"] == "kappa_percent")]
    assert len(first) == 12
    assert set(first["verdict"]) == {"reproduced"}
    counts = table[table["part"] == "table 2 from counts"]
    images = table[table["part"] == "table 2 from images"]
    for mu in (1.2, 1.5, 1.8, 2.0):
        for value in ("identified", "mutations"):
            fgsm = cell(counts, samples="FGSM", mu=mu, value=value)
            found = np.floor(fgsm["found"]) if value == "mutations" else fgsm["found"]
            assert found == pytest.approx(fgsm["published"], rel=0.05)
        normal = {"samples": "normal", "network": "attacked by FGSM", "mu": mu}
        row = cell(counts, **normal, value="identified")
        assert row["found"] == pytest.approx(row["published"], abs=4)
        row = cell(images, samples="JSMA", mu=mu, value="identified")
        assert row["found"] == pytest.approx(row["published"], rel=0.02)
        assert row["low"] < row["found"] < row["high"], "several seeds"
        row = cell(images, samples="JSMA", mu=mu, value="label_changes")
        assert row["found"] == pytest.approx(row["published"], abs=0.2)
    assert cell(table, value="accuracy_percent")["found"] == 98.71
    both = table[table["part"] == "kappa"].groupby("samples")["value"].nunique()
    assert both.to_dict() == {"C&W": 2, "FGSM": 2, "JSMA": 2}


def test_the_committed_table_has_the_published_values():
    table = pd.read_csv(KEPT)
    second = published.table2().query("dataset == 'MNIST'")
    for _, row in table[table["part"].str.startswith("table 2")].iterrows():
        printed = cell(second, samples=row["samples"], mu=row["mu"])
        assert row["published"] == printed[row["value"]]


FOLDER = Path(os.environ.get("NMUTANT_DATA_DIR", "nowhere"))


@pytest.mark.skipif(not (FOLDER / AUTHORS).is_file(), reason="the authors' file is not here")
def test_the_committed_table_follows_from_the_file():
    theirs = load_authors(FOLDER / AUTHORS)
    kept = pd.read_csv(KEPT)
    rows = pd.DataFrame([*study.table1_rows(theirs), *study.table2_rows(theirs)])
    kept = kept[kept["part"].str.endswith("from counts")].reset_index(drop=True)
    assert len(rows) == len(kept)
    for column in ("found", "low", "high"):
        np.testing.assert_allclose(rows[column], kept[column], atol=0.006)
    assert rows["verdict"].tolist() == kept["verdict"].tolist()
