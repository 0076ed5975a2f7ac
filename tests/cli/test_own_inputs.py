"""What is given to ``nmutant calibrate`` and ``detect``: paths, models, files, and failures."""

from __future__ import annotations

import csv
import io
import json
import shlex
import sys

import numpy as np
import own
import pytest
from click import Context
from conftest import ROOT, nmutant
from PIL import Image

from nmutant_cli.cli import main
from nmutant_cli.config.loading import load
from nmutant_cli.config.mutation import Mutation
from nmutant_cli.own_model.calibration import Calibration
from nmutant_cli.own_model.detector import Detector

CHEAP = ["--mutations", "40", "--target", "0.1", "--step-size", "6", "--out", "made.yaml"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with images, clean ones, and a calibration by hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    for module in ("mine", "worse", "named", "theirs"):
        sys.modules.pop(module, None)
    own.save_pngs(tmp_path / "in")
    np.save("clean.npy", np.random.default_rng(0).random((120, *own.SHAPE), dtype=np.float32))
    Calibration(step_size=8, p0=0.05, p1=0.2, cap=90, image_shape=own.SHAPE).save("c.yaml")
    return tmp_path


def detect(*more):
    return nmutant("detect", "--model", "own:labels", "--calibration", "c.yaml", *more)


def seen(*more):
    done = detect("--format", "csv", *more)
    assert done.code == 0, done.stderr
    return [row["image"] for row in csv.DictReader(io.StringIO(done.stdout))]


PNGS = [f"in/{i:02}.png" for i in range(12)]


@pytest.mark.parametrize(
    "given",
    [
        ["--images", PNGS[0], "--images", PNGS[3]],
        ["--images", PNGS[0], PNGS[3]],
        ["--images", PNGS[0], PNGS[3], "-q"],
        [f"--images={PNGS[0]}", PNGS[3]],
    ],
)
def test_no_path_that_was_given_is_left_out(here, given):
    assert seen(*given) == [PNGS[0], PNGS[3]]


def test_what_a_shell_makes_of_a_pattern(here):
    assert seen("--images", *PNGS, "--seed", "1") == PNGS
    (here / "classes" / "cat").mkdir(parents=True)
    (here / "in" / "03.png").rename(here / "classes" / "cat" / "03.png")
    assert seen("--images", "classes", "in/00.png") == ["classes/cat/03.png", "in/00.png"]


def test_a_path_that_belongs_to_no_option_is_an_error(here):
    done = detect("--images", "in", "-q", "in/00.png")
    assert done.code == 2
    assert "unexpected extra argument (in/00.png)" in done.stderr


def test_calibrate_takes_patterns_for_both(here):
    np.save("more.npy", np.load("clean.npy")[:60])
    np.save("clean.npy", np.load("clean.npy")[60:])
    images = ["--images", "clean.npy", "more.npy", "--adversarial", *PNGS]
    done = nmutant("calibrate", "--model", "own:labels", *images, *CHEAP)
    assert done.code == 0, done.stderr
    made = Calibration.load("made.yaml")
    assert made.promise.images == 60
    assert made.evidence.detected["adversarial"].images == 6


def test_strict_takes_nothing_but_normal_for_good(here):
    found = Detector(own.labels, "c.yaml").detect(own.IMAGES)
    adversarial, normal = (PNGS[int((found.verdict == v).argmax())] for v in (2, 1))
    (here / "text.png").write_text("nothing")
    for given, guard, strict in (
        ([normal], 0, 0),
        ([adversarial], 3, 3),
        ([normal, "text.png"], 0, 3),
    ):
        assert detect("--fail-on-adversarial", "--images", *given).code == guard
        assert detect("--strict", "--images", *given).code == strict
    Calibration(step_size=8, p0=0.3, p1=0.3001, cap=5).save("c.yaml")
    assert "1 undecided" in detect("--images", normal).stderr
    assert detect("--fail-on-adversarial", "--images", normal).code == 0
    assert detect("--strict", "--images", normal).code == 3


def test_what_is_skipped_for_the_same_reason_is_said_once(here):
    for i in range(40):
        Image.fromarray(np.zeros((9 + i, 8), np.uint8)).save(here / "in" / f"tall{i:02}.png")
    (here / "in" / "text.png").write_text("nothing")
    done = detect("--images", "in")
    assert done.stderr.splitlines()[:-1] == [
        "in/tall00.png: is 9x8x1, not 8x8x1; skipped",
        "in/text.png: is not an image; skipped",
        "39 more like these are skipped (-v names each)",
    ]
    assert done.stderr.endswith(" 41 skipped\n")
    assert detect("--images", "in", "-v").stderr.count("; skipped\n") == 41


@pytest.mark.parametrize("command", ["calibrate", "detect"])
def test_quiet_and_verbose_do_not_go_together(here, command):
    given = ["--model", "own:labels", "--images", "in", "-q", "-v"]
    last = ["--out", "made.yaml"] if command == "calibrate" else ["--calibration", "c.yaml"]
    assert nmutant(command, *given, *last).error == "-q and -v: give the one or the other"


def test_two_functions_of_one_name(here, monkeypatch):
    given = ["--images", "clean.npy", "--adversarial", "in", *CHEAP]
    for folder, extra in (("one", ""), ("two", "# another\n")):
        (here / folder).mkdir()
        (here / folder / "theirs.py").write_text(f"from own import labels\n{extra}")
        monkeypatch.delitem(sys.modules, "theirs", raising=False)
        monkeypatch.syspath_prepend(str(here / folder))
        if folder == "one":
            assert nmutant("calibrate", "--model", "theirs:labels", *given).code == 0
        ask = ["--model", "theirs:labels", "--images", "in", "--calibration", "made.yaml"]
        done = nmutant("detect", *ask)
        if folder == "one":
            assert done.code == 0, done.stderr
    assert done.error.startswith(
        "made.yaml: calibrated for another theirs:labels (its sha256 began with "
    )
    assert nmutant("detect", *ask, "--any-model").code == 0


def test_a_calibration_that_was_edited_is_refused(here):
    given = ["--images", "clean.npy", "--adversarial", "in", *CHEAP]
    assert nmutant("calibrate", "--model", "own:labels", *given).code == 0
    text = (here / "made.yaml").read_text()
    assert text.count("false_alarm_rate: 0.1,") == 1
    (here / "made.yaml").write_text(text.replace("_rate: 0.1,", "_rate: 0.01,"))
    done = nmutant(
        "detect", "--model", "own:labels", "--images", "in", "--calibration", "made.yaml"
    )
    assert done.error.startswith("made.yaml: digest: the file was changed after it was written")


CODE = """import numpy as np
def constant(images):
    return np.zeros(len(images), int)
def broken(images):
    return {}["no such key"]
"""


def test_a_calibration_of_no_use_is_loud_and_can_be_an_error(here):
    (here / "mine.py").write_text(CODE)
    given = ["--model", "mine:constant", "--images", "clean.npy", "--adversarial", "in", *CHEAP]
    done = nmutant("calibrate", *given, "-q")
    assert done.code == 0
    assert done.stdout.startswith("different labels of the clean images: 1\n")
    assert done.stderr.splitlines()[0].startswith("DOUBT: all 120 clean images get the same label")
    assert Calibration.load("made.yaml").evidence.doubts
    guard = ["--model", "mine:constant", "--images", "in", "--calibration", "made.yaml", "-q"]
    said = "made.yaml: DOUBT: all 120 clean images get the same label"
    assert nmutant("detect", *guard).stderr.startswith(said)
    (here / "made.yaml").unlink()
    done = nmutant("calibrate", *given, "-q", "--require-power", "0.5")
    assert done.code == 2
    assert "a power of 0.0% was found, 50.0% is required; all 120 clean images" in done.stderr
    assert not (here / "made.yaml").exists()
    assert done.stderr.startswith("made.yaml.journal: the labels so far; the same command goes on")


def test_an_error_in_the_users_code_has_its_place_and_v_shows_all_of_it(here):
    (here / "mine.py").write_text(CODE)
    given = ["--model", "mine:broken", "--images", "in", "--calibration", "c.yaml"]
    done = nmutant("detect", *given)
    assert done.error.endswith(f"(KeyError: 'no such key', {here / 'mine.py'}:5)")
    shown = nmutant("detect", *given, "-v").stderr
    assert "Traceback (most recent call last)" in shown
    assert 'return {}["no such key"]' in shown
    (here / "worse.py").write_text("import numpy\nimport no_such_module\n")
    given[1] = "worse:broken"
    assert f"{here / 'worse.py'}:2)" in nmutant("detect", *given).error


def test_where_the_result_cannot_be_written_nothing_is_asked(here):
    (here / "mine.py").write_text("def predict(images):\n    raise AssertionError('asked')\n")
    given = ["--model", "mine:predict", "--images", "clean.npy", "--adversarial", "in"]
    done = nmutant("calibrate", *given, *CHEAP[:-1], "c.yaml/made.yaml")
    assert done.error.startswith("c.yaml/made.yaml: cannot be written (")


def test_a_stopped_calibration_goes_on(here, monkeypatch):
    monkeypatch.setattr("nmutant_cli.own_model.asking.time.sleep", lambda seconds: None)
    (here / "mine.py").write_text(
        "import own\nasked, most = [], 900\ndef predict(images):\n"
        "    if sum(asked) > most:\n        raise ConnectionError('too many requests')\n"
        "    asked.append(len(images))\n    return own.labels(images)\n"
    )
    given = ["--model", "mine:predict", "--images", "clean.npy", "--adversarial", "in", *CHEAP]
    given[-1] = "new/folder/made.yaml"
    done = nmutant("calibrate", *given, "--batch-size", "100")
    assert done.code == 2
    assert "too many requests" in done.stderr.splitlines()[-1]
    assert "folder/made.yaml.journal: the labels so far; the same command goes on" in done.stderr
    mine = sys.modules["mine"]
    first, mine.most = sum(mine.asked), 10**9
    done = nmutant("calibrate", *given)
    assert done.code == 0, done.stderr
    assert f"; the journal has {first:,}\n" in done.stderr
    assert [path.name for path in (here / "new" / "folder").iterdir()] == ["made.yaml"]
    resumed = Calibration.load("new/folder/made.yaml")
    assert nmutant("calibrate", *given).code == 0
    assert Calibration.load("new/folder/made.yaml") == resumed
    assert sum(mine.asked) > 2 * first


def test_rectangles_for_large_images_without_a_config(here):
    given = ["--model", "own:labels", "--images", "clean.npy", "--adversarial", "in", *CHEAP]
    done = nmutant("calibrate", *given, "--set", "mutation.max_rectangle=6")
    assert done.code == 0, done.stderr
    assert Calibration.load("made.yaml").mutation == Mutation(max_rectangle=6)


def test_the_batch_size_of_both_commands(here):
    (here / "mine.py").write_text(
        "import own\nasked = []\ndef predict(images):\n"
        "    asked.append(len(images))\n    return own.labels(images)\n"
    )
    given = ["--model", "mine:predict", "--batch-size", "7", "--images"]
    done = nmutant("calibrate", *given, "clean.npy", "--adversarial", "in", *CHEAP)
    assert done.code == 0, done.stderr
    assert nmutant("detect", *given, "in", "--calibration", "c.yaml").code == 0
    assert max(sys.modules["mine"].asked) == 7


def test_texts_as_labels_are_shown(here):
    (here / "named.py").write_text(
        "import own, numpy\ndef predict(images):\n"
        "    return numpy.array(['ape', 'bee', 'cat'])[own.labels(images)]\n"
    )
    given = ["--images", "in", "--calibration", "c.yaml", "--format", "jsonl"]
    rows = [
        [json.loads(line) for line in nmutant("detect", "--model", m, *given).stdout.splitlines()]
        for m in ("named:predict", "own:labels")
    ]
    assert rows[0]
    for named, numbered in zip(*rows, strict=True):
        assert named["label"] == ["ape", "bee", "cat"][numbered["label"]]
        assert named["majority"] == ["ape", "bee", "cat"][numbered["majority"]]
        assert {**named, "label": 0, "majority": 0} == {**numbered, "label": 0, "majority": 0}


def test_calibrate_and_plan_speak_json(here):
    given = ["--model", "own:labels", "--images", "clean.npy", "--adversarial", "in", *CHEAP]
    said = json.loads(nmutant("calibrate", *given, "--json").stdout)
    assert Calibration.model_validate(said) == Calibration.load("made.yaml")
    rows = json.loads(nmutant("plan", "--config", "mnist", "--json").stdout)
    assert [(row["rule"], row["mu"]) for row in rows] == [
        (rule, mu) for rule in ("published", "wald") for mu in (1.2, 1.5, 1.8, 2)
    ]
    assert rows[0]["mean@0"] == 66
    assert 0 < rows[0]["p0"] < rows[0]["p1"] < 1


@pytest.mark.parametrize("name", ["calibrate", "detect", "plan"])
def test_the_examples_of_a_help_are_commands(name):
    """Parsed, with a config that is there; not run."""
    text = nmutant(name, "--help").stdout.partition("Examples:")[2]
    examples = [shlex.split(line) for line in text.splitlines() if line.strip()]
    assert len(examples) > 1
    for program, command, *arguments in examples:
        assert (program, command) == ("nmutant", name)
        given = main.get_command(Context(main), name).make_context(name, arguments).params
        load(given["config"] or "digits", given["overrides"])
