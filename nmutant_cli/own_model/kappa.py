"""kappa(x), the quantity of the paper, of any images under any model."""

from __future__ import annotations

import numpy as np

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.errors import ConfigError
from nmutant_cli.mutation.sensitivity import changes_of, streams
from nmutant_cli.own_model.answers import Answer
from nmutant_cli.own_model.images import checked
from nmutant_cli.own_model.model import labels_under
from nmutant_cli.types import AnyArray, Floats


def kappa(
    predict: Answer,
    images: AnyArray,
    step_size: float = 1,
    mutations: int = 500,
    seed: int = 0,
    *,
    mutation: Mutation | None = None,
    batch_size: int = 1000,
) -> Floats:
    """The share of mutations that change the label of each image (section 4): float64 ``(n,)``.

    ``predict``: from images, float32 ``(n, h, w, c)`` in [0, 1], to labels ``(n,)`` or scores
    ``(n, classes)``, asked about ``batch_size`` at a time or fewer. ``images``: such an array; each
    meets ``mutations`` of its own, which depend on what it shows and on ``seed`` alone.
    ``mutation``: how they are drawn.

    >>> import numpy as np
    >>> from nmutant_cli import kappa
    >>> def is_bright(images):
    ...     return (images.mean(axis=(1, 2, 3)) > 0.5).astype(int)
    >>> images = np.stack([np.full((8, 8, 1), grey) for grey in (0.501, 1.0)])
    >>> kappa(is_bright, images)  # at the boundary, and far from it
    array([0.41, 0.  ])

    Raises ConfigError for a step size or a number of mutations out of range, DataError for unfit
    images, ModelError for a model that gives something else.
    """
    if not 0 < step_size < np.inf:
        raise ConfigError(f"step_size: {step_size} is not allowed; it must be above 0")
    if mutations < 1:
        raise ConfigError(f"mutations: {mutations} is not allowed; it must be 1 or more")
    images = checked(images)
    mutation = mutation or Mutation()
    label = labels_under(predict, mutation, batch_size, images.shape[1:])(step_size)
    sources = streams(images, mutation, seed, "kappa")
    return changes_of(label, images, sources, mutations).mean(axis=1)
