"""Every setting of a run, typed, range-checked and frozen; configs/README.md explains each."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from nmutant_cli.config.attacks import AdaptiveParams, AnyAttack
from nmutant_cli.config.detection import OWN, Detection
from nmutant_cli.config.fields import (
    Count,
    DatasetName,
    DetectorName,
    Fraction,
    Name,
    Positive,
    PositiveInt,
    Section,
    without_null,
)
from nmutant_cli.config.mutation import Mutation
from nmutant_cli.config.networks import Model
from nmutant_cli.errors import did_you_mean


class VariantError(ValueError):
    """What is wrong with the settings of one of ``variants``."""

    def __init__(self, name: str, cause: ValidationError) -> None:
        super().__init__(f"variants.{name}: {cause.errors()[0]['msg']}")
        self.name, self.cause = name, cause


class Attack(Section):
    """The adversarial sample sets."""

    attempts: PositiveInt = 500
    first: Count = 0
    """Test images left aside, from the start on; more where a set holds out more."""
    count_already_wrong: bool = True
    """An image that the network gets wrong before the attack counts as adversarial too."""
    eight_bit: bool = True
    """Measure the images as saved with 8 bits, against the label they had before saving."""
    stochastic: bool = False
    """Attack the network with its dropout on, under a fresh mask each time it is asked."""
    sets: dict[Name, AnyAttack] = Field(default_factory=dict)

    @field_validator("sets", mode="before")
    @classmethod
    def _left_out(cls, value: Any) -> Any:
        return without_null(value)

    @field_validator("sets")
    @classmethod
    def _reserved(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in ("normal", "wl"):
            if name in value:
                raise ValueError(f"the name {name!r} is reserved for the {name} samples")
        return value


class Samples(Section):
    """The sample sets that need no attack."""

    normal: Count = 500
    normal_correct_only: bool = False
    wl: Count = 500
    stochastic: bool = False
    """Of every set, record as a label what one pass says with dropout on, under a mask of its own,
    and compare mutations with it."""


class Sensitivity(Section):
    """How kappa is measured."""

    step_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0, 5.0, 10.0)
    mutations: PositiveInt = 1000
    shared_mutations: bool = True
    """One list of mutations for all images and steps (as published), or fresh ones per image."""
    confidence: Fraction = 0.99
    true_label: bool = False
    """A label is changed where it is not the true one, instead of not the sample's own."""

    @field_validator("step_sizes")
    @classmethod
    def _distinct(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names a step size twice")
        return value


class Compare(Section):
    """Detectors side by side (``nmutant compare``)."""

    detectors: Annotated[tuple[DetectorName, ...], Field(min_length=1)] = get_args(DetectorName)
    clean: Annotated[int, Field(ge=100, le=10_000_000, strict=True)] = 1000
    """Test images, none of them in a sample set, for fitting and for every threshold."""
    known: Name | None = None
    """The attack set, the first one if not given, half of which supervised detectors learn from."""
    mutations: PositiveInt = 200
    """Mutations of each image (and mutated networks) that a score counts label changes of."""
    clean_kappa: Fraction = 0.02
    """Where a step size is calibrated: the mean kappa of clean images it may reach."""

    @field_validator("detectors")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names a detector twice")
        return value


class Runtime(Section):
    """How the work is done; nothing here changes a result."""

    batch_size: PositiveInt | Literal["auto"] = 1000
    """Mutations labelled in one call of the network; ``auto`` measures what is fastest here."""
    exact_precision: Literal["auto", "float32"] = "auto"
    """``auto``: labels are come by cheaply, without asking or in bfloat16 first, and asked in
    float32 where that leaves a doubt; ``float32``: all are asked in float32."""


class Settings(Section):
    """Everything a run depends on.

    >>> from nmutant_cli import Settings
    >>> Settings(dataset="mnist", model={"network": "mnist", "epochs": 6}).detection.alpha
    0.05
    """

    dataset: DatasetName
    seed: Annotated[int, Field(ge=0, strict=True)] = 20180514
    model: Model
    variants: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    """Further networks: the settings in which each differs from ``model``."""
    attack: Attack = Attack()
    samples: Samples = Samples()
    mutation: Mutation = Mutation()
    sensitivity: Sensitivity = Sensitivity()
    detection: Detection = Detection()
    compare: Compare = Compare()
    runtime: Runtime = Runtime()

    @model_validator(mode="before")
    @classmethod
    def _nothing_asked_of_sets_left_out(cls, value: Any) -> Any:
        try:
            sets, asked = value["attack"]["sets"], value["detection"]["as_published"]
            kept = {slug: asked[slug] for slug in asked if sets.get(slug, asked) is not None}
        except (TypeError, LookupError, AttributeError):
            return value
        return value | {"detection": value["detection"] | {"as_published": kept}}

    @field_validator("variants", mode="before")
    @classmethod
    def _left_out(cls, value: Any) -> Any:
        return without_null(value)

    def model_settings(self, name: str) -> Model:
        """The settings of network ``name``: ``base`` or a variant."""
        base = self.model.model_dump()
        return Model.model_validate(base | (self.variants[name] if name != "base" else {}))

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if "base" in self.variants:
            raise ValueError("variants: the name 'base' stands for the model section")
        for name in self.variants:
            try:
                self.model_settings(name)
            except ValidationError as error:
                raise VariantError(name, error) from error
        known = ["base", *self.variants]
        used = {
            f"attack.sets.{key}.model": attack.model for key, attack in self.attack.sets.items()
        }
        if self.detection.model is not None:
            used["detection.model"] = self.detection.model
        for slug, protocol in self.detection.as_published.items():
            if protocol.model is not None:
                used[f"detection.as_published.{slug}.model"] = protocol.model
        for field, name in used.items():
            if name not in known:
                hint = did_you_mean(name, known)
                raise ValueError(
                    f"{field}: unknown network {name!r}; known are {', '.join(known)}{hint}"
                )
        if self.compare.known is not None and self.compare.known not in self.attack.sets:
            hint = did_you_mean(self.compare.known, self.attack.sets)
            raise ValueError(
                f"compare.known: no attack set is called {self.compare.known!r}; known are "
                f"{', '.join(self.attack.sets) or 'none'}{hint}"
            )
        steps = self.sensitivity.step_sizes
        if self.detection.kappa1 == "measured" and self.detection.step_size not in steps:
            raise ValueError(
                f"detection.step_size: kappa1 is measured, so {self.detection.step_size:g} must be "
                f"one of sensitivity.step_sizes ({', '.join(f'{s:g}' for s in steps)})"
            )
        if self.detection.kappa1 == "measured" and self.samples.normal < 2:
            raise ValueError("samples.normal: kappa1 is measured from at least 2 normal samples")
        return self

    @model_validator(mode="after")
    def _protocols_ask_something(self) -> Settings:
        sets = ("normal", *self.attack.sets, "wl")
        for slug, protocol in self.detection.as_published.items():
            field = f"detection.as_published.{slug}"
            if slug not in sets:
                hint = did_you_mean(slug, sets)
                raise ValueError(f"{field}: no such set; known are {', '.join(sets)}{hint}")
            if protocol == OWN:
                raise ValueError(f"{field}: asks nothing else than the other rows; leave it out")
            if protocol.right_only and slug != "normal":
                raise ValueError(
                    f"{field}.right_only: only for 'normal'; all of {slug!r} are wrong"
                )
        return self

    @model_validator(mode="after")
    def _dropout_can_be_left_on(self) -> Settings:
        sets = self.attack.sets
        attacked = {params.model for params in sets.values()}
        for section, on, names in (
            ("samples", self.samples.stochastic, {"base"} | attacked),
            ("attack", self.attack.stochastic, attacked),
        ):
            for name in sorted(names) if on else ():
                if not (model := self.model_settings(name)).has_dropout():
                    raise ValueError(
                        f"{section}.stochastic: network {name!r} ({model.network}) has no dropout "
                        "that could be left on; set it to false"
                    )
        for slug, params in sets.items() if self.attack.stochastic else ():
            if isinstance(params, AdaptiveParams) and params.substitute is None:
                raise ValueError(
                    f"attack.stochastic: 'adaptive' (attack.sets.{slug}) asks with dropout off; "
                    "set it to false, or leave the set out"
                )
        return self
