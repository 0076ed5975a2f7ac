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
from nmutant_cli.types import AnyArray, Bounds, Images, Labels

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

    levels = np.arange(256, dtype=np.float32) / np.float32(255)

    def images(x: AnyArray) -> Images:
        x = x if x.ndim == 4 else x[..., None]
        return levels[x]  # a look-up takes a sixth of the time of dividing

    return Dataset(
        name=name,
        x_train=images(arrays["x_train"]),
        y_train=arrays["y_train"].astype(np.int64),
        x_test=images(arrays["x_test"]),
        y_test=arrays["y_test"].astype(np.int64),
        digest=digest.hexdigest(),
    )


DATASET_TITLES = {"digits": "digits", "mnist": "MNIST", "cifar10": "CIFAR10"}
