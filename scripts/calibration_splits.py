"""Does a calibration keep its promise? Many random splits of the clean test images of one run.

    python scripts/calibration_splits.py --config digits --changes digits.npz

Label changes of clean test images (those that are not the run's normal samples) and of the run's
attacks are measured once and kept in ``--changes``; a file that is there already is used. Every
split then goes through the whole choice of a test (`own_model.guarantee.choose`), in two ways:

- held-out: ``--clean`` images calibrate, all others are held out. A held-out rate has noise of its
  own, so it exceeds the target a little more often than the true rate does; ``chance`` is how often
  it would if the scores had no ties.
- true: images are drawn with replacement and the rate is taken over all of them, which then *is*
  the true rate. This is what the promise speaks of.

Fewer odds ratios and caps are tried than `nmutant calibrate` tries, for time alone.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import betabinom

from nmutant_cli.own_model import guarantee
from nmutant_cli.own_model.calibration import Requirement
from nmutant_cli.own_model.guarantee import Changes, Chosen, choose, decide
from nmutant_cli.seeding import stream
from nmutant_cli.types import Bools, Verdict

STEPS = (1.0, 5.0, 10.0)


def main() -> None:
    args = arguments()
    guarantee.ODDS, guarantee.CAPS = (4.0, 16.0), (1.0,)
    if not args.changes.is_file():
        measure(args)
    with np.load(args.changes) as file:
        sets: dict[str, dict[float, Bools]] = {}
        for key in file.files:
            name, _, step = key.rpartition("-")
            sets.setdefault(name, {})[float(step)] = file[key]
    clean = sets.pop("normal")
    rows = [
        splits(args, clean, sets, Requirement(target, args.probability), how)
        for target in args.targets
        for how in ("held-out", "true")
    ]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    if args.out:
        table.to_csv(args.out, index=False, lineterminator="\n")
        print(args.out)


def splits(
    args: argparse.Namespace,
    clean: Changes,
    sets: Mapping[str, Changes],
    wanted: Requirement,
    how: str,
) -> dict[str, object]:
    n = len(next(iter(clean.values())))
    rates, found = [], []
    chosen: Chosen | None = None
    for split in range(args.splits):
        rng = stream(args.seed, "splits", how, f"{wanted.target:g}", split)
        if how == "held-out":
            order = rng.permutation(n)
            used, judged = order[: args.clean], order[args.clean :]
        else:
            used, judged = rng.integers(n, size=args.clean), np.arange(n)
        chosen = choose({step: c[used] for step, c in clean.items()}, sets, wanted, rng)
        rates.append(adversarial(chosen, clean, judged).mean())
        found.append({k: rate.rate for k, rate in chosen.evidence.detected.items()})
    assert chosen is not None
    rates_found = np.array(rates)
    allowed = math.floor(wanted.target * len(judged) + 1e-9)
    a, certified = chosen.promise.alarms, chosen.promise.images
    chance = betabinom.sf(allowed, len(judged), a + 1, certified - a)
    detected = pd.DataFrame(found).mean()
    return {
        "target": wanted.target,
        "rate": how,
        "splits": args.splits,
        "calibrated_with": args.clean,
        "certifying": certified,
        "alarms": a,
        "judged": len(judged),
        "above_target": int((rates_found > wanted.target).sum()),
        "promised": round(args.splits * (1 - wanted.probability), 1),
        "chance": round(args.splits * float(chance), 1) if how == "held-out" else "",
        "mean_rate_%": round(100 * rates_found.mean(), 2),
        "worst_rate_%": round(100 * rates_found.max(), 2),
        **{f"{name}_%": round(100 * float(share), 1) for name, share in detected.items()},
    }


def adversarial(chosen: Chosen, clean: Changes, rows: np.ndarray) -> Bools:
    verdicts = decide(chosen.test, clean[chosen.step_size][rows]).verdict
    return np.asarray(verdicts == Verdict.ADVERSARIAL)


def measure(args: argparse.Namespace) -> None:
    from nmutant_cli.config.loading import load
    from nmutant_cli.mutation.sensitivity import changes_of, streams
    from nmutant_cli.own_model.model import labels_under
    from nmutant_cli.pipeline.experiment import Experiment
    from nmutant_cli.pipeline.run_folder import RunFolder
    from nmutant_cli.pipeline.samples import from_8_bits

    path, settings = load(args.config)
    with RunFolder(args.run_dir or Path("runs") / path.stem) as run:
        experiment = Experiment(settings, run)
        unused = np.ones(len(experiment.data.x_test), bool)
        unused[experiment.samples("normal").index] = False
        images = {"normal": experiment.data.x_test[unused][-args.images :]}
        for slug in settings.attack.sets:
            samples = experiment.samples(slug).counted()
            if experiment.network_of(slug) == "base":
                images[slug] = from_8_bits(samples.image8)[samples.label8 != samples.true]
        label = labels_under(experiment.model(), settings.mutation, batch_size=1000)
    found = {}
    for name, array in images.items():
        sources = streams(array, settings.mutation, args.seed, "splits")
        for step in STEPS:
            found[f"{name}-{step:g}"] = changes_of(label(step), array, sources, args.mutations)
            print(f"{name}, step size {step:g}: kappa {found[f'{name}-{step:g}'].mean():.4f}")
    np.savez_compressed(args.changes, **found)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="digits")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--changes", type=Path, default=Path("changes.npz"))
    parser.add_argument("--out", type=Path, help="a CSV file for the table")
    parser.add_argument("--images", type=int, default=3000, help="clean ones, at most")
    parser.add_argument("--mutations", type=int, default=300)
    parser.add_argument("--clean", type=int, default=400, help="calibrate with so many")
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--targets", type=float, nargs="+", default=[0.01, 0.05])
    parser.add_argument("--probability", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
