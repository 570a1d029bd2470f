"""The headers of a batch: ordinary JPEGs as numbers in one table, all others one by one."""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from gpuaug.data.headers import CODINGS, Header
from gpuaug.data.scan import BITS, CHANNELS, CODE, COLUMNS, HEIGHT, WIDTH

Ints = np.ndarray[Any, np.dtype[np.int64]]


class Heads(Sequence[Header | Exception]):
    """What every image of a batch says of itself, or why there is none.

    table: [N, COLUMNS] as `scan.table` gives it.  others: slot -> what is not in the table."""

    def __init__(self, table: Ints, others: dict[int, Header | Exception]):
        self.table, self.others = table, others

    @classmethod
    def of(cls, heads: Sequence[Header | Exception]) -> "Heads":
        """From a list of any."""
        if isinstance(heads, cls):
            return heads
        return cls(np.zeros((len(heads), COLUMNS), np.int64), dict(enumerate(heads)))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        i = range(len(self))[index]
        return self.others[i] if i in self.others else ordinary(self.table[i].tolist())

    @cached_property
    def sizes(self) -> Ints:
        """Height and width of the upright images, [N, 2]; 0 where there is none."""
        sizes = self.table[:, [HEIGHT, WIDTH]]
        for i, head in self.others.items():
            sizes[i] = head.size if isinstance(head, Header) else 0
        return sizes

    def which(self, takes: Callable[[Header], bool]) -> tuple[Ints, list[int]]:
        """Slots of the images that are encoded and taken, and of those that are not, each in order.  takes: decides
        about ordinary JPEGs by their channels, bits and coding alone"""
        codes = self.table[:, [CHANNELS, BITS, CODE]]
        there = self.table[:, HEIGHT] > 0
        mine = np.zeros(len(self), bool)
        left = there.copy()
        while left.any():
            # of one kind as a rule
            code = codes[left.argmax()]
            alike = left & (codes == code).all(1)
            if takes(ordinary([1, 1, *code.tolist()])):
                mine |= alike
            left &= ~alike
        known = there.copy()
        for i, head in self.others.items():
            if isinstance(head, Header):
                known[i], mine[i] = True, head.kind != "pixels" and takes(head)
        return np.flatnonzero(mine), np.flatnonzero(known & ~mine).tolist()

    def some(self, slots: Iterable[int]) -> "Heads":
        """Those of these slots, in their order."""
        wanted = list(slots)
        return Heads(self.table[wanted], {k: self.others[i] for k, i in enumerate(wanted) if i in self.others})


def ordinary(row: Sequence[int]) -> Header:
    """The header of an ordinary JPEG.  row: of the table"""
    height, width, channels, bits, code = row
    return Header("jpeg", height, width, 1, channels, bits, CODINGS.get(code, "hierarchical"), True)
