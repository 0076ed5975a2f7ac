"""The scripts that run the commands on other machines and backends."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, environment, options

from nmutant_cli.config.loading import load


def commands(found):
    return [(command[0], backend) for command, backend in found]


def test_only_what_is_missing_is_left_to_do(script, folder):
    accelerator = script("accelerator")
    _, settings = load("digits")
    assert commands(accelerator.stages(settings, folder, "jax")) == [("report", "jax")]
    (folder / "adversarial" / "cw.npz").unlink()
    rest = [("attack", "tensorflow"), ("report", "jax")]
    assert commands(accelerator.stages(settings, folder, "jax")) == rest
    (folder / "kappa" / "wl.csv").unlink()
    (folder / "model.keras").unlink()
    rest = [("train", "jax"), ("measure-kappa", "jax"), *rest]
    assert commands(accelerator.stages(settings, folder, "jax")) == rest


def test_a_command_is_stopped_when_its_time_is_up(script, monkeypatch):
    accelerator = script("accelerator")
    monkeypatch.setattr(accelerator, "GRACE_SECONDS", 0.2)
    now = accelerator.time.monotonic

    def run(code, seconds):
        monkeypatch.setattr(accelerator, "NMUTANT", [sys.executable, "-c", code])
        return accelerator.run_until(now() + seconds, [], "tensorflow", cpu=True)

    assert run("raise SystemExit(2)", 60) == 2
    assert run("pass", 0) is None
    assert run("import time; time.sleep(60)", 0.2) is None
    deaf = "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)]"
    assert run(f"{deaf}; time.sleep(60)", 0.5) is None


def accelerate(folder, *more):
    return subprocess.run(
        [
            sys.executable,
            ROOT / "scripts/accelerator.py",
            "--config",
            "digits",
            *more,
            *options(folder),
        ],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )


def test_a_piece_without_time_says_run_me_again(folder):
    done = accelerate(folder, "--minutes", "0")
    assert done.returncode == 75, done.stderr
    assert done.stdout.splitlines()[-1].endswith("run me again.")


def test_the_last_piece_ends_with_the_report(folder):
    (folder / "report.html").unlink()
    done = accelerate(folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"Done: {folder}"
    assert (folder / "report.html").is_file()


def test_a_wrong_setting_is_one_line(tmp_path):
    done = accelerate(tmp_path / "run", "--set", "model.epoch=1")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("own_flips", "flips", "unexplained"), [(0, 1, 1), (0, 2, 0), (1, 0, 0), (0, 0, 1)]
)
def test_differences_are_explained_by_flips_or_reported(
    own_flips, flips, unexplained, script, tmp_path, monkeypatch, capsys
):
    backends = script("backends")
    a = pd.DataFrame(
        {
            "samples": "normal", "index": [0, 1], "source_index": [4, 7], "step_size": [1, 1],
            "mutations": [5, 5], "changes": [1, 0],
        }
    )  # fmt: skip
    b = a.assign(changes=[1, 2])

    def on(backend, code, rows, out, *_):
        assert pd.read_csv(rows)["index"].tolist() == [1]
        labels = np.zeros((1, 6), np.int64)
        if backend == "jax":
            labels[:, :own_flips] = 1
            labels[:, 1 : 1 + flips] = 1
        np.savez(out, labels=labels, margins=np.full((1, 6), 0.25))

    monkeypatch.setattr(backends, "on", on)
    folders = {name: tmp_path / name for name in ("tensorflow", "jax")}
    for path in folders.values():
        path.mkdir()
    kappas = {"tensorflow": a, "jax": b}
    assert backends.compare("tensorflow", "jax", folders, kappas, []) == unexplained
    said = capsys.readouterr().out
    assert "1 of 2 counts differ, by 2 of 10 mutations in all, by 2 at most" in said
    assert f"{own_flips + flips} labels flipped" in said
    assert backends.compare("tensorflow", "jax", folders, {**kappas, "jax": a}, []) == 0


def test_only_networks_and_samples_are_copied(script, finished, tmp_path):
    backends = script("backends")
    backends.copy_samples(finished, tmp_path / "copy")
    assert {p.suffix for p in (tmp_path / "copy").rglob("*") if p.is_file()} == {
        ".keras", ".npz", ".json",
    }  # fmt: skip
    assert (tmp_path / "copy/model.keras").is_file()


def test_every_rule_keeps_its_false_alarms_and_stops_when_it_is_sure(script):
    choose = script("choose_operator")
    rng = np.random.default_rng(0)
    clean = {"base": rng.random((400, choose.MUTATIONS)) < rng.beta(0.2, 8, (400, 1))}
    rules = choose.rules(clean)
    assert {name.split()[0] for name in rules} == {"count", "wald"}
    for name, rule in rules.items():
        found, read = rule(clean["base"], "base")
        assert found.mean() <= choose.FALSE_ALARMS, name
        assert read.min() >= 1
        assert read.max() <= choose.MUTATIONS
        assert rule(np.ones((1, choose.MUTATIONS), bool), "base")[0].all(), name
        # One image alone gets the verdict it gets among others.
        alone = [rule(clean["base"][i : i + 1], "base")[0][0] for i in range(20)]
        assert (found[:20] == alone).all()


def test_the_published_rule_is_that_of_table_2(script):
    evade = script("evade")
    detection = load("mnist")[1].detection
    calm, nervous = np.zeros((3, 200), bool), np.ones((2, 200), bool)
    assert not evade.published_adversarial(calm, detection).any()
    assert evade.published_adversarial(nervous, detection).all()
