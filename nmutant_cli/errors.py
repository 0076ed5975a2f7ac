"""The errors a user can meet. The command line turns each into one line and exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FROM_A_CLONE = "in a clone: pip install -e ."


class NMutantError(Exception):
    """Base class: something the user can put right, said in one line.

    >>> from nmutant_cli import NMutantError, load_config
    >>> try:
    ...     load_config("digits", ["detection.alpha=2"])
    ... except NMutantError as error:
    ...     print(error)
    --set detection.alpha=2: detection.alpha: 2 is not allowed; it must be below 0.5
    """


class ConfigError(NMutantError):
    """A setting is unknown, malformed or out of range; the message names file and field."""


class DataError(NMutantError):
    """A data set or image file is missing, damaged or of the wrong shape, type or range."""


class ModelError(NMutantError):
    """A network cannot be loaded, does not fit the data or returns something unusable."""


class AttackError(NMutantError):
    """An attack was asked for something it cannot do."""


class ArtifactError(NMutantError):
    """A run folder cannot be read, written or locked, or an artefact in it is damaged."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to append to an error, empty where nothing known comes close to ``word``."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def first_line(error: BaseException) -> str:
    """What an error says first, at most 200 characters; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def not_installed(library: str) -> str:
    """What to do where a library is missing that nmutant's dependencies bring."""
    return f"{library} is not installed; install nmutant with its dependencies ({FROM_A_CLONE})"
