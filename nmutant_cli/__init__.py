"""nmutant: detecting adversarial samples by mutation testing (arXiv 1805.05010), checked.

`kappa`, `calibrate` and `Detector` need a function from images to labels; `load_config` and
`Experiment` are for the experiments of the paper. What a user can put right is an `NMutantError`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nmutant_cli.config.loading import load_config
    from nmutant_cli.config.settings import Settings
    from nmutant_cli.detection.sprt import SequentialTest
    from nmutant_cli.errors import NMutantError
    from nmutant_cli.own_model.calibrate import calibrate
    from nmutant_cli.own_model.calibration import Calibration
    from nmutant_cli.own_model.detector import Detector
    from nmutant_cli.own_model.kappa import kappa
    from nmutant_cli.pipeline.experiment import Experiment
    from nmutant_cli.types import Verdict

__version__ = "0.1.0"
__all__ = [
    "Calibration",
    "Detector",
    "Experiment",
    "NMutantError",
    "SequentialTest",
    "Settings",
    "Verdict",
    "__version__",
    "calibrate",
    "kappa",
    "load_config",
]

_WHERE = {
    "Calibration": "own_model.calibration",
    "Detector": "own_model.detector",
    "Experiment": "pipeline.experiment",
    "NMutantError": "errors",
    "SequentialTest": "detection.sprt",
    "Settings": "config.settings",
    "Verdict": "types",
    "calibrate": "own_model.calibrate",
    "kappa": "own_model.kappa",
    "load_config": "config.loading",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: `nmutant --help` waits for none of it.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
