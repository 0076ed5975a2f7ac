"""The detector for a user's own model: images in, verdicts out (Algorithm 1 on any ``predict``)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from nmutant_cli.detection.detect import detect, growing_blocks
from nmutant_cli.detection.intervals import anytime
from nmutant_cli.mutation.sensitivity import Subjects, majority_of, streams
from nmutant_cli.own_model.answers import Answer
from nmutant_cli.own_model.calibration import Calibration
from nmutant_cli.own_model.images import checked
from nmutant_cli.own_model.model import labels_under
from nmutant_cli.own_model.text_labels import as_given
from nmutant_cli.types import AnyArray, Bools, Floats, Images, Ints, Verdict

TOGETHER = 250
"""So many images are looked at together; it changes no result and bounds the memory."""


@dataclass(frozen=True)
class Verdicts:
    """What a `Detector` says of ``n`` images; every array has shape ``(n,)``.

    ``verdict``: `Verdict`, UNDECIDED where the cap came first. ``kappa``: the share of the
    ``mutations`` read that changed the label, ``lower`` and ``upper`` its interval, which holds
    although the test stopped because of what it saw (`intervals.anytime`). ``label``: the model's,
    a number or a text as it gives them. ``majority``: the label that most of those mutations got;
    in a tie as for `sensitivity.Tally`.
    """

    verdict: Ints
    kappa: Floats
    lower: Floats
    upper: Floats
    mutations: Ints
    changes: Ints
    label: AnyArray
    majority: AnyArray

    def __len__(self) -> int:
        return len(self.verdict)

    @property
    def adversarial(self) -> Bools:
        """Which images are called adversarial; an undecided one is not."""
        return self.verdict == Verdict.ADVERSARIAL


class Detector:
    """Says of images whether they are adversarial for ``predict``.

    ``predict``: a function from images, float32 ``(n, h, w, c)`` in [0, 1], to labels ``(n,)`` or
    scores ``(n, classes)``; a Keras model is compiled when the detector is made.
    ``calibration``: a `Calibration`, or the path of one. One by hand, with nothing promised:
    ``Calibration(step_size=1, p0=0.01, p1=0.05, cap=500)``.
    ``seed``: the same image always meets the same mutations, whatever else is looked at, in
    any order; None draws a seed that nobody can foresee. ``batch_size``: mutated images in one
    call of the model, at most; it changes no result. ``confidence``: of the intervals of kappa.

    Any number of threads may use one detector: nothing is changed after it is made. The work for
    an image is at most ``calibration.cap`` mutations and, alone, at most 1.5 times those that are
    needed.

    >>> import numpy as np
    >>> from nmutant_cli import Calibration, Detector
    >>> def is_bright(images):
    ...     return (images.mean(axis=(1, 2, 3)) > 0.5).astype(int)
    >>> detector = Detector(is_bright, Calibration(step_size=1, p0=0.01, p1=0.05, cap=500))
    >>> images = np.stack([np.full((8, 8, 1), grey) for grey in (0.501, 1.0)])
    >>> detector.detect(images).adversarial  # at the boundary, and far from it
    array([ True, False])

    Raises ConfigError for a calibration that cannot be read, ModelError for a model of no use.
    """

    def __init__(
        self,
        predict: Answer,
        calibration: Calibration | Path | str,
        *,
        seed: int | None = 0,
        batch_size: int = 128,
        confidence: float = 0.95,
    ) -> None:
        if not isinstance(calibration, Calibration):
            calibration = Calibration.load(calibration)
        self.predict, self.calibration = predict, calibration
        self.seed, self.batch_size, self.confidence = seed, batch_size, confidence
        self._test = calibration.test
        self._seed = secrets.randbits(64) if seed is None else seed
        shape = calibration.image_shape
        # The first block goes with the image itself.
        first, *further = growing_blocks([self._test])
        sizes = (1 + first, *further)
        label = labels_under(predict, calibration.mutation, batch_size, shape, sizes)
        self._label = label(calibration.step_size)

    def detect(self, images: AnyArray) -> Verdicts:
        """The verdict on each of ``images``, float32 ``(n, h, w, c)`` in [0, 1].

        Raises DataError for another shape than was calibrated, or a value outside [0, 1];
        ModelError if the model gives something else than labels or scores.
        """
        images = checked(images, self.calibration.image_shape)
        parts = [
            self._detect(images[first : first + TOGETHER])
            for first in range(0, max(1, len(images)), TOGETHER)
        ]
        return Verdicts(
            *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Verdicts))
        )

    def _detect(self, images: Images) -> Verdicts:
        subjects = Subjects(self._label, images)
        sources = streams(images, self.calibration.mutation, self._seed, "detector")
        (detected,) = detect(subjects, sources, [self._test], votes=True, growing=True)
        lower, upper = anytime(detected.c, detected.mutations, self.confidence)
        labels = [np.array([*votes.elements()], np.int64) for votes in detected.votes]
        return Verdicts(
            verdict=detected.verdict,
            kappa=detected.c / np.maximum(detected.mutations, 1),
            lower=lower,
            upper=upper,
            mutations=detected.mutations,
            changes=detected.c,
            label=as_given(subjects.own),
            majority=as_given(np.array([*map(majority_of, labels, subjects.own)], np.int64)),
        )
