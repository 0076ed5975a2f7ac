"""How well kappa(x) tells the samples of a set from normal ones, whatever the decision rule.

A ROC curve needs no threshold, no mu and no sequential test: it is what any rule that only looks at
label changes can reach. kappa takes few values (changes / mutations), so everything here works on
counts of equal values; the bootstrap redraws those counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nmutant_cli.report.tables import NORMAL
from nmutant_cli.seeding import stream
from nmutant_cli.types import AnyArray, Floats

FALSE_ALARMS = (0.01, 0.05)
RESAMPLES = 1000
CONFIDENCE = 0.95


def roc_curve(normal: Floats, adversarial: Floats) -> tuple[Floats, Floats]:
    """False and true positive rates of "kappa >= t is adversarial", both rising from 0 to 1.

    Arguments are kappas in [0, 1], shapes ``(n,)`` and ``(m,)``; one point for each value that
    occurs, and (0, 0).
    """
    counts = _counts(normal, adversarial)
    rates = [np.concatenate([[0.0], c.cumsum() / max(1, c.sum())]) for c in counts]
    return rates[0], rates[1]


def roc_table(
    kappa: pd.DataFrame,
    titles: Mapping[str, str],
    dataset: str,
    step_sizes: Sequence[float],
    seed: int,
) -> pd.DataFrame:
    """AUC, and the true positive rate at 1% and 5% false alarms, of each set at each step size.

    ``kappa`` and ``titles`` as for `tables.table1`. Every figure is in percent and has a 95%
    bootstrap interval over images, of normal and of adversarial ones (percentiles of 1,000
    resamples). Each set and step size has a stream of its own under ``seed``, so its intervals do
    not depend on which other sets there are. The threshold of a rate is the lowest kappa that not
    more than 1% (5%) of the normal samples reach: the false alarms are really at most that, often
    fewer. A set without samples has empty values.
    """
    rows = []
    for step in sorted(step_sizes):
        at_step = kappa[np.isclose(kappa["step_size"].to_numpy(float), step)]
        by_set = {slug: group["kappa"].to_numpy() for slug, group in at_step.groupby("samples")}
        normal = by_set.get(NORMAL, np.zeros(0))
        for slug, title in titles.items():
            values = by_set.get(slug, np.zeros(0))
            if slug == NORMAL:
                continue
            rng = stream(seed, dataset, "roc", slug, f"{step:g}")
            found = with_intervals(normal, values, rng)
            rows.append((dataset, step, title, len(values), *found))
    names = ["auc", *(f"tpr_at_{100 * rate:g}" for rate in FALSE_ALARMS)]
    columns = [f"{name}_{end}" for name in names for end in ("percent", "low", "high")]
    return pd.DataFrame(rows, columns=["dataset", "step_size", "samples", "n", *columns])


def with_intervals(
    normal: Floats, adversarial: Floats, rng: np.random.Generator, *, exact: bool = False
) -> list[float]:
    """AUC and the true positive rates at `FALSE_ALARMS`, in percent, each with its interval's ends.

    Arguments are any scores, the higher the more adversarial; NaN where one is empty. With
    ``exact`` the false alarms are not at most the rate but the rate, as `called` has it.
    """
    if not (len(normal) and len(adversarial)):
        return [np.nan] * (3 * (1 + len(FALSE_ALARMS)))
    counts = _counts(normal, adversarial)
    found = figures(*(c[None] for c in counts), exact=exact)[:, 0]
    drawn = (rng.multinomial(c.sum(), c / c.sum(), RESAMPLES) for c in counts)
    tails = (1 - CONFIDENCE) / 2
    low, high = np.quantile(figures(*drawn, exact=exact), [tails, 1 - tails], axis=1)
    return [round(100 * float(v), 2) for row in zip(found, low, high, strict=True) for v in row]


def called(scores: Floats, clean: Floats, rate: float) -> Floats:
    """The chance that each score is called adversarial, where a share ``rate`` of ``clean`` is.

    1 above the threshold, 0 below it; of the scores equal to it as many as make the rate are called
    so, at random. Without that, a detector whose scores take few values has fewer false alarms
    than another at "the same" rate. Arguments are scores, shape ``(n,)`` and ``(m,)``, m > 0, and a
    rate in [0, 1).
    """
    limit = threshold(clean, rate)
    above, equal = (clean > limit).sum(), (clean == limit).sum()
    share = max(0.0, rate * len(clean) - above) / equal
    return (scores > limit) + share * (scores == limit)


def threshold(clean: Floats, rate: float) -> float:
    """The score that not more than a share ``rate`` of the ``clean`` ones lie above."""
    return float(np.sort(clean)[::-1][int(rate * len(clean) + 1e-9)])


def figures(normal: AnyArray, adversarial: AnyArray, *, exact: bool) -> AnyArray:
    """AUC and true positive rates, ``(figures, rows)``, from rows of counts by falling score.

    ``exact`` as for `with_intervals`.
    """
    false, true = (c.cumsum(axis=1) / c.sum(axis=1, keepdims=True) for c in (normal, adversarial))
    share = normal / normal.sum(axis=1, keepdims=True)
    # P(adversarial above normal) + half of P(equal), the area under straight lines.
    above = true - adversarial / adversarial.sum(axis=1, keepdims=True) / 2
    rates = [np.where(false <= limit + 1e-12, true, 0).max(axis=1) for limit in FALSE_ALARMS]
    if exact:
        rates = [_between(false, true, limit) for limit in FALSE_ALARMS]
    return np.stack([(share * above).sum(axis=1), *rates])


def _between(false: AnyArray, true: AnyArray, limit: float) -> AnyArray:
    """The true positive rate where the false one is ``limit``, on straight lines, ``(rows,)``."""
    rows = np.arange(len(false))
    after = np.argmax(false > limit + 1e-12, axis=1)
    f0, t0 = (np.where(after > 0, rate[rows, after - 1], 0) for rate in (false, true))
    f1, t1 = false[rows, after], true[rows, after]
    return t0 + (t1 - t0) * (limit - f0).clip(0) / (f1 - f0)


def _counts(normal: Floats, adversarial: Floats) -> tuple[AnyArray, AnyArray]:
    """How many of each have each value that occurs, from the largest value to the smallest."""
    values, where = np.unique(np.concatenate([normal, adversarial]), return_inverse=True)
    own = where[: len(normal)], where[len(normal) :]
    first, second = (np.bincount(w, minlength=len(values))[::-1] for w in own)
    return first, second
