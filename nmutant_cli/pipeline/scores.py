"""The stage compare: detectors side by side on the sample sets of a run.

Every detector meets every set on the network that the set belongs to, with the normal samples
beside it. What it learns and where its thresholds lie comes from clean test images that are in no
set: every other one to learn from, the rest for the thresholds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from nmutant_cli.detectors import DETECTORS, Candidate, CountingDetector, NetworkView
from nmutant_cli.errors import ConfigError
from nmutant_cli.files import file_digest
from nmutant_cli.mutation.operator import clip_of
from nmutant_cli.pipeline import artefacts
from nmutant_cli.pipeline.experiment import Experiment
from nmutant_cli.pipeline.kappa import measured
from nmutant_cli.report.tables import NORMAL
from nmutant_cli.seeding import stream
from nmutant_cli.types import Bools, Images

CLEAN = "clean"
"""The set of clean images that the thresholds come from."""
CHANGES = {"changes": "digits"}
"""The ingredient of files with label changes: how they are written, see `changes_text`."""
Places = list[tuple[int, int]]
"""For each image of a set: its row in the set, and its index in the data."""


def scored(experiment: Experiment) -> dict[tuple[str, str], Path]:
    """``compare/DETECTOR-NETWORK.csv``, made where needed: a row per image with its score.

    Raises ConfigError without attack sets, for a network with dropout on, or where clean images are
    too few.
    """
    settings = experiment.settings
    if not settings.attack.sets:
        raise ConfigError("attack.sets: is empty; name a set to compare detectors on")
    networks = dict.fromkeys(map(experiment.network_of, settings.attack.sets))
    work = [(name, network) for network in networks for name in settings.compare.detectors]
    with experiment.bar(len(work), "compare", "detector") as bar:
        parts: dict[tuple[str, str], Path] = {}
        for name, network in work:
            bar.set_postfix_str(f"{name}, {network}")
            parts[name, network] = _scores_of(experiment, name, network)
            bar.update()
    return parts


def known_to(experiment: Experiment, network: str) -> str:
    """The attack set that supervised detectors learn from: of those on ``network`` the first."""
    sets, known = experiment.settings.attack.sets, experiment.settings.compare.known
    of_network = [slug for slug in sets if experiment.network_of(slug) == network]
    return known if known in of_network else of_network[0]


def in_first_half(source_index: ArrayLike) -> Bools:
    """Which samples are there to learn from and to choose by: about half of the images, ``(n,)``.

    By Knuth's multiplicative hash of the image's index. Every other image would not do: MNIST's
    training images of even index are the harder ones.
    """
    return np.asarray(source_index, np.uint64) * 2654435761 % 2**32 < 2**31


def view_of(experiment: Experiment, network: str) -> NetworkView:
    """A network of the experiment as detectors see it."""
    settings = experiment.settings
    return NetworkView(
        experiment.model(network),
        settings.compare,
        settings.mutation,
        settings.detection.step_size,
        settings.seed,
        clip_of(settings.mutation, experiment.data.bounds),
    )


def _scores_of(experiment: Experiment, name: str, network: str) -> Path:
    settings = experiment.settings
    if settings.model_settings(network).stochastic_inference:
        raise ConfigError(
            "model.stochastic_inference: detectors are compared on a network whose dropout is off; "
            "set it to false"
        )
    slugs = [
        slug
        for slug in experiment.titles
        if slug == NORMAL or experiment.network_of(slug) == network
    ]
    known = known_to(experiment, network)
    ingredients = experiment.ingredients(
        "compare",
        {
            "detector": name,
            "network": file_digest(experiment.model_path(network)),
            # All of them: clean images are in none.
            "samples": {s: file_digest(experiment.samples_path(s)) for s in experiment.titles},
            "known": known,
            **({"halves": "hash"} if DETECTORS[name].supervised else {}),
            **(CHANGES if issubclass(DETECTORS[name], CountingDetector) else {}),
            "eight_bit": settings.attack.eight_bit,
            "compare": settings.compare.model_dump(mode="json", exclude={"detectors", "known"}),
            "mutation": settings.mutation.model_dump(mode="json"),
            "step_size": settings.detection.step_size,
        },
    )

    def build(path: Path) -> Mapping[str, Any]:
        view = view_of(experiment, network)
        detector = DETECTORS[name](view)
        clean = clean_images(experiment)
        images, _, where = measured(experiment, known)
        detector.fit(clean[::2], images[in_first_half([source for _, source in where])])
        kept = clean[1::2]
        sets: dict[str, tuple[Images, Places]] = {CLEAN: (kept, [(i, i) for i in range(len(kept))])}
        for slug in slugs:
            images, _, where = measured(experiment, slug)
            sets[slug] = images, where
        forward = _seconds_per_forward_pass(view, kept)
        start = time.perf_counter()
        frame = _scores(detector, sets)
        seconds = time.perf_counter() - start
        frame.to_csv(path, index=False, lineterminator="\n")
        return {
            "known": known,
            "passes": detector.passes,
            "seconds_per_image": seconds / len(frame),
            "seconds_per_forward_pass": forward,
            "step_size": detector.step_size,
        }

    return experiment.run.make(artefacts.scores(name, network), ingredients, build)


def _scores(detector: Candidate, sets: Mapping[str, tuple[Images, Places]]) -> pd.DataFrame:
    """Scores, and of detectors that count label changes the single ones.

    All sets in one go: a mutated network is then made once.
    """
    images = np.concatenate([of_set for of_set, _ in sets.values()])
    where = [(slug, *place) for slug, (_, places) in sets.items() for place in places]
    frame = pd.DataFrame(where, columns=["samples", "index", "source_index"])
    if isinstance(detector, CountingDetector):
        changes = detector.changes(images)
        frame["score"] = changes.mean(axis=1)
        frame["changes"] = changes_text(changes)
    else:
        frame["score"] = detector.score(images)
    return frame


def changes_text(changes: Bools) -> list[str]:
    """Label changes ``(n, mutations)`` as a file of scores has them: ``0 1 0`` for each image."""
    return [" ".join(row) for row in np.where(changes, "1", "0")]


def changes_in(frame: pd.DataFrame) -> Bools | None:
    """The label changes in a file of scores, ``(rows, mutations)``; None if it has none."""
    if "changes" not in frame:
        return None
    # As text: the digit of a single mutation is read as a number.
    return np.array([text.split() for text in frame["changes"].astype(str)]) == "1"


def clean_images(experiment: Experiment) -> Images:
    """Test images, as they come, that are in no sample set and that no attack was tried on.

    Raises ConfigError if there are fewer than ``compare.clean``.
    """
    settings, data = experiment.settings, experiment.data
    slugs = [slug for slug in experiment.titles if slug != "wl"]  # those are training images
    taken = [experiment.samples(slug).index for slug in slugs]
    free = np.setdiff1d(np.arange(len(data.x_test)), np.concatenate(taken))
    number = settings.compare.clean
    if number > len(free):
        raise ConfigError(
            f"compare.clean: {number} asked for, {len(free)} of {len(data.x_test)} test images are "
            "in no sample set"
        )
    rng = stream(settings.seed, settings.dataset, "compare", "clean")
    return data.x_test[rng.choice(free, number, replace=False)]


def _seconds_per_forward_pass(view: NetworkView, images: Images) -> float:
    view.logits(images)  # compiles
    rounds = -(-4000 // len(images))
    start = time.perf_counter()
    for _ in range(rounds):
        view.logits(images)
    return (time.perf_counter() - start) / (rounds * len(images))
