"""The odds test (Roth, Kilcher and Hofmann, ICML 2019, arXiv 1902.04818).

Noise lowers the margin between the label's logit and another one further for an adversarial image
than for a clean one of that label. As in the authors' code: noise of three kinds at several
sizes, clipped to [0, 1], the fall of each margin in standard deviations of clean images of the same
label, its mean over the noises, and of that the largest over the other classes. Where this is not
their code:

- There are ``compare.mutations`` noisy copies in all, not 256 of each of the nine noises.
- All clean images teach, not only those of the right label that PGD succeeds on.
- Nothing is corrected: the label is not asked for again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from nmutant_cli.detectors.contract import Candidate, NetworkView, digest
from nmutant_cli.errors import DataError
from nmutant_cli.types import AnyArray, Floats, Images, Labels

KINDS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], AnyArray]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "sign": lambda rng, shape: rng.choice((-1.0, 1.0), shape),
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape),
}
NOISES = tuple(itertools.product(KINDS, (0.003, 0.005, 0.008)))
"""Kind and size of each noise, those of their example on CIFAR10; the copies take turns."""
FEWEST = 3
"""Clean images of a label, at least, to know what is usual for it."""
UNKNOWN = -1000.0
"""The score where it is not known: such an image is never called adversarial."""


class Odds(Candidate):
    """How unusually far noise lowers a margin, in standard deviations of clean images."""

    title = "odds test"
    needs = "scores"

    def __init__(self, view: NetworkView) -> None:
        super().__init__(view)
        self._usual: dict[int, tuple[Floats, Floats]] = {}

    @property
    def passes(self) -> float:
        return 1.0 + self.view.settings.mutations

    def fit(self, clean: Images, known: Images) -> None:
        label, falls = self._falls(clean)
        values, counts = np.unique(label, return_counts=True)
        self._usual = {
            int(value): (falls[label == value].mean(axis=0), falls[label == value].std(axis=0))
            for value in values[counts >= FEWEST]
        }
        if not self._usual:
            raise DataError(f"odds: no label with {FEWEST} clean images or more")

    def score(self, images: Images) -> Floats:
        label, falls = self._falls(images)
        scores = np.full(len(images), UNKNOWN)
        for value, (mean, std) in self._usual.items():
            rows = label == value
            unusual = (falls[rows] - mean) / np.maximum(std, np.finfo(float).tiny)
            others = np.delete(unusual.mean(axis=1), value, axis=1)
            scores[rows] = others.max(axis=1)
        return scores

    def _falls(self, images: Images) -> tuple[Labels, Floats]:
        """Labels ``(n,)``, and by how much each noise lowers each margin: ``(n, noises, classes)``.

        A mean over the noisy copies of an image.
        """
        size = self.view.batch_size
        parts = [self._batch(images[i : i + size]) for i in range(0, max(1, len(images)), size)]
        labels, falls = zip(*parts, strict=True)
        return np.concatenate(labels), np.concatenate(falls)

    def _batch(self, images: Images) -> tuple[Labels, Floats]:
        before = self.view.logits(images).astype(np.float64)
        label = before.argmax(axis=1)
        noises = NOISES[: self.view.settings.mutations]
        falls = np.zeros((len(images), len(noises), before.shape[1]))
        margins = _margins(before, label)
        generators = [self.view.stream("odds", digest(image)) for image in images]
        copies = self.view.settings.mutations if len(images) else 0
        for copy in range(copies):
            which = copy % len(noises)
            kind, eps = noises[which]
            drawn = np.stack([KINDS[kind](rng, images.shape[1:]) for rng in generators])
            noisy = np.clip(images + eps * drawn, 0, 1).astype(np.float32)
            after = self.view.logits(noisy).astype(np.float64)
            falls[:, which] += margins - _margins(after, label)
        turns = [len(range(which, copies, len(noises))) for which in range(len(noises))]
        return label, falls / np.maximum(turns, 1)[None, :, None]


def _margins(logits: Floats, label: Labels) -> Floats:
    """The logit of ``label`` less each, ``(n, classes)``."""
    return logits[np.arange(len(logits)), label][:, None] - logits
