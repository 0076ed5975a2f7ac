"""Which mutations, step size and rule find most at 5% false alarms, for the fewest forward passes.

    python scripts/choose_operator.py CONFIG RUN_FOLDER --out results/mnist

Looks at the first half of the images alone, the one that `nmutant compare` calls "choose"; what is
chosen is then reported on the other. Thresholds come from clean images. Goes on where it was
stopped. Writes operators.csv, best first: of all settings within `CLOSE` points of the best mean
true positive rate over the sets, the one with the fewest forward passes for a clean image leads.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nmutant_cli.cli.options import prepare
from nmutant_cli.config.loading import load
from nmutant_cli.files import file_digest
from nmutant_cli.pipeline.run_folder import RunFolder

CLEAN_KAPPAS = (0.01, 0.04, 0.1)
"""For each of these the largest step size at which clean images' mean kappa is no higher."""
MUTATIONS = 100
CLEAN_IMAGES = 300
"""For the thresholds, of each network."""
FALSE_ALARMS = 0.05
CLOSE = 2.0


def step_sizes(kind: Any, view: Any, clean: Any) -> list[float]:
    from nmutant_cli.detectors.kappa import GRID

    detector, found = kind(view), {}
    detector.mutations = 50
    for step in GRID:
        detector.step_size = step
        kappa = detector.changes(clean[:200]).mean()
        found |= {target: step for target in CLEAN_KAPPAS if kappa <= target}
        if kappa > max(CLEAN_KAPPAS):
            break
    return sorted(set(found.values()))


def verdicts_of_count(changes: Any, clean: Any, m: int) -> tuple[Any, Any]:
    """More changes among ``m`` than 95% of the clean images; asking ends when that is settled."""
    from nmutant_cli.pipeline.compare import needed, threshold

    limit = threshold(clean[:, :m].mean(axis=1), FALSE_ALARMS)
    return changes[:, :m].mean(axis=1) > limit, needed(changes[:, :m], limit)


def verdicts_of_wald(changes: Any, p0: float, p1: float) -> tuple[Any, Any]:
    from nmutant_cli.detection.sprt import SequentialTest, TestBatch
    from nmutant_cli.types import Verdict

    tests = TestBatch(SequentialTest("wald", p0, p1, 0.05, 0.05, MUTATIONS), len(changes))
    tests.advance(np.arange(len(changes)), changes)
    return tests.verdict == Verdict.ADVERSARIAL, tests.mutations


def rules(clean: dict[str, Any]) -> dict[str, Any]:
    """Every rule that keeps false alarms at 5% of each network's clean images, by name."""
    found: dict[str, Any] = {}
    for m in (10, 25, 50, MUTATIONS):
        found[f"count of {m}"] = lambda changes, network, m=m: verdicts_of_count(
            changes, clean[network], m
        )
    for p0 in (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.3):
        for ratio in (1.5, 2.0, 3.0):
            p1 = round(p0 * ratio, 4)

            def wald(changes: Any, network: str, p0: float = p0, p1: float = p1) -> Any:
                return verdicts_of_wald(changes, p0, p1)

            if all(
                wald(changes, network)[0].mean() <= FALSE_ALARMS
                for network, changes in clean.items()
            ):
                found[f"wald {p0:g} against {p1:g}"] = wald
    return found


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

    from nmutant_cli.detectors import NetworkView, kappa
    from nmutant_cli.files import read_records
    from nmutant_cli.pipeline.compare import changes_in
    from nmutant_cli.pipeline.experiment import Experiment
    from nmutant_cli.pipeline.kappa import measured
    from nmutant_cli.pipeline.scores import CLEAN, clean_images, in_first_half, view_of
    from nmutant_cli.report.tables import NORMAL

    # Rotation and contrast alone are left out for time.
    kinds = [kappa.Calibrated, kappa.LargerOcclusion, kappa.Gaussian, kappa.Translation]

    class Mixed(kappa.LargerOcclusion):
        """What looks at details and what looks at places, half of the mutations each."""

        title = "kappa, larger occlusion and translation"

        def operator(self, view: NetworkView) -> Any:
            kinds = ("occlusion", "blackout", "translation", "rotation")
            return super().operator(view).model_copy(update={"kinds": kinds})

    kinds.append(Mixed)
    with RunFolder(args.run_folder, say=log.warning) as run:
        experiment = Experiment(settings, run)
        clean = clean_images(experiment)
        networks = list(dict.fromkeys(map(experiment.network_of, settings.attack.sets)))

        def view(network: str) -> NetworkView:
            wanted = settings.compare.model_copy(update={"mutations": MUTATIONS})
            return replace(view_of(experiment, network), settings=wanted)

        def changes_of(kind: Any, step: float, network: str) -> dict[str, Any]:
            """The label changes of clean images and of the first half of each set."""
            name = f"operators/{kind.__name__}-{step:.4g}-{network}.csv"
            ingredients = {
                "samples": {s: file_digest(experiment.samples_path(s)) for s in experiment.titles},
                "network": file_digest(experiment.model_path(network)),
                "compare": settings.compare.model_dump(mode="json"),
                "mutation": settings.mutation.model_dump(mode="json"),
                "seed": settings.seed,
                "sizes": [MUTATIONS, CLEAN_IMAGES],
            }

            def build(path: Path) -> None:
                detector = kind(view(network))
                detector.step_size = step
                images = {CLEAN: clean[1::2][:CLEAN_IMAGES]}
                for slug in experiment.titles:
                    if slug != NORMAL and experiment.network_of(slug) == network:
                        found, _, where = measured(experiment, slug)
                        images[slug] = found[in_first_half([source for _, source in where])]
                rows = [
                    (slug, row.tobytes().hex())
                    for slug, chosen in images.items()
                    if len(chosen)
                    for row in np.packbits(detector.changes(chosen), axis=1)
                ]
                pd.DataFrame(rows, columns=["samples", "changes"]).to_csv(path, index=False)

            frame = read_records(run.make(name, ingredients, build))
            return {
                slug: changes_in(part, MUTATIONS)
                for slug, part in frame.groupby("samples", sort=False)
            }

        table = []
        for kind in kinds:
            for step in step_sizes(kind, view(networks[0]), clean[::2]):
                found = {network: changes_of(kind, step, network) for network in networks}
                of_clean = {network: sets[CLEAN] for network, sets in found.items()}
                for name, rule in rules(of_clean).items():
                    row: dict[str, Any] = {"mutations": kind.title, "step_size": step, "rule": name}
                    tprs = {
                        slug: 100 * rule(changes, network)[0].mean()
                        for network, sets in found.items()
                        for slug, changes in sets.items()
                        if slug != CLEAN
                    }
                    alarms, passes = (
                        np.mean([rule(c, network)[i].mean() for network, c in of_clean.items()])
                        for i in range(2)
                    )
                    row |= {
                        "mean_tpr_percent": np.mean(list(tprs.values())),
                        "lowest_tpr_percent": min(tprs.values()),
                        "clean_alarms_percent": 100 * alarms,
                        "passes_clean": 1 + passes,
                    }
                    titles = experiment.titles
                    table.append(row | {titles[s]: tprs[s] for s in titles if s in tprs})
                log.warning("%s, step size %.4g", kind.title, step)
    frame = pd.DataFrame(table).round(2)
    close = frame["mean_tpr_percent"] >= frame["mean_tpr_percent"].max() - CLOSE
    frame = frame.assign(close=close).sort_values(
        ["close", "passes_clean", "mean_tpr_percent"], ascending=[False, True, False]
    )
    args.out.mkdir(parents=True, exist_ok=True)
    frame.drop(columns="close").to_csv(args.out / "operators.csv", index=False)
    print(frame.head(12).to_string(index=False))
    print(args.out / "operators.csv")


if __name__ == "__main__":
    main()
