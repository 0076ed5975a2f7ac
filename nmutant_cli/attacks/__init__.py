"""The attacks, by method name, and the wrapper `craft` that every one of them goes through.

Importing this package does not import TensorFlow; `attack` and `craft` do when they are called.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from nmutant_cli.attacks.craft import Crafted, craft
from nmutant_cli.errors import AttackError
from nmutant_cli.types import Images

ATTACKS: dict[str, str] = {
    "fgsm": "nmutant_cli.attacks.fgsm",
    "bim": "nmutant_cli.attacks.bim",
    "pgd": "nmutant_cli.attacks.pgd",
    "cw": "nmutant_cli.attacks.cw",
    "jsma": "nmutant_cli.attacks.jsma",
    "blackbox": "nmutant_cli.attacks.blackbox",
    "adaptive": "nmutant_cli.attacks.adaptive",
    "noise": "nmutant_cli.attacks.noise",
}
"""Method name to the module that holds its ``run``; modules are imported when first asked for."""

__all__ = ["ATTACKS", "Crafted", "attack", "craft"]


def attack(method: str) -> Callable[..., Images]:
    """The function ``run`` of the attack called ``method``.

    Raises AttackError if there is none of that name.
    """
    if method not in ATTACKS:
        raise AttackError(f"unknown attack {method!r}, known are {', '.join(ATTACKS)}")
    run: Callable[..., Images] = import_module(ATTACKS[method]).run
    return run
