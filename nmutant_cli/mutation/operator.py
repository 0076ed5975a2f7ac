"""The random mutation operator: drawing mutations and applying them, in NumPy.

A mutation is data: a rectangle, one level for all of it, and a small patch of values. Drawing is
separate from applying, so every backend, batch size and worker sees the same mutations.

For each pixel and channel the operator has a noise ``r = amplitude * (U - 0.5) / d`` with U
uniform on [0, 1) and d a uniform integer in 1..max_divisor (arXiv 1805.05010 section 4, after
Pei et al. 2017; the details are in docs/protocol.md). A kind is chosen with equal chance:

- light: the mean of r over the whole image is added everywhere;
- occlusion: r is added inside a rectangle;
- blackout: if the mean of r over a rectangle is negative, -1 is added inside it, else nothing.

The mutated input is ``x + step_size * mutation``. Only what a kind needs is drawn: the sign of
blackout's mean is a fair coin, since r is symmetric around zero.

Kinds that the paper does not have, each growing with the step size as well (step size 1 is said):

- gaussian: normal noise of standard deviation `SPREAD` on every value;
- translation: the image is moved by up to a pixel each way, its edge going on outside;
- rotation: it is turned around its middle by up to `DEGREES`;
- contrast: its values are stretched around 1/2, and shifted, by up to `STRETCH`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.seeding import Name, stream
from nmutant_cli.types import AnyArray, Bools, Bounds, Images

LIGHT, OCCLUSION, BLACKOUT, GAUSSIAN, TRANSLATION, ROTATION, CONTRAST = range(7)
KINDS = {
    "light": LIGHT,
    "occlusion": OCCLUSION,
    "blackout": BLACKOUT,
    "gaussian": GAUSSIAN,
    "translation": TRANSLATION,
    "rotation": ROTATION,
    "contrast": CONTRAST,
}
WARPING = {"translation", "rotation", "contrast"}
"""Kinds that do more than add something to an image."""
SPREAD, DEGREES, STRETCH = 0.05, 2.0, 0.1

ImageShape = tuple[int, int, int]


@dataclass(frozen=True)
class Mutations:
    """``n`` mutations: ``level`` inside the rectangle and ``patch`` are added to a warped image.

    ``kind, top, left, height, width``: ``(n,)`` int32. ``level``: ``(n,)`` float32.
    ``patch``: ``(n, m, m, channels)`` float32, its corner at (top, left), zero outside the
    rectangle. ``noise``: ``(n,)`` int32, the key of the randomness of the network itself where it
    has any (dropout left on at inference). ``warp``: ``(n, 4)`` float32: rows and columns to move
    by, radians to turn by, and by how much to stretch around 1/2; zero for none.
    """

    kind: NDArray[np.int32]
    top: NDArray[np.int32]
    left: NDArray[np.int32]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    level: NDArray[np.float32]
    patch: NDArray[np.float32]
    noise: NDArray[np.int32]
    warp: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, index: slice | AnyArray) -> Mutations:
        return Mutations(*(getattr(self, f.name)[index] for f in fields(self)))

    @staticmethod
    def concatenate(parts: Iterable[Mutations]) -> Mutations:
        parts = list(parts)
        return Mutations(
            *(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Mutations))
        )

    @property
    def is_identity(self) -> Bools:
        """Which mutations change no pixel, whatever the image: shape ``(n,)``."""
        return (self.level == 0) & ~self.patch.any(axis=(1, 2, 3)) & ~self.warp.any(axis=1)

    def affine(self, step_size: float, shape: ImageShape) -> NDArray[np.float32]:
        """``(n, 2, 3)``: each place takes its value from ``M @ (row, column, 1)``."""
        angle = step_size * self.warp[:, 2].astype(np.float64)
        turn = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], axis=1)
        turn = turn.reshape(-1, 2, 2)
        middle = (np.array(shape[:2]) - 1) / 2
        offset = middle - turn @ middle - step_size * self.warp[:, :2]
        return np.concatenate([turn, offset[:, :, None]], axis=2).astype(np.float32)


def identity(n: int, shape: ImageShape, max_rectangle: int = 1) -> Mutations:
    """``n`` mutations that change nothing, for asking the label of the image itself."""
    zeros = np.zeros(n, np.int32)
    return Mutations(
        kind=np.full(n, BLACKOUT, np.int32),
        top=zeros,
        left=zeros,
        height=zeros,
        width=zeros,
        level=np.zeros(n, np.float32),
        patch=np.zeros((n, max_rectangle, max_rectangle, shape[2]), np.float32),
        noise=zeros,
        warp=np.zeros((n, 4), np.float32),
    )


def lit(levels: AnyArray, shape: ImageShape) -> Mutations:
    """A mutation of the kind light for each of ``levels``, ``(n,)``, at step size 1."""
    nothing = identity(len(levels), shape)
    return replace(
        nothing,
        kind=np.full(len(levels), LIGHT, np.int32),
        height=np.full(len(levels), shape[0], np.int32),
        width=np.full(len(levels), shape[1], np.int32),
        level=np.asarray(levels, np.float32),
    )


def light_spread(settings: Mutation, shape: ImageShape) -> float:
    """The standard deviation of the level that light adds to images of ``shape``, step size 1."""
    divisors = np.arange(1, settings.max_divisor + 1)
    values = shape[0] * shape[1] * shape[2]
    return float(settings.amplitude * np.sqrt((divisors**-2.0).mean() / 12 / values))


def patch_side(settings: Mutation, shape: ImageShape) -> int:
    """How wide and high a ``patch`` is."""
    if "gaussian" in settings.kinds:
        return max(shape[:2])
    return min(settings.max_rectangle, *shape[:2])


def clip_of(settings: Mutation, bounds: Bounds) -> Bounds | None:
    """What mutated images are clipped to: ``bounds``, or None as published."""
    return bounds if settings.clip else None


def draw(rng: np.random.Generator, n: int, shape: ImageShape, settings: Mutation) -> Mutations:
    """Draw ``n`` mutations for images of ``shape`` (height, width, channels)."""
    rows, columns, channels = shape
    side = min(settings.max_rectangle, rows, columns)
    kinds = np.array([KINDS[name] for name in settings.kinds], np.int32)
    kind = kinds[rng.integers(len(kinds), size=n)]
    light, occlusion, blackout = (np.flatnonzero(kind == k) for k in (LIGHT, OCCLUSION, BLACKOUT))

    height = rng.integers(1, side + 1, size=n, dtype=np.int32)
    width = rng.integers(1, side + 1, size=n, dtype=np.int32)
    top = rng.integers(0, rows - height + 1, dtype=np.int32)
    left = rng.integers(0, columns - width + 1, dtype=np.int32)
    whole = np.isin(kind, (OCCLUSION, BLACKOUT), invert=True)
    top[whole], left[whole], height[whole], width[whole] = 0, 0, rows, columns
    noise = rng.integers(0, 2**31, size=n, dtype=np.int32)

    level = np.zeros(n, np.float32)
    level[light] = _noise(rng, (len(light), rows * columns * channels), settings).mean(axis=1)
    level[blackout] = np.where(rng.random(len(blackout)) < 0.5, -1, 0)

    room = patch_side(settings, shape)
    patch = np.zeros((n, room, room, channels), np.float32)
    values = _noise(rng, (len(occlusion), side, side, channels), settings)
    inside = np.arange(side) < height[occlusion, None]
    across = np.arange(side) < width[occlusion, None]
    patch[occlusion, :side, :side] = values * (inside[:, :, None] & across[:, None, :])[..., None]
    warp = np.zeros((n, 4), np.float32)
    _draw_further(rng, kind, shape, patch, level, warp)
    return Mutations(kind, top, left, height, width, level, patch, noise, warp)


def _draw_further(
    rng: np.random.Generator,
    kind: NDArray[np.int32],
    shape: ImageShape,
    patch: AnyArray,
    level: AnyArray,
    warp: AnyArray,
) -> None:
    """Fill in what the kinds need that the paper does not have."""
    rows, columns, channels = shape
    gaussian, moved, turned, stretched = (
        np.flatnonzero(kind == k) for k in (GAUSSIAN, TRANSLATION, ROTATION, CONTRAST)
    )
    if len(gaussian):
        size = (len(gaussian), rows, columns, channels)
        patch[gaussian, :rows, :columns] = SPREAD * rng.standard_normal(size, dtype=np.float32)
    warp[moved, :2] = rng.uniform(-1, 1, (len(moved), 2))
    warp[turned, 2] = np.deg2rad(DEGREES) * rng.uniform(-1, 1, len(turned))
    warp[stretched, 3] = STRETCH * rng.uniform(-1, 1, len(stretched))
    level[stretched] = STRETCH * rng.uniform(-1, 1, len(stretched))


def _noise(rng: np.random.Generator, size: tuple[int, ...], settings: Mutation) -> AnyArray:
    divisor = rng.integers(1, settings.max_divisor, size=size, dtype=np.uint16, endpoint=True)
    return settings.amplitude * (rng.random(size, dtype=np.float32) - np.float32(0.5)) / divisor


def apply(
    images: Images,
    mutations: Mutations,
    step_size: float,
    clip: Bounds | None = None,
) -> Images:
    """``images[i] + step_size * mutations[i]``, clipped to ``clip`` if given.

    The reference: one mutation after the other, as the operator is written down.
    """
    mutated = np.array(images, np.float32)
    m = mutations
    step = np.float32(step_size)
    affine = m.affine(step_size, mutated.shape[1:])
    for i in range(len(m)):
        if m.kind[i] in (TRANSLATION, ROTATION):
            mutated[i] = _moved(mutated[i], affine[i])
        if m.kind[i] == CONTRAST:
            mutated[i] += step * m.warp[i, 3] * (mutated[i] - np.float32(0.5))
        top, left, height, width = m.top[i], m.left[i], m.height[i], m.width[i]
        inside = (slice(top, top + height), slice(left, left + width))
        mutated[i][inside] += step * m.level[i]
        if m.kind[i] in (OCCLUSION, GAUSSIAN):
            mutated[i][inside] += step * m.patch[i, :height, :width]
    return mutated if clip is None else mutated.clip(*clip)


def _moved(image: AnyArray, affine: AnyArray) -> AnyArray:
    """Each place takes the value at ``affine @ (row, column, 1)``, between four pixels; the edge
    goes on outside."""
    rows, columns = image.shape[:2]
    place = np.indices((rows, columns)).reshape(2, -1)
    at = affine[:, :2].astype(np.float64) @ place + affine[:, 2:]
    row, column = at[0].clip(0, rows - 1), at[1].clip(0, columns - 1)
    top, left = row.astype(int), column.astype(int)
    bottom, right = np.minimum(top + 1, rows - 1), np.minimum(left + 1, columns - 1)
    down, across = (row - top)[:, None], (column - left)[:, None]
    above = image[top, left] * (1 - across) + image[top, right] * across
    below = image[bottom, left] * (1 - across) + image[bottom, right] * across
    return (above * (1 - down) + below * down).reshape(image.shape)


class MutationStream:
    """The endless mutations of one sample; any stretch of it can be had in any order.

    Mutation ``i`` lies in block ``i // BLOCK``, which has a generator of its own, so reading from
    the middle gives the same as reading from the start.
    """

    BLOCK = 64

    def __init__(self, shape: ImageShape, settings: Mutation, seed: int, *names: Name) -> None:
        self._shape, self._settings, self._seed, self._names = shape, settings, seed, names
        self._cached: tuple[int, Mutations] | None = None

    def take(self, start: int, count: int) -> Mutations:
        """Mutations ``start .. start + count - 1``."""
        parts = []
        stop = start + count
        while start < stop:
            block, offset = divmod(start, self.BLOCK)
            size = min(self.BLOCK - offset, stop - start)
            parts.append(self._block(block)[offset : offset + size])
            start += size
        return parts[0] if len(parts) == 1 else Mutations.concatenate(parts)

    def _block(self, block: int) -> Mutations:
        if self._cached is None or self._cached[0] != block:
            rng = stream(self._seed, *self._names, block=block)
            self._cached = block, draw(rng, self.BLOCK, self._shape, self._settings)
        return self._cached[1]
