"""The stages under mutation: measure-kappa and detect, from sample sets to CSV files.

Both work through each sample set in pieces that a killed run need not do again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nmutant_cli.files import file_digest, write_csv
from nmutant_cli.mutation.operator import MutationStream
from nmutant_cli.mutation.sensitivity import FixedMutations, Source
from nmutant_cli.pipeline.experiment import Experiment, Pieces
from nmutant_cli.pipeline.jobs import CountChanges, Job
from nmutant_cli.pipeline.samples import from_8_bits
from nmutant_cli.types import Images, Labels

KAPPA_COLUMNS = [
    "samples", "index", "source_index", "true", "label",
    "step_size", "mutations", "changes", "kappa", "majority",
]  # fmt: skip


def kappa_csv(experiment: Experiment) -> Path:
    """``kappa.csv``: a row per sample and step size, made where needed."""
    sets = experiment.all_samples()
    parts = {slug: _kappa_of(experiment, slug) for slug in sets}
    return _joined(experiment, "kappa.csv", parts, KAPPA_COLUMNS)


def _kappa_of(experiment: Experiment, slug: str) -> Path:
    wanted = experiment.settings.sensitivity
    network = experiment.network_of(slug)
    section = wanted.model_dump(mode="json", exclude={"confidence"})
    ingredients = _ingredients(experiment, "kappa", slug, network) | {"sensitivity": section}
    name = f"kappa/{slug}.csv"

    def build(path: Path) -> Mapping[str, Any]:
        images, labels, rows = measured(experiment, slug)
        true = experiment.samples(slug).counted().true
        shared = FixedMutations(_stream(experiment, "kappa", "shared").take(0, wanted.mutations))
        sources: list[Source] = [shared] * len(rows)
        if not wanted.shared_mutations:
            sources = _streams(experiment, "kappa", slug)
        m = wanted.mutations
        question, size = CountChanges(m), max(1, 50_000 // m)
        table: list[list[Any]] = []
        with experiment.bar(len(rows) * len(wanted.step_sizes), f"kappa {slug}", "sample") as bar:
            for step in wanted.step_sizes:
                job = Job(experiment.network(network), step, question, images, labels, sources)
                counted = pieces(f"{step:g}", job, size, bar)
                table += [
                    [slug, *where, int(y), own, step, m, changes, changes / m, majority]
                    for where, y, (own, changes, majority) in zip(rows, true, counted, strict=True)
                ]
        write_csv(path, table, KAPPA_COLUMNS)
        # Drawing, compiling and the mutations that change nothing are in it.
        rate = pieces.worked * m / pieces.seconds if pieces.worked else None
        return {"mutations_per_second": round(rate)} if rate else {}

    with Pieces(experiment, name, ingredients) as pieces:
        return experiment.run.make(name, ingredients, build)


def measured(
    experiment: Experiment, slug: str
) -> tuple[Images, Labels | None, list[tuple[int, int]]]:
    """The images that are mutated, the labels to compare with, (row, source index) of each.

    None for the labels: each image is compared with the label it gets itself. Labels that were
    recorded with dropout on stand for one pass, which is not repeated.
    """
    samples = experiment.samples(slug)
    chosen = samples.counted()
    rows = np.flatnonzero(samples.counts)
    where = [(int(r), int(i)) for r, i in zip(rows, chosen.index, strict=True)]
    attack = experiment.settings.attack
    if slug in attack.sets and attack.eight_bit:
        return from_8_bits(chosen.image8), chosen.label, where
    return chosen.image, chosen.label if experiment.settings.samples.stochastic else None, where


def _stream(experiment: Experiment, *names: str | int) -> MutationStream:
    settings = experiment.settings
    shape = experiment.data.image_shape
    return MutationStream(shape, settings.mutation, settings.seed, settings.dataset, *names)


def _streams(experiment: Experiment, purpose: str, slug: str) -> list[Source]:
    """A stream of fresh mutations for each sample that counts."""
    chosen = experiment.samples(slug).counted()
    return [
        _stream(experiment, purpose, slug, int(index), int(target))
        for index, target in zip(chosen.index, chosen.target, strict=True)
    ]


def _ingredients(experiment: Experiment, stage: str, slug: str, network: str) -> dict[str, Any]:
    settings = experiment.settings
    return experiment.ingredients(
        stage,
        {
            "set": slug,
            "samples": file_digest(experiment.samples_path(slug)),
            "network": file_digest(experiment.model_path(network)),
            "stochastic_inference": settings.model_settings(network).stochastic_inference,
            "eight_bit": settings.attack.eight_bit,
            "mutation": settings.mutation.model_dump(mode="json"),
            **({"compared_with": "recorded"} if settings.samples.stochastic else {}),
        },
    )


def _joined(
    experiment: Experiment, name: str, parts: Mapping[str, Path], columns: list[str]
) -> Path:
    def build(path: Path) -> Mapping[str, Any]:
        # As text, so that every number is written as it was.
        frames = [pd.read_csv(part, dtype=str, keep_default_na=False) for part in parts.values()]
        joined = pd.concat(frames, ignore_index=True)
        joined.to_csv(path, index=False, columns=columns, lineterminator="\n")
        return {"rows": len(joined)}

    digests = {slug: file_digest(part) for slug, part in parts.items()}
    return experiment.run.make(name, {"parts": digests}, build)
