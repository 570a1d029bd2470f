"""Statistics of an image as it stands at a point of its chain: the mean of gray, or per channel the range or the
histogram.

They are summed and compared as integers, which have no order, so that no layout and no batch is seen in them.  A
reducing launch reads what the chain before it reads and adds 8 bytes a tile to a mean, 16 to a range, at most 2 kB to a
histogram, the last two per channel; the finish reads these cells and writes 4 bytes, 8 or 1 kB.

    cells    of one sample, int64, zero at first: the sum of gray in units of 2^-24; the keys of every channel's largest value, then of its least
             one negated; or how many values of every channel are in each of 256 bins
    known    of one sample and one statistic, float32: the mean; every channel's least value, then the factor to stretch it by, 0 where all are
             alike; or what each of its 256 levels becomes
"""

import triton
import triton.language as tl

from gpuaug_kernels.constants import HISTOGRAM, MEAN, RANGE


@triton.jit
def add_mean(cells, gray, mask):
    whole = tl.floor(tl.minimum(tl.maximum(gray, -1.0e9), 1.0e9) * 16777216.0 + 0.5).to(tl.int64)
    tl.atomic_add(cells, tl.sum(tl.sum(tl.where(mask, whole, 0), 1), 0), sem="relaxed")


@triton.jit
def key(x):
    """A float as an integer above 0, in the order of floats."""
    bits = x.to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64) + 2147483649


@triton.jit
def unkey(whole):
    bits = (whole - 2147483649).to(tl.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def add_range(cells, x, mask, CHANNELS: tl.constexpr):
    high = tl.max(tl.max(tl.where(mask, x, float("-inf")), 1), 0)
    low = tl.max(tl.max(tl.where(mask, -x, float("-inf")), 1), 0)
    tl.atomic_max(cells, key(high), sem="relaxed")
    tl.atomic_max(cells + CHANNELS, key(low), sem="relaxed")


@triton.jit
def level(x):
    """The bin of a value."""
    return tl.where(x == x, tl.minimum(tl.maximum(tl.floor(x * 255.999), 0.0), 255.0), 0.0).to(tl.int32)


@triton.jit
def add_counts(cells, x, mask):
    SIZE: tl.constexpr = x.shape[0] * x.shape[1]
    counts = tl.histogram(tl.reshape(level(x), (SIZE,)), 256, mask=tl.reshape(mask, (SIZE,)))
    tl.atomic_add(cells + tl.arange(0, 256), counts.to(tl.int64), mask=counts > 0, sem="relaxed")


@triton.jit
def flat(counts, total):
    """What each level becomes where a histogram is made flat (Pillow's ImageOps.equalize).  counts: [256] int32 of
    `total` values"""
    levels = tl.arange(0, 256)
    last = tl.max(tl.where(counts > 0, levels, 0), 0)
    step = (total - tl.sum(tl.where(levels == last, counts, 0), 0)) // 255
    before = tl.cumsum(counts, 0) - counts
    moved = tl.minimum((before + step // 2) // tl.maximum(step, 1), 255)
    return tl.div_rn(tl.where(step == 0, levels, moved).to(tl.float32), 255.0)


@triton.jit
def finish(
    cells, integers, known, total, WIDTHS: tl.constexpr, OFFSET: tl.constexpr, COLUMN: tl.constexpr, KINDS: tl.constexpr
):
    """Cells to what the chain reads: one channel of one sample.

    total: pixels of the image.  WIDTHS: of rows of integers and of cells or known.  OFFSET: of the statistic in these.
    COLUMN: of the kind that a sample meets, or -1 where all meet one.  KINDS: whether some sample may meet a mean, a
    range, a histogram."""
    n, channel, channels = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    cells += n * WIDTHS[1] + OFFSET
    known += n * WIDTHS[1] + OFFSET
    kind = tl.full((), MEAN * KINDS[0] + RANGE * KINDS[1] + HISTOGRAM * KINDS[2], tl.int32)
    if COLUMN >= 0:
        kind = tl.load(integers + n * WIDTHS[0] + COLUMN)
    if KINDS[0] == 1:
        if (kind == MEAN) & (channel == 0):
            tl.store(known, (tl.load(cells).to(tl.float64) / (tl.cast(total, tl.float64) * 16777216.0)).to(tl.float32))
    if KINDS[1] == 1:
        if kind == RANGE:
            high, low = unkey(tl.load(cells + channel)), -unkey(tl.load(cells + channels + channel))
            spread = high - low
            tl.store(known + channel, low)
            tl.store(known + channels + channel, tl.where(spread > 0.0, 1.0 / tl.where(spread > 0.0, spread, 1.0), 0.0))
    if KINDS[2] == 1:
        if kind == HISTOGRAM:
            levels = channel * 256 + tl.arange(0, 256)
            tl.store(known + levels, flat(tl.load(cells + levels).to(tl.int32), total))
