"""The labels around an image, and how they are drawn."""

import numpy as np
import pytest

from nmutant_cli.report.figures.neighbourhood import (
    Neighbourhood,
    labels_around,
    neighbourhood_figure,
    share_of_other_labels,
)
from nmutant_cli.report.figures.style import to_png


def test_the_map_is_a_square_of_the_right_size_around_the_image():
    image = np.full((4, 4, 1), 0.5, np.float32)
    asked = []

    def predict(images):
        asked.append(images)
        return np.linalg.norm((images - image).reshape(len(images), -1), axis=1) > 1

    around = labels_around(predict, image, 2.0, np.random.default_rng(0), points=41)
    assert around.shape == (41, 41)
    axis = np.linspace(-2, 2, 41)
    distance = np.hypot(*np.meshgrid(axis, axis))
    inside = np.abs(distance - 1) > 1e-5  # float32 decides on the circle itself
    assert (around == (distance > 1))[inside].all()
    assert np.concatenate(asked)[20 * 41 + 20] == pytest.approx(image)
    # A circle of half the radius has a quarter of the area.
    assert share_of_other_labels(around, 0) == pytest.approx(0.75, abs=0.03)


def test_one_generator_one_map():
    image = np.random.default_rng(1).random((3, 5, 3), dtype=np.float32)

    def predict(images):
        return (images.sum(axis=(1, 2, 3)) > image.sum()).astype(np.int64)

    maps = [labels_around(predict, image, 1, np.random.default_rng(7), points=9) for _ in range(2)]
    assert (maps[0] == maps[1]).all()
    assert set(np.unique(maps[0])) == {0, 1}


def row(title, label, mutated_label, around):
    image = np.zeros((8, 8, 1), np.float32)
    return Neighbourhood(title, image, label, image, mutated_label, np.array(around), 1.5)


def test_the_figure_names_labels_and_shares():
    rows = [row("normal", 3, 3, np.full((5, 5), 3)), row("C&W", 8, 3, np.full((5, 5), 3))]
    figure = neighbourhood_figure(rows, "MNIST")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        "normal: 3", "mutated: 3", "0% of the disc has another label",
        "C&W: 8", "mutated: 3", "100% of the disc has another label",
    ]  # fmt: skip
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["3"]
    assert to_png(figure, dpi=40)


def test_without_adversarial_samples():
    figure = neighbourhood_figure([], "digits")
    assert "no adversarial samples" in [text.get_text() for text in figure.texts]
