"""Repack the authors' public MNIST files into the one that `nmutant study authors` reads.

    git clone https://github.com/wang-jingyi/cleverhans
    git -C cleverhans checkout c665d56
    python scripts/authors.py cleverhans --out FOLDER/authors-mnist.npz

Below ``cleverhans_tutorials/`` of the clone lie, of each attack, a folder of adversarial images
``adv_NUMBER_TRUE_LABEL_.png`` and two CSV files without a header, ``NAME,STEP,CHANGES``: the label
changes in 1000 mutations of each image at each step, and those of normal images, whose NAME is a
number or as an image's. In which folder FGSM's two CSV files lie at this commit is not known (at an
earlier one it was ``mnist_tf/``), so they are looked for by name; --counts and --normal say where
a CSV file is. The weights are in a TensorFlow 1 checkpoint. Nothing there is run or unpickled.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nmutant_cli.datasets import (
    AUTHORS_MUTATIONS,
    AUTHORS_SETS,
    AUTHORS_STEPS,
    AUTHORS_WEIGHTS,
)
from nmutant_cli.errors import ConfigError, DataError, NMutantError, first_line
from nmutant_cli.files import replacing
from nmutant_cli.types import AnyArray

COMMIT = "c665d5691a2a91f718d892e260eecb334fbc556a"
TUTORIALS = "cleverhans_tutorials"
CHECKPOINT = "MNIST_trained_model_jsma"
IMAGES = {
    "fgsm": "mnist_fgsm1/adv_fgsm1",
    "cw": "mnist_cw/adv_cw",
    "jsma": "mnist_jsma/adv_jsma",
}
COUNTS = {
    "fgsm": "*/adv_fgsm1_result.csv",
    "cw": "mnist_cw/adv_result.csv",
    "jsma": "mnist_jsma/adv_result.csv",
}
NORMAL = {
    "fgsm": "*/ori_fgsm1_result.csv",
    "cw": "mnist_cw/ori_result.csv",
    "jsma": "mnist_jsma/ori_result.csv",
}
NAME = re.compile(r"adv_(\d+)_(\d)_(\d)_\.png")


def check_commit(clone: Path) -> None:
    """Raise DataError unless `COMMIT` is checked out in ``clone``."""
    git = ["git", "-C", str(clone), "rev-parse", "HEAD"]
    try:
        asked = subprocess.run(git, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise DataError(f"{clone}: not a clone that git can read") from error
    if asked.stdout.strip() != COMMIT:
        raise DataError(
            f"{clone}: is at commit {asked.stdout.strip()}; run 'git -C {clone} checkout {COMMIT}'"
        )


def read_images(folder: Path) -> dict[str, AnyArray]:
    """``images``, ``number``, ``true`` and ``label`` of a folder, in the order of the number."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; check out the whole clone")
    named: dict[int, tuple[int, int, Path]] = {}
    for path in sorted(folder.glob("*.png")):
        name = NAME.fullmatch(path.name)
        if name is None:
            raise DataError(f"{path}: is not called adv_NUMBER_TRUE_LABEL_.png")
        number, true, label = map(int, name.groups())
        if number in named:
            raise DataError(f"{path}: has the number of {named[number][2].name}")
        named[number] = true, label, path
    if not named:
        raise DataError(f"{folder}: holds no PNG; check out the whole clone")
    numbers = sorted(named)
    return {
        "images": np.stack([_pixels(named[n][2]) for n in numbers]),
        "number": np.array(numbers, np.int32),
        "true": np.array([named[n][0] for n in numbers], np.int8),
        "label": np.array([named[n][1] for n in numbers], np.int8),
    }


def _pixels(path: Path) -> AnyArray:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            mode, pixels = picture.mode, np.array(picture)
    except Exception as error:  # each kind of damage has its own
        raise DataError(f"{path}: not a readable image ({first_line(error)})") from error
    if mode != "L" or pixels.shape != (28, 28):
        raise DataError(f"{path}: is {mode} {pixels.shape}, expected 8-bit grey (28, 28)")
    return pixels


def read_counts(path: Path) -> dict[int, list[int]]:
    """The label changes of each number at each of `AUTHORS_STEPS`."""
    counts: dict[tuple[int, float], int] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for name, step, changes in csv.reader(file):
                match = NAME.fullmatch(name)
                if not 0 <= int(changes) <= AUTHORS_MUTATIONS:
                    raise ValueError(f"{name} has {changes} changes")
                counts[int(match[1] if match else name), float(step)] = int(changes)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path}: cannot be read as NAME,STEP,CHANGES ({first_line(error)}); name the file "
            "with --counts or --normal"
        ) from error
    numbers = sorted({number for number, _ in counts})
    if not numbers:
        raise DataError(f"{path}: is empty; check out the clone again")
    try:
        return {n: [counts[n, step] for step in AUTHORS_STEPS] for n in numbers}
    except KeyError as error:
        raise DataError(f"{path}: number {error.args[0][0]} lacks a step of 1, 5, 10") from error


def read_weights(prefix: Path) -> list[AnyArray]:
    """The variables ``Variable``, ``Variable_1``, ... of a TensorFlow 1 checkpoint."""
    import tensorflow as tf

    names = ["Variable", *(f"Variable_{i}" for i in range(1, len(AUTHORS_WEIGHTS)))]
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        weights = [np.asarray(reader.get_tensor(name)) for name in names]
    except Exception as error:  # TensorFlow has many
        raise DataError(
            f"{prefix}: not a readable checkpoint ({first_line(error)}); check out the clone again"
        ) from error
    for name, array, shape in zip(names, weights, AUTHORS_WEIGHTS, strict=True):
        if array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
            raise DataError(
                f"{prefix}: {name} is {array.dtype} {array.shape}, expected finite float32 {shape}"
            )
    return weights


def files_of(
    clone: Path, option: str, patterns: dict[str, str], given: Sequence[str]
) -> dict[str, Path]:
    """The CSV file of each attack: the one ``given`` as ATTACK=CSV, else the one in the clone."""
    files = {}
    for text in given:
        slug, _, path = text.partition("=")
        if slug not in patterns or not path:
            raise ConfigError(f"{option} {text}: is not fgsm=CSV, cw=CSV or jsma=CSV")
        files[slug] = Path(path)
    for slug in patterns.keys() - files.keys():
        found = sorted((clone / TUTORIALS).glob(patterns[slug]))
        if len(found) != 1:
            raise DataError(
                f"{clone / TUTORIALS / patterns[slug]}: {len(found)} such files instead of one; "
                f"name it with {option} {slug}=CSV"
            )
        files[slug] = found[0]
    return files


def repack(clone: Path, out: Path, counts: Sequence[str], normal: Sequence[str]) -> None:
    """Write ``out`` from a clone; ``counts`` and ``normal`` as `files_of` takes them."""
    check_commit(clone)
    sets = {slug: read_images(clone / TUTORIALS / IMAGES[slug]) for slug in AUTHORS_SETS}
    counted = files_of(clone, "--counts", COUNTS, counts)
    of_normal = files_of(clone, "--normal", NORMAL, normal)
    arrays: dict[str, Any] = {}
    for slug, images in sets.items():
        changes = read_counts(counted[slug])
        unpaired = set(images["number"].tolist()) ^ changes.keys()
        if unpaired:
            raise DataError(f"{counted[slug]}: image {min(unpaired)} is not both there and counted")
        arrays |= {f"{slug}_{name}": array for name, array in images.items()}
        arrays[f"{slug}_changes"] = np.array(list(changes.values()), np.int32)
        arrays[f"normal_{slug}_changes"] = np.array(
            list(read_counts(of_normal[slug]).values()), np.int32
        )
    weights = read_weights(clone / TUTORIALS / CHECKPOINT)
    arrays |= {f"weights_{i}": array for i, array in enumerate(weights)}
    with replacing(out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clone", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    for name, what in (("counts", "adversarial"), ("normal", "normal")):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="ATTACK=CSV",
            help=f"where the counts of the {what} images of fgsm, cw or jsma are",
        )
    args = parser.parse_args(arguments)
    try:
        repack(args.clone, args.out, args.counts, args.normal)
    except NMutantError as error:
        parser.exit(2, f"Error: {error}\n")
    print(args.out)


if __name__ == "__main__":
    main()
