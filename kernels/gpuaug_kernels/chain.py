"""A whole chain in one launch: source, pointwise stages, mix, pointwise stages, rounding and layout.

It must read each input value that the chain needs once (twice where a tile crosses the edge of a cut), and write each
output value once: for a crop of a 375 x 500 uint8 image to 3 x 224 x 224 bfloat16 at most 562 + 301 kB.  A statistic
of what a launch writes for another is gathered on the way, for the samples that have one, and costs what statistics.py
says; of anything else it costs a launch of the same body that reads again."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from gpuaug_kernels import codes
from gpuaug_kernels.constants import (
    ALONE,
    CUTMIX,
    MIX_INSIDE,
    MIX_LAM,
    MIX_PARTNER,
    MIXUP,
    PITCH,
    PIXELS16,
    RECORD,
)
from gpuaug_kernels.point import inside, run_stages
from gpuaug_kernels.read import read
from gpuaug_kernels.source import stored
from gpuaug_kernels.store import store_tile
from gpuaug_kernels.tuples import Image, Row, Tile

TILE = codes.TILE


@dataclass(frozen=True)
class ChainProgram:
    """What to compile: the chain as data.  The parameters it speaks of are columns of three tables."""

    records: tuple[int, ...]  # one after the other, RECORD integers each, as codes.py says
    end_before: int  # the record after the last stage before the mix
    end: int  # the record after the last stage
    statistics_before: int  # the most that a sample has before the mix
    channels: int  # that a program of the grid holds: 3, or 1
    groups: int  # programs that share a pixel: the channels, where each has its own
    blocks: int  # ceil(C / 4), of the noise
    written: int  # channels of the output

    @cached_property
    def bound(self) -> dict[Hashable, Any]:
        """What the launcher keeps for this very program, which a recipe launches again and again."""
        return {}


@dataclass(frozen=True)
class Reduction:
    """The launch that reduces the statistic of one number: of a sample's statistics as many come before it."""

    number: int
    program: ChainProgram
    kinds: tuple[int, ...]  # that some sample may need
    kind_column: int  # in the integers, of the kind that each sample needs, 0 for none; -1 where all need the only one
    width: int  # columns of a statistic in a row of cells and of statistics, the same for every number of a launch


class NextStatistic(NamedTuple):
    """A statistic of what a launch writes, gathered on the way for the launch after it."""

    reduction: Reduction  # of the launch after it: its program reads the pixel itself, and nothing is before it
    cells: Tensor  # [N, columns] int64, zero at first


@dataclass(frozen=True)
class Source:
    """Images in memory: a dense tensor [N, C, H, W] of any strides; the addresses, [N] int64, of contiguous [H, W, C]
    images of one dtype; or [N, 3] int64, of images of one column stride the address and the strides of rows and of
    channels, in elements.  Those of uint16 are what `launch.images` has written for a later launch."""

    data: Tensor
    dtype: torch.dtype
    channels: int
    ragged: bool
    owner: object = None  # of the memory behind addresses, which own nothing
    planar: bool = False  # whether ragged images lie in planes, whose column stride is 1; else it is C

    @cached_property
    def place(self) -> tuple[Any, ...]:
        """All that a launch is compiled for."""
        data = self.data
        kind = (self.dtype, self.channels, self.ragged, self.planar)
        return *kind, data.shape[1:], data.stride(), data.data_ptr() & 15

    def strides(self) -> tuple[int, int, int, int]:
        """Of sample, channel, row and column, in elements, in pixels of uint16; 0 where each ragged image has its own.
        One channel serves for three."""
        if self.planar:
            return 0, 0, 0, 1
        if self.ragged:
            return 0, int(self.channels > 1), 0, self.channels
        n, c, y, x = self.data.stride()
        if self.dtype == torch.uint16:
            return n // 4, 0, y // 4, 1
        return n, c if self.channels > 1 else 0, y, x


@dataclass(frozen=True)
class Tables:
    """Parameters, one row a sample."""

    floats: Tensor  # [N, F] float32
    integers: Tensor  # [N, I] int32
    doubles: Tensor  # [N, D] float64


@triton.jit
def add_mix_side(MIX: tl.constexpr, side, old, new, box, lam, at):
    """A channel with one side of a mix in it."""
    if MIX == CUTMIX:
        out = tl.where(inside(box, at) == (side == 1), new, old)
    elif MIX == MIXUP:
        share = tl.load(lam)
        out = old + tl.where(side == 0, share, 1.0 - share) * new
    elif MIX == MIX_INSIDE:
        share = tl.load(lam)
        weight = tl.where(side == 0, share, 1.0 - share)
        # what has no weight is not multiplied
        both = old + tl.where(weight == 0.0, 0.0, weight * new)
        out = tl.where(inside(box, at), both, tl.where(side == 0, new, old))
    else:
        out = new
    return out


@triton.jit
def mix_sides(MIX: tl.constexpr, box, lam, y0, x0, y1, x1):
    """Which sides of a mix a tile needs, as a range: 0 is the sample, 1 its partner."""
    first = 0
    last = 1
    if MIX == MIXUP:
        # a side without weight is not multiplied
        first = (tl.load(lam) == 0.0).to(tl.int32)
        last = 2 - (tl.load(lam) == 1.0).to(tl.int32)
    elif MIX == CUTMIX or MIX == MIX_INSIDE:
        bx0, by0, bx1, by1 = tl.load(box), tl.load(box + 1), tl.load(box + 2), tl.load(box + 3)
        within = (bx0 <= x0) & (bx1 >= x1) & (by0 <= y0) & (by1 >= y1)
        touches = (bx0 < x1) & (bx1 > x0) & (by0 < y1) & (by1 > y0) & (bx0 < bx1) & (by0 < by1)
        if MIX == MIX_INSIDE:
            within = within & (tl.load(lam) == 0.0)
            touches = touches & (tl.load(lam) != 1.0)
        first = within.to(tl.int32)
        last = 1 + touches.to(tl.int32)
    return first, last


@triton.jit
def gather_following(
    FOLLOW: tl.constexpr, FOLLOWING: tl.constexpr, r, g, b, kind, row, at, FORMAT: tl.constexpr, LAYOUT: tl.constexpr
):
    """Add a tile that was written to the statistic of the launch after this one, as that would read it again.

    kind: of the statistic that the sample needs, 0 for none"""
    if kind != 0:
        r, g, b = stored(r, LAYOUT.form), stored(g, LAYOUT.form), stored(b, LAYOUT.form)
        none = tl.full((), 0, tl.int32)
        run_stages(FOLLOW, 2, FOLLOWING.end, r, g, b, none, row, at, FORMAT, 0)


# a height widens no access, since rows are one after the other
@triton.jit(do_not_specialize=["height"])
def chain(
    source,  # [N, C, H, W] uint8, float16, bfloat16, float32, uint16 of the strides below; ragged: [N, places] int64
    floats,  # [N, WIDTHS.floats] float32
    integers,  # [N, WIDTHS.integers] int32
    doubles,  # [N, WIDTHS.doubles] float64
    statistics,  # [N, WIDTHS.statistics] float32, see statistics.py
    out,  # [N, LAYOUT.written, height, width] of any dtype; not written where the launch reduces
    cells,  # [N, WIDTHS.cells] int64, of the statistic that is gathered; anything where there is none
    stride_n,  # strides of the source in elements
    stride_c,
    stride_y,  # unused where images are ragged: each has its own
    stride_x,
    height,  # of the output
    width,
    PROGRAM: tl.constexpr,  # records, see codes.py
    PARTS: tl.constexpr,  # these four: see tuples.py
    WIDTHS: tl.constexpr,
    FORMAT: tl.constexpr,
    LAYOUT: tl.constexpr,
    RAGGED: tl.constexpr,  # 0; 1 for images of uint8, 2 of float32
    REDUCE: tl.constexpr,  # the number of the statistic that this launch reduces; -1 where it writes images
    KIND_COLUMN: tl.constexpr,  # in the integers, 0 where a sample has no such statistic; -1 where every one has it
    FOLLOW: tl.constexpr,  # records of the launch after this one, up to the statistic that this one gathers for it
    FOLLOWING: tl.constexpr,  # see tuples.py
    TILE: tl.constexpr,
):
    """One tile of one sample.

    Bytes: of the input what the tile's pixels are made of, times the sides of the mix that the tile needs; of the
    output TILE^2 pixels, or for a statistic what statistics.py says; and the sample's rows of the tables."""
    # a grid of three axes: a division is not paid for, and its first axis alone has no limit
    channel = tl.program_id(0) % FORMAT.groups
    n = (tl.program_id(0) // FORMAT.groups).to(tl.int64)
    left, top = tl.program_id(1) * TILE, tl.program_id(2) * TILE
    place = tl.arange(0, TILE * TILE)
    at = Tile(top + place // TILE, left + place % TILE, width, channel, top, left)
    mask = (at.y < height) & (at.x < width)
    MIX: tl.constexpr = PROGRAM[RECORD]
    mine = integers + n * WIDTHS.integers
    if KIND_COLUMN >= 0:
        if tl.load(mine + KIND_COLUMN) == 0:
            return
    kind = tl.full((), 1, tl.int32)
    if FOLLOWING.kind_column >= 0:
        # long before it is asked for
        kind = tl.load(mine + FOLLOWING.kind_column)
    lam = floats + n * WIDTHS.floats + PROGRAM[RECORD + MIX_LAM]
    box = mine + PROGRAM[RECORD + MIX_PARTNER] + 1
    cells += n * WIDTHS.cells
    # a statistic after the mix is reduced there: before it this launch reduces none
    BEFORE: tl.constexpr = REDUCE if MIX == ALONE else -1
    partner = n
    if MIX != ALONE:
        partner = tl.load(box - 1).to(tl.int64)
        # a row beyond the batch must not be read: the sample is its own partner then
        partner = tl.where((partner >= 0) & (partner < tl.num_programs(0) // FORMAT.groups), partner, n)
    first, last = mix_sides(MIX, box, lam, top, left, tl.minimum(top + TILE, height), tl.minimum(left + TILE, width))
    r = tl.zeros((TILE * TILE,), tl.float32)
    g = r
    b = r
    for side in range(first, last):
        # one body for both sides: the partner's whole chain, under the partner's parameters and keys
        m = tl.where(side == 0, n, partner)
        i = integers + m * WIDTHS.integers
        f = floats + m * WIDTHS.floats
        step = FORMAT.column_stride if FORMAT.column_stride > 0 else stride_x
        if RAGGED != 0:
            where = source + m * FORMAT.places
            base = tl.load(where).to(tl.pointer_type(tl.uint8 if RAGGED == 1 else tl.float32))
            if FORMAT.places > 1:
                image = Image(base, tl.load(where + 2), tl.load(where + 1), step)
            else:
                image = Image(base, stride_c, tl.load(i + PITCH).to(tl.int64), step)
        elif FORMAT.form == PIXELS16:
            pixels = source.to(tl.pointer_type(tl.uint64), bitcast=True)
            image = Image(pixels + m * stride_n, stride_c, stride_y, step)
        else:
            image = Image(source + m * stride_n, stride_c, stride_y, step)
        vr, vg, vb = read(PROGRAM, 0, image, f, i, doubles + m * WIDTHS.doubles, at, mask, height, FORMAT)
        row = Row(f, i, statistics + m * WIDTHS.statistics, cells, mask)
        none = tl.full((), 0, tl.int32)
        vr, vg, vb, _ = run_stages(PROGRAM, 2, PARTS.before, vr, vg, vb, none, row, at, FORMAT, BEFORE)
        r = add_mix_side(MIX, side, r, vr, box, lam, at)
        g = add_mix_side(MIX, side, g, vg, box, lam, at)
        b = add_mix_side(MIX, side, b, vb, box, lam, at)
    if MIX != ALONE:
        row = Row(floats + n * WIDTHS.floats, mine, statistics + n * WIDTHS.statistics, cells, mask)
        first_after = tl.full((), PARTS.statistics, tl.int32)
        r, g, b, _ = run_stages(PROGRAM, PARTS.before, PARTS.end, r, g, b, first_after, row, at, FORMAT, REDUCE)
    if REDUCE < 0:
        store_tile(out, n, r, g, b, at, (height, width), mask, LAYOUT)
        if FOLLOWING.end > 0:
            row = Row(floats + n * WIDTHS.floats, mine, statistics, cells, mask)
            gather_following(FOLLOW, FOLLOWING, r, g, b, kind, row, at, FORMAT, LAYOUT)
