"""Which part of the published MNIST protocol moves kappa: one thing changed at a time.

    python scripts/one_factor.py runs/mnist-seed1 --seed 1 --out results/mnist/one-factor.csv

Measures normal, FGSM and WL samples at a reduced size, once as published and once for each
change, in folders beside the run whose networks are used again. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pandas as pd

from nmutant_cli.cli import main as nmutant
from nmutant_cli.config.loading import load
from nmutant_cli.files import read_records
from nmutant_cli.report.tables import table1, to_csv, to_text

SETS = ["attack.sets.cw=null", "attack.sets.jsma=null", "attack.sets.bb=null"]
SIZE = [
    "attack.attempts=250", "samples.normal=250", "samples.wl=250", "sensitivity.mutations=250",
]  # fmt: skip
CHANGES = {
    "as published": [],
    "fresh mutations for each image": ["sensitivity.shared_mutations=false"],
    "images not rounded to 8 bits": ["attack.eight_bit=false"],
    "images the network gets wrong left out": [
        "attack.count_already_wrong=false",
        "samples.normal_correct_only=true",
    ],
    "FGSM on a network without label smoothing": ["attack.sets.fgsm.model=base"],
    "FGSM on a network of 10 epochs, no smoothing": ["attack.sets.fgsm.model=longer"],
    "Keras's initialisation": ["model.initialization=keras"],
    "3 epochs": ["model.epochs=3"],
}
TITLES = {"normal": "normal", "fgsm": "FGSM", "wl": "WL"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run of the config mnist, for its networks")
    parser.add_argument("--seed", type=int, help="that of the run, where not the config's")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--full", action="store_true", help="at the published size")
    parser.add_argument("--changes", nargs="*", default=list(CHANGES), choices=CHANGES)
    args = parser.parse_args()
    rows = []
    for change in args.changes:
        size = "-full" if args.full else ""
        number = list(CHANGES).index(change)
        folder = args.run.with_name(f"{args.run.name}-factor-{number}{size}")
        if not folder.exists():
            folder.mkdir()
            for path in [*args.run.glob("model*.keras"), args.run / "manifest.json"]:
                shutil.copy(path, folder)
        texts = [*SETS, *([] if args.full else SIZE), *CHANGES[change]]
        settings = [word for text in texts for word in ("--set", text)]
        settings += [] if args.seed is None else ["--seed", str(args.seed)]
        arguments = ["measure-kappa", "--config", "mnist", "--run-dir", str(folder), *settings]
        nmutant(arguments, standalone_mode=False)
        steps = load("mnist")[1].sensitivity.step_sizes
        kappa = read_records(folder / "kappa.csv")
        found = table1(kappa, TITLES, "MNIST", steps)
        rows.append(found.assign(change=change))
    table = pd.concat(rows, ignore_index=True)
    wide = table.pivot(index="change", columns=["samples", "step_size"], values="kappa_percent")
    print("\n", wide.reindex(args.changes).to_string(), sep="")
    if args.out:
        columns = ["change", *(c for c in table if c != "change")]
        args.out.write_text(to_csv(table[columns]), encoding="utf-8")
        print(f"\n{args.out}")
    else:
        print(to_text(table))


if __name__ == "__main__":
    main()
