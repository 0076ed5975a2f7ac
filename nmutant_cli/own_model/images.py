"""Images from where a user keeps them: folders, files, arrays, or a list of paths.

Images are float32 ``(height, width, channels)`` in [0, 1]. What cannot be used is named with the
reason, and the others are read all the same; an array in memory is refused with the same words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nmutant_cli.errors import DataError, first_line
from nmutant_cli.types import AnyArray, Images

if TYPE_CHECKING:
    from PIL.Image import Image

Shape = tuple[int | None, ...]
CHANNELS = (1, 3, 4)
"""As many channels as an image may have, where a height of as many would look like them."""
ARRAYS = (".npy", ".npz")
ANY: Shape = (None, None, None)
MODES = {"1": "L", "L": "L", "RGB": "RGB", "RGBA": "RGBA", "P": "RGB"}
"""How each of Pillow's modes is read: as it is, but for black and white and palettes."""


@dataclass(frozen=True)
class Item:
    """One input: its name, and the image or the ``problem`` that it is skipped for."""

    name: str
    image: NDArray[np.float32] | None
    problem: str = ""


def read(
    paths: str | Sequence[str], shape: Shape | None = None, listed: Iterable[str] = ()
) -> Iterator[Item]:
    """The images at one path or several, one after the other.

    A path: a folder (its files and those of the folders in it, in the order of their names, but
    for hidden ones), an image file that Pillow reads, an ``.npy`` file or an ``.npz`` file with one
    array or one called ``images``, or ``-`` for the paths in ``listed``, one a line.
    ``shape``: what the model takes, None for any; the first image then stands for all.
    Whole numbers of 8 bits are divided by 255. Nothing is resized, and no channel made up or lost.

    Raises DataError if there is no such path, or nothing there.
    """
    expected = ANY if shape is None else tuple(shape)
    given = [paths] if isinstance(paths, str) else paths
    files = [file for path in given for file in _files(path, listed)]
    for item in _unchecked(files, expected):
        if item.image is None:
            yield item
            continue
        problem = _problem(item.image, expected)
        if problem:
            yield Item(item.name, None, problem)
            continue
        expected = item.image.shape
        yield item


def checked(images: AnyArray, shape: Shape | None = None, name: str = "images") -> Images:
    """An array of images as float32 ``(n, h, w, c)``; ``shape`` is that of each, None for any.

    Raises DataError, in the words of `read`, for what is no such array and for the first image
    that cannot be used; whole numbers are refused, since nobody knows what the model takes.
    """
    array = np.asarray(images)
    if array.dtype.kind != "f":
        remedy = "; divide by 255" if array.dtype == np.uint8 else ""
        raise DataError(f"{name}: holds {array.dtype}; images are float (0 to 1){remedy}")
    if array.ndim != 4:
        raise DataError(f"{name}: {_no_images(array)}")
    array = np.ascontiguousarray(_single_precision(array))
    outside = ~((array >= 0) & (array <= 1)).all(axis=(1, 2, 3))
    for i in (0, int(outside.argmax())) if len(array) else ():
        if problem := _problem(array[i], ANY if shape is None else tuple(shape)):
            raise DataError(f"{name}[{i}]: {problem}")
    return array


def _files(path: str, listed: Iterable[str]) -> list[Path]:
    if path == "-":
        lines = [line.rstrip("\r\n") for line in listed if line.strip()]
        if not lines:
            raise DataError("-: no path was given on standard input")
        return [file for line in lines for file in _inside(Path(line))]
    folder = Path(path)
    if not folder.exists():
        raise DataError(f"{path}: no such file or folder")
    files = _inside(folder)
    if not files:
        raise DataError(f"{path}: there is no file in this folder")
    return files


def _inside(path: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """The files in a folder and in the folders in it; of anything else itself."""
    if not path.is_dir():
        return [path]
    real = path.resolve()
    if real in above:  # a link to a folder that it lies in
        return []
    try:
        inside = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return [file for p in inside for file in _inside(p, (*above, real))]


def _unchecked(files: list[Path], expected: Shape) -> Iterator[Item]:
    for path in files:
        name = _printable(str(path))
        try:
            if path.exists() and not path.is_file():
                yield Item(name, None, "is not a file")
            elif path.suffix.lower() in ARRAYS:
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
        raise DataError(_no_images(array))
    if not _fits(array.shape[1:], expected):
        raise DataError(f"holds images of {_by(array.shape[1:])}, not {_by(expected)}")
    if not len(array):
        raise DataError("holds no image")
    for i, image in enumerate(array):
        yield Item(f"{name}[{i}]", _single_precision(image))


def _no_images(array: AnyArray) -> str:
    return f"has the shape {array.shape}; images are (n, height, width, channels)"


def _single_precision(array: AnyArray) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        return array.astype(np.float32)


def _problem(image: NDArray[np.float32], expected: Shape) -> str:
    if _channels_first(image.shape):
        rows, columns, channels = image.shape[1], image.shape[2], image.shape[0]
        last = _by((rows, columns, channels))
        return f"is {_by(image.shape)}; channels come last, as in {last}"
    if not _fits(image.shape, expected):
        return f"is {_by(image.shape)}, not {_by(expected)}"
    if not np.isfinite(image).all():
        return "has a value that is not a number" if np.isnan(image).any() else "is infinite"
    low, high = float(image.min()), float(image.max())
    if low < 0 or high > 1:
        return f"has values from {low:g} to {high:g}; images lie in [0, 1], or are uint8"
    return ""


def _channels_first(shape: Shape) -> bool:
    return shape[0] in CHANNELS and shape[2] not in CHANNELS


def _fits(shape: Shape, expected: Shape) -> bool:
    pairs = zip(shape, expected, strict=False)
    return len(shape) == len(expected) and all(e in (None, size) for size, e in pairs)


def _by(shape: Shape) -> str:
    return "x".join("any" if size is None else str(size) for size in shape)


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
