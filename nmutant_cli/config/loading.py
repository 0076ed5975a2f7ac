"""From a YAML file and ``--set`` to `Settings`, with errors that name file, field and remedy."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from nmutant_cli.config import attacks, settings
from nmutant_cli.config.settings import did_you_mean
from nmutant_cli.errors import ConfigError

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


def find(name: str) -> Path:
    """The config called ``name``: a path if there is such a file, else a name in `config_folder`.

    Raises ConfigError if there is neither.
    """
    with contextlib.suppress(OSError):  # such as a name that is too long
        if Path(name).is_file():
            return Path(name)
    folder = config_folder()
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name.removesuffix(".yaml") in known:
        return folder / f"{name.removesuffix('.yaml')}.yaml"
    hint = did_you_mean(Path(name).name.removesuffix(".yaml"), known)
    raise _error(
        f"--config {name}: no such file, nor one of the configs that come along: "
        f"{', '.join(known)}{hint}"
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


def load(
    name: str, overrides: Sequence[str] = (), seed: int | None = None
) -> tuple[Path, settings.Settings]:
    """Read config ``name``, apply ``section.key=value`` overrides and ``seed``, and validate.

    Raises ConfigError, in one line, for an unreadable file, malformed YAML, an unknown key or a
    value that is not allowed.
    """
    path = find(name)
    document = read(path)
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
        source = next((text for key, text in sources.items() if _covers(key, field)), path)
        raise _error(f"{source}: {problem}") from error


def validated(root: type[Valid], path: Path) -> Valid:
    """The YAML file at ``path`` as a ``root``. Raises ConfigError naming file and field."""
    document = read(path)
    try:
        return root.model_validate(document)
    except ValidationError as error:
        raise _error(f"{path}: {_explain(error, document, root)[1]}") from error


def json_schema() -> str:
    """The JSON schema of a config file, for editors."""
    return json.dumps(settings.Settings.model_json_schema(), indent=2) + "\n"


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


def _covers(changed: str, field: str) -> bool:
    """Whether ``field`` is what was ``changed``, or a part of it, or holds it."""
    inner, outer = f"{field}.", f"{changed}."
    return inner.startswith(outer) or outer.startswith(inner)


def _explain(
    error: ValidationError, document: Mapping[Any, Any], root: type[BaseModel] = settings.Settings
) -> tuple[str, str]:
    """The first field that is wrong, and ``field: what is wrong and what is allowed``."""
    # A list all of whose items are wrong is reported as too short as well.
    errors = [
        e for e in error.errors() if e["type"] != "too_short" or not e["ctx"]["actual_length"]
    ]
    first = errors[0]
    kind, value = first["type"], first["input"]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, settings.VariantError):
        field, problem = _explain(cause.cause, document["variants"][cause.name], settings.Model)
        return f"variants.{cause.name}.{field}", f"variants.{cause.name}.{problem}"
    places = [_place(e["loc"], document, root) for e in errors]
    place, section = places[0]
    field = ".".join(place)
    others = len({tuple(p) for p, _ in places}) - 1
    more = f" (and {others} more)" if others else ""
    if cause is not None and not field:  # of several sections: the message itself names the field
        return str(cause).partition(":")[0], f"{cause}{more}"
    if cause is not None:
        shown = "" if isinstance(value, dict) else f"{_show(value)} "
        return field, f"{field}: {shown}{cause}{more}"
    if kind == "extra_forbidden":
        known = _fields(section)
        listed = ", ".join(known)
        return (
            field,
            f"{field}: unknown key; known are {listed}{did_you_mean(place[-1], known)}{more}",
        )
    if kind == "invalid_key":
        return field, f"{field}: unknown key; keys are words{more}"
    if kind == "missing":
        return field, f"{field}: is missing{more}"
    if kind == "union_tag_not_found":
        listed = ", ".join(attacks.METHODS)
        return field, f"{field}.method: is missing; it must be one of {listed}{more}"
    if kind == "union_tag_invalid":
        field, value = f"{field}.method", first["ctx"]["tag"]
        allowed, words = ["one of " + ", ".join(attacks.METHODS)], list(attacks.METHODS)
    else:
        same = [e for e, (p, _) in zip(errors, places, strict=True) if p == place]
        allowed = [_allowed(e) for e in same]
        words = [word for e in same if e["type"] == "literal_error" for word in _words(e)]
    hint = did_you_mean(str(value), words) if isinstance(value, str) else ""
    required = " or ".join(dict.fromkeys(allowed))
    return field, f"{field}: {_show(value)} is not allowed; it must be {required}{hint}{more}"


_ALLOWED = {
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "below {lt:g}",
    "less_than_equal": "at most {le:g}",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "string_pattern_mismatch": "a name of small letters, digits, - and _",
    "tuple_type": "a list, such as [1, 2]",
    "dict_type": "a section (key: value)",
    "model_type": "a section (key: value)",
    "model_attributes_type": "a section (key: value)",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of at most {max_length}",
}


def _allowed(error: Any) -> str:
    """What may stand where pydantic found this error."""
    kind = error["type"]
    if kind == "literal_error":
        words = _words(error)
        return "one of " + ", ".join(words) if len(words) > 1 else repr(words[0])
    if kind in _ALLOWED:
        return _ALLOWED[kind].format(**error.get("ctx", {}))
    message: str = error["msg"]
    return message.removeprefix("Input should be ")


def _words(error: Any) -> list[str]:
    expected: str = error["ctx"]["expected"]
    return [word.strip().strip("'") for word in expected.replace(" or ", ", ").split(",")]


def _place(
    location: Sequence[int | str], document: Any, root: type[BaseModel]
) -> tuple[list[str], type[BaseModel] | None]:
    """The field as a user writes it, without pydantic's union tags, and the section it lies in."""
    place: list[str] = []
    section: type[BaseModel] | None = None
    inside: type[BaseModel] | None = root
    here = document
    for part in location:
        if len(place) == 3 and place[:2] == ["attack", "sets"] and inside is None:
            inside = attacks.METHODS.get(str(part))
            continue
        held = isinstance(here, Mapping) and part in here
        if not (held or part in _fields(inside) or isinstance(part, int)):
            continue
        section = inside
        place.append(str(part))
        if held:
            here = here[part]
        else:
            listed = isinstance(here, Sequence) and isinstance(part, int) and part < len(here)
            here = here[part] if listed else None
        found = inside.model_fields.get(str(part)) if inside else None
        annotation: Any = found.annotation if found else None
        inside = None
        union = get_origin(annotation) is UnionType
        for one in get_args(annotation) if union else (annotation,):  # of `X | None` the X
            if isinstance(one, type) and issubclass(one, BaseModel):
                inside = one
    return place, section


def _fields(section: type[BaseModel] | None) -> list[str]:
    fields = section.model_fields if section else {}
    return [field.alias or name for name, field in fields.items()]


def _show(value: Any) -> str:
    """``value`` as Python writes it, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits; endless nesting
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."
