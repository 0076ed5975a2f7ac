"""Tables 1 and 2 over several networks, each in a run folder of its own.

    python scripts/spread.py runs/mnist runs/mnist-seed1 runs/mnist-seed2 ... --out results/mnist

Prints how every value lies over the networks beside the published one, and writes
networks-table1.csv, networks-table2.csv and figures/networks.png. The runs may differ in size: say
so where you show it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from nmutant_cli.report.figures.networks import spread_figure
from nmutant_cli.report.figures.style import to_png
from nmutant_cli.report.tables import to_csv, to_text
from nmutant_cli.studies.networks import spread_table1, spread_table2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="where to write; nothing is written without it")
    args = parser.parse_args()
    for name, compare in (("table1", spread_table1), ("table2", spread_table2)):
        table = compare([pd.read_csv(run / f"{name}.csv") for run in args.runs])
        print(to_text(table), end="\n\n")
        if args.out:
            path = args.out / f"networks-{name}.csv"
            path.write_text(to_csv(table), encoding="utf-8")
            print(path, end="\n\n")
    if args.out:
        first = [pd.read_csv(run / "table1.csv") for run in args.runs]
        path = args.out / "figures" / "networks.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(to_png(spread_figure(first, first[0]["dataset"].iloc[0])))
        print(path)


if __name__ == "__main__":
    main()
