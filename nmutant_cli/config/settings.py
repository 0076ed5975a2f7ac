"""Every setting of a run, typed, range-checked and frozen; configs/README.md explains each."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from nmutant_cli.config.attacks import AdaptiveParams, AnyAttack
from nmutant_cli.config.fields import (
    AboveOne,
    Count,
    DatasetName,
    DetectorName,
    ErrorRate,
    Fraction,
    Kind,
    Name,
    Positive,
    PositiveInt,
    Section,
)
from nmutant_cli.config.networks import Model
from nmutant_cli.errors import did_you_mean


def without_null(value: Any) -> Any:
    """A mapping without the entries set to null, which leaves out what a config has."""
    if not isinstance(value, dict):
        return value
    return {key: entry for key, entry in value.items() if entry is not None}


class VariantError(ValueError):
    """What is wrong with the settings of one of ``variants``."""

    def __init__(self, name: str, cause: ValidationError) -> None:
        super().__init__(f"variants.{name}: {cause.errors()[0]['msg']}")
        self.name, self.cause = name, cause


class Attack(Section):
    """The adversarial sample sets."""

    attempts: PositiveInt = 500
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


class Sensitivity(Section):
    """How kappa is measured."""

    step_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0, 5.0, 10.0)
    mutations: PositiveInt = 1000
    shared_mutations: bool = True
    """One list of mutations for all images and steps (as published), or fresh ones per image."""
    confidence: Fraction = 0.99

    @field_validator("step_sizes")
    @classmethod
    def _distinct(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names a step size twice")
        return value


class Detection(Section):
    """The sequential test."""

    rules: Annotated[
        tuple[Literal["wald", "algorithm1", "published"], ...], Field(min_length=1)
    ] = ("wald",)
    step_size: Positive = 1.0
    kappa1: Fraction | Literal["measured"] = "measured"
    """A number, or ``measured``: the upper end of the interval of the normal samples' kappa."""
    mu: Annotated[tuple[AboveOne, ...], Field(min_length=1)] = (
        1.2,
        1.5,
        1.8,
        2.0,
    )
    sigma: Positive | None = None
    """Half width of the indifference region; (mu - 1) * kappa1 where it is not given."""
    alpha: ErrorRate = 0.05
    beta: ErrorRate = 0.05
    cap: PositiveInt = 2000
    model: Name | None = None
    """Ask this network for the labels instead of the one that was attacked."""

    @field_validator("rules", "mu")
    @classmethod
    def _distinct(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names a value twice")
        return value

    def hypotheses(self, kappa1: float, mu: float) -> tuple[float, float]:
        """``(p0, p1)`` of Algorithm 1: mu * kappa1 -+ sigma.

        Raises ValueError unless ``0 < p0 < p1 < 1``.
        """
        sigma = (mu - 1) * kappa1 if self.sigma is None else self.sigma
        p0, p1 = mu * kappa1 - sigma, mu * kappa1 + sigma
        if p0 <= 0:
            raise ValueError(f"p0 = mu * kappa1 - sigma = {p0:g} must be above 0")
        if p1 >= 1:
            raise ValueError(f"p1 = mu * kappa1 + sigma = {p1:g} must be below 1")
        return p0, p1

    @model_validator(mode="after")
    def _hypotheses_exist(self) -> Detection:
        if self.kappa1 != "measured":
            for mu in self.mu:
                try:
                    self.hypotheses(self.kappa1, mu)
                except ValueError as error:
                    sigma = "" if self.sigma is None else f", sigma {self.sigma:g}"
                    raise ValueError(
                        f"kappa1 {self.kappa1:g}, mu {mu:g}{sigma}: {error}"
                    ) from error
        return self


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
