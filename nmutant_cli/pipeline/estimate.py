"""How long a run will take here: about what it has to do, over rates measured in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

import keras
import numpy as np
import pandas as pd

from nmutant_cli.config.settings import Settings
from nmutant_cli.datasets import Dataset
from nmutant_cli.mutation.cascade import PAYS
from nmutant_cli.mutation.graph import CompiledLabeller
from nmutant_cli.mutation.operator import clip_of, draw
from nmutant_cli.networks import backend, inference, training
from nmutant_cli.seeding import stream

SECONDS = 4.0
"""For which each rate is measured, after a first batch that compiles."""
FRACTION = 0.3
"""Of the cap that the tests read of a sample that is not normal: a quarter to a third on MNIST."""


def estimate(settings: Settings, data: Dataset) -> pd.DataFrame:
    """A row for each stage: ``stage, unit, amount, per_second, minutes``, and their sum.

    The rates are those of the ``model`` section's network on this machine, now. A gradient is taken
    to cost what training on one image does, every attack to succeed and to need all its iterations,
    and normal samples to need the tests' cap.
    """
    names = ["base", *settings.variants]
    trained = sum(settings.model_settings(name).epochs for name in names) * len(data.x_train)
    attempts, sets = settings.attack.attempts, settings.attack.sets.values()
    gradients = attempts * sum(params.gradients(data.x_train[0].size) for params in sets)
    normal, others = settings.samples.normal, settings.samples.wl + attempts * len(sets)
    wanted = settings.sensitivity
    each = wanted.mutations * len(wanted.step_sizes)
    read = round(settings.detection.cap * (normal + FRACTION * others))
    train, label = _rates(settings, data)
    rows = [
        ("train", "images", trained, train),
        ("attack", "gradients", gradients, train),
        ("measure-kappa", "mutations", (normal + others) * each, label),
        ("detect", "mutations", read, label),
    ]
    table = pd.DataFrame(rows, columns=["stage", "unit", "amount", "per_second"])
    table["minutes"] = table["amount"] / table["per_second"] / 60
    total = pd.DataFrame({"stage": ["about"], "unit": "", "minutes": table["minutes"].sum()})
    return pd.concat([table, total], ignore_index=True)


def _rates(settings: Settings, data: Dataset) -> tuple[float, float]:
    """Images trained on, and mutations labelled, in a second."""
    with training.computing_in(settings.model.precision):
        model = training.build(settings.model, data, settings.seed, "estimate")
    batch = settings.model.batch_size
    rows = np.arange(20 * batch) % len(data.x_train)
    x, y = data.x_train[rows], np.eye(data.n_classes, dtype=np.float32)[data.y_train[rows]]
    rng = stream(settings.seed, "estimate")
    training.fit(model, x, y, epochs=1, batch_size=batch, learning_rate=1e-3, rng=rng)

    def fit() -> int:
        model.fit(x, y, batch, verbose=0)
        return len(x)

    return _rate(fit), _labelled(settings, data)


def _labelled(settings: Settings, data: Dataset) -> float:
    """Mutations labelled in a second; those that change nothing are not asked about."""
    model = training.build(settings.model, data, settings.seed, "estimate")
    size = settings.runtime.batch_size
    stochastic = settings.model.stochastic_inference
    shape = data.image_shape
    drawn = draw(
        stream(settings.seed, "estimate"),
        1000 if size == "auto" else size,
        shape,
        settings.mutation,
    )
    asked = 1.0 if stochastic else 1 - float(drawn.is_identity.mean())
    images = np.zeros((len(drawn), *shape), np.float32)

    def rate(of: keras.Model) -> float:
        graph = CompiledLabeller(
            of,
            1.0,
            mutation=settings.mutation,
            clip=clip_of(settings.mutation, data.bounds),
            batch_size=len(drawn),
            stochastic=stochastic,
        )
        return _rate(lambda: len(graph(images, drawn)))

    exact = rate(model)
    if settings.runtime.exact_precision == "auto" and backend.has_bfloat16():
        quick = rate(inference.in_bfloat16(model))
        if quick > PAYS * exact:
            # Of eight batches asked in bfloat16, the rows in doubt and audited fill about one.
            return 1 / (1 / quick + 1 / (8 * exact)) / asked
    return exact / asked


def _rate(work: Callable[[], int]) -> float:
    work()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        done += work()
    return done / (time.perf_counter() - start)
