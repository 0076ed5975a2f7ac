"""How long a run will take here: its amounts, at most, over rates measured in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from nmutant_cli.config.settings import Settings
from nmutant_cli.datasets import Dataset
from nmutant_cli.networks import inference, training
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
    """Images trained on, and images labelled, in a second."""
    model = training.build(settings.model, data, settings.seed, "estimate")
    batch = settings.model.batch_size
    x, y = data.x_train[:batch], np.eye(data.n_classes, dtype=np.float32)[data.y_train[:batch]]
    rng = stream(settings.seed, "estimate")
    training.fit(model, x, y, epochs=1, batch_size=batch, learning_rate=1e-3, rng=rng)

    def fit() -> int:
        model.train_on_batch(x, y)
        return len(x)

    size = settings.runtime.batch_size
    together = 1000 if size == "auto" else size
    logits = inference.logits_fn(model, together)
    images = data.x_train[:together]

    def label() -> int:
        logits(images)
        return len(images)

    return _rate(fit), _rate(label)


def _rate(work: Callable[[], int]) -> float:
    work()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        done += work()
    return done / (time.perf_counter() - start)
