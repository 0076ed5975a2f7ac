"""What a model is here, and labels from whatever it answers."""

from __future__ import annotations

import site
import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nmutant_cli.errors import ModelError
from nmutant_cli.own_model.calibration import ModelIdentity
from nmutant_cli.own_model.text_labels import numbered
from nmutant_cli.types import AnyArray, Images, Labels

Answer = Callable[[Images], Any]
"""Images to labels ``(n,)`` or scores ``(n, classes)``; a Keras model is one."""
Shape = tuple[int | None, int | None, int | None]


@dataclass(frozen=True)
class OwnModel:
    """An opened model: ``predict``, the image ``shape`` it takes (None: any), what to call it.

    ``note`` is what the user should know of how it was read, or empty.
    """

    predict: Answer
    network: ModelIdentity
    shape: Shape | None = None
    note: str = ""


def as_labels(answer: Any, n: int) -> Labels:
    """Labels from what a model said of ``n`` images: the labels ``(n,)``, or of scores the best.

    Labels are whole numbers or texts.

    Raises ModelError for any other shape, or scores that are not numbers.
    """
    try:
        array = np.asarray(answer)
    except ValueError:
        raise ModelError("the model gave lists of different lengths, not an array") from None
    if array.shape == (n,) and (texts := numbered(array)) is not None:
        return texts
    if array.shape == (n,) and _whole(array):
        return array.astype(np.int64)
    if array.dtype.kind in "fiu" and array.ndim == 2 and len(array) == n and array.shape[1] > 1:
        if np.isnan(array).any():
            raise ModelError("the model gave NaN as a score")
        return array.argmax(axis=1).astype(np.int64)
    alone = "; make a label of a single score first" if array.size == n else ""
    raise ModelError(
        f"the model gave {array.dtype} of shape {array.shape} for {n} images; "
        f"it must give labels ({n},) or scores ({n}, classes){alone}"
    )


def _whole(array: AnyArray) -> bool:
    if array.dtype.kind == "f":
        return bool(np.isfinite(array).all() and not (array % 1).any())
    return array.dtype.kind in "iu"


def reason(error: BaseException) -> str:
    """What kind of error it is, what it says, and where in the user's own code, in one line."""
    text = " ".join(str(error).split())
    said = f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__
    return f"{said}{_place(error)}"


def _place(error: BaseException) -> str:
    """Where in the user's own code an error came up: the last line that is of no library."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parents[1])
    libraries = [*site.getsitepackages(), sysconfig.get_path("stdlib"), package]
    own = [f for f in frames if f.filename[0] != "<" and not f.filename.startswith((*libraries,))]
    return f", {own[-1].filename}:{own[-1].lineno}" if own else ""
