"""Every command of the README and of the examples in ``--help`` runs, on the tiny experiment."""

from __future__ import annotations

import re
import shlex
import shutil
from itertools import chain

import click
import numpy as np
import own
import pytest
import yaml
from conftest import ROOT, TINY, nmutant
from PIL import Image

from nmutant_cli.cli import COMMANDS, main
from nmutant_cli.config import loading

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"^ *(nmutant [^#>\n]+)", re.MULTILINE)
SHOWN = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
         for line in EXAMPLE.findall(block)]  # fmt: skip
HELP = {
    name: EXAMPLE.findall(main.get_command(click.Context(main), name).epilog or "")
    for name in COMMANDS
}
SMALLER = (
    *TINY, "attack.count_already_wrong=false", "compare.clean=150", "compare.mutations=10",
    "compare.detectors=[kappa, softmax]",
)  # fmt: skip
"""What changes the digits experiment into the one that stands for every config."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with finished runs, tiny configs in the place of those that come along, a model."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "configs").mkdir()
    _, settings = loading.load("digits", SMALLER)
    for name in ("digits", "mnist", "mnist-compare", "mnist-adaptive"):
        text = yaml.safe_dump(settings.model_dump(mode="json"))
        (folder / "configs" / f"{name}.yaml").write_text(text)
    config, run = folder / "configs/digits.yaml", folder / "runs/digits"
    assert nmutant("run", "--config", config, "--run-dir", run).code == 0
    shutil.copytree(run, folder / "runs/mnist")
    (folder / "results").mkdir()
    for kept in ("results/mnist", "FOLDER"):
        (folder / kept).symlink_to(ROOT / "results" / "mnist")
    rng = np.random.default_rng(0)
    for name, n in (("clean", 120), ("attacked", 12), ("adv", 12), ("new", 6)):
        images = rng.integers(0, 256, (n, *own.SHAPE[:2]), dtype=np.uint8)
        (folder / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / name / f"{i}.png")
    np.save(folder / "x.npy", rng.random((120, *own.SHAPE), dtype=np.float32))
    own.network().save(folder / "mine.keras")
    own.save_onnx(folder / "mine.onnx")
    (folder / "my.py").write_text("from own import labels as f\n")
    return folder


@pytest.fixture
def reader(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(loading, "config_folder", lambda: place / "configs")
    monkeypatch.setattr("nmutant_cli.own_model.guarantee.ODDS", (8.0,))  # for speed
    return place


def test_every_command_has_an_example():
    assert {name for name, lines in HELP.items() if not lines} == set()
    assert len(SHOWN) >= 10


@pytest.mark.parametrize(
    "line", list(dict.fromkeys(map(str.strip, chain(SHOWN, *HELP.values())))), ids=str.strip
)
def test_an_example_runs(line, reader):
    name, *arguments = shlex.split(line)
    if "--workers" in arguments:
        pytest.importorskip("ray")
    if "--calibration" in arguments:  # made by the example before it
        model = arguments[arguments.index("--model") + 1]
        made = nmutant(*calibration(model, arguments[arguments.index("--calibration") + 1]))
        assert made.code == 0, made.stderr
    if "--check" in arguments:  # of a run with the tables of the paper
        (reader / "runs" / "mnist" / "compared").mkdir(exist_ok=True)
        for table in ("table1", "table2"):
            kept = ROOT / "results" / "mnist" / f"{table}.csv"
            shutil.copy(kept, reader / "runs" / "mnist" / "compared")
    outcome = nmutant(*arguments)
    found = "--fail-on-adversarial" in arguments
    assert outcome.code in ((0, 3) if found else (0,)), outcome.stderr
    assert outcome.stdout
    assert name == "nmutant"


def calibration(model, out):
    return shlex.split(
        f"calibrate --model {model} --images clean/ --adversarial adv/ --out {out} -q"
        " --step-size 5 --mutations 60"
    )
