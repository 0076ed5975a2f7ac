"""Labels that are texts: numbers inside, texts again where they are shown."""

from __future__ import annotations

import hashlib

import numpy as np

from nmutant_cli.types import AnyArray, Labels

_TEXTS: dict[int, str] = {}


def numbered(array: AnyArray) -> Labels | None:
    """Each text of an array ``(n,)`` as a number, the same in every process; None for others."""
    texts = array.tolist()
    if array.ndim != 1 or not texts or not all(isinstance(text, str) for text in texts):
        return None
    numbers = {text: _number(text) for text in set(texts)}
    _TEXTS.update({number: text for text, number in numbers.items()})
    return np.array([numbers[text] for text in texts], np.int64)


def as_given(labels: Labels) -> AnyArray:
    """The texts that ``labels`` stand for, if they all stand for texts; else the numbers."""
    numbers = labels.tolist()
    if numbers and all(number in _TEXTS for number in numbers):
        return np.array([_TEXTS[number] for number in numbers])
    return labels


def _number(text: str) -> int:
    # 62 bits with the highest one set: two texts do not meet, and no class index is so large.
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 2 | 1 << 61
