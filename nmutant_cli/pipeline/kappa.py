"""The stages under mutation: measure-kappa and detect, from sample sets to CSV files.

Both work through each sample set in pieces that a killed run need not do again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nmutant_cli.config.detection import OWN, Protocol
from nmutant_cli.files import file_digest, write_csv
from nmutant_cli.mutation.operator import MutationStream
from nmutant_cli.mutation.sensitivity import FixedMutations, Source, images_at_once
from nmutant_cli.pipeline import artefacts
from nmutant_cli.pipeline.experiment import Experiment, Pieces
from nmutant_cli.pipeline.jobs import CountChanges, Job
from nmutant_cli.types import Images, Labels

KAPPA_COLUMNS = [
    "samples", "index", "source_index", "true", "label",
    "step_size", "mutations", "changes", "kappa", "majority",
]  # fmt: skip


def kappa_csv(experiment: Experiment) -> Path:
    """``kappa.csv``: a row per sample and step size, made where needed."""
    sets = experiment.all_samples()
    parts = {slug: kappa_of(experiment, slug) for slug in sets}
    return joined(experiment, "kappa.csv", parts, KAPPA_COLUMNS)


def kappa_of(experiment: Experiment, slug: str) -> Path:
    """The part of kappa.csv that is of one sample set."""
    sensitivity = experiment.settings.sensitivity
    m, steps = sensitivity.mutations, sensitivity.step_sizes
    network = experiment.network_of(slug)
    protocol = Protocol(true_label=sensitivity.true_label)
    section = sensitivity.model_dump(mode="json", exclude={"confidence", "true_label"})
    ingredients = ingredients_of(experiment, "kappa", slug, network, protocol)
    ingredients["sensitivity"] = section
    name = artefacts.kappa(slug)

    def build(path: Path) -> Mapping[str, Any]:
        images, labels, rows = measured(experiment, slug, protocol)
        chosen = experiment.samples(slug).counted()
        shared = FixedMutations(stream_of(experiment, "kappa", "shared").take(0, m))
        sources: list[Source] = [shared] * len(rows)
        if not sensitivity.shared_mutations:
            sources = streams_of(experiment, "kappa", slug)
        question, size = CountChanges(m), images_at_once(m)
        table: list[list[Any]] = []
        with experiment.bar(len(rows) * len(steps), f"kappa {slug}", "sample") as bar:
            for step in steps:
                job = Job(experiment.network(network), step, question, images, labels, sources)
                counted = pieces(f"{step:g}", job, size, bar)
                for i, (where, (label, changes, majority)) in enumerate(
                    zip(rows, counted, strict=True)
                ):
                    own = int(chosen.label[i]) if protocol.true_label else label
                    cells = int(chosen.true[i]), own, step, m, changes, changes / m, majority
                    table.append([slug, *where, *cells])
        write_csv(path, table, KAPPA_COLUMNS)
        # Drawing, compiling and the mutations that change nothing are in it.
        rate = pieces.worked * m / pieces.seconds if pieces.worked else None
        rates = {"mutations_per_second": round(rate)} if rate else {}
        return rates | pieces.audit.as_counts()

    with Pieces(experiment, name, ingredients) as pieces:
        return experiment.run.make(name, ingredients, build)


def measured(
    experiment: Experiment, slug: str, protocol: Protocol = OWN
) -> tuple[Images, Labels | None, list[tuple[int, int]]]:
    """The images that are mutated, the labels to compare with, (row, source index) of each.

    None for the labels: each image is compared with the label it gets itself, from the network that
    is asked. Labels that were recorded with dropout on stand for one pass, which is not repeated.
    Of an attack set another network is compared with what the attacked one said.
    """
    samples = experiment.samples(slug)
    chosen = samples.counted(protocol.right_only)
    rows = np.flatnonzero(samples.kept(protocol.right_only))
    where = [(int(r), int(i)) for r, i in zip(rows, chosen.index, strict=True)]
    attack = experiment.settings.attack
    attacked = slug in attack.sets
    eight_bit = attacked and attack.eight_bit
    images, _ = chosen.rounded(eight_bit)
    if protocol.true_label:
        return images, chosen.true, where
    recorded = eight_bit or experiment.settings.samples.stochastic
    recorded |= attacked and protocol.model is not None
    return images, chosen.label if recorded else None, where


def stream_of(experiment: Experiment, *names: str | int) -> MutationStream:
    """The mutations of the run's operator that these names stand for."""
    settings = experiment.settings
    shape = experiment.data.image_shape
    return MutationStream(shape, settings.mutation, settings.seed, settings.dataset, *names)


def streams_of(
    experiment: Experiment, purpose: str, slug: str, protocol: Protocol = OWN
) -> list[Source]:
    """A stream of fresh mutations for each of the samples that are asked about."""
    chosen = experiment.samples(slug).counted(protocol.right_only)
    return [
        stream_of(experiment, purpose, slug, int(index), int(target))
        for index, target in zip(chosen.index, chosen.target, strict=True)
    ]


def ingredients_of(
    experiment: Experiment, stage: str, slug: str, network: str, protocol: Protocol = OWN
) -> dict[str, Any]:
    """What anything made of a sample set under mutation, labelled by ``network``, hangs on."""
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
            **({"protocol": protocol.model_dump()} if protocol != OWN else {}),
        },
    )


def joined(
    experiment: Experiment, name: str, parts: Mapping[str, Path], columns: list[str]
) -> Path:
    """The artefact ``name``: the rows of all ``parts``."""

    def build(path: Path) -> Mapping[str, Any]:
        # As text, so that every number is written as it was.
        frames = [pd.read_csv(part, dtype=str, keep_default_na=False) for part in parts.values()]
        joined = pd.concat(frames, ignore_index=True)
        joined.to_csv(path, index=False, columns=columns, lineterminator="\n")
        return {"rows": len(joined)}

    digests = {slug: file_digest(part) for slug, part in parts.items()}
    return experiment.run.make(name, {"parts": digests}, build)
