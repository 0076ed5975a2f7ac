"""The data sets: digits (embedded in scikit-learn), MNIST and CIFAR10.

Images are float32 in [0, 1], shape ``(n, height, width, channels)``; labels are int64.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nmutant_cli.errors import DataError, first_line
from nmutant_cli.files import read_npz
from nmutant_cli.seeding import stream
from nmutant_cli.types import AnyArray, Bools, Bounds, Images, Ints, Labels

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class Dataset:
    """A data set in memory; ``digest`` is the sha256 of its 8-bit arrays."""

    name: str
    x_train: Images
    y_train: Labels
    x_test: Images
    y_test: Labels
    digest: str
    n_classes: int = 10
    bounds: Bounds = field(default=Bounds(0.0, 1.0))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        height, width, channels = self.x_train.shape[1:]
        return height, width, channels


def load_dataset(name: str) -> Dataset:
    """Load ``name``, one of `DATASETS`.

    Raises DataError if the file is missing, damaged, pickled or not what it should be.
    """
    return _finish(name, DATASETS[name]())


def digits() -> dict[str, AnyArray]:
    """scikit-learn's 1,797 handwritten digits, 8x8 enlarged to 28x28 (bilinear), shuffled once.

    1,097 for training, 700 for testing: the black-box attack holds out 150 of the latter.
    """
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = zoom(raw.images, (1, 3.5, 3.5), order=1, grid_mode=True, mode="nearest")
    images = np.rint(np.clip(images / 16.0, 0, 1) * 255).astype(np.uint8)
    order = stream(0, "digits", "split").permutation(len(images))
    images, labels = images[order], raw.target[order].astype(np.uint8)
    return {
        "x_train": images[:1097],
        "y_train": labels[:1097],
        "x_test": images[1097:],
        "y_test": labels[1097:],
    }


def mnist() -> dict[str, AnyArray]:
    """MNIST (LeCun et al. 1998): 60,000 + 10,000 grey images of 28x28."""
    return _read_or_download("mnist", {"x_train": (60000, 28, 28), "x_test": (10000, 28, 28)})


def cifar10() -> dict[str, AnyArray]:
    """CIFAR10 (Krizhevsky 2009): 50,000 + 10,000 colour images of 32x32."""
    return _read_or_download(
        "cifar10", {"x_train": (50000, 32, 32, 3), "x_test": (10000, 32, 32, 3)}
    )


DATASETS: dict[str, Callable[[], dict[str, AnyArray]]] = {
    "digits": digits,
    "mnist": mnist,
    "cifar10": cifar10,
}


def _read_or_download(name: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, AnyArray]:
    folder = os.environ.get("NMUTANT_DATA_DIR")
    if folder:
        path = Path(folder) / f"{name}.npz"
        if not path.is_file():
            raise DataError(
                f"{path}: no such file; put it there (arrays {', '.join(ARRAYS)}, uint8) or change "
                "NMUTANT_DATA_DIR"
            )
        arrays = read_npz(path, ARRAYS)
        _check(arrays, shapes, str(path))
        return arrays
    import keras

    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras's bar is no result
            train, test = getattr(keras.datasets, name).load_data()  # checks the file's hash
    except Exception as error:
        raise DataError(
            f"{name}: not in Keras's cache and the download failed ({first_line(error)}); put "
            f"{name}.npz with the arrays {', '.join(ARRAYS)} (uint8) into a folder and set "
            "NMUTANT_DATA_DIR to it"
        ) from error
    arrays = dict(zip(ARRAYS, (train[0], train[1].ravel(), test[0], test[1].ravel()), strict=True))
    _check(arrays, shapes, name)
    return arrays


def _check(arrays: dict[str, AnyArray], shapes: dict[str, tuple[int, ...]], where: str) -> None:
    for half in ("train", "test"):
        x, y = arrays[f"x_{half}"], arrays[f"y_{half}"]
        expected = shapes[f"x_{half}"]
        if x.shape[1:] != expected[1:] or len(x) == 0 or len(x) > expected[0]:
            raise DataError(
                f"{where}: x_{half} has shape {x.shape}, expected {expected} (or fewer images)"
            )
        for name, array in ((f"x_{half}", x), (f"y_{half}", y)):
            if array.dtype != np.uint8:
                raise DataError(f"{where}: {name} is {array.dtype}, expected uint8")
        if y.shape != (len(x),):
            raise DataError(f"{where}: y_{half} has shape {y.shape}, expected ({len(x)},)")
        if y.max() > 9:
            raise DataError(f"{where}: y_{half} has the label {y.max()}, expected 0 to 9")


def _finish(name: str, arrays: dict[str, AnyArray]) -> Dataset:
    digest = hashlib.sha256()
    for key in ARRAYS:
        digest.update(np.ascontiguousarray(arrays[key]).tobytes())

    return Dataset(
        name=name,
        x_train=_images(arrays["x_train"]),
        y_train=arrays["y_train"].astype(np.int64),
        x_test=_images(arrays["x_test"]),
        y_test=arrays["y_test"].astype(np.int64),
        digest=digest.hexdigest(),
    )


def _images(x: AnyArray) -> Images:
    """8-bit images, ``(n, h, w)`` or ``(n, h, w, c)``, as float32 in [0, 1]."""
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    x = x if x.ndim == 4 else x[..., None]
    return levels[x]  # a look-up takes a sixth of the time of dividing


DATASET_TITLES = {"digits": "digits", "mnist": "MNIST", "cifar10": "CIFAR10"}


AUTHORS = "authors-mnist.npz"
AUTHORS_SETS = ("fgsm", "cw", "jsma")
AUTHORS_MUTATIONS = 1000
AUTHORS_STEPS = (1.0, 5.0, 10.0)
AUTHORS_WEIGHTS = (
    *((8, 8, 1, 64), (64,), (6, 6, 64, 128), (128,)),
    *((5, 5, 128, 128), (128,), (128, 10), (10,)),
)
"""The shapes of the kernels and biases of their network, layer by layer."""


@dataclass(frozen=True)
class AuthorsSet:
    """The images that the paper's authors published of one attack on MNIST, and their counts.

    ``images``: ``(n, 28, 28, 1)``; ``true``, ``label``: ``(n,)``, the class and the label that was
    recorded, as their file names say. ``changes``: ``(n, 3)``, label changes in
    `AUTHORS_MUTATIONS` mutations at each of `AUTHORS_STEPS`. ``normal``: ``(m, 3)``, those of
    normal images under the network that was attacked.
    """

    images: Images
    true: Labels
    label: Labels
    changes: Ints
    normal: Ints

    @property
    def adversarial(self) -> Bools:
        """Which count as adversarial: those whose two labels differ, ``(n,)``."""
        return self.true != self.label


@dataclass(frozen=True)
class Authors:
    """`AuthorsSet` by attack, and the ``weights`` of the one network that is public."""

    sets: dict[str, AuthorsSet]
    weights: tuple[AnyArray, ...]


def authors_file() -> Path:
    """Where the authors' files lie, repacked. Raises DataError if they do not."""
    folder = os.environ.get("NMUTANT_DATA_DIR")
    path = Path(folder) / AUTHORS if folder else Path(AUTHORS)
    if folder and path.is_file():
        return path
    raise DataError(
        f"{path}: {'no such file' if folder else 'NMUTANT_DATA_DIR is not set'}; clone "
        "wang-jingyi/cleverhans from GitHub, run 'python scripts/authors.py CLONE --out "
        f"FOLDER/{AUTHORS}' and set NMUTANT_DATA_DIR to FOLDER"
    )


def load_authors(path: Path) -> Authors:
    """The authors' own files (wang-jingyi/cleverhans on GitHub), as ``scripts/authors.py`` packs.

    Raises DataError if the file is damaged, pickled or not what it should be.
    """
    kinds = ("images", "true", "label", "changes")
    names = [f"{slug}_{kind}" for slug in AUTHORS_SETS for kind in kinds]
    names += [f"normal_{slug}_changes" for slug in AUTHORS_SETS]
    names += [f"weights_{i}" for i in range(len(AUTHORS_WEIGHTS))]
    arrays = read_npz(path, tuple(names))
    sets = {}
    for slug in AUTHORS_SETS:
        normal = f"normal_{slug}_changes"
        n, m = arrays[f"{slug}_images"].shape[:1], arrays[normal].shape[:1]
        _whole(path, f"{slug}_images", arrays, (*n, 28, 28), 255)
        for kind in ("true", "label"):
            _whole(path, f"{slug}_{kind}", arrays, n, 9)
        _whole(path, f"{slug}_changes", arrays, (*n, 3), AUTHORS_MUTATIONS)
        _whole(path, normal, arrays, (*m, 3), AUTHORS_MUTATIONS)
        sets[slug] = AuthorsSet(
            _images(arrays[f"{slug}_images"]),
            arrays[f"{slug}_true"].astype(np.int64),
            arrays[f"{slug}_label"].astype(np.int64),
            arrays[f"{slug}_changes"].astype(np.int64),
            arrays[normal].astype(np.int64),
        )
    weights = tuple(arrays[f"weights_{i}"] for i in range(len(AUTHORS_WEIGHTS)))
    for i, (array, shape) in enumerate(zip(weights, AUTHORS_WEIGHTS, strict=True)):
        if array.dtype != np.float32 or array.shape != shape or not np.isfinite(array).all():
            raise DataError(
                f"{path}: weights_{i} is {array.dtype} {array.shape}, expected finite float32 "
                f"{shape}; make the file again with scripts/authors.py"
            )
    return Authors(sets, weights)


def _whole(
    path: Path, name: str, arrays: dict[str, AnyArray], shape: tuple[int, ...], most: int
) -> None:
    """Raise DataError unless an array has this shape, and whole numbers from 0 to ``most``."""
    array = arrays[name]
    right = array.dtype.kind in "iu" and array.shape == shape and array.size > 0
    if not right or array.min() < 0 or array.max() > most:
        raise DataError(
            f"{path}: {name} is {array.dtype} {array.shape}, expected {shape}, not empty, and "
            f"whole numbers from 0 to {most}; make the file again with scripts/authors.py"
        )
