"""The attacks, by method name, and the wrapper `craft` that every one of them goes through.

Importing this package imports neither Keras nor TensorFlow; `attack` and `craft` do when called.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from nmutant_cli.attacks.craft import Crafted, craft
from nmutant_cli.config.attacks import METHODS
from nmutant_cli.errors import AttackError
from nmutant_cli.types import Images

__all__ = ["Crafted", "attack", "craft"]


def attack(method: str) -> Callable[..., Images]:
    """The function ``run`` of the attack called ``method``.

    Raises AttackError if there is none of that name.
    """
    if method not in METHODS:
        raise AttackError(f"unknown attack {method!r}, known are {', '.join(METHODS)}")
    run: Callable[..., Images] = import_module(f"{__name__}.{method}").run
    return run
