"""From a YAML file and ``--set`` to `Settings`, with errors that name file, field and remedy."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from nmutant_cli import config
from nmutant_cli.errors import ConfigError


def config_folder() -> Path:
    """Where the configs live: inside the wheel, or beside the package in a checkout."""
    package = Path(str(files("nmutant_cli")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find(name: str) -> Path:
    """The config called ``name``: a path if there is such a file, else a name in `config_folder`.

    Raises ConfigError if there is neither.
    """
    if Path(name).is_file():
        return Path(name)
    folder = config_folder()
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    stem = name.removesuffix(".yaml")
    if stem in known:
        return folder / f"{stem}.yaml"
    raise ConfigError(
        f"{name}: no such config file, nor one of the configs that come along: "
        f"{', '.join(known)}{_did_you_mean(stem, known)}"
    )


def load(
    name: str, overrides: Sequence[str] = (), seed: int | None = None
) -> tuple[Path, config.Settings]:
    """Read config ``name``, apply ``section.key=value`` overrides and ``seed``, and validate.

    Raises ConfigError, in one line, for an unreadable file, malformed YAML, an unknown key or a
    value that is not allowed.
    """
    path = find(name)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not valid YAML: {error.problem}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: must hold settings (section: ...), it holds {document!r:.40}")
    for override in overrides:
        _override(document, override)
    if seed is not None:
        document["seed"] = seed
    try:
        return path, config.Settings.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error, document)}") from error


def json_schema() -> str:
    """The JSON schema of a config file, for editors."""
    return json.dumps(config.Settings.model_json_schema(), indent=2) + "\n"


def _override(document: dict[str, Any], text: str) -> None:
    field, equals, value = text.partition("=")
    keys = field.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {text}: must look like section.key=value")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text}: the value is not valid YAML") from error
    section = document
    for key in keys[:-1]:
        if section.get(key) is None:
            section[key] = {}
        section = section[key]
        if not isinstance(section, dict):
            raise ConfigError(f"--set {text}: {key} is a value, not a section")
    section[keys[-1]] = parsed


def _explain(error: ValidationError, document: dict[str, Any]) -> str:
    """The first thing that is wrong, as ``field: value ... what is allowed``."""
    first = error.errors()[0]
    place, section = _place(first["loc"])
    field = ".".join(place) or "settings"
    rest = len(error.errors()) - 1
    more = f" (and {rest} more)" if rest else ""
    value = first["input"]
    kind, context = first["type"], first.get("ctx", {})
    if kind == "extra_forbidden":
        known = [f.alias or name for name, f in section.model_fields.items()] if section else []
        return f"{field}: unknown key{_did_you_mean(place[-1], known)}{more}"
    if kind == "missing":
        return f"{field}: is missing{more}"
    if kind == "union_tag_not_found":
        return f"{field}.method: is missing; one of {context.get('discriminator', 'method')}s: " + (
            ", ".join(config.METHODS) + more
        )
    if kind == "union_tag_invalid":
        tag = str(context["tag"])
        hint = _did_you_mean(tag, config.METHODS)
        return f"{field}.method: {tag!r} is not one of {', '.join(config.METHODS)}{hint}{more}"
    if kind == "value_error":
        cause = str(context["error"])
        message = cause if value is None or isinstance(value, dict) else f"{value!r} {cause}"
        return f"{field}: {message}{more}" if place else f"{cause}{more}"
    if kind == "literal_error":
        names = [n.strip().strip("'") for n in context["expected"].replace(" or ", ", ").split(",")]
        hint = _did_you_mean(str(value), names)
        return f"{field}: {value!r} is not one of {', '.join(names)}{hint}{more}"
    message = first["msg"].replace("Input should", "should")
    return f"{field}: {value!r:.60} is not allowed: it {message[0].lower()}{message[1:]}{more}"


def _place(location: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel] | None]:
    """The field as a user writes it, without pydantic's union tags, and the section it lies in."""
    place: list[str] = []
    section: type[BaseModel] | None = config.Settings
    inside: type[BaseModel] | None = section
    for part in location:
        if len(place) == 3 and place[:2] == ["attack", "sets"] and part in config.METHODS:
            inside = config.METHODS[str(part)]
            continue
        if not isinstance(part, int) and part in ("float", "constrained-float", "literal['measured']"):
            continue
        section = inside
        place.append(str(part))
        found = inside.model_fields.get(str(part)) if inside else None
        annotation = found.annotation if found else None
        inside = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    return place, section


def _did_you_mean(word: str, known: Sequence[str] | Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


