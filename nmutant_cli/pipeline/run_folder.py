"""Run folders: artefacts that know where they came from, written whole or not at all.

An artefact is a file with an entry in ``manifest.json``: the ingredients it was made from
(settings, seed, digests of what was read, version of the code), their digest, the file's own
sha256, versions of the libraries, counts and seconds. `RunFolder.make` makes it only where that
digest does not match or the file is not what the entry says.
"""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nmutant_cli.errors import ArtifactError
from nmutant_cli.files import digest_of, fault_reason, file_digest, replacing
from nmutant_cli.networks import backend

ENTRY_KEYS = {"digest", "sha256", "ingredients", "counts", "seconds", "versions"}
SAMPLES = (".keras", ".npz")
"""How networks and sample sets end, the artefacts that nothing was measured for."""
LIBRARIES = ("nmutant", "tensorflow", "keras", "cleverhans", "numpy", "jax", "torch")
Build = Callable[[Path], Mapping[str, Any] | None]
"""Writes the artefact to the path it is given; returns counts for the manifest."""


class RunFolder:
    """A folder of artefacts with its manifest; use it as a context to hold its lock.

    ``say`` is told in one line of what is made again and why; ``force`` makes everything that is
    asked for again, once. ``settings``, resolved, stand in the manifest beside the artefacts.
    """

    def __init__(
        self,
        path: Path,
        *,
        force: bool = False,
        say: Callable[[str], None] = lambda line: None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self._force, self._say = Path(path), force, say
        self._settings = settings
        self._made: set[str] = set()
        self._entries: dict[str, Any] = {}

    def __enter__(self) -> RunFolder:
        self._lock = FileLock(self.path / ".lock")
        self._new = [path for path in (self.path, *self.path.parents) if not path.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                self._say(f"{self.path}: another nmutant is at work in this folder; waiting for it")
                self._lock.acquire()
            self._remove_leftovers()
        except OSError as error:
            self._lock.release()
            raise ArtifactError(
                f"{self.path}: the run folder cannot be written ({fault_reason(error)}); "
                "choose another with --run-dir"
            ) from error
        self._entries = self._read_manifest()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            if [path.name for path in self.path.iterdir()] == [".lock"]:  # nothing came of it
                (self.path / ".lock").unlink()
                for path in self._new:
                    path.rmdir()
        self._lock.release()

    def __getitem__(self, name: str) -> dict[str, Any]:
        """The manifest's entry of an artefact."""
        entry: dict[str, Any] = self._entries[name]
        return entry

    def make(self, name: str, ingredients: Mapping[str, Any], build: Build) -> Path:
        """The path of artefact ``name``, made by ``build`` where it is not there already.

        It is there already if its entry has the digest of these ``ingredients`` and the file the
        sha256 in the entry.
        """
        path = self.path / name
        digest = digest_of(ingredients)
        why = self._stale(name, path, digest)
        if why is None:
            # One that was killed after its last piece may have left its journal.
            self._journal_path(name).unlink(missing_ok=True)
            return path
        if why:
            self._say(f"{path}: {why}; making it again")
        start = time.monotonic()
        with replacing(path) as temporary:
            counts = build(temporary)
            entry = {
                "digest": digest,
                "sha256": file_digest(temporary),
                "ingredients": dict(ingredients),
                "counts": dict(counts or {}),
                "seconds": round(time.monotonic() - start, 3),
                "versions": versions(),
            }
        self._entries[name] = entry
        self._made.add(name)
        self._write_manifest()
        return path

    def journal(self, name: str, ingredients: Mapping[str, Any]) -> Journal:
        """Finished pieces of artefact ``name``, kept until it is whole; see `Journal`."""
        return Journal(self._journal_path(name), digest_of(ingredients))

    def _journal_path(self, name: str) -> Path:
        return self.path / f".{name.replace('/', '-')}.journal"

    def _stale(self, name: str, path: Path, digest: str) -> str | None:
        """None if the artefact can be used, else why not ("" where that needs no words)."""
        entry = self._entries.get(name)
        if self._force and name not in self._made:
            return ""
        if entry is None or entry.get("digest") != digest:
            return ""
        if not path.is_file():
            return "is gone"
        if file_digest(path) != entry.get("sha256"):
            return "is damaged (its sha256 is not the manifest's)"
        return None

    def _read_manifest(self) -> dict[str, Any]:
        path = self.path / "manifest.json"
        if not path.exists():
            return {}
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))["artefacts"]
            if not isinstance(entries, dict) or not all(
                isinstance(e, dict) and e.keys() >= ENTRY_KEYS for e in entries.values()
            ):
                raise TypeError("artefacts is not a mapping of entries")
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            self._say(f"{path}: is damaged; every artefact of this run is made again")
            return {}
        return entries

    def _write_manifest(self) -> None:
        manifest = {"artefacts": self._entries}
        if self._settings is not None:
            manifest["settings"] = dict(self._settings)
        text = json.dumps(manifest, indent=1, sort_keys=True)
        with replacing(self.path / "manifest.json") as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")

    def _remove_leftovers(self) -> None:
        # We hold the lock, so a temporary file here is one of a killed process.
        for leftover in self.path.rglob(".*.tmp*"):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


class Journal:
    """Pieces of an artefact under way, a JSON line each, so that a killed run goes on.

    The first line is the digest of the artefact's ingredients; a journal of other ingredients is
    thrown away, and so is a last line that was cut off.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self._path = path
        self.pieces: dict[str, Any] = {}
        good = json.dumps(digest) + "\n"
        try:
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
            if lines and lines[0] == good.encode():
                for line in lines[1:]:
                    piece = _piece(line)
                    if piece is None:
                        break
                    self.pieces[piece[0]] = piece[1]
                    good += line.decode()
            with replacing(path) as temporary:
                temporary.write_text(good, encoding="utf-8")
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be written ({fault_reason(error)})") from error

    def add(self, key: str, value: Any) -> None:
        """Keep one finished piece. Raises ArtifactError if the disk is full."""
        try:
            self._file.write(json.dumps([key, value, digest_of([key, value])]) + "\n")
            self._file.flush()
        except OSError as error:
            raise ArtifactError(
                f"{self._path}: cannot be written ({fault_reason(error)})"
            ) from error
        self.pieces[key] = value

    def close(self, done: bool) -> None:
        """Close it, and remove it once the artefact is ``done``."""
        with contextlib.suppress(OSError):
            self._file.close()
        if done:
            self._path.unlink(missing_ok=True)


def _piece(line: bytes) -> tuple[str, Any] | None:
    """Key and value of a journal's line; None if it is cut off or damaged."""
    try:
        key, value, check = json.loads(line)
        whole = line.endswith(b"\n") and check == digest_of([key, value])
    except (ValueError, TypeError, RecursionError):
        return None
    return (key, value) if whole and isinstance(key, str) else None


def versions() -> dict[str, str]:
    """Of Python and our libraries; of the backend and its device where Keras is imported."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[library] = version(library)
    if "keras" in sys.modules:
        found |= {"backend": backend.name(), "device": backend.device()}
    return found


def copy_samples(source: Path, target: Path) -> None:
    """Networks, sample sets and their manifest entries; nothing that was measured.

    Raises ArtifactError if the manifest is missing or damaged.
    """
    try:
        entries = json.loads((source / "manifest.json").read_text("utf-8"))["artefacts"]
        kept = {name: entry for name, entry in entries.items() if name.endswith(SAMPLES)}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{source / 'manifest.json'}: missing or damaged") from error
    target.mkdir(parents=True)
    for path in source.rglob("*"):
        if path.suffix in SAMPLES and not path.name.startswith("."):
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    (target / "manifest.json").write_text(json.dumps({"artefacts": kept}), "utf-8")
