from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from nmutant_cli.cli import main
from nmutant_cli.detection.sprt import SequentialTest
from nmutant_cli.report.figures.plan import plan_figure
from nmutant_cli.report.figures.style import to_png


def plan(*arguments):
    return CliRunner().invoke(main, ["plan", *arguments])


def rows(output):
    table = output.split("\n\n")[0].splitlines()
    return [line.split() for line in table]


def test_says_what_the_tests_of_a_config_do():
    result = plan("--config", "mnist")
    assert result.exit_code == 0, result.output
    header, *body = rows(result.output)
    assert header[:5] == ["rule", "mu", "p0", "p1", "P(adv|p0)"]
    assert [line[:2] for line in body] == [
        [rule, mu] for rule in ("published", "wald") for mu in ("1.2", "1.5", "1.8", "2")
    ]
    at_zero = [line[header.index("mean@0")] for line in body]
    # Half of Table 2's 132, 84, 66, 58: real mutations. The first wald test hits its cap.
    assert at_zero[:4] == ["66.00", "42.00", "33.00", "29.00"]
    assert at_zero[4:] == ["2000.00", "1728.00", "1080.00", "864.00"]


def test_shows_that_a_cap_leaves_everything_open():
    result = plan(
        *("--kappa1", "0.0441", "--set", "detection.sigma=0.00441", "--set", "detection.cap=500"),
        *("--set", "detection.rules=[wald]", "--set", "detection.mu=[1.0001]"),
    )
    header, row = rows(result.output)
    assert float(row[header.index("open|p0")]) == pytest.approx(99.8, abs=0.05)
    assert "cap of n = 500" in result.output


def test_kappa1_overrides_the_config():
    assert rows(plan("--config", "mnist", "--kappa1", "0.004").output)[1][2] == "0.004"


def test_a_measured_kappa1_is_asked_for():
    result = plan("--config", "digits")
    assert result.exit_code == 2
    assert "--kappa1 0.002" in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--kappa1", "0.6"], "must be below 1"),
        (["--kappa1", "0"], "not in the range"),
        (["--kappa1", "nan"], ""),
        (["--config", "mnits"], "did you mean 'mnist'"),
        (["--config", "mnist", "--set", "detection.cap=0"], "detection.cap"),
    ],
)
def test_mistakes_take_one_clear_line(arguments, said):
    result = plan(*arguments)
    assert result.exit_code == 2
    assert said in result.output


SMALL = ("--config", "mnist", "--set", "detection.mu=[2]", "--set", "detection.cap=200")


def test_draws_the_curves(tmp_path):
    folder = tmp_path / "deep" / "er"
    result = plan(*SMALL, "--output", str(folder))
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == str(folder / "plan.png")
    assert (folder / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_that_cannot_be_written_takes_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    result = plan(*SMALL, "--output", str(tmp_path / "file" / "below"))
    assert result.exit_code == 2
    assert "cannot be written" in result.output.splitlines()[-1]


def test_the_figure_shows_every_test():
    tests = {
        "wald": {mu: SequentialTest("wald", 0.1, 0.1 * mu, cap=60) for mu in (2.0, 3.0)},
        "published": {2.0: SequentialTest("published", 0.1, 0.2, cap=60)},
    }
    figure = plan_figure(tests, "a title")
    assert figure.get_suptitle() == "a title"
    panels = figure.axes
    assert len(panels) == 6
    assert [axes.get_title(loc="left") for axes in panels[:2]] == ["wald", "published"]
    curves_in = [len([line for line in axes.lines if len(line.get_xdata()) > 2]) for axes in panels]
    assert curves_in == [2, 1] * 3
    marks = [line for line in panels[0].lines if line.get_linestyle() == "None"]
    assert [list(line.get_xdata()) for line in marks] == [[0.1, 0.2], [0.1, 0.30000000000000004]]
    assert panels[0].get_xscale() == "linear"
    assert to_png(figure) == to_png(plan_figure(tests, "a title"))


def test_a_small_kappa1_has_a_logarithmic_axis():
    tests = {"wald": {2.0: SequentialTest("wald", 0.001, 0.005, cap=60)}}
    assert plan_figure(tests, "").axes[0].get_xscale() == "log"


def test_needs_no_tensorflow():
    code = (
        "import sys; from nmutant_cli.cli import main\n"
        "main(['plan', '--config', 'mnist'], standalone_mode=False)\n"
        "assert not {'tensorflow', 'keras', 'matplotlib', 'scipy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_has_the_options_of_the_other_commands():
    text = plan("--help").output
    for option in ("--config", "--set", "--kappa1", "--output"):
        assert option in text
    assert "--run-dir" not in text
