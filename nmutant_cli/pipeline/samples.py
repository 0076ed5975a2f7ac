"""Sample sets: normal, wrongly labelled (WL) and adversarial images."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nmutant_cli.config.settings import Settings
from nmutant_cli.datasets import Dataset
from nmutant_cli.errors import AttackError, DataError
from nmutant_cli.files import read_npz
from nmutant_cli.networks.inference import predict_labels
from nmutant_cli.seeding import Name, stream
from nmutant_cli.types import AnyArray, Bools, Floats, Images, Ints, Labels

if TYPE_CHECKING:
    import keras

NO_TARGET = -1


@dataclass(frozen=True)
class SampleSet:
    """``n`` samples; every array has n rows.

    ``index``: where the image comes from in its half of the data set. ``true``: its true label.
    ``label``: what the network says of ``image`` (`Recorder`). ``target``: the class an attack
    aimed at, -1 for none. ``image``: float32 in [0, 1]. ``image8``: the same in 8 bits, truncated
    as when saved as PNG, with its own ``label8``. ``l0, l2, linf``: distances from the original.
    ``counts``: whether the sample is one of its kind: adversarial where an attack was tried.
    """

    index: Ints
    true: Labels
    label: Labels
    target: Labels
    image: Images
    image8: AnyArray
    label8: Labels
    l0: Ints
    l2: Floats
    linf: Floats
    counts: Bools

    def __len__(self) -> int:
        return len(self.index)

    def kept(self, right_only: bool = False) -> Bools:
        """Which samples count; ``right_only``: and have the true label."""
        return self.counts & (self.label == self.true) if right_only else self.counts

    def counted(self, right_only: bool = False) -> SampleSet:
        """Only the samples that are `kept`."""
        kept = self.kept(right_only)
        return SampleSet(*(getattr(self, f.name)[kept] for f in fields(self)))

    def rounded(self, eight_bit: bool) -> tuple[Images, Labels]:
        """The images, in 8 bits where that is wanted, and what the network says of them."""
        if eight_bit:
            return from_8_bits(self.image8), self.label8
        return self.image, self.label

    def save(self, path: Path) -> None:
        """Write ``.npz``, the same bytes for the same content."""
        with path.open("wb") as file:
            np.savez_compressed(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @staticmethod
    def load(path: Path) -> SampleSet:
        """Read what `save` wrote. Raises DataError if the file is damaged or not a sample set."""
        arrays = read_npz(path, tuple(f.name for f in fields(SampleSet)))
        if len({len(array) for array in arrays.values()}) != 1:
            raise DataError(f"{path}: its arrays differ in length")
        return SampleSet(**arrays)


def to_8_bits(images: Images) -> AnyArray:
    """``(255 * images)`` truncated to uint8; exact for images that came from 8 bits."""
    return (np.clip(images, 0, 1) * np.float32(255)).astype(np.uint8)


def from_8_bits(images: AnyArray) -> Images:
    """uint8 to float32 in [0, 1]."""
    return images.astype(np.float32) / np.float32(255)


def keys(index: Ints, target: Labels, count: int, seed: int, *names: Name) -> AnyArray:
    """``count`` keys of dropout masks for each sample, by streams of their own: int32, from 0."""
    drawn = [
        stream(seed, *names, int(i), int(t)).integers(2**31, size=count, dtype=np.int32)
        for i, t in zip(index, target, strict=True)
    ]
    return np.array(drawn, np.int32).reshape(-1, count)


class Recorder:
    """The labels that the samples of set ``name`` are recorded with.

    With dropout off, or one pass with it on (``samples.stochastic``). The mask of a sample then
    depends on the set, where the image comes from, its target, and which label of it this is: 0
    before an attack, or where there is none; 1 after it; 2 after it in 8 bits.
    """

    def __init__(
        self, name: str, model: keras.Model, data: Dataset, settings: Settings,
        index: Ints, target: Labels,
    ) -> None:  # fmt: skip
        self._model, self._keys = model, None
        if settings.samples.stochastic:
            from nmutant_cli.mutation.dropout import stochastic_labels

            self._keys = keys(index, target, 3, settings.seed, data.name, "mask", name)
            self._labels = stochastic_labels(model)

    def __call__(self, images: Images, which: int = 0, rows: Any = slice(None)) -> Labels:
        """Label ``which`` of the samples ``rows``, whose images these are."""
        if self._keys is None:
            return predict_labels(self._model, images)
        return self._labels(images, self._keys[rows, which])


def normal(model: keras.Model, data: Dataset, settings: Settings) -> SampleSet:
    """Random test images (all of them, or only rightly labelled ones, as set)."""
    rng = stream(settings.seed, data.name, "normal")
    pool = np.arange(len(data.y_test))
    labels = _recorded("normal", model, data, settings, data.x_test)
    if settings.samples.normal_correct_only:
        pool = pool[labels == data.y_test]
    wanted = settings.samples.normal
    if wanted > len(pool):
        raise AttackError(f"samples.normal: {wanted} asked for, there are {len(pool)} test images")
    index = rng.choice(pool, size=wanted, replace=False)
    return _unattacked(data.x_test, data.y_test, labels, index)


def wrongly_labelled(model: keras.Model, data: Dataset, settings: Settings) -> SampleSet:
    """Training images that the network gets wrong, up to ``samples.wl`` of them, at random."""
    rng = stream(settings.seed, data.name, "wl")
    labels = _recorded("wl", model, data, settings, data.x_train)
    wrong = np.flatnonzero(labels != data.y_train)
    index = np.sort(rng.permutation(wrong)[: settings.samples.wl])
    return _unattacked(data.x_train, data.y_train, labels, index)


def _recorded(
    name: str, model: keras.Model, data: Dataset, settings: Settings, x: Images
) -> Labels:
    n = len(x)
    return Recorder(name, model, data, settings, np.arange(n), np.full(n, NO_TARGET))(x)


def accuracy_dropout_on(model: keras.Model, data: Dataset, seed: int, network: str) -> float:
    """Share of the test images that one pass with dropout on gets right, each by its own mask."""
    from nmutant_cli.mutation.dropout import stochastic_labels

    n = len(data.x_test)
    masks = keys(np.arange(n), np.full(n, NO_TARGET), 1, seed, data.name, "accuracy", network)
    labels = stochastic_labels(model)(data.x_test, masks[:, 0])
    return float((labels == data.y_test).mean())


def _unattacked(x: Images, y: Labels, labels: Labels, index: Ints) -> SampleSet:
    images, n = x[index], len(index)
    label, nothing = labels[index], np.zeros(n)
    return SampleSet(
        index=index,
        true=y[index],
        label=label,
        target=np.full(n, NO_TARGET),
        image=images,
        image8=to_8_bits(images),
        label8=label,
        l0=np.zeros(n, np.int64),
        l2=nothing,
        linf=nothing,
        counts=np.ones(n, bool),
    )
