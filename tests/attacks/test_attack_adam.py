"""The search of C&W beside its formulas, written out for one image in NumPy."""

from __future__ import annotations

import attack_tools as tools
import numpy as np
import pytest
import tensorflow as tf

from nmutant_cli.attacks import cw
from nmutant_cli.config.attacks import CWParams


def literal(model, x, target, const, rate, confidence, iterations):
    """The nearest image of C&W's L2 attack on ``x``, Adam as printed (Kingma and Ba 2015)."""
    start = np.arctanh((x * 2.0 - 1) * 0.999999)
    w, first, second = start.copy(), np.zeros_like(x, float), np.zeros_like(x, float)
    best, nearest = x, np.inf
    for t in range(1, iterations + 1):
        image = (np.tanh(w) + 1) / 2
        with tf.GradientTape() as tape:
            watched = tf.Variable(image[None].astype(np.float32))
            logits = model(watched)[0]
            others = tf.concat([logits[:target], logits[target + 1 :]], 0)
            margin = logits[target] - tf.reduce_max(others)
            penalty = tf.maximum(confidence - margin, 0)
        distance = np.square(image - x).sum()
        if margin.numpy() > 0 and margin.numpy() >= confidence and distance < nearest:
            best, nearest = image, distance
        pull = 2 * (image - x) + const * tape.gradient(penalty, watched).numpy()[0]
        gradient = pull * (1 - np.tanh(w) ** 2) / 2
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        w = w - rate * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    return best


@pytest.mark.parametrize("confidence", [0.0, 0.2])
def test_one_step_of_the_search_is_its_formulas(confidence):
    model, x = tools.network(), tools.images(6)
    y = tools.targets(model, x)
    params = CWParams(
        method="cw", binary_search_steps=1, max_iterations=30, learning_rate=0.1,
        initial_const=20.0, confidence=confidence, abort_early=False,
    )  # fmt: skip
    found = cw.run(model, x, y, params, tools.BOUNDS)
    assert (found != x).any(axis=(1, 2, 3)).sum() >= 4
    for image, one, target in zip(found, x, y, strict=True):
        expected = literal(model, one, target, 20.0, 0.1, confidence, 30)
        np.testing.assert_allclose(image, expected, atol=2e-4)
