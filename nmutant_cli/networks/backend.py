"""The library that Keras runs on: whether it is there, what it can do, what device it is on.

Everything but the attacks works on TensorFlow, JAX and PyTorch (docs/backends.md). Nothing here
imports Keras before it is asked to.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nmutant_cli.errors import ModelError, not_installed

TRAINING = ("tensorflow", "jax", "torch")
"""Keras's other backends (``numpy``) label images but train nothing."""


def require() -> None:
    """Raise ModelError unless Keras can be imported with its backend."""
    if importlib.util.find_spec("keras") is None:
        raise ModelError(not_installed("keras"))
    try:
        import keras  # noqa: F401
    except (ImportError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(
            f"Keras cannot be imported ({reason}); set KERAS_BACKEND to a library that is "
            f"installed: {', '.join(TRAINING)}"
        ) from error


def name() -> str:
    """``tensorflow``, ``jax``, ``torch`` or another backend of Keras's."""
    import keras

    found: str = keras.backend.backend()
    return found


def jit() -> bool | str:
    """Keras's ``jit_compile``; on the CPU XLA is slower than TensorFlow's own graph here."""
    return False if name() == "tensorflow" else "auto"


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, of tensors, compiled so that its steps take one pass over memory together.

    TensorFlow's own graph takes one for each; JAX and PyTorch are left to what compiles the rest.
    """
    if name() != "tensorflow":
        return function
    import tensorflow as tf

    compiled: Callable[..., Any] = tf.function(function, jit_compile=True)
    return compiled


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as one graph for each network, its first argument; PyTorch runs it as it is.

    The other arguments are arrays, or tuples and lists of them, as is what it returns: NumPy's,
    or the backend's own where that turns into NumPy's by itself.
    """
    if name() == "tensorflow":
        import tensorflow as tf

        graph: Callable[..., Any] = tf.function(function)
        return graph
    if name() == "jax":
        import jax

        return jax.jit(function, static_argnums=0)
    import keras

    @functools.wraps(function)
    def eager(network: Any, *arrays: Any) -> Any:
        tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, arrays)
        return keras.tree.map_structure(keras.ops.convert_to_numpy, function(network, *tensors))

    return eager


def gradients(function: Callable[[Any], tuple[Any, Any]], x: Any) -> tuple[list[Any], Any, Any]:
    """``function(x)`` gives losses, a tuple of tensors, and anything else; here with gradients.

    Returns the gradient by ``x`` of the sum of each loss, the losses and the rest. To be called
    inside a `compiled` function.
    """
    if name() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            losses, rest = function(x)
        return [tape.gradient(loss, x) for loss in losses], losses, rest
    if name() == "jax":
        import jax

        losses, pull, rest = jax.vjp(function, x, has_aux=True)
        shares = [[float(k == i) for k in range(len(losses))] for i in range(len(losses))]
        seeds = (tuple(map(jax.numpy.full_like, losses, share)) for share in shares)
        return [pull(seed)[0] for seed in seeds], losses, rest
    import keras
    import torch

    x = x.detach().requires_grad_()
    losses, rest = function(x)
    found = [torch.autograd.grad(loss.sum(), x, retain_graph=True)[0] for loss in losses]
    return found, *keras.tree.map_structure(lambda one: one.detach(), (losses, rest))


def require_training(path: Path) -> None:
    """Raise ModelError where the backend cannot train the network that belongs at ``path``."""
    if name() not in TRAINING:
        raise ModelError(
            f"{path}: is to be trained, which Keras cannot do on {name()}; set KERAS_BACKEND to "
            f"one of {', '.join(TRAINING)}"
        )


def require_tensorflow(path: Path, reason: str) -> None:
    """Raise ModelError where the attack set at ``path`` cannot be made: ``reason`` needs it."""
    missing = [lib for lib in ("tensorflow", "cleverhans") if importlib.util.find_spec(lib) is None]
    if name() == "tensorflow" and not missing:
        return
    why = f"{missing[0]} is not installed" if missing else f"Keras runs on {name()}"
    raise ModelError(
        f"{path}: this attack set is not there for the network and settings at hand, and "
        f"{reason} needs TensorFlow ({why}); run 'nmutant attack' with KERAS_BACKEND=tensorflow "
        "on this run folder, or on a copy of it whose adversarial/ and manifest.json you bring back"
    )


@functools.cache
def device() -> str:
    """The name of the GPU that Keras computes on, or how many cores the CPU has."""
    found = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}.get(name(), lambda: None)()
    return found or f"CPU, {os.cpu_count()} cores"


def on_cpu() -> bool:
    """Whether networks run on the processor."""
    return device().startswith("CPU")


def has_bfloat16() -> bool:
    """False where networks would run on a processor that is known to have no bfloat16 of its own.

    What the processor has is read where Linux says it; elsewhere nothing is known.
    """
    if not on_cpu():
        return True
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return True
    return not words.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


def _tensorflow() -> str | None:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    name: str = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    return name


def _jax() -> str | None:
    import jax

    first = jax.devices()[0]
    return None if first.platform == "cpu" else str(first.device_kind)


def _torch() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
