"""A user's own model: opened from a file or a function, and asked for the labels of mutations.

Whatever it is, it becomes a function from images, float32 ``(n, height, width, channels)`` in
[0, 1], to labels ``(n,)`` or scores ``(n, classes)``.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.errors import ConfigError, ModelError
from nmutant_cli.files import file_digest
from nmutant_cli.mutation.operator import WARPING, clip_of, identity
from nmutant_cli.mutation.sensitivity import Labeller, NumpyLabeller
from nmutant_cli.own_model.answers import Answer, OwnModel, as_labels, reason
from nmutant_cli.own_model.calibration import ModelIdentity
from nmutant_cli.own_model.pytorch import refuse_module
from nmutant_cli.own_model.scaling import Scaling
from nmutant_cli.types import Bounds, Images, Labels

FORMS = "a .keras, .onnx or .pt2 file, or package.module:function"
CODE = (".pt", ".pth", ".h5", ".pkl")
"""Files of models that may hold code, which would be run."""
VALUES = 2**23
"""So many pixel values are given to a model in one call, at most: 32 MiB."""


def open_model(name: str, scaled: Scaling | None = None) -> OwnModel:
    """The model called ``name``: a ``.keras`` file (safe mode), an ``.onnx`` or ``.pt2`` file, or a
    function. ``scaled``: what a file's model is given of an image.

    Raises ModelError, in one line, if there is none, it cannot be read, or takes no images.
    """
    scaled = None if scaled == Scaling() else scaled
    kind = Path(name).suffix.lower()
    if kind in (".keras", ".onnx", ".pt2"):
        if not Path(name).is_file():
            raise ModelError(f"{name}: no such model file")
        return _scaled(_of_file(name, kind), scaled)
    if ":" in name:
        if scaled is not None:
            raise ConfigError(f"{name}: takes images in [0, 1]; what it makes of them is its own")
        return OwnModel(_function(name), ModelIdentity(name=name))
    remedy = "; it may hold code, which is never run" if kind in CODE else ""
    raise ModelError(f"{name}: not a model; give {FORMS}{remedy}")


def _of_file(name: str, kind: str) -> OwnModel:
    if kind == ".onnx":
        from nmutant_cli.own_model.onnx_file import open_onnx

        return open_onnx(name)
    if kind == ".pt2":
        from nmutant_cli.own_model.pytorch import open_pt2

        return open_pt2(name)
    return _keras(name)


def _keras(name: str) -> OwnModel:
    from nmutant_cli.networks.inference import load

    network = ModelIdentity(name=Path(name).name, sha256=file_digest(Path(name)))
    model = load(Path(name))
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ModelError(f"{name}: takes {shape}, not images (height, width, channels)")
    return OwnModel(model, network, shape[1:])


def _scaled(model: OwnModel, scaled: Scaling | None) -> OwnModel:
    """The same model, given ``scaled`` images; a Keras model stays one."""
    if scaled is None:
        return model
    if model.shape is not None and model.shape[2] is not None:
        scaled.check(model.shape[2])
    predict = model.predict
    if _is_keras(predict):
        import keras

        first = keras.layers.Rescaling(scaled.factor.tolist(), scaled.offset.tolist())
        answer: Answer = keras.Sequential([keras.Input(model.shape), first, predict])
    else:

        def answer(images: Images) -> Any:
            return predict(scaled(images))

    network = model.network.model_copy(update={"scaling": scaled})
    return replace(model, predict=answer, network=network)


def _function(name: str) -> Answer:
    module, _, attributes = name.partition(":")
    try:
        with _working_folder_on_path():
            function: Any = importlib.import_module(module)
            for attribute in attributes.split("."):
                function = getattr(function, attribute)
    except Exception as error:  # whatever the module does when it is imported
        raise ModelError(f"{name}: cannot be imported ({reason(error)})") from error
    if not callable(function):
        raise ModelError(f"{name}: is of type {type(function).__name__}, not a function")
    refuse_module(function)

    def answer(images: Images) -> Any:
        try:
            return function(images)
        except Exception as error:
            raise ModelError(
                f"{name}: failed on images of shape {images.shape} ({reason(error)})"
            ) from error

    return answer


@contextlib.contextmanager
def _working_folder_on_path() -> Iterator[None]:
    """Find what lies where the user is, after everything that is installed."""
    folder = os.getcwd()
    if folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the module may have taken it away itself
            sys.path.remove(folder)


def labels_under(
    predict: Answer,
    mutation: Mutation,
    batch_size: int,
    shape: Sequence[int] | None = None,
    sizes: Sequence[int] = (),
) -> Callable[[float], Labeller]:
    """A `sensitivity.Labeller` for each step size: compiled for a Keras model, else with NumPy.

    ``shape``: that of an image, where it is known; large images are labelled fewer at a time than
    ``batch_size``, which changes no result. ``sizes``: so few mutations at a time are to be quick,
    too; then a Keras model's images are mutated with NumPy, unless they are warped, as its calls
    with one argument take less time.
    """
    refuse_module(predict)
    if shape is not None:
        batch_size = max(1, min(batch_size, VALUES // math.prod(shape)))
    clip = clip_of(mutation, Bounds(0.0, 1.0))
    if _is_keras(predict):
        from nmutant_cli.mutation.graph import CompiledLabeller
        from nmutant_cli.networks.inference import logits_fn

        model: Any = predict
        if len(model.output_shape) != 2 or model.output_shape[1] == 1:
            raise ModelError(
                f"the model gives scores of shape {model.output_shape}; "
                "it must give (n, classes) with 2 classes or more"
            )
        sizes = tuple(sorted({size for size in sizes if size < batch_size}))
        takes = model.input_shape[1:]
        if None in takes or (sizes and WARPING.isdisjoint(mutation.kinds)):
            predict = logits_fn(model, batch_size, sizes)
            # Traced here, so that no two threads do it at once and the first image is as quick.
            for size in (*sizes, batch_size) if None not in takes else ():
                predict(np.zeros((size, *takes), np.float32))
        else:
            compiled = CompiledLabeller(
                model, 1.0, mutation=mutation, clip=clip, batch_size=batch_size
            ).padding_to(sizes)
            for size in compiled.sizes:
                compiled(np.zeros((size, *takes), np.float32), identity(size, takes))
            return compiled.at

    def labels(images: Images) -> Labels:
        return as_labels(predict(images), len(images))

    return lambda step_size: NumpyLabeller(labels, step_size, clip, batch_size)


def _is_keras(predict: Answer) -> bool:
    # Whoever has a Keras model has imported Keras.
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(predict, keras.Model)
