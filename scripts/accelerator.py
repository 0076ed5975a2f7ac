"""A whole experiment in pieces of a few minutes, on a machine with a GPU or without.

    KERAS_BACKEND=jax python scripts/accelerator.py --config cifar10 --run-dir runs/cifar10

Run it again and again: it exits with 75 where the time of a piece was up, with 0 once report.html
is there. Each piece goes on where the last one stopped (training after the last finished epoch,
measuring after the last finished samples), on this machine or, with a copy of the run folder, on
another one. The run folder holds the networks, the CSV files and a manifest.json that names the
device and how many mutations it labelled a second.

An attack set is kept when it is whole: where one takes longer than a piece, make the sets with
``nmutant attack`` on the run folder, or give the script more ``--minutes``.

The stages, each left out where its files are there already:

1. train, and kappa of the normal and WL samples (the run's Keras backend);
2. attack (TensorFlow on the CPU; where that is not installed the script stops with 2 and says
   how to bring the attack sets along);
3. kappa of the attack sets, detection and the report (the run's Keras backend).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from nmutant_cli.config.loading import load
from nmutant_cli.config.settings import Settings
from nmutant_cli.errors import NMutantError

AGAIN = 75  # EX_TEMPFAIL of sysexits.h
GRACE_SECONDS = 30
NMUTANT = [sys.executable, "-c", "from nmutant_cli.cli import main; main(prog_name='nmutant')"]


def main() -> int:
    args = arguments()
    try:
        path, settings = load(args.config, tuple(args.set), args.seed)
    except NMutantError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    folder = args.run_dir or Path("runs") / path.stem
    deadline = time.monotonic() + 60 * args.minutes
    options = ["--config", args.config, "--run-dir", str(folder)]
    options += [part for change in args.set for part in ("--set", change)]
    options += [] if args.seed is None else ["--seed", str(args.seed)]
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    for command, on in stages(settings, folder, backend):
        print(f"{command[0]}, Keras on {on}", flush=True)
        code = run_until(deadline, [command[0], *options, *command[1:]], on, cpu=on != backend)
        if code is None:
            print(f"The {args.minutes:g} minutes of this piece are up; run me again.", flush=True)
            return AGAIN
        if code:
            return code
    print(f"Done: {folder}")
    return 0


def stages(settings: Settings, folder: Path, backend: str) -> list[tuple[list[str], str]]:
    """The commands that are left to do and the Keras backend of each."""
    networks = ["model", *(f"model-{name}" for name in settings.variants)]
    sets = [folder / "adversarial" / f"{slug}.npz" for slug in settings.attack.sets]
    found: list[tuple[list[str], str]] = []
    if not all((folder / f"{name}.keras").is_file() for name in networks):
        found.append((["train"], backend))
    if not all(file.is_file() for file in sets):
        if not all((folder / "kappa" / f"{slug}.csv").is_file() for slug in ("normal", "wl")):
            found.append((["measure-kappa", "--set", "attack.sets={}"], backend))
        # Without TensorFlow the command itself says what is missing.
        there = importlib.util.find_spec("tensorflow") is not None
        found.append((["attack"], "tensorflow" if there else backend))
    return [*found, (["report"], backend)]


def run_until(deadline: float, command: list[str], backend: str, cpu: bool) -> int | None:
    """The exit code of an ``nmutant`` command, None where it was stopped at the ``deadline``.

    It is stopped as by Ctrl-C, which keeps what is finished; were it killed, it would be kept too.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        return None
    env = {**os.environ, "KERAS_BACKEND": backend}
    if cpu:
        env["CUDA_VISIBLE_DEVICES"] = "-1"
    process = subprocess.Popen([*NMUTANT, *command], env=env)
    try:
        return process.wait(left)
    except subprocess.TimeoutExpired:
        for stop in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(stop)
            try:
                code = process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            # It may have ended by itself just then.
            return code if code in (0, 1, 2) else None
        process.kill()
        process.wait()
        return None


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="cifar10", help="a config's name or path [cifar10]")
    parser.add_argument("--run-dir", type=Path, help="[runs/NAME-OF-CONFIG]")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--minutes", type=float, default=9, help="how long a piece may take [9]; what is under way "
        f"has up to {GRACE_SECONDS} seconds more to stop",
    )  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
