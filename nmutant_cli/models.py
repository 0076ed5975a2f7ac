"""Training, saving and loading networks, and asking them for logits and labels.

Keras 3 only: everything here runs on TensorFlow, JAX and PyTorch.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from nmutant_cli import backend
from nmutant_cli.checkpoints import Checkpoint
from nmutant_cli.config import Model
from nmutant_cli.datasets import Dataset
from nmutant_cli.errors import ModelError
from nmutant_cli.networks import NETWORKS, initialize
from nmutant_cli.seeding import Name, library_seed, stream
from nmutant_cli.types import AnyArray, Images, Labels

log = logging.getLogger("nmutant")

# XLA on the CPU is slower than TensorFlow's own graph for these networks.
JIT = False if keras.backend.backend() == "tensorflow" else "auto"


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
    progress: str | None = None,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Train in place with Adam on softmax cross-entropy; ``y`` has shape ``(n, classes)``.

    With a ``checkpoint`` training goes on where it was stopped and gives the same network.
    """
    y = y.astype(np.float32)
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile=JIT,
    )
    done = checkpoint.restore(model) if checkpoint else 0
    steps = -(-len(x) // batch_size)
    hidden = None if progress else True
    with tqdm(total=epochs * steps, desc=progress, disable=hidden, unit="batch") as bar:
        advance = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: bar.update()
        )
        for epoch in range(epochs):
            # We shuffle, so that every backend sees the same order.
            order = rng.permutation(len(x))
            if epoch < done:
                bar.update(steps)
                continue
            model.fit(x[order], y[order], batch_size, shuffle=False, verbose=0, callbacks=[advance])
            if checkpoint:
                checkpoint.save(model, epoch + 1)


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
    with _computing_in(settings.precision):
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
        progress=progress,
        checkpoint=checkpoint,
    )
    if settings.precision != "float32":
        trained = model
        model = build(settings, data, seed, *names)
        model.set_weights(trained.get_weights())
    # Adam's moments are two thirds of a saved file and no part of the network.
    model.compile(jit_compile=JIT)

    def accuracy(x: Images, y: Labels) -> float:
        return float((predict_labels(model, x) == y).mean())

    return model, TrainingReport(
        accuracy(data.x_train, data.y_train),
        accuracy(data.x_test, data.y_test),
        model.count_params(),
    )


@contextlib.contextmanager
def _computing_in(precision: str) -> Iterator[None]:
    """Layers built in this block compute in ``precision``; their weights are float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def load(path: Path, shape: tuple[int, ...] | None = None) -> keras.Model:
    """Load a ``.keras`` file in safe mode (no Lambda code), checking it takes ``shape`` images.

    Raises ModelError if the file is missing, damaged, unsafe or of another input shape.
    """
    if not Path(path).is_file():
        raise ModelError(f"{path}: no such model file")
    if Path(path).suffix != ".keras":  # Keras's older formats may hold code that it would run
        raise ModelError(f"{path}: not a .keras file, the only format that is loaded")
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds here
        text = " ".join(str(error).split())
        if "safe" in text.lower() and "lambda" in text.lower():
            raise ModelError(f"{path}: contains Lambda code, which is never run") from error
        raise ModelError(f"{path}: not a readable Keras model ({text[:160]})") from error
    if shape is not None:
        expected = getattr(model, "input_shape", None)
        if not isinstance(expected, tuple) or expected[1:] != tuple(shape):
            taken = expected[1:] if isinstance(expected, tuple) else expected
            raise ModelError(f"{path}: takes images of shape {taken}, the data has {tuple(shape)}")
    return model


def logits_fn(model: keras.Model, batch_size: int = 1000) -> Callable[[Images], AnyArray]:
    """``images -> (n, classes)`` float32, in batches of one padded size, compiled once."""
    if not getattr(model, "compiled", False):
        model.compile(jit_compile=JIT)

    def logits(images: Images) -> AnyArray:
        out = [
            np.asarray(model.predict_on_batch(batch))[:used]
            for batch, used in padded_batches(images, batch_size)
        ]
        if not out:
            return np.zeros((0, model.output_shape[-1]), np.float32)
        return np.concatenate(out)

    return logits


def predict_labels(model: keras.Model, images: Images, batch_size: int = 1000) -> Labels:
    """The label of each image, shape ``(n,)`` int64, dropout off."""
    return logits_fn(model, batch_size)(images).argmax(axis=1).astype(np.int64)


def padded_batches(array: AnyArray, size: int) -> Iterator[tuple[AnyArray, int]]:
    """Batches of exactly ``size`` rows, the last filled up with zeros, and the rows that count."""
    for start in range(0, len(array), size):
        part = array[start : start + size]
        used = len(part)
        if used < size:
            part = np.concatenate([part, np.zeros((size - used, *part.shape[1:]), part.dtype)])
        yield part, used
