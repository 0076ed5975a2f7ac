"""A model in a file that takes a batch of images with its axes in one order or the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nmutant_cli.errors import ModelError
from nmutant_cli.own_model.answers import OwnModel, reason
from nmutant_cli.own_model.calibration import ModelIdentity
from nmutant_cli.types import AnyArray, Images

FEW = (1, 3, 4)
"""As many channels as an image may have; what else a shape has there is a height."""


def opened(
    name: str,
    network: ModelIdentity,
    sizes: Sequence[int | None],
    dtype: Any,
    run: Callable[[AnyArray], Any],
) -> OwnModel:
    """The model that ``run`` is: from a batch of ``sizes`` (None: any) and ``dtype`` to scores.

    Raises ModelError if the order of the axes cannot be told.
    """
    batch, *dims = sizes
    first = _channels_first(name, dims)

    def answer(images: Images) -> AnyArray:
        x = (images.transpose(0, 3, 1, 2) if first else images).astype(dtype)
        size, out = batch or max(1, len(x)), []
        for start in range(0, len(x), size):
            part = np.ascontiguousarray(x[start : start + size])
            filled = np.zeros((size, *part.shape[1:]), dtype)  # a batch size may be fixed
            filled[: len(part)] = part
            try:
                scores = run(filled)
            except Exception as error:
                raise ModelError(f"{name}: failed on a batch ({reason(error)})") from error
            out.append(np.asarray(scores)[: len(part)])
        return np.concatenate(out)

    shape = (dims[1], dims[2], dims[0]) if first else (dims[0], dims[1], dims[2])
    order = "channels, height, width" if first else "height, width, channels"
    taken = ", ".join("any" if d is None else str(d) for d in dims)
    return OwnModel(answer, network, shape, f"takes ({order}) = ({taken})")


def _channels_first(name: str, dims: list[int | None]) -> bool:
    """By where the 1, 3 or 4 stands that can be the channels; last where both ends could be."""
    if dims[2] in FEW:
        return False
    if dims[0] in FEW:
        return True
    raise ModelError(
        f"{name}: takes images of shape {tuple(dims)}; neither the first nor the last number is "
        "1, 3 or 4 channels. Export it with a fixed number of channels"
    )
