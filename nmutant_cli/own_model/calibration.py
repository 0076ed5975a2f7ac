"""A calibrated detector as a small YAML file: the test, what is promised of it, the evidence.

`nmutant_cli.own_model.calibrate` makes one; `nmutant_cli.own_model.detector.Detector` follows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, model_validator

from nmutant_cli.config.fields import (
    Count,
    ErrorRate,
    Fraction,
    Number,
    Positive,
    PositiveInt,
    Section,
)
from nmutant_cli.config.loading import read, validated
from nmutant_cli.config.mutation import Mutation
from nmutant_cli.detection.sprt import SequentialTest
from nmutant_cli.errors import ConfigError
from nmutant_cli.files import digest_of, replacing
from nmutant_cli.own_model.scaling import Scaling

Share = Annotated[Number, Field(ge=0, le=1)]

HEADER = """\
# Written by `nmutant calibrate`, for `nmutant detect --calibration`.
# With `probability`, over the choice of the clean images, the share of normal inputs that are
# called adversarial is at most `false_alarm_rate`. It holds for this model, for inputs like
# those images, and only while nothing but comments is changed here; `digest` tells.
"""
VERSION = 1
"""Of the format of the file."""


@dataclass(frozen=True)
class Requirement:
    """What is asked of a test: chances in (0, 1), ``alpha`` and ``beta`` as in a `SequentialTest`.

    Raises ConfigError for others.
    """

    target: float = 0.05
    probability: float = 0.95
    power: float = 0.9
    alpha: float = 0.05
    beta: float = 0.05

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            top = 0.5 if name in ("alpha", "beta") else 1
            if not 0 < value < top:
                raise ConfigError(f"{name}: {value} is not allowed; it must be in (0, {top})")


class ModelIdentity(Section):
    """Which model was calibrated: its name as given and, for a file, its content.

    ``scaling``: what it was given of an image, where that was not the image itself.
    """

    name: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    scaling: Scaling | None = None


class Promise(Section):
    """P(rate of false alarms <= ``false_alarm_rate``) >= ``probability``.

    ``images`` clean ones certified it, ``alarms`` of them were allowed to be called adversarial.
    """

    false_alarm_rate: Fraction
    probability: Fraction
    images: PositiveInt
    alarms: Count


class Rate(Section):
    """``count`` of ``images``, with the 95% interval of Clopper and Pearson."""

    images: Count
    count: Count
    rate: Share
    interval: tuple[Share, Share]


class Evidence(Section):
    """What was seen on images that had no part in the choice of the test.

    ``false_alarms`` among clean images; ``detected`` in each adversarial set. ``wanted_power`` is
    the one that was asked for; ``expected_power`` and ``mean_mutations`` (of clean images) are
    exact for the kappas that were measured when the test was chosen. ``labels``: how many
    different ones the clean images get. ``doubts``: why the detector may be of no use.
    """

    labels: PositiveInt | None = None
    doubts: tuple[str, ...] = ()
    false_alarms: Rate
    detected: dict[str, Rate] = Field(default_factory=dict)
    wanted_power: Fraction
    expected_power: Share
    mean_mutations: Number
    seed: Count

    @property
    def power(self) -> float:
        """The share of adversarial images found, a mean over the sets; without any, expected."""
        rates = [rate.rate for rate in self.detected.values()]
        return sum(rates) / len(rates) if rates else self.expected_power


class Calibration(Section):
    """All that a detector needs besides the model; p0, p1 and the rest as in a `SequentialTest`.

    >>> from nmutant_cli import Calibration
    >>> Calibration(step_size=1, p0=0.01, p1=0.05, cap=500).test
    SequentialTest(rule='wald', p0=0.01, p1=0.05, alpha=0.05, beta=0.05, cap=500)
    """

    rule: Literal["wald", "algorithm1", "published"] = "wald"
    step_size: Positive
    p0: Fraction
    p1: Fraction
    alpha: ErrorRate = 0.05
    beta: ErrorRate = 0.05
    cap: PositiveInt
    mutation: Mutation = Mutation()
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    network: ModelIdentity | None = None
    promise: Promise | None = None
    evidence: Evidence | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Calibration:
        if self.p0 >= self.p1:
            raise ValueError(f"p1: must be above p0 ({self.p0:g}), it is {self.p1:g}")
        return self

    @property
    def test(self) -> SequentialTest:
        """The sequential test of one input."""
        return SequentialTest(self.rule, self.p0, self.p1, self.alpha, self.beta, self.cap)

    def save(self, path: Path | str) -> None:
        """Write it as YAML, whole or not at all. Raises ArtifactError if that is not possible."""
        content = self.model_dump(mode="json", exclude_none=True)
        text = yaml.safe_dump(
            {"version": VERSION, **content, "digest": digest_of(content)},
            sort_keys=False,
            default_flow_style=None,
        )
        with replacing(Path(path)) as temporary:
            temporary.write_text(HEADER + text, encoding="utf-8")

    @staticmethod
    def load(path: Path | str) -> Calibration:
        """Read what `save` wrote, or what was written by hand, which cannot promise anything.

        Raises ConfigError, naming file and field, for anything unknown, missing or out of range,
        and for a promise of a file that was changed.
        """
        path = Path(path)
        content = read(path)
        version, digest = content.pop("version", VERSION), content.pop("digest", None)
        if version != VERSION:
            raise ConfigError(
                f"{path}: version: {version!r} of the format is not known here, {VERSION} is; "
                "use the nmutant that wrote it, or calibrate again"
            )
        calibration = validated(Calibration, path, content)
        if calibration.promise is not None and digest != digest_of(content):
            raise ConfigError(
                f"{path}: digest: the file was changed after it was written, so what it promises "
                "does not hold; calibrate again, or take promise, evidence and digest out of it"
            )
        return calibration
