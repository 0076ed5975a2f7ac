"""How long a run will take here: its amounts, at most, over rates measured in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

import keras
import numpy as np
import pandas as pd

from nmutant_cli.config.settings import Settings
from nmutant_cli.datasets import Dataset
from nmutant_cli.mutation.cascade import PAYS
from nmutant_cli.mutation.graph import CompiledLabeller, seconds_each
from nmutant_cli.mutation.operator import clip_of
from nmutant_cli.networks import backend, inference, training
from nmutant_cli.seeding import stream

SECONDS = 4.0
"""For which each rate is measured, after a first batch that compiles."""


def estimate(settings: Settings, data: Dataset) -> pd.DataFrame:
    """A row for each stage: ``stage, unit, amount, per_second, minutes``, and their sum.

    The rates are those of the ``model`` section's network on this machine, now. The amounts are
    upper bounds: an attack may fail or stop early, and most tests end long before the cap. A
    gradient is taken to cost what training on one image does.
    """
    names = ["base", *settings.variants]
    trained = sum(settings.model_settings(name).epochs for name in names) * len(data.x_train)
    attempts, sets = settings.attack.attempts, settings.attack.sets.values()
    gradients = attempts * sum(params.gradients(data.x_train[0].size) for params in sets)
    samples = settings.samples.normal + settings.samples.wl + attempts * len(sets)
    wanted = settings.sensitivity
    train, label = _rates(settings, data)
    rows = [
        ("train", "images", trained, train),
        ("attack", "gradients", gradients, train),
        ("measure-kappa", "mutations", samples * wanted.mutations * len(wanted.step_sizes), label),
        ("detect", "mutations", samples * settings.detection.cap, label),
    ]
    table = pd.DataFrame(rows, columns=["stage", "unit", "amount", "per_second"])
    table["minutes"] = table["amount"] / table["per_second"] / 60
    total = pd.DataFrame({"stage": ["at most"], "unit": "", "minutes": table["minutes"].sum()})
    return pd.concat([table, total], ignore_index=True)


def _rates(settings: Settings, data: Dataset) -> tuple[float, float]:
    """Images trained on, and mutations labelled, in a second."""
    with training.computing_in(settings.model.precision):
        model = training.build(settings.model, data, settings.seed, "estimate")
    batch = settings.model.batch_size
    x, y = data.x_train[:batch], np.eye(data.n_classes, dtype=np.float32)[data.y_train[:batch]]
    rng = stream(settings.seed, "estimate")
    training.fit(model, x, y, epochs=1, batch_size=batch, learning_rate=1e-3, rng=rng)

    def fit() -> int:
        model.train_on_batch(x, y)
        return len(x)

    return _rate(fit), _labelled(settings, data)


def _labelled(settings: Settings, data: Dataset) -> float:
    model = training.build(settings.model, data, settings.seed, "estimate")
    size = settings.runtime.batch_size

    def seconds(of: keras.Model) -> float:
        graph = CompiledLabeller(
            of,
            1.0,
            mutation=settings.mutation,
            clip=clip_of(settings.mutation, data.bounds),
            batch_size=1000 if size == "auto" else size,
            stochastic=settings.model.stochastic_inference,
        )
        return seconds_each(graph)

    exact = seconds(model)
    if settings.runtime.exact_precision == "auto" and backend.has_bfloat16():
        quick = seconds(inference.in_bfloat16(model))
        if PAYS * quick < exact:
            # Of eight batches asked in bfloat16, the rows in doubt and audited fill about one.
            return 1 / (quick + exact / 8)
    return 1 / exact


def _rate(work: Callable[[], int]) -> float:
    work()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        done += work()
    return done / (time.perf_counter() - start)
