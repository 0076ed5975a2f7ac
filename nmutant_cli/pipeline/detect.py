"""The stage detect: the sequential tests on every sample, and the threshold they stand on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nmutant_cli.config.detection import OWN, Protocol
from nmutant_cli.detection import sprt
from nmutant_cli.detection.intervals import mean_interval
from nmutant_cli.errors import ConfigError
from nmutant_cli.files import read_records, write_csv
from nmutant_cli.pipeline import artefacts
from nmutant_cli.pipeline.experiment import Experiment, Pieces
from nmutant_cli.pipeline.jobs import Decisions, Job
from nmutant_cli.pipeline.kappa import ingredients_of, joined, kappa_of, measured, streams_of
from nmutant_cli.types import Verdict

DETECTION_COLUMNS = [
    "samples", "index", "source_index", "rule", "kappa1", "mu", "p0", "p1",
    "verdict", "mutations", "label_changes",
]  # fmt: skip


def detections_csv(experiment: Experiment) -> Path:
    """``detections.csv``: a row per sample, rule and mu, made where needed."""
    kappa1 = kappa1_of(experiment)
    sets = experiment.all_samples()
    parts = {slug: _detections_of(experiment, slug, kappa1, OWN) for slug in sets}
    return joined(experiment, "detections.csv", parts, DETECTION_COLUMNS)


def as_published_csv(experiment: Experiment) -> Path:
    """``detections-as-published.csv``: the same, of the sets and as ``as_published`` says."""
    kappa1 = kappa1_of(experiment)
    asked = experiment.settings.detection.protocols()
    parts = {slug: _detections_of(experiment, slug, kappa1, asked[slug]) for slug in asked}
    return joined(experiment, "detections-as-published.csv", parts, DETECTION_COLUMNS)


def kappa1_of(experiment: Experiment) -> float:
    """kappa1 as set, or the upper end of the interval of the normal samples' mean kappa.

    Raises ConfigError if the measured one gives no test.
    """
    detection = experiment.settings.detection
    if detection.kappa1 != "measured":
        return detection.kappa1
    kappa = read_records(kappa_of(experiment, "normal"))
    kappas = kappa.loc[kappa["step_size"] == detection.step_size, "kappa"].to_numpy()
    _, upper = mean_interval(kappas, experiment.settings.sensitivity.confidence)
    try:
        for mu in detection.mu:
            detection.hypotheses(upper, mu)
    except ValueError as error:
        raise ConfigError(
            f"detection.kappa1: measured as {upper:.6g} on {len(kappas)} normal samples, which "
            f"gives no test ({error}); set a number, or a step size at which labels change"
        ) from error
    return upper


def _detections_of(experiment: Experiment, slug: str, kappa1: float, protocol: Protocol) -> Path:
    detection = experiment.settings.detection
    own = protocol == OWN
    asked = Protocol(model=detection.model) if own else protocol
    network = asked.model or experiment.network_of(slug)
    section = detection.model_dump(mode="json", exclude={"as_published"}) | {"kappa1": kappa1}
    ingredients = ingredients_of(experiment, "detect", slug, network, protocol)
    ingredients["detection"] = section
    if asked.model is not None and slug not in experiment.settings.attack.sets:
        ingredients["own_label_of"] = asked.model
    name = artefacts.detections(slug if own else f"{slug}-as-published")
    settings = [
        (rule, mu, *detection.hypotheses(kappa1, mu))
        for rule in (detection.rules if own else ("published",))
        for mu in detection.mu
    ]

    def build(path: Path) -> Mapping[str, Any]:
        images, labels, rows = measured(experiment, slug, asked)
        tests = tuple(
            sprt.SequentialTest(rule, p0, p1, detection.alpha, detection.beta, detection.cap)
            for rule, _, p0, p1 in settings
        )
        job = Job(
            experiment.network(network),
            detection.step_size,
            Decisions(tests),
            images,
            labels,
            streams_of(experiment, "detect", slug, asked),
        )
        table: list[list[Any]] = []
        with experiment.bar(len(rows), f"detect {slug}", "sample") as bar:
            outcomes = pieces("detect", job, 250, bar)
        for (index, source), tried in zip(rows, outcomes, strict=True):
            for (rule, mu, p0, p1), (number, n, c) in zip(settings, tried, strict=True):
                verdict = Verdict(number).name.lower()
                table.append([slug, index, source, rule, kappa1, mu, p0, p1, verdict, n, c])
        write_csv(path, table, DETECTION_COLUMNS)
        return pieces.audit.as_counts()

    with Pieces(experiment, name, ingredients) as pieces:
        return experiment.run.make(name, ingredients, build)
