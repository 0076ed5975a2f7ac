"""An experiment that is killed again and again, at random moments of every stage."""

import random
import subprocess
import time

import pytest
from conftest import command, environment, nmutant, options
from test_faults import same_results

STAGES = {
    "train": ".lock",
    "attack": "samples/normal.npz",
    "measure-kappa": "samples/wl.npz",
    "detect": "kappa.csv",
    "report": "detections.csv",
}
"""What is there once a stage has begun."""
LONGEST = {"train": 8, "attack": 8, "measure-kappa": 3, "detect": 2, "report": 2}
"""Seconds, about what each stage takes; the import of the libraries is in the first."""


def kill(folder, stage, rng):
    """Whether the experiment was killed at a random moment of ``stage``, or had ended before."""
    process = subprocess.Popen(
        command("run", "-q", *options(folder)),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        while process.poll() is None and not (folder / STAGES[stage]).exists():
            time.sleep(0.01)
        process.wait(rng.uniform(0, LONGEST[stage]))
        assert process.returncode == 0, process.stderr.read()
        return False
    except subprocess.TimeoutExpired:
        return True
    finally:
        process.kill()
        process.communicate()


def kill_in_every_stage(kills, folder, finished, seed):
    """How many kills there were in one experiment, which is then finished and looked at."""
    rng = random.Random(seed)
    killed, kept = 0, {}
    for stage in STAGES:
        killed += kill(folder, stage, rng)
        kept = kills.written(folder) | kept
    assert nmutant("run", "-q", *options(folder)).code == 0
    same_results(folder, finished)
    now = kills.written(folder)
    assert {name: now[name] for name in kept} == kept, f"made again (seed {seed})"
    return killed


def test_killed_in_every_stage(script, finished, tmp_path):
    assert kill_in_every_stage(script("kills"), tmp_path / "run", finished, seed=0) >= 4


@pytest.mark.slow
def test_fifty_kills_lose_nothing(script, finished, tmp_path):
    killed = [
        kill_in_every_stage(script("kills"), tmp_path / str(seed), finished, seed)
        for seed in range(1, 13)
    ]
    assert sum(killed) >= 50, killed
