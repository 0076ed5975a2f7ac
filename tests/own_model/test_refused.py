"""What the command line refuses of images the library refuses too, in the same words."""

from __future__ import annotations

import numpy as np
import own
import pytest

from nmutant_cli import Calibration, Detector, calibrate, kappa
from nmutant_cli.errors import DataError
from nmutant_cli.own_model.images import read

ANY_SHAPE = Calibration(step_size=8, p0=0.05, p1=0.2, cap=90)
COLOUR = np.random.default_rng(0).random((120, 16, 16, 3), dtype=np.float32)


def with_one(value):
    images = COLOUR.copy()
    images[4, 2, 3, 1] = value
    return images


def never(images):
    raise AssertionError("images that cannot be used are not asked about")


WAYS = {
    "detect": Detector(never, ANY_SHAPE).detect,
    "calibrate": lambda images: calibrate(never, images, COLOUR),
    "calibrate adversarial": lambda images: calibrate(never, COLOUR, images),
    "kappa": lambda images: kappa(never, images),
}
REFUSED = {
    "0 to 255": (COLOUR * 255, "[0]: has values from "),
    "normalised": ((COLOUR - 0.5) / 0.25, "[0]: has values from "),
    "just above": (with_one(1.01), "[4]: has values from "),
    "not a number": (with_one(np.nan), "[4]: has a value that is not a number"),
    "infinite": (with_one(-np.inf), "[4]: is infinite"),
    "channels first": (COLOUR.transpose(0, 3, 1, 2), "[0]: is 3x16x16; channels come last, as in"),
    "whole numbers": ((COLOUR * 255).astype(np.int64), ": holds int64; images are float (0 to 1)"),
    "one axis more": (COLOUR[None], ": has the shape (1, 120, 16, 16, 3); images are (n, height,"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", REFUSED)
def test_the_library_refuses_what_the_command_line_refuses(way, kind, tmp_path):
    images, said = REFUSED[kind]
    with pytest.raises(DataError) as error:
        WAYS[way](images)
    assert said in str(error.value)
    np.save(tmp_path / "a.npy", images)
    items = list(read(str(tmp_path / "a.npy")))
    (name, problem), *_ = [(i.name, i.problem) for i in items if i.image is None]
    for line in (f"{name.removeprefix(str(tmp_path / 'a.npy'))}: {problem}", str(error.value)):
        assert said in line


@pytest.mark.parametrize("way", WAYS)
def test_bytes_are_divided_by_the_user_who_knows_what_the_model_takes(way):
    with pytest.raises(DataError, match=r"holds uint8; .*divide by 255"):
        WAYS[way]((COLOUR * 255).astype(np.uint8))


def test_the_name_of_the_adversarial_set_is_said():
    with pytest.raises(DataError, match=r"^fgsm\[0\]: has values from"):
        calibrate(never, COLOUR, {"fgsm": COLOUR[:9] * 255})


def test_rounding_of_double_precision_is_no_reason():
    images = own.IMAGES.astype(np.float64)
    images[0, 0, 0, 0] = 1 + 1e-12
    assert len(Detector(own.labels, ANY_SHAPE).detect(images)) == 12
