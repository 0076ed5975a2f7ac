"""The stage evade: how often an attacker both fools the network and passes a detector.

Works out nothing that the stage compare has not measured. Detectors are those compared, each of
which calls 5% of the clean images adversarial, ties broken at random, and the published rule on the
changes of ``kappa``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nmutant_cli.config.detection import Detection
from nmutant_cli.config.settings import Settings
from nmutant_cli.datasets import DATASET_TITLES
from nmutant_cli.detection.sprt import SequentialTest, TestBatch
from nmutant_cli.detectors import DETECTORS
from nmutant_cli.files import file_digest, read_records
from nmutant_cli.pipeline.detect import kappa1_of
from nmutant_cli.pipeline.experiment import Experiment
from nmutant_cli.pipeline.scores import CLEAN, changes_in, scored
from nmutant_cli.report.evasion import by_attack, curves
from nmutant_cli.report.figures.evasion import evasion_figure
from nmutant_cli.report.roc import called
from nmutant_cli.seeding import stream
from nmutant_cli.types import Bools, Floats, Verdict

FALSE_ALARMS = 0.05


def evade(experiment: Experiment) -> list[Path]:
    """Write evasion.csv, evasion-attacks.csv and the figure; their paths, in that order."""
    settings, parts = experiment.settings, scored(experiment)
    attacks = settings.attack
    # Measured, it may need kappas that nothing else here does.
    kappa1 = kappa1_of(experiment) if "kappa" in settings.compare.detectors else None
    ingredients = experiment.ingredients(
        "evade",
        {
            "parts": {"-".join(key): file_digest(part) for key, part in parts.items()},
            "samples": {slug: file_digest(experiment.samples_path(slug)) for slug in attacks.sets},
            "titles": {slug: experiment.titles[slug] for slug in attacks.sets},
            "eight_bit": attacks.eight_bit,
            "mutations": settings.compare.mutations,
            "table": 4,
            "detection": settings.detection.model_dump(mode="json", exclude={"as_published"})
            | {"kappa1": kappa1},
        },
    )

    def csv(name: str, tabulate: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
        def build(path: Path) -> Mapping[str, Any]:
            table = tabulate(_attempts(experiment, parts, kappa1))
            table.to_csv(path, index=False, lineterminator="\n")
            return {"rows": len(table)}

        return experiment.run.make(name, ingredients, build)

    written = [csv("evasion.csv", curves), csv("evasion-attacks.csv", by_attack)]

    def figure(path: Path) -> None:
        drawn = evasion_figure(read_records(written[0]), DATASET_TITLES[settings.dataset])
        drawn.savefig(path, format="png")

    source = {"figure": 3, "source": file_digest(written[0]), "dataset": settings.dataset}
    return [*written, experiment.run.make("figures/evasion.png", source, figure)]


def _attempts(
    experiment: Experiment, parts: Mapping[tuple[str, str], Path], kappa1: float | None
) -> pd.DataFrame:
    """A row for each attempt and detector, as `report.evasion.joint_success` wants them."""
    rows = []
    for (name, network), path in parts.items():
        frame = read_records(path)
        caught = _adversarial(experiment.settings, name, frame, kappa1)
        for slug in experiment.settings.attack.sets:
            if experiment.network_of(slug) != network:
                continue
            of_set = (frame["samples"] == slug).to_numpy()
            tried = _tried(experiment, slug)
            for title, adversarial in caught.items():
                passed = np.zeros(len(tried), bool)
                passed[frame.loc[of_set, "index"]] = ~adversarial[of_set]
                rows.append(tried.assign(detector=title, passed=passed))
    return pd.concat(rows, ignore_index=True)


def _adversarial(
    settings: Settings, name: str, frame: pd.DataFrame, kappa1: float | None
) -> dict[str, Bools]:
    """By the detector's title: which rows of its scores it calls adversarial."""
    score = frame["score"].to_numpy(float)
    chance = called(score, score[(frame["samples"] == CLEAN).to_numpy()], FALSE_ALARMS)
    caught: dict[str, Bools] = {DETECTORS[name].title: _lots(settings, frame) < chance}
    changes = changes_in(frame)
    if name == "kappa" and changes is not None and kappa1 is not None:
        title = f"published rule, mu {settings.detection.mu[0]:g}"
        caught[title] = published_adversarial(changes, settings.detection, kappa1)
    return caught


def _lots(settings: Settings, frame: pd.DataFrame) -> Floats:
    """A number in [0, 1) for each row that breaks ties: one for all attempts on an image."""
    images = frame["source_index"]
    names = settings.seed, settings.dataset, "evade", "ties"
    lots = {image: stream(*names, int(image)).random() for image in images.unique()}
    return images.map(lots).to_numpy(float)


def _tried(experiment: Experiment, slug: str) -> pd.DataFrame:
    """The attempts of an attack set: which image, how far it was moved, whether that fooled."""
    samples = experiment.samples(slug)
    images, label = samples.rounded(experiment.settings.attack.eight_bit)
    moved = (images - experiment.data.x_test[samples.index]).astype(np.float64)
    return pd.DataFrame(
        {
            "attack": experiment.titles[slug],
            "image": samples.index,
            "l2": np.linalg.norm(moved.reshape(len(moved), -1), axis=1),
            "fooled": samples.counts & (label != samples.true),
        }
    )


def published_adversarial(changes: Bools, detection: Detection, kappa1: float) -> Bools:
    """What the rule behind Table 2 says at the first mu: ``(n,)`` for ``(n, mutations)``.

    Undecided passes, as in the paper.
    """
    p0, p1 = detection.hypotheses(kappa1, detection.mu[0])
    test = SequentialTest("published", p0, p1, detection.alpha, detection.beta, detection.cap)
    tests = TestBatch(test, len(changes))
    tests.advance(np.arange(len(changes)), changes)
    return np.asarray(tests.verdict == Verdict.ADVERSARIAL)
