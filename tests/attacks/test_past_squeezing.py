"""The attack that passes feature squeezing, beside the detector it is made for."""

from __future__ import annotations

import attack_tools as tools
import numpy as np
import pytest

from nmutant_cli.attacks import craft, past_squeezing
from nmutant_cli.attacks.cw import margin_of
from nmutant_cli.config.attacks import CWParams, PastSqueezingParams
from nmutant_cli.detectors.squeezing import reduce_depth, smooth
from nmutant_cli.types import AnyArray

N = 6
SETTINGS = {
    "binary_search_steps": 4, "max_iterations": 150, "learning_rate": 0.1, "initial_const": 10,
    "confidence": 0.3, "targets": "one",
}  # fmt: skip


def forms(images) -> list[AnyArray]:
    return [images, reduce_depth(images, 1), smooth(images)]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_squeezed_forms_are_those_of_the_detector(channels):
    x = np.random.default_rng(0).random((4, 9, 7, channels)).astype(np.float32)
    np.testing.assert_array_equal(past_squeezing.smoothed(x), smooth(x))
    for bits in (1, 5):
        last = np.float32(2**bits - 1)
        ours = np.asarray(past_squeezing.reduced(x, last))
        np.testing.assert_allclose(ours, reduce_depth(x, bits), atol=1e-6)


def test_its_images_have_the_margin_squeezed_or_not_and_those_of_cw_do_not():
    x = tools.images(N)
    y = tools.targets(tools.network(), x)
    args = (tools.BOUNDS, tools.generators(N))
    plain = craft(tools.network(), x, y, CWParams(method="cw", **SETTINGS), *args)
    params = PastSqueezingParams(method="past_squeezing", bits=1, **SETTINGS)
    made = craft(tools.network(), x, y, params, *args)
    assert plain.success.all()
    found = made.success
    assert found.sum() >= N - 1
    squeezed = [
        np.min(
            [margin_of(tools.logits(tools.network(), form), y, True) for form in forms(images)], 0
        )
        for images in (made.x_adv, plain.x_adv)
    ]
    assert (squeezed[0][found] >= 0.3 - 1e-4).all()
    assert (squeezed[1] < 0.3).sum() > N / 2
    assert (made.l2[found] >= plain.l2[found] - 1e-3).all()
    alone = craft(tools.network(), x[2:3], y[2:3], params, tools.BOUNDS, tools.generators(N)[2:3])
    np.testing.assert_array_equal(alone.x_adv, made.x_adv[2:3])


def test_it_has_to_be_told_the_depth():
    with pytest.raises(ValueError, match="bits"):
        PastSqueezingParams(method="past_squeezing", **SETTINGS)
