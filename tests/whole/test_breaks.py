"""The list of deliberate breaks fits the code: whether tests notice them is for `make breaks`."""

from __future__ import annotations

import ast

from conftest import ROOT


def test_every_break_has_its_place(script):
    breaks = script("breaks").breaks()
    assert len({one.name for one in breaks}) == len(breaks) >= 60
    for one in breaks:
        broken = one.broken(ROOT)
        if one.file.endswith(".py"):
            ast.parse(broken)
        named = [word for word in one.tests.split() if word.startswith("tests/")]
        assert named
        assert all((ROOT / name).is_file() for name in named), one.name
