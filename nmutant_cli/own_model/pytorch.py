"""A PyTorch module as a model: in memory, or exported to a ``.pt2`` file."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nmutant_cli.errors import ModelError
from nmutant_cli.files import file_digest
from nmutant_cli.own_model.answers import Answer, OwnModel, as_labels, reason
from nmutant_cli.own_model.calibration import ModelIdentity
from nmutant_cli.own_model.scaling import scaling
from nmutant_cli.own_model.tensors import opened
from nmutant_cli.types import AnyArray, Images, Labels

if TYPE_CHECKING:
    import torch

MODE = {"dropout": 2, "feature_dropout": 2, "alpha_dropout": 2, "batch_norm": 5}
"""Operators that do something else in training, and the argument that says so."""
DATA_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""PyTorch's own switch: what it unpickles may hold tensors, not code."""


def predict(
    module: torch.nn.Module,
    *,
    mean: Any = 0.0,
    std: Any = 1.0,
    scale: float = 1.0,
    batch_size: int = 128,
) -> Answer:
    """``module`` as a function from images, float32 ``(n, h, w, c)`` in [0, 1], to labels ``(n,)``.

    It is asked for scores ``(n, classes)`` of ``(scale * image - mean) / std``, channels first, on
    the device and in the precision of its weights, at most ``batch_size`` at a time. It is put in
    eval mode, and left there. ``mean`` and ``std``: a number, or one for each channel.

    Raises ConfigError for a scaling that cannot be, ModelError for what is no module.
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"predict takes a torch.nn.Module, not a {type(module).__name__}")
    scaled = scaling(scale, mean, std)

    def labels(images: Images) -> Labels:
        if not len(images):
            return np.zeros(0, np.int64)
        module.eval()
        weights = itertools.chain(module.parameters(), module.buffers())
        like = next((w for w in weights if w.is_floating_point()), torch.zeros(()))
        x, out = scaled(images).transpose(0, 3, 1, 2), []
        with torch.no_grad():
            for start in range(0, len(x), batch_size):
                part = torch.from_numpy(np.ascontiguousarray(x[start : start + batch_size]))
                out.append(_array(module(part.to(like.device, like.dtype))))
        return as_labels(np.concatenate(out), len(images))

    return labels


def refuse_module(predict: Any) -> None:
    """Raises ModelError for a bare module: nobody knows its range, its axes or its mode."""
    torch = sys.modules.get("torch")  # whoever has a module has imported it
    if torch is not None and isinstance(predict, torch.nn.Module):
        raise ModelError(
            "this is a PyTorch module; give predict(module, mean=..., std=...) instead, with "
            "predict from nmutant_cli.torch, which says what range of values it takes"
        )


def open_pt2(name: str) -> OwnModel:
    """The program that `torch.export.save` wrote to ``name``. Raises ModelError if it is of no use.

    Not for a stranger's file: PyTorch evaluates the sizes in it, and unpickles special constants.
    """
    try:
        import torch
    except ImportError as error:
        raise ModelError(f"{name}: PyTorch is not installed: pip install torch") from error
    network = ModelIdentity(name=Path(name).name, sha256=file_digest(Path(name)))
    program = _loaded(name)
    nodes = list(program.graph.nodes)
    asked = set(program.graph_signature.user_inputs)
    given = [n.meta["val"] for n in nodes if n.op == "placeholder" and n.name in asked]
    shapes = [list(getattr(value, "shape", [])) for value in given]
    if len(given) != 1 or len(shapes[0]) != 4:
        raise ModelError(f"{name}: takes {shapes}, not one batch of images")
    if given[0].dtype not in (torch.float32, torch.float64):
        raise ModelError(f"{name}: takes {given[0].dtype}, not float32 or float64 images")
    if any(_trains(node) for node in nodes):
        raise ModelError(f"{name}: was exported for training; call eval() on the module first")
    module, device = program.module(), given[0].device
    sizes = [size if isinstance(size, int) else None for size in shapes[0]]
    dtype = np.float32 if given[0].dtype == torch.float32 else np.float64

    def run(x: AnyArray) -> AnyArray:
        with torch.no_grad():
            return _array(module(torch.from_numpy(x).to(device)))

    return opened(name, network, sizes, dtype, run)


def _loaded(name: str) -> torch.export.ExportedProgram:
    import torch

    if not zipfile.is_zipfile(name):
        raise ModelError(f"{name}: not a program that torch.export.save wrote")
    try:
        with _quiet_and_data_only():
            return torch.export.load(name)
    except Exception as error:  # PyTorch has many kinds here
        raise ModelError(
            f"{name}: not a readable program of torch.export.save ({reason(error)})"
        ) from error


@contextlib.contextmanager
def _quiet_and_data_only() -> Iterator[None]:
    kept, said = os.environ.get(DATA_ONLY), logging.root.manager.disable
    os.environ[DATA_ONLY] = "1"
    logging.disable(max(said, logging.ERROR))  # what goes wrong is raised
    try:
        yield
    finally:
        logging.disable(said)
        os.environ.pop(DATA_ONLY)
        if kept is not None:
            os.environ[DATA_ONLY] = kept


def _trains(node: torch.fx.Node) -> bool:
    operator = str(node.target).removeprefix("aten.").partition(".")[0].rstrip("_")
    place = MODE.get(operator)
    return place is not None and len(node.args) > place and node.args[place] is True


def _array(scores: Any) -> AnyArray:
    import torch

    if not isinstance(scores, torch.Tensor):
        raise ModelError(f"the module gave a {type(scores).__name__}, not a tensor of scores")
    return scores.detach().cpu().double().numpy()
