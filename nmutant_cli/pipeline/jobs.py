"""Who does the work under mutation: this process, or workers on other cores and machines (Ray).

Samples are the unit. What is done with some of them is a `Job`, which can be sent anywhere: it
draws its mutations from streams known by name, so the answer is the same wherever it is worked
out. Each worker loads a network once.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from nmutant_cli.config.settings import Mutation
from nmutant_cli.detection.detect import detect
from nmutant_cli.detection.sprt import Test
from nmutant_cli.errors import ConfigError, ModelError
from nmutant_cli.mutation.sensitivity import Label, Source, Subjects, tally
from nmutant_cli.types import Bounds, Images, Labels

Answers = list[list[Any]]
"""Of each sample of a job what was found out: lists of whole numbers, ready for JSON."""


@dataclass(frozen=True)
class Network:
    """A network file and how it labels mutated images; see `labelers.KerasLabel`."""

    path: Path
    mutation: Mutation
    clip: Bounds | None
    batch_size: int | Literal["auto"]
    stochastic: bool

    def label(self) -> Label:
        """The compiled graph of this network, at step size 1."""
        from nmutant_cli.mutation.graph import KerasLabel, fastest
        from nmutant_cli.networks import inference

        model = inference.load(self.path)

        def compiled(batch_size: int) -> KerasLabel:
            return KerasLabel(
                model,
                1.0,
                mutation=self.mutation,
                clip=self.clip,
                batch_size=batch_size,
                stochastic=self.stochastic,
            )

        return fastest(compiled) if self.batch_size == "auto" else compiled(self.batch_size)


class Question(Protocol):
    """What is asked of samples under mutation."""

    def __call__(self, subjects: Subjects, sources: Sequence[Source]) -> Answers: ...


@dataclass(frozen=True)
class Kappa:
    """Own label, label changes and majority label under the first ``mutations``."""

    mutations: int

    def __call__(self, subjects: Subjects, sources: Sequence[Source]) -> Answers:
        found = tally(subjects, sources, self.mutations)
        columns = subjects.labels, found.changes, found.majority
        return [list(row) for row in zip(*(c.tolist() for c in columns), strict=True)]


@dataclass(frozen=True)
class Decisions:
    """Of each test: verdict, mutations as its rule counts them, label changes."""

    tests: tuple[Test, ...]

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

    network: Network
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

    def done_with(self, label: Label) -> Answers:
        """The answers; ``label`` is of the network at the step size."""
        return self.question(Subjects(label, self.images, self.labels), self.sources)


class Workers(Protocol):
    """Does jobs, each known by a name, in any order."""

    def __call__(self, jobs: Mapping[str, Job]) -> Iterator[tuple[str, Answers]]: ...

    def close(self) -> None: ...


class Here:
    """This process. A network is compiled once."""

    def __init__(self) -> None:
        self._labels: dict[Network, Any] = {}

    def label(self, network: Network, step_size: float) -> Label:
        """The label of mutated images by ``network``."""
        if network not in self._labels:
            self._labels[network] = network.label()
        label: Label = self._labels[network].at(step_size)
        return label

    def __call__(self, jobs: Mapping[str, Job]) -> Iterator[tuple[str, Answers]]:
        for name, job in jobs.items():
            yield name, job.done_with(self.label(job.network, job.step_size))

    def close(self) -> None:
        """Nothing is left open."""


class OnRay:
    """Ray actors, one job each at a time; those of a lost worker are done again by another.

    ``workers``: how many; on a cluster, where not given, one for each GPU, or else core. Without
    an ``address`` they run on this machine and share its cores. Nothing is started before there is
    something to do. Then raises ConfigError where there is no cluster at ``address``.
    """

    ATTEMPTS = 3
    """So many times each worker may die with no job done in between."""

    def __init__(self, workers: int | None, address: str | None = None) -> None:
        self._number, self._address = workers, address
        self._actor: Any = None
        self._ours = False
        self._files: dict[Path, Any] = {}
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}

    def close(self) -> None:
        """End the workers, and Ray where it was started here."""
        if self._ours:
            import ray

            ray.shutdown()
        self._actor, self._ours = None, False

    def __call__(self, jobs: Mapping[str, Job]) -> Iterator[tuple[str, Answers]]:
        if not jobs:
            return
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        if self._actor is None:
            self._connect()
        left = deque(jobs.items())
        busy: dict[Any, tuple[Any, str, Job]] = {}
        deaths = 0
        while left or busy:
            while left and self._idle:
                worker, (name, job) = self._idle.pop(), left.popleft()
                busy[worker.do.remote(job, self._file(job.network.path))] = worker, name, job
            (ended,), _ = ray.wait([*busy, *self._starting], num_returns=1)
            try:
                answers = ray.get(ended)
            except RayActorError as error:
                # The worker, or its machine, is gone.
                deaths += 1
                if deaths > self.ATTEMPTS * self._workers:
                    raise ModelError(f"workers keep dying ({_first_line(error)})") from error
                self._starting.pop(ended, None)
                if ended in busy:
                    _, name, job = busy.pop(ended)
                    left.appendleft((name, job))
                self._start()
                continue
            except RayTaskError as error:
                raise error.cause from None
            if ended in self._starting:
                self._idle.append(self._starting.pop(ended))
                continue
            worker, name, _ = busy.pop(ended)
            self._idle.append(worker)
            deaths = 0
            yield name, answers

    def _connect(self) -> None:
        import ray

        from nmutant_cli.networks import backend

        cores = os.cpu_count() or 1
        if not ray.is_initialized():
            # A worker without a GPU is not to be told that there are none: Ray's coming default.
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            where: dict[str, Any] = {"num_cpus": self._number or cores, "include_dashboard": False}
            if self._address:
                where = {"address": self._address}
            try:
                _reach(self._address)
                ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
            except (OSError, ValueError, RuntimeError) as error:
                raise ConfigError(
                    f"--ray {self._address}: no cluster answers there ({_first_line(error)})"
                ) from error
            self._ours = True
        has = ray.cluster_resources()
        gpus = int(has.get("GPU", 0))
        self._workers = self._number or gpus or int(has.get("CPU", 1))
        threads = 1 if self._address else max(1, cores // self._workers)
        # What is said to the libraries here is said to them there.
        passed = ("TF_DETERMINISTIC_OPS", "NVIDIA_TF32_OVERRIDE", "JAX_DEFAULT_MATMUL_PRECISION")
        env = {name: os.environ[name] for name in passed if name in os.environ}
        env |= {"KERAS_BACKEND": backend.name(), "TF_CPP_MIN_LOG_LEVEL": "3"}
        env |= dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), str(threads))
        self._actor = ray.remote(_Worker).options(
            num_cpus=1, num_gpus=1 if gpus else 0, runtime_env={"env_vars": env}
        )
        for _ in range(self._workers):
            self._start()

    def _start(self) -> None:
        worker = self._actor.remote()
        self._starting[worker.ready.remote()] = worker

    def _file(self, path: Path) -> Any:
        import ray

        if path not in self._files:
            self._files[path] = ray.put(path.read_bytes())
        return self._files[path]


class _Worker:
    """What runs in a worker's process."""

    def __init__(self) -> None:
        self._here = Here()
        self._folder = tempfile.TemporaryDirectory(prefix="nmutant-")
        self._paths: dict[Path, Path] = {}

    def ready(self) -> bool:
        return True

    def do(self, job: Job, file: bytes) -> Answers:
        """The answers to ``job``; ``file`` is its network's, which may lie on another machine."""
        path = job.network.path
        if path not in self._paths:
            self._paths[path] = Path(self._folder.name) / f"{len(self._paths)}.keras"
            self._paths[path].write_bytes(file)
        network = replace(job.network, path=self._paths[path])
        return job.done_with(self._here.label(network, job.step_size))


def _reach(address: str | None) -> None:
    """Raises OSError where nobody listens at ``host:port``, which Ray would wait minutes for."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit():
        with socket.create_connection((host.rpartition("/")[2], int(port)), timeout=5):
            pass


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
