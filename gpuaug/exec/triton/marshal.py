"""What a launch of the kernels needs before there is an image: its chain as records, and the parameters as tables of
one row a sample.

Records follow from types and fixed sizes alone; tables are torch operations that never read a value on the host."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from gpuaug_kernels import codes
from gpuaug_kernels.chain import ChainProgram, Reduction, Tables
from torch import Tensor

from gpuaug import ir
from gpuaug.exec.triton import statistics
from gpuaug.rng import Keys

Record = tuple[int, ...]

# cells of a sample that the kernel of the draws clears: it writes a column at a time, eight warps for a whole batch
FEW_CELLS = 16
PIXEL: Record = (codes.PIXEL, 0, 0, 0, 0)
ALONE: Record = (codes.ALONE, 0, 0, 0, 0)


@dataclass(frozen=True)
class ChoiceStage:
    """A choice whose branches have no place in the program yet."""

    index: int  # column of the index in the integers
    steps: int
    branches: tuple[list[Any], ...]  # lists of Node


@dataclass(frozen=True)
class SourceSwitch:
    """Sources that have no place in the program yet, of which each sample has one."""

    index: int  # column of the index in the integers
    ways: tuple[Record, ...]
    statistic_follows: tuple[bool, ...]  # whether one may follow each source within its choice

    def for_reduction(self) -> "Node":
        """The source of a launch that reduces a statistic of this choice: a way without one need not be read."""
        if not any(self.statistic_follows):
            return self
        ways = tuple(way if follows else PIXEL for way, follows in zip(self.ways, self.statistic_follows, strict=True))
        return ways[0] if len(set(ways)) == 1 else replace(self, ways=ways)


Node = Record | ChoiceStage | SourceSwitch


@dataclass(frozen=True, eq=False)
class Prepared:
    """One launch of the kernels, and the launches that reduce its statistics, with nothing of the images in it.

    `tables` may be swapped for others of the same columns: all else holds for every batch of this size.
    """

    tables: Tables
    program: ChainProgram
    reductions: tuple[Reduction, ...]  # by number
    size: tuple[int, int]
    dtype: torch.dtype
    channels_last: bool
    # one table of zeros to gather statistics in, [N, columns] int64, taken by the first execution; empty where it is
    # better to write zeros by a kernel of their own
    cells: list[Tensor] = field(default_factory=list, metadata={"scratch": True})
    # the first reduction of the launch after it, which this one gathers; both have the same tables
    following: Reduction | None = None
    # whether the tables were brought to the windows of the images already
    fitted: bool = False


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

    def __init__(
        self, passes: ir.Sequence, frame: ir.Frame, keys: Keys, end: ir.Frame, before: "Marshal | None" = None
    ):
        """end: of what it gives; before: the launch whose tables this one shares, as long as none was made of them"""
        self.frame, self.keys = frame, keys
        self.floats: Columns = before.floats if before else Columns(torch.float32)
        self.integers: Columns = before.integers if before else Columns(torch.int32)
        self.doubles: Columns = before.doubles if before else Columns(torch.float64)
        self.source: Node = PIXEL
        self.sized = 0  # column of the input's height and width, 0 before there is one
        self.mix: Record = ALONE
        self.finish = ir.Finish(torch.float32, torch.contiguous_format)
        self.end = end
        self.channels = frame.channels  # of the image where the next stage is added
        # of the image anywhere in the chain
        self.most_channels = most_channels(passes, frame.channels)
        self.before: list[Node] = []  # stages before the mix
        self.after: list[Node] = []
        # each stage is one record: what stands before the mix and after it
        self.points = tuple(tuple(p for p in part if ir.is_pointwise(p)) for part in statistics.split_at_mix(passes))
        if before is None:
            self._header()

    def _header(self) -> None:
        """The columns that every program has."""
        c2, c3 = self.keys.counter()
        self.integers.add(
            c2,
            c3,
            self.keys.occurrence << codes.OCCURRENCE_SHIFT,
            self.keys.halves(),
            self.frame.size[:, 1] * self.frame.channels,
        )

    def add(self, nodes: Sequence[Node]) -> None:
        """Append stages."""
        (self.before if self.mix == ALONE else self.after).extend(nodes)

    def statistic_width(self) -> int:
        """Columns of a statistic, whatever its kind."""
        return max(width(k, self.most_channels) for part in self.points for p in part for k in statistics.kinds(p))

    def per_channel(self, values: Tensor) -> Tensor:
        """A column for every channel that the kernel has parameters for.  values: [N, 1] or [N, C]"""
        return values.expand(-1, self.most_channels) if values.shape[1] == 1 else values

    def constant(self, values: tuple[float, ...]) -> Tensor:
        """The same for all samples, for every channel."""
        return self.per_channel(ir.rows(values, self.keys.ids, torch.float32))

    def stage(self, code: int, floats: int = 0, integers: int = 0, flag: bool = False, slot: int = 0) -> list[Node]:
        """One record."""
        return [(code, floats, integers, int(flag), slot)]

    def program(self, stages: int | None = None, own: bool = False) -> ChainProgram:
        """The whole chain; or, for a reduction, the first stages of it, those before the mix and then those after it.

        own: the statistic is in the choice that the sources belong to, so that ways without one need not be read
        """
        split, every = len(self.before), [*self.before, *self.after]
        nodes = every if stages is None else _up_to_last_statistic(every[:stages])
        mixes = stages is None or stages > split
        source = self.source.for_reduction() if own and isinstance(self.source, SourceSwitch) else self.source
        records = _flat([source, self.mix if mixes else ALONE, *nodes])
        colour = self.most_channels == 3
        return ChainProgram(
            records=tuple(v for r in records for v in r),
            end_before=2 + min(split, len(nodes)),
            end=2 + len(nodes),
            statistics_before=self.first_after(),
            channels=3 if colour else 1,
            groups=1 if colour else self.most_channels,
            blocks=-(-self.most_channels // 4),
            written=self.end.channels,
        )

    def set_source(self, code: int, flag: int = 0, floats: int = 0, integers: int = 0, doubles: int = 0) -> list[Node]:
        """Set the source; there is no stage."""
        self.source = (code, flag, floats, integers, doubles)
        return []

    def input_size(self) -> int:
        """The column of the input's height and width."""
        self.sized = self.sized or self.integers.add(self.frame.size)
        return self.sized

    def tables(self) -> Tables:
        """The parameters; a table without any has one column, which nothing reads."""
        for columns in (self.floats, self.doubles):
            if not columns.width:
                columns.add(torch.zeros_like(self.keys.ids))
        return Tables(self.floats.table(), self.integers.table(), self.doubles.table())

    def cells(self, reductions: Sequence[Reduction]) -> list[Tensor]:
        """Zeros that the kernel that draws writes with its tables, if they are few."""
        cells = Columns(torch.int64)
        if 0 < sum(r.width for r in reductions) <= FEW_CELLS:
            cells.add(*(torch.zeros_like(self.keys.ids) for r in reductions for _ in range(r.width)))
        return [cells.table()] if cells.width else []

    def first_after(self) -> int:
        """The number of the first statistic after the mix: the most that a sample has before it."""
        return sum(statistics.least_and_most(p)[1] for p in self.points[0])

    def reductions(self) -> tuple[Reduction, ...]:
        """For every statistic that a sample may need a program that ends with it; those before the mix come first."""
        found: list[Reduction] = []
        for part, first in zip(self.points, (0, len(self.points[0])), strict=True):
            ranges = [statistics.least_and_most(p) for p in part]
            for number, names in enumerate(statistics.kinds_by_number(part)):
                stages = statistics.stages_with(part, number)
                kinds = [codes.STATISTICS[k] for k in names]
                every = len(kinds) == 1 and number < sum(least for least, _ in ranges)
                column = -1 if every else self.integers.add(statistics.kind_of_each(part, number, self.keys.ids))
                program = self.program(first + stages[-1] + 1, own=first + stages[-1] == 0)
                found.append(Reduction(len(found), program, tuple(kinds), column, self.statistic_width()))
        return tuple(found)


def prepare_together(launches: Sequence[Marshal]) -> tuple[Prepared, ...]:
    """Launches that share their tables, all of it; each gathers the first statistic of the one after it."""
    reductions = [m.reductions() for m in launches]
    # columns are complete only now
    tables, made = launches[0].tables(), []
    for m, mine, after in zip(launches, reductions, (*reductions[1:], ()), strict=True):
        assert m.end.fixed is not None
        last, following = m.finish.memory_format == torch.channels_last, after[0] if after else None
        assert following is None or following.program.records[: 2 * codes.RECORD] == PIXEL + ALONE
        cells = m.cells(mine)
        made.append(Prepared(tables, m.program(), mine, m.end.fixed, m.finish.dtype, last, cells, following))
    return tuple(made)


def most_channels(passes: ir.Sequence, channels: int) -> int:
    """Of the image anywhere among the passes of a step.  channels: of its input"""
    return max([channels, *(p.channels for p in passes if isinstance(p, ir.Gray))])


def width(kind: str, channels: int) -> int:
    """Columns of a statistic."""
    return {"mean": 1, "range": 2 * channels, "histogram": 256 * channels}[kind]


def _signed(word: int) -> int:
    """The low 32 bits of a number as an int32 holds them."""
    return ((word + 2**31) & 0xFFFFFFFF) - 2**31


def _up_to_last_statistic(row: Sequence[Node]) -> list[Node]:
    """Stages up to the last with a statistic; if that is a choice of one step, its branches are cut alike."""
    last = max((k for k, node in enumerate(row) if _has_statistic(node)), default=-1)
    if last < 0:
        return []
    node = row[last]
    if isinstance(node, ChoiceStage) and node.steps == 1:
        node = replace(node, branches=tuple(map(_up_to_last_statistic, node.branches)))
    return [*row[:last], node]


def _has_statistic(node: Node) -> bool:
    """Whether a stage has a statistic."""
    if isinstance(node, ChoiceStage):
        return any(_has_statistic(n) for branch in node.branches for n in branch)
    return isinstance(node, tuple) and node[0] in (codes.CONTRAST, codes.AUTOCONTRAST, codes.EQUALIZE)


def _flat(nodes: Sequence[Node]) -> list[Record]:
    """Records in the order of codes.py: these, then what their choices and switches point to."""
    records: list[Record] = [()] * len(nodes)

    def place(at: int, row: Sequence[Node]) -> None:
        for k, node in enumerate(row):
            first = len(records)
            if isinstance(node, SourceSwitch):
                records[at + k] = (codes.SWITCH, len(node.ways), first, node.index, 0)
                records.extend(node.ways)
            elif isinstance(node, ChoiceStage):
                records[at + k] = (codes.CHOICE, node.index, node.steps, first, len(node.branches))
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
