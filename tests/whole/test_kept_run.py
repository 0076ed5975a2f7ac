"""A run folder of version 0.1.0, before the package had its folders, is used as it is.

``tests/data/run-0.1.0`` was made by that version's ``nmutant detect`` with the options of `TINY`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from conftest import nmutant, options

KEPT = Path(__file__).parents[1] / "data" / "run-0.1.0"


def test_a_run_of_the_first_version_is_not_made_again(tmp_path):
    folder = Path(shutil.copytree(KEPT, tmp_path / "run"))
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    outcome = nmutant("detect", *options(folder))
    assert outcome.code == 0, outcome
    after = json.loads((folder / "manifest.json").read_text())["artefacts"]
    kept = json.loads(before[folder / "manifest.json"])["artefacts"]
    assert {name: after[name] for name in kept} == kept
    for path, content in before.items():
        assert path.name == "manifest.json" or path.read_bytes() == content, path


def test_another_setting_makes_what_hangs_on_it_again(tmp_path):
    folder = Path(shutil.copytree(KEPT, tmp_path / "run"))
    kept = json.loads((folder / "manifest.json").read_text())["artefacts"]
    assert nmutant("detect", *options(folder, "detection.cap=90")).code == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["settings"]["detection"]["cap"] == 90  # resolved, as a whole
    assert manifest["settings"]["detection"]["alpha"] == 0.05
    after = manifest["artefacts"]
    moved = {name for name in kept if after[name]["digest"] != kept[name]["digest"]}
    assert moved == {name for name in kept if name.startswith("detections")}


def test_later_settings_of_an_attack_make_its_set_again(tmp_path):
    kept = json.loads((KEPT / "manifest.json").read_text())["artefacts"]
    for change, moved in (
        ("attack.sets.cw.restarts=1", {"adversarial/cw.npz"}),
        ("attack.first=1", {f"adversarial/{name}.npz" for name in ("fgsm", "cw", "jsma", "bb")}),
    ):
        folder = Path(shutil.copytree(KEPT, tmp_path / change))
        assert nmutant("attack", *options(folder, change)).code == 0
        after = json.loads((folder / "manifest.json").read_text())["artefacts"]
        crafted = {name for name in kept if name.startswith("adversarial/")}
        again = {n for n in crafted if after[n]["ingredients"] != kept[n]["ingredients"]}
        assert again == moved
