"""Who does the work under mutation: this process, or workers on other cores and machines (Ray).

Samples are the unit. What is done with some of them is a `Job`, which can be sent anywhere: it
draws its mutations from streams known by name, so the answer is the same wherever it is worked
out. Each worker loads a network once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.detection.detect import detect
from nmutant_cli.detection.sprt import SequentialTest
from nmutant_cli.mutation.audit import Audit
from nmutant_cli.mutation.sensitivity import Labeller, Source, Subjects, tally
from nmutant_cli.types import Bounds, Images, Labels

if TYPE_CHECKING:
    from nmutant_cli.mutation.cascade import Cascade
    from nmutant_cli.mutation.graph import CompiledLabeller

Answers = list[list[Any]]
"""Of each sample of a job what was found out: lists of whole numbers, ready for JSON."""


@dataclass(frozen=True)
class NetworkFile:
    """A network file and how it labels mutated images; see `graph.CompiledLabeller`."""

    path: Path
    mutation: Mutation
    clip: Bounds | None
    batch_size: int | Literal["auto"]
    stochastic: bool
    shortcuts: bool = True

    def label(self, audit: Audit) -> Cascade | CompiledLabeller:
        """The compiled network; ``audit`` counts how its labels are come by."""
        from nmutant_cli.mutation.cascade import labeller
        from nmutant_cli.networks import inference

        return labeller(
            inference.load(self.path),
            audit,
            mutation=self.mutation,
            clip=self.clip,
            batch_size=self.batch_size,
            stochastic=self.stochastic,
            shortcuts=self.shortcuts,
        )


class Question(Protocol):
    """What is asked of samples under mutation."""

    def __call__(self, subjects: Subjects, sources: Sequence[Source]) -> Answers: ...


@dataclass(frozen=True)
class CountChanges:
    """Own label, label changes and majority label under the first ``mutations``."""

    mutations: int

    def __call__(self, subjects: Subjects, sources: Sequence[Source]) -> Answers:
        found = tally(subjects, sources, self.mutations)
        columns = subjects.labels, found.changes, found.majority
        return [list(row) for row in zip(*(c.tolist() for c in columns), strict=True)]


@dataclass(frozen=True)
class Decisions:
    """Of each test: verdict, mutations as its rule counts them, label changes."""

    tests: tuple[SequentialTest, ...]

    def __call__(self, subjects: Subjects, sources: Sequence[Source]) -> Answers:
        found = detect(subjects, sources, self.tests)
        return [
            [[int(d.verdict[i]), int(d.n[i]), int(d.c[i])] for d in found]
            for i in range(len(sources))
        ]


@dataclass(frozen=True)
class Job:
    """Samples, the mutations of each, the labels they are compared with, and the question.

    ``labels``: ``(n,)``, or None for the label that each image gets itself.
    """

    network: NetworkFile
    step_size: float
    question: Question
    images: Images
    labels: Labels | None
    sources: Sequence[Source]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> Job:
        labels = None if self.labels is None else self.labels[part]
        return replace(self, images=self.images[part], labels=labels, sources=self.sources[part])

    def done_with(self, label: Labeller) -> Answers:
        """The answers; ``label`` is of the network at the step size."""
        return self.question(Subjects(label, self.images, self.labels), self.sources)


class Workers(Protocol):
    """Does jobs, each known by a name, in any order; ``audit`` counts how labels were asked."""

    audit: Audit

    def __call__(self, jobs: Mapping[str, Job]) -> Iterator[tuple[str, Answers]]: ...

    def close(self) -> None: ...


class Here:
    """This process. A network is compiled once."""

    def __init__(self) -> None:
        self._labels: dict[NetworkFile, Any] = {}
        self.audit = Audit()

    def label(self, network: NetworkFile, step_size: float) -> Labeller:
        """The label of mutated images by ``network``."""
        if network not in self._labels:
            self._labels[network] = network.label(self.audit)
        label: Labeller = self._labels[network].at(step_size)
        return label

    def __call__(self, jobs: Mapping[str, Job]) -> Iterator[tuple[str, Answers]]:
        for name, job in jobs.items():
            yield name, job.done_with(self.label(job.network, job.step_size))

    def close(self) -> None:
        """Nothing is left open."""
