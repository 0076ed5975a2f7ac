"""One root seed, many independent streams, each known by a stable name.

A stream is a Philox generator whose key is a hash of the root seed and the stream's name, for
example ``stream(seed, "mnist", "detect", "fgsm", 17)``. Its numbers depend on nothing else: not
on batch size, order of work, number of workers, or where a killed run was taken up again.
"""

from __future__ import annotations

import hashlib

import numpy as np

Name = str | int


def stream_key(seed: int, *names: Name) -> int:
    """128-bit Philox key of the stream called ``names`` under the root ``seed``."""
    text = "/".join([str(seed), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def stream(seed: int, *names: Name, block: int = 0) -> np.random.Generator:
    """The generator called ``names``; ``block`` jumps ahead without drawing.

    Philox counts in 256 bits. A block starts at ``block * 2**192``, so no two blocks of a
    stream can overlap.
    """
    key = stream_key(seed, *names)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, block]))


def library_seed(seed: int, *names: Name) -> int:
    """A 31-bit seed for a library that takes an integer (Keras, scikit-learn)."""
    return stream_key(seed, *names) & 0x7FFFFFFF
