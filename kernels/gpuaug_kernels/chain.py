"""A whole chain in one launch: source, points, mix, points, rounding and layout.

It must read each input value that the chain needs once (twice where a tile meets the edge of a cut), and write each
output value once: for a crop of a 375 x 500 uint8 image to 3 x 224 x 224 bfloat16 at most 562 + 301 kB.  A statistic
costs a launch of the same body that reads again, for the samples that meet one, and writes what statistics.py says."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from gpuaug_kernels.constants import ALONE, CUTMIX, MIXUP, PITCH, RECORD
from gpuaug_kernels.point import inside, walk
from gpuaug_kernels.read import read
from gpuaug_kernels.wide import spread, spread_pairs

TILE = 32


@dataclass(frozen=True)
class Program:
    """What to compile: the chain as data.  The parameters it speaks of are columns of three tables."""

    records: tuple[int, ...]
    parts: tuple[
        int, int, int
    ]  # end of the stages before the mix, end of those after it, most statistics that a sample meets before it
    channels: int  # that a program of the grid holds: 3, or 1
    groups: int  # programs that share a pixel: the channels, where each has its own
    blocks: int  # ceil(C / 4), of the noise
    written: int  # channels of the output


@dataclass(frozen=True)
class Reduction:
    """The launch that reduces the statistic of one number: of a sample's statistics as many come before it."""

    number: int
    program: Program
    kinds: tuple[int, ...]  # that some sample may meet
    column: int  # in the integers, of the kind that each sample meets, 0 for none; -1 where all meet the only one
    room: int  # of a statistic in a row of cells and of what is known, the same for every number of a launch


@dataclass(frozen=True)
class Source:
    """Images in memory: a dense tensor [N, C, H, W] of any strides, or the addresses, [N] int64, of contiguous [H, W,
    C] images of one dtype."""

    data: Tensor
    dtype: torch.dtype
    channels: int
    ragged: bool
    owner: object = None  # of the memory behind addresses, which own nothing

    def strides(self) -> tuple[int, int, int, int]:
        """Of sample, channel, row and column, in elements; a ragged image's rows are in the table.  One channel serves
        for three."""
        if self.ragged:
            return 0, int(self.channels > 1), 0, self.channels
        n, c, y, x = self.data.stride()
        return n, c if self.channels > 1 else 0, y, x


@dataclass(frozen=True)
class Tables:
    """Parameters, one row a sample."""

    floats: Tensor  # [N, F] float32
    integers: Tensor  # [N, I] int32
    doubles: Tensor  # [N, D] float64


@triton.jit
def weigh_in(MIX: tl.constexpr, side, old, new, box, lam, at):
    """A channel with one side of a mix in it."""
    if MIX == CUTMIX:
        out = tl.where(inside(box, at) == (side == 1), new, old)
    elif MIX == MIXUP:
        share = tl.load(lam)
        out = old + tl.where(side == 0, share, 1.0 - share) * new
    else:
        out = new
    return out


@triton.jit
def sides(MIX: tl.constexpr, box, lam, y0, x0, y1, x1):
    """Which sides of a mix a tile needs, as a range: 0 is the sample, 1 its partner."""
    first = 0
    last = 1
    if MIX == MIXUP:
        # a side without weight is not multiplied
        first = (tl.load(lam) == 0.0).to(tl.int32)
        last = 2 - (tl.load(lam) == 1.0).to(tl.int32)
    elif MIX == CUTMIX:
        bx0, by0, bx1, by1 = tl.load(box), tl.load(box + 1), tl.load(box + 2), tl.load(box + 3)
        within = (bx0 <= x0) & (bx1 >= x1) & (by0 <= y0) & (by1 >= y1)
        meets = (bx0 < x1) & (bx1 > x0) & (by0 < y1) & (by1 > y0) & (bx0 < bx1) & (by0 < by1)
        first = within.to(tl.int32)
        last = 1 + meets.to(tl.int32)
    return first, last


@triton.jit
def rounded(x, TYPE: tl.constexpr):
    """To the output's type: 16 bits to nearest even, 8 bits as torchvision does."""
    if TYPE == tl.uint8:
        # what is no number has to become one
        x = tl.floor(tl.minimum(tl.maximum(x, 0.0), 1.0) * 255.999)
    return x.to(TYPE)


@triton.jit
def write(out, n, r, g, b, at, size, mask, LAYOUT: tl.constexpr):
    """LAYOUT: channels that this program writes, channels of the output, whether they come last, values of eight pixels
    to write together or 0"""
    height, width = size
    r = rounded(r, out.dtype.element_ty)
    if LAYOUT[0] == 3:
        g, b = rounded(g, out.dtype.element_ty), rounded(b, out.dtype.element_ty)
    if LAYOUT[3] > 2:
        spread(out, n, r, g, b, at, size, LAYOUT[3])
    elif LAYOUT[3] == 2:
        spread_pairs(out, n, r, g, b, at, size)
    else:
        if LAYOUT[2] == 1:
            place, step = (at[0] * width + at[1]).to(tl.int64) * LAYOUT[1], 1
        else:
            place, step = (at[0] * width + at[1]).to(tl.int64), tl.cast(height, tl.int64) * width
        place += n * height * width * LAYOUT[1] + at[3] * step
        tl.store(out + place, r, mask=mask)
        if LAYOUT[0] == 3:
            tl.store(out + place + step, g, mask=mask)
            tl.store(out + place + 2 * step, b, mask=mask)


@triton.jit
def chain(
    source,
    floats,
    integers,
    doubles,
    known,
    out,
    stride_n,
    stride_c,
    stride_y,
    stride_x,
    height,
    width,
    PROGRAM: tl.constexpr,
    PARTS: tl.constexpr,
    WIDTHS: tl.constexpr,
    FORMAT: tl.constexpr,
    LAYOUT: tl.constexpr,
    RAGGED: tl.constexpr,
    STOP: tl.constexpr,
    MEETS: tl.constexpr,
    TILE: tl.constexpr,
):
    """One tile of one sample.

    STOP: -1, or the number of the statistic that is reduced: out is then cells, int64 in rows as long as those of
    known.  MEETS: the column in the integers that holds 0 where a sample meets none, or -1."""
    # a grid of three axes: a division is not paid for, and its first axis alone has no limit
    channel = tl.program_id(0) % FORMAT[2]
    n = (tl.program_id(0) // FORMAT[2]).to(tl.int64)
    left, top = tl.program_id(1) * TILE, tl.program_id(2) * TILE
    at = ((top + tl.arange(0, TILE))[:, None], (left + tl.arange(0, TILE))[None, :], width, channel, top, left)
    mask = (at[0] < height) & (at[1] < width)
    MIX: tl.constexpr = PROGRAM[RECORD]
    mine = integers + n * WIDTHS[1]
    if MEETS >= 0:
        if tl.load(mine + MEETS) == 0:
            return
    lam, box = floats + n * WIDTHS[0] + PROGRAM[RECORD + 1], mine + PROGRAM[RECORD + 2] + 1
    cells = out + n * WIDTHS[3]
    # a number after the mix is met there, and none before it
    BEFORE: tl.constexpr = STOP if MIX == ALONE else -1
    partner = n
    if MIX != ALONE:
        partner = tl.load(box - 1).to(tl.int64)
        # a row that the batch does not have is nobody's memory: the sample is its own partner then
        partner = tl.where((partner >= 0) & (partner < tl.num_programs(0) // FORMAT[2]), partner, n)
    first, last = sides(MIX, box, lam, top, left, tl.minimum(top + TILE, height), tl.minimum(left + TILE, width))
    r = tl.zeros((TILE, TILE), tl.float32)
    g = r
    b = r
    for side in range(first, last):
        # one body for both sides: the partner's whole chain, under the partner's parameters and keys
        m = tl.where(side == 0, n, partner)
        i = integers + m * WIDTHS[1]
        f = floats + m * WIDTHS[0]
        step = FORMAT[4] if FORMAT[4] > 0 else stride_x
        if RAGGED != 0:
            base = tl.load(source + m).to(tl.pointer_type(tl.uint8 if RAGGED == 1 else tl.float32))
            image = (base, stride_c, tl.load(i + PITCH).to(tl.int64), step, FORMAT[3])
        else:
            image = (source + m * stride_n, stride_c, stride_y, step, FORMAT[3])
        vr, vg, vb = read(PROGRAM, 0, image, f, i, doubles + m * WIDTHS[2], at, mask, height, FORMAT[0])
        rows = (f, i, known + m * WIDTHS[3], cells, mask)
        vr, vg, vb, _ = walk(PROGRAM, 2, PARTS[0], vr, vg, vb, tl.full((), 0, tl.int32), rows, at, FORMAT, BEFORE)
        r = weigh_in(MIX, side, r, vr, box, lam, at)
        g = weigh_in(MIX, side, g, vg, box, lam, at)
        b = weigh_in(MIX, side, b, vb, box, lam, at)
    if MIX != ALONE:
        rows = (floats + n * WIDTHS[0], mine, known + n * WIDTHS[3], cells, mask)
        r, g, b, _ = walk(PROGRAM, PARTS[0], PARTS[1], r, g, b, tl.full((), PARTS[2], tl.int32), rows, at, FORMAT, STOP)
    if STOP < 0:
        write(out, n, r, g, b, at, (height, width), mask, LAYOUT)
