"""Local intrinsic dimensionality (Ma et al., ICLR 2018, arXiv 1801.02613).

A logistic regression on the LID of an image's activations at every layer. Where this is not the
authors' code:

- Neighbours are looked for in one fixed minibatch of clean images, drawn once, where theirs is
  the minibatch an image happens to be in; so a score hangs on no other image.
- Negatives are clean images alone, without their noisy copies, whose noise has to be tuned to
  each attack.
- The input, dropout and flattening are no layers here: the last two repeat the layer before.
- Features are standardised, not scaled to [0, 1], and the regression is not cross-validated.
"""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nmutant_cli.detectors.contract import Candidate, NetworkView
from nmutant_cli.errors import DataError
from nmutant_cli.networks import backend
from nmutant_cli.networks.inference import padded_batches
from nmutant_cli.types import AnyArray, Floats, Images

NEIGHBOURS = 20
MINIBATCH = 100
CLEAN, KNOWN = 200, 10
"""The fewest images that `LID.fit` takes."""
LIMIT = 1000
SKIPPED = (keras.layers.InputLayer, keras.layers.Dropout, keras.layers.Flatten)


def lid(points: AnyArray, reference: AnyArray, k: int = NEIGHBOURS) -> Floats:
    """Maximum-likelihood LID of ``points (n, d)`` in ``reference (m, d)``: ``(n,)``.

    ``-1 / mean(log(r_i / r_k))`` over the distances r_1 to r_k of the k nearest in the reference,
    the point itself left out. `LIMIT` at most, where k distances are equal; 0 where fewer than k
    are not 0, as at a layer that is dead.
    """
    distance = cdist(points, reference)
    # Two passes over one image may differ in the last bits of float32.
    distance[distance <= 1e-5 * np.median(distance, axis=1, keepdims=True)] = np.inf
    nearest = np.sort(distance, axis=1)[:, :k]
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = -np.log(nearest / nearest[:, -1:]).mean(axis=1)
    return np.where(np.isfinite(inverse), 1 / np.maximum(inverse, 1 / LIMIT), 0)


class LID(Candidate):
    """The regression's log odds of an image being adversarial."""

    title = "LID (supervised)"
    needs = "activations"
    supervised = True
    passes = 1.0

    def __init__(self, view: NetworkView) -> None:
        super().__init__(view)
        outputs = [layer.output for layer in view.model.layers if not isinstance(layer, SKIPPED)]
        self._activations = keras.Model(view.model.inputs, outputs)
        self._activations.compile(jit_compile=backend.jit())
        self._reference: list[AnyArray] = []
        self._regression = make_pipeline(
            StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)
        )

    def fit(self, clean: Images, known: Images) -> None:
        for name, images, fewest in (("clean", clean, CLEAN), ("known", known, KNOWN)):
            if len(images) < fewest:
                raise DataError(f"lid: {len(images)} {name} images, needs {fewest} or more")
        order = self.view.stream("lid", "reference").permutation(len(clean))
        self._reference = next(self._layers(clean[order[:MINIBATCH]]))
        negatives, positives = self._features(clean[order[MINIBATCH:]]), self._features(known)
        adversarial = np.repeat([0, 1], [len(negatives), len(positives)])
        self._regression.fit(np.concatenate([negatives, positives]), adversarial)

    def score(self, images: Images) -> Floats:
        if not len(images):
            return np.zeros(0)
        return self._regression.decision_function(self._features(images))

    def _features(self, images: Images) -> Floats:
        """The LID at each layer, ``(n, layers)``."""
        return np.concatenate(
            [
                np.stack([lid(*pair) for pair in zip(layers, self._reference, strict=True)], axis=1)
                for layers in self._layers(images)
            ]
        )

    def _layers(self, images: Images) -> Iterator[list[AnyArray]]:
        """Activations of each layer, ``(100, size)``, a minibatch at a time: they can be large."""
        for batch, used in padded_batches(images, MINIBATCH):
            layers = self._activations.predict_on_batch(batch)
            yield [np.asarray(layer)[:used].reshape(used, -1) for layer in layers]
