"""How a network is built and trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from nmutant_cli.config.fields import (
    DROPOUT_LAYERS,
    NUMBER,
    DropRate,
    NetworkName,
    Number,
    Positive,
    PositiveInt,
    Section,
)


class Model(Section):
    """How a network is built and trained."""

    network: NetworkName
    epochs: PositiveInt = 6
    batch_size: PositiveInt = 128
    learning_rate: Positive = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    """``cosine``: the learning rate falls to 0 along half a cosine over all epochs."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False), NUMBER] = 0
    """Of every weight, times the learning rate, at each step (AdamW)."""
    augment: bool = False
    """Each epoch moves every image by up to 4 pixels and mirrors it left to right or not."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the layers compute in while training; weights and the saved file are float32."""
    label_range: tuple[Number, Number] | None = None
    """One-hot labels clipped to this range, [0.1 / 9, 0.9] for the published FGSM network."""
    initialization: Literal["paper", "keras"] = "paper"
    dropout: tuple[DropRate, ...] | None = None
    """Drop rates, where not the network's own."""
    stochastic_inference: bool = False
    """Leave dropout on when mutated images are labelled, as most likely for published CIFAR10."""

    @field_validator("label_range")
    @classmethod
    def _ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1] <= 1:
            raise ValueError("must be two rising numbers in [0, 1]")
        return value

    def has_dropout(self) -> bool:
        """Whether the network drops anything where its dropout is left on."""
        rated = self.dropout is None or any(self.dropout)
        return DROPOUT_LAYERS[self.network] > 0 and rated

    def recipe(self) -> dict[str, Any]:
        """What decides the trained weights, as the manifest has it.

        How dropout is treated at inference decides nothing, and neither does a later key where it
        says what was done before there was one.
        """
        written = self.model_dump(mode="json", exclude={"stochastic_inference"})
        later = {
            "schedule": "constant",
            "precision": "float32",
            "weight_decay": 0,
            "augment": False,
        }
        return {key: value for key, value in written.items() if (key, value) not in later.items()}
