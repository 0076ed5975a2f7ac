"""Damaged files and random configs: what is not right is said in a line, and nothing hangs."""

import random
import shutil

import numpy as np
import pytest
import test_config
from conftest import ROOT
from hypothesis import given, settings
from PIL import Image

from nmutant_cli.errors import NMutantError
from nmutant_cli.networks import inference, training
from nmutant_cli.networks.checkpoints import Checkpoint
from nmutant_cli.own_model import images
from nmutant_cli.own_model.calibration import Calibration
from nmutant_cli.paper.checking import check
from nmutant_cli.pipeline.run_folder import RunFolder
from nmutant_cli.pipeline.samples import SampleSet

DOCUMENTS = test_config.test_any_document_gives_settings_or_a_line.hypothesis.inner_test
OVERRIDES = test_config.test_any_override_gives_settings_or_a_line.hypothesis.inner_test


test_five_thousand_random_configs = pytest.mark.slow(
    settings(test_config.FAST, max_examples=5000)(
        given(document=test_config.documents())(DOCUMENTS)
    )
)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """``content`` after one of the things that happen to files."""
    at, size = rng.randrange(len(content)), 2 ** rng.randrange(12)
    junk = rng.randbytes(size)
    return rng.choice(
        [
            content[:at],
            content[at:],
            content[:at] + content[at + size :],
            content[:at] + junk + content[at:],
            content[:at] + junk + content[at + size :],
            content[:at] + bytes(size) + content[at + size :],
            content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :],
            content + content,
            junk,
            b"",
        ]
    )


def refusal(read, path):
    """What ``read`` says of a file that it will not take, None where it takes it."""
    try:
        read(path)
    except NMutantError as error:
        return str(error)
    return None


def read_samples(path):
    SampleSet.load(path)


def read_network(path):
    inference.load(path, (8, 8, 1))


def read_images(path):
    for item in images.read(str(path)):
        assert (item.image is None) == bool(item.problem)


def read_checkpoint(path):
    model = training.keras.Sequential([training.keras.Input((2,)), training.keras.layers.Dense(2)])
    model.compile("adam", "mse")
    assert Checkpoint(path, "key").restore(model) in (0, 3)


@pytest.fixture
def source(finished, tmp_path):
    """A whole file of each kind that can be damaged, and what reads it."""
    own = tmp_path / "own"
    own.mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "bmp", "gif", "tif"):
        Image.fromarray(picture).save(own / f"a.{suffix}")
    np.save(own / "a.npy", picture[None] / np.float32(255))
    np.savez_compressed(own / "a.npz", images=picture[None])
    Calibration(step_size=1, p0=0.01, p1=0.05, cap=500).save(own / "a.yaml")
    model = training.keras.Sequential([training.keras.Input((2,)), training.keras.layers.Dense(2)])
    model.compile("adam", "mse")
    Checkpoint(own / "checkpoint.npz", "key").save(model, 3)
    return {
        "samples": (finished / "samples/normal.npz", read_samples),
        "attack": (finished / "adversarial/cw.npz", read_samples),
        "network": (finished / "model.keras", read_network),
        "calibration": (own / "a.yaml", Calibration.load),
        "checkpoint": (own / "checkpoint.npz", read_checkpoint),
        "array": (own / "a.npy", read_images),
        "arrays": (own / "a.npz", read_images),
        **{kind: (own / f"a.{kind}", read_images) for kind in ("png", "jpg", "bmp", "gif", "tif")},
    }


KINDS = ("samples", "attack", "network", "calibration", "checkpoint", "array", "arrays")
KINDS += ("png", "jpg", "bmp", "gif", "tif")
times = pytest.mark.parametrize("times", [8, pytest.param(150, marks=pytest.mark.slow)])


@times
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused_in_a_line(kind, times, source, tmp_path):
    whole, read = source[kind]
    path = tmp_path / f"damaged{whole.suffix}"
    content = whole.read_bytes()
    for seed in range(times):
        path.write_bytes(damaged(content, random.Random(f"{kind} {seed}")))
        said = refusal(read, path)
        assert said is None or (said.isprintable() and str(path) in said), seed


@times
def test_a_damaged_artefact_is_found_and_made_again(times, tmp_path):
    """Whatever happens to an artefact or the manifest, what is read is what was made."""
    whole = b"index,kappa\n0,0.25\n" * 20

    def build(path):
        path.write_bytes(whole)

    def make():
        said.clear()
        with RunFolder(tmp_path, say=said.append) as run:
            return run.make("kappa.csv", {"seed": 1}, build).read_bytes()

    said = []
    assert make() == whole
    for seed in range(times):
        rng = random.Random(seed)
        victim = tmp_path / rng.choice(["kappa.csv", "manifest.json"])
        before = victim.read_bytes()
        victim.write_bytes(damaged(before, rng))
        changed = victim.read_bytes() != before
        assert make() == whole, seed
        assert not changed or victim.name == "manifest.json" or "is damaged" in said[0], seed
        assert make() == whole, seed
        assert said == [], seed


@times
def test_damaged_results_are_pointed_out(times, tmp_path):
    kept = shutil.copytree(ROOT / "results/mnist", tmp_path / "kept")
    assert check(kept) == []
    for seed in range(times):
        rng = random.Random(seed)
        victim = kept / rng.choice(["table1.csv", "table2.csv"])
        before = victim.read_bytes()
        victim.write_bytes(damaged(before, rng))
        if victim.read_bytes() == before:
            continue
        said = refusal(check, kept)
        assert check(kept) if said is None else str(victim) in said, seed
        victim.write_bytes(before)
