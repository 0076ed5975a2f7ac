"""Labels of images with an occlusion, from the slopes of the logits by the pixels.

An occlusion is a small patch of mostly small values. So the logits after it are about what the
slopes at the image itself say, and what they leave out grows with the size of the patch: by
something between its first power, where the network bends at once, and its second, where it curves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nmutant_cli.mutation.doubt import Doubt
from nmutant_cli.mutation.operator import OCCLUSION, Mutations
from nmutant_cli.mutation.shortcut import Asking, Shortcut
from nmutant_cli.types import AnyArray, Bools, Floats, Images, Ints, Labels

POWER = 1.5
"""Of a patch's length, to which doubts are in proportion."""
LEAST = 1e-3
"""Length of a patch; what a smaller one leaves out is lost in rounding."""
GRADIENT = 2
"""Forward passes in float32 that the gradient of one logit takes, about."""
MOST = 100_000
"""Values that the gradients of one image may have."""


@dataclass(frozen=True)
class Gradients:
    """``of(images)``: logits ``(n, classes)`` and their gradients ``(n, classes, h, w, c)``.

    ``side``: of the patch that an occlusion adds.
    """

    of: Callable[[Images], tuple[AnyArray, AnyArray]]
    classes: int
    side: int


class Slopes(Shortcut):
    """`Shortcut` for occlusion.

    ``times``: how many times as fast as in float32 a label is asked.
    """

    def __init__(
        self,
        images: Images,
        gradients: Gradients,
        step_size: float,
        times: float,
        doubt: Doubt,
        asking: Asking,
    ) -> None:
        n, rows, columns, channels = images.shape
        super().__init__(n, doubt, int(GRADIENT * gradients.classes * times), asking)
        self._images, self._gradients, self._step = images, gradients, step_size
        self._logits = np.zeros((n, gradients.classes))
        # A patch may stick out below and on the right, with zeros.
        size = (n, rows + gradients.side, columns + gradients.side, gradients.classes, channels)
        self._slopes = np.zeros(size, np.float32)

    def takes(self, mutations: Mutations) -> Bools:
        """Occlusions."""
        return mutations.kind == OCCLUSION

    def find_out(self, images: Ints) -> None:
        """Their logits and slopes."""
        self._logits[images], slopes = self._gradients.of(self._images[images])
        rows, columns = self._images.shape[1:3]
        self._slopes[images, :rows, :columns] = np.moveaxis(slopes, 1, 3)

    def cheaply(self, owner: Ints, mutations: Mutations) -> tuple[Labels, Floats, Floats]:
        """What the logits are up to the first order, and the size of the patch."""
        patch = self._step * mutations.patch.astype(np.float64)
        inside = np.arange(patch.shape[1])
        row = (mutations.top[:, None] + inside)[:, :, None]
        column = (mutations.left[:, None] + inside)[:, None, :]
        slopes = self._slopes[owner[:, None, None], row, column]
        logits = self._logits[owner] + np.einsum("nijkc,nijc->nk", slopes, patch)
        two = np.sort(logits, axis=1)[:, -2:]
        length = np.maximum(np.sqrt((patch**2).sum(axis=(1, 2, 3))), LEAST)
        return logits.argmax(axis=1), two[:, 1] - two[:, 0], length**POWER
