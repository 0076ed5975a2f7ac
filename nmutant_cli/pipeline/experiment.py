"""An experiment: its settings, its run folder, its networks and sample sets.

Asking for an artefact makes whatever it needs first. Nothing is made twice from the same
ingredients, and what a killed run had finished is used.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from nmutant_cli.config.settings import Settings
from nmutant_cli.datasets import Dataset, load_dataset
from nmutant_cli.files import digest_of, file_digest
from nmutant_cli.mutation.audit import Audit
from nmutant_cli.mutation.operator import clip_of
from nmutant_cli.mutation.sensitivity import Labeller
from nmutant_cli.networks import backend, inference
from nmutant_cli.networks.checkpoints import Checkpoint
from nmutant_cli.pipeline import artefacts
from nmutant_cli.pipeline.attack import adversarial
from nmutant_cli.pipeline.jobs import Answers, Here, Job, NetworkFile, Workers
from nmutant_cli.pipeline.run_folder import Journal, RunFolder
from nmutant_cli.pipeline.samples import SampleSet, accuracy_dropout_on, normal, wrongly_labelled

if TYPE_CHECKING:
    import keras

log = logging.getLogger("nmutant")

CODE = {"train": 1, "samples": 1, "kappa": 2, "detect": 1, "report": 4, "compare": 1, "evade": 1}
"""Version of each stage's code: raised when a change moves its numbers."""


class Experiment:
    """The artefacts of one run folder under one `Settings`.

    >>> import tempfile
    >>> from nmutant_cli import Experiment, load_config
    >>> from nmutant_cli.pipeline.run_folder import RunFolder
    >>> with tempfile.TemporaryDirectory() as folder, RunFolder(folder) as run:
    ...     Experiment(load_config("digits"), run).titles["wl"]
    'WL'
    """

    def __init__(
        self,
        settings: Settings,
        run: RunFolder,
        *,
        quiet: bool = False,
        workers: Workers | None = None,
    ) -> None:
        self.settings, self.run, self._quiet = settings, run, quiet
        self._here = Here()
        self.workers: Workers = workers or self._here
        self._models: dict[str, keras.Model] = {}
        self._samples: dict[str, SampleSet] = {}

    @cached_property
    def data(self) -> Dataset:
        return load_dataset(self.settings.dataset)

    @property
    def titles(self) -> dict[str, str]:
        """Slug and printed name of every sample set, in the order of the paper's columns."""
        return titles_of(self.settings)

    # train

    def model_path(self, name: str = "base") -> Path:
        """``model.keras`` or ``model-NAME.keras``, trained where needed."""
        settings = self.settings.model_settings(name)
        file = artefacts.network(name)
        ingredients = self.ingredients("train", {"model": settings.recipe(), "name": name})
        checkpoint = Checkpoint(
            self.run.path / f".{file}.checkpoint.npz", digest_of([ingredients, backend.name()])
        )

        def build(path: Path) -> Mapping[str, Any]:
            backend.require_training(self.run.path / file)
            from nmutant_cli.networks import training

            log.info("training %s on %s", name, self.settings.dataset)
            model, report = training.train(
                settings,
                self.data,
                self.settings.seed,
                self.settings.dataset,
                "train",
                name,
                progress=None if self._quiet else f"train {name}",
                checkpoint=checkpoint,
            )
            model.save(path)
            counts = report.as_dict() | {"training_seconds": round(checkpoint.seconds, 1)}
            if settings.stochastic_inference:
                share = accuracy_dropout_on(model, self.data, self.settings.seed, name)
                counts["test_accuracy_dropout_on"] = share
            return counts

        path = self.run.make(file, ingredients, build)
        checkpoint.remove()
        return path

    def model(self, name: str = "base") -> keras.Model:
        path = self.model_path(name)
        if name not in self._models:
            self._models[name] = inference.load(path, self.data.image_shape)
        return self._models[name]

    def network(self, name: str) -> NetworkFile:
        """How the network ``name`` labels mutated images."""
        settings = self.settings
        return NetworkFile(
            self.model_path(name).resolve(),
            mutation=settings.mutation,
            clip=clip_of(settings.mutation, self.data.bounds),
            batch_size=settings.runtime.batch_size,
            stochastic=settings.model_settings(name).stochastic_inference,
            shortcuts=settings.runtime.exact_precision == "auto",
        )

    def label(self, network: str, step_size: float) -> Labeller:
        """The label of mutated images, by one of the networks, asked in this process."""
        return self._here.label(self.network(network), step_size)

    # attack

    def network_of(self, slug: str) -> str:
        """The network that a sample set belongs to."""
        sets = self.settings.attack.sets
        return sets[slug].model if slug in sets else "base"

    def samples_path(self, slug: str) -> Path:
        """The sample set ``slug``: ``normal``, ``wl`` or an attack set, crafted where needed."""
        settings = self.settings
        network, file = self.network_of(slug), artefacts.samples(slug)
        ingredients: dict[str, Any] = {
            "set": slug,
            "network": file_digest(self.model_path(network)),
        }
        if slug in settings.attack.sets:
            attack = settings.attack.model_dump(
                mode="json", exclude={"sets", "eight_bit", "stochastic"}
            )
            params = settings.attack.sets[slug].model_dump(mode="json", exclude={"title"})
            for section, key in ((attack, "first"), (params, "restarts"), (params, "aim")):
                if not section.get(key, True):  # a later key: left out where it changes nothing
                    del section[key]
            ingredients |= {"attack": attack, "params": params}
        else:
            mine = {"wl"} if slug == "wl" else {"normal", "normal_correct_only"}
            ingredients["samples"] = settings.samples.model_dump(mode="json", include=mine)
        stochastic = {
            "labels": settings.samples.stochastic,
            "attack": settings.attack.stochastic and slug in settings.attack.sets,
        }
        if any(stochastic.values()):  # later keys as well
            ingredients["stochastic"] = stochastic

        def build(path: Path) -> Mapping[str, Any]:
            notes: dict[str, Any]
            log.info("making the %s samples", self.titles[slug])
            if slug in settings.attack.sets:
                attack_params = settings.attack.sets[slug]
                if attack_params.tensorflow_only:
                    backend.require_tensorflow(self.run.path / file, attack_params.printed)
                if settings.attack.stochastic:
                    backend.require_tensorflow(self.run.path / file, "attack.stochastic")
                samples, notes = adversarial(slug, self.model(network), self.data, settings)
            else:
                choose = {"normal": normal, "wl": wrongly_labelled}[slug]
                samples = choose(self.model(network), self.data, settings)
                notes = {"samples": len(samples)}
            samples.save(path)
            return notes

        return self.run.make(file, self.ingredients("samples", ingredients), build)

    def samples(self, slug: str) -> SampleSet:
        path = self.samples_path(slug)
        if slug not in self._samples:
            self._samples[slug] = SampleSet.load(path)
        return self._samples[slug]

    def all_samples(self) -> dict[str, SampleSet]:
        with self.bar(len(self.titles), "sample sets", "set") as bar:
            found = {}
            for slug in self.titles:
                bar.set_postfix_str(self.titles[slug])
                found[slug] = self.samples(slug)
                bar.update()
        return found

    def ingredients(self, stage: str, more: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "stage": stage,
            "code": CODE[stage],
            "dataset": self.settings.dataset,
            "data": self.data.digest,
            "seed": self.settings.seed,
            **more,
        }

    def bar(self, total: int, what: str, unit: str) -> tqdm[Any]:
        # disable=None: no bar where stderr is not a terminal.
        return tqdm(total=total, desc=what, unit=unit, disable=True if self._quiet else None)


def titles_of(settings: Settings) -> dict[str, str]:
    """`Experiment.titles` of a config."""
    sets = settings.attack.sets
    named = {slug: params.title or params.printed for slug, params in sets.items()}
    if len(set(named.values())) < len(named):
        named = {slug: sets[slug].title or slug for slug in sets}
    return {"normal": "normal", **named, "wl": "WL"}


class Pieces:
    """Jobs done in pieces, each kept in the artefact's journal as soon as it is done.

    ``seconds`` is how long the ``worked`` samples took that were done here and now, ``audit`` how
    their labels were asked.
    """

    def __init__(self, experiment: Experiment, name: str, ingredients: Mapping[str, Any]) -> None:
        self._experiment, self._name, self._ingredients = experiment, name, ingredients
        self._journal: Journal | None = None
        self.worked, self.seconds, self.audit = 0, 0.0, Audit()

    def __enter__(self) -> Pieces:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if self._journal is not None:
            self._journal.close(done=kind is None)

    def __call__(self, key: str, job: Job, size: int, bar: tqdm[Any]) -> Answers:
        """The answers to ``job``, done ``size`` samples at a time."""
        if self._journal is None:
            self._journal = self._experiment.run.journal(self._name, self._ingredients)
        done = self._journal.pieces
        parts = {f"{key}/{first}": job[first : first + size] for first in range(0, len(job), size)}
        left = {name: part for name, part in parts.items() if name not in done}
        bar.update(len(job) - sum(map(len, left.values())))
        start = time.monotonic()
        for name, answers in self._experiment.workers(left):
            self._journal.add(name, answers)
            self.worked += len(answers)
            bar.update(len(answers))
        self.seconds += time.monotonic() - start
        self.audit.add(self._experiment.workers.audit.taken())
        return [answer for name in parts for answer in done[name]]
