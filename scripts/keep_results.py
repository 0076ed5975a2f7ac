"""Keep a finished run in the repository: its tables, figures, manifest and a frozen slice.

    python scripts/keep_results.py runs/mnist results/mnist --config mnist

The tables are those with the published values and verdicts. `nmutant report --check` holds every
later run against them, ``tests/test_golden.py`` the slice.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import golden

from nmutant_cli.config.loading import load

TABLES = ("compared/table1.csv", "compared/table2.csv", "compared/claims.csv")
OTHERS = ("roc.csv", "relabelling.csv", "manifest.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
        golden.make(args.run, args.folder / "slice", load(args.config)[1], args.size)
    size = sum(path.stat().st_size for path in args.folder.rglob("*") if path.is_file())
    print(f"{args.folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
