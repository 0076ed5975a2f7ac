"""The sensitivity kappa(x): the share of mutations of x that change its label (the paper's
section 4).

Needs nothing of a model but labels. A `Labeller` says which label each mutated image gets:
`NumpyLabeller` makes one from any ``predict`` with NumPy, `mutation.graph` has the compiled one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Protocol

import numpy as np

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.mutation.doubt import Ranked
from nmutant_cli.mutation.operator import Mutations, MutationStream, apply, identity
from nmutant_cli.mutation.shortcut import Shortcuts
from nmutant_cli.types import Bools, Bounds, Floats, Images, Ints, Labels, Predict


class Labeller(Protocol):
    """Labels mutated images, at most ``at_once`` in one call, ``batch_size`` at a time.

    ``deterministic``: asked twice about one image, the network says the same twice. ``shortcuts``:
    to labels that need not be asked, if it knows any.
    """

    deterministic: bool
    batch_size: int
    at_once: int
    shortcuts: Shortcuts | None

    def __call__(self, images: Images, mutations: Mutations) -> Labels:
        """The label of ``images[i]`` after ``mutations[i]``: ``(n,)``, for n images."""
        ...


class Source(Protocol):
    """Where the mutations of one image come from."""

    def take(self, start: int, count: int) -> Mutations:
        """Mutations ``start .. start + count - 1``."""
        ...


class NumpyLabeller:
    """A `Labeller` that mutates with NumPy and asks ``predict`` for the labels."""

    def __init__(
        self,
        predict: Predict,
        step_size: float,
        clip: Bounds | None = None,
        batch_size: int = 1000,
        deterministic: bool = True,
    ) -> None:
        self._predict, self._step_size, self._clip = predict, step_size, clip
        self.batch_size = self.at_once = batch_size
        self.deterministic = deterministic
        self.shortcuts: Shortcuts | None = None

    def __call__(self, images: Images, mutations: Mutations) -> Labels:
        return np.asarray(self._predict(apply(images, mutations, self._step_size, self._clip)))


class FixedMutations:
    """One list of mutations, for every image alike (as published)."""

    def __init__(self, mutations: Mutations) -> None:
        self._mutations = mutations

    def take(self, start: int, count: int) -> Mutations:
        return self._mutations[start : start + count]


class Subjects:
    """Images under mutation and the labels that their mutations are compared with.

    ``images``: ``(n, h, w, c)``. ``labels``: ``(n,)``, or None for the label that each image
    itself gets from ``label``, asked in the same kind of call as its mutations.
    """

    def __init__(self, label: Labeller, images: Images, labels: Labels | None = None) -> None:
        self._label, self.images, self._given = label, images, labels
        self.batch_size, self.deterministic = label.batch_size, label.deterministic
        self._own: Labels | None = None
        known = label.shortcuts
        self._by_shortcut = known.over(images, self._ranked) if known else None
        self.asked = 0
        """Rows that the network was asked about so far."""

    @property
    def own(self) -> Labels:
        """The label that each image itself gets, ``(n,)``."""
        if self._own is None:
            self.mutated(np.zeros(0, np.int64), identity(0, self.images.shape[1:]))
        assert self._own is not None
        return self._own

    @property
    def labels(self) -> Labels:
        """What the labels of the mutations are compared with, ``(n,)``."""
        return self.own if self._given is None else self._given

    def changes(self, owner: Ints, mutations: Mutations) -> Ints:
        """Whether ``mutations[i]`` changes the label of ``images[owner[i]]``: ``(n,)``, 0 or 1."""
        return (self.mutated(owner, mutations) != self.labels[owner]).astype(np.int64)

    def mutated(self, owner: Ints, mutations: Mutations) -> Labels:
        """The label of ``images[owner[i]]`` after ``mutations[i]``: ``(n,)``.

        What changes no pixel gives the image's own label: a deterministic network is not asked.
        """
        asked = np.ones(len(owner), bool)
        if self.deterministic:
            asked = ~mutations.is_identity
        rows, changed = owner[asked], mutations[asked]
        if self._own is None:  # asked in the first call
            n = len(self.images)
            unchanged = identity(n, self.images.shape[1:], changed.patch.shape[1])
            first = np.concatenate([np.arange(n), rows])
            both = self._ask(first, Mutations.concatenate([unchanged, changed]))
            self._own, found = both[:n], both[n:]
        else:
            found = self._ask(rows, changed)
        labels = self._own[owner]
        labels[asked] = found
        return labels

    def _ask(self, owner: Ints, mutations: Mutations) -> Labels:
        if self._by_shortcut is not None:
            return self._by_shortcut(owner, mutations)[0]
        parts = self._parts(owner, mutations)
        return np.concatenate([np.zeros(0, np.int64), *(self._label(*part) for part in parts)])

    def _ranked(self, owner: Ints, mutations: Mutations) -> Ranked:
        known = self._label.shortcuts
        assert known is not None
        found = [known.ranked(*part) for part in self._parts(owner, mutations)]
        labels, leads = zip((np.zeros(0, np.int64), np.zeros(0)), *found, strict=True)
        return np.concatenate(labels), np.concatenate(leads)

    def _parts(self, owner: Ints, mutations: Mutations) -> Iterator[tuple[Images, Mutations]]:
        """The images and mutations of one call after another."""
        self.asked += len(owner)
        for first in range(0, len(owner), self._label.at_once):
            part = slice(first, first + self._label.at_once)
            yield self.images[owner[part]], mutations[part]


@dataclass(frozen=True)
class Tally:
    """Labels of ``n`` images under mutation, arrays of shape ``(n,)``.

    ``changes``: label changes, kappa times the number of mutations. ``majority``: the label that
    most mutations give; in a tie the one that the mutations are compared with, else the smallest.
    """

    changes: Ints
    majority: Labels


def tally(subjects: Subjects, sources: Sequence[Source], mutations: int) -> Tally:
    """Label the first ``mutations`` of each image; ``sources[i]`` gives those of image ``i``."""
    changes, majority = np.zeros((2, len(sources)), np.int64)
    for rows, labels in _labelled(subjects, sources, mutations):
        own = subjects.labels[rows]
        changes[rows] = (labels != own[:, None]).sum(axis=1)
        majority[rows] = [majority_of(*pair) for pair in zip(labels, own, strict=True)]
    return Tally(changes, majority)


def majority_of(labels: Labels, own: int) -> int:
    """The most frequent of ``labels``; in a tie ``own`` if it is one, else the smallest."""
    candidates, votes = np.unique(labels, return_counts=True)
    most = candidates[votes == votes.max()]
    return own if own in most else int(most[0])


def half_width(kappas: Floats | Sequence[float], confidence: float) -> float:
    """Half the interval of the mean of ``kappas``: z * population std / sqrt(n).

    Table 1's interval (docs/protocol.md, Intervals); z is 2.576 at 99%. NaN for no samples.
    """
    if len(kappas) == 0:
        return float("nan")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return z * float(np.std(kappas)) / sqrt(len(kappas))


def changes_of(
    label: Labeller,
    images: Images,
    sources: Sequence[Source],
    mutations: int,
    progress: Callable[[int], None] = lambda images: None,
) -> Bools:
    """Whether each mutation changes the label of its image: ``(n, mutations)``."""
    changes = np.zeros((len(images), mutations), bool)
    subjects = Subjects(label, images)
    for rows, labels in _labelled(subjects, sources, mutations):
        changes[rows] = labels != subjects.labels[rows, None]
        progress(len(rows))
    return changes


def images_at_once(mutations: int, values: int = 1) -> int:
    """As many images as keep 50,000 mutations, or 50 MB of their patches, in memory.

    ``mutations`` of each image, ``values`` in the patch of each.
    """
    return max(1, min(50_000, 12_000_000 // values) // mutations)


def _labelled(
    subjects: Subjects, sources: Sequence[Source], mutations: int
) -> Iterator[tuple[Ints, Labels]]:
    """Some rows at a time, and the labels of the mutations of each: ``(rows, mutations)``."""
    values = sources[0].take(0, 1).patch.size if len(sources) else 1
    together = images_at_once(mutations, values)
    for first in range(0, len(sources), together):
        drawn = [source.take(0, mutations) for source in sources[first : first + together]]
        rows = first + np.arange(len(drawn))
        labels = subjects.mutated(rows.repeat(mutations), Mutations.concatenate(drawn))
        yield rows, labels.reshape(len(rows), mutations)


def streams(images: Images, mutation: Mutation, seed: int, purpose: str) -> list[MutationStream]:
    """The mutations of each image, keyed by what it shows."""
    return [
        MutationStream(
            image.shape, mutation, seed, purpose, hashlib.sha256(image.tobytes()).hexdigest()
        )
        for image in images
    ]
