"""What one rank goes through, as plain data: the batches of an epoch or several, from a place on, each with the ids and
occurrences of its samples."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gpuaug import rng
from gpuaug.data import permutation
from gpuaug.data.cursor import Position
from gpuaug.data.order import Epoch, Order
from gpuaug.data.permutation import Ints, mix, words
from gpuaug.data.share import Flags, Share

# positions that are computed at a time
_AHEAD = 1 << 13
# substitutes of one sample that are looked at, in rounds of 1, 2, 4, ... at a time
CHAIN = 63
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Step(NamedTuple):
    """One batch that is to be made: [batch_size] ids, occurrences, and which are no padding."""

    number: int
    epoch: int
    ids: Ints
    occurrence: Ints
    valid: Flags


@dataclass(frozen=True)
class Course:
    """The batches of one rank from `start` to the end of the epoch `last`."""

    seed: int
    order: Order
    share: Share
    start: Position
    last: int

    def steps(self) -> Iterator[Step]:
        """Every batch in turn."""
        number, length = 0, self.order.length
        for epoch in range(self.start.epoch, self.last + 1):
            consumed = self.start.consumed if epoch == self.start.epoch else 0
            order, count = self.order.epoch(self.seed, epoch), self.share.steps(length - consumed)
            ahead = max(1, _AHEAD // self.share.batch_size)
            for first in range(0, count, ahead):
                last = min(first + ahead, count)
                positions, valid = self.share.positions(consumed, first, last, length, self.order.striped)
                for row in zip(*order.at(positions), valid, strict=True):
                    yield Step(number, epoch, *row)
                    number += 1


class Substitutes:
    """Who takes the place of a sample that can't be had: others of the same epoch, in an order that depends on (seed,
    epoch, id, occurrence) alone."""

    def __init__(self, course: Course, epoch: int):
        self._order: Epoch = course.order.epoch(course.seed, epoch)
        self._length = course.order.length
        self._key = words(course.seed, epoch, permutation.SUBSTITUTES, 1)[0]

    def __call__(self, id: int, occurrence: int, first: int, count: int) -> tuple[Ints, Ints]:
        """Ids and occurrences of the candidates first to first + count - 1.

        The occurrence is one of the upper half, which an epoch itself comes to only where it repeats a sample 2 048
        times: a substitute is not augmented as the same sample is in its own place."""
        own = np.uint64(id) * np.uint64(rng.MAX_OCCURRENCE) + np.uint64(occurrence)
        tries = np.arange(first + 1, first + count + 1, dtype=np.uint64)
        word = mix(mix(np.atleast_1d(own) ^ self._key) + tries * _GOLDEN)
        # 64 bits over a length below 2^46: no position is favoured by more than 2^-18
        ids, _ = self._order.at((word % np.uint64(self._length)).astype(np.int64))
        half = rng.MAX_OCCURRENCE // 2
        return ids, half + (mix(word) % np.uint64(half)).astype(np.int64)
