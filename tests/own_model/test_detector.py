"""The detector as a library: against the literal loop, in threads, and its errors."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, fields

import numpy as np
import own
import pytest

from nmutant_cli import Calibration, Detector, calibrate
from nmutant_cli.config.mutation import Mutation
from nmutant_cli.detection.intervals import anytime
from nmutant_cli.detection.sprt import run
from nmutant_cli.errors import ConfigError, DataError, ModelError
from nmutant_cli.mutation.operator import apply
from nmutant_cli.mutation.sensitivity import streams

CALIBRATION = Calibration(step_size=8, p0=0.05, p1=0.2, cap=90, image_shape=own.SHAPE)


def equal(one, other, rows=slice(None)):
    return all((getattr(one, f.name)[rows] == getattr(other, f.name)).all() for f in fields(one))


@pytest.mark.parametrize("predict", [own.labels, own.scores])
def test_the_verdicts_are_those_of_the_literal_loop(predict):
    found = Detector(predict, CALIBRATION, seed=3).detect(own.IMAGES)
    assert len(found) == 12
    for i, stream in enumerate(streams(own.IMAGES, Mutation(), 3, "detector")):
        mutated = apply(own.IMAGES[[i] * 90], stream.take(0, 90), 8)
        labels = own.labels(mutated)
        expected = run(CALIBRATION.test, labels != found.label[i])
        got = (found.verdict[i], found.changes[i], found.mutations[i])
        assert got == (expected.verdict, expected.c, expected.mutations)
        votes = np.bincount(labels[: expected.mutations])
        assert votes[found.majority[i]] == votes.max()
    assert (found.label == own.labels(own.IMAGES)).all()
    assert (found.kappa == found.changes / found.mutations).all()
    low, high = anytime(found.changes, found.mutations, 0.95)
    assert (found.lower == low).all()
    assert (found.upper == high).all()
    assert set(found.adversarial) == {True, False}


def test_nothing_depends_on_order_company_or_batches():
    all_at_once = Detector(own.labels, CALIBRATION).detect(own.IMAGES)
    order = np.random.default_rng(0).permutation(12)
    assert equal(all_at_once, Detector(own.labels, CALIBRATION).detect(own.IMAGES[order]), order)
    for size in (1, 7):
        small = Detector(own.labels, CALIBRATION, batch_size=size)
        for i in (0, 5):
            assert equal(all_at_once, small.detect(own.IMAGES[i : i + 1]), slice(i, i + 1))


def test_more_images_than_are_looked_at_together(monkeypatch):
    whole = Detector(own.labels, CALIBRATION).detect(own.IMAGES)
    monkeypatch.setattr("nmutant_cli.own_model.detector.TOGETHER", 5)
    assert equal(whole, Detector(own.labels, CALIBRATION).detect(own.IMAGES))


def test_the_seed_chooses_the_mutations():
    found = [Detector(own.labels, CALIBRATION, seed=s).detect(own.IMAGES) for s in (0, 0, 1)]
    assert equal(found[0], found[1])
    assert not (found[0].changes == found[2].changes).all()
    unforeseen = [Detector(own.labels, CALIBRATION, seed=None) for _ in range(2)]
    drawn = [d.detect(own.IMAGES) for d in unforeseen]
    assert not (drawn[0].changes == drawn[1].changes).all()
    assert equal(drawn[0], unforeseen[0].detect(own.IMAGES))


@pytest.mark.parametrize("kind", ["function", "keras"])
def test_threads_share_a_detector(kind):
    predict = own.labels if kind == "function" else own.network()
    detector = Detector(predict, CALIBRATION, batch_size=64)
    before = dict(vars(detector))
    alone = detector.detect(own.IMAGES)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            rows = list(range(12)) * 3
            found = list(pool.map(lambda i: detector.detect(own.IMAGES[i : i + 1]), rows))
    finally:
        sys.setswitchinterval(switch)
    for i, one in zip(rows, found, strict=True):
        assert equal(alone, one, slice(i, i + 1))
    assert vars(detector) == before


def test_threads_that_meet_a_new_keras_detector_at_once():
    detector = Detector(own.network(), CALIBRATION, batch_size=64)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: detector.detect(own.IMAGES[i : i + 1]), range(12)))
    alone = Detector(own.labels, CALIBRATION, batch_size=64).detect(own.IMAGES)
    for i, one in enumerate(found):
        assert equal(alone, one, slice(i, i + 1))


def test_the_work_for_an_image_is_bounded():
    asked = []

    def spy(images):
        asked.append(len(images))
        return own.labels(images)

    endless = Calibration(step_size=8, p0=0.3, p1=0.3001, cap=90)
    found = Detector(spy, endless, batch_size=40).detect(own.IMAGES[:1])
    assert found.verdict[0] == 0
    assert found.mutations[0] == 90
    assert sum(asked) <= 1 + 90 + 40
    assert max(asked) <= 40


def test_no_images_no_verdicts():
    assert len(Detector(own.labels, CALIBRATION).detect(own.IMAGES[:0])) == 0


def test_the_result_is_frozen():
    found = Detector(own.labels, CALIBRATION).detect(own.IMAGES[:2])
    with pytest.raises(FrozenInstanceError):
        found.verdict = None


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (own.IMAGES8, "images: holds uint8; images are float"),
        (own.IMAGES[0], r"images: has the shape \(8, 8, 1\); images are \(n, height"),
        (own.IMAGES[:, :7], r"images\[0\]: is 7x8x1, not 8x8x1"),
        (np.where(np.arange(12).reshape(-1, 1, 1, 1) == 4, np.nan, own.IMAGES), r"\[4\]: has a"),
    ],
)
def test_images_of_no_use(images, said):
    with pytest.raises(DataError, match=said):
        Detector(own.labels, CALIBRATION).detect(images)


def test_a_model_of_no_use():
    with pytest.raises(ModelError, match=r"the model gave .* of shape \(1, (\d+)\) for \1 images"):
        Detector(lambda x: own.labels(x)[None], CALIBRATION).detect(own.IMAGES)


def test_a_calibration_from_a_file(tmp_path):
    CALIBRATION.save(tmp_path / "c.yaml")
    read = Detector(own.labels, tmp_path / "c.yaml").detect(own.IMAGES)
    assert equal(read, Detector(own.labels, CALIBRATION).detect(own.IMAGES))
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        Detector(own.labels, tmp_path / "absent.yaml")


def test_calibrating_a_function_and_a_keras_model_gives_the_same():
    rng = np.random.default_rng(0)
    clean = rng.random((120, *own.SHAPE), dtype=np.float32)
    options = {"target": 0.1, "step_sizes": (2.0, 6.0), "mutations": 40}
    told = []
    one = calibrate(own.labels, clean, own.IMAGES, progress=told.append, **options)
    other = calibrate(own.network(), clean, {"adversarial": own.IMAGES}, **options)
    assert one == other
    assert sum(told) == 2 * (120 + 12)
    assert one.image_shape == own.SHAPE
    assert one.promise.images == 60
    assert one.cap <= 40
    assert one.step_size in (2, 6)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"target": 0}, ConfigError, "target: 0 is not allowed"),
        ({"kappa": 2}, ConfigError, "kappa: 2 is not allowed"),
        ({"step_sizes": ()}, ConfigError, "step_sizes: .* is not allowed"),
        ({"step_sizes": (1, float("nan"))}, ConfigError, "step_sizes: .* is not allowed"),
        ({"target": 0.001}, DataError, "120 clean images are too few"),
        ({"adversarial": None}, DataError, "one step size and the kappa"),
        ({"adversarial": own.IMAGES[:, 1:]}, DataError, r"adversarial\[0\]: is 7x8x1, not 8x8x1"),
    ],
)
def test_calibrations_that_cannot_be(change, error, said):
    clean = np.zeros((120, *own.SHAPE), np.float32)

    def never(images):
        raise AssertionError("what cannot succeed is not measured")

    with pytest.raises(error, match=said):
        calibrate(never, clean, **{"adversarial": own.IMAGES, **change})
