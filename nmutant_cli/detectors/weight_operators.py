"""The four operators by which Wang et al. (ICSE 2019) mutate networks, as in their public code.

Each is ``(weights, rate, rng) -> weights``: float32 tensors in Keras's order and layout (outputs
last, a bias after its kernel), and a rate in (0, 1]. A neuron is an output of a dense layer or a
filter of a convolution: ``tensor[..., k]``. At least one number, or neuron, is mutated. Nothing
given is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil, floor

import numpy as np

from nmutant_cli.types import AnyArray, Bools, Ints

Weights = Sequence[AnyArray]
Operator = Callable[[Weights, float, np.random.Generator], list[AnyArray]]
FEWEST = 10
"""A layer of fewer neurons is left alone by `neuron_switch`."""


def gaussian_fuzzing(weights: Weights, rate: float, rng: np.random.Generator) -> list[AnyArray]:
    """GF: a share ``rate`` of all numbers is drawn anew, from N(mean, std) of its tensor."""
    sizes = [w.size for w in weights]
    chosen = _share(sum(sizes), rate, rng)
    out = []
    for w, part in zip(weights, np.split(chosen, np.cumsum(sizes)[:-1]), strict=True):
        mutated = w.copy()
        mutated[part.reshape(w.shape)] = rng.normal(w.mean(), w.std(), part.sum())
        out.append(mutated)
    return out


def weight_shuffle(weights: Weights, rate: float, rng: np.random.Generator) -> list[AnyArray]:
    """WS: each neuron of a share ``rate`` of all has its incoming weights shuffled."""
    out = []
    for w, neurons in _chosen(weights, rate, rng):
        mutated = w.copy()
        for k in neurons if w.ndim > 1 else ():
            mutated[..., k] = rng.permutation(w[..., k].ravel()).reshape(w.shape[:-1])
        out.append(mutated)
    return out


def neuron_switch(weights: Weights, rate: float, rng: np.random.Generator) -> list[AnyArray]:
    """NS: in each layer a share ``rate`` of the neurons trade their incoming weights.

    As many as a share comes to, rounded up where that is at most 2; biases stay.
    """
    out = []
    for w in weights:
        mutated = w.copy()
        if w.ndim > 1 and w.shape[-1] >= FEWEST:
            share = w.shape[-1] * rate
            neurons = rng.choice(w.shape[-1], floor(share) if share > 2 else ceil(share), False)
            mutated[..., neurons] = w[..., rng.permutation(neurons)]
        out.append(mutated)
    return out


def activation_inverse(weights: Weights, rate: float, rng: np.random.Generator) -> list[AnyArray]:
    """NAI: each neuron of a share ``rate`` of all has its output's sign changed, bias included."""
    out = []
    for w, neurons in _chosen(weights, rate, rng):
        mutated = w.copy()
        mutated[..., neurons] *= -1
        out.append(mutated)
    return out


def _share(total: int, rate: float, rng: np.random.Generator) -> Bools:
    """Which of ``total`` are in a random share ``rate`` of them, at least one."""
    chosen = np.zeros(total, bool)
    chosen[rng.choice(total, max(1, int(total * rate)), replace=False)] = True
    return chosen


def _chosen(
    weights: Weights, rate: float, rng: np.random.Generator
) -> Iterator[tuple[AnyArray, Ints]]:
    """Each tensor and which of its layer's neurons are in a share ``rate`` of all of them."""
    total = sum(w.shape[-1] for w in weights if w.ndim > 1)
    chosen = _share(total, rate, rng)
    first, neurons = 0, np.zeros(0, np.int64)
    for w in weights:
        if w.ndim > 1:
            (neurons,) = np.nonzero(chosen[first : first + w.shape[-1]])
            first += w.shape[-1]
        yield w, neurons


OPERATORS: dict[str, Operator] = {
    "GF": gaussian_fuzzing,
    "WS": weight_shuffle,
    "NS": neuron_switch,
    "NAI": activation_inverse,
}
