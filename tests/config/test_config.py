"""Settings: what is read, what is refused, and how the refusal reads."""

import json
import typing

import pydantic
import pytest
import yaml
from conftest import ROOT, nmutant
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nmutant_cli.config import attacks, loading
from nmutant_cli.config.fields import DatasetName
from nmutant_cli.config.networks import Model
from nmutant_cli.config.settings import Settings
from nmutant_cli.errors import ConfigError
from nmutant_cli.own_model.calibration import Calibration

SHIPPED = sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))
SMALL = {"dataset": "digits", "model": {"network": "mnist"}}


def message(name, *overrides):
    with pytest.raises(ConfigError) as caught:
        loading.load(str(name), overrides)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


@pytest.fixture
def written(tmp_path):
    """Writes a config file and returns its path."""

    def write(content):
        path = tmp_path / "own.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


# --set, what the message must say
REFUSED = [
    # unknown names
    ("datset=mnist", "datset: unknown key", "did you mean 'dataset'"),
    ("detection.alhpa=0.1", "detection.alhpa: unknown key", "did you mean 'alpha'"),
    ("attack.sets.fgsm.epz=1", "attack.sets.fgsm.epz: unknown key", "did you mean 'eps'"),
    ("attack.sets.bb.lamda=1", "attack.sets.bb.lamda: unknown key", "did you mean 'lambda'"),
    ("attack.sets.fgsm.method=fgms", "attack.sets.fgsm.method: 'fgms'", "did you mean 'fgsm'"),
    ("dataset=minst", "dataset: 'minst'", "one of digits, mnist, cifar10; did you mean 'mnist'"),
    ("model.network=substitude", "model.network: 'substitude'", "did you mean 'substitute'"),
    ("attack.sets.fgsm.model=bsae", "attack.sets.fgsm.model: unknown network", "mean 'base'"),
    ("detection.model=other", "detection.model: unknown network 'other'", "known are base"),
    (
        "detection.as_published.fgms={true_label: true}",
        "detection.as_published.fgms: no",
        "mean 'fgsm'",
    ),
    ("detection.as_published.fgsm={model: x}", "detection.as_published.fgsm.model:", "'x'"),
    ("detection.as_published.fgsm={}", "detection.as_published.fgsm: asks", "leave it out"),
    (
        "detection.as_published.fgsm={right_only: true}",
        "detection.as_published.fgsm.right_only:",
        "'normal'",
    ),
    ("mutation.kinds=[ligth]", "mutation.kinds.0: 'ligth'", "did you mean 'light'"),
    ("detection.rules=[walt]", "detection.rules.0: 'walt'", "did you mean 'wald'"),
    # out of range
    ("detection.alpha=0", "detection.alpha: 0 is", "must be above 0"),
    ("detection.beta=0.5", "detection.beta: 0.5 is", "must be below 0.5"),
    ("detection.mu=[1]", "detection.mu.0: 1 is", "must be above 1"),
    ("detection.mu=[2, 0.5]", "detection.mu.1: 0.5 is", "must be above 1"),
    ("detection.step_size=0", "detection.step_size: 0 is", "must be above 0"),
    ("sensitivity.step_sizes=[0]", "sensitivity.step_sizes.0: 0 is", "must be above 0"),
    ("detection.kappa1=1.5", "detection.kappa1: 1.5 is", "below 1 or 'measured'"),
    ("detection.kappa1=0", "detection.kappa1: 0 is", "above 0 or 'measured'"),
    ("detection={kappa1: 0.6, mu: [2]}", "detection: kappa1 0.6, mu 2: p1 =", "must be below 1"),
    ("detection={kappa1: 0.1, mu: [2], sigma: 0.2}", "sigma 0.2: p0 =", "must be above 0"),
    ("detection={kappa1: 0.5, mu: [1.5], sigma: 0.25}", "sigma 0.25: p1 = ", "must be below 1"),
    ("detection.cap=0", "detection.cap: 0 is", "must be above 0"),
    ("attack.attempts=-1", "attack.attempts: -1 is", "must be above 0"),
    ("attack.sets.jsma.theta=0", "attack.sets.jsma.theta: 0", "must not be 0"),
    ("attack.sets.jsma.gamma=1.5", "attack.sets.jsma.gamma: 1.5 is", "must be at most 1"),
    ("samples.normal=-1", "samples.normal: -1 is", "must be at least 0"),
    ("model.label_range=[0.9, 0.1]", "model.label_range: [0.9, 0.1]", "two rising numbers"),
    ("model.dropout=[1]", "model.dropout.0: 1 is", "must be below 1"),
    ("detection.step_size=3", "detection.step_size: kappa1 is measured", "(1, 5, 10)"),
    ("samples.normal=1", "samples.normal: kappa1 is measured", "at least 2"),
    # not a number, or no finite one
    ("attack.sets.fgsm.eps=.nan", "attack.sets.fgsm.eps: nan is", "a finite number"),
    ("attack.sets.fgsm.eps=.inf", "attack.sets.fgsm.eps: inf is", "a finite number"),
    ("detection.mu=[.inf]", "detection.mu.0: inf is", "a finite number"),
    ("detection.kappa1=.nan", "detection.kappa1: nan is", "a finite number or 'measured'"),
    ("sensitivity.step_sizes=[.inf]", "sensitivity.step_sizes.0: inf is", "a finite number"),
    ("mutation.amplitude=true", "mutation.amplitude: True is", "must be a number"),
    ("detection.kappa1=true", "detection.kappa1: True is", "a number or 'measured'"),
    ("detection.kappa1=mesured", "detection.kappa1: 'mesured'", "did you mean 'measured'"),
    ("detection.kappa1={a: 1}", "detection.kappa1: {'a': 1} is", "a number or 'measured'"),
    ("sensitivity.mutations=true", "sensitivity.mutations: True is", "must be a whole number"),
    ("sensitivity.mutations=1.5", "sensitivity.mutations: 1.5 is", "must be a whole number"),
    ("seed=", "seed: None is", "must be a whole number"),
    ("seed=-1", "seed: -1 is", "must be at least 0"),
    ("mutation.clip=3", "mutation.clip: 3 is", "must be true or false"),
    # of the wrong form
    ("detection.mu=1.2", "detection.mu: 1.2 is", "must be a list"),
    ("detection.mu=[]", "detection.mu: [] is", "a list of 1 or more"),
    ("mutation.kinds=[light, light]", "mutation.kinds: ['light', 'light']", "a kind twice"),
    ("model=3", "model: 3 is", "must be a section"),
    ("attack.sets=3", "attack.sets: 3 is", "must be a section"),
    ("attack.sets.fgsm=3", "attack.sets.fgsm: 3 is", "must be a section"),
    ("attack.sets.fgsm={eps: 1}", "attack.sets.fgsm.method: is missing", "one of fgsm, bim"),
    ("attack.sets.wl.method=fgsm", "attack.sets: the name 'wl'", "reserved"),
    ("variants.v.epochs=-1", "variants.v.epochs: -1 is", "must be above 0"),
    ("variants.v.epoch=1", "variants.v.epoch: unknown key", "did you mean 'epochs'"),
    ("variants.v.network=minst", "variants.v.network: 'minst'", "did you mean 'mnist'"),
    ("variants.V.epochs=1", "variants.V: 'V' is", "small letters"),
    ("variants.base.epochs=1", "variants: the name 'base'", "the model section"),
    # malformed themselves
    ("detection.alpha", "", "must look like section.key=value"),
    ("=1", "", "must look like section.key=value"),
    ("detection..alpha=1", "", "must look like section.key=value"),
    ("dataset.x=1", "", "dataset is a value, not a section"),
    ("detection.mu=[1", "", "not valid YAML"),
]


@pytest.mark.parametrize(("override", "field", "allowed"), REFUSED, ids=[r[0] for r in REFUSED])
def test_a_refused_override_names_field_value_and_what_is_allowed(override, field, allowed):
    text = message("digits", override)
    assert text.startswith(f"--set {override}: {field}") or (field in text and "sigma" in field)
    assert allowed in text


def test_the_same_in_a_file_names_the_file(written):
    path = written(SMALL | {"detection": {"alpha": 0}})
    assert message(path) == f"{path}: detection.alpha: 0 is not allowed; it must be above 0"


def test_the_file_is_named_where_the_overrides_are_innocent(written):
    path = written(SMALL | {"detection": {"alpha": 0}})
    assert message(path, "detection.beta=0.1", "seed=3").startswith(f"{path}: detection.alpha: 0")


def test_a_misspelt_key_is_named_and_not_the_one_it_leaves_out(written, tmp_path):
    path = written({"datset": "digits", "model": {"network": "mnist"}})
    assert message(path).startswith(f"{path}: datset: unknown key")
    assert message(path).endswith("did you mean 'dataset'? (and 1 more)")
    (tmp_path / "mine.yaml").write_text("step_size: 1\np0: 0.01\np1: 0.05\ncpa: 75\n")
    with pytest.raises(ConfigError, match=r"cpa: unknown key.*did you mean 'cap'"):
        Calibration.load(tmp_path / "mine.yaml")


def test_several_errors_are_counted(written):
    path = written(SMALL | {"detection": {"alpha": 0, "beta": 0}, "samples": {"wl": -1}})
    assert message(path).endswith("(and 2 more)")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("dataset: digits\nmodel: [", ":2: not valid YAML"),
        ("dataset: digits\n\tmodel: 3", ":2: not valid YAML"),
        ("dataset: !!python/object/apply:os.getcwd []", ":1: not valid YAML: could not determine"),
        ("dataset: digits\nseed: 1\nseed: 2", ":3: not valid YAML: the key 'seed' stands twice"),
        ("model:\n  epochs: 1\n  epochs: 1", ":3: not valid YAML: the key 'epochs' stands twice"),
        ("dataset: 2020-13-01", ": not valid YAML: month"),
        ("dataset: !!int word", ": not valid YAML"),
        ("dataset: " + "[" * 3000, ": not valid YAML"),
        ("dataset: \0", ": not valid YAML"),
        ("", ": must hold settings (key: value), it holds nothing"),
        ("# only a comment", ": must hold settings (key: value), it holds nothing"),
        ("- digits", ": must hold settings (key: value), it holds ['digits']"),
        ("digits", ": must hold settings (key: value), it holds 'digits'"),
        ("1: 2\ndataset: digits\nmodel: {network: mnist}", ": 1: unknown key"),
        ("dataset: digits", ": model: is missing"),
        ("dataset: &a [*a]\nmodel: {network: mnist}", ": dataset: [[...]] is not allowed"),
        ("dataset: 0x" + "f" * 9000 + "\nmodel: {network: mnist}", ": dataset: int is not allowed"),
        ('dataset: "\\e[1m\\u2028"\nmodel: {network: mnist}', ": dataset: '\\x1b[1m\\u2028' is"),
    ],
    ids=lambda value: value[:30],
)
def test_a_file_that_holds_no_settings(written, content, expected):
    path = written(content)
    assert message(path).startswith(f"{path}{expected}")


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_bytes(b"dataset: \xff\xfe")
    assert message(path).startswith(f"{path}: not valid YAML")


def test_merged_sections_are_no_duplicates(written):
    path = written(
        "dataset: digits\nmodel: &m {network: mnist, epochs: 1}\n"
        "variants: {a: &a {<<: *m, epochs: 2}, b: {<<: *a, epochs: 3}}\n"
    )
    loaded = loading.load(str(path))[1]
    assert loaded.model_settings("a").epochs == 2
    assert loaded.model_settings("b").epochs == 3


def test_an_override_of_one_alias_leaves_the_other(written):
    path = written(
        "dataset: digits\nmodel: {network: mnist}\nvariants: {a: &a {epochs: 1}, b: *a}\n"
    )
    loaded = loading.load(str(path), ["variants.a.epochs=7"])[1]
    assert (loaded.model_settings("a").epochs, loaded.model_settings("b").epochs) == (7, 1)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("digts", "; did you mean 'digits'?"),
        ("configs/mnst.yaml", "; did you mean 'mnist'?"),
        ("cifar", "; did you mean 'cifar10'?"),
        ("zzz.yaml", "mnist-corrected"),
        ("x" * 5000, "mnist-corrected"),
        ("nul\0byte", "mnist-corrected"),
    ],
    ids=lambda value: value[:20],
)
def test_an_unknown_config(name, hint):
    text = message(name)
    assert text.startswith("--config ")
    assert "no such file" in text
    assert hint in text


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_is_found_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, loaded = loading.load(name)
    assert loading.load(name.removesuffix(".yaml")) == (path, loaded)
    assert loading.load(str(ROOT / "configs" / name))[1] == loaded
    assert path.is_absolute()


def test_a_file_in_the_working_directory_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.yaml").write_text(yaml.safe_dump(SMALL | {"seed": 99}))
    assert loading.load("digits.yaml")[1].seed == 99
    assert loading.load("digits")[1].seed != 99


def test_seed_and_overrides_are_applied():
    loaded = loading.load("digits", ["attack.sets.new.method=bim", "detection.alpha=1e-3"], 7)
    assert loaded[1].seed == 7
    assert loaded[1].attack.sets["new"].method == "bim"
    assert loaded[1].detection.alpha == 1e-3


def test_a_set_or_variant_that_is_null_is_left_out():
    _, found = loading.load(
        "mnist", ["attack.sets.bb=null", "detection.as_published.cw=null", "variants.longer=null"]
    )
    assert set(found.attack.sets) == {"fgsm", "cw", "jsma"}
    assert set(found.variants) == {"smoothed"}
    assert set(found.detection.as_published) == {"normal", "jsma"}
    assert "longer" in message("mnist", "variants.longer=null")  # bb still asks for it


def test_settings_are_frozen():
    loaded = loading.load("mnist")[1]
    for section in (loaded, loaded.model, loaded.attack.sets["fgsm"], loaded.detection):
        for field in type(section).model_fields:
            with pytest.raises(pydantic.ValidationError, match="frozen"):
                setattr(section, field, None)


@pytest.mark.parametrize("name", SHIPPED)
def test_settings_survive_being_written_and_read(name, tmp_path):
    loaded = loading.load(name)[1]
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(loaded.model_dump(mode="json")))
    assert loading.load(str(path))[1] == loaded


def test_the_names_are_those_of_the_code():
    from nmutant_cli.datasets import DATASETS

    assert set(DATASETS) == set(typing.get_args(DatasetName))
    assert {m: typing.get_args(p.model_fields["method"].annotation) for m, p in METHODS} == {
        m: (m,) for m, _ in METHODS
    }
    assert len({params.printed for params in attacks.METHODS.values()}) == len(METHODS)


METHODS = list(attacks.METHODS.items())


def test_the_schema_describes_the_settings():
    outcome = nmutant("schema")
    assert (outcome.code, outcome.stderr) == (0, "")
    schema = json.loads(outcome.stdout)
    assert set(schema["properties"]) == {"extends", *Settings.model_fields}
    assert schema["additionalProperties"] is False
    assert schema["then"] == {"required": ["dataset", "model"]}
    assert schema["if"] == {"not": {"required": ["extends"]}}
    black_box = schema["$defs"]["BlackBoxParams"]["properties"]
    assert "lambda" in black_box
    assert "lambda_" not in black_box
    kappa1 = schema["$defs"]["Detection"]["properties"]["kappa1"]["anyOf"]
    assert {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1} in kappa1


# Random documents

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([-1, 0, 1, 2, 0.5, "measured", "mnist", "fgsm", "base", "light", "1e-3"])
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 3), inner, max_size=3)
    ),
    max_leaves=4,
)


def _section(section):
    """Documents with some of a section's keys, their values junk or sections."""
    fields = {}
    for name, field in section.model_fields.items():
        inner = field.annotation
        nested = isinstance(inner, type) and issubclass(inner, attacks.Section)
        fields[field.alias or name] = JUNK | _section(inner) if nested else JUNK
    return st.fixed_dictionaries({}, optional=fields)


ATTACKS = st.one_of([_section(p).map(lambda d, m=m: {"method": m} | d) for m, p in METHODS])


@st.composite
def documents(draw):
    document = SMALL | draw(_section(Settings))
    if draw(st.booleans()):
        document["attack"] = {"sets": {"a": draw(ATTACKS)}}
    if draw(st.booleans()):
        document["variants"] = {"v": draw(_section(Model))}
    if draw(st.booleans()):
        document = SMALL | {k: v for k, v in document.items() if isinstance(v, dict)}
    return document


FAST = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FAST
@example(document={"detection": {"as_published": [True]}, "attack": {"sets": {"a": {}}}})
@given(document=documents())
def test_any_document_gives_settings_or_a_line(document, tmp_path):
    path = tmp_path / "random.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    try:
        loaded = loading.load(str(path))[1]
    except ConfigError as error:
        text = str(error)
    else:
        assert isinstance(loaded, Settings)
        return
    assert text.startswith(str(path))
    assert text.isprintable()


@FAST
@given(text=st.text(max_size=60))
def test_any_text_gives_settings_or_a_line(text, tmp_path):
    path = tmp_path / "random.yaml"
    path.write_text(text, encoding="utf-8")
    assert message(path).startswith(str(path))


@FAST
@given(override=st.text(max_size=30) | st.from_regex(r"[a-z.]{1,20}=[\[\]{}a-z0-9:, ]{0,9}"))
def test_any_override_gives_settings_or_a_line(override):
    try:
        found = loading.load("digits", [override])[1]
    except ConfigError as error:
        text = str(error)
    else:
        assert isinstance(found, Settings)
        return
    assert text.startswith("--set ")
    assert text.isprintable()


def _floats(low, high):
    return st.floats(low, high, exclude_min=True, exclude_max=True)


@st.composite
def valid(draw):
    steps = draw(st.lists(_floats(0, 100), min_size=1, max_size=3, unique=True))
    kappa1 = draw(st.just("measured") | _floats(1e-6, 0.05))
    return {
        "dataset": draw(st.sampled_from(["digits", "mnist", "cifar10"])),
        "seed": draw(st.integers(0, 2**40)),
        "model": {"network": "cifar10_basic", "dropout": [draw(_floats(0, 1))]},
        "variants": {"v": {"label_range": [0.25, draw(_floats(0.5, 1))]}},
        "attack": {
            "sets": {
                "a": {"method": "blackbox", "lambda": draw(_floats(0, 9)), "model": "v"},
                "b": {"method": "jsma", "theta": draw(_floats(-1, 0)), "title": draw(st.text())},
            }
        },
        "mutation": {"kinds": draw(st.permutations(["light", "blackout"])), "clip": True},
        "sensitivity": {"step_sizes": steps},
        "detection": {
            "kappa1": kappa1,
            "step_size": steps[0],
            "mu": draw(st.lists(_floats(1, 9), min_size=1, max_size=3, unique=True)),
            "alpha": draw(_floats(0, 0.5)),
        },
    }


@FAST
@given(document=valid())
def test_valid_settings_survive_being_written_and_read(document, tmp_path):
    path = tmp_path / "valid.yaml"
    path.write_text(yaml.safe_dump(document))
    loaded = loading.load(str(path))[1]
    assert loaded.seed == document["seed"]
    assert loaded.attack.sets["a"].lambda_ == document["attack"]["sets"]["a"]["lambda"]
    path.write_text(yaml.safe_dump(loaded.model_dump(mode="json")))
    assert loading.load(str(path))[1] == loaded
