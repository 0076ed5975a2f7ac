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
            figures = with_intervals(normal, values, rng)
            rows.append((dataset, step, title, len(values), *figures))
    names = ["auc", *(f"tpr_at_{100 * rate:g}" for rate in FALSE_ALARMS)]
    columns = [f"{name}_{end}" for name in names for end in ("percent", "low", "high")]
    return pd.DataFrame(rows, columns=["dataset", "step_size", "samples", "n", *columns])


def with_intervals(normal: Floats, adversarial: Floats, rng: np.random.Generator) -> list[float]:
    """AUC and the true positive rates at `FALSE_ALARMS`, in percent, each with its interval's ends.

    Arguments are any scores, the higher the more adversarial; NaN where one is empty.
    """
    if not (len(normal) and len(adversarial)):
        return [np.nan] * (3 * (1 + len(FALSE_ALARMS)))
    counts = _counts(normal, adversarial)
    found = _figures(*(c[None] for c in counts))[:, 0]
    drawn = (rng.multinomial(c.sum(), c / c.sum(), RESAMPLES) for c in counts)
    tails = (1 - CONFIDENCE) / 2
    low, high = np.quantile(_figures(*drawn), [tails, 1 - tails], axis=1)
    return [round(100 * float(v), 2) for row in zip(found, low, high, strict=True) for v in row]


def _figures(normal: AnyArray, adversarial: AnyArray) -> AnyArray:
    """AUC and true positive rates, ``(figures, rows)``, from rows of counts by falling kappa."""
    false, true = (c.cumsum(axis=1) / c.sum(axis=1, keepdims=True) for c in (normal, adversarial))
    share = normal / normal.sum(axis=1, keepdims=True)
    # P(adversarial above normal) + half of P(equal), the area under straight lines.
    above = true - adversarial / adversarial.sum(axis=1, keepdims=True) / 2
    rates = [np.where(false <= limit + 1e-12, true, 0).max(axis=1) for limit in FALSE_ALARMS]
    return np.stack([(share * above).sum(axis=1), *rates])


def _counts(normal: Floats, adversarial: Floats) -> tuple[AnyArray, AnyArray]:
    """How many of each have each value that occurs, from the largest value to the smallest."""
    values, where = np.unique(np.concatenate([normal, adversarial]), return_inverse=True)
    own = where[: len(normal)], where[len(normal) :]
    first, second = (np.bincount(w, minlength=len(values))[::-1] for w in own)
    return first, second
