"""Stages that need a pixel, its place and a row of parameters.  Read are the parameters alone, a few bytes a sample.

A pixel is r, g and b; for images of other than three channels a program holds one channel, in all three, of which only
r is kept.  What every function here is handed (see tuples.py):

    at       the tile
    row      what the stages read of a sample, and the cells of the statistic that a launch reduces
    FORMAT   of the image
    K        where the record stands in PROGRAM
    number   of the next statistic: how many the sample has had so far
    REDUCE   the number of the statistic that this launch reduces, -1 where it writes images
"""

import triton
import triton.language as tl

from gpuaug_kernels.constants import (
    ADD_BELOW,
    AFFINE,
    AUTOCONTRAST,
    BRANCH_FIRST,
    BRANCH_LAST,
    CHOICE,
    CHOICE_COUNT,
    CHOICE_FIRST,
    CHOICE_INDEX,
    CHOICE_STEPS,
    CONTRAST,
    EACH,
    EQUALIZE,
    ERASE,
    GAUSSIAN,
    GRAY,
    HUE,
    IDENTITY,
    NORMALIZE,
    PERMUTE,
    POSTERIZE,
    RECORD,
    SALT_PEPPER,
    SATURATION,
    SOLARIZE,
    STAGE_FLAG,
    STAGE_FLOATS,
    STAGE_INTEGERS,
    STAGE_SLOT,
    STATISTIC_CHANNELS,
    STATISTIC_FLOATS,
    STATISTIC_MONO,
    STATISTIC_WIDTH,
)
from gpuaug_kernels.noise import noise_words, normals, pick_word
from gpuaug_kernels.statistics import add_histogram, add_mean, add_range, histogram_bin


@triton.jit
def clamp(x, FORMAT: tl.constexpr):
    """x in [0, 1]; NaN, which images of floats alone can hold, stays NaN: that takes two instructions, where none is
    needed beside the one that made a number."""
    if FORMAT.form == EACH:
        out = tl.minimum(tl.maximum(x, 0.0, tl.PropagateNan.ALL), 1.0, tl.PropagateNan.ALL)
    else:
        out = tl.minimum(tl.maximum(x, 0.0), 1.0)
    return out


@triton.jit
def blend(factor, x, other, FORMAT: tl.constexpr):
    """Torchvision's blend of two images: beyond [0, 1] it is cut off."""
    return clamp(factor * x + (1.0 - factor) * other, FORMAT)


@triton.jit
def luma(r, g, b, MONO: tl.constexpr):
    """Gray: of an image of one channel, itself."""
    out = r
    if not MONO:
        out = 0.2989 * r + 0.587 * g + 0.114 * b
    return out


@triton.jit
def load_channels(at, CHANNELS: tl.constexpr):
    """A value per channel.  at: pointer to [CHANNELS] float32"""
    r = tl.load(at)
    g = r
    b = r
    if CHANNELS == 3:
        g = tl.load(at + 1)
        b = tl.load(at + 2)
    return r, g, b


@triton.jit
def hue_channel(k, high, chroma, FORMAT: tl.constexpr):
    """One channel from the hue in sixths of a turn, offset for the channel (the form of HSV without a switch)."""
    k = k - 6.0 * tl.floor(k * 0.16666667)
    return high - chroma * clamp(tl.minimum(k, 4.0 - k), FORMAT)


@triton.jit
def turn_hue(r, g, b, shift, FORMAT: tl.constexpr):
    """The hue moved by `shift` turns (HSV)."""
    high = tl.maximum(r, tl.maximum(g, b))
    chroma = high - tl.minimum(r, tl.minimum(g, b))
    safe = tl.where(chroma == 0.0, 1.0, chroma)
    red, green = high == r, high == g
    difference = tl.where(red, g - b, tl.where(green, b - r, r - g))
    h = difference / safe + (tl.where(red, 0.0, tl.where(green, 2.0, 4.0)) + 6.0 * shift)
    r, g = hue_channel(h + 5.0, high, chroma, FORMAT), hue_channel(h + 3.0, high, chroma, FORMAT)
    return r, g, hue_channel(h + 1.0, high, chroma, FORMAT)


@triton.jit
def quantise(x, levels):
    """Posterize: x in [0, 1] to one of `levels` (a power of two), rounded down."""
    level = tl.maximum(tl.floor(x * levels), 0.0, tl.PropagateNan.ALL)
    return tl.minimum(level, levels - 1.0, tl.PropagateNan.ALL) * (1.0 / levels)


@triton.jit
def pick_channel(channel, r, g, b):
    """One of three channels by its number."""
    return tl.where(channel == 0, r, tl.where(channel == 1, g, b))


@triton.jit
def point_stage(
    CODE: tl.constexpr, F: tl.constexpr, I: tl.constexpr, FLAG: tl.constexpr, r, g, b, row, at, FORMAT: tl.constexpr
):
    """Stages that do not ask where the pixel is."""
    f = row.floats + F
    if CODE == AFFINE:
        # two parameters a channel: those of one kind stand side by side
        sr, sg, sb = load_channels(f + at.channel, FORMAT.channels)
        br, bg, bb = load_channels(row.floats + I + at.channel, FORMAT.channels)
        r, g, b = sr * r + br, sg * g + bg, sb * b + bb
        if FLAG == 1:
            r, g, b = clamp(r, FORMAT), clamp(g, FORMAT), clamp(b, FORMAT)
    elif CODE == NORMALIZE:
        mr, mg, mb = load_channels(f + at.channel, FORMAT.channels)
        sr, sg, sb = load_channels(row.floats + I + at.channel, FORMAT.channels)
        r, g, b = (r - mr) * sr, (g - mg) * sg, (b - mb) * sb
    elif CODE == SATURATION:
        factor, level = tl.load(f), luma(r, g, b, 0)
        r, g, b = blend(factor, r, level, FORMAT), blend(factor, g, level, FORMAT), blend(factor, b, level, FORMAT)
    elif CODE == HUE:
        r, g, b = turn_hue(r, g, b, tl.load(f), FORMAT)
    elif CODE == GRAY:
        r = luma(r, g, b, FLAG)
        g = r
        b = r
    elif CODE == SOLARIZE:
        t = tl.load(f)
        r, g, b = tl.where(r >= t, 1.0 - r, r), tl.where(g >= t, 1.0 - g, g), tl.where(b >= t, 1.0 - b, b)
    elif CODE == ADD_BELOW:
        more, t = tl.load(f), tl.load(f + 1)
        r = tl.where(r < t, tl.minimum(r + more, 1.0), r)
        g = tl.where(g < t, tl.minimum(g + more, 1.0), g)
        b = tl.where(b < t, tl.minimum(b + more, 1.0), b)
    elif CODE == PERMUTE:
        # of three channels; an image of one holds nothing to permute
        order = row.integers + I
        r, g, b = (
            pick_channel(tl.load(order), r, g, b),
            pick_channel(tl.load(order + 1), r, g, b),
            pick_channel(tl.load(order + 2), r, g, b),
        )
    elif CODE == POSTERIZE:
        levels = (1 << tl.load(row.integers + I)).to(tl.float32)
        r, g, b = quantise(r, levels), quantise(g, levels), quantise(b, levels)
    else:
        tl.static_assert(CODE == IDENTITY, "no such stage")
    return r, g, b


@triton.jit
def reach(share):
    """How many of the numbers that a word's upper 24 bits hold are below a share in [0, 1], exactly, as int32."""
    return tl.ceil(share * 16777216.0).to(tl.int32)


@triton.jit
def salt_or_pepper(word, x, salt, amount):
    """White below `salt`, black from there to `amount`, by bits, since predicates are few.

    word: of which the upper 24 bits count; salt, amount: of `reach`, salt <= amount"""
    u = (word >> 8).to(tl.int32)
    # all bits where the word is below
    white, gone = (u - salt) >> 31, (u - amount) >> 31
    return ((x.to(tl.int32, bitcast=True) & ~gone) | (white & 0x3F800000)).to(tl.float32, bitcast=True)


@triton.jit
def salt_pepper(r, g, b, f, row, at, SLOT: tl.constexpr, PER_CHANNEL: tl.constexpr, FORMAT: tl.constexpr):
    """Replace pixels by white or black.  f: pointer to [2] float32, salt, amount"""
    salt, amount = reach(tl.load(f)), reach(tl.load(f + 1))
    channel = at.channel * PER_CHANNEL
    u, v, w, t = noise_words(row.integers, SLOT, at.y * at.width + at.x, channel, FORMAT.blocks)
    if PER_CHANNEL == 0:
        v = u
        w = u
    elif FORMAT.channels == 1:
        u = pick_word(u, v, w, t, channel)
    return salt_or_pepper(u, r, salt, amount), salt_or_pepper(v, g, salt, amount), salt_or_pepper(w, b, salt, amount)


@triton.jit
def gaussian(r, g, b, f, row, at, SLOT: tl.constexpr, CLIP: tl.constexpr, FORMAT: tl.constexpr):
    """Add normal noise.  f: pointer to [2] float32, mean, sigma"""
    mean, sigma = tl.load(f), tl.load(f + 1)
    zr, zg, zb = normals(row.integers, SLOT, at.y * at.width + at.x, at.channel, FORMAT.channels, FORMAT.blocks)
    r, g, b = r + mean + sigma * zr, g + mean + sigma * zg, b + mean + sigma * zb
    if CLIP == 1:
        r, g, b = clamp(r, FORMAT), clamp(g, FORMAT), clamp(b, FORMAT)
    return r, g, b


@triton.jit
def inside(box, at):
    """Where a rectangle is.  box: pointer to [4] int32, x0 y0 x1 y1"""
    y, x = at.y, at.x
    return (x >= tl.load(box)) & (x < tl.load(box + 2)) & (y >= tl.load(box + 1)) & (y < tl.load(box + 3))


@triton.jit
def erase(r, g, b, f, box, row, at, SLOT: tl.constexpr, FORMAT: tl.constexpr):
    """Fill a rectangle.  f: pointer to [channels] float32, NaN for noise; box: pointer to [4] int32, x0 y0 x1 y1"""
    vr, vg, vb = load_channels(f + at.channel, FORMAT.channels)
    fr, fg, fb = tl.zeros_like(r) + vr, tl.zeros_like(r) + vg, tl.zeros_like(r) + vb
    # NaN asks for noise: a branch for the whole sample, since a normal costs more than all else here
    if (vr != vr) | (vg != vg) | (vb != vb):
        zr, zg, zb = normals(row.integers, SLOT, at.y * at.width + at.x, at.channel, FORMAT.channels, FORMAT.blocks)
        fr, fg, fb = tl.where(vr != vr, zr, fr), tl.where(vg != vg, zg, fg), tl.where(vb != vb, zb, fb)
    hit = inside(box, at)
    return tl.where(hit, fr, r), tl.where(hit, fg, g), tl.where(hit, fb, b)


@triton.jit
def stretch(x, low, factor, FORMAT: tl.constexpr):
    """A channel from its range to all of [0, 1]; one that is constant is left alone."""
    return tl.where(factor > 0.0, clamp((x - low) * factor, FORMAT), x)


@triton.jit
def apply_statistic(CODE: tl.constexpr, CHANNELS: tl.constexpr, r, g, b, f, statistics, at, FORMAT: tl.constexpr):
    """A stage whose statistic has been reduced.

    f: pointer to its parameter, float32; statistics: pointer to its columns, float32, as statistics.py says"""
    if CODE == CONTRAST:
        factor, mean = tl.load(f), tl.load(statistics)
        r, g, b = blend(factor, r, mean, FORMAT), blend(factor, g, mean, FORMAT), blend(factor, b, mean, FORMAT)
    elif CODE == AUTOCONTRAST:
        lr, lg, lb = load_channels(statistics + at.channel, FORMAT.channels)
        sr, sg, sb = load_channels(statistics + CHANNELS + at.channel, FORMAT.channels)
        r, g, b = stretch(r, lr, sr, FORMAT), stretch(g, lg, sg, FORMAT), stretch(b, lb, sb, FORMAT)
    else:
        statistics += 256 * at.channel
        r = tl.load(statistics + histogram_bin(r))
        if FORMAT.channels == 3:
            g, b = tl.load(statistics + 256 + histogram_bin(g)), tl.load(statistics + 512 + histogram_bin(b))
    return r, g, b


@triton.jit
def reduce_tile(
    CODE: tl.constexpr, CHANNELS: tl.constexpr, MONO: tl.constexpr, r, g, b, cells, mask, at, FORMAT: tl.constexpr
):
    """Add a tile's share of the statistic that this launch reduces.  cells: pointer to its columns, int64"""
    if CODE == CONTRAST:
        add_mean(cells, luma(r, g, b, MONO), mask)
    elif CODE == AUTOCONTRAST:
        add_range(cells + at.channel, r, mask, CHANNELS)
        if FORMAT.channels == 3:
            add_range(cells + 1, g, mask, CHANNELS)
            add_range(cells + 2, b, mask, CHANNELS)
    else:
        add_histogram(cells + 256 * at.channel, r, mask)
        if FORMAT.channels == 3:
            add_histogram(cells + 256, g, mask)
            add_histogram(cells + 512, b, mask)


@triton.jit
def statistic_stage(
    PROGRAM: tl.constexpr, K: tl.constexpr, r, g, b, number, row, at, FORMAT: tl.constexpr, REDUCE: tl.constexpr
):
    """A stage with a statistic, which an earlier launch has reduced, or which this launch reduces."""
    CODE: tl.constexpr = PROGRAM[K]
    CHANNELS: tl.constexpr = PROGRAM[K + STATISTIC_CHANNELS]
    MONO: tl.constexpr = PROGRAM[K + STATISTIC_MONO]
    f = row.floats + PROGRAM[K + STATISTIC_FLOATS]
    statistics = row.statistics + number * PROGRAM[K + STATISTIC_WIDTH]
    if REDUCE < 0:
        r, g, b = apply_statistic(CODE, CHANNELS, r, g, b, f, statistics, at, FORMAT)
    elif number == REDUCE:
        cells = row.cells + REDUCE * PROGRAM[K + STATISTIC_WIDTH]
        reduce_tile(CODE, CHANNELS, MONO, r, g, b, cells, row.mask, at, FORMAT)
    elif REDUCE > 0:
        r, g, b = apply_statistic(CODE, CHANNELS, r, g, b, f, statistics, at, FORMAT)
    return r, g, b


@triton.jit
def run_stage(
    PROGRAM: tl.constexpr, K: tl.constexpr, r, g, b, number, row, at, FORMAT: tl.constexpr, REDUCE: tl.constexpr
):
    """One record.  What follows the statistic that this launch reduces is passed over."""
    CODE: tl.constexpr = PROGRAM[K]
    # the column of floats and that of integers; or two of floats, as codes.py says
    FIRST: tl.constexpr = PROGRAM[K + STAGE_FLOATS]
    SECOND: tl.constexpr = PROGRAM[K + STAGE_INTEGERS]
    FLAG: tl.constexpr = PROGRAM[K + STAGE_FLAG]
    SLOT: tl.constexpr = PROGRAM[K + STAGE_SLOT]
    f = row.floats + FIRST
    if (REDUCE < 0) | (number <= REDUCE):
        if (CODE == CONTRAST) | (CODE == AUTOCONTRAST) | (CODE == EQUALIZE):
            r, g, b = statistic_stage(PROGRAM, K, r, g, b, number, row, at, FORMAT, REDUCE)
            number += 1
        elif CODE == SALT_PEPPER:
            r, g, b = salt_pepper(r, g, b, f, row, at, SLOT, FLAG, FORMAT)
        elif CODE == GAUSSIAN:
            r, g, b = gaussian(r, g, b, f, row, at, SLOT, FLAG, FORMAT)
        elif CODE == ERASE:
            r, g, b = erase(r, g, b, f, row.integers + SECOND, row, at, SLOT, FORMAT)
        else:
            r, g, b = point_stage(CODE, FIRST, SECOND, FLAG, r, g, b, row, at, FORMAT)
    return r, g, b, number


@triton.jit
def run_choice(
    PROGRAM: tl.constexpr, K: tl.constexpr, r, g, b, number, row, at, FORMAT: tl.constexpr, REDUCE: tl.constexpr
):
    """Step by step the sample's branch, chosen at run time: a tile has one sample, so that no warp diverges."""
    COUNT: tl.constexpr = PROGRAM[K + CHOICE_COUNT]
    BITS: tl.constexpr = 4 if COUNT <= 16 else (8 if COUNT <= 256 else 16)
    HELD: tl.constexpr = 31 // BITS
    # loaded before the steps, none of which then waits for it
    word = tl.load(row.integers + PROGRAM[K + CHOICE_INDEX])
    for step in range(PROGRAM[K + CHOICE_STEPS]):
        if PROGRAM[K + CHOICE_STEPS] > HELD:
            word = tl.load(row.integers + PROGRAM[K + CHOICE_INDEX] + step // HELD)
        index = (word >> (BITS * (step % HELD))) & ((1 << BITS) - 1)
        for k in tl.static_range(COUNT):
            if index == k:
                # triton 3.6 cannot slice a tuple: a record is named by its place in PROGRAM
                r, g, b, number = run_branch(
                    PROGRAM, RECORD * (PROGRAM[K + CHOICE_FIRST] + k), r, g, b, number, row, at, FORMAT, REDUCE
                )
    return r, g, b, number


@triton.jit
def run_branch(
    PROGRAM: tl.constexpr, K: tl.constexpr, r, g, b, number, row, at, FORMAT: tl.constexpr, REDUCE: tl.constexpr
):
    """The records that a branch points to."""
    return run_stages(
        PROGRAM, PROGRAM[K + BRANCH_FIRST], PROGRAM[K + BRANCH_LAST], r, g, b, number, row, at, FORMAT, REDUCE
    )


@triton.jit
def run_stages(
    PROGRAM: tl.constexpr,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
    r,
    g,
    b,
    number,
    row,
    at,
    FORMAT: tl.constexpr,
    REDUCE: tl.constexpr,
):
    """The records FIRST to LAST - 1."""
    for k in tl.static_range(FIRST, LAST):
        if PROGRAM[RECORD * k] == CHOICE:
            r, g, b, number = run_choice(PROGRAM, RECORD * k, r, g, b, number, row, at, FORMAT, REDUCE)
        else:
            r, g, b, number = run_stage(PROGRAM, RECORD * k, r, g, b, number, row, at, FORMAT, REDUCE)
    return r, g, b, number
