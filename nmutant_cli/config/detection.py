"""The section ``detection``: the sequential test, and what the published rows asked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from nmutant_cli.config.fields import (
    AboveOne,
    ErrorRate,
    Fraction,
    Name,
    Positive,
    PositiveInt,
    Section,
    without_null,
)


class Protocol(Section):
    """What is asked of the samples of a set."""

    model: Name | None = None
    """Whose labels: those of this network instead of the attacked one's."""
    true_label: bool = False
    """A label is changed where it is not the true one, instead of not the sample's own."""
    right_only: bool = False
    """Only of the samples whose own label is the true one."""

    def __str__(self) -> str:
        said = [
            f"labels of {self.model}" if self.model else "",
            "against the true label" if self.true_label else "",
            "right ones only" if self.right_only else "",
        ]
        return ", ".join(filter(None, said)) or "own label"


OWN = Protocol()
"""The network that was attacked, against the label that it gives: what every row asks."""


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
    as_published: dict[Name, Protocol] = Field(default_factory=dict)
    """The sample sets whose published rows answer another question: under the rule ``published``,
    they have a row more in Table 2, which is the one that is judged."""

    @field_validator("as_published", mode="before")
    @classmethod
    def _left_out(cls, value: Any) -> Any:
        return without_null(value)

    @field_validator("rules", "mu")
    @classmethod
    def _distinct(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names a value twice")
        return value

    def protocols(self) -> dict[str, Protocol]:
        """``as_published``, where its rule is asked for."""
        return self.as_published if "published" in self.rules else {}

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
