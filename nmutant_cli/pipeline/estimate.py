"""How long a run will take here: about what it has to do, over rates measured in seconds."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from nmutant_cli.config.settings import Settings
from nmutant_cli.datasets import Dataset
from nmutant_cli.mutation.audit import Audit
from nmutant_cli.mutation.cascade import PAYS, Cascade, labeller
from nmutant_cli.mutation.graph import CompiledLabeller
from nmutant_cli.mutation.operator import (
    LIGHT,
    OCCLUSION,
    Mutations,
    MutationStream,
    clip_of,
    draw,
)
from nmutant_cli.networks import backend, inference, training
from nmutant_cli.seeding import stream

SECONDS = 4.0
"""For which each rate is measured, after a first batch that compiles."""
FRACTION = 0.3
"""Of the cap that the tests read of a sample that is not normal: a quarter to a third on MNIST."""
LIGHT_ASKED, OCCLUSION_ASKED = 0.13, 0.39
"""Of mutations that a shortcut is for, those asked all the same: results/run-times.json."""


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
    trained = training.compiled(model, settings.model.learning_rate)

    def fit() -> int:
        training.go_through(trained, x, y, batch, lambda: None)
        return len(x)

    return _rate(fit), _labelled(settings, data)


def _labelled(settings: Settings, data: Dataset) -> float:
    """Mutations drawn and labelled in a second."""
    model = training.build(settings.model, data, settings.seed, "estimate")
    wanted, size = settings.mutation, settings.runtime.batch_size
    drawn = draw(
        stream(settings.seed, "estimate"),
        1000 if size == "auto" else size,
        data.image_shape,
        wanted,
    )
    images = np.zeros((len(drawn), *data.image_shape), np.float32)
    graph = functools.partial(
        labeller,
        audit=Audit(),
        mutation=wanted,
        clip=clip_of(wanted, data.bounds),
        batch_size=len(drawn),
        stochastic=settings.model.stochastic_inference,
    )
    network = graph(model, shortcuts=settings.runtime.exact_precision == "auto")
    asked = _share_asked(drawn, network)
    plain = network.exact if isinstance(network, Cascade) else network
    exact = _rate(lambda: len(plain(images, drawn)))
    seconds = 1 / exact
    if isinstance(network, Cascade) and backend.has_bfloat16():
        reduced = graph(inference.in_bfloat16(model), shortcuts=False)
        quick = _rate(lambda: len(reduced.at(1.0)(images, drawn)))
        if quick > PAYS * exact:
            # Of eight batches asked in bfloat16, the rows in doubt and audited fill about one.
            seconds = 1 / quick + 1 / (8 * exact)
    rng = stream(settings.seed, "estimate")
    drawing = _rate(lambda: len(draw(rng, MutationStream.BLOCK, data.image_shape, wanted)))
    return 1 / (asked * seconds + 1 / drawing)


def _share_asked(drawn: Mutations, network: Cascade | CompiledLabeller) -> float:
    """Of the mutations ``drawn``, those that the network is asked about."""
    if not network.at(1.0).deterministic:
        return 1.0
    asked = 1 - float(drawn.is_identity.mean())
    if isinstance(network, Cascade):
        for kind, share, way in (
            (LIGHT, LIGHT_ASKED, network.spread),
            (OCCLUSION, OCCLUSION_ASKED, network.gradients),
        ):
            if way is not None:
                asked -= (1 - share) * float((drawn.kind == kind).mean())
    return asked


def _rate(work: Callable[[], int]) -> float:
    work()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        done += work()
    return done / (time.perf_counter() - start)
