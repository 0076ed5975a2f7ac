"""A user's own model: opened from a file or a function, and asked for the labels of mutations.

Whatever it is, it becomes a function from images, float32 ``(n, height, width, channels)`` in
[0, 1], to labels ``(n,)`` or scores ``(n, classes)``.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nmutant_cli.config.settings import Mutation
from nmutant_cli.errors import ModelError
from nmutant_cli.files import file_digest
from nmutant_cli.mutation.operator import clip_of, identity
from nmutant_cli.mutation.sensitivity import Labeller, NumpyLabeller
from nmutant_cli.own_model.calibration import ModelIdentity
from nmutant_cli.types import AnyArray, Bounds, Images, Labels

Answer = Callable[[Images], Any]
"""Images to labels ``(n,)`` or scores ``(n, classes)``; a Keras model is one."""
Shape = tuple[int | None, int | None, int | None]
FORMS = "a .keras file, an .onnx file, or package.module:function"
FEW = (1, 3, 4)
"""As many channels as an image may have; what else a shape has there is a height."""


@dataclass(frozen=True)
class OwnModel:
    """An opened model: ``predict``, the image ``shape`` it takes (None: any), what to call it.

    ``note`` is what the user should know of how it was read, or empty.
    """

    predict: Answer
    network: ModelIdentity
    shape: Shape | None = None
    note: str = ""


def open_model(name: str) -> OwnModel:
    """The model called ``name``: a ``.keras`` file (safe mode), an ``.onnx`` file, or a function.

    Raises ModelError, in one line, if there is none, it cannot be read, or takes no images.
    """
    kind = Path(name).suffix.lower()
    if kind in (".keras", ".onnx"):
        if not Path(name).is_file():
            raise ModelError(f"{name}: no such model file")
        network = ModelIdentity(name=Path(name).name, sha256=file_digest(Path(name)))
        return _keras(name, network) if kind == ".keras" else _onnx(name, network)
    if ":" in name:
        return OwnModel(_function(name), ModelIdentity(name=name))
    raise ModelError(f"{name}: not a model; give {FORMS}")


def _keras(name: str, network: ModelIdentity) -> OwnModel:
    from nmutant_cli.networks.inference import load

    model = load(Path(name))
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ModelError(f"{name}: takes {shape}, not images (height, width, channels)")
    return OwnModel(model, network, shape[1:])


def _function(name: str) -> Answer:
    module, _, attributes = name.partition(":")
    try:
        with _working_folder_on_path():
            function: Any = importlib.import_module(module)
            for attribute in attributes.split("."):
                function = getattr(function, attribute)
    except Exception as error:  # whatever the module does when it is imported
        raise ModelError(f"{name}: cannot be imported ({_reason(error)})") from error
    if not callable(function):
        raise ModelError(f"{name}: is of type {type(function).__name__}, not a function")

    def answer(images: Images) -> Any:
        try:
            return function(images)
        except Exception as error:
            raise ModelError(
                f"{name}: failed on images of shape {images.shape} ({_reason(error)})"
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


def _onnx(name: str, network: ModelIdentity) -> OwnModel:
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            f"{name}: onnxruntime is not installed: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        session = onnxruntime.InferenceSession(
            name, sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise ModelError(f"{name}: not a readable ONNX model ({_reason(error)})") from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise ModelError(f"{name}: takes {[i.shape for i in inputs]}, not one batch of images")
    if inputs[0].type not in ("tensor(float)", "tensor(double)"):
        raise ModelError(f"{name}: takes {inputs[0].type}, not float32 or float64 images")
    batch, *dims = (d if isinstance(d, int) else None for d in inputs[0].shape)
    first = _channels_first(name, dims)
    dtype = np.float32 if inputs[0].type == "tensor(float)" else np.float64

    def answer(images: Images) -> AnyArray:
        x = (images.transpose(0, 3, 1, 2) if first else images).astype(dtype)
        size, out = batch or max(1, len(x)), []
        for start in range(0, len(x), size):
            part = np.ascontiguousarray(x[start : start + size])
            filled = np.zeros((size, *part.shape[1:]), dtype)  # a batch size may be fixed
            filled[: len(part)] = part
            try:
                scores = session.run(None, {inputs[0].name: filled})[0]
            except Exception as error:
                raise ModelError(f"{name}: failed on a batch ({_reason(error)})") from error
            out.append(np.asarray(scores)[: len(part)])
        return np.concatenate(out)

    shape = (dims[1], dims[2], dims[0]) if first else (dims[0], dims[1], dims[2])
    order = "channels, height, width" if first else "height, width, channels"
    taken = ", ".join("any" if d is None else str(d) for d in dims)
    return OwnModel(answer, network, shape, f"takes ({order}) = ({taken})")


def _channels_first(name: str, dims: list[int | None]) -> bool:
    """By where the 1, 3 or 4 stands that can be the channels; last where both ends could be."""
    if dims[2] in FEW:
        return False
    if dims[0] in FEW:
        return True
    raise ModelError(
        f"{name}: takes images of shape {tuple(dims)}; neither the first nor the last number is "
        "1, 3 or 4 channels. Export it with a fixed number of channels"
    )


def as_labels(answer: Any, n: int) -> Labels:
    """Labels from what a model said of ``n`` images: the labels ``(n,)``, or of scores the best.

    Raises ModelError for any other shape, or scores that are not numbers.
    """
    try:
        array = np.asarray(answer)
    except ValueError:
        raise ModelError("the model gave lists of different lengths, not an array") from None
    if array.shape == (n,) and _whole(array):
        return array.astype(np.int64)
    if array.dtype.kind in "fiu" and array.ndim == 2 and len(array) == n and array.shape[1] > 1:
        if np.isnan(array).any():
            raise ModelError("the model gave NaN as a score")
        return array.argmax(axis=1).astype(np.int64)
    alone = "; make a label of a single score first" if array.size == n else ""
    raise ModelError(
        f"the model gave {array.dtype} of shape {array.shape} for {n} images; "
        f"it must give labels ({n},) or scores ({n}, classes){alone}"
    )


def _whole(array: AnyArray) -> bool:
    if array.dtype.kind == "f":
        return bool(np.isfinite(array).all() and not (array % 1).any())
    return array.dtype.kind in "iu"


def labels_under(
    predict: Answer, mutation: Mutation, batch_size: int
) -> Callable[[float], Labeller]:
    """A `sensitivity.Labeller` for each step size: compiled for a Keras model, else with NumPy."""
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
        if None not in model.input_shape[1:]:
            compiled = CompiledLabeller(
                model,
                1.0,
                mutation=mutation,
                clip=clip,
                batch_size=batch_size,
            )
            # Traced here, so that no two threads do it at once and the first image is as quick.
            shape = model.input_shape[1:]
            compiled(np.zeros((1, *shape), np.float32), identity(1, shape))
            return compiled.at
        predict = logits_fn(model, batch_size)

    def labels(images: Images) -> Labels:
        return as_labels(predict(images), len(images))

    return lambda step_size: NumpyLabeller(labels, step_size, clip, batch_size)


def _is_keras(predict: Answer) -> bool:
    # Whoever has a Keras model has imported Keras.
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(predict, keras.Model)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__
