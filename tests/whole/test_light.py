"""What the packages of requirements-detector.txt are enough for, and what is said of the rest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from importlib.metadata import requires
from pathlib import Path

import numpy as np
import own
import pytest
from conftest import ROOT, environment

from nmutant_cli import Calibration, Detector, Verdict

LIGHT = ROOT / "requirements-detector.txt"
HEAVY = (
    "cleverhans", "filelock", "jax", "jinja2", "keras", "matplotlib", "onnxruntime", "pandas",
    "ray", "scipy", "sklearn", "tensorflow", "torch",
)  # fmt: skip
WITHOUT = f"""
import sys

class Light:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {HEAVY}:
            return self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Light(finder) for finder in sys.meta_path]
"""
"""Code after which none of these is there, though it may be installed."""
COMMAND = "\nfrom nmutant_cli.cli import main\nmain(prog_name='nmutant')"
LIBRARY = """
import numpy as np
from nmutant_cli import Calibration, Detector, calibrate, kappa
from bright import bright
from nmutant_cli.config.mutation import Mutation

clean, bad = np.load("clean.npy"), np.load("bad.npy")
mutation = Mutation(kinds=("light", "rotation", "translation", "contrast", "gaussian"))
for kinds in (Mutation(), mutation):
    made = calibrate(bright, clean, bad, target=0.1, mutations=20, mutation=kinds)
    made.save("made.yaml")
    assert Detector(bright, "made.yaml").detect(bad).kappa.shape == (20,)
assert kappa(bright, bad[:3], mutations=20).shape == (3,)
"""


def pins(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {canonical(line.partition("==")[0]): line for line in lines}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_light_installation_is_pinned_as_the_whole_one_and_complete():
    whole, light = pins(ROOT / "constraints.txt"), pins(LIGHT)
    assert {"numpy", "click", "pydantic", "pyyaml", "pillow", "tqdm"} <= set(light)
    for name, pin in light.items():
        assert pin == whole[name], f"{LIGHT.name}: {pin}, constraints.txt: {whole[name]}"
        for needed in requires(name) or []:
            if ";" not in needed:
                assert canonical(re.split(r"[^\w.-]", needed)[0]) in light, (name, needed)


@pytest.fixture
def here(tmp_path):
    """A folder with a model in a file, images that it is sure of, and images at its boundary."""
    (tmp_path / "bright.py").write_text(
        "def bright(images):\n    return (images.mean(axis=(1, 2, 3)) > 0.5).astype(int)\n"
    )
    clean = np.ones((8, 8, 1), np.float32) * np.linspace(0, 1, 120).reshape(-1, 1, 1, 1)
    np.save(tmp_path / "clean.npy", clean.astype(np.float32))
    np.save(tmp_path / "bad.npy", np.full((20, 8, 8, 1), 0.501, np.float32))
    own.save_pngs(tmp_path / "pictures")
    return tmp_path


def run(folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


CALIBRATE = ["calibrate", "--model", "bright:bright", "--images", "clean.npy"]
CALIBRATE += ["--adversarial", "bad.npy", "--mutations", "20", "--target", "0.1"]
CALIBRATE += ["--out", "c.yaml"]
DETECT = ["detect", "--model", "bright:bright", "--calibration", "c.yaml", "--images"]


def test_a_detector_needs_nothing_heavy(here):
    done = run(here, LIBRARY)
    assert done.returncode == 0, done.stderr
    for arguments in (
        CALIBRATE,
        [*DETECT, "bad.npy"],
        [*DETECT, "pictures", "--format", "csv"],
        ["plan", "--config", "mnist"],
        ["--help"],
    ):
        done = run(here, COMMAND, *arguments)
        assert done.returncode == 0, (arguments, done.stderr)
        assert "rror" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "library"),
    [
        (["run", "--config", "digits", "--run-dir", "r"], "filelock"),
        (["plan", "--config", "mnist", "--output", "o"], "matplotlib"),
        (["estimate"], "keras"),
        (["report", "--check", "."], "pandas"),
        ([*CALIBRATE[:2], "m.keras", *CALIBRATE[3:]], "keras"),
    ],
)
def test_a_command_that_lacks_more_says_what_to_install(here, arguments, library):
    done = run(here, COMMAND, *arguments)
    assert done.returncode == 2
    assert done.stderr == (
        f"Error: {library} is not installed; install nmutant with its dependencies "
        "(in a clone: pip install -e .)\n"
    )


@pytest.fixture(scope="module")
def light_python(tmp_path_factory) -> Path:
    """A new environment with the wheel and the light packages, and nothing else."""
    folder = tmp_path_factory.mktemp("light")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    interpreter = folder / "venv" / "bin" / "python"
    pip = [str(interpreter), "-m", "pip", "install", "-q"]
    subprocess.run([*pip, "-r", str(LIGHT)], check=True)
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True)
    return interpreter


@pytest.mark.slow
def test_the_wheel_in_an_empty_environment(here, light_python):
    nmutant = str(light_python.with_name("nmutant"))
    keep = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def done(*command: str) -> str:
        ran = subprocess.run(command, cwd=here, env=keep, capture_output=True, text=True)
        assert ran.returncode == 0, (command, ran.stderr)
        return ran.stdout

    def size() -> float:
        """MB on disk."""
        files = [p for p in light_python.parents[1].rglob("*") if p.is_file()]
        return sum(p.lstat().st_blocks for p in files) * 512 / 1e6

    done(str(light_python), "-c", LIBRARY)
    done(nmutant, *CALIBRATE)
    assert done(nmutant, *DETECT, "bad.npy").count("adversarial") == 20
    assert "pictures/00.png" in done(nmutant, *DETECT, "pictures")
    assert "P(adv|p0)" in done(nmutant, "plan", "--config", "mnist")
    without = size()
    pip = [str(light_python), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
    done(*pip, "onnxruntime")
    own.save_onnx(here / "own.onnx")
    rng = np.random.default_rng(0)
    np.save(here / "clean.npy", rng.random((120, *own.SHAPE), dtype=np.float32))
    np.save(here / "bad.npy", own.IMAGES)
    onnx = [word.replace("bright:bright", "own.onnx") for word in CALIBRATE]
    done(nmutant, *onnx)
    onnx = [word.replace("bright:bright", "own.onnx") for word in DETECT]
    made = Calibration.load(here / "c.yaml")
    expected = Detector(own.labels, made).detect(own.IMAGES)
    rows = [line.split() for line in done(nmutant, *onnx, "bad.npy").splitlines()[1:]]
    assert [row[1] for row in rows] == [Verdict(v).name.lower() for v in expected.verdict]
    print(f"{without:.0f} MB, with onnxruntime {size():.0f} MB")
    assert size() < 300


def test_nothing_names_a_package_on_an_index_where_it_is_not():
    texts = [*(ROOT / "nmutant_cli").rglob("*.py"), *(ROOT / "docs").glob("*.md")]
    texts += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    for path in texts:
        found = re.search(r"pip install[^\n`]*\bnmutant(?!_cli)", path.read_text(encoding="utf-8"))
        assert found is None, (path, found)
