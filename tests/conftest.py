"""What several test modules share: running the command line, a tiny experiment, fake data."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from click.testing import CliRunner

# No test depends on how long anything takes.
hypothesis.settings.register_profile("nmutant", deadline=None)
hypothesis.settings.load_profile("nmutant")

ROOT = Path(__file__).parent.parent

TINY = (
    "model.network=substitute",
    "model.epochs=2",
    "attack.attempts=12",
    "attack.count_already_wrong=true",
    "attack.sets.fgsm.eps=0.3",
    "attack.sets.cw.targets=all",
    "attack.sets.cw.max_iterations=10",
    "attack.sets.jsma.targets=others",
    "attack.sets.bb.eps=0.3",
    "attack.sets.bb.data_aug=2",
    "attack.sets.bb.epochs=1",
    "samples.normal=12",
    "samples.wl=12",
    "sensitivity.mutations=20",
    "detection.rules=[published, wald]",
    "detection.kappa1=0.02",
    "detection.mu=[1.2, 1.5, 1.8, 2]",
    "detection.step_size=10",
    "detection.cap=100",
    "runtime.batch_size=100",
)
"""The digits experiment with everything small and a network without convolutions."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """What it says of a user's mistake: the one line, without ``Error:``."""
        assert self.code == 2, (self.code, self.stdout, self.stderr)
        assert self.stderr.startswith("Error: "), self.stderr
        assert self.stderr.count("\n") == 1, self.stderr
        assert self.stdout == ""
        return self.stderr.removeprefix("Error: ").rstrip("\n")


def options(run_dir: Path | str, *changes: str) -> list[str]:
    """``--run-dir`` and ``--set`` options for the tiny experiment with ``changes``."""
    sets = [part for change in (*TINY, *changes) for part in ("--set", change)]
    return ["--run-dir", str(run_dir), *sets]


def nmutant(*arguments: str | Path) -> Outcome:
    """Run the command line in this process."""
    from nmutant_cli.cli import main

    result = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="nmutant")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def command(*arguments: str | Path) -> list[str]:
    """The command line as a process of its own, for `subprocess`."""
    code = "from nmutant_cli.cli import main; main(prog_name='nmutant')"
    return [sys.executable, "-c", code, *(str(a) for a in arguments)]


def environment() -> dict[str, str]:
    """The environment in which `command` finds this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}


def python(code: str, *arguments: str | Path, **more) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code, *(str(a) for a in arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        **more,
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The run folder of a finished tiny experiment. Do not change it; see `folder`."""
    path = tmp_path_factory.mktemp("finished") / "run"
    outcome = nmutant("run", *options(path))
    assert outcome.code == 0, outcome
    (path.parent / "stdout").write_text(outcome.stdout)
    (path.parent / "stderr").write_text(outcome.stderr)
    return path


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    """A copy of the finished tiny experiment, to be changed at will."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def script(monkeypatch):
    """Imports a script of ``scripts/`` by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """A small, valid MNIST: 30 images for training and 20 for testing."""
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (30, 28, 28), dtype=np.uint8),
        "y_train": (np.arange(30) % 10).astype(np.uint8),
        "x_test": rng.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        "y_test": (np.arange(20) % 10).astype(np.uint8),
    }


@pytest.fixture
def data_dir(tmp_path, monkeypatch) -> Path:
    """An empty folder that NMUTANT_DATA_DIR names."""
    path = tmp_path / "data"
    path.mkdir()
    monkeypatch.setenv("NMUTANT_DATA_DIR", str(path))
    return path
