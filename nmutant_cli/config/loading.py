"""From a YAML file and ``--set`` to `Settings`, with errors that name file, field and remedy."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from nmutant_cli.config import settings
from nmutant_cli.config.messages import _explain, _show
from nmutant_cli.errors import ConfigError, did_you_mean

Valid = TypeVar("Valid", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Plain YAML, but a key that stands twice in one section is an error."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    problem = f"the key {key.value!r} stands twice in one section"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add((key.tag, key.value))
        return node


def config_folder() -> Path:
    """Where the configs live: inside the wheel, or beside the package in a checkout."""
    package = Path(str(files("nmutant_cli")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find(
    name: str, beside: Path = Path(), asked: str = "--config ", folder: Path | None = None
) -> Path:
    """The config called ``name``: a file in the folder ``beside``, else a name in ``folder``.

    That is `config_folder` if not given. Raises ConfigError if there is neither; ``asked`` says
    where the name stands.
    """
    with contextlib.suppress(OSError):  # such as a name that is too long
        if (beside / name).is_file():
            return beside / name
    folder = folder or config_folder()
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name.removesuffix(".yaml") in known:
        return folder / f"{name.removesuffix('.yaml')}.yaml"
    hint = did_you_mean(Path(name).name.removesuffix(".yaml"), known)
    raise _error(
        f"{asked}{name}: no such file, nor one of those that come along: {', '.join(known)}{hint}"
    )


def read(path: Path) -> dict[str, Any]:
    """The settings in a YAML file, not validated.

    Raises ConfigError, in one line, for an unreadable file or malformed YAML.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise _error(f"{where}: not valid YAML: {error.problem or error.context}") from error
    except OSError as error:
        raise _error(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # PyYAML lets many kinds through, as for the date 2020-13-01
        raise _error(f"{path}: not valid YAML: {error}") from error
    if not isinstance(document, dict):
        held = "nothing" if document is None else _show(document)
        raise _error(f"{path}: must hold settings (key: value), it holds {held}")
    return document


def merged(base: Mapping[Any, Any], difference: Mapping[Any, Any]) -> dict[Any, Any]:
    """``base`` changed by ``difference``: sections entry by entry, everything else as a whole."""
    both = dict(base)
    for key, value in difference.items():
        old = both.get(key)
        both[key] = (
            merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return both


def _chain(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The config at ``path``, then those it extends, each with the settings in its own file."""
    chain: dict[Path, tuple[Path, dict[str, Any]]] = {}
    while True:
        document = read(path)
        chain[path.resolve()] = path, document
        if "extends" not in document:
            return list(chain.values())
        base = document.pop("extends")
        if not isinstance(base, str):
            raise _error(
                f"{path}: extends: {_show(base)} is not allowed; it must be a text, "
                "the name or the path of a config"
            )
        extended = find(base, path.parent, f"{path}: extends: ")
        if extended.resolve() in chain:
            raise _error(f"{path}: extends: {base} extends this config in turn; name another")
        path = extended


def load(
    name: str,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    difference: Mapping[str, Any] | None = None,
) -> tuple[Path, settings.Settings]:
    """Read config ``name`` and those it extends, and validate.

    Changed, in this order, by the settings in ``difference``, by ``section.key=value`` overrides
    and by ``seed``.

    Raises ConfigError, in one line, for an unreadable file, malformed YAML, an unknown key or a
    value that is not allowed.
    """
    path = find(name)
    chain = _chain(path)
    document: dict[str, Any] = {}
    for _, own in reversed(chain):
        document = merged(document, own)
    document = merged(document, difference or {})
    sources: dict[str, str] = {}
    for override in overrides:
        sources[_override(document, override)] = f"--set {override}"
    if seed is not None:
        document["seed"] = seed
        sources["seed"] = f"--seed {seed}"
    try:
        return path, settings.Settings.model_validate(document)
    except ValidationError as error:
        field, problem = _explain(error, document)
        said = [text for key, text in sources.items() if _covers(key, field)]
        source = [*said, *(file for file, own in chain if _holds(own, field)), path][0]
        raise _error(f"{source}: {problem}") from error


def validated(root: type[Valid], path: Path, document: Mapping[str, Any] | None = None) -> Valid:
    """The YAML file at ``path``, or what was `read` of it, as a ``root``.

    Raises ConfigError naming file and field.
    """
    document = read(path) if document is None else document
    try:
        return root.model_validate(document)
    except ValidationError as error:
        raise _error(f"{path}: {_explain(error, document, root)[1]}") from error


def load_config(
    name: str, overrides: Sequence[str] = (), seed: int | None = None
) -> settings.Settings:
    """What ``--config``, ``--set`` and ``--seed`` say: `load` without the path, and its errors.

    >>> from nmutant_cli import load_config
    >>> load_config("mnist", ["detection.cap=500"], seed=7).detection.cap
    500
    """
    return load(name, overrides, seed)[1]


def json_schema() -> str:
    """The JSON schema of a config file, for editors.

    A config that extends another may leave out any key, and with null an entry of the other one.
    """
    schema = settings.Settings.model_json_schema()
    needed = schema["required"]
    _nothing_required(schema)
    extends = {"type": "string", "description": "The config that this one is the difference to."}
    schema["properties"] = {"extends": extends, **schema["properties"]}
    schema |= {"if": {"not": {"required": ["extends"]}}, "then": {"required": needed}}
    return json.dumps(schema, indent=2) + "\n"


def _nothing_required(schema: Any) -> None:
    """Take back, in place, what a whole config must have and a difference need not."""
    if isinstance(schema, dict):
        schema.pop("required", None)
        if schema.pop("discriminator", None):  # without its method an attack may be of several
            schema["anyOf"] = schema.pop("oneOf")
        for name, entry in schema.get("patternProperties", {}).items():
            schema["patternProperties"][name] = {"anyOf": [entry, {"type": "null"}]}
    for inner in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(inner, dict | list):
            _nothing_required(inner)


def _error(text: str) -> ConfigError:
    """In one line that a terminal can show, whatever was in the file."""
    line = " ".join(text.split())
    return ConfigError("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))


def _override(document: dict[str, Any], text: str) -> str:
    """Apply ``section.key=value`` in place; returns ``section.key``."""
    field, equals, value = text.partition("=")
    keys = field.strip().split(".")
    if not equals or not all(keys):
        raise _error(f"--set {text}: must look like section.key=value")
    try:
        parsed = yaml.load(value, _Loader)
    except Exception as error:
        raise _error(f"--set {text}: the value is not valid YAML") from error
    section = document
    for key in keys[:-1]:
        inner = section.get(key)
        if inner is not None and not isinstance(inner, dict):
            raise _error(f"--set {text}: {key} is a value, not a section")
        # A copy: a YAML alias may have put the same section in two places.
        section[key] = dict(inner or {})
        section = section[key]
    section[keys[-1]] = parsed
    return ".".join(keys)


def _holds(document: Any, field: str) -> bool:
    """Whether ``field``, or a list or value that it is a part of, is set in ``document``."""
    for key in field.split("."):
        if not isinstance(document, dict):
            return True
        if key not in document:
            return False
        document = document[key]
    return True


def _covers(changed: str, field: str) -> bool:
    """Whether ``field`` is what was ``changed``, or a part of it, or holds it."""
    inner, outer = f"{field}.", f"{changed}."
    return inner.startswith(outer) or outer.startswith(inner)
