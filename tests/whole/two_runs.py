"""Two tiny experiments on the digits, for the tests of what makes the numbers.

One set as the published MNIST run is, one with every other way to set the same switches.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import keras
import pytest
from conftest import nmutant
from literal import Run

from nmutant_cli.config.loading import load
from nmutant_cli.networks import architectures, training

AS_PUBLISHED = """
dataset: digits
model: {network: substitute, epochs: 2}
variants:
  smoothed: {label_range: [0.01, 0.9]}
attack:
  attempts: 20
  sets:
    fgsm: {method: fgsm, eps: 0.2, model: smoothed}
    cw:
      {method: cw, targets: all, binary_search_steps: 1, max_iterations: 200, learning_rate: 0.02,
       initial_const: 3}
    jsma: {method: jsma, gamma: 0.05}
    bb: {method: blackbox, eps: 0.2, data_aug: 2, epochs: 1, holdout: 30, model: smoothed}
samples: {normal: 20, wl: 15}
sensitivity: {step_sizes: [1, 10], mutations: 30, shared_mutations: true, confidence: 0.99}
detection:
  rules: [published, wald, algorithm1]
  step_size: 10
  kappa1: measured
  mu: [1.2, 1.5]
  alpha: 0.05
  beta: 0.1
  cap: 50
  as_published:
    normal: {model: smoothed, right_only: true}
    fgsm: {true_label: true}
    cw: {model: smoothed}
    wl: {model: smoothed, true_label: true}
runtime: {batch_size: 100}
"""

THE_OTHER_WAY = """
dataset: digits
model: {network: cifar10_basic, epochs: 1, dropout: [0.5], stochastic_inference: true}
variants:
  plain: {epochs: 2, stochastic_inference: false}
attack:
  attempts: 20
  count_already_wrong: false
  eight_bit: false
  sets:
    fgsm: {method: fgsm, eps: 0.1}
    strong: {method: fgsm, eps: 0.25, model: plain}
samples: {normal: 15, normal_correct_only: true, wl: 10}
mutation: {amplitude: 4, clip: true}
sensitivity: {step_sizes: [5], mutations: 20, shared_mutations: false, confidence: 0.95}
detection:
  rules: [wald]
  step_size: 5
  kappa1: 0.1
  sigma: 0.04
  mu: [1.5]
  cap: 40
  model: plain
runtime: {batch_size: 100}
"""
CONFIGS = {"as published": AS_PUBLISHED, "the other way": THE_OTHER_WAY}


def small_with_dropout(shape, n_classes, dropout) -> keras.Model:
    """Stands in for the network of CIFAR10, which is large."""
    (rate,) = dropout if dropout is not None else (0.4,)
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Conv2D(8, 5, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(60, activation="relu"),
            keras.layers.Dropout(rate),
            keras.layers.Dense(n_classes),
        ]
    )


class Runs:
    """The two experiments, each run as far as detect when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trained = {how: [] for how in CONFIGS}
        """What networks were trained on: images and targets, epoch after epoch."""

    def nmutant(self, command: str, how: str) -> None:
        folder = self.folder / how
        outcome = nmutant(
            command, "-q", "--config", folder / "config.yaml", "--run-dir", folder / "run"
        )
        assert outcome.code == 0, outcome

    @cache  # noqa: B019
    def __getitem__(self, how: str) -> Run:
        folder, go_through = self.folder / how, training.go_through
        folder.mkdir()
        (folder / "config.yaml").write_text(CONFIGS[how])

        def spy(model, x, y, *further):
            self.trained[how].append((x, y))
            go_through(model, x, y, *further)

        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(architectures.NETWORKS, "cifar10_basic", small_with_dropout)
            patch.setattr(training, "go_through", spy)
            self.nmutant("measure-kappa", how)
            self.nmutant("detect", how)
        return Run(folder / "run", load(str(folder / "config.yaml"))[1])

    @cache  # noqa: B019
    def reported(self) -> Run:
        run = self["as published"]
        self.nmutant("report", "as published")
        return run
