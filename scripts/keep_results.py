"""Keep a finished run in the repository: its tables, figures, manifest and a frozen slice.

    python scripts/keep_results.py runs/mnist results/mnist --config mnist

The tables are those with the published values and verdicts. `nmutant report --check` holds every
later run against them. The slice is a few samples of each set, their networks and their counts;
``tests/whole/test_golden.py`` counts them again.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import keras
import pandas as pd

from nmutant_cli.config.loading import load
from nmutant_cli.config.settings import Settings
from nmutant_cli.detection import sprt
from nmutant_cli.detection.detect import detect
from nmutant_cli.mutation.graph import CompiledLabeller
from nmutant_cli.mutation.operator import MutationStream
from nmutant_cli.mutation.sensitivity import FixedMutations, Subjects, tally
from nmutant_cli.networks import inference
from nmutant_cli.paper.checking import write_sums
from nmutant_cli.pipeline.samples import SampleSet, from_8_bits
from nmutant_cli.types import Verdict

TABLES = ("compared/table1.csv", "compared/table2.csv", "compared/claims.csv")
OTHERS = ("roc.csv", "relabelling.csv", "manifest.json")
NETWORKS = ("base", "smoothed")
MUTATIONS = 200
CAP = 500


def make_slice(run: Path, folder: Path, settings: Settings, size: int) -> None:
    """Keep the first ``size`` samples of each set whose network is one of `NETWORKS`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in NETWORKS:
        file = _file(name)
        # Without the optimiser's state a network takes a third of the room.
        keras.saving.save_model(inference.load(run / file), folder / file, include_optimizer=False)
    for slug, network in _sets(settings).items():
        if network in NETWORKS:
            where = "adversarial" if slug in settings.attack.sets else "samples"
            whole = SampleSet.load(run / where / f"{slug}.npz").counted()
            some = SampleSet(*(getattr(whole, field)[:size] for field in vars(whole)))
            some.save(folder / f"{slug}.npz")
    recount(folder, settings)


def recount(folder: Path, settings: Settings) -> None:
    """Write the golden counts and verdicts of a slice."""
    for name, table in zip(("counts", "verdicts"), measure(folder, settings), strict=True):
        table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


def measure(
    folder: Path, settings: Settings, batch_size: int = 1000
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Label changes of every sample in ``folder`` at each step size, and what the rules say."""
    counts, verdicts = [], []
    tests = [
        sprt.SequentialTest(rule, *settings.detection.hypotheses(0.0017, mu), cap=CAP)
        for rule in ("published", "wald", "algorithm1")
        for mu in (1.2, 2.0)
    ]
    for slug, network in _sets(settings).items():
        if network not in NETWORKS:
            continue
        model = inference.load(folder / _file(network))
        samples = SampleSet.load(folder / f"{slug}.npz")
        attacked = slug in settings.attack.sets
        images = from_8_bits(samples.image8) if attacked else samples.image
        shape = images.shape[1:]
        label = CompiledLabeller(model, 1.0, mutation=settings.mutation, batch_size=batch_size)

        def stream(*names: str | int, shape: tuple[int, ...] = shape) -> MutationStream:
            return MutationStream(shape, settings.mutation, settings.seed, "golden", *names)  # type: ignore[arg-type]

        shared = FixedMutations(stream("shared").take(0, MUTATIONS))
        for step in settings.sensitivity.step_sizes:
            subjects = Subjects(label.at(step), images, samples.label if attacked else None)
            found = tally(subjects, [shared] * len(images), MUTATIONS)
            counts += [
                (slug, row, step, int(n), int(majority))
                for row, (n, majority) in enumerate(zip(found.changes, found.majority, strict=True))
            ]
        subjects = Subjects(label, images, samples.label if attacked else None)
        sources = [stream("detect", slug, row) for row in range(len(images))]
        for outcome in detect(subjects, sources, tests):
            test = outcome.test
            verdicts += [
                (slug, row, test.rule, test.p0, Verdict(verdict).name.lower(), int(n), int(c))
                for row, (verdict, n, c) in enumerate(
                    zip(outcome.verdict, outcome.n, outcome.c, strict=True)
                )
            ]
    return (
        pd.DataFrame(counts, columns=["samples", "row", "step_size", "changes", "majority"]),
        pd.DataFrame(verdicts, columns=["samples", "row", "rule", "p0", "verdict", "n", "c"]),
    )


def _sets(settings: Settings) -> dict[str, str]:
    """The sample sets, each with the network it belongs to."""
    attacks = {slug: params.model for slug, params in settings.attack.sets.items()}
    return {"normal": "base", **attacks, "wl": "base"}


def _file(network: str) -> str:
    return "model.keras" if network == "base" else f"model-{network}.keras"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", default="mnist")
    parser.add_argument(
        "--size", type=int, default=12, help="samples of each set in the slice; 0 keeps no slice"
    )
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in (*TABLES, *OTHERS):
        shutil.copy(args.run / name, args.folder)
    shutil.copytree(args.run / "figures", args.folder / "figures", dirs_exist_ok=True)
    if args.size:
        make_slice(args.run, args.folder / "slice", load(args.config)[1], args.size)
    write_sums(args.folder)
    size = sum(path.stat().st_size for path in args.folder.rglob("*") if path.is_file())
    print(f"{args.folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
