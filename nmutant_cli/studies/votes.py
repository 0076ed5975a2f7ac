"""Which labels each image of a CIFAR10 run gets under mutation, counted once and kept."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nmutant_cli.files import file_digest
from nmutant_cli.mutation.operator import Mutations, MutationStream
from nmutant_cli.mutation.sensitivity import FixedMutations, Source, Subjects
from nmutant_cli.networks import inference
from nmutant_cli.pipeline.experiment import Experiment
from nmutant_cli.pipeline.jobs import Answers, Here, Job, NetworkFile
from nmutant_cli.pipeline.samples import SampleSet
from nmutant_cli.studies.from_kappa import TITLES
from nmutant_cli.types import Floats, Ints, Labels

ATTACKS = ("fgsm", "cw", "jsma", "bb")
CLASSES = 10
Votes = dict[str, dict[str, tuple[SampleSet, dict[float, Ints]]]]
"""For each setting and set its samples, and ``(n, 11)`` for each step size: see `CountVotes`."""

log = logging.getLogger("nmutant")


@dataclass(frozen=True)
class Setting:
    """How images are labelled: with how many mutations, dropout off or on, floats or 8 bits."""

    name: str
    slugs: tuple[str, ...]
    mutations: int
    stochastic: bool
    doubled: bool = False
    rounded: bool = True


@dataclass(frozen=True)
class CountVotes:
    """Of each image its own label, then how many mutations give each class."""

    mutations: int

    def __call__(self, subjects: Subjects, sources: Sequence[Source]) -> Answers:
        n, m = len(sources), self.mutations
        drawn = Mutations.concatenate(source.take(0, m) for source in sources)
        labels = subjects.mutated(np.arange(n).repeat(m), drawn).reshape(n, m)
        votes = (labels[..., None] == np.arange(CLASSES)).sum(axis=1)
        answers: Answers = np.column_stack([subjects.own, votes]).tolist()
        return answers


def samples_file(slug: str) -> str:
    return f"{'adversarial' if slug in ATTACKS else 'samples'}/{slug}.npz"


def _settings(mutations: int) -> list[Setting]:
    everything = tuple(TITLES)
    return [
        Setting("dropout off", everything, mutations, stochastic=False),
        Setting("dropout on", everything, mutations, stochastic=True),
        Setting("dropout off, float images", ATTACKS, mutations, stochastic=False, rounded=False),
        Setting(
            "dropout on, twice the rate",
            ("normal", "wl"),
            mutations * 2 // 3,
            stochastic=True,
            doubled=True,
        ),
    ]


def count(experiment: Experiment, mutations: int) -> Votes:
    base, here = experiment.run.path / "model.keras", Here()
    votes: Votes = {}
    with tempfile.TemporaryDirectory() as temporary:
        doubled = Path(temporary) / "doubled.keras"
        _double_dropout(base, doubled)
        for setting in _settings(mutations):
            network = NetworkFile(
                doubled if setting.doubled else base.resolve(),
                experiment.settings.mutation,
                None,
                1000,
                setting.stochastic,
            )
            votes[setting.name] = {
                slug: _votes_of(experiment, setting, slug, network, here) for slug in setting.slugs
            }
    return votes


def _votes_of(
    experiment: Experiment, setting: Setting, slug: str, network: NetworkFile, here: Here
) -> tuple[SampleSet, dict[float, Ints]]:
    settings, run = experiment.settings, experiment.run
    file = run.path / samples_file(slug)
    samples = SampleSet.load(file).counted()
    images, _ = samples.rounded(setting.rounded)
    stream = MutationStream(
        (32, 32, 3), settings.mutation, settings.seed, "cifar10", "kappa", "shared"
    )
    source = FixedMutations(stream.take(0, setting.mutations))
    ingredients = {
        "network": file_digest(run.path / "model.keras"),
        "samples": file_digest(file),
        "mutation": settings.mutation.model_dump(mode="json"),
        "seed": settings.seed,
    }
    by_step: dict[float, Ints] = {}
    for step in settings.sensitivity.step_sizes:
        question = CountVotes(setting.mutations)
        job = Job(network, step, question, images, None, [source] * len(images))

        def build(path: Path, job: Job = job) -> None:
            answers = job.done_with(here.label(job.network, job.step_size))
            np.savetxt(path, answers, "%d", delimiter=",")

        name = f"{setting.name}-{slug}-{step:g}-{setting.mutations}.csv".replace(" ", "-")
        log.info("%s, %s, step size %g", setting.name, slug, step)
        kept = run.make(f"questions/{name}", ingredients, build)
        by_step[step] = np.loadtxt(kept, delimiter=",", dtype=np.int64, ndmin=2)
    return samples, by_step


def _double_dropout(old: Path, new: Path) -> None:
    model = inference.load(old)
    for layer in model.layers:
        if hasattr(layer, "rate"):
            layer.rate = 2 * layer.rate
    model.save(new)


def share(votes: Ints, labels: Labels) -> Floats:
    """kappa of each image compared with ``labels``."""
    mutations = votes[:, 1:].sum(axis=1)
    return 1 - votes[np.arange(len(votes)), 1 + labels] / mutations
