"""What is drawn as a mutation."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from nmutant_cli.config.fields import Kind, Positive, PositiveInt, Section


class Mutation(Section):
    """The random mutation operator (docs/protocol.md)."""

    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("light", "occlusion", "blackout")
    max_rectangle: PositiveInt = 3
    max_divisor: PositiveInt = 20
    amplitude: Positive = 1.0
    clip: bool = False

    @field_validator("kinds")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names a kind twice")
        return value
