"""Many samples at once: mutate, label, decide (Algorithm 1, batched).

Every sample has one stream of fresh mutations. All tests (rules and mu) read the same stream,
which is extended only as far as the slowest of them needs. Undecided samples advance together
in blocks; the decision for each is the one the literal loop `sprt.run` takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nmutant_cli.detection.sprt import SequentialTest, TestBatch
from nmutant_cli.mutation.operator import Mutations
from nmutant_cli.mutation.sensitivity import Source, Subjects
from nmutant_cli.types import Ints

FEWEST, MOST = 16, 256
"""Mutations that are labelled at a time for each open sample."""


@dataclass(frozen=True)
class Detections:
    """The outcome of one test on ``n`` samples, arrays of shape ``(n,)``.

    ``verdict``: `Verdict`. ``n``: mutations as the rule counts them. ``c``: label changes among
    them. ``mutations``: real mutations read. ``votes``: how often each label was given to those,
    for each sample, where it was asked for.
    """

    test: SequentialTest
    verdict: Ints
    n: Ints
    c: Ints
    mutations: Ints
    votes: Sequence[Counter[int]] = ()


def detect(
    subjects: Subjects,
    sources: Sequence[Source],
    tests: Sequence[SequentialTest],
    block: int | None = None,
    progress: Callable[[int], None] = lambda decided: None,
    votes: bool = False,
    growing: bool = False,
) -> list[Detections]:
    """Run every test on every sample; ``sources[i]`` gives the mutations of sample ``i``.

    ``block`` mutations are labelled at a time for each open sample; where it is not given, as many
    as fill whole batches, at least 16, at most 256 or as many as before. ``growing``: few at first
    instead, see `growing_blocks`. Neither changes any result.
    ``progress`` is told how many samples each round finished. ``votes``: count labels, too.
    """
    running = [TestBatch(test, len(sources)) for test in tests]
    counts: list[list[Counter[int]]] = [
        [Counter() for _ in sources] if votes else [] for _ in tests
    ]
    rows = np.arange(len(sources))
    read, asked = 0, 1.0
    sizes = growing_blocks(tests) if growing else iter(())
    while len(rows):
        size = next(sizes, block) or _block(len(rows), subjects.batch_size / asked, read)
        drawn = Mutations.concatenate(sources[i].take(read, size) for i in rows.tolist())
        before = subjects.asked
        labels = subjects.mutated(rows.repeat(size), drawn).reshape(len(rows), size)
        # Of some mutations the network need not be asked.
        asked = max((subjects.asked - before) / labels.size, 0.25)
        changes = labels != subjects.labels[rows, None]
        for batch, counted in zip(running, counts, strict=True):
            had = batch.mutations[rows]
            batch.advance(rows, changes)
            if votes:
                for row, given, n in zip(rows, labels, batch.mutations[rows] - had, strict=True):
                    counted[row].update(given[:n].tolist())
        read += size
        still_open = np.any([batch.open[rows] for batch in running], axis=0)
        progress(int((~still_open).sum()))
        rows = rows[still_open]
    return [
        Detections(batch.test, batch.verdict, batch.n, batch.c, batch.mutations, counted)
        for batch, counted in zip(running, counts, strict=True)
    ]


def growing_blocks(tests: Sequence[SequentialTest]) -> Iterator[int]:
    """Mutations to read at a time: so many as the shortest decision needs, then more and more.

    With the image itself nobody reads more than 1.5 times what is needed: after r mutations that
    decide nothing at least r + 1 are.
    """
    last = max((test.max_mutations for test in tests), default=0)
    size = min((test.shortest for test in tests), default=0)
    read = 0
    while read < last:
        size = min(size, MOST, last - read)
        yield size
        read += size
        size = (read + 4) // 2


def _block(rows: int, batch: float, read: int) -> int:
    """Mutations for each of ``rows`` samples, so that whole batches of ``batch`` are nearly full.

    Nearly: one row too many costs a batch, and how many ask the network is not known beforehand.
    At most as many as were ``read`` already: half of all may be more than a decision needs.
    """
    batches = -(-FEWEST * rows // batch)
    return max(min(int(0.97 * batches * batch / rows), read, MOST), FEWEST)
