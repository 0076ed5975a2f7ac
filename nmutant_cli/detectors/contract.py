"""What a detector that is compared with others looks like, and what it may use of a network."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import keras
import numpy as np

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.config.settings import Compare
from nmutant_cli.networks.inference import logits_fn
from nmutant_cli.seeding import Name, stream
from nmutant_cli.types import AnyArray, Bools, Bounds, Floats, Images, Labels


@dataclass(frozen=True)
class NetworkView:
    """A network that is to be guarded: logits for images in [0, 1], dropout off."""

    model: keras.Model
    settings: Compare
    mutation: Mutation
    """The paper's operator as the config has it."""
    step_size: float
    """The step size at which the config detects."""
    seed: int
    clip: Bounds | None = None
    """What mutated images are clipped to, if the config has it."""
    batch_size: int = 1000

    @cached_property
    def logits(self) -> Callable[[Images], AnyArray]:
        """``images -> (n, classes)`` float32."""
        return logits_fn(self.model, self.batch_size)

    def softmax(self, images: Images) -> Floats:
        """Class probabilities, ``(n, classes)`` float64."""
        logits = self.logits(images).astype(np.float64)
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)

    def labels(self, images: Images) -> Labels:
        return self.logits(images).argmax(axis=1).astype(np.int64)

    def stream(self, *names: Name) -> np.random.Generator:
        """The generator of a detector for one purpose; see `digest` for one image's."""
        return stream(self.seed, "compare", *names)


def digest(image: AnyArray) -> str:
    """A name for an image by what it shows, so that its score hangs on nothing else."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


class Candidate(ABC):
    """A detector: a number for every image, the higher the more likely adversarial.

    Built for one network, ``Kind(view)``. The score of an image depends on the network, the
    seed, what it was fitted to and the image: not on the other images it is asked about.
    """

    title: ClassVar[str]
    """How tables and figures call it."""
    needs: ClassVar[Literal["labels", "scores", "weights", "activations"]]
    """What it must be told of the network; ``labels`` is the least."""
    supervised: ClassVar[bool] = False
    """Whether it learns from adversarial images."""
    step_size: float | None = None
    """What its mutations are multiplied by; None where there is no such factor."""

    def __init__(self, view: NetworkView) -> None:
        self.view = view

    def fit(self, clean: Images, known: Images) -> None:  # noqa: B027 (many have nothing to learn)
        """Learn from ``clean`` images, float32 ``(n, h, w, c)``, that are used for nothing else.

        ``known`` are adversarial images of one kind, for supervised detectors alone.
        """

    @abstractmethod
    def score(self, images: Images) -> Floats:
        """Scores, ``(n,)``, of ``images`` ``(n, h, w, c)``; finite, higher is more adversarial."""

    @property
    @abstractmethod
    def passes(self) -> float:
        """Forward passes of the network that one score takes, its own label's included."""


class CountingDetector(Candidate):
    """A detector that mutates: its score is the share of mutations that change the label."""

    def __init__(self, view: NetworkView) -> None:
        super().__init__(view)
        self.mutations = view.settings.mutations

    @abstractmethod
    def changes(self, images: Images) -> Bools:
        """Whether each mutation, in the order they are drawn, changes the label.

        ``(n, mutations)``.
        """

    def score(self, images: Images) -> Floats:
        return self.changes(images).mean(axis=1)

    @property
    def passes(self) -> float:
        return self.mutations + 1.0
