"""Label changes under mutated networks (Wang et al., ICSE 2019, arXiv 1812.05793).

The network is mutated instead of the image, by one of four operators (`weight_operators`). The
authors keep a mutant that has 90% of the network's accuracy. Clean images come without true labels,
so a mutant is kept here if it agrees with the network on 90% of them, and another one drawn if not;
and where they name a rate for each network, the largest is taken that gives such mutants.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import ClassVar, NamedTuple

import keras
import numpy as np
from keras import ops

from nmutant_cli.detectors.contract import CountingDetector, NetworkView
from nmutant_cli.detectors.weight_operators import OPERATORS
from nmutant_cli.errors import ModelError
from nmutant_cli.networks.inference import logits_fn
from nmutant_cli.types import Bools, Images, Labels

RATES = (
    1.0, 0.7, 0.5, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01,
    0.007, 0.005, 0.003, 0.002, 0.001,
)  # fmt: skip
AGREEMENT = 0.9
PROBES = 10
"""Mutants by which a rate is judged."""


class Mutant(NamedTuple):
    """All that it takes to make a mutated network again."""

    rate: float
    number: int
    attempt: int = 0


class MutatedModels(CountingDetector):
    """The share of mutated networks that give an image another label, in [0, 1].

    `fit` takes the largest rate of `RATES` at which the first mutants are all good enough; where
    there is none, as a single neuron can be too much, the largest at which most of them are. One
    copy of the network holds a mutant at a time.
    """

    needs = "weights"
    operator: ClassVar[str]
    """One of `OPERATORS`."""

    def __init__(self, view: NetworkView) -> None:
        super().__init__(view)
        self.mutants: list[Mutant] = []
        self._copy = keras.models.clone_model(view.model)
        self._copy.set_weights(view.model.get_weights())
        # What a normalization does to a neuron's output is no part of the neuron.
        self._variables = [
            v for v in self._copy.trainable_variables if v.name not in {"gamma", "beta"}
        ]
        self._weights = [ops.convert_to_numpy(v) for v in self._variables]
        self._logits = logits_fn(self._copy, view.batch_size)

    def fit(self, clean: Images, known: Images) -> None:
        unmutated = self.view.labels(clean)

        def good(mutant: Mutant) -> bool:
            return bool((self._labels(mutant, clean) == unmutated).mean() >= AGREEMENT)

        rate = self._largest_rate(good)
        self.mutants = [
            next(mutant for attempt in count() if good(mutant := Mutant(rate, number, attempt)))
            for number in range(self.mutations)
        ]

    def _largest_rate(self, good: Callable[[Mutant], bool]) -> float:
        for least in (PROBES, PROBES // 2 + 1):
            for rate in RATES:
                if sum(good(Mutant(rate, number)) for number in range(PROBES)) >= least:
                    return rate
        raise ModelError(
            f"{self.title}: most mutants do not agree on {AGREEMENT:.0%} of the clean images at "
            "any rate; leave it out of compare.detectors"
        )

    def changes(self, images: Images) -> Bools:
        """Which mutants, in the order of their number, change which label: ``(n, mutants)``."""
        unmutated = self.view.labels(images)
        return np.stack([self._labels(m, images) != unmutated for m in self.mutants], axis=1)

    def _labels(self, mutant: Mutant, images: Images) -> Labels:
        rng = self.view.stream("models", self.operator, mutant.number, mutant.attempt)
        values = OPERATORS[self.operator](self._weights, mutant.rate, rng)
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)
        return self._logits(images).argmax(axis=1).astype(np.int64)


class GaussianFuzzing(MutatedModels):
    title = "mutated networks, GF"
    operator = "GF"


class WeightShuffle(MutatedModels):
    title = "mutated networks, WS"
    operator = "WS"


class NeuronSwitch(MutatedModels):
    title = "mutated networks, NS"
    operator = "NS"


class ActivationInverse(MutatedModels):
    title = "mutated networks, NAI"
    operator = "NAI"
