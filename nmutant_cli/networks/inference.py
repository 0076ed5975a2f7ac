"""Loading networks, and asking them for logits and labels, dropout off.

Keras 3 only: everything here runs on TensorFlow, JAX and PyTorch. Importing this imports none of
them: Keras comes with the first network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nmutant_cli.errors import ModelError
from nmutant_cli.networks import backend
from nmutant_cli.types import AnyArray, Images, Labels

if TYPE_CHECKING:
    import keras


def load(path: Path, shape: tuple[int, ...] | None = None) -> keras.Model:
    """Load a ``.keras`` file in safe mode (no Lambda code), checking it takes ``shape`` images.

    Raises ModelError if the file is missing, damaged, unsafe or of another input shape.
    """
    if not Path(path).is_file():
        raise ModelError(f"{path}: no such model file")
    if Path(path).suffix != ".keras":  # Keras's older formats may hold code that it would run
        raise ModelError(f"{path}: not a .keras file, the only format that is loaded")
    import keras

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


def logits_fn(
    model: keras.Model, batch_size: int = 1000, smaller: Sequence[int] = ()
) -> Callable[[Images], AnyArray]:
    """``images -> (n, classes)`` float32, in batches of one padded size, compiled once.

    ``smaller``: further sizes, so that few images need not be padded to a whole batch.
    """
    if not getattr(model, "compiled", False):
        model.compile(jit_compile=backend.jit())

    def logits(images: Images) -> AnyArray:
        out = [
            np.asarray(model.predict_on_batch(batch))[:used]
            for batch, used in padded_batches(images, batch_size, smaller)
        ]
        if not out:
            return np.zeros((0, model.output_shape[-1]), np.float32)
        return np.concatenate(out)

    return logits


def in_bfloat16(model: keras.Model) -> keras.Model:
    """The same network computing in bfloat16, but for its first and last layer with weights.

    Those two are cheap, and rounding the image would cost more precision than all the rest. Its
    weights are float32 and a copy.
    """
    import keras

    weighted = [i for i, layer in enumerate(model.layers) if layer.weights] or [0]
    precise = {
        layer.name for i, layer in enumerate(model.layers) if i <= weighted[0] or i >= weighted[-1]
    }

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name not in precise:
            config["dtype"] = "mixed_bfloat16"
        return type(layer).from_config(config)

    quick = keras.models.clone_model(model, clone_function=clone)
    quick.set_weights(model.get_weights())
    return quick


def predict_labels(model: keras.Model, images: Images, batch_size: int = 1000) -> Labels:
    """The label of each image, shape ``(n,)`` int64, dropout off."""
    return logits_fn(model, batch_size)(images).argmax(axis=1).astype(np.int64)


def padded_batches(
    array: AnyArray, size: int, smaller: Sequence[int] = ()
) -> Iterator[tuple[AnyArray, int]]:
    """Batches of exactly ``size`` rows and how many of these count; zeros fill up the last one.

    It is filled up to the next of the sizes ``smaller``, where one is large enough.
    """
    for start in range(0, len(array), size):
        part = array[start : start + size]
        used = len(part)
        missing = min((s for s in smaller if s >= used), default=size) - used
        if missing > 0:
            part = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])
        yield part, used
