"""Building and training networks.

Keras 3 only: everything here runs on TensorFlow, JAX and PyTorch.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from nmutant_cli.config.networks import Model
from nmutant_cli.datasets import Dataset
from nmutant_cli.errors import ModelError
from nmutant_cli.networks import backend, gradients
from nmutant_cli.networks.architectures import NETWORKS, initialize
from nmutant_cli.networks.checkpoints import Checkpoint
from nmutant_cli.networks.inference import predict_labels
from nmutant_cli.seeding import Name, library_seed, stream
from nmutant_cli.types import AnyArray, Images, Ints, Labels

log = logging.getLogger("nmutant")

MOVES = (9, 9, 2)
"""How many ways there are for `moved` to move an image down, right, and to mirror it."""


@dataclass(frozen=True)
class TrainingReport:
    """Accuracies in [0, 1] and the number of weights of a trained network."""

    train_accuracy: float
    test_accuracy: float
    parameters: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def build(settings: Model, data: Dataset, seed: int, *names: Name) -> keras.Model:
    """A network with fresh weights, drawn from the stream ``names``.

    Raises ModelError if the network does not fit the images or the number of dropout rates.
    """
    network = NETWORKS[settings.network]
    rates = None if settings.dropout is None else list(settings.dropout)

    def make(rates: list[float] | None) -> keras.Model:
        keras.utils.set_random_seed(library_seed(seed, *names, "dropout"))
        return network(data.image_shape, data.n_classes, rates)

    try:
        model = make(None)
        if rates is not None:
            taken = sum(isinstance(layer, keras.layers.Dropout) for layer in model.layers)
            if len(rates) != taken:
                raise ModelError(
                    f"model.dropout: {rates} has {len(rates)} rates, the network "
                    f"{settings.network} takes {taken}"
                )
            model = make(rates)
    except ValueError as error:
        raise ModelError(
            f"model.network: {settings.network} cannot be built for images of "
            f"{data.image_shape} ({str(error).splitlines()[0]})"
        ) from error
    initialize(model, stream(seed, *names, "weights"), settings.initialization)
    return model


def fit(
    model: keras.Model,
    x: Images,
    y: AnyArray,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    rng: np.random.Generator,
    weight_decay: float = 0,
    augment: bool = False,
    progress: str | None = None,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Train in place, `compiled`; ``y`` has shape ``(n, classes)``.

    With ``augment`` each epoch sees the images `moved`. With a ``checkpoint`` training goes on
    where it was stopped and gives the same network.
    """
    y = y.astype(np.float32)
    model = compiled(model, learning_rate, weight_decay)
    done = checkpoint.restore(model) if checkpoint else 0
    steps = -(-len(x) // batch_size)
    hidden = None if progress else True
    with tqdm(total=epochs * steps, desc=progress, disable=hidden, unit="batch") as bar:
        for epoch in range(epochs):
            # We shuffle, so that every backend sees the same order.
            order = rng.permutation(len(x))
            moves = rng.integers(MOVES, size=(len(x), 3)) if augment else None
            if epoch < done:
                bar.update(steps)
                continue
            start = time.monotonic()
            seen = x[order] if moves is None else moved(x[order], moves)
            go_through(model, seen, y[order], batch_size, bar.update)
            if checkpoint:
                checkpoint.seconds += time.monotonic() - start
                checkpoint.save(model, epoch + 1)


def compiled(
    model: keras.Model,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: float = 0,
) -> keras.Model:
    """``model``, or what shares its weights, to be trained with Adam on softmax cross-entropy."""
    model = gradients.to_train(model)
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate, weight_decay=weight_decay or None),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile=backend.jit(),
    )
    return model


def go_through(
    model: keras.Model, x: Images, y: AnyArray, batch_size: int, advance: Callable[[], object]
) -> None:
    """One epoch: train the compiled ``model`` on ``x`` and ``y`` in their order.

    ``advance`` is called after each step.
    """
    if backend.name() == "tensorflow" and backend.on_cpu():
        # Keras's fit is at times left with one of two cores, by chance.
        for first in range(0, len(x), batch_size):
            step = slice(first, first + batch_size)
            model.train_on_batch(x[step], y[step])
            advance()
        return
    callback = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: advance())
    callback.async_safe = True  # else every step waits for the one before
    model.fit(x, y, batch_size, shuffle=False, verbose=0, callbacks=[callback])


def moved(x: Images, moves: Ints) -> Images:
    """Each of the images ``x``, ``(n, h, w, c)``, moved and mirrored as ``moves``, ``(n, 3)``, say.

    Down and right by ``4 - move`` pixels, 4 either way at most, and mirrored left to right or not:
    the augmentation of He et al. 2016 (section 4.2), but what moves in is the border, reflected.
    """
    _, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)), "reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), (1, 2))
    found = windows[np.arange(len(x)), moves[:, 0], moves[:, 1]]
    out = np.ascontiguousarray(np.moveaxis(found, 1, -1))
    mirrored = moves[:, 2] == 1
    out[mirrored] = out[mirrored, :, ::-1]
    return out


def train(
    settings: Model,
    data: Dataset,
    seed: int,
    *names: Name,
    progress: str | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[keras.Model, TrainingReport]:
    """Build and train one network; the same seed and names give the same network on a backend.

    Raises ModelError if the network does not fit the data.
    """
    if settings.precision == "bfloat16" and not backend.has_bfloat16():
        log.warning(
            "model.precision: this processor computes bfloat16 only in emulation, many times "
            "slower than float32; --set model.precision=float32 trains (another network) faster"
        )
    with computing_in(settings.precision):
        model = build(settings, data, seed, *names)
    rate: Any = settings.learning_rate
    if settings.schedule == "cosine":
        steps = settings.epochs * -(-len(data.x_train) // settings.batch_size)
        rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    targets = np.eye(data.n_classes)[data.y_train]
    if settings.label_range is not None:
        targets = targets.clip(*settings.label_range)
    fit(
        model,
        data.x_train,
        targets,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=rate,
        rng=stream(seed, *names, "order"),
        weight_decay=settings.weight_decay,
        augment=settings.augment,
        progress=progress,
        checkpoint=checkpoint,
    )
    if settings.precision != "float32":
        trained = model
        model = build(settings, data, seed, *names)
        model.set_weights(trained.get_weights())
    # Adam's moments are two thirds of a saved file and no part of the network.
    model.compile(jit_compile=backend.jit())

    def accuracy(x: Images, y: Labels) -> float:
        return float((predict_labels(model, x) == y).mean())

    return model, TrainingReport(
        accuracy(data.x_train, data.y_train),
        accuracy(data.x_test, data.y_test),
        model.count_params(),
    )


@contextlib.contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Layers built in this block compute in ``precision``; their weights are float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
