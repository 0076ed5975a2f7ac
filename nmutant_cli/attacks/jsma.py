"""The Jacobian-based saliency map attack (Papernot et al. 2016, arXiv 1511.07528).

The method as CleverHans 3 computed it, on logits, with one repair: where no pair of features is
valid it stops, instead of changing feature 0 twice. It should not be confused with
``SaliencyMapMethod`` of the Adversarial Robustness Toolbox, which takes the two largest gradients
of the target class, ignores the other classes and searches no pairs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from nmutant_cli.attacks.batches import BATCH_SIZE, PredictLogits, about, logits_at, padded
from nmutant_cli.config.attacks import JSMAParams
from nmutant_cli.errors import AttackError
from nmutant_cli.networks import backend, gradients
from nmutant_cli.types import Bounds, Floats, Images, Labels

COLUMNS = 256
"""Columns of the pair table held at a time: 6 MB for the 3,072 features of CIFAR10."""


def run(
    predict_logits: PredictLogits,
    x: Images,
    y: Labels,
    params: JSMAParams,
    bounds: Bounds,
    rng: Sequence[np.random.Generator] = (),
    *,
    batch_size: int = BATCH_SIZE,
) -> Images:
    """Change two features at a time by ``theta`` until the label is the target ``y``.

    With F the logits, alpha = dF_y/dx and beta = sum over the other classes of dF_j/dx, take the
    pair (p, q) that maximises -(alpha_p + alpha_q)(beta_p + beta_q) among the pairs of features
    still in the search domain with alpha_p + alpha_q > 0 and beta_p + beta_q < 0 (the other way
    round for a negative ``theta``), equation 8 and algorithm 3 of the paper. Both then leave the
    domain; a feature already at the maximum (minimum) is never in it. An image is done when it
    has the target label, after floor(features * ``gamma`` / 2) pairs, or with no valid pair.

    Images that are done give their place to the next ones: the network is only asked about
    images still running. ``rng`` is not used. Returns images of the shape of ``x``, inside
    ``bounds``. Raises AttackError if a gradient is not finite.
    """
    network = gradients.quick(predict_logits)
    x_adv = x.reshape(len(x), -1).copy()
    domain = x_adv < bounds.upper if params.theta > 0 else x_adv > bounds.lower
    pairs_left = np.full(len(x), int(x_adv.shape[1] * params.gamma / 2))
    waiting = deque(range(len(x)))
    running: list[int] = []
    while True:
        while waiting and len(running) < batch_size:
            running.append(waiting.popleft())
        running = [i for i in running if pairs_left[i] and domain[i].sum() >= 2]
        if not running:
            if waiting:
                continue
            return x_adv.reshape(x.shape)
        about(predict_logits, np.array(running), batch_size)
        images = padded(x_adv[running], batch_size).reshape(-1, *x.shape[1:])
        labels, target, total = (
            np.asarray(tensor)[: len(running)]
            for tensor in _gradients(network, images, padded(y[running], batch_size))
        )
        if not (np.isfinite(target).all() and np.isfinite(total).all()):
            raise AttackError("jsma: the network's gradient is NaN or infinite")
        going = []
        for row, i in enumerate(running):
            if labels[row] == y[i]:
                continue
            alpha = target[row].astype(np.float64)
            pair = best_pair(alpha, total[row] - alpha, domain[i], params.theta)
            if pair is None:
                continue
            chosen = list(pair)
            x_adv[i, chosen] = np.clip(x_adv[i, chosen] + np.float32(params.theta), *bounds)
            domain[i, chosen] = False
            pairs_left[i] -= 1
            going.append(i)
        running = going


@backend.compiled
def _gradients(predict_logits: PredictLogits, x: Any, y: Any) -> tuple[Any, Any, Any]:
    """Labels, and the gradients of the target's logit and of the sum of all logits."""

    def outputs(x: Any) -> tuple[Any, Any]:
        logits = predict_logits(x)
        return (logits_at(logits, y), ops.sum(logits, 1)), logits

    slopes, _, logits = backend.gradients(outputs, x)
    alpha, sums = (ops.reshape(slope, (x.shape[0], -1)) for slope in slopes)
    return ops.argmax(logits, 1), alpha, sums


def best_pair(
    alpha: Floats, beta: Floats, domain: np.ndarray[Any, Any], theta: float
) -> tuple[int, int] | None:
    """The pair of features ``(p, q)``, p < q, that JSMA changes next, or None if none is valid.

    ``alpha``, ``beta`` (float64) and ``domain`` (bool) have shape ``(features,)``. Of pairs with
    the same score the one with the smallest p is taken, then the one with the smallest q.

    Exact without the table of all pairs. Write u and v for alpha and -beta (signs turned for a
    negative ``theta``); the score (u_p + u_q)(v_p + v_q) never falls when u_q and v_q rise, in
    floating point too. So no pair with p does better than p with the largest u and the largest v
    there are, and features for which that is less than one pair has are left out. The best partner
    q of any other p is among those that at most one feature surpasses in both u and v: a handful.
    """
    inside = np.flatnonzero(domain)
    sign = 1.0 if theta > 0 else -1.0
    u, v = sign * alpha[inside], -sign * beta[inside]
    if len(u) < 2:
        return None
    most = _scores(u, v, u.max(), v.max())
    p = int(most.argmax())
    reached = _scores(u[p], v[p], u, v)
    reached[p] = -np.inf
    hopeful = np.flatnonzero(most >= reached.max())
    inside, u, v = inside[hopeful], u[hopeful], v[hopeful]
    partners = _surpassed_at_most_once(u, v)
    best = np.full(len(u), -np.inf)
    for start in range(0, len(partners), COLUMNS):
        columns = partners[start : start + COLUMNS]
        scores = _scores(u[:, None], v[:, None], u[columns], v[columns])
        scores[columns, np.arange(len(columns))] = -np.inf
        np.maximum(best, scores.max(axis=1), out=best)
    p = int(best.argmax())
    if best[p] == -np.inf:
        return None
    scores = _scores(u[p], v[p], u, v)
    scores[p] = -np.inf
    return int(inside[p]), int(inside[scores.argmax()])


def _surpassed_at_most_once(u: Floats, v: Floats) -> np.ndarray[Any, Any]:
    """Indices of the points with fewer than two others at least as large in both u and v.

    Of equal points the first two stay.
    """
    order = np.argsort(-u, kind="stable")
    ranked = v[order]
    largest = np.maximum.accumulate(ranked)[:-1]
    second = np.maximum.accumulate(np.minimum(ranked[1:], largest))
    # Before each point come those of a larger u; compare with the second largest v among them.
    keep = np.ones(len(u), bool)
    keep[2:] = ranked[2:] > second[:-1]
    return order[keep]


def _scores(u: Any, v: Any, other_u: Any, other_v: Any) -> Floats:
    u, v = u + other_u, v + other_v
    return np.where((u > 0) & (v > 0), u * v, -np.inf)
