"""Table 2 when the labels come from a network other than the attacked one.

    python scripts/other_network.py runs/mnist --networks smoothed longer --out results/mnist

Tests the explanation of the published C&W, JSMA and BB rows (docs/reproduction.md): works on a copy
of the run's networks and adversarial samples, under the rule ``published``. The last column is the
share of the samples that the other network labels otherwise, before any mutation.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pandas as pd

from nmutant_cli.cli import main as nmutant
from nmutant_cli.config.loading import load
from nmutant_cli.files import read_records
from nmutant_cli.networks import inference
from nmutant_cli.paper.published import compare_table2
from nmutant_cli.pipeline.samples import SampleSet, from_8_bits
from nmutant_cli.report.tables import table2, to_csv, to_text

TITLES = {"cw": "C&W", "jsma": "JSMA", "bb": "BB"}
SETTINGS = [
    "detection.rules=[published]", "attack.sets.fgsm=null", "samples.normal=50", "samples.wl=1",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run of the config mnist with its attack sets")
    parser.add_argument("--networks", nargs="+", default=["smoothed", "longer"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    _, settings = load("mnist", SETTINGS)
    folder = args.run.with_name(f"{args.run.name}-other-network")
    if not folder.exists():
        shutil.copytree(args.run, folder, ignore=shutil.ignore_patterns(".*", "*.csv", "figures"))
    found = []
    for network in args.networks:
        words = [*SETTINGS, f"detection.model={network}"]
        options = [word for text in words for word in ("--set", text)]
        nmutant(
            ["detect", "--config", "mnist", "--run-dir", str(folder), *options],
            standalone_mode=False,
        )
        records = read_records(folder / "detections.csv")
        # A set of the very network that is asked is no test of the explanation.
        titles = {s: t for s, t in TITLES.items() if settings.attack.sets[s].model != network}
        samples = {s: SampleSet.load(folder / f"adversarial/{s}.npz").counted() for s in titles}
        sizes = {slug: len(those) for slug, those in samples.items()}
        wanted = settings.detection
        ours = table2(
            records[records["samples"].isin(titles)], titles, "MNIST", sizes,
            ["published"], 0.0017, wanted.mu,
        )  # fmt: skip
        model = inference.load(folder / f"model-{network}.keras")
        otherwise = {
            title: 100 * (inference.predict_labels(model, from_8_bits(s.image8)) != s.label).mean()
            for title, s in ((titles[slug], samples[slug]) for slug in titles)
        }
        found.append(
            compare_table2(ours).assign(
                labels_from=network, label_differs_percent=ours["samples"].map(otherwise)
            )
        )
    table = pd.concat(found, ignore_index=True).drop(columns="reason")
    print("\n", to_text(table), sep="")
    if args.out:
        path = args.out / "other-network.csv"
        path.write_text(to_csv(table), encoding="utf-8")
        print(f"\n{path}")


if __name__ == "__main__":
    main()
