"""The sensitivity kappa(x) as a score, under the config's mutations or under other ones.

Labels are all it needs. The mutations of an image are keyed by what it shows.
"""

from __future__ import annotations

import numpy as np

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.detectors.contract import CountingDetector, NetworkView
from nmutant_cli.mutation.graph import CompiledLabeller
from nmutant_cli.mutation.sensitivity import changes_of, streams
from nmutant_cli.types import Bools, Images

GRID = tuple(float(step) for step in 2.0 ** (np.arange(-6, 13) / 2))
"""Step sizes that are tried: each the square root of two times the one before."""
ENOUGH = 100
"""Images on which a step size is looked at, and mutations of each."""


class Kappa(CountingDetector):
    """kappa under the config's mutations at its step size (section 4 of the paper)."""

    title = "kappa, as configured"
    needs = "labels"
    step_size: float

    def __init__(self, view: NetworkView) -> None:
        super().__init__(view)
        self.mutation = self.operator(view)
        self.step_size = view.step_size
        self._label = CompiledLabeller(
            view.model,
            1.0,
            mutation=self.mutation,
            clip=view.clip,
            batch_size=view.batch_size,
        )

    def operator(self, view: NetworkView) -> Mutation:
        """What is drawn."""
        return view.mutation

    def changes(self, images: Images) -> Bools:
        return self._changes(images, self.step_size, self.mutations)

    def _changes(self, images: Images, step_size: float, mutations: int) -> Bools:
        sources = streams(images, self.mutation, self.view.seed, "compare")
        return changes_of(self._label.at(step_size), images, sources, mutations)


class Calibrated(Kappa):
    """kappa at the largest step size of `GRID` that leaves clean images mostly alone.

    That is where their mean kappa is at most ``compare.clean_kappa``; the smallest one where none
    does. Steps are tried from the smallest up: beyond the first that goes too far none is tried.
    """

    title = "kappa, calibrated step"

    def fit(self, clean: Images, known: Images) -> None:
        images = clean[:ENOUGH]
        self.step_size = GRID[0]
        for step in GRID:
            if self._changes(images, step, ENOUGH).mean() > self.view.settings.clean_kappa:
                break
            self.step_size = step


class LargerOcclusion(Calibrated):
    """Rectangles of up to a third of the image, filled with noise or blacked out."""

    title = "kappa, larger occlusion"

    def operator(self, view: NetworkView) -> Mutation:
        side = min(view.model.input_shape[1:3]) // 3
        return view.mutation.model_copy(
            update={"kinds": ("occlusion", "blackout"), "max_rectangle": side}
        )


class Gaussian(Calibrated):
    """Normal noise on every value."""

    title = "kappa, Gaussian noise"

    def operator(self, view: NetworkView) -> Mutation:
        return Mutation(kinds=("gaussian",))


class Translation(Calibrated):
    """The image moved by parts of a pixel and more."""

    title = "kappa, translation"

    def operator(self, view: NetworkView) -> Mutation:
        return Mutation(kinds=("translation",))


class Rotation(Calibrated):
    """The image turned around its middle."""

    title = "kappa, rotation"

    def operator(self, view: NetworkView) -> Mutation:
        return Mutation(kinds=("rotation",))


class Contrast(Calibrated):
    """Brightness and contrast."""

    title = "kappa, brightness and contrast"

    def operator(self, view: NetworkView) -> Mutation:
        return Mutation(kinds=("contrast",))
