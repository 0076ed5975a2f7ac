"""Random noise of a given length: the control, which an attack has to be better than."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nmutant_cli.attacks.batches import BATCH_SIZE, PredictLogits
from nmutant_cli.config.attacks import NoiseParams
from nmutant_cli.types import Bounds, Images, Labels


def run(
    predict_logits: PredictLogits,
    x: Images,
    y: Labels,
    params: NoiseParams,
    bounds: Bounds,
    rng: Sequence[np.random.Generator],
    *,
    batch_size: int = BATCH_SIZE,
) -> Images:
    """``x`` plus a step of L2 length ``eps`` in a direction uniform over all directions.

    ``rng`` holds one generator per image, for its direction; the network and ``y`` are not used.
    Returns images of the shape of ``x``. `craft` clips them to ``bounds``, which shortens the step:
    of an image half of whose pixels are black, by about a quarter of its square.
    """
    directions = np.stack([generator.standard_normal(x.shape[1:]) for generator in rng])
    length = np.linalg.norm(directions.reshape(len(x), -1), axis=1)
    steps = params.eps * directions / length.reshape(-1, 1, 1, 1)
    return x + steps.astype(np.float32)
