"""Faults in the middle of an experiment: stopped, killed, damaged, full, without success."""

import errno
import resource
import signal
import subprocess
import time

import pandas as pd
import pytest
from conftest import command, environment, nmutant, options

CSV = ("kappa.csv", "detections.csv", "table1.csv", "table2.csv", "roc.csv", "relabelling.csv")


def left_over(folder):
    return [path.name for path in folder.rglob(".*") if path.name != ".lock"]


def same_results(folder, finished):
    for name in CSV:
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
    assert left_over(folder) == []


# Stopped and killed


@pytest.mark.parametrize("piece", [0, 2, 17])
def test_stopped_between_pieces(finished, folder, monkeypatch, piece):
    from nmutant_cli.pipeline.run_folder import Journal

    for path in (*folder.glob("kappa/*.csv"), *folder.glob("detections/*.csv")):
        path.unlink()
    add, added = Journal.add, []

    def stop(self, key, value):
        if len(added) == piece:
            raise KeyboardInterrupt
        added.append(key)
        add(self, key, value)

    monkeypatch.setattr(Journal, "add", stop)
    outcome = nmutant("run", *options(folder))
    assert outcome.code == 130
    assert outcome.stderr.splitlines()[-1].startswith("Stopped. What was finished is kept")
    assert "Traceback" not in outcome.stderr
    done_before = sorted(path.name for path in folder.glob("kappa/*.csv"))

    again = []
    monkeypatch.setattr(Journal, "add", lambda s, k, v: (again.append(k), add(s, k, v)))
    assert nmutant("run", "-q", *options(folder)).code == 0
    assert len(added) + len(again) == 6 * 3 + 6  # no piece is done twice
    assert all((folder / "kappa" / name).exists() for name in done_before)
    same_results(folder, finished)


@pytest.mark.parametrize(
    "name",
    [pytest.param("model.keras", marks=pytest.mark.slow), "adversarial/cw.npz", "report.html"],
)
def test_stopped_while_writing(finished, folder, monkeypatch, name):
    from nmutant_cli.pipeline.run_folder import RunFolder

    (folder / name).unlink()
    make = RunFolder.make

    def stop(self, made, ingredients, build):
        def half(path):
            if made == name:
                path.write_bytes(b"half")
                raise KeyboardInterrupt
            return build(path)

        return make(self, made, ingredients, half)

    monkeypatch.setattr(RunFolder, "make", stop)
    assert nmutant("run", *options(folder)).code == 130
    monkeypatch.undo()
    assert not (folder / name).exists()
    assert left_over(folder) == []
    assert nmutant("run", "-q", *options(folder)).code == 0
    same_results(folder, finished)


def run_until(folder, file, sign):
    """Start the experiment as a process and send it ``sign`` as soon as ``file`` is there."""
    process = subprocess.Popen(
        command("run", *options(folder)),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, CI's for one, pass on that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not (folder / file).exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(sign)
        stdout, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    return process.returncode, stdout, stderr


def test_ctrl_c_and_a_kill_leave_what_was_finished(finished, tmp_path):
    folder = tmp_path / "run"
    code, stdout, stderr = run_until(folder, "samples/normal.npz", signal.SIGINT)
    assert (code, stdout) == (130, "")
    assert stderr == "\nStopped. What was finished is kept: the same command goes on.\n"
    assert left_over(folder) == []
    model = (folder / "model.keras").stat().st_mtime_ns

    code, _, _ = run_until(folder, "kappa/cw.csv", signal.SIGKILL)
    assert code == -signal.SIGKILL
    kappa = (folder / "kappa" / "normal.csv").stat().st_mtime_ns

    assert nmutant("run", "-q", *options(folder)).code == 0
    assert (folder / "model.keras").stat().st_mtime_ns == model
    assert (folder / "kappa" / "normal.csv").stat().st_mtime_ns == kappa
    same_results(folder, finished)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize(
    "file", [".lock", "samples/normal.npz", "adversarial/jsma.npz", "detections/fgsm.csv"]
)
def test_stopped_at_other_moments(finished, tmp_path, file, sign):
    folder = tmp_path / "run"
    code, _, stderr = run_until(folder, file, sign)
    assert code in (130, -signal.SIGKILL)
    assert "Traceback" not in stderr
    assert nmutant("run", "-q", *options(folder)).code == 0
    same_results(folder, finished)


# Damaged


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("model.keras", marks=pytest.mark.slow),
        "adversarial/jsma.npz",
        "kappa/wl.csv",
        "detections.csv",
        "report.html",
    ],
)
def test_a_damaged_artefact_is_made_again(finished, folder, name):
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    outcome = nmutant("run", *options(folder))
    assert outcome.code == 0
    assert f"{path}: is damaged (its sha256 is not the manifest's); making it again\n" in (
        outcome.stderr
    )
    same_results(folder, finished)


@pytest.mark.slow
def test_a_damaged_manifest_costs_time_only(finished, folder):
    (folder / "manifest.json").write_text('{"artefacts": ')
    outcome = nmutant("run", *options(folder))
    assert outcome.code == 0
    assert outcome.stderr.startswith(f"{folder / 'manifest.json'}: is damaged")
    same_results(folder, finished)


# Full and unwritable


@pytest.fixture
def small_files():
    """No file may grow beyond 100 kB: to the program a disk that is full."""
    # Python ignores SIGXFSZ, so that writing more is an OSError.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_while_a_network_is_saved(tmp_path, small_files):
    folder = tmp_path / "run"
    text = nmutant("train", "-q", *options(folder)).error
    # What is kept of the training after its first epoch is the first that is too large.
    kept = folder / ".model.keras.checkpoint.npz"
    assert text == f"{kept}: cannot be written (File too large)"
    assert not folder.exists()


@pytest.mark.parametrize("name", ["adversarial/fgsm.npz", "kappa/jsma.csv", "figures/panel.png"])
def test_a_disk_that_fills_later(finished, folder, monkeypatch, name):
    from nmutant_cli.pipeline import run_folder

    (folder / name).unlink()
    replace = run_folder.Path.replace

    def full(self, target):
        if str(target).endswith(name):
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(run_folder.Path, "replace", full)
    outcome = nmutant("run", "-q", *options(folder))
    assert outcome.error == f"{folder / name}: cannot be written (No space left on device)"
    assert not (folder / name).exists()
    assert not [found for found in left_over(folder) if "tmp" in found]
    monkeypatch.undo()
    assert nmutant("run", "-q", *options(folder)).code == 0
    same_results(folder, finished)


@pytest.mark.parametrize("name", ["train", "run"])
def test_an_unwritable_run_folder(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        text = nmutant(name, "--run-dir", path).error
        assert text.startswith(f"{path}: the run folder cannot be written (")
        assert text.endswith("; choose another with --run-dir")
    assert (tmp_path / "file").read_text() == "mine"


# Asked for what is not there


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("attack.attempts=100000", "attack.attempts: 100000 need more than the 700 test images"),
        ("samples.normal=701", "samples.normal: 701 asked for, there are 700 test images"),
        ("attack.sets.bb.holdout=700", "need more than the 700 test images"),
        ("model.dropout=[0.5]", "model.dropout: [0.5] has 1 rates, the network substitute takes 0"),
    ],
)
def test_too_much_asked_for(folder, change, expected):
    assert expected in nmutant("attack", "-q", *options(folder, change)).error


def test_a_measured_kappa1_of_zero_says_what_to_do(folder):
    changes = ("detection.kappa1=measured", "detection.step_size=1e-6")
    changes += ("sensitivity.step_sizes=[1e-6]",)
    text = nmutant("detect", "-q", *options(folder, *changes)).error
    assert text.startswith("detection.kappa1: measured as 0 on 12 normal samples")


# Without success

NO_SUCCESS = ("attack.count_already_wrong=false", "samples.wl=0")
WEAK = (
    "attack.sets.fgsm.eps=1e-9",
    "attack.sets.bb.eps=1e-9",
    "attack.sets.jsma.gamma=1e-9",
    "attack.sets.cw.max_iterations=1",
    "attack.sets.cw.learning_rate=1e-9",
)


def test_attacks_without_any_success_give_tables_of_none(folder):
    outcome = nmutant("run", "-q", *options(folder, *NO_SUCCESS, *WEAK))
    assert (outcome.code, outcome.stderr) == (0, "")
    first = pd.read_csv(folder / "table1.csv", keep_default_na=False)
    assert list(first[first["samples"] != "normal"]["n"]) == [0] * 15
    assert set(first[first["samples"] != "normal"]["kappa_percent"]) == {""}
    second = pd.read_csv(folder / "table2.csv", keep_default_na=False)
    assert set(second["adversary"]) == {0}
    assert len(second) == 6 * 2 * 4
    assert (folder / "report.html").stat().st_size > 10_000


def test_one_attack_without_success_among_others(folder):
    changes = ("attack.count_already_wrong=false", "attack.sets.fgsm.eps=1e-9", "samples.wl=0")
    assert nmutant("run", "-q", *options(folder, *changes)).code == 0
    first = pd.read_csv(folder / "table1.csv", keep_default_na=False).set_index("samples")
    assert set(first.loc["FGSM", "n"]) == set(first.loc["WL", "n"]) == {0}
    assert (first.loc["JSMA", "n"] > 0).all()


def test_no_attacks_at_all_and_no_normal_samples(tmp_path):
    config = tmp_path / "bare.yaml"
    config.write_text(
        "dataset: digits\nmodel: {network: substitute, epochs: 1}\n"
        "samples: {normal: 0, wl: 5}\nsensitivity: {mutations: 5}\n"
        "detection: {kappa1: 0.02, cap: 20}\nruntime: {batch_size: 50}\n"
    )
    outcome = nmutant("run", "-q", "--config", config, "--run-dir", tmp_path / "run")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert (tmp_path / "run" / "report.html").exists()
