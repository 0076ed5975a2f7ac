"""Calibrations of no use are called so; a slow model is asked for no more than is needed."""

from __future__ import annotations

import logging
import re

import numpy as np
import own
import pytest

from nmutant_cli import Calibration, Detector, calibrate
from nmutant_cli.config.mutation import Mutation
from nmutant_cli.errors import ArtifactError, DataError, ModelError

CLEAN = np.linspace(0, 1, 120, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones(own.SHAPE, "f")
BOUNDARY = np.linspace(0.5005, 0.5015, 24, dtype="f").reshape(-1, 1, 1, 1) * np.ones(own.SHAPE, "f")
CHEAP = {"target": 0.1, "step_sizes": (2.0,), "mutations": 40}


@pytest.fixture(autouse=True)
def heard(monkeypatch, caplog):
    """A command that was run in this process has taken the logger for itself."""
    caplog.set_level(logging.WARNING, logger="nmutant")
    log = logging.getLogger("nmutant")
    monkeypatch.setattr(log, "propagate", True)
    monkeypatch.setattr(log, "handlers", [])


def is_bright(images):
    return (images.mean(axis=(1, 2, 3)) > 0.5).astype(int)


def texts(images):
    return np.array(["dark", "bright"])[is_bright(images)]


def constant(images):
    return np.zeros(len(images), int)


def random(images, rng=np.random.default_rng(0)):  # noqa: B008 - it goes on
    return rng.integers(3, size=len(images))


def never(images):
    raise AssertionError("all is in the journal")


def wants_bytes(images):
    return (images.mean(axis=(1, 2, 3)) > 127.5).astype(int)


@pytest.mark.parametrize(
    ("predict", "adversarial", "said"),
    [
        (constant, BOUNDARY, r"all 120 clean images get the same label"),
        (constant, BOUNDARY, r"only 0\.0% of the adversarial images are found"),
        (wants_bytes, BOUNDARY, r"get the same label; does the model take images in \[0, 1\]"),
        (random, BOUNDARY, r"asked twice, the model gives \d\d of 100 clean images another label"),
        (is_bright, CLEAN[:40], r"adversarial: 40 of its 40 images are among the clean ones"),
        (is_bright, CLEAN[:40] * np.float32(0.9), r"only .* of the adversarial images are found"),
    ],
)
def test_a_calibration_of_no_use_is_called_so(predict, adversarial, said, caplog):
    made = calibrate(predict, CLEAN, adversarial, **CHEAP)
    assert any(re.search(said, doubt) for doubt in made.evidence.doubts)
    loud = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert loud == [f"DOUBT: {doubt}" for doubt in made.evidence.doubts]
    with pytest.raises(DataError, match=r"a power of .* was found, 50\.0% is required;.*" + said):
        calibrate(predict, CLEAN, adversarial, require_power=0.5, **CHEAP)


def test_a_good_one_is_not(caplog):
    made = calibrate(is_bright, CLEAN, BOUNDARY, require_power=0.9, **CHEAP)
    assert (made.evidence.doubts, made.evidence.labels) == ((), 2)
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_the_number_of_labels_is_said_before_and_the_time_after_a_few(caplog):
    asked = []

    def counting(images):
        if not asked:
            assert len(caplog.records) == 1
        asked.append(len(images))
        return is_bright(images)

    calibrate(counting, CLEAN, BOUNDARY, **CHEAP)
    first, second, *_ = (record.getMessage() for record in caplog.records)
    most = 144 * 41 + 120 + 100
    assert first == f"at most {most:,} labels are needed"
    assert 0.75 * most < sum(asked) <= most
    assert re.fullmatch(r"at [\d,]+ labels a second that takes \d+ seconds", second)


@pytest.fixture
def waits(monkeypatch):
    waited = []
    monkeypatch.setattr("nmutant_cli.own_model.asking.time.sleep", waited.append)
    return waited


class Endpoint:
    """Counts what it is asked for, and fails in the calls numbered ``failing``."""

    def __init__(self, failing=()):
        self.failing, self.calls, self.labels = set(failing), 0, 0

    def __call__(self, images):
        self.calls += 1
        if self.calls in self.failing:
            raise ConnectionError("no route to host")
        self.labels += len(images)
        return texts(images)


def test_a_failed_call_is_tried_again_a_few_times(waits, caplog):
    whole = calibrate(texts, CLEAN, BOUNDARY, batch_size=50, **CHEAP)
    endpoint = Endpoint([4, 9, 10])
    assert calibrate(endpoint, CLEAN, BOUNDARY, batch_size=50, **CHEAP) == whole
    assert waits == [1, 1, 4]
    assert "no route to host; asked again in 4 s" in caplog.messages
    with pytest.raises(ConnectionError):
        calibrate(Endpoint(range(7, 11)), CLEAN, BOUNDARY, batch_size=50, **CHEAP)


def test_what_never_answered_fails_at_once(waits):
    with pytest.raises(ConnectionError):
        calibrate(Endpoint([1]), CLEAN, BOUNDARY, **CHEAP)
    assert waits == []


@pytest.mark.parametrize("batch_size", [50, 33])
@pytest.mark.parametrize("cut", [0, 3])
def test_a_journal_is_gone_on_from_with_any_batch_size(tmp_path, waits, cut, batch_size):
    journal = tmp_path / "made.yaml.journal"
    straight = Endpoint()
    whole = calibrate(straight, CLEAN, BOUNDARY, batch_size=50, **CHEAP)
    first = Endpoint(range(61, 99))
    with pytest.raises(ConnectionError):
        calibrate(first, CLEAN, BOUNDARY, batch_size=50, journal=journal, **CHEAP)
    lost = 0
    if cut:
        text = journal.read_bytes()
        journal.write_bytes(text[:-cut])  # killed while it wrote
        lost = len(text.splitlines()[-1].split())
    second = Endpoint()
    options = {"batch_size": batch_size, "journal": journal, **CHEAP}
    assert calibrate(second, CLEAN, BOUNDARY, **options) == whole
    assert first.labels > 2000
    assert first.labels - lost + second.labels == straight.labels
    third = Endpoint()
    assert calibrate(third, CLEAN, BOUNDARY, **options) == whole
    assert third.labels == 0


def test_a_journal_of_something_else_is_refused(tmp_path):
    journal = tmp_path / "j"
    calibrate(is_bright, CLEAN, BOUNDARY, journal=journal, **CHEAP)
    calibrate(is_bright, CLEAN, BOUNDARY, journal=journal, **{**CHEAP, "target": 0.2})
    for change in ({"seed": 1}, {"mutations": 41}, {"mutation": Mutation(clip=True)}):
        with pytest.raises(ArtifactError, match="j: holds labels that were asked for with another"):
            calibrate(is_bright, CLEAN, BOUNDARY, journal=journal, **{**CHEAP, **change})
    with pytest.raises(ArtifactError, match="with another model, other images"):
        calibrate(is_bright, CLEAN, BOUNDARY[:20], journal=journal, **CHEAP)


def test_a_keras_model_has_a_journal_too(tmp_path):
    options = {"journal": tmp_path / "j", **CHEAP}
    one = calibrate(own.network(), CLEAN, own.IMAGES, **options)
    assert calibrate(never, CLEAN, own.IMAGES, **options) == one


@pytest.mark.parametrize("kind", ["function", "keras", "keras, warped"])
def test_a_lone_image_asks_for_half_as_much_again_as_is_needed_at_most(kind, monkeypatch):
    asked = []

    def spy(images):
        asked.append(len(images))
        return own.labels(images)

    kinds = {"mutation": Mutation(kinds=("translation",))} if kind == "keras, warped" else {}
    calibration = Calibration(step_size=8, p0=0.05, p1=0.2, cap=200, **kinds)
    if kind == "keras, warped":
        detector = Detector(own.network(), calibration)
        model = type(detector._label._model)
        ask = model.predict_on_batch
        monkeypatch.setattr(
            model, "predict_on_batch", lambda self, x: asked.append(len(x[0])) or ask(self, x)
        )
    elif kind == "keras":  # rows that fill up a call count too
        model = own.network()
        detector = Detector(model, calibration)
        ask = model.predict_on_batch
        monkeypatch.setattr(model, "predict_on_batch", lambda x: asked.append(len(x)) or ask(x))
    else:
        detector = Detector(spy, calibration)
    needed = []
    for image in own.IMAGES:
        asked.clear()
        found = detector.detect(image[None])
        assert asked[0] <= 1 + calibration.test.shortest
        assert sum(asked) <= 1.5 * (1 + found.mutations[0])
        needed.append(int(found.mutations[0]))
    assert min(needed) < 16 < max(needed)


def test_labels_that_are_texts():
    calibration = Calibration(step_size=2, p0=0.05, p1=0.2, cap=90)
    images = np.concatenate([BOUNDARY[:1], CLEAN[[0, -1]]])
    numbers = Detector(is_bright, calibration).detect(images)
    found = Detector(texts, calibration).detect(images)
    assert found.label.tolist() == ["bright", "dark", "bright"]
    assert (found.verdict == numbers.verdict).all()
    assert found.majority.tolist() == np.array(["dark", "bright"])[numbers.majority].tolist()
    one = calibrate(texts, CLEAN, BOUNDARY, **CHEAP)
    assert one == calibrate(is_bright, CLEAN, BOUNDARY, **CHEAP)
    with pytest.raises(ModelError, match=r"shape \(1, (\d+)\) for \1 images"):
        Detector(lambda x: texts(x)[None], calibration).detect(images)


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (12, "give 87 more, or with 41 images a --target of 0.95 or above, or a lower --prob"),
        (70, "give 29 more, or with 70 images a --target of 0.096 or above, or a lower --prob"),
    ],
)
def test_too_few_images_say_what_is_missing_and_what_helps(n, said):
    with pytest.raises(DataError, match=said):
        calibrate(constant, CLEAN[:n], BOUNDARY)


def test_the_target_that_is_named_is_enough():
    made = calibrate(is_bright, CLEAN[:70], BOUNDARY, **{**CHEAP, "target": 0.096})
    assert made.promise.images + made.evidence.false_alarms.images < 70
