"""Joint success: how often an attacker both fools the network and gets past a detector.

Neither a fooled network nor a detector's rate of misses is what an attacker is after: an attack
that spends distance to look normal fools less often, and one that only fools is caught. So both
are asked of the same image, and the distance is the attacker's budget.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from nmutant_cli.detection.intervals import clopper_pearson
from nmutant_cli.errors import ArtifactError

ATTEMPT = ("detector", "attack", "image", "l2", "fooled", "passed")
WORST = "worst case"
STEPS = 20


def joint_success(attempts: pd.DataFrame, budgets: Sequence[float]) -> pd.DataFrame:
    """Percent of images evaded within each L2 budget, by each attack and by the best one of all.

    ``attempts`` has a row for each attempt and detector: ``detector, attack``; ``image``, which
    names the image attacked; ``l2``, the distance from it; ``fooled``, the label is wrong;
    ``passed``, the detector says normal. An image counts as evaded within a budget if any attempt
    on it with ``l2 <= budget`` fooled the network and passed. A detector that lets everything pass
    gives the attack's success alone.

    Returns ``detector, attack, budget, images, joint_success_percent, low, high``, in the order of
    first appearance; ``images`` are those the attack was tried on, the last two the ends of the 95%
    interval (Clopper and Pearson), in percent. The attack `WORST` takes for each
    image whichever attack evades nearest, over the images of all attacks: leave out attacks that
    were tried on other images, on which the rest had no chance.

    Raises ArtifactError if a column is missing.
    """
    for column in ATTEMPT:
        if column not in attempts.columns:
            raise ArtifactError(f"attempts: no column {column}")
    evaded = attempts["fooled"].astype(bool) & attempts["passed"].astype(bool)
    distances = attempts.assign(l2=attempts["l2"].where(evaded, np.inf))
    every = pd.concat([distances, distances.assign(attack=WORST)])
    rows = []
    for (detector, attack), tried in every.groupby(["detector", "attack"], sort=False):
        nearest = tried.groupby("image")["l2"].min().to_numpy()
        for budget in budgets:
            within = int((nearest <= budget).sum())
            figures = _percent(within, len(nearest))
            rows.append((detector, attack, float(budget), len(nearest), *figures))
    columns = ["detector", "attack", "budget", "images", "joint_success_percent", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


@functools.cache
def _percent(count: int, n: int) -> tuple[float, float, float]:
    """A share and the ends of its interval, in percent."""
    low, high = clopper_pearson(count, n)
    return round(100 * count / n, 2), round(100 * low, 2), round(100 * high, 2)


def curves(attempts: pd.DataFrame) -> pd.DataFrame:
    """`joint_success` at the `budgets`.

    The worst case is over the attacks that were tried on the same images, which most were.
    """
    images = {
        attack: tuple(sorted(set(tried))) for attack, tried in attempts.groupby("attack")["image"]
    }
    usual = pd.Series(images).mode()[0]
    same = attempts["attack"].isin([attack for attack, those in images.items() if those == usual])
    distances = budgets(attempts[same])
    table = joint_success(attempts[same], distances)
    if same.all():
        return table
    others = joint_success(attempts[~same], distances)
    return pd.concat([table, others[others["attack"] != WORST]], ignore_index=True)


def budgets(attempts: pd.DataFrame) -> list[float]:
    """Distances from 0, in `STEPS` or more of a round size: 1, 2 or 5 times a power of ten.

    They end where, over the detectors' worst cases, 99 in 100 of what evades at all has evaded.
    """
    evaded = attempts[attempts["fooled"] & attempts["passed"]]
    nearest = evaded.groupby(["detector", "image"])["l2"].min()
    reach = float(np.quantile(nearest, 0.99, method="higher")) if len(evaded) else 0.0
    reach = reach or 1.0  # where nothing evades, or nothing but what is wrong unattacked
    power = 10.0 ** np.floor(np.log10(reach / STEPS))
    size = max(factor * power for factor in (1, 2, 5) if factor * power <= reach / STEPS)
    return [round(size * k, 12) for k in range(int(np.ceil(reach / size)) + 1)]


def by_attack(attempts: pd.DataFrame) -> pd.DataFrame:
    """A row for each detector and attack, whatever the distance.

    ``attempts``; how many ``fooled_percent`` and how many passed too, ``joint_success_percent``,
    with the ends of its 95% interval, ``low`` and ``high``; ``median_l2`` of those.
    """
    attempts = attempts.assign(both=attempts["fooled"] & attempts["passed"])
    keys = ["detector", "attack"]
    table = attempts.groupby(keys, sort=False).agg(
        attempts=("both", "size"),
        fooled_percent=("fooled", lambda fooled: 100 * fooled.mean()),
        joint_success_percent=("both", lambda both: 100 * both.mean()),
    )
    counts = attempts.groupby(keys, sort=False)["both"].agg(["sum", "size"]).to_numpy()
    ends = np.array([_percent(int(count), int(n))[1:] for count, n in counts]).reshape(-1, 2)
    evaded = attempts[attempts["both"]].groupby(keys, sort=False)["l2"]
    table = table.assign(low=ends[:, 0], high=ends[:, 1], median_l2=evaded.median())
    return table.round(2).reset_index()
