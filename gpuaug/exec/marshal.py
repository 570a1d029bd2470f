"""What a launch of the kernels needs before there is an image: its chain as records, and the parameters as tables of one row a sample.

Records follow from types and fixed sizes alone; tables are torch operations that never read a value on the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from gpuaug_kernels import codes
from gpuaug_kernels.chain import Program, Tables
from torch import Tensor

from gpuaug import ir
from gpuaug.rng import Keys

Record = tuple[int, ...]


@dataclass(frozen=True)
class Switch:
    """A choice whose branches have yet to find their place in the program."""

    index: int
    steps: int
    branches: tuple[list[Any], ...]


@dataclass(frozen=True)
class Sources:
    """Sources that have yet to find their place in the program, of which each sample has one."""

    index: int
    ways: tuple[Any, ...]


Node = Record | Switch | Sources


@dataclass(frozen=True, eq=False)
class Prepared:
    """One launch of the kernels, and the launches that reduce its statistics, with nothing of the images in it.

    `tables` may be swapped for others of the same columns: all else holds for every batch of this size.
    """

    tables: Tables
    program: Program
    reductions: tuple[tuple[int, Program], ...]  # the number of a contrast, and the program that comes to it
    size: tuple[int, int]
    dtype: torch.dtype
    channels_last: bool


@dataclass(frozen=True, eq=False)
class Fallback:
    """Passes that the reference runs."""

    passes: ir.Sequence
    keys: Keys


@dataclass
class Columns:
    """A table in the making: one row a sample."""

    dtype: torch.dtype
    parts: list[Tensor] = field(default_factory=list)
    width: int = 0

    def add(self, *values: Tensor) -> int:
        """The column where the first of these, each [N] or [N, k], begins."""
        at = self.width
        for v in values:
            part = v if v.ndim == 2 else v[:, None]
            self.parts.append(part)
            self.width += part.shape[1]
        return at

    def table(self) -> Tensor:
        """[N, columns] contiguous, one column at least."""
        return torch.cat([p.to(self.dtype) for p in self.parts], 1)


class Marshal:
    """One launch on its way to the kernel; the rules put passes into it, in order."""

    def __init__(self, passes: ir.Sequence, frame: ir.Frame, keys: Keys):
        self.frame, self.keys = frame, keys
        self.floats, self.integers, self.doubles = Columns(torch.float32), Columns(torch.int32), Columns(torch.float64)
        self.source: Node = (codes.PIXEL.value, 0, 0, 0, 0)
        self.sized = 0  # column of the input's height and width, 0 before there is one
        self.mix: Record = (codes.ALONE.value, 0, 0, 0, 0)
        self.finish = ir.Finish(torch.float32, torch.contiguous_format)
        self.end = ir.after(passes, frame)
        self.channels = frame.channels  # as they stand at the stage being added
        self.wide = max([frame.channels, *(p.channels for p in passes if isinstance(p, ir.Gray))])
        self.before: list[Node] = []  # stages before the mix
        self.after: list[Node] = []
        # the least and the most contrasts that a sample meets in each stage
        self.counts = [_contrasts(p) for p in passes if ir.is_pointwise(p)]
        self._header()

    def _header(self) -> None:
        """The columns that every program has."""
        c2, c3 = self.keys.counter()
        seed = ir.rows((_signed(self.keys.seed), _signed(self.keys.seed >> 32)), c2)
        self.integers.add(c2, c3, self.keys.occurrence << 16, seed, self.frame.size[:, 1] * self.frame.channels)

    def add(self, nodes: Sequence[Node]) -> None:
        """Stages that follow what is there."""
        (self.before if self.mix[0] == codes.ALONE.value else self.after).extend(nodes)

    def per_channel(self, values: Tensor) -> Tensor:
        """A column for every channel that the kernel knows of.  values: [N, 1] or [N, C]"""
        return values.expand(-1, self.wide) if values.shape[1] == 1 else values

    def constant(self, values: tuple[float, ...]) -> Tensor:
        """The same for all samples, for every channel."""
        return self.per_channel(ir.rows(values, self.keys.ids, torch.float32))

    def stage(self, code: Any, floats: int = 0, integers: int = 0, flag: bool = False, slot: int = 0) -> list[Node]:
        """One record."""
        return [(code.value, floats, integers, int(flag), slot)]

    def program(self, stages: int | None = None) -> Program:
        """The whole chain; or the first stages of it, those before the mix and then those after it."""
        split, every = len(self.before), [*self.before, *self.after]
        nodes = every if stages is None else every[:stages]
        mixes = stages is None or stages > split
        records = _flat([self.source, self.mix if mixes else (codes.ALONE.value, 0, 0, 0, 0), *nodes])
        colour = self.wide == 3
        return Program(
            records=tuple(v for r in records for v in r),
            parts=(2 + min(split, len(nodes)), 2 + len(nodes), sum(most for _, most in self.counts[:split])),
            channels=3 if colour else 1,
            groups=1 if colour else self.wide,
            blocks=-(-self.wide // 4),
            written=self.end.channels,
        )

    def reads(self, code: Any, flag: int = 0, floats: int = 0, integers: int = 0, doubles: int = 0) -> list[Node]:
        """Set the source; there is no stage."""
        self.source = (code.value, flag, floats, integers, doubles)
        return []

    def input_size(self) -> int:
        """The column of the input's height and width."""
        self.sized = self.sized or self.integers.add(self.frame.size)
        return self.sized

    def tables(self) -> Tables:
        """The parameters; a program without some has a column that nobody reads."""
        for columns in (self.floats, self.doubles):
            if not columns.width:
                columns.add(torch.zeros_like(self.keys.ids))
        return Tables(self.floats.table(), self.integers.table(), self.doubles.table())

    def prepared(self) -> Prepared:
        """All of it."""
        assert self.end.fixed is not None
        last = self.finish.memory_format == torch.channels_last
        return Prepared(self.tables(), self.program(), tuple(self.reductions()), self.end.fixed, self.finish.dtype, last)

    def reductions(self) -> list[tuple[int, Program]]:
        """For every contrast that a sample may meet its number and a program that comes to it; numbers before the mix come first."""
        programs = []
        for first, last in ((0, len(self.before)), (len(self.before), len(self.counts))):
            counts = self.counts[first:last]
            for number in range(sum(most for _, most in counts)):
                # a sample may have been spared earlier ones, so that this is as far on as the fewest before it allow
                on = max(k for k, (_, most) in enumerate(counts) if most and sum(least for least, _ in counts[:k]) <= number)
                programs.append(self.program(first + on + 1))
        return list(enumerate(programs))


def _signed(word: int) -> int:
    """The low 32 bits of a number as an int32 holds them."""
    return ((word + 2**31) & 0xFFFFFFFF) - 2**31


def _contrasts(p: ir.Pass) -> tuple[int, int]:
    """The least and the most contrasts that a sample meets in a stage; several steps of a choice are an order, so that each branch comes once."""
    if not isinstance(p, ir.Choice):
        return (int(isinstance(p, ir.Contrast)),) * 2
    counts = [[sum(c) for c in zip((0, 0), *map(_contrasts, branch), strict=True)] for branch in p.branches]
    least, most = (min, max) if p.index.shape[1] == 1 else (sum, sum)
    return least(low for low, _ in counts), most(high for _, high in counts)


def _flat(nodes: Sequence[Node]) -> list[Record]:
    """Records in the order of codes.py: these, then what their choices point to."""
    records: list[Record] = [()] * len(nodes)

    def place(at: int, row: Sequence[Node]) -> None:
        for k, node in enumerate(row):
            first = len(records)
            if isinstance(node, Sources):
                records[at + k] = (codes.SWITCH.value, len(node.ways), first, node.index, 0)
                records.extend(node.ways)
            elif isinstance(node, Switch):
                records[at + k] = (codes.CHOICE.value, node.index, node.steps, first, len(node.branches))
                records.extend([()] * len(node.branches))
                for j, branch in enumerate(node.branches):
                    begin = len(records)
                    records[first + j] = (begin, begin + len(branch), 0, 0, 0)
                    records.extend([()] * len(branch))
                    place(begin, branch)
            else:
                records[at + k] = node

    place(0, nodes)
    return records
