"""What a model is given of an image in [0, 1], where it was trained on another range."""

from __future__ import annotations

from typing import Any

import numpy as np

from nmutant_cli.config.fields import Number, Positive, Section
from nmutant_cli.errors import ConfigError, DataError
from nmutant_cli.types import Floats, Images


class Scaling(Section):
    """``(scale * image - mean) / std``; ``mean`` and ``std`` are one number or one a channel."""

    scale: Positive = 1.0
    mean: tuple[Number, ...] = (0.0,)
    std: tuple[Positive, ...] = (1.0,)

    @property
    def factor(self) -> Floats:
        """What a value is multiplied with, ``(1,)`` or ``(channels,)``."""
        return self.scale / np.array(self.std)

    @property
    def offset(self) -> Floats:
        """What is added then, ``(1,)`` or ``(channels,)``."""
        return -np.array(self.mean) / np.array(self.std)

    def check(self, channels: int) -> None:
        """Raises DataError unless there is one number for all channels, or one for each."""
        for name in ("mean", "std"):
            given = len(getattr(self, name))
            if given not in (1, channels):
                raise DataError(f"{name}: has {given} values, the images have {channels} channels")

    def __call__(self, images: Images) -> Images:
        """The scaled images, float32 and of the same shape."""
        self.check(images.shape[3])
        return images * self.factor.astype(np.float32) + self.offset.astype(np.float32)

    def __str__(self) -> str:
        mean, std = (",".join(f"{v:g}" for v in values) for values in (self.mean, self.std))
        return f"--scale {self.scale:g} --mean {mean} --std {std}"


def scaling(scale: Any = 1.0, mean: Any = 0.0, std: Any = 1.0) -> Scaling:
    """A `Scaling` from numbers or arrays. Raises ConfigError for what cannot be one."""
    values = {}
    for name, given in (("scale", scale), ("mean", mean), ("std", std)):
        array = np.atleast_1d(np.asarray(given, np.float64))
        good = array.ndim == 1 and array.size and np.isfinite(array).all()
        if (
            not good
            or (name != "mean" and not (array > 0).all())
            or (name == "scale" and len(array) > 1)
        ):
            above = "" if name == "mean" else " above 0"
            one = "" if name == "scale" else ", or one for each channel"
            raise ConfigError(f"{name}: {given} is not allowed; give a number{above}{one}")
        values[name] = tuple(array.tolist())
    return Scaling(scale=values["scale"][0], mean=values["mean"], std=values["std"])
