"""Images from where a user keeps them: a folder, a file, an array, or a list of paths.

Images are float32 ``(height, width, channels)`` in [0, 1]. What cannot be used is named with the
reason, and the others are read all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nmutant_cli.errors import DataError, first_line
from nmutant_cli.types import AnyArray

if TYPE_CHECKING:
    from PIL.Image import Image

Shape = tuple[int | None, ...]
ARRAYS = (".npy", ".npz")
MODES = {"1": "L", "L": "L", "RGB": "RGB", "RGBA": "RGBA", "P": "RGB"}
"""How each of Pillow's modes is read: as it is, but for black and white and palettes."""


@dataclass(frozen=True)
class Item:
    """One input: its name, and the image or the ``problem`` that it is skipped for."""

    name: str
    image: NDArray[np.float32] | None
    problem: str = ""


def read(path: str, shape: Shape | None = None, listed: Iterable[str] = ()) -> Iterator[Item]:
    """The images at ``path``, one after the other.

    ``path``: a folder (its files in the order of their names; hidden ones and folders in it are
    left out), an image file that Pillow reads, an ``.npy`` file or an ``.npz`` file with one
    array or one called ``images``, or ``-`` for the paths in ``listed``, one a line.
    ``shape``: what the model takes, None for any; the first image then stands for all.
    Whole numbers of 8 bits are divided by 255. Nothing is resized, and no channel made up or lost.

    Raises DataError if there is no such path, or nothing there.
    """
    expected = tuple(shape) if shape is not None else (None, None, None)
    for item in _unchecked(_files(path, listed), expected):
        if item.image is None:
            yield item
            continue
        problem = _problem(item.image, expected)
        if problem:
            yield Item(item.name, None, problem)
            continue
        expected = item.image.shape
        yield item


def _files(path: str, listed: Iterable[str]) -> list[Path]:
    if path == "-":
        paths = [Path(line.rstrip("\r\n")) for line in listed if line.strip()]
        if not paths:
            raise DataError("-: no path was given on standard input")
        return paths
    folder = Path(path)
    if not folder.is_dir():
        if not folder.exists():
            raise DataError(f"{path}: no such file or folder")
        return [folder]
    try:
        inside = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not inside:
        raise DataError(f"{path}: there is no file in this folder")
    return inside


def _unchecked(files: list[Path], expected: Shape) -> Iterator[Item]:
    for path in files:
        name = _printable(str(path))
        try:
            if path.suffix.lower() in ARRAYS:
                yield from _of_array(name, _array(path), expected)
            else:
                yield Item(name, _picture(path))
        except DataError as error:
            yield Item(name, None, str(error))
        except OSError as error:
            yield Item(name, None, f"cannot be read ({error.strerror or first_line(error)})")


def _picture(path: Path) -> NDArray[np.float32]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return _pixels(picture)
    except UnidentifiedImageError:
        raise DataError("is not an image") from None
    except (OSError, DataError):
        raise
    except Exception as error:  # a damaged file; each of Pillow's formats has its own errors
        raise DataError(f"is damaged ({first_line(error)})") from error


def _pixels(picture: Image) -> NDArray[np.float32]:
    mode = MODES.get(picture.mode)
    if mode is None:
        raise DataError(f"has the mode {picture.mode}; 8-bit grey, RGB and RGBA are read")
    pixels = np.asarray(picture.convert(mode) if mode != picture.mode else picture)
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    return pixels.astype(np.float32) / np.float32(255)


def _array(path: Path) -> AnyArray:
    try:
        with path.open("rb") as file:
            loaded: Any = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            names = loaded.files
            if len(names) != 1 and "images" not in names:
                held = ", ".join(names) or "nothing"
                raise DataError(f"holds {held}; it must hold one array, or one called images")
            array: AnyArray = loaded[names[0] if len(names) == 1 else "images"]
            return array
    except (DataError, OSError):
        raise
    except Exception as error:  # zipfile, zlib and NumPy each have their own
        if "allow_pickle=False" in str(error):
            raise DataError("holds pickled objects, which are never loaded") from error
        raise DataError(f"is damaged or not an array file ({first_line(error)})") from error


def _of_array(name: str, array: AnyArray, expected: Shape) -> Iterator[Item]:
    if array.dtype == np.uint8:
        array = array.astype(np.float32) / np.float32(255)
    if array.dtype.kind != "f":
        raise DataError(f"holds {array.dtype}; images are float (0 to 1) or uint8 (0 to 255)")
    if array.ndim == 2 or (
        array.ndim == 3 and _fits(array.shape, expected) and None not in expected
    ):
        array = array[None]  # a single image
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4:
        raise DataError(f"has the shape {array.shape}; images are (n, height, width, channels)")
    if not _fits(array.shape[1:], expected):
        raise DataError(f"holds images of {_by(array.shape[1:])}, not {_by(expected)}")
    if not len(array):
        raise DataError("holds no image")
    for i, image in enumerate(array):
        yield Item(f"{name}[{i}]", image.astype(np.float32))


def _problem(image: NDArray[np.float32], expected: Shape) -> str:
    if not _fits(image.shape, expected):
        return f"is {_by(image.shape)}, not {_by(expected)}"
    if not np.isfinite(image).all():
        return "has a value that is not a number" if np.isnan(image).any() else "is infinite"
    low, high = float(image.min()), float(image.max())
    if low < 0 or high > 1:
        return f"has values from {low:g} to {high:g}; images lie in [0, 1], or are uint8"
    return ""


def _fits(shape: Shape, expected: Shape) -> bool:
    pairs = zip(shape, expected, strict=False)
    return len(shape) == len(expected) and all(e in (None, size) for size, e in pairs)


def _by(shape: Shape) -> str:
    return "x".join("any" if size is None else str(size) for size in shape)


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
