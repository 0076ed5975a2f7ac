"""The published numbers in the configs that come along, and in the networks they name."""

from __future__ import annotations

import keras
import pytest

from nmutant_cli.config.loading import load
from nmutant_cli.networks.architectures import NETWORKS

BOTH = {
    "model.batch_size": 128,
    "model.schedule": "constant",
    "model.label_range": None,
    "attack.attempts": 500,
    "attack.count_already_wrong": True,
    "attack.eight_bit": True,
    "attack.sets.fgsm.method": "fgsm",
    "attack.sets.fgsm.norm": "inf",
    "attack.sets.fgsm.targets": "untargeted",
    "attack.sets.cw.method": "cw",
    "attack.sets.cw.model": "base",
    "attack.sets.cw.targets": "all",
    "attack.sets.cw.confidence": 0,
    "attack.sets.cw.max_iterations": 100,
    "attack.sets.cw.binary_search_steps": 1,
    "attack.sets.cw.learning_rate": 0.1,
    "attack.sets.jsma.method": "jsma",
    "attack.sets.jsma.model": "base",
    "attack.sets.jsma.targets": "others",
    "attack.sets.jsma.theta": 1,
    "attack.sets.jsma.gamma": 0.1,
    "attack.sets.bb.method": "blackbox",
    "attack.sets.bb.network": "substitute",
    "attack.sets.bb.holdout": 150,
    "attack.sets.bb.data_aug": 6,
    "attack.sets.bb.lambda": 0.1,
    "attack.sets.bb.epochs": 10,
    "attack.sets.bb.batch_size": 128,
    "attack.sets.bb.learning_rate": 0.001,
    "samples.normal": 500,
    "samples.normal_correct_only": False,
    "samples.wl": 500,
    "mutation.kinds": ["light", "occlusion", "blackout"],
    "mutation.max_rectangle": 3,
    "mutation.max_divisor": 20,
    "mutation.clip": False,
    "sensitivity.step_sizes": [1, 5, 10],
    "sensitivity.mutations": 1000,
    "sensitivity.shared_mutations": True,
    "sensitivity.confidence": 0.99,
    "detection.rules": ["published", "wald"],
    "detection.step_size": 1,
    "detection.sigma": None,
    "detection.alpha": 0.05,
    "detection.beta": 0.05,
    "detection.cap": 2000,
    "detection.model": None,
}
PUBLISHED = {
    "mnist": {
        "model.network": "mnist",
        "model.epochs": 6,
        "model.learning_rate": 0.001,
        "model.initialization": "paper",
        "model.dropout": None,
        "model.precision": "float32",
        "model.stochastic_inference": False,
        "attack.stochastic": False,
        "samples.stochastic": False,
        "variants.smoothed": {"label_range": [pytest.approx(0.1 / 9), 0.9]},
        "variants.longer": {"epochs": 10},
        "attack.sets.cw.initial_const": 10,
        "attack.sets.fgsm.eps": 0.3,
        "attack.sets.fgsm.model": "smoothed",
        "attack.sets.bb.eps": 0.3,
        "attack.sets.bb.model": "longer",
        "mutation.amplitude": 1,
        "detection.kappa1": 0.0017,
        "detection.mu": [1.2, 1.5, 1.8, 2],
    },
    "cifar10": {
        "model.network": "cifar10_allconv",
        "model.epochs": 60,
        "model.learning_rate": 0.0005,
        "model.initialization": "keras",
        "model.dropout": [0.8, 0.5, 0.5],
        "model.stochastic_inference": True,
        "attack.stochastic": True,
        "samples.stochastic": True,
        "variants": {},
        "attack.sets.cw.initial_const": 1,
        "attack.sets.fgsm.eps": 0.03,
        "attack.sets.fgsm.model": "base",
        "attack.sets.bb.eps": 0.03,
        "attack.sets.bb.model": "base",
        "mutation.amplitude": 4,
        "detection.kappa1": 0.2418,
        "detection.mu": [1.01, 1.02, 1.03, 1.04],
    },
}


@pytest.mark.parametrize("config", PUBLISHED)
def test_a_config_holds_the_published_numbers(config):
    settings = load(config)[1].model_dump(mode="json")
    assert settings["dataset"] == config
    assert list(settings["attack"]["sets"]) == ["fgsm", "cw", "jsma", "bb"]
    for key, value in (BOTH | PUBLISHED[config]).items():
        found = settings
        for part in key.split("."):
            found = found[part]
        assert found == value, key


NETWORK = {
    "mnist": [
        (64, 8, 2, "same", "relu"),
        (128, 6, 2, "valid", "relu"),
        (128, 5, 1, "valid", "relu"),
        "Flatten",
        (10, "linear"),
    ],
    "cifar10_allconv": [
        (96, 3, 1, "same", "relu"),
        0.8,
        (96, 3, 1, "same", "relu"),
        (96, 3, 2, "same", "relu"),
        0.5,
        (192, 3, 1, "same", "relu"),
        (192, 3, 1, "same", "relu"),
        (192, 3, 2, "same", "relu"),
        0.5,
        (192, 3, 1, "same", "relu"),
        (192, 1, 1, "same", "relu"),
        (10, 1, 1, "same", "relu"),
        "GlobalAveragePooling2D",
    ],
    "cifar10_basic": [
        (32, 5, 1, "same", "relu"),
        "MaxPooling2D",
        (64, 5, 1, "same", "relu"),
        "MaxPooling2D",
        "Flatten",
        (1024, "relu"),
        0.4,
        (10, "linear"),
    ],
    "substitute": ["Flatten", (200, "relu"), (200, "relu"), (10, "linear")],
}


def described(layer: keras.layers.Layer) -> object:
    if isinstance(layer, keras.layers.Conv2D):
        (size, _), (stride, _) = layer.kernel_size, layer.strides
        return layer.filters, size, stride, layer.padding, layer.activation.__name__
    if isinstance(layer, keras.layers.Dense):
        return layer.units, layer.activation.__name__
    return layer.rate if isinstance(layer, keras.layers.Dropout) else type(layer).__name__


@pytest.mark.parametrize("name", NETWORK)
def test_a_network_has_the_published_layers(name):
    shape = (28, 28, 1) if name in ("mnist", "substitute") else (32, 32, 3)
    assert [described(layer) for layer in NETWORKS[name](shape, 10, None).layers] == NETWORK[name]
