"""Break the code on purpose, one break at a time, and see whether the fast tests notice.

``breaks.toml`` lists the breaks. Each is put into a copy of the working tree and the tests named
beside it are run there; a break that they let pass is a survivor, and the exit code is then 1. The
same tests must pass on the untouched copy, or a failure would say nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PASSED, FAILED = 0, 1  # what pytest exits with
LIBRARIES = ["tensorflow", "keras", "pandas", "scipy.stats", "sklearn.datasets"]
FORKS = multiprocessing.get_context("forkserver")
"""New processes start from one in which these are loaded: that takes most of a test's time."""


@dataclass(frozen=True)
class Break:
    """``old``, which stands once in ``file``, becomes ``new``; ``tests`` are pytest's arguments."""

    name: str
    file: str
    old: str
    new: str
    tests: str

    def broken(self, root: Path) -> str:
        """The text of the file with the break in it. Raises SystemExit where it does not fit."""
        text = (root / self.file).read_text(encoding="utf-8")
        if (times := text.count(self.old)) != 1:
            sys.exit(f"{self.name}: its old text stands {times} times in {self.file}, not once")
        return text.replace(self.old, self.new)


def breaks() -> list[Break]:
    listed = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return [Break(**entry) for entry in listed["breaks"]]


@contextmanager
def copy() -> Iterator[Path]:
    """A copy of the working tree: what git tracks, or would."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory(prefix="breaks-") as folder:
        for name in filter(None, files.split("\0")):
            if (ROOT / name).is_file():
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, Path(folder) / name)
        yield Path(folder)


def run(root: Path, tests: str) -> tuple[int, str]:
    """pytest's exit code and the last line it printed."""
    with tempfile.NamedTemporaryFile("w+") as said:
        process = FORKS.Process(target=_pytest, args=(root, tests, said.name))
        process.start()
        process.join()
        lines = said.read().strip().splitlines()
    assert process.exitcode is not None
    return process.exitcode, lines[-1] if lines else "no output"


def _pytest(root: Path, tests: str, output: str) -> None:
    """What runs in a process of its own, which has the libraries but nothing of nmutant yet."""
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(output, os.O_WRONLY | os.O_APPEND), stream.fileno())
    # No compiled file may outlive the text that it was compiled from.
    os.environ |= {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(root))
    os.chdir(root)
    sys.exit(pytest.main(["-xq", "-p", "no:cacheprovider", *shlex.split(tests)]))


def untouched(tests: str) -> str:
    """What is wrong where ``tests`` do not pass on the code as it is."""
    with copy() as root:
        code, said = run(root, tests)
    return "" if code == PASSED else f"{tests}: do not pass on the untouched code ({said})"


def outcome(one: Break) -> str:
    """``noticed``, or what else came of it."""
    with copy() as root:
        (root / one.file).write_text(one.broken(root), encoding="utf-8")
        code, said = run(root, one.tests)
    found = {PASSED: "survives", FAILED: "noticed"}.get(code, f"cannot be tested ({said})")
    print(f"{found}: {one.name}", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="breaks with this in their name")
    parser.add_argument("--jobs", type=int, default=1, help="so many at a time")
    options = parser.parse_args()
    FORKS.set_forkserver_preload(LIBRARIES)
    chosen = [b for b in breaks() if not options.only or any(n in b.name for n in options.only)]
    for one in chosen:
        one.broken(ROOT)
    with ThreadPoolExecutor(options.jobs) as pool:
        for wrong in filter(None, pool.map(untouched, dict.fromkeys(b.tests for b in chosen))):
            sys.exit(wrong)
        outcomes = list(pool.map(outcome, chosen))
    others = [b for b, found in zip(chosen, outcomes, strict=True) if found != "noticed"]
    print(f"{len(chosen)} breaks, {len(chosen) - len(others)} noticed")
    for one in others:
        print(f"  not noticed: {one.name} ({one.file}; {one.tests})")
    return int(bool(others))


if __name__ == "__main__":
    sys.exit(main())
