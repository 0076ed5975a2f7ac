"""A training that is stopped and goes on gives the network it would have given."""

import keras
import numpy as np
import pytest

from nmutant_cli.config.networks import Model
from nmutant_cli.datasets import Dataset
from nmutant_cli.networks import training
from nmutant_cli.networks.checkpoints import Checkpoint

SETTINGS = Model(
    network="cifar10_basic", epochs=3, batch_size=16, dropout=[0.5], augment=True, weight_decay=0.1
)


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    x, y = rng.random((40, 8, 8, 1), dtype=np.float32), np.arange(40) % 10
    return Dataset("fake", x, y, x[:20], y[:20], "digest")


@pytest.fixture
def stop(monkeypatch):
    """Makes training stop in the middle of its n-th epoch."""
    real = training.go_through

    def arrange(n):
        left = [n]

        def go_through(model, x, y, *further):
            left[0] -= 1
            if left[0] == 0:
                real(model, x[:16], y[:16], *further)
                raise StoppedError
            real(model, x, y, *further)

        monkeypatch.setattr(training, "go_through", go_through)

    return arrange


def train(data, checkpoint=None, seed=3):
    model, report = training.train(SETTINGS, data, seed, "a", checkpoint=checkpoint)
    return model.get_weights(), report


@pytest.fixture(scope="module")
def whole(data):
    """What training without a stop gives."""
    return train(data)


def same(one, two):
    return all(np.array_equal(a, b) for a, b in zip(one[0], two[0], strict=True))


def test_a_stopped_training_goes_on_to_the_same_network(data, whole, stop, tmp_path, monkeypatch):
    kept = Checkpoint(tmp_path / "c.npz", "key")
    for epoch, there in ((1, False), (2, True)):
        stop(epoch)
        with pytest.raises(StoppedError):
            train(data, kept)
        monkeypatch.undo()
        assert kept.path.exists() == there
    resumed = train(data, kept)
    assert same(whole, resumed)
    assert whole[1] == resumed[1]

    # Every epoch is done now, and none is done again.
    monkeypatch.setattr(training, "go_through", None)
    assert same(whole, train(data, kept))
    monkeypatch.undo()

    # The file of another training is not read.
    assert not same(whole, train(data, Checkpoint(kept.path, "other"), seed=4))

    kept.remove()
    kept.remove()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def networks():
    """Small networks of unlike weights, the third of another shape, ready to be trained."""
    made = []
    for units in (3, 3, 4):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(units)])
        model.compile(optimizer=keras.optimizers.Adam(), loss="mse")
        made.append(model)
    return made


def test_what_is_restored(networks, tmp_path):
    first, second, other = networks
    checkpoint = Checkpoint(tmp_path / "c.npz", "key")
    before = other.get_weights()
    assert checkpoint.restore(first) == 0
    checkpoint.seconds = 1.5
    checkpoint.save(first, 2)
    assert Checkpoint(tmp_path / "c.npz", "other").restore(second) == 0
    assert checkpoint.restore(other) == 0
    assert same([before], [other.get_weights()])
    again = Checkpoint(tmp_path / "c.npz", "key")
    assert again.restore(second) == 2
    assert again.seconds == 1.5
    assert same([first.get_weights()], [second.get_weights()])


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_damaged_checkpoint_is_not_read(part, networks, tmp_path):
    first, second, _ = networks
    checkpoint = Checkpoint(tmp_path / "c.npz", "key")
    checkpoint.save(first, 2)
    content = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(content[: int(len(content) * part)])
    before = second.get_weights()
    assert checkpoint.restore(second) == 0
    assert same([before], [second.get_weights()])
