"""Write docs/api.md: the public names, how each is called, and its docstring."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
NAMES = {
    "nmutant_cli": [
        "kappa", "calibrate", "Calibration", "Detector", "Verdict", "SequentialTest",
        "load_config", "Settings", "Experiment", "NMutantError",
    ],
    "nmutant_cli.own_model.detector": ["Verdicts"],
    "nmutant_cli.config.mutation": ["Mutation"],
    "nmutant_cli.torch": ["predict"],
}  # fmt: skip
"""Module and names, in the order of the page."""
HEAD = """\
# The library

Made from the docstrings by `make api`. What a user can put right is raised as an `NMutantError`.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for module, names in NAMES.items():
        for name in names:
            thing = getattr(importlib.import_module(module), name)
            parts += [f"## {name}\n", f"`from {module} import {name}`\n", *described(thing)]
    return "\n".join(parts)


def described(thing: Any) -> Iterator[str]:
    """How it is called and its docstring; of a class, its public methods too."""
    source = textwrap.dedent(inspect.getsource(thing))
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.ClassDef | ast.FunctionDef), thing
    methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
    made = [method for method in methods if method.name == "__init__"]
    yield fence(source, [node, *made, *fields(node)])
    yield markdown(node)
    for method in methods:
        if not method.name.startswith("_") and ast.get_docstring(method):
            yield f"### {node.name}.{method.name}\n"
            yield fence(source, [method])
            yield markdown(method)


def fields(node: ast.ClassDef | ast.FunctionDef) -> list[ast.stmt]:
    """What an object of this class holds."""
    if isinstance(node, ast.FunctionDef):
        return []
    kept = [item for item in node.body if isinstance(item, ast.AnnAssign | ast.Assign)]
    return [item for item in kept if not ast.unparse(item).startswith("_")]


def fence(source: str, nodes: list[Any]) -> str:
    """The lines of ``source`` that declare ``nodes``, without what is in functions and classes."""
    lines = source.splitlines()
    shown: list[str] = []
    for node in nodes:
        inside = getattr(node, "body", None)
        last = inside[0].lineno - 1 if inside else node.end_lineno
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        shown += lines[first - 1 : last]
    return "\n".join(["```python", *textwrap.dedent("\n".join(shown)).splitlines(), "```", ""])


def markdown(node: ast.ClassDef | ast.FunctionDef) -> str:
    """A docstring, its examples in fences."""
    lines: list[str] = []
    example = False
    for line in [*(ast.get_docstring(node) or "").splitlines(), ""]:
        if line.startswith(">>> ") and not example:
            lines.append("```pycon")
        example = example or line.startswith(">>> ")
        if not line and example:
            lines.append("```")
            example = False
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
