"""Detectors to compare, by name. Each is one file; see `contract`.

Importing this package imports Keras.
"""

from __future__ import annotations

from nmutant_cli.detectors import kappa
from nmutant_cli.detectors.contract import Candidate, CountingDetector, NetworkView
from nmutant_cli.detectors.lid import LID
from nmutant_cli.detectors.mutated_models import (
    ActivationInverse,
    GaussianFuzzing,
    NeuronSwitch,
    WeightShuffle,
)
from nmutant_cli.detectors.odds import Odds
from nmutant_cli.detectors.scores import Energy, Margin, Softmax
from nmutant_cli.detectors.squeezing import Squeezing

DETECTORS: dict[str, type[Candidate]] = {
    "kappa": kappa.Kappa,
    "kappa_calibrated": kappa.Calibrated,
    "occlusion": kappa.LargerOcclusion,
    "gaussian": kappa.Gaussian,
    "translation": kappa.Translation,
    "rotation": kappa.Rotation,
    "contrast": kappa.Contrast,
    "softmax": Softmax,
    "margin": Margin,
    "energy": Energy,
    "odds": Odds,
    "squeezing": Squeezing,
    "models_gf": GaussianFuzzing,
    "models_ws": WeightShuffle,
    "models_ns": NeuronSwitch,
    "models_nai": ActivationInverse,
    "lid": LID,
}

__all__ = ["DETECTORS", "Candidate", "CountingDetector", "NetworkView"]
