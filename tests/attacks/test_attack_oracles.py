"""C&W beside Foolbox, on the small network. Skipped where Foolbox is not installed.

``scripts/bench_attacks.py`` does the same on trained networks and MNIST or CIFAR10.
"""

from __future__ import annotations

import warnings

import attack_tools as tools
import numpy as np
import pytest
import tensorflow as tf

from nmutant_cli.attacks import craft
from nmutant_cli.config.attacks import CWParams

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def foolbox():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("foolbox")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("targets", ["all", "untargeted"])
@pytest.mark.parametrize(("steps", "confidence"), [(1, 0.0), (4, 0.0), (4, 0.3)])
def test_cw_is_as_good_as_foolbox(foolbox, channels, targets, steps, confidence):
    model, x = tools.network(channels), tools.images(30, channels)
    y = tools.targets(model, x) if targets == "all" else tools.labels(model, x)
    params = CWParams(
        method="cw",
        targets=targets,
        binary_search_steps=steps,
        max_iterations=60,
        learning_rate=0.05,
        initial_const=3.0,
        confidence=confidence,
    )
    ours = craft(model, x, y, params, tools.BOUNDS, tools.generators(30))

    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=steps,
        steps=60,
        stepsize=0.05,
        initial_const=3.0,
        confidence=confidence,
    )
    criterion = {
        "all": foolbox.criteria.TargetedMisclassification,
        "untargeted": foolbox.criteria.Misclassification,
    }[targets](tf.constant(y))
    wrapped = foolbox.TensorFlowModel(model, bounds=tuple(tools.BOUNDS))
    theirs = np.asarray(attack.run(wrapped, tf.constant(x), criterion))
    label = tools.labels(model, theirs)
    success = (label == y) if targets == "all" else (label != y)
    theirs_l2 = np.linalg.norm((theirs - x).reshape(30, -1), axis=1)

    assert ours.success.sum() >= success.sum() - 1  # one image on the edge
    both = ours.success & success
    assert both.sum() >= 15
    assert ours.l2[both].mean() <= 1.03 * theirs_l2[both].mean()
