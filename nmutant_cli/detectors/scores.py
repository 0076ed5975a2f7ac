"""What the network's own scores say: an image that it is unsure of is suspect."""

from __future__ import annotations

import numpy as np

from nmutant_cli.detectors.contract import Candidate
from nmutant_cli.types import Floats, Images


class Softmax(Candidate):
    """``1 - max softmax`` (Hendrycks and Gimpel 2017, arXiv 1610.02136), in [0, 1)."""

    title = "maximum softmax"
    needs = "scores"
    passes = 1.0

    def score(self, images: Images) -> Floats:
        # The sum of the others: 1 - max is rounded to 0 for every image the network is sure of.
        return np.sort(self.view.softmax(images), axis=1)[:, :-1].sum(axis=1)


class Margin(Candidate):
    """Second largest logit less the largest, in logits: 0 on the decision boundary."""

    title = "logit margin"
    needs = "scores"
    passes = 1.0

    def score(self, images: Images) -> Floats:
        logits = np.sort(self.view.logits(images).astype(np.float64), axis=1)
        return logits[:, -2] - logits[:, -1]


class Energy(Candidate):
    """``-log sum exp`` of the logits, the free energy (Liu et al. 2020, arXiv 2010.03759)."""

    title = "energy"
    needs = "scores"
    passes = 1.0

    def score(self, images: Images) -> Floats:
        return -np.logaddexp.reduce(self.view.logits(images).astype(np.float64), axis=1)
