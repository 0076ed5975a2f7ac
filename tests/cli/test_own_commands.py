"""``nmutant calibrate`` and ``nmutant detect`` for a user's own model and images."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import own
import pytest
from conftest import ROOT, nmutant, options, python
from PIL import Image

from nmutant_cli.files import file_digest
from nmutant_cli.own_model.calibration import Calibration, ModelIdentity
from nmutant_cli.own_model.detector import Detector
from nmutant_cli.types import Verdict


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a Keras model, its images as PNGs, and a calibration by hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    own.network().save("net.keras")
    own.save_pngs(tmp_path / "in")
    Calibration(step_size=8, p0=0.05, p1=0.2, cap=90, image_shape=own.SHAPE).save("c.yaml")
    return tmp_path


def detect(*more, model="own:labels", images="in", calibration="c.yaml"):
    given = ["--model", model, "--images", images, "--calibration", calibration]
    return nmutant("detect", *given, *more)


def test_one_network_in_three_forms_gives_the_same_verdicts(here):
    forms = ["net.keras", "own:labels", "own:scores"]
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        pass
    else:
        own.save_onnx(here / "net.onnx")
        own.save_onnx(here / "last.onnx", channels_first=False, batch=4)
        forms += ["net.onnx", "last.onnx"]
    done = {form: detect("--format", "csv", "-q", model=form) for form in forms}
    assert {outcome.code for outcome in done.values()} == {0}
    assert {outcome.stderr for outcome in done.values()} == {""}
    assert len({outcome.stdout for outcome in done.values()}) == 1
    rows = list(csv.DictReader(io.StringIO(done["net.keras"].stdout)))
    found = Detector(own.labels, "c.yaml").detect(own.IMAGES)
    assert [row["image"] for row in rows] == [f"in/{i:02}.png" for i in range(12)]
    for i, row in enumerate(rows):
        assert row["verdict"] == Verdict(found.verdict[i]).name.lower()
        for name in ("mutations", "changes", "label", "majority"):
            assert int(row[name]) == getattr(found, name)[i]
        for name in ("kappa", "lower", "upper"):
            assert float(row[name]) == pytest.approx(getattr(found, name)[i], abs=1e-6)


def test_how_an_onnx_file_is_read_is_said(here):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    own.save_onnx(here / "net.onnx")
    said = detect(model="net.onnx").stderr
    assert said.startswith("net.onnx: takes (channels, height, width) = (1, 8, 8)\n")


def test_the_formats_say_the_same(here):
    table, lines = detect(), detect("--format", "jsonl")
    rows = [json.loads(line) for line in lines.stdout.splitlines()]
    header, *body = [line.split() for line in table.stdout.splitlines()]
    assert list(rows[0]) == header
    assert [line[:2] for line in body] == [[row["image"], row["verdict"]] for row in rows]
    assert [float(line[2]) for line in body] == [round(row["kappa"], 4) for row in rows]
    verdicts = [row["verdict"] for row in rows]
    told = ", ".join(f"{verdicts.count(v)} {v}" for v in ("adversarial", "normal", "undecided"))
    assert table.stderr == lines.stderr == f"{told}\n"


def test_the_exit_code_of_a_guard(here):
    found = Detector(own.labels, "c.yaml").detect(own.IMAGES).adversarial
    bad, good = f"in/{found.argmax():02}.png", f"in/{found.argmin():02}.png"
    assert detect(images=bad).code == 0
    assert detect("--fail-on-adversarial", images=bad).code == 3
    assert detect("--fail-on-adversarial", images=good).code == 0
    assert detect("--fail-on-adversarial").code == 3


def test_the_seed_chooses_the_mutations(here):
    outputs = [detect("--seed", str(seed)).stdout for seed in (0, 0, 7)]
    assert outputs[0] == outputs[1] == detect().stdout
    assert outputs[0] != outputs[2]


def test_what_cannot_be_used_is_named_and_the_others_are_looked_at(here):
    whole = detect("--format", "csv").stdout
    (here / "in" / "cut.png").write_bytes((here / "in" / "00.png").read_bytes()[:50])
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(here / "in" / "tall.png")
    np.save(here / "in" / "nan.npy", np.full((1, *own.SHAPE), np.nan))
    done = detect("--format", "csv")
    assert done.code == 0
    assert done.stdout == whole
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert re.fullmatch(r"in/cut\.png: .*; skipped", lines[0])
    assert lines[1:3] == [
        "in/nan.npy[0]: has a value that is not a number; skipped",
        "in/tall.png: is 9x8x1, not 8x8x1; skipped",
    ]


def test_a_list_on_standard_input(here):
    from click.testing import CliRunner

    from nmutant_cli.cli import main

    arguments = ["detect", "--model", "own:labels", "--images", "-", "--calibration", "c.yaml"]
    done = CliRunner().invoke(main, [*arguments, "-q"], input="in/03.png\nabsent.png\nin/01.png\n")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["in/03.png", "in/01.png"]
    assert done.stderr == "absent.png: cannot be read (No such file or directory); skipped\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": "absent"}, "absent: no such file or folder"),
        ({"images": "empty"}, "empty: there is no file in this folder"),
        ({"model": "absent.keras"}, "absent.keras: no such model file"),
        ({"model": "net.pt"}, "net.pt: not a model; give a .keras, .onnx or .pt2 file, or"),
        ({"model": "own:IMAGES"}, "own:IMAGES: is of type ndarray, not a function"),
        ({"model": "own:KERNEL.mean"}, "own:KERNEL.mean: failed on images of shape"),
        ({"model": "numpy:squeeze"}, "the model gave float32 of shape (42, 8, 8) for 42 images;"),
        ({"calibration": "absent.yaml"}, "absent.yaml: cannot be read"),
        ({"calibration": "bad.yaml"}, "bad.yaml: p1: must be above p0"),
        ({"model": "wide.keras"}, "c.yaml: image_shape: calibrated with (8, 8, 1), but wide.keras"),
    ],
)
def test_a_mistake_is_one_line(here, change, said):
    import keras

    (here / "empty").mkdir()
    (here / "bad.yaml").write_text("{step_size: 1, p0: 0.5, p1: 0.1, cap: 5}")
    if change.get("model") == "wide.keras":
        layers = [keras.Input((8, 9, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
        keras.Sequential(layers).save("wide.keras")
    assert said in detect(**change).error


def test_nothing_left_to_look_at(here):
    np.save(here / "nan.npy", np.full((2, *own.SHAPE), np.nan))
    done = detect(images="nan.npy")
    assert done.code == 2
    assert done.stderr.splitlines()[1:] == [
        "1 more like this is skipped (-v names each)",
        "Error: nan.npy: none of 2 inputs can be used",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "m.keras"], "--images is missing: --model, --images and --calibration go"),
        (["--images", "in", "--model", "m.keras"], "--calibration is missing"),
        (["--fail-on-adversarial"], "--model is missing"),
        ([], "your own images (--model, --images, --calibration) or the samples of an experiment"),
        (["-q", "--seed", "3"], "say what is to be judged"),
        (
            ["--format", "csv", "--config", "digits"],
            "--config is for the samples of an experiment, --format is for your own images; give",
        ),
        (
            ["--model", "m", "--set", "detection.cap=5"],
            "--set is for the samples of an experiment, --model is for your own images; give",
        ),
        (["--strict", "--force"], "--force is for the samples of an experiment, --strict is"),
    ],
)
def test_an_experiment_or_a_model_of_ones_own(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in nmutant("detect", *arguments).error
    assert list(tmp_path.iterdir()) == []


def test_an_error_before_the_model_is_opened_imports_nothing_heavy(tmp_path):
    code = (
        "import sys\nfrom nmutant_cli.cli import main\n"
        "try:\n    main(sys.argv[1:], prog_name='nmutant')\nexcept SystemExit:\n    pass\n"
        "print({'tensorflow', 'keras', 'scipy'} & set(sys.modules))"
    )
    given = ["--model", "m.keras", "--images", "in", "--calibration", "c.yaml"]
    done = python(code, "detect", *given, cwd=tmp_path)
    assert done.stdout == "set()\n"
    assert done.stderr.startswith("Error: c.yaml: cannot be read")


def test_a_calibration_of_another_model_is_refused(here):
    assert "calibrated for" not in detect().stderr
    made = Calibration.load("c.yaml").model_copy(
        update={"network": ModelIdentity(name="own:labels")}
    )
    made.save("c.yaml")
    assert "calibrated for" not in detect().stderr
    said = "c.yaml: calibrated for own:labels; nothing is promised of own:scores"
    refused = detect(model="own:scores")
    assert refused.error.startswith(said)
    assert refused.error.endswith("give --any-model")
    outcome = detect("--any-model", model="own:scores")
    assert outcome.code == 0
    assert outcome.stderr.startswith(said)
    assert outcome.stdout


@pytest.fixture
def clean(here):
    images = np.random.default_rng(0).random((120, *own.SHAPE), dtype=np.float32)
    np.save(here / "clean.npy", images)
    return here


CHEAP = ["--mutations", "40", "--target", "0.1", "--step-size", "2", "--step-size", "6"]


def test_calibrate_then_detect(clean):
    given = ["--images", "clean.npy", "--adversarial", "in", *CHEAP, "--out", "made.yaml"]
    done = nmutant("calibrate", "--model", "net.keras", *given)
    assert done.code == 0
    assert done.stderr.startswith("at most 11,044 labels are needed\nat ")
    assert done.stdout.startswith("different labels of the clean images: 2\n")
    assert done.stdout.endswith("\nmade.yaml\n")
    assert sorted(path.name for path in clean.iterdir() if "made" in path.name) == ["made.yaml"]
    made = Calibration.load("made.yaml")
    assert made.network == ModelIdentity(name="net.keras", sha256=file_digest(clean / "net.keras"))
    assert f"at most 10.00% false alarms with probability 95.00% ({made.promise.alarms}" in (
        done.stdout
    )
    held_out = made.evidence.false_alarms
    low, high = held_out.interval
    assert (
        f"held-out false alarms: {held_out.rate:.2%} ({held_out.count} of 30; "
        f"95% interval {low:.2%} to {high:.2%})"
    ) in done.stdout
    assert detect(model="net.keras", calibration="made.yaml").code == 0
    again = nmutant("calibrate", "--model", "net.keras", *given)
    assert again.stdout == done.stdout
    assert Calibration.load("made.yaml") == made


def test_calibrate_without_attacks(clean):
    given = ["--model", "own:labels", "--images", "clean.npy", "--mutations", "40"]
    given += ["--target", "0.1", "--out", "made.yaml"]
    wanted = "without adversarial images a calibration needs one step size and the kappa"
    assert wanted in nmutant("calibrate", *given).error
    done = nmutant("calibrate", *given, "--kappa", "0.5", "--step-size", "4")
    assert done.code == 0
    made = Calibration.load("made.yaml")
    assert (made.step_size, made.evidence.detected) == (4, {})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --model and --images, or --config"),
        (["--config", "digits", "--model", "m"], "--config stands instead of"),
        (["--model", "m", "--images", "i", "--set", "a.b=1"], "without --config only mutation.KEY"),
        (["--model", "m", "--images", "i", "--run-dir", "r"], "--run-dir goes with --config"),
        (
            ["--model", "m", "--images", "i", "--set", "mutation.max_rectangle=0"],
            "--set mutation.max_rectangle=0: mutation.max_rectangle: 0 is not allowed; it must be",
        ),
        (["--model", "own:labels", "--images", "in"], "12 clean images are too few to promise"),
        (["--model", "own:labels", "--images", "in", "--target", "nan"], "target: nan is not"),
        (["--config", "mnst"], "--config mnst: no such file"),
    ],
)
def test_calibrations_that_cannot_be(here, arguments, said):
    assert said in nmutant("calibrate", *arguments, "--out", "made.yaml").error
    assert not (here / "made.yaml").exists()


def test_calibrate_for_an_experiment(folder, tmp_path):
    changes = options(folder)
    out = tmp_path / "made.yaml"
    cheap = ["--mutations", "8", "--step-size", "10", "--out", str(out)]
    done = nmutant("calibrate", "--config", "digits", *changes, *cheap)
    assert done.code == 0, done.stderr
    made = Calibration.load(out)
    assert made.promise.images + made.evidence.false_alarms.images < 700 - 12
    assert made.network.name == "model.keras"
    assert "fgsm" in made.evidence.detected
    assert made.image_shape == (28, 28, 1)


def scaled_network():
    """The network for values of mean 127.5 and deviation 63.75: the test one, told so."""
    import keras

    undo = keras.layers.Rescaling(63.75 / 255, 127.5 / 255)
    return keras.Sequential([keras.Input(own.SHAPE), undo, own.network()])


RANGE = ["--scale", "255", "--mean", "127.5", "--std", "63.75"]


def test_a_model_of_another_range(clean):
    scaled_network().save("net.keras")
    expected = detect("--format", "csv").stdout
    done = detect("--format", "csv", *RANGE, model="net.keras")
    assert done.stdout == expected
    assert detect("--format", "csv", model="net.keras").stdout != expected
    given = ["--images", "clean.npy", "--adversarial", "in", *CHEAP, "--out"]
    plain = nmutant("calibrate", "--model", "own:labels", *given, "plain.yaml")
    made = nmutant("calibrate", "--model", "net.keras", *RANGE, *given, "made.yaml")
    assert made.stdout == plain.stdout.replace("plain", "made")
    said = "made.yaml: calibrated for net.keras with --scale 255 --mean 127.5 --std 63.75;"
    assert detect(model="net.keras", calibration="made.yaml").error.startswith(said)
    assert detect(*RANGE, model="net.keras", calibration="made.yaml").code == 0
    assert nmutant("calibrate", "--model", "net.keras", *given, "raw.yaml").code == 0
    said = "raw.yaml: calibrated for net.keras without --scale, --mean and --std; give the same"
    assert detect(*RANGE, model="net.keras", calibration="raw.yaml").error == said
    assert detect("--scale", "1", model="net.keras", calibration="raw.yaml").code == 0


def test_an_onnx_file_of_another_range(here):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    own.save_onnx(here / "net.onnx")
    twice = Detector(lambda images: own.labels(2 * images - np.float32(0.5)), "c.yaml")
    found = twice.detect(own.IMAGES)
    done = detect("--format", "csv", "-q", "--scale", "2", "--mean", "0.5", model="net.onnx")
    changes = [int(row["changes"]) for row in csv.DictReader(io.StringIO(done.stdout))]
    assert changes == found.changes.tolist()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mean", "0.1,x"], "--mean: '0.1,x' is not allowed; give a number, or one for each"),
        (["--std", "0"], "std: (0.0,) is not allowed; give a number above 0"),
        (["--scale", "1,2"], "scale: (1.0, 2.0) is not allowed; give a number above 0"),
        (["--mean", "1,2,3"], "mean: has 3 values, the images have 1 channels"),
    ],
)
def test_scalings_that_cannot_be(here, arguments, said):
    assert said in detect(*arguments, model="net.keras").error


def test_the_range_of_a_function_is_its_own(here):
    assert detect(*RANGE).error.startswith("own:labels: takes images in [0, 1];")
    given = ["--config", "digits", "--scale", "2", "--out", "made.yaml"]
    assert "--scale, --mean and --std go with --model" in nmutant("calibrate", *given).error
    assert "--model is missing" in nmutant("detect", "--scale", "2").error
