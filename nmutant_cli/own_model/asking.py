"""Asking a model that is slow, has a price or fails now and then: a journal, and further tries."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np

from nmutant_cli.errors import ArtifactError, first_line
from nmutant_cli.files import fault_reason
from nmutant_cli.mutation.operator import Mutations
from nmutant_cli.mutation.sensitivity import Labeller
from nmutant_cli.mutation.shortcut import Shortcuts
from nmutant_cli.types import Images, Labels

WAITS = (1.0, 4.0, 16.0)
"""Seconds before the second, third and fourth try."""
LOG = logging.getLogger("nmutant")


class Journal:
    """The labels that a model gave, in the order in which they were asked for.

    They are kept in the file ``path``, if there is one, and a later run that asks for the same
    reads them there instead. ``what`` says, as a digest, what is asked for. ``known``: how many
    there are; ``asked`` of them by this run, in so many ``seconds``.

    Raises ArtifactError for a file that cannot be read, or is about something else.
    """

    def __init__(self, path: Path | None, what: str) -> None:
        self._path, self._head = path, f"labels of {what}\n"
        self._left: list[int] = []
        self.known, self.asked, self.seconds = 0, 0, 0.0
        if path is None or not path.exists():
            return
        try:
            head, *lines = path.read_text(encoding="ascii").splitlines(keepends=True) or [""]
            whole = [line for line in lines if line.endswith("\n")]  # the last may be cut off
            self._left = [int(label) for line in whole for label in line.split()]
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path}: cannot be read ({first_line(error)})") from error
        if head != self._head:
            raise ArtifactError(
                f"{path}: holds labels that were asked for with another model, other images or "
                "other settings; delete it, or go on with those"
            )
        self.known = len(self._left)
        if len(whole) < len(lines):
            self._write(head + "".join(whole), "w")

    def take(self, count: int) -> list[int]:
        """The next labels, as many as are known, ``count`` at most."""
        labels, self._left = self._left[:count], self._left[count:]
        return labels

    def add(self, labels: Labels, seconds: float) -> None:
        """Keep the next labels, which took so long."""
        text = " ".join(map(str, labels.tolist())) + "\n"
        self._write(text if self.known else self._head + text, "a" if self.known else "w")
        self.known += len(labels)
        self.asked += len(labels)
        self.seconds += seconds

    def _write(self, text: str, mode: str) -> None:
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open(mode, encoding="ascii") as file:
                    file.write(text)
            except OSError as error:
                raise ArtifactError(
                    f"{self._path}: cannot be written ({fault_reason(error)})"
                ) from error


class Patient:
    """A `sensitivity.Labeller` that asks another only what the ``journal`` does not know.

    Where that fails and has answered before, it is asked again after `WAITS`.
    """

    def __init__(self, label: Labeller, journal: Journal) -> None:
        self._label, self._journal = label, journal
        self.batch_size, self.deterministic = label.batch_size, label.deterministic
        self.at_once = label.at_once
        self.shortcuts: Shortcuts | None = None

    def __call__(self, images: Images, mutations: Mutations) -> Labels:
        known = self._journal.take(len(images))
        new = slice(len(known), None)
        if len(known) < len(images):
            known += self._asked(images[new], mutations[new]).tolist()
        return np.array(known, np.int64)

    def _asked(self, images: Images, mutations: Mutations) -> Labels:
        waits = iter(WAITS)
        while True:
            start = time.perf_counter()
            try:
                labels = self._label(images, mutations)
            except Exception as error:  # whatever a user's model does
                wait = next(waits, None)
                if wait is None or not self._journal.known:
                    raise
                LOG.warning("%s; asked again in %g s", first_line(error), wait)
                time.sleep(wait)
            else:
                self._journal.add(labels, time.perf_counter() - start)
                return labels


def duration(seconds: float) -> str:
    """So many seconds, minutes or hours, whichever is the best unit."""
    for unit, size in (("seconds", 1), ("minutes", 60)):
        if seconds < 90 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.1f} hours"
