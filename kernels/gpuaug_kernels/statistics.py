"""Statistics of an image as it stands at a point of its chain: the mean of gray, or per channel the range or the
histogram.

They are summed and compared as integers, for which any order gives the same bits: neither the layout nor the rest of
the batch changes them.  A reducing launch reads what the chain before it reads and adds 8 bytes a tile to a mean, 16 to
a range, at most 2 kB to a histogram, the last two per channel; the finish reads these cells and writes 4 bytes, 8 or
1 kB.

    cells       of one sample, int64, zero at first: the sum of gray in units of 2^-24; the order keys of every
                channel's largest value, then of its least one negated; or how many values of every channel are in each
                of 256 bins
    statistics  of one sample and one statistic, float32: the mean; every channel's least value, then the factor to
                stretch it by, 0 where all are alike; or what each of its 256 levels becomes
"""

import triton
import triton.language as tl

from gpuaug_kernels.constants import HISTOGRAM, MEAN, RANGE


@triton.jit
def add_mean(cells, gray, mask):
    """Add a tile to a sum.  cells: pointer to [1] int64"""
    units = tl.floor(tl.minimum(tl.maximum(gray, -1.0e9), 1.0e9) * 16777216.0 + 0.5).to(tl.int64)
    tl.atomic_add(cells, tl.sum(tl.where(mask, units, 0), 0), sem="relaxed")


@triton.jit
def order_key(x):
    """A float as an integer above 0, in the order of floats."""
    bits = x.to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64) + 2147483649


@triton.jit
def value_of_key(key):
    """The float of an order key."""
    bits = (key - 2147483649).to(tl.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def add_range(cells, x, mask, CHANNELS: tl.constexpr):
    """Widen a channel's range by a tile.  cells: pointer to [2, CHANNELS] int64, at the channel"""
    high = tl.max(tl.where(mask, x, float("-inf")), 0)
    low = tl.max(tl.where(mask, -x, float("-inf")), 0)
    tl.atomic_max(cells, order_key(high), sem="relaxed")
    tl.atomic_max(cells + CHANNELS, order_key(low), sem="relaxed")


@triton.jit
def histogram_bin(x):
    """The bin of a value; NaN counts as black."""
    return tl.where(x == x, tl.minimum(tl.maximum(tl.floor(x * 255.999), 0.0), 255.0), 0.0).to(tl.int32)


@triton.jit
def add_histogram(cells, x, mask):
    """Count a tile's values of one channel.  cells: pointer to [256] int64"""
    counts = tl.histogram(histogram_bin(x), 256, mask=mask)
    tl.atomic_add(cells + tl.arange(0, 256), counts.to(tl.int64), mask=counts > 0, sem="relaxed")


@triton.jit
def equalized(counts, total):
    """What each level becomes by equalization (Pillow's ImageOps.equalize): [256] float32.  counts: [256] int32 of
    `total` values"""
    levels = tl.arange(0, 256)
    last = tl.max(tl.where(counts > 0, levels, 0), 0)
    step = (total - tl.sum(tl.where(levels == last, counts, 0), 0)) // 255
    before = tl.cumsum(counts, 0) - counts
    moved = tl.minimum((before + step // 2) // tl.maximum(step, 1), 255)
    return tl.div_rn(tl.where(step == 0, levels, moved).to(tl.float32), 255.0)


@triton.jit(do_not_specialize=["total"])
def finish(
    cells,  # [N, STATISTICS] int64
    integers,  # [N, INTEGERS] int32
    statistics,  # [N, STATISTICS] float32, written
    total,  # pixels of an image
    INTEGERS: tl.constexpr,
    STATISTICS: tl.constexpr,
    OFFSET: tl.constexpr,  # the first column of this statistic in cells and statistics
    KIND_COLUMN: tl.constexpr,  # in the integers, of the kind that each sample has; -1 where all have the only one
    KINDS: tl.constexpr,  # that some sample may have, see tuples.py
):
    """Cells to what the chain reads: one channel of one sample.

    Bytes read and written, per channel: 8 and 4 of a mean (which has one channel), 16 and 8 of a range, 2 kB and 1 kB
    of a histogram."""
    n, channel, channels = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    cells += n * STATISTICS + OFFSET
    statistics += n * STATISTICS + OFFSET
    kind = tl.full((), MEAN * KINDS.mean + RANGE * KINDS.range + HISTOGRAM * KINDS.histogram, tl.int32)
    if KIND_COLUMN >= 0:
        kind = tl.load(integers + n * INTEGERS + KIND_COLUMN)
    if KINDS.mean == 1:
        if (kind == MEAN) & (channel == 0):
            mean = tl.load(cells).to(tl.float64) / (tl.cast(total, tl.float64) * 16777216.0)
            tl.store(statistics, mean.to(tl.float32))
    if KINDS.range == 1:
        if kind == RANGE:
            high, low = value_of_key(tl.load(cells + channel)), -value_of_key(tl.load(cells + channels + channel))
            width = high - low
            tl.store(statistics + channel, low)
            tl.store(
                statistics + channels + channel, tl.where(width > 0.0, 1.0 / tl.where(width > 0.0, width, 1.0), 0.0)
            )
    if KINDS.histogram == 1:
        if kind == HISTOGRAM:
            levels = channel * 256 + tl.arange(0, 256)
            tl.store(statistics + levels, equalized(tl.load(cells + levels).to(tl.int32), total))
