"""The fast path: mutation and network in one compiled Keras graph, on any Keras 3 backend."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.mutation.dropout import with_dropout
from nmutant_cli.mutation.operator import WARPING, ImageShape, Mutations, identity, patch_side
from nmutant_cli.mutation.shortcut import Shortcuts
from nmutant_cli.networks import backend
from nmutant_cli.types import AnyArray, Bounds, Floats, Images, Labels

SIZES = (250, 1000, 4000)
"""Batch sizes that are tried where the fastest is asked for."""


class Mutate(keras.layers.Layer):
    """Add a block of mutations to a block of images: `mutations.apply` on the device.

    Called with ``[images, corner (b, 4) int32: top, left, bottom, right, level (b,), patch
    (b, m, m, c)]``, level and patch already multiplied with the step size. Where images are warped
    too, ``gain (b,)`` and ``affine (b, 8)``, as `keras.ops.image.affine_transform` has it, follow.
    """

    def __init__(self, clip: Bounds | None = None) -> None:
        super().__init__()
        self._clip = clip

    def call(self, inputs: list[Any]) -> Any:
        images, corners, level, patch = inputs[:4]
        if len(inputs) > 4:
            gain, affine = inputs[4:]
            images = ops.image.affine_transform(
                images, affine, fill_mode="nearest", data_format="channels_last"
            )
            images = images + gain[:, None, None, None] * (images - 0.5)
        _, rows, columns, _ = images.shape
        side = patch.shape[1]
        top, left, bottom, right = (corners[:, i : i + 1] for i in range(4))
        row, column = ops.arange(rows)[None], ops.arange(columns)[None]
        in_rows = ops.cast(ops.logical_and(row >= top, row < bottom), "float32")
        in_columns = ops.cast(ops.logical_and(column >= left, column < right), "float32")
        light = (in_rows * level[:, None])[:, :, None] * in_columns[:, None, :]
        # One-hot sums move each patch value to its place without rounding it.
        place = ops.arange(side)[None, None]
        to_row = ops.cast(ops.equal((row - top)[:, :, None], place), "float32")
        to_column = ops.cast(ops.equal((column - left)[:, :, None], place), "float32")
        patched = ops.einsum("bhi,bijc->bhjc", to_row, patch)
        patched = ops.einsum("bwj,bhjc->bhwc", to_column, patched)
        mutated = images + light[..., None] + patched
        return mutated if self._clip is None else ops.clip(mutated, *self._clip)

    def compute_output_shape(self, input_shape: list[Any]) -> Any:
        return input_shape[0]


def arguments(m: Mutations, step_size: float, shape: ImageShape | None) -> list[AnyArray]:
    """What `Mutate` takes besides the images; ``shape`` is theirs where they are warped too."""
    step = np.float32(step_size)
    corners = np.stack([m.top, m.left, m.top + m.height, m.left + m.width], axis=1)
    adding = [corners, step * m.level, step * m.patch]
    if shape is None:
        return adding
    # Keras counts columns first, and wants the two numbers of a perspective.
    by_column = m.affine(step_size, shape)[:, ::-1][:, :, [1, 0, 2]].reshape(-1, 6)
    affine = np.concatenate([by_column, np.zeros((len(m), 2), np.float32)], axis=1)
    return [*adding, step * m.warp[:, 3], affine]


class CompiledLabeller:
    """A `sensitivity.Labeller`: one compiled graph from (image, mutation) to label.

    ``stochastic`` leaves the network's dropout on, its masks keyed by ``Mutations.noise``.
    Calls are padded to ``batch_size``, so the graph is traced once; `padding_to` has further sizes,
    so that few rows cost little. `at` gives the same graph for another step size: it is no part
    of it.
    """

    def __init__(
        self,
        model: keras.Model,
        step_size: float,
        *,
        mutation: Mutation,
        clip: Bounds | None = None,
        batch_size: int = 1000,
        stochastic: bool = False,
    ) -> None:
        self.batch_size = self.at_once = batch_size
        self.deterministic = not stochastic
        self.shortcuts: Shortcuts | None = None
        self.sizes: tuple[int, ...] = (batch_size,)
        self._step = np.float32(step_size)
        shape = model.input_shape[1:]
        side = patch_side(mutation, shape)
        images, noise = keras.Input(shape), keras.Input((), dtype="int32")
        corners, level = keras.Input((4,), dtype="int32"), keras.Input(())
        patch = keras.Input((side, side, shape[2]))
        self._warps = not WARPING.isdisjoint(mutation.kinds)
        warp = [keras.Input(()), keras.Input((8,))] if self._warps else []
        mutated = Mutate(clip)([images, corners, level, patch, *warp])
        logits = with_dropout(model, mutated, noise) if stochastic else model(mutated)
        self._side, self.image_shape = side, shape
        best = ops.top_k(ops.cast(logits, "float32"), k=2)[0]
        outputs = [ops.argmax(logits, axis=-1), best[:, 0] - best[:, 1]]
        self._model = keras.Model([images, corners, level, patch, noise, *warp], outputs)
        self._model.compile(jit_compile=backend.jit())

    def at(self, step_size: float) -> CompiledLabeller:
        """The same, for another step size."""
        other = copy.copy(self)
        other._step = np.float32(step_size)
        return other

    def padding_to(self, sizes: tuple[int, ...]) -> CompiledLabeller:
        """The same, its calls padded to the next of ``sizes`` or of those it has already."""
        other = copy.copy(self)
        other.sizes = tuple(sorted({*sizes, *self.sizes}))
        return other

    def __call__(self, images: Images, mutations: Mutations) -> Labels:
        return self.ranked(images, mutations)[0]

    def ranked(self, images: Images, mutations: Mutations) -> tuple[Labels, Floats]:
        """The label of any number of mutated images, and its logit's lead over the second."""
        labels, leads = [np.zeros(0, np.int64)], [np.zeros(0)]
        for first in range(0, len(images), self.batch_size):
            part = slice(first, first + self.batch_size)
            label, lead = self._batch(images[part], mutations[part])
            labels.append(label.astype(np.int64))
            leads.append(lead.astype(np.float64))
        return np.concatenate(labels), np.concatenate(leads)

    def _batch(self, images: Images, m: Mutations) -> tuple[AnyArray, AnyArray]:
        n = len(images)
        room = self._side - m.patch.shape[1]
        shape = self.image_shape if self._warps else None
        corners, level, patch, *warp = arguments(m, float(self._step), shape)
        patch = np.pad(patch, ((0, 0), (0, room), (0, room), (0, 0)))
        batch = [images, corners, level, patch, m.noise, *warp]
        padding = next(size for size in self.sizes if size >= n) - n
        if padding:
            batch = [np.concatenate([a, np.zeros((padding, *a.shape[1:]), a.dtype)]) for a in batch]
        label, lead = self._model.predict_on_batch(batch)
        return np.asarray(label)[:n], np.asarray(lead)[:n]


def seconds_each(label: CompiledLabeller) -> float:
    """How long a row of a full batch takes: the best of three."""
    images = np.zeros((label.batch_size, *label.image_shape), np.float32)
    nothing = identity(label.batch_size, label.image_shape)
    label(images, nothing)  # compiles
    took = []
    for _ in range(3):
        start = time.perf_counter()
        label(images, nothing)
        took.append(time.perf_counter() - start)
    return min(took) / label.batch_size


def fastest(compiled: Callable[[int], CompiledLabeller]) -> CompiledLabeller:
    """Of ``compiled(batch_size)`` for the sizes `SIZES` the one that labels most in a second."""
    return min(map(compiled, SIZES), key=seconds_each)
