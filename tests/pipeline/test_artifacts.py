"""Run folders: nothing made twice, nothing half written, nothing damaged used."""

import errno
import json
import threading
import zipfile

import numpy as np
import pytest
from conftest import python

from nmutant_cli.errors import ArtifactError, DataError
from nmutant_cli.files import digest_of, file_digest, replacing
from nmutant_cli.pipeline import run_folder
from nmutant_cli.pipeline.run_folder import Journal, RunFolder


class Maker:
    """Makes one artefact and counts how often."""

    def __init__(self, content="content"):
        self.content, self.times = content, 0

    def __call__(self, path):
        self.times += 1
        path.write_text(self.content)
        return {"n": self.times}


def files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {".lock"}


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_artefact_is_made_once(tmp_path):
    maker = Maker()
    with RunFolder(tmp_path / "new" / "run") as run:
        path = run.make("part/a.txt", {"x": 1}, maker)
        assert run.make("part/a.txt", {"x": 1}, maker) == path
    with RunFolder(tmp_path / "new" / "run") as run:
        run.make("part/a.txt", {"x": 1}, maker)
        entry = run["part/a.txt"]
    assert maker.times == 1
    assert path.read_text() == "content"
    assert entry["ingredients"] == {"x": 1}
    assert entry["digest"] == digest_of({"x": 1})
    assert entry["sha256"] == file_digest(path)
    assert entry["counts"] == {"n": 1}
    assert entry["seconds"] >= 0
    assert {"python", "numpy", "keras"} <= set(entry["versions"])


def test_other_ingredients_make_it_again_without_words(tmp_path):
    maker, said = Maker(), []
    for x in (1, 2, 2):
        with RunFolder(tmp_path, say=said.append) as run:
            run.make("a.txt", {"x": x}, maker)
    assert (maker.times, said) == (2, [])


def test_force_makes_everything_again_once(tmp_path):
    maker = Maker()
    with RunFolder(tmp_path) as run:
        run.make("a.txt", {}, maker)
    with RunFolder(tmp_path, force=True) as run:
        run.make("a.txt", {}, maker)
        run.make("a.txt", {}, maker)
    assert maker.times == 2


def test_a_damaged_artefact_is_made_again_and_says_so(tmp_path):
    maker, said = Maker(), []
    with RunFolder(tmp_path) as run:
        path = run.make("a.txt", {}, maker)
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    with RunFolder(tmp_path, say=said.append) as run:
        run.make("a.txt", {}, maker)
    assert said == [f"{path}: is damaged (its sha256 is not the manifest's); making it again"]
    assert path.read_text() == "content"
    path.unlink()
    with RunFolder(tmp_path, say=said.append) as run:
        run.make("a.txt", {}, maker)
    assert said[1:] == [f"{path}: is gone; making it again"]
    assert maker.times == 3


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "3",
        '{"artefacts": []}',
        '{"artefacts": {"a.txt": 3}}',
        '{"artefacts": {"a.txt": {}}}',
        "[" * 100_000,
        "\x00",
    ],
    ids=lambda text: text[:20],
)
def test_a_damaged_manifest(tmp_path, content):
    maker, said = Maker(), []
    with RunFolder(tmp_path) as run:
        run.make("a.txt", {}, maker)
    manifest = tmp_path / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(content)
    with RunFolder(tmp_path, say=said.append) as run:
        run.make("a.txt", {}, maker)
    assert said == [f"{manifest}: is damaged; every artefact of this run is made again"]
    assert maker.times == 2
    assert json.loads(manifest.read_text()).keys() == json.loads(whole).keys()


def test_a_manifest_cut_off_anywhere(tmp_path):
    with RunFolder(tmp_path) as run:
        run.make("a.txt", {}, Maker())
    manifest = tmp_path / "manifest.json"
    whole = manifest.read_bytes()
    for size in range(0, len(whole) - 3, 7):
        manifest.write_bytes(whole[:size])
        said = []
        with RunFolder(tmp_path, say=said.append):
            assert len(said) == 1


# Faults while writing


@pytest.mark.parametrize("name", ["a.txt", "part/a.txt"])
def test_a_failed_build_leaves_the_earlier_artefact(tmp_path, name):
    with RunFolder(tmp_path) as run:
        path = run.make(name, {"x": 1}, Maker())
        before = files(tmp_path)

        def fail(temporary):
            temporary.write_text("half")
            full()

        with pytest.raises(ArtifactError) as caught:
            run.make(name, {"x": 2}, fail)
        assert str(caught.value) == f"{path}: cannot be written (No space left on device)"
        assert files(tmp_path) == before
        assert path.read_text() == "content"
    maker = Maker()
    with RunFolder(tmp_path) as run:
        run.make(name, {"x": 1}, maker)
    assert maker.times == 0


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fills_at_the_last_moment(tmp_path, monkeypatch, call):
    with RunFolder(tmp_path) as run:
        path = run.make("a.txt", {"x": 1}, Maker())
        if call == "fsync":
            monkeypatch.setattr("nmutant_cli.files.os.fsync", full)
        else:
            monkeypatch.setattr(run_folder.Path, "replace", full)
        with pytest.raises(ArtifactError, match="No space left on device"):
            run.make("a.txt", {"x": 2}, Maker("other"))
        monkeypatch.undo()
    assert path.read_text() == "content"
    assert files(tmp_path) == {"a.txt", "manifest.json"}


def test_a_library_that_fails_in_its_own_way_on_a_full_disk(tmp_path):
    def fail(temporary):
        try:
            full()
        finally:
            raise ValueError("Can't close the ZIP file while there is an open writing handle on it")

    with RunFolder(tmp_path) as run, pytest.raises(ArtifactError, match="No space left on device"):
        run.make("a.txt", {}, fail)


@pytest.mark.parametrize("error", [DataError("no"), ValueError("no"), KeyboardInterrupt()])
def test_other_errors_pass_and_leave_nothing(tmp_path, error):
    def fail(temporary):
        temporary.write_text("half")
        raise error

    with pytest.raises(type(error)), RunFolder(tmp_path) as run:
        run.make("a.txt", {}, fail)
    assert files(tmp_path) == set()


def test_a_build_that_writes_nothing(tmp_path):
    with RunFolder(tmp_path) as run, pytest.raises(ArtifactError, match="No such file"):
        run.make("a.txt", {}, lambda path: None)


def test_an_unwritable_run_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ArtifactError) as caught, RunFolder(path):
            pass
        assert str(caught.value).startswith(f"{path}: the run folder cannot be written (")
        assert str(caught.value).endswith("; choose another with --run-dir")

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(run_folder.tempfile, "TemporaryFile", denied)
    with pytest.raises(ArtifactError, match="Permission denied"), RunFolder(tmp_path / "run"):
        pass


def test_a_folder_where_the_artefact_should_be(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with RunFolder(tmp_path) as run, pytest.raises(ArtifactError, match="directory"):
        run.make("a.txt", {}, Maker())
    assert files(tmp_path) == set()


LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from nmutant_cli.pipeline.run_folder import RunFolder
from nmutant_cli.errors import ArtifactError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder, how = Path(sys.argv[1]), sys.argv[2]
big = np.random.default_rng(0).random(200_000)

def build(path):
    if how == "numpy":
        with path.open("wb") as file:
            np.savez_compressed(file, a=big, b=big)
    elif how == "pandas":
        import pandas as pd
        pd.DataFrame({"a": big}).to_csv(path)
    else:
        path.write_text("x" * 1_000_000)

with RunFolder(folder) as run:
    run.make("early.txt", {}, lambda path: path.write_text("early") and None)
    run.make("late", {"x": 1}, lambda path: path.write_text("late") and None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        if how == "journal":
            journal = run.journal("late", {})
            try:
                for i in range(1000):
                    journal.add(str(i), "x" * 1000)
            finally:
                journal.close(done=False)
        else:
            run.make("late", {"x": 2}, build)
    except ArtifactError as error:
        print(error)
"""


@pytest.mark.parametrize("how", ["text", "numpy", "pandas", "journal"])
def test_a_full_disk(tmp_path, how):
    done = python(LIMITED, tmp_path, how)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    name = ".late.journal" if how == "journal" else "late"
    assert done.stdout == f"{tmp_path / name}: cannot be written (File too large)\n"
    left = {".late.journal"} if how == "journal" else set()
    assert files(tmp_path) == {"early.txt", "late", "manifest.json"} | left
    assert (tmp_path / "late").read_text() == "late"
    if how == "journal":  # what came before the disk was full is kept
        journal = Journal(tmp_path / name, digest_of({}))
        assert 50 < len(journal.pieces) < 100
        journal.close(done=True)
    maker = Maker()
    with RunFolder(tmp_path) as run:
        run.make("late", {"x": 1}, maker)
    assert maker.times == 0


def test_keras_on_a_full_disk(tmp_path, monkeypatch):
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with RunFolder(tmp_path) as run, pytest.raises(ArtifactError, match="No space left on device"):
        run.make("model.keras", {}, lambda path: model.save(path))
    assert files(tmp_path) == set()


# Leftovers, locks


def test_what_a_killed_process_left_is_removed(tmp_path):
    with RunFolder(tmp_path) as run:
        run.make("part/a.txt", {}, Maker())
    (tmp_path / "part" / ".a-123.tmp.txt").write_text("half")
    (tmp_path / ".manifest-123.tmp.json").write_text("half")
    (tmp_path / ".x-123.tmp").mkdir()
    (tmp_path / "mine.txt").write_text("mine")
    with RunFolder(tmp_path):
        pass
    assert files(tmp_path) == {"part/a.txt", "manifest.json", "mine.txt"}
    assert not (tmp_path / ".x-123.tmp").exists()


def test_the_journal_of_a_finished_artefact_is_removed(tmp_path):
    with RunFolder(tmp_path) as run:
        run.make("part/a.txt", {}, Maker())
        run.journal("part/a.txt", {}).close(done=False)
        assert ".part-a.txt.journal" in files(tmp_path)
        run.make("part/a.txt", {}, Maker())
    assert files(tmp_path) == {"part/a.txt", "manifest.json"}


def test_two_at_work_in_one_folder(tmp_path):
    told, said, order = threading.Event(), [], []

    def second():
        def say(line):
            said.append(line)
            told.set()

        with RunFolder(tmp_path, say=say) as run:
            order.append("second")
            run.make("a.txt", {}, maker)

    maker = Maker()
    with RunFolder(tmp_path) as run:
        thread = threading.Thread(target=second)
        thread.start()
        assert told.wait(60)
        run.make("a.txt", {}, maker)
        order.append("first")
    thread.join(60)
    assert said == [f"{tmp_path}: another nmutant is at work in this folder; waiting for it"]
    assert order == ["first", "second"]
    assert maker.times == 1  # the second reads what the first has made


# Journals


def test_a_journal_is_taken_up_again(tmp_path):
    journal = Journal(tmp_path / "j", "digest")
    journal.add("a/0", [1, 2])
    journal.add("a/1", {"x": 0.1})
    journal.close(done=False)
    again = Journal(tmp_path / "j", "digest")
    assert again.pieces == {"a/0": [1, 2], "a/1": {"x": 0.1}}
    again.add("a/2", "ü\u2028")
    again.close(done=False)
    third = Journal(tmp_path / "j", "digest")
    assert third.pieces["a/2"] == "ü\u2028"
    third.close(done=True)
    assert not (tmp_path / "j").exists()


def test_a_journal_of_other_ingredients_is_dropped(tmp_path):
    journal = Journal(tmp_path / "j", "digest")
    journal.add("a", 1)
    journal.close(done=False)
    other = Journal(tmp_path / "j", "other")
    assert other.pieces == {}
    other.close(done=False)
    again = Journal(tmp_path / "j", "digest")
    assert again.pieces == {}
    again.close(done=True)


def test_a_journal_cut_off_anywhere_keeps_its_whole_lines(tmp_path):
    path = tmp_path / "j"
    journal = Journal(path, "digest")
    ends = []
    for i in range(4):
        journal.add(str(i), [i, "ü"])
        ends.append(path.stat().st_size)
    journal.close(done=False)
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        cut = Journal(path, "digest")
        assert list(cut.pieces) == [str(i) for i in range(4) if ends[i] <= size]
        cut.add("new", 1)
        cut.close(done=False)
        again = Journal(path, "digest")
        assert list(again.pieces) == [*cut.pieces]
        again.close(done=False)


def test_a_damaged_journal_line_is_not_used(tmp_path):
    path = tmp_path / "j"
    journal = Journal(path, "digest")
    for i in range(3):
        journal.add(str(i), [100 + i])
    journal.close(done=False)
    whole = path.read_text()
    for bad in ("[101]", '"1"'):
        path.write_text(whole.replace(bad, bad.replace("1", "7", 1)))
        cut = Journal(path, "digest")
        assert cut.pieces == {"0": [100]}
        cut.close(done=False)
    for junk in ("3", "[1, 2]", '[["k"], 1, "x"]', '["k", NaN, "x"]', "[" * 100_000, "\udcff"):
        text = whole.splitlines(keepends=True)[0] + junk + "\n"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        cut = Journal(path, "digest")
        assert cut.pieces == {}
        cut.close(done=False)


def test_an_unwritable_journal(tmp_path):
    (tmp_path / "j").mkdir()
    with pytest.raises(ArtifactError, match="cannot be written"):
        Journal(tmp_path / "j", "digest")


def test_replacing_is_all_or_nothing(tmp_path):
    path = tmp_path / "a.npy"
    with replacing(path) as temporary:
        assert temporary.suffix == ".npy"
        np.save(temporary, np.arange(3))
        assert not path.exists()
    assert np.load(path).tolist() == [0, 1, 2]
    assert files(tmp_path) == {"a.npy"}
