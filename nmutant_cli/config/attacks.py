"""The parameters of each attack, under CleverHans's names."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import ConfigDict, Field, field_validator

from nmutant_cli.config.fields import (
    NUMBER,
    Count,
    Name,
    NetworkName,
    Positive,
    PositiveInt,
    Section,
)
from nmutant_cli.config.mutation import Mutation


class AttackParams(Section):
    """What every attack set has besides the parameters of its method.

    A class below is the one entry of an attack; its method is the name of its file in ``attacks/``.
    """

    printed: ClassVar[str]
    """How tables and figures call the method."""
    tensorflow_only: ClassVar[bool] = False
    """Whether CleverHans crafts it, which it does on TensorFlow."""
    title: str | None = None
    model: Name = "base"
    """The network that is attacked and measured: ``base`` or one of ``variants``."""
    targets: Literal["untargeted", "one", "others", "all"] = "untargeted"
    """``one``: each image goes to one class that is not its own; ``others``: to every such class;
    ``all``: to its own class too, which counts as an attempt and is left as it is
    (docs/protocol.md, MNIST: attacks)."""

    def gradients(self, values: int) -> int:
        """Gradients that an image of so many values takes at most."""
        return 1


class FGSMParams(AttackParams):
    printed: ClassVar[str] = "FGSM"
    method: Literal["fgsm"]
    eps: Positive = 0.3
    norm: Literal["inf", "1", "2"] = "inf"


class BIMParams(AttackParams):
    printed: ClassVar[str] = "BIM"
    tensorflow_only: ClassVar[bool] = True
    method: Literal["bim"]
    eps: Positive = 0.3
    eps_iter: Positive = 0.05
    nb_iter: PositiveInt = 10
    norm: Literal["inf", "2"] = "inf"

    def gradients(self, values: int) -> int:
        return self.nb_iter


class PGDParams(AttackParams):
    printed: ClassVar[str] = "PGD"
    tensorflow_only: ClassVar[bool] = True
    method: Literal["pgd"]
    eps: Positive = 0.3
    eps_iter: Positive = 0.05
    nb_iter: PositiveInt = 40
    norm: Literal["inf", "2"] = "inf"
    rand_init: bool = True

    def gradients(self, values: int) -> int:
        return self.nb_iter


class NearestParams(AttackParams):
    """What C&W and the attacks on detectors share: the search for the nearest image (L2)."""

    method: str
    confidence: Annotated[float, Field(ge=0, allow_inf_nan=False), NUMBER] = 0.0
    learning_rate: Positive = 5e-3
    binary_search_steps: PositiveInt = 5
    max_iterations: PositiveInt = 1000
    abort_early: bool = True
    initial_const: Positive = 1e-2
    restarts: Count = 0
    """Whole searches more, each from a random point near the image; the nearest image counts."""

    def gradients(self, values: int) -> int:
        return (1 + self.restarts) * self.binary_search_steps * self.max_iterations


class CWParams(NearestParams):
    printed: ClassVar[str] = "C&W"
    method: Literal["cw"]
    targets: Literal["untargeted", "one", "others", "all"] = "all"


class JSMAParams(AttackParams):
    printed: ClassVar[str] = "JSMA"
    method: Literal["jsma"]
    theta: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False), NUMBER] = 1.0
    gamma: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), NUMBER] = 0.1
    targets: Literal["one", "others", "all"] = "others"

    @field_validator("theta")
    @classmethod
    def _not_zero(cls, value: float) -> float:
        if value == 0:
            raise ValueError("must not be 0")
        return value

    def gradients(self, values: int) -> int:
        return 2 * int(values * self.gamma / 2)


class SubstituteParams(Section):
    """How an attacker trains a network of their own from a guarded one's labels."""

    network: NetworkName = "substitute"
    holdout: PositiveInt = 150
    data_aug: PositiveInt = 6
    """Rounds of training, with Jacobian augmentation between them."""
    lambda_: Annotated[float, Field(gt=0, alias="lambda", allow_inf_nan=False), NUMBER] = 0.1
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 128
    learning_rate: Positive = 1e-3

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)


class BlackBoxParams(SubstituteParams, AttackParams):
    printed: ClassVar[str] = "BB"
    method: Literal["blackbox"]
    eps: Positive = 0.3
    targets: Literal["untargeted"] = "untargeted"


class AdaptiveParams(NearestParams):
    printed: ClassVar[str] = "Adaptive"
    method: Literal["adaptive"]
    learning_rate: Positive = 0.1
    binary_search_steps: PositiveInt = 1
    max_iterations: Annotated[int, Field(ge=10, le=10_000_000, strict=True)] = 200
    abort_early: bool = False
    """Off, because the loss goes up and down with the draws."""
    initial_const: Positive = 10.0
    draws: PositiveInt = 20
    """Fresh mutations in each iteration."""
    step_size: Positive = 1.0
    mutation: Mutation = Mutation()
    """With ``step_size`` what the detector that is to be evaded draws."""
    tolerance: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False), NUMBER] = 0.0
    """Share of the mutants of ten iterations that may have another label all the same; at large
    steps no image is without, and a detector has to let that pass."""
    aim: Positive | None = None
    """The margin that mutants are pushed to, by default ``confidence``, which the image has to
    have."""
    substitute: SubstituteParams | None = None
    """Attack a substitute of the network, trained so, instead of the network itself."""
    targets: Literal["one", "others", "all"] = "others"

    def gradients(self, values: int) -> int:
        return super().gradients(values) * (1 + self.draws)


class PastSqueezingParams(NearestParams):
    printed: ClassVar[str] = "Past squeezing"
    method: Literal["past_squeezing"]
    bits: Annotated[int, Field(ge=1, le=8, strict=True)]
    """What the detector squeezes the depth to: 1 for grey images, 5 for colour."""
    targets: Literal["one", "others", "all"] = "others"

    def gradients(self, values: int) -> int:
        return 3 * super().gradients(values)


class NoiseParams(AttackParams):
    printed: ClassVar[str] = "Noise"
    method: Literal["noise"]
    eps: Positive = 3.0


AnyAttack = Annotated[
    FGSMParams
    | BIMParams
    | PGDParams
    | CWParams
    | JSMAParams
    | BlackBoxParams
    | AdaptiveParams
    | PastSqueezingParams
    | NoiseParams,
    Field(discriminator="method"),
]


METHODS: dict[str, type[AttackParams]] = {
    get_args(params.model_fields["method"].annotation)[0]: params
    for params in get_args(get_args(AnyAttack)[0])
}
"""The attacks by name."""
