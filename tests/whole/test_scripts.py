"""The scripts that measure the project itself."""

import numpy as np
import pandas as pd
import pytest

import nmutant_cli


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


def test_the_api_page_is_that_of_the_docstrings(script):
    api_page = script("api_page")
    assert api_page.PAGE.read_text(encoding="utf-8") == api_page.page(), "run make api"
    named = {name for names in api_page.NAMES.values() for name in names}
    assert named >= {*nmutant_cli.__all__} - {"__version__"}
