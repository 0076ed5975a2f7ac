"""Label changes under mutated networks (Wang et al., ICSE 2019, arXiv 1812.05793).

The network is mutated instead of the image, by the operator Gaussian fuzzing: every weight gets
noise, its standard deviation ``rate`` times that of the weights of its tensor. The authors' code
replaces a share of the weights (the rate) by draws from the normal distribution that its tensor
has; here no weight is lost and all of them move.

The authors keep a mutant that has 90% of the network's accuracy. Clean images come without true
labels, so a mutant is kept here if it agrees with the network on 90% of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from nmutant_cli.detectors.contract import CountingDetector, NetworkView
from nmutant_cli.errors import ModelError
from nmutant_cli.networks.inference import logits_fn
from nmutant_cli.types import AnyArray, Bools, Images, Labels

RATES = (1.0, 0.7, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)
AGREEMENT = 0.9
PROBES = 10
"""Mutants that must all be good enough at a rate for it to be taken."""


class Mutant(NamedTuple):
    """All that it takes to make a mutated network again."""

    rate: float
    number: int
    attempt: int = 0


def fuzzed(weights: Sequence[AnyArray], rate: float, rng: np.random.Generator) -> list[AnyArray]:
    """``w + rate * std(w) * N(0, 1)`` for each tensor ``w``."""
    return [
        w + np.float32(rate * w.std()) * rng.standard_normal(w.shape, dtype=np.float32)
        for w in weights
    ]


class MutatedModels(CountingDetector):
    """The share of mutated networks that give an image another label, in [0, 1].

    `fit` takes the largest rate of `RATES` at which the first mutants are good enough. One copy
    of the network holds a mutant at a time.
    """

    title = "mutated networks (ICSE 2019)"
    needs = "weights"

    def __init__(self, view: NetworkView) -> None:
        super().__init__(view)
        self.mutants: list[Mutant] = []
        self._weights = [ops.convert_to_numpy(w) for w in view.model.trainable_variables]
        self._copy = keras.models.clone_model(view.model)
        self._copy.set_weights(view.model.get_weights())
        self._logits = logits_fn(self._copy, view.batch_size)

    def fit(self, clean: Images, known: Images) -> None:
        unmutated = self.view.labels(clean)

        def good(mutant: Mutant) -> bool:
            return bool((self._labels(mutant, clean) == unmutated).mean() >= AGREEMENT)

        for rate in RATES:
            if all(good(Mutant(rate, number)) for number in range(PROBES)):
                break
        else:
            raise ModelError(f"models: no mutant agrees on {AGREEMENT:.0%} of the clean images")
        self.mutants = [
            next(mutant for attempt in count() if good(mutant := Mutant(rate, number, attempt)))
            for number in range(self.mutations)
        ]

    def changes(self, images: Images) -> Bools:
        """Which mutants, in the order of their number, change which label: ``(n, mutants)``."""
        unmutated = self.view.labels(images)
        return np.stack([self._labels(m, images) != unmutated for m in self.mutants], axis=1)

    def _labels(self, mutant: Mutant, images: Images) -> Labels:
        rng = self.view.stream("models", mutant.number, mutant.attempt)
        values = fuzzed(self._weights, mutant.rate, rng)
        for variable, value in zip(self._copy.trainable_variables, values, strict=True):
            variable.assign(value)
        return self._logits(images).argmax(axis=1).astype(np.int64)
