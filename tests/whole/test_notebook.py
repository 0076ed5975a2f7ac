"""docs/quickstart.ipynb runs from top to bottom, and shows what it says."""

from __future__ import annotations

import re

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"


def printed(notebook):
    """What its cells print, without what is logged."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(o["text"] for o in outputs if o.get("name") == "stdout")


@pytest.mark.filterwarnings("ignore")  # of the kernel, a process of its own
def test_it_runs_and_finds_the_adversarial_images():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    saved = printed(notebook)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": ROOT / "docs"}}).execute()
    text = printed(notebook)
    for said in (saved, text):  # the page shows what a run shows
        clean, adversarial = map(float, re.search(r"clean (\S+), adversarial (\S+)", said).groups())
        assert adversarial > 3 * clean > 0
        found = dict(re.findall(r"^(\w+): (\d+) of 449", said, re.MULTILINE))
        assert int(found["clean"]) <= 0.1 * 449
        assert int(found["adversarial"]) >= 0.8 * 449
    assert re.sub(r"\d+", "", saved) == re.sub(r"\d+", "", text)
