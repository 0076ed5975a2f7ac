"""The stages under mutation against plain loops that read nothing but the files of a run."""

from __future__ import annotations

import csv
import json
import math
import shutil

import numpy as np
import pytest
import tensorflow as tf
from conftest import nmutant
from literal import Run, half_width, interval, mean, network_of, set_names
from two_runs import CONFIGS, Runs

from nmutant_cli.config.loading import load
from nmutant_cli.datasets import load_dataset
from nmutant_cli.seeding import stream

TITLES = {"normal": "normal", "fgsm": "FGSM", "cw": "C&W", "jsma": "JSMA", "bb": "BB", "wl": "WL"}
ATTACKS = {"as published": ("fgsm", "cw", "jsma", "bb"), "the other way": ("fgsm", "strong")}
UNATTACKED = [(how, name) for how in CONFIGS for name in ("normal", "wl")]
ATTACKED = [(how, name) for how, names in ATTACKS.items() for name in names]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    return Runs(tmp_path_factory.mktemp("wiring"))


@pytest.fixture(scope="module")
def data():
    return load_dataset("digits")


def records(run: Run, name: str) -> list[dict[str, str]]:
    with (run.folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def same(rows, expected) -> None:
    """Every row has the values of ``expected``, in the order of its columns."""
    assert rows
    assert len(rows) == len(expected)
    for row, values in zip(rows, expected, strict=True):
        for (column, cell), value in zip(row.items(), values, strict=True):
            if isinstance(value, str):
                assert cell == value, (column, row)
            else:
                assert math.isclose(float(cell), value), (column, row, value)


def kappa1_of(run: Run) -> float:
    found = run.settings.detection.kappa1
    return run.measured_kappa1() if found == "measured" else found


@pytest.mark.parametrize(("how", "name"), UNATTACKED + ATTACKED)
def test_a_plain_loop_gives_kappa_csv(runs, how, name):
    rows = [row for row in records(runs[how], "kappa.csv") if row["samples"] == name]
    same(rows, runs[how].kappa_rows(name))


@pytest.mark.parametrize(("how", "name"), UNATTACKED + ATTACKED)
def test_a_plain_loop_gives_detections_csv(runs, how, name):
    rows = [row for row in records(runs[how], "detections.csv") if row["samples"] == name]
    same(rows, runs[how].detection_rows(name, kappa1_of(runs[how])))


@pytest.mark.parametrize("name", ["normal", "fgsm", "cw", "wl"])
def test_a_plain_loop_gives_detections_as_published_csv(runs, name):
    run = runs.reported()
    rows = [r for r in records(run, "detections-as-published.csv") if r["samples"] == name]
    expected = run.detection_rows(name, kappa1_of(run), published=True)
    same(rows, expected)
    own = run.detection_rows(name, kappa1_of(run))
    assert expected != [row for row in own if row[3] == "published"]


def test_the_sets_are_in_the_order_of_the_columns(runs):
    for how in CONFIGS:
        for file in ("kappa.csv", "detections.csv"):
            found = dict.fromkeys(row["samples"] for row in records(runs[how], file))
            assert list(found) == set_names(runs[how].settings)


@pytest.mark.parametrize(("how", "name"), ATTACKED)
def test_who_counts(runs, data, how, name):
    run = runs[how]
    network = network_of(run.settings, name)
    with np.load(run.folder / "adversarial" / f"{name}.npz") as arrays:
        a = {key: arrays[key] for key in arrays.files}
    assert len(a["index"]) == run.settings.attack.attempts
    assert a["true"].tolist() == data.y_test[a["index"]].tolist()
    # Whoever labels one image of a network with dropout for a sample set has it off.
    logits = np.asarray(run.model(network)(a["image"], training=False))
    assert a["label"].tolist() == logits.argmax(axis=1).tolist()
    assert a["image8"].tolist() == np.trunc(a["image"] * np.float32(255)).tolist()
    counts = a["label"] != a["true"]
    if not run.settings.attack.count_already_wrong:
        before = np.asarray(run.model(network)(data.x_test[a["index"]], training=False))
        counts &= before.argmax(axis=1) == a["true"]
    assert a["counts"].tolist() == counts.tolist()
    assert counts.any()


def test_the_images_tell_the_switches_apart(runs):
    cw = runs["as published"].samples("cw")
    assert (cw["label8"] != cw["label"]).any()
    assert (np.rint(cw["image"] * np.float32(255)) != cw["image8"]).any()


def test_the_attempts_are_those_of_the_paper(runs, data):
    run, true = runs["as published"], data.y_test.tolist()

    def pairs(name):
        with np.load(run.folder / "adversarial" / f"{name}.npz") as arrays:
            return list(zip(arrays["index"].tolist(), arrays["target"].tolist(), strict=True))

    assert pairs("fgsm") == [(i, -1) for i in range(20)]
    assert pairs("bb") == [(i, -1) for i in range(30, 50)]
    assert pairs("cw") == [(true.index(k), target) for k in (0, 1) for target in range(10)]
    others = [(i, target) for i in range(3) for target in range(10) if target != true[i]]
    assert pairs("jsma") == others[:20]


@pytest.mark.parametrize("how", CONFIGS)
def test_normal_and_wl_samples(runs, data, how):
    run = runs[how]
    s = run.settings

    def labels(x):
        return np.asarray(run.model("base").predict(x, batch_size=100, verbose=0)).argmax(axis=1)

    pool = np.arange(len(data.x_test))
    if s.samples.normal_correct_only:
        pool = np.flatnonzero(labels(data.x_test) == data.y_test)
    normal, wl = run.samples("normal"), run.samples("wl")
    chosen = stream(s.seed, "digits", "normal").choice(pool, s.samples.normal, replace=False)
    assert normal["index"].tolist() == chosen.tolist()
    assert (normal["image"] == data.x_test[chosen]).all()
    assert normal["true"].tolist() == data.y_test[chosen].tolist()
    wrong = np.flatnonzero(labels(data.x_train) != data.y_train)
    chosen = stream(s.seed, "digits", "wl").permutation(wrong)[: s.samples.wl]
    assert wl["index"].tolist() == sorted(chosen.tolist())
    assert (wl["image"] == data.x_train[wl["index"]]).all()
    assert (wl["true"] != wl["label"]).all()


@pytest.mark.parametrize(("how", "name"), [("as published", "fgsm"), ("the other way", "strong")])
def test_fgsm_attacks_its_own_network_by_its_eps(runs, data, how, name):
    run = runs[how]
    with np.load(run.folder / "adversarial" / f"{name}.npz") as arrays:
        x, image = data.x_test[arrays["index"]], arrays["image"]
    model = run.model(network_of(run.settings, name))
    with tf.GradientTape() as tape:
        watched = tf.Variable(x)
        logits = model(watched, training=False)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.argmax(logits, axis=1), logits)
    sign = np.sign(tape.gradient(loss, watched).numpy())
    expected = np.clip(x + np.float32(run.settings.attack.sets[name].eps) * sign, 0, 1)
    # Where a gradient is next to nothing its sign may hang on the last bit.
    assert (np.abs(image - expected) > 1e-6).mean() < 1e-3


def test_each_network_is_trained_on_its_own_targets(runs, data):
    assert runs["as published"].settings.variants["smoothed"] == {"label_range": [0.01, 0.9]}
    targets = [y for x, y in runs.trained["as published"] if len(x) == len(data.x_train)]
    found = {tuple(map(str, np.unique(y))) for y in targets}
    assert found == {("0.0", "1.0"), ("0.01", "0.9")}
    for y in targets:
        assert np.bincount(y.argmax(axis=1)).tolist() == np.bincount(data.y_train).tolist()


def test_each_epoch_has_an_order_of_its_own(runs, data):
    s = runs["as published"].settings
    rng = stream(s.seed, "digits", "train", "base", "order")
    for x, y in runs.trained["as published"][: s.model.epochs]:
        order = rng.permutation(len(data.x_train))
        assert (x == data.x_train[order]).all()
        assert (y.argmax(axis=1) == data.y_train[order]).all()


def test_the_accuracy_with_dropout_on_is_each_images_own_pass(runs, data):
    run = runs["the other way"]
    counts = json.loads((run.folder / "manifest.json").read_text())["artefacts"]
    masks = [
        stream(run.settings.seed, "digits", "accuracy", "base", i, -1).integers(2**31, dtype="i4")
        for i in range(len(data.x_test))
    ]
    right = run.labels("base", data.x_test, np.array(masks, np.int64)) == data.y_test
    found = counts["model.keras"]["counts"]["test_accuracy_dropout_on"]
    assert found == pytest.approx(right.mean(), abs=0.003)
    assert found != counts["model.keras"]["counts"]["test_accuracy"]
    assert "test_accuracy_dropout_on" not in counts["model-plain.keras"]["counts"]


@pytest.mark.parametrize(
    "change",
    [
        "attack.eight_bit=true",
        "model.stochastic_inference=false",
        "mutation.clip=false",
        "mutation.amplitude=1",
        "sensitivity.shared_mutations=true",
        "sensitivity.true_label=true",
        "samples.stochastic=true",
    ],
)
def test_a_changed_switch_measures_kappa_again(runs, tmp_path, change):
    folder = shutil.copytree(runs["the other way"].folder, tmp_path / "run")
    config = runs.folder / "the other way" / "config.yaml"
    outcome = nmutant(
        "measure-kappa", "-q", "--config", config, "--run-dir", folder, "--set", change
    )
    assert outcome.code == 0, outcome
    run = Run(folder, load(str(config), [change])[1])
    rows = [row for row in records(run, "kappa.csv") if row["samples"] == "fgsm"]
    same(rows, run.kappa_rows("fgsm"))


def same_table(rows, expected) -> None:
    """Every row has the values of ``expected``, numbers to the two decimals that are written."""
    assert len(rows) == len(expected)
    for row, values in zip(rows, expected, strict=True):
        for (column, cell), value in zip(row.items(), values, strict=True):
            if isinstance(value, float):
                assert float(cell) == pytest.approx(value, abs=0.005001), (column, row, value)
            else:
                assert cell == str(value), (column, row, value)


def test_table_1_is_the_means_of_those_rows(runs):
    run = runs.reported()
    expected = []
    for step in (1, 10):
        for name, title in TITLES.items():
            kappas = [row[8] for row in run.kappa_rows(name) if row[5] == step]
            ends = half_width(kappas, 0.99), *interval(kappas, 0.99)
            percent = [100 * value for value in (mean(kappas), *ends)]
            expected.append(("digits", step, title, len(kappas), *percent))
    found = records(run, "table1.csv")
    assert list(found[0])[-3:] == ["ci99_percent", "kappa_low", "kappa_high"]
    same_table(found, expected)


def test_table_2_is_the_counts_of_those_rows(runs):
    run = runs.reported()
    detection, kappa1, expected = run.settings.detection, kappa1_of(run), []
    said = {
        "normal": "labels of smoothed, right ones only",
        "fgsm": "against the true label",
        "cw": "labels of smoothed",
        "wl": "labels of smoothed, against the true label",
    }
    for name in (*list(TITLES)[1:], "normal"):
        groups = [(rule, mu, False) for rule in detection.rules for mu in detection.mu]
        if name in said:
            groups += [("published", mu, True) for mu in detection.mu]
        for rule, mu, published in groups:
            whole = run.detection_rows(name, kappa1, published)
            rows = [row for row in whole if row[3] == rule and row[5] == mu]
            verdicts = [row[8] for row in rows]
            n, identified = len(rows), verdicts.count("adversarial")
            adversary, right, share = n, "adversarial", identified / n
            if name == "normal":
                adversary, right, share = 0, "normal", (n - identified) / n
            decided = [row[9:] for row in rows if row[8] == right]
            means = [mean(values) for values in zip(*decided, strict=True)] or ["", ""]
            where = ("digits", TITLES[name], rule, f"{kappa1:.6g}", f"{mu:g}")
            counts = (n, adversary, identified, 100 * share, *means)
            protocol = said[name] if published else "own label"
            expected.append((*where, *counts, verdicts.count("undecided"), protocol))
    same_table(records(run, "table2.csv"), expected)
