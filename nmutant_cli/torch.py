"""A detector for a PyTorch module: ``Detector(predict(module), calibration)``."""

from nmutant_cli.own_model.pytorch import predict

__all__ = ["predict"]
