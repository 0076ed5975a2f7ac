"""Kill a run at random moments, finish it, and hold it against one that was left alone.

    python scripts/kills.py runs/mnist --kills 5 -- --config mnist --run-dir runs/killed

``runs/mnist`` is the finished run of the same settings; everything after ``--`` is given to
``nmutant run``. The moments are drawn uniformly over the seconds that run took. Prints a line for
each kill, then whether all CSV files are the same to the byte; exits with 1 where they are not.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path

NMUTANT = [sys.executable, "-c", "from nmutant_cli.cli import main; main(prog_name='nmutant')"]


def _entries(folder: Path) -> dict[str, dict[str, float]]:
    manifest = folder / "manifest.json"
    return json.loads(manifest.read_text())["artefacts"] if manifest.exists() else {}


def written(folder: Path) -> dict[str, int]:
    """The finished artefacts of a run, each with its moment of writing."""
    return {name: (folder / name).stat().st_mtime_ns for name in _entries(folder)}


def seconds(folder: Path) -> float:
    """How long the artefacts of a finished run took to make."""
    return sum(entry["seconds"] for entry in _entries(folder).values())


def different(folder: Path, like: Path) -> list[str]:
    """Names of CSV files that are not the same, to the byte, in both folders."""
    names = {p.relative_to(f).as_posix() for f in (folder, like) for p in f.rglob("*.csv")}

    def content(where: Path, name: str) -> bytes | None:
        return (where / name).read_bytes() if (where / name).exists() else None

    return sorted(name for name in names if content(folder, name) != content(like, name))


def stray(folder: Path) -> list[str]:
    """Files that a finished run has no business leaving."""
    return sorted(path.name for path in folder.rglob(".*") if path.name != ".lock")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("like", type=Path, help="a finished run of the same settings")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("arguments", nargs="+", help="after --: of `nmutant run`")
    args = parser.parse_args()
    folder = Path(args.arguments[args.arguments.index("--run-dir") + 1])
    if folder.exists():
        parser.error(f"{folder} is there already")
    rng, whole = random.Random(args.seed), seconds(args.like)
    moments = sorted(rng.uniform(0, whole) for _ in range(args.kills))
    ran, kept = 0.0, dict[str, int]()
    command = [*NMUTANT, "run", "-q", *args.arguments]
    for moment in moments:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        start = time.monotonic()
        try:
            code = process.wait(max(moment - ran, 0))
            print(f"ended by itself, with {code}, before it could be killed")
            return 2
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        ran += time.monotonic() - start
        kept = written(folder) | kept
        print(f"killed after {ran:.0f} of {whole:.0f} s; finished: {len(kept)}", flush=True)
    start = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    ran += time.monotonic() - start
    again = [name for name, moment in written(folder).items() if kept.get(name, moment) != moment]
    wrong = different(folder, args.like)
    print(f"finished after {ran:.0f} s; finished artefacts made again: {again or 'none'}")
    print(f"stray files: {stray(folder) or 'none'}")
    print(f"CSV files that differ: {', '.join(wrong) or 'none'}")
    return 1 if wrong or stray(folder) else 0


if __name__ == "__main__":
    sys.exit(main())
