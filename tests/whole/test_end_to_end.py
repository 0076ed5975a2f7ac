"""The whole experiment on the embedded digits, at a tiny size."""

import json
import shutil
import subprocess
import sys
import zipfile
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, command, environment, nmutant, options

SETS = {"normal": "normal", "fgsm": "FGSM", "cw": "C&W", "jsma": "JSMA", "bb": "BB", "wl": "WL"}
STEPS = [1, 5, 10]
MUS = [1.2, 1.5, 1.8, 2]
CSV = ("kappa.csv", "detections.csv", "table1.csv", "table2.csv", "roc.csv", "relabelling.csv")
PICTURES = ("ratio", "kappa", "roc", "neighbourhood", "panel")


def artefacts(folder: Path) -> dict[str, tuple[int, str]]:
    """When each file was written, and what is in it."""
    from nmutant_cli.files import file_digest

    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, file_digest(path))
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def table(folder, name):
    return pd.read_csv(folder / name, keep_default_na=False)


def test_table_1(finished):
    found = table(finished, "table1.csv")
    measured = ["kappa_percent", "ci99_percent", "kappa_low", "kappa_high"]
    assert list(found) == ["dataset", "step_size", "samples", "n", *measured]
    assert list(found["samples"]) == list(SETS.values()) * 3
    assert list(found["step_size"]) == [step for step in STEPS for _ in SETS]
    assert set(found["dataset"]) == {"digits"}
    kappa = table(finished, "kappa.csv")
    for row in found.itertuples():
        slug = next(slug for slug, title in SETS.items() if title == row.samples)
        own = kappa[(kappa["samples"] == slug) & (kappa["step_size"] == row.step_size)]
        assert row.n == len(own)
        assert float(row.kappa_percent) == pytest.approx(100 * own["kappa"].mean(), abs=0.006)


def test_table_2(finished):
    found = table(finished, "table2.csv")
    assert list(found) == [
        "dataset", "samples", "rule", "kappa1", "mu", "n", "adversary", "identified",
        "accuracy_percent", "mutations", "label_changes", "undecided",
    ]  # fmt: skip
    assert list(dict.fromkeys(found["samples"])) == ["FGSM", "C&W", "JSMA", "BB", "WL", "normal"]
    assert len(found) == len(SETS) * 2 * len(MUS)
    assert set(found["rule"]) == {"published", "wald"}
    assert set(found["mu"]) == set(MUS)
    rows = table(finished, "detections.csv")
    for row in found[found["samples"] != "normal"].itertuples():
        slug = next(slug for slug, title in SETS.items() if title == row.samples)
        own = rows[(rows["samples"] == slug) & (rows["rule"] == row.rule) & (rows["mu"] == row.mu)]
        assert row.adversary == len(own)
        assert row.identified == (own["verdict"] == "adversarial").sum()
        assert row.undecided == (own["verdict"] == "undecided").sum()
    assert found["identified"].sum() > 0


def test_the_command_ends_with_what_was_found_and_where_the_page_is(finished):
    assert (finished.parent / "stderr").read_text() == ""
    *sentences, blank, last = (finished.parent / "stdout").read_text().splitlines()
    assert len(sentences) == 3
    assert (blank, last) == ("", f"open {finished / 'report.html'}")
    page = unescape((finished / "report.html").read_text())
    assert all(sentence in page for sentence in sentences)
    for name in (*CSV[2:], *(f"figures/{name}.png" for name in PICTURES)):
        assert (finished / name).is_file()


def test_the_sample_sets(finished):
    from nmutant_cli.datasets import load_dataset
    from nmutant_cli.pipeline.samples import SampleSet, to_8_bits

    data = load_dataset("digits")
    for slug in SETS:
        part = "adversarial" if slug not in ("normal", "wl") else "samples"
        samples = SampleSet.load(finished / part / f"{slug}.npz")
        assert len(samples) == 12
        original = (data.x_train if slug == "wl" else data.x_test)[samples.index]
        difference = (samples.image - original).reshape(12, -1).astype(float)
        np.testing.assert_array_equal(samples.image8, to_8_bits(samples.image))
        np.testing.assert_array_equal(
            samples.l0, (np.abs(original - samples.image) > 0).sum((1, 2, 3))
        )
        np.testing.assert_allclose(samples.linf, np.abs(difference).max(axis=1), atol=1e-6)
        np.testing.assert_allclose(samples.l2, np.sqrt((difference**2).sum(axis=1)), atol=1e-5)
        if part == "adversarial":
            np.testing.assert_array_equal(samples.counts, samples.label != samples.true)
    wrong = SampleSet.load(finished / "samples" / "wl.npz")
    assert (wrong.label != wrong.true).all()


def test_pictures_and_page(finished):
    for name in PICTURES:
        assert (finished / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(PICTURES)
    assert "C&amp;W" in page
    assert str(finished) not in page


def test_the_manifest(finished):
    from nmutant_cli.files import digest_of, file_digest

    entries = json.loads((finished / "manifest.json").read_text())["artefacts"]
    assert set(entries) == set(artefacts(finished)) - {"manifest.json"}
    for name, entry in entries.items():
        assert entry["sha256"] == file_digest(finished / name)
        assert entry["digest"] == digest_of(entry["ingredients"])
        assert entry["seconds"] >= 0
        assert {"python", "numpy", "keras", "tensorflow"} <= set(entry["versions"])
    for name in ("model.keras", "adversarial/cw.npz", "kappa/fgsm.csv", "detections/wl.csv"):
        assert entries[name]["ingredients"]["seed"] == 20180514
        assert entries[name]["ingredients"]["dataset"] == "digits"
    assert entries["model.keras"]["counts"].keys() == {
        "train_accuracy", "test_accuracy", "parameters", "training_seconds",
    }  # fmt: skip
    assert entries["adversarial/fgsm.npz"]["counts"]["attempts"] == 12


def test_a_second_run_makes_nothing_again(folder):
    before = artefacts(folder)
    outcome = nmutant("run", "-v", *options(folder))
    assert outcome.code == 0
    assert outcome.stderr == ""
    assert artefacts(folder) == before


def test_one_changed_parameter_remakes_its_own_set_only(folder):
    before = artefacts(folder)
    assert nmutant("run", *options(folder, "attack.sets.jsma.gamma=0.02")).code == 0
    after = artefacts(folder)
    changed = {name for name in after if after[name][0] != before[name][0]}
    joined = {*CSV, "manifest.json", "report.html"}
    figures = {f"figures/{name}.png" for name in PICTURES}
    own = {"adversarial/jsma.npz", "kappa/jsma.csv", "detections/jsma.csv"}
    assert changed == own | joined | figures


def test_changed_names_and_intervals_measure_nothing_again(folder):
    before = artefacts(folder)
    changes = ("attack.sets.jsma.title=Papernot", "sensitivity.confidence=0.9")
    assert nmutant("run", *options(folder, *changes)).code == 0
    after = artefacts(folder)
    for name in after:
        if name.startswith(("model", "samples/", "adversarial/", "kappa/", "detections/")):
            assert after[name] == before[name]
    assert "Papernot" in (folder / "table1.csv").read_text()


def test_another_batch_size_gives_the_same_but_for_images_on_a_boundary(folder):
    kappa, detections = table(folder, "kappa.csv"), table(folder, "detections.csv")
    for part in ("kappa", "detections"):
        shutil.rmtree(folder / part)
    assert nmutant("run", *options(folder, "runtime.batch_size=37")).code == 0
    again = table(folder, "kappa.csv")
    flips = (kappa["changes"] - again["changes"]).abs().sum()
    assert flips <= 0.001 * kappa["mutations"].sum()
    again = table(folder, "detections.csv")
    assert (detections["mutations"] != again["mutations"]).mean() < 0.02
    assert (detections["verdict"] != again["verdict"]).mean() < 0.02


@pytest.mark.slow
def test_another_seed_is_another_experiment(folder, finished):
    assert nmutant("measure-kappa", *options(folder), "--seed", "3").code == 0
    assert (folder / "model.keras").read_bytes() != (finished / "model.keras").read_bytes()
    ours, theirs = (table(path, "kappa.csv") for path in (folder, finished))
    assert not ours["source_index"].equals(theirs["source_index"])


def test_the_same_seed_gives_the_same_tables_in_another_process(finished, tmp_path):
    done = subprocess.run(
        command("run", "-q", *options(tmp_path / "run")),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    text = (finished.parent / "stdout").read_text()
    assert done.stdout.replace(str(tmp_path / "run"), "") == text.replace(str(finished), "")
    for name in CSV:
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


def test_the_wheel_carries_everything(tmp_path):
    pytest.importorskip("hatchling")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("nmutant-*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        (scripts,) = (name for name in names if name.endswith("/entry_points.txt"))
        assert "nmutant = nmutant_cli.cli:main" in file.read(scripts).decode()
        for path in (ROOT / "configs").glob("*.yaml"):
            assert file.read(f"nmutant_cli/configs/{path.name}") == path.read_bytes()
    for name in (
        "py.typed",
        "report/templates/report.html.j2",
        "paper/published_table1.csv",
        "cli/__init__.py",
        "attacks/__init__.py",
    ):
        assert f"nmutant_cli/{name}" in names
    assert not any(name.startswith(("tests/", "results/")) for name in names)
