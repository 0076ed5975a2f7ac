"""Files: their digests, written whole or not at all, arrays and tables read safely."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmutant_cli.errors import ArtifactError, DataError, NMutantError, first_line

if TYPE_CHECKING:
    import pandas as pd

    from nmutant_cli.types import AnyArray

DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def digest_of(value: Any) -> str:
    """sha256 of ``value`` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends well.

    Raises ArtifactError where the folder cannot be written or the disk is full; ``path`` is then
    as it was and the temporary file is gone.
    """
    temporary = path.with_name(f".{path.stem}-{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except NMutantError:
        raise
    except Exception as error:
        fault = _disk_fault(error)
        if fault is None:
            raise
        raise ArtifactError(f"{path}: cannot be written ({fault_reason(fault)})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _disk_fault(error: BaseException) -> OSError | None:
    """The OSError that is ``error`` or, on a disk fault, lies behind it.

    A library that cannot finish its file on a full disk may fail once more, in its own way.
    """
    if isinstance(error, OSError):
        return error
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, OSError) and behind.errno in DISK_FAULTS:
            return behind
        behind = behind.__cause__ or behind.__context__
    return None


def fault_reason(error: Exception) -> str:
    """What is wrong, in a few words and without the system's number for it."""
    return (
        getattr(error, "strerror", None)
        or " ".join(str(error).split())[:200]
        or type(error).__name__
    )


def read_npz(path: Path, names: tuple[str, ...]) -> dict[str, AnyArray]:
    """The arrays ``names`` of an ``.npz`` file, never unpickling.

    Raises DataError if the file is missing, damaged, pickled or lacks an array.
    """
    import numpy as np

    remedy = "get the file again"
    try:
        if path.is_file() and not zipfile.is_zipfile(path):  # NumPy would take it for a pickle
            raise DataError(f"{path}: damaged or not an .npz file; {remedy}")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            missing = [name for name in names if f"{name}.npy" not in data.zip.namelist()]
            if missing:
                raise DataError(
                    f"{path}: lacks the array {missing[0]!r}, has {data.files}; {remedy}"
                )
            return {name: data[name] for name in names}
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # zipfile, zlib and NumPy each have their own
        if "allow_pickle=False" in str(error):
            raise DataError(f"{path}: holds pickled objects, which are never loaded") from error
        raise DataError(
            f"{path}: damaged or not an .npz file ({first_line(error)}); {remedy}"
        ) from error


def read_records(path: Path) -> pd.DataFrame:
    """A CSV file of ours; a sample set may well be called ``nan``."""
    import pandas as pd

    return pd.read_csv(path, keep_default_na=False)


def write_csv(path: Path, rows: Sequence[Sequence[Any]], columns: list[str]) -> None:
    """``rows`` as a CSV file with these ``columns``."""
    import pandas as pd

    pd.DataFrame(list(rows), columns=columns).to_csv(path, index=False, lineterminator="\n")
