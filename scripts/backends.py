"""One run folder measured on several Keras backends: how many label changes differ, and why.

    nmutant attack --config digits           # networks and sample sets, on TensorFlow
    python scripts/backends.py runs/digits --config digits --backends tensorflow jax torch

Networks, sample sets and mutations are the same for all; `measure-kappa` runs on each backend in
a copy of the folder. The first backend is what the others are compared with. For every row of
kappa.csv that differs, the mutations whose label flipped are found and the margin of each is
printed: the distance between its two largest logits, as the first backend computes them. Two
backends differ in a logit's last bits, so only images on a boundary may flip. It exits with 1 if
a row differs by more than its flips.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from nmutant_cli.pipeline.run_folder import copy_samples

KEY = ["samples", "index", "source_index", "step_size", "mutations"]
NMUTANT = "from nmutant_cli.cli import main; main(prog_name='nmutant')"


def main() -> int:
    args = arguments()
    options = ["--config", args.config]
    options += [part for change in args.set for part in ("--set", change)]
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: Path(scratch) / name for name in args.backends}
        kappas: dict[str, pd.DataFrame] = {}
        for name, folder in folders.items():
            copy_samples(args.folder, folder)
            start = time.monotonic()
            on(name, NMUTANT, "measure-kappa", "--quiet", "--run-dir", folder, *options)
            kappas[name] = pd.read_csv(folder / "kappa.csv", keep_default_na=False)
            print(f"{name}: measured in {time.monotonic() - start:.0f} s")
        first, *others = args.backends
        unexplained = [compare(first, name, folders, kappas, options) for name in others]
    return 1 if any(unexplained) else 0


def compare(
    first: str,
    other: str,
    folders: dict[str, Path],
    kappas: dict[str, pd.DataFrame],
    options: list[str],
) -> int:
    """Print how the counts of two backends differ, with a row for each flipped label.

    Returns how many counts differ by more than the labels that flipped can explain.
    """
    a, b = kappas[first], kappas[other]
    pd.testing.assert_frame_equal(a[KEY], b[KEY])
    differ = a["changes"] != b["changes"]
    gap = (a["changes"] - b["changes"])[differ].abs()
    print(
        f"{other} against {first}: {differ.sum()} of {len(a)} counts differ, by {gap.sum()} of "
        f"{a['mutations'].sum()} mutations in all, by {gap.max() if len(gap) else 0} at most"
    )
    if not differ.any():
        return 0
    rows = folders[first] / "rows.csv"
    a.loc[differ, KEY].to_csv(rows, index=False)
    labels = {}
    for name in (first, other):
        out = folders[name] / "labels.npz"
        on(name, WORKER, rows, out, folders[name], *options)
        labels[name] = np.load(out)
    flipped = labels[first]["labels"] != labels[other]["labels"]
    margin = labels[first]["margins"]
    print(f"{flipped.sum()} labels flipped; their margins: row, mutation (-1: none), margin")
    for row, mutation in zip(*np.nonzero(flipped), strict=True):
        at = a.loc[differ].iloc[row]
        print(
            f"  {at['samples']} {at['index']} step {at['step_size']:g}, {mutation - 1}, "
            f"{margin[row, mutation]:.2g}"
        )
    largest = margin[flipped].max() if flipped.any() else 0
    # An image that flips itself changes what all its mutations are compared with.
    unexplained = (gap.to_numpy() > flipped[:, 1:].sum(axis=1)) & ~flipped[:, 0]
    print(
        f"largest margin of a flipped label: {largest:.2g}; median margin in these "
        f"rows: {np.median(margin):.2g}; rows no flip explains: "
        f"{unexplained.sum()}"
    )
    return int(unexplained.sum())


WORKER = "import backends, sys; backends.worker(*sys.argv[1:])"


def worker(rows: str, out: str, folder: str, *options: str) -> None:
    """Labels and margins of the given rows' images: themselves, then under every mutation."""
    from nmutant_cli.config.loading import load
    from nmutant_cli.mutation.operator import Mutations, MutationStream, apply, clip_of, identity
    from nmutant_cli.networks.inference import logits_fn
    from nmutant_cli.pipeline.experiment import Experiment
    from nmutant_cli.pipeline.kappa import measured
    from nmutant_cli.pipeline.run_folder import RunFolder

    # measure-kappa has read the same settings, so they are in order.
    _, settings = load(options[1], tuple(options[3::2]))
    if not settings.sensitivity.shared_mutations:
        raise SystemExit("sensitivity.shared_mutations: must be true for flips to be found")
    wanted = pd.read_csv(rows, keep_default_na=False)
    labels, margins = [], []
    with RunFolder(Path(folder)) as run:
        experiment = Experiment(settings, run, quiet=True)
        shape = experiment.data.image_shape
        shared = MutationStream(
            shape, settings.mutation, settings.seed, settings.dataset, "kappa", "shared"
        ).take(0, settings.sensitivity.mutations)
        side = shared.patch.shape[1]
        drawn = Mutations.concatenate([identity(1, shape, side), shared])
        clip = clip_of(settings.mutation, experiment.data.bounds)
        for slug, row, source, step in wanted[KEY[:4]].itertuples(index=False, name=None):
            images, _, where = measured(experiment, slug)
            image = images[[where.index((row, source))] * len(drawn)]
            network = experiment.network_of(slug)
            label = experiment.label(network, step)
            size = label.batch_size
            parts = [slice(i, i + size) for i in range(0, len(drawn), size)]
            labels.append(np.concatenate([label(image[p], drawn[p]) for p in parts]))
            logits = logits_fn(experiment.model(network), size)
            top = np.sort(logits(apply(image, drawn, step, clip)), axis=1)
            margins.append(top[:, -1] - top[:, -2])
    np.savez(out, labels=labels, margins=margins)


def on(backend: str, code: str, *arguments: object) -> None:
    """Run ``code`` in an interpreter of its own, with Keras on ``backend``."""
    env = {**os.environ, "KERAS_BACKEND": backend}
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), env.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=env,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="a run folder with networks and sample sets")
    parser.add_argument("--config", default="digits")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--backends", nargs="+", default=["tensorflow", "jax", "torch"])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
