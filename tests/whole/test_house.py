"""The house: imports run one way, functions and files stay small."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "nmutant_cli"
FLOORS = (
    ("errors", "types", "seeding"),
    ("files",),
    ("config",),
    ("paper", "datasets"),
    ("networks",),
    ("mutation",),
    ("detection",),
    ("attacks", "detectors"),
    ("own_model", "report"),
    ("torch",),
    ("pipeline",),
    ("studies",),
    ("cli",),
)
"""From the ground up: a room may import from the floors below its own, and from itself."""
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(module: str) -> str:
    """The room of ``nmutant_cli.ROOM.FILE``; empty for the package itself."""
    return f"{module}.".split(".")[1]


def imported(source: str) -> set[str]:
    """The rooms that a file imports from, wherever in it, typing included."""
    rooms = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "nmutant_cli":
            rooms |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nmutant_cli."):
            rooms.add(room_of(node.module or ""))
        elif isinstance(node, ast.Import):
            rooms |= {room_of(a.name) for a in node.names if a.name.startswith("nmutant_cli.")}
    return rooms & set(FLOOR)


def against_the_rule(room: str, source: str) -> set[str]:
    """What a file in ``room`` imports from its own floor or above."""
    return {other for other in imported(source) if other != room and FLOOR[other] >= FLOOR[room]}


def test_the_rule_is_broken_by_what_breaks_it():
    upwards = "def f():\n    from nmutant_cli.pipeline.samples import SampleSet\n"
    assert against_the_rule("report", upwards) == {"pipeline"}
    assert against_the_rule("paper", "from nmutant_cli import datasets") == {"datasets"}
    assert against_the_rule("cli", upwards) == set()


def test_every_room_has_a_floor():
    rooms = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()}
    assert rooms - {"__init__", "__pycache__", "py"} == set(FLOOR)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room != "__init__":  # the package itself, which imports only when asked
        assert not against_the_rule(room, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_small(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 300
    long = {
        node.name: lines
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > 60
    }
    assert not long
