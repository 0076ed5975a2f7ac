"""The authors' own files: packed by a script, read as data, and what follows from them."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
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


# the script


@pytest.fixture
def clone(packed, tmp_path):
    """A clone of the public repository, as far as the script reads it."""
    import tensorflow as tf
    from PIL import Image

    root = tmp_path / "cleverhans"
    tutorials = root / "cleverhans_tutorials"
    folders = {"fgsm": "mnist_fgsm1/adv_fgsm1", "cw": "mnist_cw/adv_cw"}
    folders["jsma"] = "mnist_jsma/adv_jsma"
    for slug, name in folders.items():
        folder = tutorials / name
        folder.mkdir(parents=True)
        keys = [packed[f"{slug}_{key}"] for key in ("number", "true", "label")]
        names = [f"adv_{n}_{true}_{label}_.png" for n, true, label in zip(*keys, strict=True)]
        for file, pixels in zip(names, packed[f"{slug}_images"], strict=True):
            Image.fromarray(pixels).save(folder / file)
        where = tutorials / "mnist_tf" if slug == "fgsm" else folder.parent
        where.mkdir(exist_ok=True)
        infix = "_fgsm1" if slug == "fgsm" else ""
        write_counts(where / f"adv{infix}_result.csv", names, packed[f"{slug}_changes"])
        normal = packed[f"normal_{slug}_changes"]
        # Of C&W the normal images bear the names of the adversarial ones.
        names = names[: len(normal)] if slug == "cw" else range(len(normal))
        write_counts(where / f"ori{infix}_result.csv", names, normal)
    write_checkpoint(tutorials / "MNIST_trained_model_jsma", packed, tf)
    subprocess.run(["git", "init", "-q", root], check=True)
    (root / ".git" / "HEAD").write_text(f"{COMMIT}\n")
    return root


def write_counts(path, names, changes):
    """All names at one step after the other, in another order than that of the numbers."""
    rows = [
        f"{name},{step},{row[i]}\n"
        for i, step in enumerate((1, 5, 10))
        for name, row in reversed(list(zip(names, changes, strict=True)))
    ]
    path.write_text("".join(rows))


def write_checkpoint(prefix, packed, tf):
    names = ["Variable", *(f"Variable_{i}" for i in range(1, 8))]
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * 8,
        tensors=[tf.constant(packed[f"weights_{i}"]) for i in range(8)],
    )


def test_a_clone_is_repacked(packed, clone, script, tmp_path, capsys):
    out = tmp_path / "there" / AUTHORS
    script("authors").main([str(clone), "--out", str(out)])
    assert capsys.readouterr().out == f"{out}\n"
    with np.load(out) as made:
        assert set(made.files) == set(packed)
        for name, array in packed.items():
            np.testing.assert_array_equal(made[name], array, err_msg=name)
            assert made[name].dtype == array.dtype, name
    assert set(load_authors(out).sets) == {"fgsm", "cw", "jsma"}
    again = tmp_path / "again.npz"
    script("authors").main([str(clone), "--out", str(again)])
    assert again.read_bytes() == out.read_bytes()


def test_counts_may_lie_elsewhere(packed, clone, script, tmp_path):
    moved = tmp_path / "elsewhere.csv"
    (clone / "cleverhans_tutorials" / "mnist_tf" / "adv_fgsm1_result.csv").rename(moved)
    arguments = [str(clone), "--out", str(tmp_path / AUTHORS)]
    script("authors").main([*arguments, "--counts", f"fgsm={moved}"])
    made = load_authors(tmp_path / AUTHORS).sets["fgsm"].changes
    np.testing.assert_array_equal(made, packed["fgsm_changes"])


JSMA = "mnist_jsma/adv_jsma"
WEIGHTS = "MNIST_trained_model_jsma"


def another_commit(tutorials):
    (tutorials.parent / ".git" / "HEAD").write_text("ab" * 20)


def no_repository(tutorials):
    shutil.rmtree(tutorials.parent / ".git")


def no_folder(tutorials):
    shutil.rmtree(tutorials / JSMA)


def no_image(tutorials):
    for path in (tutorials / JSMA).iterdir():
        path.unlink()


def another_size(tutorials):
    save(tutorials / JSMA / "adv_0_0_0_.png", np.zeros((32, 32), np.uint8))


def colour(tutorials):
    save(tutorials / JSMA / "adv_0_0_0_.png", np.zeros((28, 28, 3), np.uint8))


def save(path, pixels):
    from PIL import Image

    Image.fromarray(pixels).save(path)


def damaged_image(tutorials):
    path = tutorials / JSMA / "adv_0_0_0_.png"
    path.write_bytes(path.read_bytes()[:200])


def another_name(tutorials):
    (tutorials / JSMA / "adv_0_0_0_.png").rename(tutorials / JSMA / "adv_0_0_.png")


def twice(tutorials):
    shutil.copy(tutorials / JSMA / "adv_0_0_0_.png", tutorials / JSMA / "adv_0_0_1_.png")


def one_image_less(tutorials):
    (tutorials / JSMA / "adv_3_1_0_.png").unlink()


def no_counts(tutorials):
    (tutorials / "mnist_tf" / "adv_fgsm1_result.csv").unlink()


def counts_twice(tutorials):
    (tutorials / "mnist_fgsm1" / "adv_fgsm1_result.csv").write_text("")


def other_columns(tutorials):
    (tutorials / "mnist_cw" / "ori_result.csv").write_text("0,1\n")


def too_many_changes(tutorials):
    (tutorials / "mnist_cw" / "ori_result.csv").write_text("0,1,1001\n")


def no_rows(tutorials):
    (tutorials / "mnist_cw" / "ori_result.csv").write_text("")


def a_step_less(tutorials):
    (tutorials / "mnist_cw" / "ori_result.csv").write_text("7,1,0\n7,5,0\n")


def no_checkpoint(tutorials):
    for path in tutorials.glob(f"{WEIGHTS}*"):
        path.unlink()


def damaged_index(tutorials):
    (tutorials / f"{WEIGHTS}.index").write_bytes(b"not an index")


def truncated_weights(tutorials):
    path = tutorials / f"{WEIGHTS}.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:1000])


def flipped_weights(tutorials):
    path = tutorials / f"{WEIGHTS}.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[5000] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "named", "said"),
    [
        (another_commit, "", f"is at commit {'ab' * 20}; run 'git -C"),
        (no_repository, "", "not a clone that git can read"),
        (no_folder, JSMA, "no such folder; check out the whole clone"),
        (no_image, JSMA, "holds no PNG"),
        (another_size, f"{JSMA}/adv_0_0_0_.png", "is L (32, 32), expected 8-bit grey (28, 28)"),
        (colour, f"{JSMA}/adv_0_0_0_.png", "is RGB (28, 28, 3), expected"),
        (damaged_image, f"{JSMA}/adv_0_0_0_.png", "not a readable image"),
        (another_name, f"{JSMA}/adv_0_0_.png", "is not called adv_NUMBER_TRUE_LABEL_.png"),
        (twice, f"{JSMA}/adv_0_0_1_.png", "has the number of adv_0_0_0_.png"),
        (one_image_less, "mnist_jsma/adv_result.csv", "image 3 is not both there and counted"),
        (no_counts, "*/adv_fgsm1_result.csv", "0 such files instead of one; name it with --counts"),
        (counts_twice, "*/adv_fgsm1_result.csv", "2 such files instead of one"),
        (other_columns, "mnist_cw/ori_result.csv", "cannot be read as NAME,STEP,CHANGES"),
        (too_many_changes, "mnist_cw/ori_result.csv", "0 has 1001 changes"),
        (no_rows, "mnist_cw/ori_result.csv", "is empty"),
        (a_step_less, "mnist_cw/ori_result.csv", "number 7 lacks a step of 1, 5, 10"),
        (no_checkpoint, WEIGHTS, "not a readable checkpoint"),
        (damaged_index, WEIGHTS, "not a readable checkpoint"),
        (truncated_weights, WEIGHTS, "not a readable checkpoint"),
        (flipped_weights, WEIGHTS, "not a readable checkpoint"),
    ],
)
def test_another_clone_is_one_line(spoil, named, said, clone, script, tmp_path, capsys):
    tutorials = clone / "cleverhans_tutorials"
    spoil(tutorials)
    with pytest.raises(SystemExit) as ended:
        script("authors").main([str(clone), "--out", str(tmp_path / AUTHORS)])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {tutorials / named if named else clone}: ")
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / AUTHORS).exists()


def test_a_network_of_another_shape_is_one_line(packed, clone, script, tmp_path, capsys):
    import tensorflow as tf

    prefix = clone / "cleverhans_tutorials" / WEIGHTS
    write_checkpoint(prefix, packed | {"weights_3": np.zeros(64, np.float32)}, tf)
    with pytest.raises(SystemExit):
        script("authors").main([str(clone), "--out", str(tmp_path / AUTHORS)])
    error = capsys.readouterr().err
    assert (
        error == f"Error: {prefix}: Variable_3 is float32 (64,), expected finite float32 (128,)\n"
    )


def test_an_option_of_another_form_is_one_line(clone, script, tmp_path, capsys):
    with pytest.raises(SystemExit):
        script("authors").main([str(clone), "--out", str(tmp_path / AUTHORS), "--normal", "bb=x"])
    assert "--normal bb=x: is not fgsm=CSV, cw=CSV or jsma=CSV" in capsys.readouterr().err


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
    for network in ("theirs, public", "run base"):  # which are the same here
        for value, column in zip(study.COUNTED, found.T, strict=True):
            row = cell(table, **where, network=network, value=value)
            assert row["found"] == pytest.approx(column.mean(), abs=0.006)
            ends = row["low"], row["high"]
            assert ends == pytest.approx((column.min(), column.max()), abs=0.006)


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
    images = table[
        (table["part"] == "table 2 from images") & (table["network"] == "theirs, public")
    ]
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
    ours = table[(table["part"] == "table 2 from images") & (table["network"] == "slice base")]
    assert set(ours.loc[ours["samples"] == "C&W", "verdict"]) == {"reproduced"}
    assert set(ours["samples"]) == {"C&W", "JSMA"}
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
