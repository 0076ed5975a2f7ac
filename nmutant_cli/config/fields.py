"""The kinds of number and name that settings hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("float_type", "Input should be a number")
    return value


NUMBER = BeforeValidator(_no_truth_value)
"""Text is read as a number, for YAML takes 1e-3 for a word; true and false are none. To stand
last, or pydantic leaves the limits out of the JSON schema."""
Number = Annotated[float, Field(allow_inf_nan=False), NUMBER]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), NUMBER]
PositiveInt = Annotated[int, Field(gt=0, le=10_000_000, strict=True)]
Count = Annotated[int, Field(ge=0, le=10_000_000, strict=True)]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False), NUMBER]
AboveOne = Annotated[float, Field(gt=1, allow_inf_nan=False), NUMBER]
DropRate = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False), NUMBER]
ErrorRate = Annotated[float, Field(gt=0, lt=0.5, allow_inf_nan=False), NUMBER]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
DatasetName = Literal["digits", "mnist", "cifar10"]
NetworkName = Literal[
    "mnist", "cifar10_basic", "cifar10_allconv", "cifar10_resnet", "substitute"
]  # fmt: skip
DROPOUT_LAYERS = {
    "mnist": 0, "cifar10_basic": 1, "cifar10_allconv": 3, "cifar10_resnet": 0, "substitute": 0
}  # fmt: skip
"""How many dropout layers each network has."""
Kind = Literal["light", "occlusion", "blackout", "gaussian", "translation", "rotation", "contrast"]
DetectorName = Literal[
    "kappa", "kappa_calibrated", "occlusion", "gaussian", "translation", "rotation", "contrast",
    "softmax", "margin", "energy", "odds", "squeezing",
    "models_gf", "models_ws", "models_ns", "models_nai", "lid",
]  # fmt: skip


def _first_line(schema: dict[str, Any]) -> None:
    """What follows it in a docstring is for Python, not for the JSON schema."""
    if "description" in schema:
        schema["description"] = schema["description"].splitlines()[0]


def without_null(value: Any) -> Any:
    """A mapping without the entries set to null, which leaves out what a config has."""
    if not isinstance(value, dict):
        return value
    return {key: entry for key, entry in value.items() if entry is not None}


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_first_line)
