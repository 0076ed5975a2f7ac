"""Does a calibration keep its promise? Many random splits of the clean test images of one run.

Label changes of clean test images (those that are not the run's normal samples) and of the run's
attacks are measured once and kept in the run folder. Every split then goes through the whole choice
of a test (`own_model.guarantee.choose`), in two ways:

- held-out: ``clean`` images calibrate, all others are held out. A held-out rate has noise of its
  own, so it exceeds the target a little more often than the true rate does; ``chance`` is how often
  it would if the scores had no ties.
- true: images are drawn with replacement and the rate is taken over all of them, which then *is*
  the true rate. This is what the promise speaks of.

Fewer odds ratios and caps are tried than `nmutant calibrate` tries.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import betabinom

from nmutant_cli.errors import ConfigError
from nmutant_cli.files import file_digest, read_npz
from nmutant_cli.mutation.sensitivity import changes_of, streams
from nmutant_cli.own_model.calibration import Requirement
from nmutant_cli.own_model.guarantee import Changes, choose, decide
from nmutant_cli.own_model.model import labels_under
from nmutant_cli.pipeline.experiment import Experiment
from nmutant_cli.report.tables import NORMAL
from nmutant_cli.report.text import number
from nmutant_cli.seeding import stream
from nmutant_cli.studies.study import Findings, Inputs
from nmutant_cli.types import Images, Verdict

STEPS = (1.0, 5.0, 10.0)
RATIOS, SHARES = (4.0, 16.0), (1.0,)
SEED = 0
"""Of the splits and of the mutations."""

log = logging.getLogger("nmutant")


def study(
    inputs: Inputs,
    *,
    images: int,
    mutations: int,
    clean: int,
    splits: int,
    target: tuple[float, ...],
    probability: float,
) -> Findings:
    """calibration.csv: a row for each target and way."""
    (run,) = inputs.runs
    with inputs.opened(run) as experiment:
        sets = _measured(experiment, images, mutations)
        inputs.note(run, experiment.model_path(), experiment.run.path / "splits.npz")
    available = len(sets[NORMAL][STEPS[0]])
    if not 0 < clean < available:
        raise ConfigError(
            f"--clean {clean}: must be above 0 and below the {available} clean images"
        )
    rows = [
        _splits(sets, Requirement(rate, probability), how, clean, splits)
        for rate in target
        for how in ("held-out", "true")
    ]
    return Findings({"calibration": pd.DataFrame(rows)})


def _splits(
    sets: Mapping[str, Changes], wanted: Requirement, how: str, calibrate: int, splits: int
) -> dict[str, Any]:
    clean = sets[NORMAL]
    attacks = {name: changes for name, changes in sets.items() if name != NORMAL}
    n = len(clean[STEPS[0]])
    rates, detected = [], []
    for split in range(splits):
        rng = stream(SEED, "splits", how, f"{wanted.target:g}", split)
        if how == "held-out":
            order = rng.permutation(n)
            used, judged = order[:calibrate], order[calibrate:]
        else:
            used, judged = rng.integers(n, size=calibrate), np.arange(n)
        calibrated = {step: changes[used] for step, changes in clean.items()}
        chosen = choose(calibrated, attacks, wanted, rng, ratios=RATIOS, shares=SHARES)
        verdicts = decide(chosen.test, clean[chosen.step_size][judged]).verdict
        rates.append(float(np.mean(verdicts == Verdict.ADVERSARIAL)))
        detected.append({name: rate.rate for name, rate in chosen.evidence.detected.items()})
    alarms, certified = chosen.promise.alarms, chosen.promise.images
    allowed = math.floor(wanted.target * len(judged) + 1e-9)
    chance = betabinom.sf(allowed, len(judged), alarms + 1, certified - alarms)
    return {
        "target": number(wanted.target),
        "rate": how,
        "splits": splits,
        "calibrated_with": calibrate,
        "certifying": certified,
        "alarms": alarms,
        "judged": len(judged),
        "above_target": sum(rate > wanted.target for rate in rates),
        "promised": round(splits * (1 - wanted.probability), 1),
        "chance": round(splits * float(chance), 1) if how == "held-out" else np.nan,
        "mean_rate_%": round(100 * float(np.mean(rates)), 2),
        "worst_rate_%": round(100 * max(rates), 2),
        **{f"{k}_%": round(100 * float(v), 1) for k, v in pd.DataFrame(detected).mean().items()},
    }


def _measured(experiment: Experiment, most: int, mutations: int) -> dict[str, Changes]:
    """The label changes of clean images, called normal, and of the sets on the attacked network."""
    settings = experiment.settings
    images = _images(experiment, most)
    names = [f"{name}-{step:g}" for name in images for step in STEPS]

    def build(path: Path) -> None:
        label = labels_under(experiment.model(), settings.mutation, batch_size=1000)
        changes: dict[str, Any] = {}
        for name, array in images.items():
            sources = streams(array, settings.mutation, SEED, "splits")
            for step in STEPS:
                counted = changes_of(label(step), array, sources, mutations)
                changes[f"{name}-{step:g}"] = counted
                log.info("%s, step size %g: kappa %.4f", name, step, counted.mean())
        np.savez_compressed(path, **changes)

    slugs = [NORMAL, *settings.attack.sets]
    ingredients = {
        "data": experiment.data.digest,
        "network": file_digest(experiment.model_path()),
        "samples": {slug: file_digest(experiment.samples_path(slug)) for slug in slugs},
        "mutation": settings.mutation.model_dump(mode="json"),
        "sizes": [most, mutations, *STEPS],
        "seed": SEED,
    }
    kept = read_npz(experiment.run.make("splits.npz", ingredients, build), tuple(names))
    return {name: {step: kept[f"{name}-{step:g}"] for step in STEPS} for name in images}


def _images(experiment: Experiment, most: int) -> dict[str, Images]:
    unused = np.ones(len(experiment.data.x_test), bool)
    unused[experiment.samples(NORMAL).index] = False
    images = {NORMAL: experiment.data.x_test[unused][-most:]}
    for slug in experiment.settings.attack.sets:
        samples = experiment.samples(slug).counted()
        if experiment.network_of(slug) == "base":
            rounded, label = samples.rounded(eight_bit=True)
            if (label == samples.true).all():
                log.warning("%s: no adversarial sample, left out", slug)
                continue
            images[slug] = rounded[label != samples.true]
    return images
