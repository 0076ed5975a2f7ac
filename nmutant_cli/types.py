"""Names shared by every stage: bounds, verdicts, array and callable types."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
"""Images, shape ``(n, height, width, channels)``, float32, usually in [0, 1]."""

Labels = NDArray[np.int64]
"""Class indices, shape ``(n,)``."""

Predict = Callable[[Images], Labels]
"""A model as this project sees it: images in, labels out, nothing else."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
AnyArray = NDArray[Any]


class Bounds(NamedTuple):
    """The smallest and largest value a pixel may take."""

    lower: float
    upper: float


class Verdict(IntEnum):
    """What a sequential test says of one input.

    >>> from nmutant_cli import Verdict
    >>> [verdict.name for verdict in Verdict]
    ['UNDECIDED', 'NORMAL', 'ADVERSARIAL']
    """

    UNDECIDED = 0
    NORMAL = 1
    ADVERSARIAL = 2
