"""What the figures show: data, labels and panels, not pixels."""

import io

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread

from nmutant_cli.errors import ArtifactError
from nmutant_cli.report.figures import style
from nmutant_cli.report.figures.images import PanelRow, image_panel
from nmutant_cli.report.figures.sensitivity import kappa_histograms, ratio_figure
from nmutant_cli.report.figures.style import to_png

TITLES = {"normal": "normal", "fgsm": "FGSM", "cw": "C&W", "wl": "WL"}


def means(**kappas):
    """Mean kappas in percent at the steps 1, 5, 10."""
    rows = [
        (TITLES[slug], step, kappa)
        for slug, values in kappas.items()
        for step, kappa in zip((1.0, 5.0, 10.0), values, strict=True)
    ]
    return pd.DataFrame(rows, columns=["samples", "step_size", "kappa_percent"])


def lines(figure):
    """The lines of Figure 4 by name, without the one at 1."""
    found = {line.get_label(): line for line in figure.axes[0].lines}
    found.pop("no difference", None)
    return found


def kappas(**values):
    rows = [(slug, 1.0, kappa) for slug, many in values.items() for kappa in many]
    return pd.DataFrame(rows, columns=["samples", "step_size", "kappa"])


def panel_row(**changes):
    grey = np.full((6, 6, 1), 0.5)
    arguments = {
        "title": "FGSM",
        "original": grey,
        "adversarial": grey + 0.25,
        "mutation": grey - 2,
        "original_label": 3,
        "adversarial_label": 7,
        "mutation_label": 3,
    }
    return PanelRow(**(arguments | changes))


def test_figure_4_draws_the_ratios_of_the_paper():
    table = means(normal=(0.13, 3.00, 6.31), fgsm=(4.86, 14.82, 19.34), cw=(10.41, 20.60, 27.07))
    figure = ratio_figure(table, "MNIST")
    drawn = lines(figure)
    assert list(drawn) == ["FGSM", "C&W"]
    assert drawn["FGSM"].get_xdata().tolist() == [1, 5, 10]
    assert drawn["FGSM"].get_ydata() == pytest.approx([37.4, 4.94, 3.06], rel=0.01)
    assert drawn["C&W"].get_ydata() == pytest.approx([80.1, 6.87, 4.29], rel=0.01)
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "5", "10"]
    assert axes.get_title(loc="left").startswith("MNIST:")


def test_the_axis_of_figure_4_is_logarithmic_only_for_wide_ratios():
    wide = ratio_figure(means(normal=(0.1, 1, 1), fgsm=(4, 2, 1.5)), "MNIST").axes[0]
    assert (wide.get_yscale(), "log scale" in wide.get_ylabel()) == ("log", True)
    narrow = ratio_figure(means(normal=(20, 24, 28), fgsm=(62, 63, 64)), "CIFAR10").axes[0]
    assert (narrow.get_yscale(), narrow.get_ylim()[0]) == ("linear", 0)


@pytest.mark.parametrize("values", [(4, 2, 1.5), (0.001, 2, 90)])
def test_figure_4_cuts_nothing_off(values):
    axes = ratio_figure(means(normal=(0.1, 1, 1), fgsm=values), "MNIST").axes[0]
    low, high = axes.get_ylim()
    for line in axes.lines:
        assert all(low <= y <= high for y in line.get_ydata())


def test_a_step_where_no_normal_sample_changes_has_no_ratio_but_a_note():
    figure = ratio_figure(means(normal=(0, 2, 4), fgsm=(3, 6, 8)), "digits")
    ratios = lines(figure)["FGSM"].get_ydata()
    assert np.isnan(ratios[0])
    assert ratios[1:].tolist() == [3, 2]
    axes = figure.axes[0]
    assert "no ratio at step size 1:" in axes.get_xlabel()
    assert axes.get_xlim()[0] < 1  # the step is still on the axis


@pytest.mark.parametrize(
    "table",
    [
        means(normal=(0, 0, 0), fgsm=(3, 6, 8)),
        means(fgsm=(3, 6, 8)),
        means(normal=(np.nan,) * 3, fgsm=(3, 6, 8)),
        means(normal=(1, 2, 3)),
        means(normal=(1, 2, 3), fgsm=(np.nan,) * 3),
        means(),
    ],
    ids=["kappa_nor 0", "no normal", "empty normal", "only normal", "empty attack", "nothing"],
)
def test_figure_4_without_a_ratio_says_so(table):
    figure = ratio_figure(table, "digits")
    assert lines(figure) == {}
    assert [text.get_text() for text in figure.axes[0].texts] == ["no ratio to show"]
    assert to_png(figure, dpi=40)


def test_an_attack_without_effect_does_not_break_figure_4():
    figure = ratio_figure(means(normal=(0.1, 1, 1), fgsm=(0, 0, 0), cw=(5, 5, 5)), "digits")
    assert lines(figure)["FGSM"].get_ydata().tolist() == [0, 0, 0]
    assert to_png(figure, dpi=40)


def test_a_table_without_the_columns_of_table_1_is_refused():
    with pytest.raises(ArtifactError, match="no column kappa_percent"):
        ratio_figure(means().drop(columns="kappa_percent"), "digits")


def test_histograms_have_a_panel_for_each_set_with_samples():
    frame = kappas(normal=[0, 0, 0, 0.5], fgsm=[0.1, 0.9], wl=[1.0])
    figure = kappa_histograms(frame, TITLES, 1.0, "MNIST")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [
        "normal (grey): mean 12.50%, n = 4",
        "FGSM: mean 50.00%, n = 2",
        "WL: mean 100.00%, n = 1",
    ]
    assert all(axes.get_xlim() == (0, 1) for axes in figure.axes)
    narrow = kappa_histograms(frame.assign(kappa=frame["kappa"] * 0.62), TITLES, 1.0, "MNIST")
    assert narrow.axes[0].get_xlim() == (0, 0.62), "the axis ends where the data do"
    assert figure.get_suptitle() == "MNIST: sensitivity κ(x) at step size 1"


def test_histogram_bars_are_percent_of_the_samples_over_normal_ones():
    frame = kappas(normal=[0, 0, 0, 0.5], fgsm=[0.0, 1.0])
    panel = kappa_histograms(frame, TITLES, 1.0, "MNIST").axes[1]
    normal, bars, outline = (stairs.get_data().values for stairs in panel.patches)
    assert (normal[0], normal[12], normal.sum()) == (75, 25, 100)
    assert (bars[0], bars[-1], bars.sum()) == (50, 50, 100)
    assert outline.tolist() == bars.tolist()
    colours = [to_hex(stairs.get_facecolor()) for stairs in panel.patches[:2]]
    assert colours == [style.GREY.lower(), style.KNOWN["FGSM"].lower()]


@pytest.mark.parametrize("sets", [(), ("normal",), ("fgsm",), ("fgsm", "cw", "wl", "normal")])
def test_histograms_of_any_choice_of_sets(sets):
    figure = kappa_histograms(kappas(**{slug: [0.5] for slug in sets}), TITLES, 1.0, "digits")
    assert len(figure.axes) == max(1, len(sets))
    assert to_png(figure, dpi=40)


def test_histograms_leave_other_step_sizes_out():
    frame = kappas(fgsm=[0.5]).assign(step_size=5.0)
    panel = kappa_histograms(frame, TITLES, 1.0, "digits").axes[0]
    assert [text.get_text() for text in panel.texts] == ["no samples"]


def test_a_set_has_the_same_colour_in_every_figure():
    table = means(normal=(1, 1, 1), fgsm=(2, 2, 2), wl=(3, 3, 3))
    drawn = lines(ratio_figure(table, "digits"))
    panels = kappa_histograms(kappas(wl=[0.5], fgsm=[0.2]), TITLES, 1.0, "digits").axes
    for panel, name in zip(panels, ("FGSM", "WL"), strict=True):
        assert to_hex(panel.patches[-1].get_edgecolor()) == to_hex(drawn[name].get_color())


def test_colours_do_not_repeat_for_sets_beyond_the_paper():
    given = style.colours(["normal", *style.KNOWN, "BIM", "PGD", "mine"])
    assert len(set(given.values())) == 9
    assert given["FGSM"] == style.KNOWN["FGSM"]


def test_the_panel_shows_images_difference_and_labels():
    figure = image_panel([panel_row(), panel_row(title="JSMA", mutation_label=7)], "MNIST")
    shown = figure.axes[:4]
    assert [axes.get_title() for axes in shown] == [
        "original: 3",
        "adversarial: 7",
        "difference",
        "mutated: 3",
    ]
    assert shown[0].get_ylabel() == "FGSM"
    assert figure.axes[4].get_ylabel() == "JSMA"
    difference = shown[2].images[0]
    assert np.allclose(difference.get_array(), 0.25)
    assert difference.get_clim() == (-0.25, 0.25)
    assert shown[3].images[0].get_array().min() == 0  # clipped to be shown
    assert shown[1].title.get_color() == style.WRONG != shown[3].title.get_color()
    assert figure.axes[7].title.get_color() == style.WRONG


def test_the_difference_of_an_rgb_image_is_that_of_its_strongest_channel():
    original = np.full((4, 5, 3), 0.5)
    adversarial = original + np.array([0.1, -0.3, 0.2])
    row = panel_row(original=original, adversarial=adversarial, mutation=original)
    axes = image_panel([row], "CIFAR10").axes
    assert np.allclose(axes[2].images[0].get_array(), -0.3)
    assert axes[0].images[0].get_array().shape == (4, 5, 3)


def test_a_panel_without_rows_or_without_a_difference_is_drawn():
    assert "no adversarial samples" in [t.get_text() for t in image_panel([], "digits").texts]
    same = panel_row(adversarial=np.full((6, 6, 1), 0.5))
    assert to_png(image_panel([same], "digits"), dpi=40)


def test_png_bytes_depend_on_the_figure_alone():
    def draw():
        return to_png(ratio_figure(means(normal=(1, 2, 3), fgsm=(4, 5, 6)), "MNIST"), dpi=40)

    first = draw()
    with matplotlib.rc_context({"font.size": 20, "lines.markersize": 20, "xtick.labelsize": 20}):
        assert draw() == first
        assert matplotlib.rcParams["font.size"] == 20
    assert first.startswith(b"\x89PNG")
    assert b"Software" not in first
    assert imread(io.BytesIO(first)).shape[:2] == (168, 280)
