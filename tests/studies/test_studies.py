"""The studies: one command for all, each on a tiny run folder."""

from __future__ import annotations

import importlib
import inspect
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, TINY, nmutant, options

from nmutant_cli.config.loading import config_folder, load, merged, validated
from nmutant_cli.config.mutation import Mutation
from nmutant_cli.detection.sprt import SequentialTest, run
from nmutant_cli.files import file_digest, read_records
from nmutant_cli.mutation.operator import MutationStream
from nmutant_cli.studies import gain, operators, sweep, votes
from nmutant_cli.studies.study import STUDIES
from nmutant_cli.types import Verdict

MNIST = ROOT / "results" / "mnist"
SETS = [part for change in TINY for part in ("--set", change)]
COMPARED = ("compare.clean=400", "compare.mutations=10", "compare.detectors=[kappa]")


def study(*arguments):
    """Run a study that is to succeed."""
    outcome = nmutant("study", *arguments)
    assert outcome.code == 0, outcome
    return outcome


# the one command


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_a_function_of_its_options(name):
    module = importlib.import_module(f"nmutant_cli.studies.{name.replace('-', '_')}")
    _, *parameters = inspect.signature(module.study).parameters.values()
    assert {p.name for p in parameters} == {option.name for option in STUDIES[name].options}
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters)
    text = nmutant("study", name, "--help").stdout
    assert all(f"--{option.name.replace('_', '-')}" in text for option in STUDIES[name].options)
    assert ("--seed" in text) == (STUDIES[name].config is not None)
    assert f"\n  {name} " in nmutant("study", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["netwroks", "."], "study netwroks: there is none; known are networks, from-kappa"),
        (["netwroks", "."], "; did you mean 'networks'?"),
        (["networks"], "study networks: takes 1 or more run folders, 0 given"),
        (["gain", "."], "study gain: takes 2 run folders, 1 given"),
        (["cifar10", ".", ".", ".", "."], "study cifar10: takes 2 or 3 run folders, 4 given"),
        (["networks", "nowhere"], "nowhere: no such run folder"),
        (["networks", "."], "table1.csv: no such file, and this study reads it"),
        (["from-kappa", "."], "kappa.csv: no such file, and this study reads it"),
        (["cifar10", ".", "."], "samples/normal.npz: no such file, and this study reads it"),
        (["operators", ".", "--config", "mnst"], "--config mnst: no such file"),
        (["sweep", ".", "--variations", "one"], "--variations one: no such file"),
        (["sweep", ".", "--only", "4 epochs"], "did you mean '3 epochs'?"),
        (["sweep", "."], "manifest.json: no such file, and this study reads it"),
    ],
)
def test_a_mistake_is_one_line(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    arguments = ["run" if argument == "." else argument for argument in arguments]
    assert expected in nmutant("study", *arguments, "--out", "out").error
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["run"]


def test_a_damaged_table_is_one_line(folder):
    table = folder / "table1.csv"
    pd.read_csv(table).drop(columns="step_size").to_csv(table)
    assert "table1.csv: no column step_size" in nmutant("study", "networks", folder).error
    table.write_bytes(b"")
    assert "table1.csv: damaged" in nmutant("study", "networks", folder).error


def test_what_was_read_and_how_is_kept(finished, tmp_path):
    out = tmp_path / "out"
    text = study("from-kappa", finished, "--step-size", "10", "--out", out).stdout
    assert text.splitlines()[-2:] == [
        str(out / "from-kappa.csv"),
        str(out / "study-from-kappa.json"),
    ]
    kept = json.loads((out / "study-from-kappa.json").read_text())
    assert kept["study"] == "from-kappa"
    assert kept["options"] == {"step_size": 10}
    read = {name: file_digest(finished / name) for name in ("kappa.csv", "table2.csv")}
    assert kept["runs"] == [{"run": finished.name, "read": read}]
    assert {"python", "nmutant", "numpy"} <= set(kept["versions"])
    # Printed alone, nothing is written.
    again = study("from-kappa", finished, "--step-size", "10")
    assert again.stdout.strip() == text.split(str(out))[0].strip()


# each of them


def test_the_committed_tables_of_several_networks_come_out_to_the_byte(tmp_path):
    runs = [MNIST, *(MNIST / "networks" / f"seed{i}" for i in range(1, 10))]
    study("networks", *runs, "--out", tmp_path)
    for name in ("networks-table1.csv", "networks-table2.csv"):
        assert (tmp_path / name).read_bytes() == (MNIST / name).read_bytes()
    assert (tmp_path / "figures" / "networks.png").stat().st_size > 10_000


def test_from_kappa_gives_what_many_tests_find(finished, tmp_path):
    study("from-kappa", finished, "--step-size", "10", "--out", tmp_path)
    table = pd.read_csv(tmp_path / "from-kappa.csv")
    assert "from_table1_mutations" not in table, "nothing is published of digits"
    counted = pd.read_csv(finished / "table2.csv").query("rule == 'published' and n > 0")
    assert len(table) == len(counted)
    row = table[table["samples"] == "JSMA"].iloc[0]
    kappa1 = counted["kappa1"].iloc[0]
    test = SequentialTest("published", kappa1, (2 * row["mu"] - 1) * kappa1)
    kappas = read_records(finished / "kappa.csv").query("samples == 'jsma' and step_size == 10")
    rng = np.random.default_rng(0)
    outcomes = [
        run(test, rng.random(test.max_mutations) < kappa)
        for kappa in rng.choice(kappas["kappa"], 2000)
    ]
    adversarial = [o for o in outcomes if o.verdict == Verdict.ADVERSARIAL]
    assert row["from_own_identified_percent"] == pytest.approx(len(adversarial) / 20, abs=5)
    mutations = np.mean([o.n for o in adversarial])
    assert row["from_own_mutations"] == pytest.approx(mutations, rel=0.1)
    error = nmutant("study", "from-kappa", finished, "--step-size", "3").error
    assert "no kappa at step size 3" in error


SCRIPTS = {
    # As they were given to --set when the committed tables were made.
    "one-factor": {
        "as published": [],
        "fresh mutations for each image": ["sensitivity.shared_mutations=false"],
        "images not rounded to 8 bits": ["attack.eight_bit=false"],
        "images the network gets wrong left out": [
            "attack.count_already_wrong=false",
            "samples.normal_correct_only=true",
        ],
        "FGSM on a network without label smoothing": ["attack.sets.fgsm.model=base"],
        "FGSM on a network of 10 epochs, no smoothing": ["attack.sets.fgsm.model=longer"],
        "Keras's initialisation": ["model.initialization=keras"],
        "3 epochs": ["model.epochs=3"],
    },
    "other-network": {
        "smoothed": ["detection.model=smoothed"],
        "longer": ["detection.model=longer"],
    },
}
COMMON = {
    "one-factor": ["attack.sets.cw=null", "attack.sets.jsma=null", "attack.sets.bb=null"],
    "other-network": [
        "detection.rules=[published]",
        "attack.sets.fgsm=null",
        "samples.normal=50",
        "samples.wl=1",
    ],
}
SMALL = [
    "attack.attempts=250",
    "samples.normal=250",
    "samples.wl=250",
    "sensitivity.mutations=250",
]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_variations_are_those_of_the_committed_tables(name, full):
    path = config_folder() / "studies" / f"{name}.yaml"
    changed = validated(sweep.Variations, path)
    assert list(changed.variations) == list(SCRIPTS[name])
    for variation, texts in SCRIPTS[name].items():
        common = merged(changed.settings, {} if full else changed.size)
        settings = load(changed.config, (), 7, merged(common, changed.variations[variation]))[1]
        small = [] if full or name == "other-network" else SMALL
        assert settings == load("mnist", [*COMMON[name], *small, *texts], 7)[1]


@pytest.mark.parametrize("full", [False, True])
def test_each_variation_of_an_attack_changes_only_its_own(full):
    changed = validated(sweep.Variations, config_folder() / "studies" / "one-factor-attacks.yaml")
    common = merged(changed.settings, {} if full else changed.size)
    base, *others = [
        load(changed.config, (), 7, merged(common, changes))[1]
        for changes in changed.variations.values()
    ]
    small = [] if full else ["attack.attempts=250", "sensitivity.mutations=250"]
    same = ["attack.sets.fgsm=null", "samples.normal=50", "samples.wl=1", *small]
    assert base == load("mnist", same, 7)[1]
    keys = {"C&W": "cw", "JSMA": "jsma", "BB": "bb"}
    for name, settings in zip(list(changed.variations)[1:], others, strict=True):
        assert settings != base, name
        sets = {k for k, v in settings.attack.sets.items() if v != base.attack.sets[k]}
        assert sets <= {keys.get(name.split()[0])}, name
    assert len({settings.model_dump_json() for settings in others}) == len(others)


def variations(tmp_path, **document):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"config": "digits", **document}, sort_keys=False))
    return path


def test_a_sweep_changes_one_thing_at_a_time(folder, tmp_path):
    path = variations(
        tmp_path,
        table="kappa",
        size={"sensitivity": {"step_sizes": [10]}},
        variations={
            "same": {},
            "fresh": {"sensitivity": {"shared_mutations": False}},
            "fewer": {"attack": {"sets": {"jsma": {"gamma": 0.06}}}},
        },
    )
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    arguments = ["sweep", folder, "--variations", path, *SETS, "--full", "--out", tmp_path / "out"]
    text = study(*arguments).stdout
    assert text.splitlines()[0].split()[0] == "change"
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    table = pd.read_csv(tmp_path / "out" / "mine.csv")
    assert table.columns[0] == "change"
    ours = pd.read_csv(folder / "table1.csv")
    same = table[table["change"] == "same"].drop(columns="change").reset_index(drop=True)
    pd.testing.assert_frame_equal(same, ours)
    fresh = table[table["change"] == "fresh"]["kappa_percent"].to_numpy()
    assert (fresh != ours["kappa_percent"]).any()
    # Networks and samples were there already; what was measured is there now.
    for name in ("run-mine-0-full", "run-mine-1-full"):
        copy = folder.with_name(name)
        for made in ("model.keras", "adversarial/cw.npz"):
            assert (copy / made).read_bytes() == (folder / made).read_bytes()
    # What a variation does not change is not measured again.
    first, last = (
        json.loads((folder.with_name(f"run-mine-{k}-full") / "manifest.json").read_text())
        for k in (0, 2)
    )
    changed = {k for k, v in last["artefacts"].items() if v != first["artefacts"].get(k)}
    assert changed == {"adversarial/jsma.npz", "kappa/jsma.csv", "kappa.csv"}
    study(*arguments[:-3], "--only", "fresh")
    assert (folder.with_name("run-mine-1") / "kappa.csv").is_file()
    assert not folder.with_name("run-mine-0").exists()


def test_a_sweep_asks_another_network(folder, tmp_path):
    path = variations(
        tmp_path,
        table="detections",
        settings={"variants": {"other": {"epochs": 1}}},
        variations={"other": {"detection": {"model": "other"}}},
    )
    study("sweep", folder, "--variations", path, *SETS, "--out", tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "mine.csv")
    assert table.columns[-2:].tolist() == ["labels_from", "label_differs_percent"]
    assert set(table["labels_from"]) == {"other"}
    assert set(table["samples"]) == {"FGSM", "C&W", "JSMA", "BB"}
    assert table.dropna()["label_differs_percent"].between(0, 100).all()
    path = variations(tmp_path, table="detections", variations={"mine": {}})
    error = nmutant("study", "sweep", folder, "--variations", path, *SETS).error
    assert "mine: detection.model: is not set" in error


def test_a_mistake_in_the_variations_names_file_and_variation(folder, tmp_path):
    path = variations(tmp_path, table="kappa", variations={"a": {"detection": {"alpha": 0}}})
    error = nmutant("study", "sweep", folder, "--variations", path).error
    assert error.startswith(f"{path}: variations.a: ")
    assert "detection.alpha: 0 is not allowed" in error
    eps = {"attack": {"sets": {"fgsm": {"eps": 0.2}}}}
    path = variations(tmp_path, table="kappa", variations={"a": {}, "b": eps})
    error = nmutant("study", "sweep", folder, "--variations", path, *SETS).error  # sets eps too
    assert error == f"{path}: variations.b: is the same as a, with the --set given"
    assert not folder.with_name("run-mine-0").exists()
    path = variations(tmp_path, table="kapa", variations={"a": {}})
    assert (
        "table: 'kapa' is not allowed"
        in nmutant("study", "sweep", folder, "--variations", path).error
    )


def test_every_rule_keeps_its_false_alarms_and_stops_when_it_is_sure():
    rng = np.random.default_rng(0)
    clean = {"base": rng.random((400, operators.MUTATIONS)) < rng.beta(0.2, 8, (400, 1))}
    rules = operators.rules(clean)
    assert {name.split()[0] for name in rules} == {"count", "wald"}
    for name, rule in rules.items():
        found, read = rule(clean["base"], "base")
        assert found.mean() <= operators.FALSE_ALARMS, name
        assert read.min() >= 1
        assert read.max() <= operators.MUTATIONS
        assert rule(np.ones((1, operators.MUTATIONS), bool), "base")[0].all(), name
        # One image alone gets the verdict it gets among others.
        alone = [rule(clean["base"][i : i + 1], "base")[0][0] for i in range(20)]
        assert (found[:20] == alone).all()


def test_operators_are_tried_on_the_first_half_and_kept(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(operators, "KINDS", (operators.kappa.Gaussian, operators.Mixed))
    monkeypatch.setattr(operators, "CLEAN_KAPPAS", (0.04,))
    arguments = ["operators", folder, "--config", "digits", *SETS, "--set", "compare.clean=400"]
    study(*arguments, "--out", tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "operators.csv")
    assert set(table["mutations"]) == {operators.kappa.Gaussian.title, operators.Mixed.title}
    assert table["clean_alarms_percent"].max() <= 5
    assert table["passes_clean"].between(1, 1 + operators.MUTATIONS).all()
    best = table["mean_tpr_percent"].max()
    assert table["mean_tpr_percent"].iloc[0] >= best - operators.CLOSE
    counted = {p: p.stat().st_mtime_ns for p in (folder / "operators").iterdir()}
    assert len(counted) == 2
    study(*arguments)
    assert {p: p.stat().st_mtime_ns for p in (folder / "operators").iterdir()} == counted
    kept = json.loads((tmp_path / "out" / "study-operators.json").read_text())
    assert kept["settings"][0]["compare"]["clean"] == 400
    assert {"model.keras", "samples/normal.npz"} <= set(kept["runs"][0]["read"])


def test_a_detector_gains_nothing_over_itself_and_something_over_a_worse_one(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(gain, "RESAMPLES", 20)
    larger = ("attack.attempts=30", "samples.normal=30", "attack.sets.bb=null")
    for name, step in (("one", "0.001"), ("two", "10")):
        shutil.copytree(folder, tmp_path / name)
        made = nmutant(
            "compare", *options(tmp_path / name, *COMPARED, *larger, f"detection.step_size={step}")
        )
        assert made.code == 0, made
    one, two = tmp_path / "one", tmp_path / "two"
    study("gain", two, two, "--out", tmp_path / "itself")
    itself = pd.read_csv(tmp_path / "itself" / "better.csv")
    assert (itself.filter(like="_gain") == 0).all(axis=None)
    assert (itself["auc_first"] == itself["auc_second"]).all()
    study("gain", one, two, "--same", "--out", tmp_path / "other")
    other = pd.read_csv(tmp_path / "other" / "better-10.csv")
    assert (other["auc_first"] == 50).all(), "nothing changes a label at this step"
    assert other["auc_gain"].mean() > 0
    error = nmutant("study", "gain", one, folder).error
    assert error.endswith(
        "compare/kappa-base.csv: no such file, and this study reads it; finish the run"
    )


def test_splits_hold_the_promise_about_as_often_as_promised(folder, tmp_path):
    arguments = ["splits", folder, *SETS, "--mutations", "60", "--clean", "300", "--splits", "3"]
    study(*arguments, "--target", "0.05", "--out", tmp_path)
    table = pd.read_csv(tmp_path / "calibration.csv")
    assert table["rate"].tolist() == ["held-out", "true"]
    assert (table["target"] == 0.05).all()
    assert table["worst_rate_%"].between(0, 15).all()
    assert {"fgsm_%", "cw_%", "jsma_%", "bb_%"} <= set(table)
    first = (folder / "splits.npz").stat().st_mtime_ns
    again = study(*arguments, "--target", "0.05")
    assert (folder / "splits.npz").stat().st_mtime_ns == first
    assert again.stdout.splitlines()[1].split()[0] == "0.05"
    error = nmutant("study", *arguments, "--clean", "5000").error
    assert error.startswith("--clean 5000: must be above 0 and below the ")


def test_votes_by_hand():
    class Counted:
        """Of two images the labels themselves, and those under two mutations each."""

        own = np.array([1, 1])

        def mutated(self, rows, mutations):
            assert rows.tolist() == [0, 0, 1, 1]
            assert len(mutations) == 4
            return np.array([1, 1, 2, 7])

    stream = MutationStream((4, 4, 1), Mutation(), 0, "votes")
    counted = np.array(votes.CountVotes(2)(Counted(), [stream] * 2))
    assert counted.tolist() == [
        [1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0],
    ]
    assert votes.share(counted, np.array([1, 7])).tolist() == [0, 0.5]
