"""A config as the difference to another one."""

from __future__ import annotations

import json

import pytest
import yaml
from conftest import nmutant
from hypothesis import given
from hypothesis import strategies as st
from test_config import FAST, SHIPPED, message

from nmutant_cli.config.loading import find, load, merged, read
from nmutant_cli.errors import ConfigError

BASE = {"dataset": "digits", "model": {"network": "mnist"}, "seed": 3}


@pytest.fixture
def files(tmp_path):
    """Writes ``name.yaml`` files and returns the path of the first."""

    def write(**documents):
        for name, document in documents.items():
            text = document if isinstance(document, str) else yaml.safe_dump(document)
            (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
        return tmp_path / f"{next(iter(documents))}.yaml"

    return write


def test_sections_are_merged_lists_replaced_and_null_leaves_out(files):
    path = files(
        own="""
            extends: middle.yaml
            model: {epochs: 9}
            attack: {sets: {a: null, b: {eps: 0.2}, c: {method: bim}}}
            detection: {mu: [1.5]}
        """,
        middle={"extends": "base.yaml", "model": {"epochs": 4, "batch_size": 7}},
        base=BASE
        | {
            "attack": {"attempts": 5, "sets": {"a": {"method": "jsma"}, "b": {"method": "fgsm"}}},
            "detection": {"mu": [1.2, 2], "alpha": 0.01},
        },
    )
    _, settings = load(str(path))
    assert (settings.seed, settings.dataset) == (3, "digits")
    model = settings.model
    assert (model.network, model.epochs, model.batch_size) == ("mnist", 9, 7)
    assert settings.attack.attempts == 5
    assert list(settings.attack.sets) == ["b", "c"]
    assert (settings.attack.sets["b"].method, settings.attack.sets["b"].eps) == ("fgsm", 0.2)
    assert (settings.detection.mu, settings.detection.alpha) == ((1.5,), 0.01)


def test_overrides_and_seed_come_after(files):
    path = files(own={"extends": "digits", "seed": 1, "detection": {"cap": 5}})
    _, settings = load(str(path), ["detection.cap=7", "attack.sets.bb=null"], 2)
    assert (settings.seed, settings.detection.cap) == (2, 7)
    assert "bb" not in settings.attack.sets


def test_a_file_beside_the_config_comes_before_a_name(files, tmp_path, monkeypatch):
    path = files(own={"extends": "digits.yaml"}, digits=BASE | {"seed": 77})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load(str(path))[1].seed == 77
    # The config that comes along, though the file has its name.
    assert load(str(files(digits={"extends": "digits", "seed": 5})))[1].model.epochs == 4


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"extends": "digts"}, "extends: digts: no such file"),
        ({"extends": "digts"}, "did you mean 'digits'?"),
        ({"extends": 3}, "extends: 3 is not allowed; it must be a text"),
        ({"extends": None}, "extends: None is not allowed; it must be a text"),
        ({"extends": ["digits"]}, "extends: ['digits'] is not allowed; it must be a text"),
        ({"extends": "own.yaml"}, "extends: own.yaml extends this config in turn"),
        ({"extends": "digits", "model": 3}, "model: 3 is not allowed; it must be a section"),
        ({"extends": "digits", "datset": "mnist"}, "datset: unknown key"),
    ],
)
def test_a_refusal_names_the_file_in_one_line(document, expected, files, tmp_path):
    path = files(own=document)
    text = message(path)
    assert text.startswith(f"{path}: ")
    assert expected in text
    outcome = nmutant("train", "--config", path, "--run-dir", tmp_path / "run")
    assert outcome.error == text
    assert not (tmp_path / "run").exists()


def test_a_longer_circle_is_found(files, tmp_path):
    path = files(
        a={"extends": "b.yaml"},
        b={"extends": "c.yaml"},
        c={"extends": "../" + tmp_path.name + "/a.yaml"},
    )
    assert message(path).startswith(f"{tmp_path / 'c.yaml'}: extends: ")


def test_a_wrong_setting_is_blamed_on_the_file_that_has_it(files, tmp_path):
    base = BASE | {"detection": {"alpha": 0}}
    path = files(own={"extends": "base.yaml", "detection": {"beta": 0.1}}, base=base)
    assert message(path).startswith(f"{tmp_path / 'base.yaml'}: detection.alpha: 0 is not")
    path = files(own={"extends": "base.yaml", "detection": {"alpha": 1}}, base=base)
    assert message(path).startswith(f"{path}: detection.alpha: 1 is not")
    assert message(path, "detection.alpha=2").startswith("--set detection.alpha=2: ")
    with pytest.raises(ConfigError, match=r"base\.yaml:1: not valid YAML"):
        load(str(files(own={"extends": "base.yaml"}, base="a: [")))


documents = st.recursive(
    st.none() | st.integers(-2, 2) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
sections = st.dictionaries(st.sampled_from("abc"), documents, max_size=3)


def settings_in(document):
    """Every value that is no section, with the way to it."""
    if not isinstance(document, dict) or not document:
        return {(): document}
    return {(k, *way): v for k, inner in document.items() for way, v in settings_in(inner).items()}


@given(sections, sections)
def test_merging_keeps_what_is_said_and_nothing_else(base, own):
    both = merged(base, own)
    assert merged(base, {}) == base
    assert merged({}, own) == own
    assert merged(both, own) == both
    said, before = settings_in(own), settings_in(base)
    for way, value in settings_in(both).items():
        assert value in (said.get(way, ...), before.get(way, ...)) or value == {}
    for way, value in said.items():
        if value != {}:
            assert settings_in(both)[way] == value


@st.composite
def parts(draw, document):
    """A document cut in two: a base, and what it lacks or has otherwise."""
    base, own = {}, {}
    for key, value in document.items():
        if isinstance(value, dict) and draw(st.booleans()):
            base[key], own[key] = draw(parts(value))
        elif draw(st.booleans()):
            base[key] = value
        else:
            own[key] = value
            if not isinstance(value, dict) and draw(st.booleans()):
                base[key] = draw(st.integers())
    return base, own


WHOLE = {name: json.loads(load(name)[1].model_dump_json(exclude_unset=True)) for name in SHIPPED}


@FAST
@given(data=st.data(), name=st.sampled_from(SHIPPED))
def test_however_a_config_is_cut_the_settings_are_the_same(data, name, tmp_path):
    base, own = data.draw(parts(WHOLE[name]))
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base, sort_keys=False))
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"extends": "base.yaml", **own}))
    assert load(str(tmp_path / "own.yaml"))[1] == load(name)[1]


def test_the_configs_that_come_along_extend_those_they_belong_to():
    bases = {name: read(find(name)).get("extends") for name in SHIPPED}
    assert {name.removesuffix(".yaml"): base for name, base in bases.items() if base} == {
        "cifar10-adaptive": "cifar10-resnet",
        "cifar10-adaptive-public": "cifar10-adaptive",
        "cifar10-compare": "cifar10",
        "mnist-adaptive": "mnist-compare",
        "mnist-best": "mnist",
        "mnist-compare": "mnist",
        "mnist-confidence": "mnist",
        "mnist-converged": "mnist-adaptive",
        "mnist-corrected": "mnist",
    }
    # The networks and samples of a run are used again only where nothing of theirs differs.
    ours, theirs = load("mnist-best")[1], load("mnist")[1]
    assert ours.model_dump(include={"model", "variants", "attack", "samples"}) == (
        theirs.model_dump(include={"model", "variants", "attack", "samples"})
    )
    for name, base in (("cifar10-adaptive", "cifar10-resnet"), ("mnist-adaptive", "mnist-compare")):
        assert load(name)[1].model == load(base)[1].model
