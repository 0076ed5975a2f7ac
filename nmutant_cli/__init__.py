"""nmutant: detecting adversarial samples by mutation testing (arXiv 1805.05010), checked.

from nmutant_cli import Calibration, Detector, calibrate
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nmutant_cli.own_model.calibrate import calibrate
    from nmutant_cli.own_model.calibration import Calibration
    from nmutant_cli.own_model.detector import Detector

__version__ = "0.1.0"
__all__ = ["Calibration", "Detector", "calibrate"]

_WHERE = {"Calibration": "calibration", "Detector": "detector", "calibrate": "calibrate"}


def __getattr__(name: str) -> Any:
    # Imported when asked for: `nmutant --help` waits for none of it.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"nmutant_cli.own_model.{_WHERE[name]}"), name)
