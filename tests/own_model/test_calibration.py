"""The calibration file: written, read back, and every mistake in it named."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.detection.sprt import SequentialTest
from nmutant_cli.errors import ArtifactError, ConfigError
from nmutant_cli.own_model.calibration import Calibration, Evidence, ModelIdentity, Promise
from nmutant_cli.own_model.guarantee import rate

WHOLE = Calibration(
    step_size=5,
    p0=0.1 / 3,
    p1=0.2,
    alpha=0.01,
    beta=0.1,
    cap=150,
    mutation=Mutation(kinds=("light", "blackout"), clip=True),
    image_shape=(28, 28, 1),
    network=ModelIdentity(name="net.keras", sha256="0" * 64),
    promise=Promise(false_alarm_rate=0.05, probability=0.95, images=100, alarms=1),
    evidence=Evidence(
        false_alarms=rate(1, 50),
        detected={"cw": rate(20, 25)},
        wanted_power=0.9,
        expected_power=0.8,
        mean_mutations=20.5,
        seed=0,
    ),
)


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "c.yaml"
    WHOLE.save(path)
    assert Calibration.load(path) == WHOLE
    text = path.read_text()
    assert text.startswith("# Written by `nmutant calibrate`")
    assert "promise: {false_alarm_rate: 0.05, probability: 0.95, images: 100, alarms: 1}" in text
    assert WHOLE.test == SequentialTest("wald", 0.1 / 3, 0.2, 0.01, 0.1, 150)
    assert list(tmp_path.iterdir()) == [path]


def test_four_lines_by_hand_are_enough(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("step_size: 1\np0: 1e-2\np1: 0.05\ncap: 500\n")
    found = Calibration.load(path)
    assert found == Calibration(step_size=1, p0=0.01, p1=0.05, cap=500)
    assert found.test == SequentialTest("wald", 0.01, 0.05, 0.05, 0.05, 500)
    with pytest.raises(ValidationError, match="frozen"):
        found.p0 = 0.02


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("p1: 0.2", "p1: 0.01", "p1: must be above p0 (0.0333333), it is 0.01"),
        ("p1: 0.2", "p1: 1", "p1: 1 is not allowed; it must be below 1"),
        ("cap: 150\n", "", "cap: is missing"),
        ("cap: 150", "cpa: 150", "cpa: unknown key"),
        ("rule: wald", "rule: wold", "rule: 'wold' is not allowed; it must be one of wald, algor"),
        ("alpha: 0.01", "alpha: 0.6", "alpha: 0.6 is not allowed; it must be below 0.5"),
        ("clip: true", "clip: 2.5", "mutation.clip: 2.5 is not allowed; it must be true or false"),
        ("images: 100", "images: -1", "promise.images: -1 is not allowed; it must be above 0"),
        ("step_size: 5.0", "step_size: .inf", "step_size: inf is not allowed"),
        ("seed: 0", "sede: 0", "evidence.sede: unknown key"),
        ("cap: 150", "cap: 150\nextra: 1", "extra: unknown key; known are rule, step_size"),
        ("cap: 150", "cap: [", "not valid YAML"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_field(tmp_path, old, new, said):
    path = tmp_path / "c.yaml"
    WHOLE.save(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as error:
        Calibration.load(path)
    assert said in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "- 1\n", "step_size: 1\nstep_size: 2\n"])
def test_files_that_hold_no_calibration(tmp_path, content):
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=f"^{path}"):
        Calibration.load(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cap: 150", "cap: 160"),
        ("false_alarm_rate: 0.05", "false_alarm_rate: 0.01"),
        ("name: net.keras", "name: other.keras"),
        ("count: 20", "count: 25"),
        ("digest: ", "digest: 0"),
        ("digest: ", "# digest: "),
    ],
)
def test_what_was_changed_promises_nothing(tmp_path, old, new):
    path = tmp_path / "c.yaml"
    WHOLE.save(path)
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=r"c\.yaml: digest: the file was changed after"):
        Calibration.load(path)
    path.write_text(f"{text}# a comment\n")
    assert Calibration.load(path) == WHOLE


def test_without_its_promise_a_file_is_one_by_hand(tmp_path):
    path = tmp_path / "c.yaml"
    WHOLE.model_copy(update={"promise": None, "evidence": None}).save(path)
    path.write_text(path.read_text().replace("cap: 150", "cap: 160"))
    assert Calibration.load(path).cap == 160


@pytest.mark.parametrize("version", ["2", "0", "new", "[1]", "null"])
def test_a_version_of_the_format_that_is_not_known(tmp_path, version):
    path = tmp_path / "c.yaml"
    WHOLE.save(path)
    text = path.read_text()
    assert "version: 1\n" in text
    path.write_text(text.replace("version: 1", f"version: {version}") + "new_key: 3\n")
    with pytest.raises(ConfigError, match=r"c\.yaml: version: .* is not known here, 1 is; use"):
        Calibration.load(path)


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot be written"):
        WHOLE.save(tmp_path / "file" / "c.yaml")
