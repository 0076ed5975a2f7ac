"""The stage detect: the sequential tests on every sample, and the threshold they stand on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nmutant_cli.detection import sprt
from nmutant_cli.errors import ConfigError
from nmutant_cli.files import read_records, write_csv
from nmutant_cli.mutation.sensitivity import half_width
from nmutant_cli.pipeline.experiment import Experiment, Pieces
from nmutant_cli.pipeline.jobs import Decisions, Job
from nmutant_cli.pipeline.kappa import _ingredients, _joined, _kappa_of, _streams, measured
from nmutant_cli.types import Verdict

DETECTION_COLUMNS = [
    "samples", "index", "source_index", "rule", "kappa1", "mu", "p0", "p1",
    "verdict", "mutations", "label_changes",
]  # fmt: skip


def detections_csv(experiment: Experiment) -> Path:
    """``detections.csv``: a row per sample, rule and mu, made where needed."""
    kappa1 = kappa1_of(experiment)
    sets = experiment.all_samples()
    parts = {slug: _detections_of(experiment, slug, kappa1) for slug in sets}
    return _joined(experiment, "detections.csv", parts, DETECTION_COLUMNS)


def kappa1_of(experiment: Experiment) -> float:
    """kappa1 as set, or the upper end of the interval of the normal samples' mean kappa.

    Raises ConfigError if the measured one gives no test.
    """
    wanted = experiment.settings.detection
    if wanted.kappa1 != "measured":
        return wanted.kappa1
    kappa = read_records(_kappa_of(experiment, "normal"))
    kappas = kappa.loc[kappa["step_size"] == wanted.step_size, "kappa"].to_numpy()
    upper = float(kappas.mean()) + half_width(kappas, experiment.settings.sensitivity.confidence)
    try:
        for mu in wanted.mu:
            wanted.hypotheses(upper, mu)
    except ValueError as error:
        raise ConfigError(
            f"detection.kappa1: measured as {upper:.6g} on {len(kappas)} normal samples, which "
            f"gives no test ({error}); set a number, or a step size at which labels change"
        ) from error
    return upper


def _detections_of(experiment: Experiment, slug: str, kappa1: float) -> Path:
    wanted = experiment.settings.detection
    network = wanted.model or experiment.network_of(slug)
    section = wanted.model_dump(mode="json") | {"kappa1": kappa1}
    ingredients = _ingredients(experiment, "detect", slug, network) | {"detection": section}
    name = f"detections/{slug}.csv"
    settings = [
        (rule, mu, *wanted.hypotheses(kappa1, mu)) for rule in wanted.rules for mu in wanted.mu
    ]

    def build(path: Path) -> None:
        images, labels, rows = measured(experiment, slug)
        if wanted.model is not None:
            labels = experiment.samples(slug).counted().label
        tests = tuple(
            sprt.SequentialTest(rule, p0, p1, wanted.alpha, wanted.beta, wanted.cap)
            for rule, _, p0, p1 in settings
        )
        job = Job(
            experiment.network(network),
            wanted.step_size,
            Decisions(tests),
            images,
            labels,
            _streams(experiment, "detect", slug),
        )
        table: list[list[Any]] = []
        with experiment.bar(len(rows), f"detect {slug}", "sample") as bar:
            outcomes = pieces("detect", job, 250, bar)
        for (index, source), tried in zip(rows, outcomes, strict=True):
            for (rule, mu, p0, p1), (verdict, n, c) in zip(settings, tried, strict=True):
                found = Verdict(verdict).name.lower()
                table.append([slug, index, source, rule, kappa1, mu, p0, p1, found, n, c])
        write_csv(path, table, DETECTION_COLUMNS)

    with Pieces(experiment, name, ingredients) as pieces:
        return experiment.run.make(name, ingredients, build)
