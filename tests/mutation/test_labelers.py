"""The compiled graph against the NumPy reference."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.errors import ModelError
from nmutant_cli.mutation import graph
from nmutant_cli.mutation.graph import CompiledLabeller, Mutate, arguments
from nmutant_cli.mutation.operator import MutationStream, apply, draw, identity
from nmutant_cli.networks.architectures import NETWORKS, initialize
from nmutant_cli.types import Bounds

SHAPES = [(28, 28, 1), (32, 32, 3), (5, 9, 3)]


@pytest.mark.parametrize("clip", [None, Bounds(0, 1)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rectangle", [1, 3, 4])
def test_the_layer_mutates_as_the_reference_does(shape, rectangle, clip):
    rng = np.random.default_rng(2)
    images = rng.random((90, *shape), dtype=np.float32)
    m = draw(rng, 90, shape, Mutation(max_rectangle=rectangle, amplitude=4))
    mutated = Mutate(clip)([images, *arguments(m, 5, None)])
    np.testing.assert_allclose(np.asarray(mutated), apply(images, m, 5, clip), atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["gaussian", "translation", "rotation", "contrast"])
@pytest.mark.parametrize("step", [1.0, 6.0])
def test_the_layer_mutates_as_the_reference_does_by_further_kinds(kind, shape, step):
    rng = np.random.default_rng(2)
    images = rng.random((60, *shape), dtype=np.float32)
    drawn = draw(rng, 60, shape, Mutation(kinds=(kind, "occlusion")))
    mutated = np.asarray(Mutate()([images, *arguments(drawn, step, shape)]))
    expected = apply(images, drawn, step)
    np.testing.assert_allclose(mutated, expected, atol=2e-4)
    assert np.abs(expected - images).max() > 0.01


def test_warped_images_get_the_labels_of_the_reference():
    model, wanted = network("mnist", (28, 28, 1)), Mutation(kinds=("rotation", "light"))
    rng = np.random.default_rng(3)
    images = rng.random((80, 28, 28, 1), dtype=np.float32)
    drawn = draw(rng, 80, (28, 28, 1), wanted)
    found = CompiledLabeller(model, 4.0, mutation=wanted, batch_size=100)(images, drawn)
    logits = np.asarray(model(apply(images, drawn, 4.0)))
    clear = np.diff(np.sort(logits, axis=1)[:, -2:])[:, 0] > 1e-3
    assert clear.mean() > 0.9
    assert (found == logits.argmax(axis=1))[clear].all()


def network(name, shape, **options):
    model = NETWORKS[name](shape, 10, None)
    initialize(model, np.random.default_rng(1), "keras")
    return model


@pytest.mark.parametrize(
    ("name", "shape"), [("mnist", (28, 28, 1)), ("cifar10_basic", (32, 32, 3))]
)
def test_labels_are_those_of_the_network_on_the_reference_mutations(name, shape):
    model = network(name, shape)
    rng = np.random.default_rng(3)
    images = rng.random((150, *shape), dtype=np.float32)
    drawn = draw(rng, 150, shape, Mutation())
    label = CompiledLabeller(model, 1.0, mutation=Mutation(), batch_size=64)
    for step in (1.0, 5.0):
        logits = np.sort(np.asarray(model(apply(images, drawn, step))), axis=1)
        clear = logits[:, -1] - logits[:, -2] > 1e-4
        assert clear.mean() > 0.9, "the rest is on a boundary"
        expected = np.asarray(model(apply(images, drawn, step))).argmax(axis=1)
        found = np.concatenate(
            [label.at(step)(images[i : i + 50], drawn[i : i + 50]) for i in range(0, 150, 50)]
        )
        assert (found == expected)[clear].all()
    assert label.deterministic


def test_dropout_left_on_depends_on_the_key_alone():
    model = network("cifar10_allconv", (32, 32, 3))
    rng = np.random.default_rng(4)
    images = rng.random((24, 32, 32, 3), dtype=np.float32)
    drawn = MutationStream((32, 32, 3), Mutation(), 0, "x").take(0, 24)
    stochastic = [
        CompiledLabeller(model, 1.0, mutation=Mutation(), batch_size=size, stochastic=True)
        for size in (24, 7)
    ]
    assert not stochastic[0].deterministic
    whole = stochastic[0](images, drawn)
    order = rng.permutation(24)
    parts = np.concatenate(
        [stochastic[1](images[order[i : i + 7]], drawn[order[i : i + 7]]) for i in range(0, 24, 7)]
    )
    assert (parts == whole[order]).mean() > 0.9
    plain = CompiledLabeller(model, 1.0, mutation=Mutation(), batch_size=24)
    assert (plain(images, drawn) != whole).any(), "dropout is on"


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
def test_the_keyed_mask_drops_its_share_and_keeps_the_mean(rate):
    from nmutant_cli.mutation.dropout import KeyedDropout

    keys = np.random.default_rng(0).integers(0, 2**31, 400).astype(np.int32)
    out = np.asarray(KeyedDropout(rate, salt=3)([np.ones((400, 500), np.float32), keys]))
    assert abs((out == 0).mean() - rate) < 0.005
    assert out.max() == pytest.approx(1 / (1 - rate))
    # Neither rows nor columns nor layers share their masks.
    assert abs(np.corrcoef(out[0], out[1])[0, 1]) < 0.2
    assert np.abs(out.mean(axis=0) - 1).max() < 0.6
    again = np.asarray(KeyedDropout(rate, salt=4)([np.ones((400, 500), np.float32), keys]))
    assert abs(np.corrcoef(out.ravel(), again.ravel())[0, 1]) < 0.02


def test_networks_that_cannot_keep_dropout_on_are_refused():
    x = keras.Input((8, 8, 1))
    functional = keras.Model(x, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    with pytest.raises(ModelError, match="stochastic_inference"):
        CompiledLabeller(functional, 1.0, mutation=Mutation(), stochastic=True)


def test_the_label_of_the_image_itself():
    model = network("mnist", (28, 28, 1))
    images = np.random.default_rng(3).random((10, 28, 28, 1), dtype=np.float32)
    label = CompiledLabeller(model, 1.0, mutation=Mutation(), batch_size=16)
    expected = np.asarray(model(images)).argmax(axis=1)
    assert (label(images, identity(10, (28, 28, 1))) == expected).all()


class Clocked:
    """A label that takes ``milliseconds`` a call on a clock that nobody waits for."""

    image_shape = (8, 8, 1)

    def __init__(self, batch_size, milliseconds, clock):
        self.batch_size, self._milliseconds, self._clock = batch_size, milliseconds, clock

    def __call__(self, images, mutations):
        assert len(images) == len(mutations) == self.batch_size
        self._clock[0] += self._milliseconds / 1000


@pytest.mark.parametrize(
    ("milliseconds", "best"), [((10, 30, 160), 1000), ((10, 41, 161), 250), ((10, 39, 150), 4000)]
)
def test_the_fastest_batch_size_is_chosen(milliseconds, best, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(graph.time, "perf_counter", lambda: clock[0])
    calls = dict(zip(graph.SIZES, milliseconds, strict=True))
    found = graph.fastest(lambda size: Clocked(size, calls[size], clock))
    assert found.batch_size == best
