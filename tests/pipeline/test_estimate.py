"""What ``nmutant estimate`` counts."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from nmutant_cli.config.loading import load
from nmutant_cli.datasets import Dataset
from nmutant_cli.mutation.audit import Audit
from nmutant_cli.mutation.cascade import labeller
from nmutant_cli.mutation.operator import draw
from nmutant_cli.networks.architectures import NETWORKS
from nmutant_cli.pipeline import estimate


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.random((1200, 28, 28, 1)).astype(np.float32)
    y = rng.integers(10, size=1200)
    return Dataset("mnist", x, y, x, y, "none")


def test_amounts_are_what_the_settings_ask_for(data, monkeypatch):
    monkeypatch.setattr(estimate, "SECONDS", 0.01)
    _, settings = load("mnist")
    found = estimate.estimate(settings, data).set_index("stage")
    assert found.loc["train", "amount"] == (6 + 6 + 10) * 1200
    # FGSM and black-box 1, C&W 100, JSMA 2 * 39 gradients for each of 500 attempts
    assert found.loc["attack", "amount"] == 500 * (1 + 1 + 100 + 78)
    samples = 500 + 500 + 4 * 500
    assert found.loc["measure-kappa", "amount"] == samples * 3 * 1000
    # normal samples go to the cap, the others to a part of it
    assert found.loc["detect", "amount"] == 500 * 2000 + 0.3 * 2500 * 2000
    stages = found.drop("about")
    assert (stages["per_second"] > 0).all()
    expected = (stages["amount"] / stages["per_second"]).sum() / 60
    assert found.loc["about", "minutes"] == pytest.approx(expected)


def test_the_share_of_mutations_that_is_asked(data):
    _, settings = load("mnist")
    mutation = settings.mutation
    drawn = draw(np.random.default_rng(0), 20_000, (28, 28, 1), mutation)
    model = NETWORKS["mnist"]((28, 28, 1), 10, None)
    network = functools.partial(labeller, model, Audit(), mutation=mutation)
    light, occlusion = estimate.LIGHT_ASKED, estimate.OCCLUSION_ASKED
    # A third each; half of the blackouts change nothing.
    for further, share in (
        ({}, light / 3 + occlusion / 3 + 1 / 6),
        ({"shortcuts": False}, 5 / 6),
        ({"clip": (0.0, 1.0)}, light / 3 + 1 / 3 + 1 / 6),
    ):
        found = estimate._share_asked(drawn, network(**further))
        assert found == pytest.approx(share, abs=0.01)
    model = NETWORKS["cifar10_basic"]((28, 28, 1), 10, None)
    network = labeller(model, Audit(), mutation=mutation, stochastic=True)
    assert estimate._share_asked(drawn, network) == 1
