"""Every setting of a run, typed, range-checked and frozen.

``config_file`` reads YAML into these models; ``configs/README.md`` explains each key to users.
Attack settings carry CleverHans's parameter names.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
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
PositiveInt = Annotated[int, Field(gt=0, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False), NUMBER]
AboveOne = Annotated[float, Field(gt=1, allow_inf_nan=False), NUMBER]
DropRate = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False), NUMBER]
ErrorRate = Annotated[float, Field(gt=0, lt=0.5, allow_inf_nan=False), NUMBER]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]

DatasetName = Literal["digits", "mnist", "cifar10"]
NetworkName = Literal["mnist", "cifar10_basic", "cifar10_allconv", "substitute"]

TITLES = {"fgsm": "FGSM", "cw": "C&W", "jsma": "JSMA", "blackbox": "BB", "bim": "BIM", "pgd": "PGD"}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to append to an error, empty where nothing known comes close to ``word``."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


class VariantError(ValueError):
    """What is wrong with the settings of one of ``variants``."""

    def __init__(self, name: str, cause: ValidationError) -> None:
        super().__init__(f"variants.{name}: {cause.errors()[0]['msg']}")
        self.name, self.cause = name, cause


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(Section):
    """How a network is built and trained."""

    network: NetworkName
    epochs: PositiveInt = 6
    batch_size: PositiveInt = 128
    learning_rate: Positive = 1e-3
    label_range: tuple[Number, Number] | None = None
    """One-hot labels clipped to this range, [0.1 / 9, 0.9] for the published FGSM network."""
    initialization: Literal["paper", "keras"] = "paper"
    dropout: tuple[DropRate, ...] | None = None
    """Drop rates, where not the network's own."""
    stochastic_inference: bool = False
    """Leave dropout on when labels are asked for, as the published CIFAR10 run most likely did."""

    @field_validator("label_range")
    @classmethod
    def _ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1] <= 1:
            raise ValueError("must be two rising numbers in [0, 1]")
        return value


class AttackParams(Section):
    """What every attack set has besides the parameters of its method."""

    title: str | None = None
    model: Name = "base"
    """The network that is attacked and measured: ``base`` or one of ``variants``."""
    targets: Literal["untargeted", "others", "all"] = "untargeted"
    """``others``: each image goes to every class but its own; ``all``: to its own class too,
    which counts as an attempt and is left as it is (section 2 of the published protocol)."""


class FGSMParams(AttackParams):
    method: Literal["fgsm"]
    eps: Positive = 0.3
    norm: Literal["inf", "1", "2"] = "inf"


class BIMParams(AttackParams):
    method: Literal["bim"]
    eps: Positive = 0.3
    eps_iter: Positive = 0.05
    nb_iter: PositiveInt = 10
    norm: Literal["inf", "2"] = "inf"


class PGDParams(AttackParams):
    method: Literal["pgd"]
    eps: Positive = 0.3
    eps_iter: Positive = 0.05
    nb_iter: PositiveInt = 40
    norm: Literal["inf", "2"] = "inf"
    rand_init: bool = True


class CWParams(AttackParams):
    method: Literal["cw"]
    confidence: Annotated[float, Field(ge=0, allow_inf_nan=False), NUMBER] = 0.0
    learning_rate: Positive = 5e-3
    binary_search_steps: PositiveInt = 5
    max_iterations: PositiveInt = 1000
    abort_early: bool = True
    initial_const: Positive = 1e-2
    targets: Literal["untargeted", "others", "all"] = "all"


class JSMAParams(AttackParams):
    method: Literal["jsma"]
    theta: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False), NUMBER] = 1.0
    gamma: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), NUMBER] = 0.1
    targets: Literal["others", "all"] = "others"

    @field_validator("theta")
    @classmethod
    def _not_zero(cls, value: float) -> float:
        if value == 0:
            raise ValueError("must not be 0")
        return value


class BlackBoxParams(AttackParams):
    method: Literal["blackbox"]
    network: NetworkName = "substitute"
    holdout: PositiveInt = 150
    data_aug: PositiveInt = 6
    """Rounds of training, with Jacobian augmentation between them."""
    lambda_: Annotated[float, Field(gt=0, alias="lambda", allow_inf_nan=False), NUMBER] = 0.1
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 128
    learning_rate: Positive = 1e-3
    eps: Positive = 0.3
    targets: Literal["untargeted"] = "untargeted"

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)


AnyAttack = Annotated[
    FGSMParams | BIMParams | PGDParams | CWParams | JSMAParams | BlackBoxParams,
    Field(discriminator="method"),
]


METHODS: dict[str, type[AttackParams]] = {
    "fgsm": FGSMParams,
    "bim": BIMParams,
    "pgd": PGDParams,
    "cw": CWParams,
    "jsma": JSMAParams,
    "blackbox": BlackBoxParams,
}


class Attack(Section):
    """The adversarial sample sets."""

    attempts: PositiveInt = 500
    count_already_wrong: bool = True
    """An image that the network gets wrong before the attack counts as adversarial too."""
    eight_bit: bool = True
    """Measure the images as saved with 8 bits, against the label they had before saving."""
    sets: dict[Name, AnyAttack] = {}

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


class Mutation(Section):
    """The random mutation operator (protocol, section 2)."""

    kinds: Annotated[
        tuple[Literal["light", "occlusion", "blackout"], ...], Field(min_length=1, max_length=3)
    ] = ("light", "occlusion", "blackout")
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


class Runtime(Section):
    """How the work is done; nothing here changes a result."""

    batch_size: PositiveInt = 1000
    """Mutations labelled in one call of the network."""


class Settings(Section):
    """Everything a run depends on."""

    dataset: DatasetName
    seed: Annotated[int, Field(ge=0, strict=True)] = 20180514
    model: Model
    variants: dict[Name, dict[str, Any]] = {}
    """Further networks: the settings in which each differs from ``model``."""
    attack: Attack = Attack()
    samples: Samples = Samples()
    mutation: Mutation = Mutation()
    sensitivity: Sensitivity = Sensitivity()
    detection: Detection = Detection()
    runtime: Runtime = Runtime()

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
        steps = self.sensitivity.step_sizes
        if self.detection.kappa1 == "measured" and self.detection.step_size not in steps:
            raise ValueError(
                f"detection.step_size: kappa1 is measured, so {self.detection.step_size:g} must be "
                f"one of sensitivity.step_sizes ({', '.join(f'{s:g}' for s in steps)})"
            )
        if self.detection.kappa1 == "measured" and self.samples.normal < 2:
            raise ValueError("samples.normal: kappa1 is measured from at least 2 normal samples")
        return self
