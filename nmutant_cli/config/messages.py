"""What is said of a setting that is not allowed: the field, the value, and what may stand there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from nmutant_cli.config import attacks, networks, settings
from nmutant_cli.errors import did_you_mean


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
        field, problem = _explain(cause.cause, document["variants"][cause.name], networks.Model)
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
