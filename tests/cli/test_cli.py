"""The command line: what is imported, printed and returned."""

import io
import logging
import shlex
import sys

import pytest
from click import Context, Group
from click.shell_completion import ShellComplete
from conftest import ROOT, nmutant, options, python

from nmutant_cli.cli import main
from nmutant_cli.config.loading import load

IMPORTED = """
import sys
from nmutant_cli.cli import main
try:
    main(sys.argv[1:], prog_name="nmutant")
except SystemExit as stop:
    code = stop.code
print(code, *({"tensorflow", "keras", "numpy", "pandas", "matplotlib"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["detect", "--help"], 0),
        (["--version"], 0),
        (["run", "--set", "detection.alpha=0"], 2),
        (["run", "--config", "digts"], 2),
        (["schema"], 0),
        (["study", "--help"], 0),
        (["study", "sweep", "--help"], 0),
        (["study", "netwroks", "run"], 2),
        (["study", "networks", "nowhere"], 2),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_quick_answers_import_nothing_heavy(arguments, code, tmp_path):
    done = python(IMPORTED, *arguments, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == str(code), done.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_run_folder_imports_nothing_heavy(tmp_path):
    (tmp_path / "file").write_text("")
    done = python(IMPORTED, "run", "--run-dir", tmp_path / "file" / "run")
    assert done.stdout.split() == ["2"]
    assert done.stderr.startswith(f"Error: {tmp_path / 'file' / 'run'}: the run folder cannot")
    assert done.stderr.count("\n") == 1


def test_help_lists_every_command_and_says_what_is_made_first():
    text = nmutant("--help").stdout
    for name in (
        "train",
        "attack",
        "measure-kappa",
        "detect",
        "report",
        "run",
        "configs",
        "schema",
    ):
        assert f"\n  {name} " in text
        assert nmutant(name, "--help").code == 0
    assert "makes the earlier stages" in text
    for option in ("--config", "--set", "--run-dir", "--seed", "--force", "-q", "-v"):
        assert option in nmutant("detect", "-h").stdout


EXPERIMENT = ["train", "attack", "measure-kappa", "detect", "report", "compare", "evade", "run"]


@pytest.mark.parametrize("name", [*EXPERIMENT, "study", "estimate"])
def test_every_example_of_a_help_is_a_command_with_a_config_that_is_there(name):
    """Parsed, not run: most would train for long."""
    text = nmutant(name, "--help").stdout.partition("Examples:")[2]
    examples = [shlex.split(line) for line in text.splitlines() if "nmutant" in line]
    assert examples
    for _, *arguments in examples:
        assert arguments[0] == name
        command, rest = main.get_command(Context(main), name), arguments[1:]
        while isinstance(command, Group):
            command, rest = command.get_command(Context(command), rest[0]), rest[1:]
        given = command.make_context(name, rest).params
        load(given.get("config") or "digits", given.get("overrides") or ())


def test_configs_are_listed_with_a_line_each():
    lines = nmutant("configs").stdout.splitlines()
    names = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
    assert [line.split()[0] for line in lines] == names
    for line in lines:
        said = line.split(maxsplit=1)[1]
        assert said[-1] in ".?", f"not a whole sentence: {line}"
        assert len(line) <= 120


def test_the_shell_completes_configs_and_files():
    complete = ShellComplete(main, {}, "nmutant", "_NMUTANT_COMPLETE")
    for command in (["run"], ["study", "splits"]):
        found = complete.get_completions([*command, "--config"], "mnist-b")
        assert [(item.type, item.value) for item in found] == [
            ("file", "mnist-b"), ("plain", "mnist-best"),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tarin"], "No such command 'tarin'"),
        (["run", "--confg", "digits"], "No such option '--confg'"),
        (["run", "--seed", "-1"], "-1 is not in the range"),
        (["run", "extra"], "unexpected extra argument"),
    ],
)
def test_wrong_usage(arguments, expected):
    outcome = nmutant(*arguments)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert expected in outcome.stderr


def test_an_unknown_command_gets_a_hint():
    assert "Did you mean 'train'?" in nmutant("tarin").stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config", "mnst"], "--config mnst: no such file"),
        (["--set", "detection.alpha=0"], "--set detection.alpha=0: detection.alpha: 0 is"),
        (["--set", "detection.alhpa=0"], "did you mean 'alpha'?"),
        (["--set", "nonsense"], "--set nonsense: must look like section.key=value"),
    ],
)
@pytest.mark.parametrize("name", ["train", "attack", "measure-kappa", "detect", "report", "run"])
def test_a_config_error_is_one_line(name, arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert expected in nmutant(name, *arguments).error
    assert list(tmp_path.iterdir()) == []


def test_a_data_error_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("NMUTANT_DATA_DIR", str(tmp_path))
    outcome = nmutant("train", "--config", "mnist", "--run-dir", tmp_path / "run")
    assert outcome.error.startswith(f"{tmp_path / 'mnist.npz'}: no such file; put it there")


@pytest.mark.parametrize("made_before", [False, True])
def test_a_run_without_data_leaves_nothing_behind(made_before, tmp_path, monkeypatch):
    monkeypatch.setenv("NMUTANT_DATA_DIR", str(tmp_path / "data"))
    run = tmp_path / "runs" / "mnist"
    if made_before:
        run.mkdir(parents=True)
    assert "mnist.npz" in nmutant("run", "--config", "mnist", "--run-dir", run).error
    assert list(tmp_path.rglob("*")) == ([run.parent, run] if made_before else [])


def test_quiet_and_verbose_do_not_go_together(tmp_path):
    for command in (["train"], ["study", "networks", str(tmp_path)]):
        assert "-q and -v" in nmutant(*command, "-q", "-v").error


def test_the_run_folder_is_called_after_the_config(finished, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(finished)
    monkeypatch.chdir(tmp_path)
    for config in ("digits", "digits.yaml", str(ROOT / "configs" / "digits.yaml")):
        outcome = nmutant("train", "--config", config, *options("unused")[2:])
        assert outcome.code == 0
        assert outcome.stdout.endswith("runs/digits/model.keras\n")


def test_results_go_to_stdout_and_nothing_else(finished):
    done = nmutant("measure-kappa", *options(finished))
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].split() == [
        "dataset", "step_size", "samples", "n", "kappa_percent", "ci99_percent", "kappa_low",
        "kappa_high",
    ]  # fmt: skip
    assert lines[-1] == str(finished / "kappa.csv")
    for name, last in (
        ("train", "model.keras"),
        ("attack", "samples/wl.npz"),
        ("detect", "detections.csv"),
        ("report", "report.html"),
    ):
        outcome = nmutant(name, *options(finished))
        assert (outcome.code, outcome.stderr) == (0, "")
        assert outcome.stdout.splitlines()[-1].removeprefix("open ") == str(finished / last)


def test_verbose_says_what_is_made_and_quiet_says_nothing(folder):
    quiet = nmutant("train", "-q", *options(folder, "model.epochs=1"))
    assert (quiet.code, quiet.stderr) == (0, "")
    verbose = nmutant("train", "-v", *options(folder))
    assert verbose.stderr == "training base on digits\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("terminal", [False, True])
def test_a_bar_only_on_a_terminal(monkeypatch, tmp_path, quiet, terminal):
    from nmutant_cli.pipeline.experiment import Experiment
    from nmutant_cli.pipeline.run_folder import RunFolder

    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    experiment = Experiment(load("digits")[1], RunFolder(tmp_path), quiet=quiet)
    with experiment.bar(3, "work", "piece") as bar:
        bar.update(3)
    assert ("work" in stream.getvalue()) == (terminal and not quiet)


def test_a_line_does_not_tear_a_bar(monkeypatch):
    from tqdm import tqdm

    from nmutant_cli.cli.options import _AboveBars

    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with tqdm(total=3, desc="work"):
        _AboveBars().handle(logging.makeLogRecord({"msg": "%s again", "args": ("made",)}))
    assert "\rmade again\n" in stream.getvalue()
