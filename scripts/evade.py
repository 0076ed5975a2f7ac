"""How often an attacker both fools the network and passes a detector, by the distance it takes.

    nmutant compare --config mnist-adaptive
    python scripts/evade.py mnist-adaptive runs/mnist-adaptive --out results/mnist-adaptive

Works out nothing that `nmutant compare` has not measured. Detectors are those compared, each with
its threshold at 5% of the clean images, and the published rule on the changes of "kappa". Writes
evasion.csv, evasion-attacks.csv (a row for each attack and detector) and figures/evasion.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nmutant_cli.cli.options import prepare
from nmutant_cli.config.loading import load
from nmutant_cli.pipeline.run_folder import RunFolder

FALSE_ALARMS = 0.05


def published_adversarial(changes: Any, detection: Any) -> Any:
    """What the rule behind Table 2 says at the first mu; undecided passes, as in the paper."""
    from nmutant_cli.detection.sprt import SequentialTest, TestBatch
    from nmutant_cli.types import Verdict

    p0, p1 = detection.hypotheses(detection.kappa1, detection.mu[0])
    test = SequentialTest("published", p0, p1, detection.alpha, detection.beta, detection.cap)
    tests = TestBatch(test, len(changes))
    tests.advance(np.arange(len(changes)), changes)
    return tests.verdict == Verdict.ADVERSARIAL


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("run_folder", type=Path)
    parser.add_argument("--seed", type=int, help="change the seed of the config")
    parser.add_argument("--set", action="append", default=[], help="change one setting")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    log = prepare(quiet=False)
    _, settings = load(args.config, args.set, args.seed)

    from nmutant_cli.datasets import DATASET_TITLES
    from nmutant_cli.detectors import DETECTORS
    from nmutant_cli.files import read_records
    from nmutant_cli.pipeline.compare import changes_in, threshold
    from nmutant_cli.pipeline.experiment import Experiment
    from nmutant_cli.pipeline.samples import from_8_bits
    from nmutant_cli.pipeline.scores import CLEAN, scored
    from nmutant_cli.report.evasion import WORST, joint_success
    from nmutant_cli.report.figures.evasion import evasion_figure

    parts: list[pd.DataFrame] = []
    with RunFolder(args.run_folder, say=log.warning) as run:
        experiment = Experiment(settings, run)
        for (name, network), path in scored(experiment).items():
            frame = read_records(path)
            score = frame["score"].to_numpy(float)
            limit = threshold(score[(frame["samples"] == CLEAN).to_numpy()], FALSE_ALARMS)
            caught = {DETECTORS[name].title: score > limit}
            changes = changes_in(frame, settings.compare.mutations)
            if name == "kappa" and changes is not None:
                title = f"published rule, mu {settings.detection.mu[0]:g}"
                caught[title] = published_adversarial(changes, settings.detection)
            for slug in settings.attack.sets:
                if experiment.network_of(slug) != network:
                    continue
                samples = experiment.samples(slug)
                of_set = (frame["samples"] == slug).to_numpy()
                images = from_8_bits(samples.image8) if settings.attack.eight_bit else samples.image
                original = experiment.data.x_test[samples.index]
                changed = (images - original).astype(np.float64).reshape(len(images), -1)
                l2 = np.linalg.norm(changed, axis=1)
                label = samples.label8 if settings.attack.eight_bit else samples.label
                for title, adversarial in caught.items():
                    passed = np.zeros(len(samples), bool)
                    passed[frame.loc[of_set, "index"]] = ~adversarial[of_set]
                    parts.append(
                        pd.DataFrame(
                            {
                                "detector": title,
                                "attack": experiment.titles[slug],
                                "image": samples.index,
                                "l2": l2,
                                "fooled": samples.counts & (label != samples.true),
                                "passed": passed,
                            }
                        )
                    )
    attempts = pd.concat(parts, ignore_index=True)
    attempts["both"] = attempts["fooled"] & attempts["passed"]
    found = attempts.loc[attempts["both"], "l2"]
    budgets = np.arange(0, (found.max() if len(found) else 1) + 0.25, 0.25)
    # A worst case over attacks needs the same images: most attacks say which.
    images = attempts.groupby("attack")["image"].agg(lambda i: tuple(sorted(set(i))))
    usual = images[images == images.mode()[0]].index
    same = attempts["attack"].isin(usual)
    curves = joint_success(attempts[same], budgets.tolist())
    if not same.all():
        others = joint_success(attempts[~same], budgets.tolist())
        curves = pd.concat([curves, others[others["attack"] != WORST]], ignore_index=True)
    by_attack = attempts.groupby(["detector", "attack"], sort=False).agg(
        attempts=("both", "size"),
        fooled_percent=("fooled", lambda f: 100 * f.mean()),
        joint_success_percent=("both", lambda b: 100 * b.mean()),
    )
    both = attempts[attempts["both"]].groupby(["detector", "attack"], sort=False)["l2"]
    by_attack["median_l2"] = both.median()
    (args.out / "figures").mkdir(parents=True, exist_ok=True)
    curves.to_csv(args.out / "evasion.csv", index=False)
    by_attack.round(2).to_csv(args.out / "evasion-attacks.csv")
    figure = evasion_figure(curves, DATASET_TITLES[settings.dataset])
    figure.savefig(args.out / "figures" / "evasion.png")
    print(by_attack.round(2).to_string())
    print(args.out / "evasion.csv")


if __name__ == "__main__":
    main()
