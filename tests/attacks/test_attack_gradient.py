"""FGSM, BIM and PGD: CleverHans's results, inside the ball."""

from __future__ import annotations

import attack_tools as tools
import numpy as np
import pytest
from cleverhans.tf2.attacks.basic_iterative_method import basic_iterative_method
from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

from nmutant_cli.attacks import bim, craft, fgsm, pgd
from nmutant_cli.config.attacks import BIMParams, FGSMParams, PGDParams
from nmutant_cli.errors import AttackError
from nmutant_cli.types import Bounds

MODEL = tools.network()
X = tools.images(10)
Y = tools.labels(MODEL, X)
T = tools.targets(MODEL, X)
CLIP = {"clip_min": 0.0, "clip_max": 1.0}


@pytest.mark.parametrize("norm", ["inf", "1", "2"])
@pytest.mark.parametrize("targets", ["untargeted", "others"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_fgsm_is_cleverhans(norm, targets, elsewhere, monkeypatch):
    """Also what is done where there is no CleverHans."""
    if elsewhere:
        monkeypatch.setattr(fgsm, "_cleverhans", fgsm._step)
    params = FGSMParams(method="fgsm", eps=0.2, norm=norm, targets=targets)
    y, targeted = (Y, False) if targets == "untargeted" else (T, True)
    ours = fgsm.run(MODEL, X, y, params, tools.BOUNDS, batch_size=10)
    order = {"inf": np.inf, "1": 1, "2": 2}[norm]
    theirs = fast_gradient_method(MODEL, X, 0.2, order, y=y, targeted=targeted, **CLIP)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 if elsewhere else 0)


@pytest.mark.parametrize("norm", ["inf", "1", "2"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_fgsm_leaves_an_image_without_a_gradient_as_it_is(norm, elsewhere, monkeypatch):
    def saturated(x):  # softmax gives exactly 1 and 0
        return 1e5 * MODEL(x)

    if elsewhere:
        monkeypatch.setattr(fgsm, "_cleverhans", fgsm._step)
    params = FGSMParams(method="fgsm", eps=0.3, norm=norm)
    np.testing.assert_array_equal(fgsm.run(saturated, X, Y, params, tools.BOUNDS), X)


def test_bim_and_pgd_without_a_random_start_are_cleverhans():
    settings = {"eps": 0.15, "eps_iter": 0.04, "nb_iter": 6}
    ours = bim.run(MODEL, X, Y, BIMParams(method="bim", **settings), tools.BOUNDS, batch_size=10)
    with pytest.raises(ValueError, match="inhomogeneous"):  # so we leave its checks out
        basic_iterative_method(MODEL, X, 0.15, 0.04, 6, np.inf, y=Y, **CLIP)
    theirs = basic_iterative_method(
        MODEL, X, 0.15, 0.04, 6, np.inf, y=Y, sanity_checks=False, **CLIP
    )
    np.testing.assert_array_equal(ours, theirs)
    for norm, order in (("inf", np.inf), ("2", 2)):
        params = PGDParams(method="pgd", norm=norm, rand_init=False, **settings)
        ours = pgd.run(MODEL, X, Y, params, tools.BOUNDS, (), batch_size=10)
        theirs = projected_gradient_descent(
            MODEL, X, 0.15, 0.04, 6, order, y=Y, rand_init=False, **CLIP
        )
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("targets", ["untargeted", "others"])
@pytest.mark.parametrize(
    ("kind", "norm"),
    [(FGSMParams, "inf"), (FGSMParams, "2"), (BIMParams, "inf"), (BIMParams, "2"),
     (PGDParams, "inf"), (PGDParams, "2")],
)  # fmt: skip
def test_results_stay_inside_the_ball_around_the_original(kind, norm, targets):
    method = kind.__name__.removesuffix("Params").lower()
    params = kind(method=method, eps=0.3, norm=norm, targets=targets)
    y = Y if targets == "untargeted" else T
    result = craft(MODEL, X, y, params, tools.BOUNDS, tools.generators(10))
    assert (result.linf if norm == "inf" else result.l2).max() <= 0.3 * (1 + 1e-6)
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1


def test_other_bounds_than_0_to_1():
    bounds = Bounds(-2.0, 6.0)
    x = X * 8 - 2
    params = PGDParams(method="pgd", eps=2.0, eps_iter=0.5)
    result = craft(MODEL, x, tools.labels(MODEL, x), params, bounds, tools.generators(10))
    assert result.linf.max() <= 2.0 * (1 + 1e-6)
    assert result.x_adv.min() < -1
    assert result.x_adv.max() > 5


def test_pgd_starts_each_image_from_its_own_generator():
    params = PGDParams(method="pgd", eps=0.3, eps_iter=1e-6, nb_iter=1)
    same = np.repeat(X[:1] * 0.2 + 0.4, 3, axis=0)
    y = np.repeat(Y[:1], 3)
    rng = [*tools.generators(2), *tools.generators(1)]
    start = pgd.run(MODEL, same, y, params, tools.BOUNDS, rng) - same
    assert not np.allclose(start[0], start[1], atol=0.01)
    np.testing.assert_allclose(start[0], start[2], atol=1e-6)
    assert np.abs(start).max() > 0.25


def test_pgd_starts_uniformly_in_the_l2_ball():
    points = [pgd._in_ball(rng, (8, 8, 1), "2", 0.5) for rng in tools.generators(400)]
    radius = np.array([np.linalg.norm(point) for point in points])
    assert radius.max() <= 0.5 * (1 + 1e-6)
    assert np.mean((radius / 0.5) ** 64) == pytest.approx(0.5, abs=0.06)  # uniform on [0, 1]


@pytest.mark.parametrize(("module", "kind"), [(bim, BIMParams), (pgd, PGDParams)])
def test_a_step_longer_than_the_radius_is_refused(module, kind):
    method = module.__name__.rpartition(".")[2]
    params = kind(method=method, eps=0.1, eps_iter=0.2)
    with pytest.raises(AttackError, match=r"eps_iter \(0.2\) is above eps \(0.1\)"):
        module.run(MODEL, X, Y, params, tools.BOUNDS, tools.generators(10))
