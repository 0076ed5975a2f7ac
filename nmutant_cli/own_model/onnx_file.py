"""A model in an ONNX file, and the weight files that belong to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from nmutant_cli.errors import ModelError
from nmutant_cli.files import digest_of, file_digest
from nmutant_cli.own_model.answers import OwnModel, reason
from nmutant_cli.own_model.calibration import ModelIdentity
from nmutant_cli.own_model.tensors import opened

WITHIN = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Which fields of a message (by number, as in onnx.proto) can hold a tensor, and what they are."""
ENTRY, PLACE, EXTERNAL = 13, 14, 1
"""Of a tensor: an entry of external_data; data_location, and its value for another file."""


def open_onnx(name: str) -> OwnModel:
    """The model in the ONNX file ``name``. Raises ModelError if it takes no images."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            f"{name}: onnxruntime is not installed: pip install onnxruntime"
        ) from error
    network = ModelIdentity(name=Path(name).name, sha256=onnx_digest(Path(name)))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        session = onnxruntime.InferenceSession(
            name, sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise ModelError(f"{name}: not a readable ONNX model ({reason(error)})") from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise ModelError(f"{name}: takes {[i.shape for i in inputs]}, not one batch of images")
    if inputs[0].type not in ("tensor(float)", "tensor(double)"):
        raise ModelError(f"{name}: takes {inputs[0].type}, not float32 or float64 images")
    sizes = [d if isinstance(d, int) else None for d in inputs[0].shape]
    dtype = np.float32 if inputs[0].type == "tensor(float)" else np.float64
    return opened(name, network, sizes, dtype, lambda x: session.run(None, {inputs[0].name: x})[0])


def onnx_digest(path: Path) -> str:
    """sha256 of the file or, where it names weight files, of it and all of them.

    Raises ModelError for a file that is no ONNX model, or a weight file that is not beside it.
    """
    try:
        named = sorted(set(weight_files(memoryview(path.read_bytes()))))
    except (ValueError, IndexError, RecursionError) as error:
        raise ModelError(f"{path}: not a readable ONNX model ({reason(error)})") from error
    if not named:
        return file_digest(path)
    weights = {}
    for place in named:
        inside = not PurePosixPath(place).is_absolute() and ".." not in PurePosixPath(place).parts
        if not inside or not (path.parent / place).is_file():
            raise ModelError(f"{path}: its weights are in {place}, which is not beside it")
        weights[place] = file_digest(path.parent / place)
    return digest_of({"model": file_digest(path), "weights": weights})


def weight_files(data: memoryview, message: str = "model") -> Iterator[str]:
    """The files that an ONNX ``message`` says its tensors are in.

    Raises ValueError or IndexError for bytes that are no such message.
    """
    if message == "tensor":
        fields = list(_fields(data))
        if (PLACE, EXTERNAL) in fields:
            entries = (dict(_fields(_bytes(e))) for number, e in fields if number == ENTRY)
            yield from (_text(entry[2]) for entry in entries if _text(entry[1]) == "location")
        return
    for number, value in _fields(data):
        if number in WITHIN[message]:
            yield from weight_files(_bytes(value), WITHIN[message][number])


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a protobuf message: number, and a whole number or the bytes it is."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"a field of kind {kind}")
        size, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        if at + size > len(data):
            raise ValueError("it ends within a field")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A whole number in bytes of seven bits, the lowest first, and where it ends."""
    value = shift = 0
    while data[at] & 128:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message should be")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_bytes(value)).decode()
