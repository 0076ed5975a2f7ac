"""Labels that are come by cheaply are those of float32."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from conftest import nmutant, options
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.mutation import cascade, doubt
from nmutant_cli.mutation.audit import Audit
from nmutant_cli.mutation.cascade import Cascade
from nmutant_cli.mutation.graph import CompiledLabeller
from nmutant_cli.mutation.operator import MutationStream, identity
from nmutant_cli.mutation.sensitivity import changes_of
from nmutant_cli.networks.architectures import NETWORKS, initialize
from nmutant_cli.networks.inference import in_bfloat16

CLASSES = 4
SHAPE = (1, 1, CLASSES)


class Logits:
    """A labeller whose images are the logits, each row ``wrong`` in its own way."""

    image_shape, deterministic = SHAPE, True

    def __init__(self, wrong=lambda logits: logits, batch_size=16):
        self._wrong, self.batch_size = wrong, batch_size
        self.sizes = (batch_size,)
        self.rows = []

    def at(self, step_size):
        return self

    def padding_to(self, sizes):
        other = copy.copy(self)
        other.sizes = sizes
        return other

    def ranked(self, images, mutations):
        assert len(images) == len(mutations)
        self.rows.append(len(images))
        logits = self._wrong(images.reshape(-1, CLASSES).astype(np.float64))
        best = np.sort(logits, axis=1)
        return logits.argmax(axis=1), best[:, -1] - best[:, -2]

    def __call__(self, images, mutations):
        return self.ranked(images, mutations)[0]


def halves(logits):
    """Rounded to halves, as a coarse precision would."""
    return np.round(2 * logits) / 2


def asked(wrong, logits):
    """The cascade's labels of ``logits``, float32's, and the audit."""
    images = logits.reshape(-1, *SHAPE).astype(np.float32)
    exact, audit = Logits(), Audit()
    label = Cascade(exact, lambda: (Logits(wrong), 2.0), audit).at(1.0)
    nothing = identity(len(images), SHAPE)
    found = label(images, nothing)
    return found, Logits()(images, nothing), audit, label, exact


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(cascade, "WORTH", 0.0)
    monkeypatch.setattr(doubt, "LEARNT", 8)


finite = st.floats(-8, 8, width=32)
near = st.sampled_from([0.0, 1.0, 1.0 + 2**-20, 1.0 - 2**-20, 1.25, 1.4999, -3.0])


@given(arrays(np.float32, (96, CLASSES), elements=st.one_of(finite, near)))
def test_the_labels_are_those_of_float32(logits):
    # Some rows that are learnt from differ by as much as halves can: twice that bounds the others.
    logits[::12] = [1.2501, 0.2499, -1, -1]
    found, expected, audit, _, _ = asked(halves, logits)
    assert (found == expected).all()
    assert audit.bfloat16.first == len(logits)
    assert audit.bfloat16.disagreed == 0


def test_what_is_clear_is_not_asked_again():
    logits = np.zeros((2000, CLASSES))
    logits[:, 1] = 4 + np.arange(2000) % 7 / 10
    logits[100:103, 2] = logits[100:103, 1] + [0.01, -0.01, 0.0]
    found, expected, audit, label, exact = asked(halves, logits)
    assert (found == expected).all()
    assert set(found[100:103]) == {1, 2}
    assert 0 < label.doubt.bound < 1
    assert audit.bfloat16.again == 8 + 3
    assert 0.01 * 2000 <= audit.bfloat16.audited < 0.03 * 2000
    learnt, others = exact.rows
    assert learnt == 8
    assert audit.bfloat16.again - learnt + audit.bfloat16.audited == others
    assert others % 2 == 0, "whole batches, or parts of one"


def test_a_difference_up_to_twice_the_largest_is_a_doubt():
    logits = np.tile([0.0, 9.0, 1.0, 2.0], (2000, 1))
    logits[777] = [1.1, 1.0, 0.0, 0.0]

    def misled(logits):
        out = logits + np.array([0.0, 0.3, 0.0, 0.0])
        out[777] = [1.0, 1.4, 0.0, 0.0]
        return out

    found, expected, audit, label, _ = asked(misled, logits)
    assert label.doubt.bound > 0.5
    assert audit.bfloat16.again == 8 + 1
    assert (found == expected).all()


def test_a_tie_is_a_doubt_even_where_bfloat16_is_exact():
    logits = np.tile([0.0, 3.0, 1.0, 2.0], (500, 1))
    logits[200] = [0.0, 3.0, 3.0, 2.0]
    found, expected, audit, label, _ = asked(lambda logits: logits, logits)
    assert label.doubt.bound == 0
    assert audit.bfloat16.again == 8 + 1
    assert (found == expected).all()


@pytest.mark.parametrize("row", [125, 300])
def test_a_logit_that_is_no_number_is_a_doubt(row):
    logits = np.tile([0.0, 3.0, 1.0, 2.0], (500, 1))
    logits[row] = [np.nan, 3.0, 1.0, 2.0]
    found, expected, audit, label, _ = asked(halves, logits)
    assert (found == expected).all()
    assert label.doubt.bound == 0
    assert audit.bfloat16.again == 8 + (row == 300)


def test_an_audited_label_that_differs_raises_the_bound_and_asks_again():
    def misled(logits):
        """Right about the rows that are learnt from, wrong about each that leads by less than 2."""
        out = logits + np.array([0.0, 0.25, 0.0, 0.0])
        out[:, 0] += np.where(logits[:, 1] < 2, 4, 0)
        return out

    logits = np.zeros((800, CLASSES))
    logits[:, 1] = np.where(np.arange(800) % 2, 1, 9)
    found, expected, audit, label, _ = asked(misled, logits)
    assert audit.bfloat16.disagreed > 0
    assert label.doubt.bound >= 2 * 3.75
    assert (found == expected).all()
    assert audit.bfloat16.again > 400


def test_each_step_size_has_a_bound_of_its_own():
    network = Cascade(Logits(), lambda: (Logits(halves), 2.0), Audit())
    logits = np.tile([0.0, 3.3, 1.0, 2.0], (100, 1)).reshape(-1, *SHAPE)
    network.at(1.0)(logits, identity(100, SHAPE))
    assert network.at(1.0).doubt.bound > 0
    assert network.at(5.0).doubt.bound == 0
    assert network.at(1.0) is network.at(1.0)


def test_bfloat16_comes_in_once_it_is_worth_it(monkeypatch):
    made, clock = [], iter(range(0, 100, 3))
    monkeypatch.setattr(cascade, "WORTH", 5.0)
    monkeypatch.setattr(cascade.time, "perf_counter", lambda: next(clock))

    def quick():
        made.append(1)
        return Logits(halves), 3.0

    audit = Audit()
    network = Cascade(Logits(), quick, audit)
    label = network.at(1.0)
    logits = np.tile([0.0, 3.2, 1.0, 2.0], (60, 1)).reshape(-1, *SHAPE)
    for _ in range(2):  # three seconds each
        label(logits, identity(60, SHAPE))
        assert (audit.bfloat16.first, made, network.times) == (0, [], 1.0)
    label(logits, identity(60, SHAPE))
    assert (audit.bfloat16.first, made, network.times) == (60, [1], 3.0)
    label(logits[:7], identity(7, SHAPE))
    assert (audit.bfloat16.first, made) == (67, [1])


def test_bfloat16_that_is_no_faster_is_not_asked():
    audit = Audit()
    label = Cascade(Logits(), lambda: None, audit).at(1.0)
    logits = np.tile([0.0, 3.2, 1.0, 2.0], (60, 1)).reshape(-1, *SHAPE)
    assert (label(logits, identity(60, SHAPE)) == 1).all()
    assert audit.as_counts() == {}


@pytest.mark.parametrize(
    ("name", "shape", "stochastic", "rows"),
    [("mnist", (28, 28, 1), False, 1200), ("cifar10_allconv", (32, 32, 3), True, 60)],
)
def test_a_network_in_bfloat16_first(name, shape, stochastic, rows, monkeypatch):
    monkeypatch.setattr(doubt, "LEARNT", rows // 4)
    model = NETWORKS[name](shape, 10, None)
    initialize(model, np.random.default_rng(1), "keras")
    rng = np.random.default_rng(2)
    images = rng.random((rows, *shape), dtype=np.float32)
    drawn = MutationStream(shape, Mutation(), 0, "x").take(0, rows)

    def compiled(of):
        return CompiledLabeller(
            of, 1.0, mutation=Mutation(), batch_size=rows // 3, stochastic=stochastic
        )

    exact, quick, audit = compiled(model), compiled(in_bfloat16(model)), Audit()
    found = Cascade(exact, lambda: (quick, 2.0), audit).at(4.0)(images, drawn)
    label, lead = exact.at(4.0).ranked(images, drawn)
    _, its_lead = quick.at(4.0).ranked(images, drawn)
    assert (found == label).all()
    assert audit.bfloat16.first == rows
    assert audit.bfloat16.bound > 0
    difference = np.abs(lead - its_lead)
    assert 0 < difference.mean() < 0.1 * lead.mean() + 0.01, "the same network, less precisely"


@pytest.mark.parametrize(
    ("settings", "further", "light", "occlusion"),
    [
        ({}, {}, True, True),
        ({}, {"stochastic": True}, False, False),
        ({}, {"clip": (0.0, 1.0)}, True, False),
        ({"kinds": ("light", "blackout")}, {}, True, False),
        ({"kinds": ("occlusion", "blackout")}, {}, False, True),
        ({"kinds": ("light", "occlusion", "gaussian")}, {}, True, False),
        ({"kinds": ("blackout",)}, {}, False, False),
    ],
)
def test_which_shortcuts_there_are(settings, further, light, occlusion):
    model = NETWORKS["cifar10_basic"]((32, 32, 3), 10, None)
    label = cascade.labeller(model, Audit(), mutation=Mutation(**settings), batch_size=8, **further)
    assert (label.spread is not None, label.gradients is not None) == (light, occlusion)
    assert (label.at(1.0).shortcuts is not None) == (light or occlusion)


def test_no_shortcut_is_taken_where_none_is_wanted():
    model = NETWORKS["cifar10_basic"]((32, 32, 3), 10, None)
    label = cascade.labeller(model, Audit(), mutation=Mutation(), batch_size=8, shortcuts=False)
    assert label.at(1.0).shortcuts is None


@pytest.mark.parametrize("step_size", [1.0, 10.0])
def test_a_network_with_all_shortcuts(step_size):
    model = NETWORKS["mnist"]((28, 28, 1), 10, None)
    initialize(model, np.random.default_rng(1), "keras")
    images = np.random.default_rng(2).random((12, 28, 28, 1), dtype=np.float32)
    sources = [MutationStream((28, 28, 1), Mutation(), 0, "x", i) for i in range(len(images))]
    found, expected = (
        changes_of(
            cascade.labeller(
                model, Audit(), mutation=Mutation(), batch_size=100, shortcuts=shortcuts
            ).at(step_size),
            images,
            sources,
            500,
        )
        for shortcuts in (True, False)
    )
    assert expected.any()
    assert (found == expected).all()


def test_a_run_gives_the_same_tables_and_its_manifest_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(cascade, "PAYS", 0.0)
    monkeypatch.setattr("nmutant_cli.networks.backend.has_bfloat16", lambda: True)
    for precision in ("auto", "float32"):
        changes = f"runtime.exact_precision={precision}", "runtime.batch_size=20"
        args = ["run", "-q", "--config", "digits", *options(tmp_path / precision, *changes)]
        assert nmutant(*args).code == 0
    for name in ("kappa.csv", "detections.csv", "table1.csv", "table2.csv"):
        auto, float32 = ((tmp_path / p / name).read_bytes() for p in ("auto", "float32"))
        assert auto == float32, name
    artefacts = manifest(tmp_path / "auto")
    for name in ("kappa/normal.csv", "detections/normal.csv"):
        counts = artefacts[name]["counts"]
        assert counts["bfloat16_labels"] > 0
        assert counts["audited"] > 0
        assert counts["largest_bound"] > 0
    for kind in ("light", "occlusion"):
        assert counts[f"{kind}_labels"] > counts[f"{kind}_audited"] > 0
    without = manifest(tmp_path / "float32")["kappa/normal.csv"]["counts"]
    assert without.keys().isdisjoint({"bfloat16_labels", "light_labels", "occlusion_labels"})


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())["artefacts"]
