"""What is said of a setting that is not allowed: the field, the value, and what may stand there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    # What is missing may only be misspelt: the unknown key says more.
    errors.sort(key=lambda e: e["type"] == "missing")
    kind, cause = errors[0]["type"], errors[0].get("ctx", {}).get("error")
    if isinstance(cause, settings.VariantError):
        field, problem = _explain(cause.cause, document["variants"][cause.name], networks.Model)
        return f"variants.{cause.name}.{field}", f"variants.{cause.name}.{problem}"
    places = [_place(e["loc"], document, root) for e in errors]
    place, section = places[0]
    same = [e for e, (p, _) in zip(errors, places, strict=True) if p == place]
    field = ".".join([*place, "method"] if kind == "union_tag_invalid" else place)
    problem = _KINDS.get(kind, _not_allowed)(field, same, section)
    others = len({tuple(p) for p, _ in places}) - 1
    more = f" (and {others} more)" if others else ""
    return field or problem.partition(":")[0], f"{problem}{more}"


def _broken_rule(field: str, errors: Sequence[Any], _: object) -> str:
    cause, value = errors[0]["ctx"]["error"], errors[0]["input"]
    shown = "" if isinstance(value, dict) else f"{_show(value)} "
    # A rule about several sections names the field itself.
    return f"{field}: {shown}{cause}" if field else str(cause)


def _unknown_key(field: str, errors: Sequence[Any], section: type[BaseModel] | None) -> str:
    known = _fields(section)
    hint = did_you_mean(str(errors[0]["loc"][-1]), known)
    return f"{field}: unknown key; known are {', '.join(known)}{hint}"


def _not_allowed(field: str, errors: Sequence[Any], _: object) -> str:
    value = errors[0].get("ctx", {}).get("tag", errors[0]["input"])
    allowed = " or ".join(dict.fromkeys(map(_allowed, errors)))
    words = [word for error in errors for word in _words(error)]
    hint = did_you_mean(value, words) if isinstance(value, str) else ""
    return f"{field}: {_show(value)} is not allowed; it must be {allowed}{hint}"


_KINDS: dict[str, Callable[[str, Sequence[Any], type[BaseModel] | None], str]] = {
    "value_error": _broken_rule,
    "extra_forbidden": _unknown_key,
    "invalid_key": lambda field, *_: f"{field}: unknown key; keys are words",
    "missing": lambda field, *_: f"{field}: is missing",
    "union_tag_not_found": lambda field, *_: (
        f"{field}.method: is missing; it must be one of {', '.join(attacks.METHODS)}"
    ),
}
"""What is said of an error of each kind; `_not_allowed` speaks of all others."""

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
    if words := _words(error):
        return "one of " + ", ".join(words) if len(words) > 1 else repr(words[0])
    if error["type"] in _ALLOWED:
        return _ALLOWED[error["type"]].format(**error.get("ctx", {}))
    return str(error["msg"]).removeprefix("Input should be ")


def _words(error: Any) -> list[str]:
    """The few words of which one must stand there, if it is so."""
    ctx = error.get("ctx", {})
    listed = ctx.get("expected", ctx.get("expected_tags", ""))
    return [word.strip(" '") for word in listed.replace(" or ", ", ").split(",") if word]


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
        listed = isinstance(here, Sequence) and isinstance(part, int) and part < len(here)
        here = here[part] if held or listed else None
        setting = inside.model_fields.get(str(part)) if inside else None
        annotation: Any = setting.annotation if setting else None
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
