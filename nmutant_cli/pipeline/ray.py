"""Workers on other cores and machines, with Ray."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from nmutant_cli.errors import ConfigError, ModelError, first_line
from nmutant_cli.mutation.audit import Audit
from nmutant_cli.networks import backend
from nmutant_cli.pipeline.jobs import Answers, Here, Job

PASSED = (
    "TF_DETERMINISTIC_OPS",
    "TF_ENABLE_ONEDNN_OPTS",
    "NVIDIA_TF32_OVERRIDE",
    "JAX_DEFAULT_MATMUL_PRECISION",
)
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
"""Where they are set here, workers have the same; else they share the cores."""


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
        self.audit = Audit()
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
                outcome = ray.get(ended)
            except RayActorError as error:
                # The worker, or its machine, is gone.
                deaths += 1
                if deaths > self.ATTEMPTS * self._workers:
                    raise ModelError(f"workers keep dying ({first_line(error)})") from error
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
            answers, audit = outcome
            self.audit.add(audit)
            yield name, answers

    def _connect(self) -> None:

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
                    f"--ray {self._address}: no cluster answers there ({first_line(error)})"
                ) from error
            self._ours = True
        has = ray.cluster_resources()
        gpus = int(has.get("GPU", 0))
        self._workers = self._number or gpus or int(has.get("CPU", 1))
        threads = 1 if self._address else max(1, cores // self._workers)
        # What is said to the libraries here is said to them there.
        env = {name: os.environ[name] for name in PASSED if name in os.environ}
        env |= {"KERAS_BACKEND": backend.name(), "TF_CPP_MIN_LOG_LEVEL": "3"}
        for name in THREADS:
            env[name] = os.environ.get(name, str(threads))
        self._actor = ray.remote(_Worker).options(
            num_cpus=1, num_gpus=1 if gpus else 0, runtime_env={"env_vars": env}
        )
        for _ in range(self._workers):
            self._start()

    def _start(self) -> None:
        worker = self._actor.remote()
        self._starting[worker.ready.remote()] = worker

    def _file(self, path: Path) -> Any:

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

    def do(self, job: Job, file: bytes) -> tuple[Answers, Audit]:
        """The answers to ``job``, and how its labels were asked.

        ``file`` is its network's, which may lie on another machine.
        """
        path = job.network.path
        if path not in self._paths:
            self._paths[path] = Path(self._folder.name) / f"{len(self._paths)}.keras"
            self._paths[path].write_bytes(file)
        network = replace(job.network, path=self._paths[path])
        answers = job.done_with(self._here.label(network, job.step_size))
        return answers, self._here.audit.taken()


def _reach(address: str | None) -> None:
    """Raises OSError where nobody listens at ``host:port``, which Ray would wait minutes for."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit():
        with socket.create_connection((host.rpartition("/")[2], int(port)), timeout=5):
            pass
