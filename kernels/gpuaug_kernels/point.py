"""Stages that need a pixel, its place and a row of parameters.  Nothing is read but the parameters.

A pixel is r, g and b; for images of other than three channels a program holds one channel, in all three, of which only
r is kept. What every function here is handed:

    rows     the sample's floats, integers and known statistics in memory; its cells, where a launch reduces one, and which pixels are of the image
    at       y [h, 1], x [1, w], the width of the image, and the channel (0 where a program holds three)
    FORMAT   channels that a program holds (1 or 3), blocks of four channels in the image
"""

import triton
import triton.language as tl

from gpuaug_kernels.constants import (
    AFFINE,
    AUTOCONTRAST,
    CHOICE,
    CONTRAST,
    EQUALIZE,
    ERASE,
    GAUSSIAN,
    GRAY,
    HUE,
    IDENTITY,
    NORMALIZE,
    POSTERIZE,
    RECORD,
    SALT_PEPPER,
    SATURATION,
    SOLARIZE,
)
from gpuaug_kernels.noise import normals, pick, uniform, words
from gpuaug_kernels.statistics import add_counts, add_mean, add_range, level


@triton.jit
def clamp(x):
    """x in [0, 1]; what is no number stays none."""
    return tl.minimum(tl.maximum(x, 0.0, tl.PropagateNan.ALL), 1.0, tl.PropagateNan.ALL)


@triton.jit
def blend(factor, x, other):
    return clamp(factor * x + (1.0 - factor) * other)


@triton.jit
def luma(r, g, b, MONO: tl.constexpr):
    """Gray: of an image of one channel, itself."""
    out = r
    if not MONO:
        out = 0.2989 * r + 0.587 * g + 0.114 * b
    return out


@triton.jit
def columns(at, CHANNELS: tl.constexpr):
    """A value per channel."""
    r = tl.load(at)
    g = r
    b = r
    if CHANNELS == 3:
        g = tl.load(at + 1)
        b = tl.load(at + 2)
    return r, g, b


@triton.jit
def sector(k, high, spread):
    """One channel from the hue in sixths of a turn, offset for the channel (the form of HSV without a switch)."""
    k = k - 6.0 * tl.floor(k * 0.16666667)
    return high - spread * clamp(tl.minimum(k, 4.0 - k))


@triton.jit
def turn_hue(r, g, b, shift):
    high = tl.maximum(r, tl.maximum(g, b))
    spread = high - tl.minimum(r, tl.minimum(g, b))
    safe = tl.where(spread == 0.0, 1.0, spread)
    red, green = high == r, high == g
    difference = tl.where(red, g - b, tl.where(green, b - r, r - g))
    h = difference / safe + (tl.where(red, 0.0, tl.where(green, 2.0, 4.0)) + 6.0 * shift)
    return sector(h + 5.0, high, spread), sector(h + 3.0, high, spread), sector(h + 1.0, high, spread)


@triton.jit
def quantise(x, levels):
    level = tl.maximum(tl.floor(x * levels), 0.0, tl.PropagateNan.ALL)
    return tl.minimum(level, levels - 1.0, tl.PropagateNan.ALL) * (1.0 / levels)


@triton.jit
def value(
    CODE: tl.constexpr, F: tl.constexpr, I: tl.constexpr, FLAG: tl.constexpr, r, g, b, rows, at, FORMAT: tl.constexpr
):
    """Stages that do not ask where the pixel is."""
    f = rows[0] + F
    if CODE == AFFINE:
        # two parameters a channel: those of one kind stand side by side
        sr, sg, sb = columns(f + at[3], FORMAT[0])
        br, bg, bb = columns(rows[0] + I + at[3], FORMAT[0])
        r, g, b = sr * r + br, sg * g + bg, sb * b + bb
        if FLAG == 1:
            r, g, b = clamp(r), clamp(g), clamp(b)
    elif CODE == NORMALIZE:
        mr, mg, mb = columns(f + at[3], FORMAT[0])
        sr, sg, sb = columns(rows[0] + I + at[3], FORMAT[0])
        r, g, b = (r - mr) * sr, (g - mg) * sg, (b - mb) * sb
    elif CODE == SATURATION:
        factor, level = tl.load(f), luma(r, g, b, 0)
        r, g, b = blend(factor, r, level), blend(factor, g, level), blend(factor, b, level)
    elif CODE == HUE:
        r, g, b = turn_hue(r, g, b, tl.load(f))
    elif CODE == GRAY:
        r = luma(r, g, b, FLAG)
        g = r
        b = r
    elif CODE == SOLARIZE:
        t = tl.load(f)
        r, g, b = tl.where(r >= t, 1.0 - r, r), tl.where(g >= t, 1.0 - g, g), tl.where(b >= t, 1.0 - b, b)
    elif CODE == POSTERIZE:
        levels = (1 << tl.load(rows[1] + I)).to(tl.float32)
        r, g, b = quantise(r, levels), quantise(g, levels), quantise(b, levels)
    else:
        tl.static_assert(CODE == IDENTITY, "no such stage")
    return r, g, b


@triton.jit
def replace(u, x, salt, amount):
    return tl.where(u < amount, tl.where(u < salt, 1.0, 0.0), x)


@triton.jit
def salt_pepper(r, g, b, f, rows, at, SLOT: tl.constexpr, PER_CHANNEL: tl.constexpr, FORMAT: tl.constexpr):
    """f: salt, amount"""
    salt, amount = tl.load(f), tl.load(f + 1)
    channel = at[3] * PER_CHANNEL
    u, v, w, t = words(rows[1], SLOT, at[0] * at[2] + at[1], channel, FORMAT[1])
    if PER_CHANNEL == 0:
        v = u
        w = u
    elif FORMAT[0] == 1:
        u = pick(u, v, w, t, channel)
    return (
        replace(uniform(u), r, salt, amount),
        replace(uniform(v), g, salt, amount),
        replace(uniform(w), b, salt, amount),
    )


@triton.jit
def gaussian(r, g, b, f, rows, at, SLOT: tl.constexpr, CLIP: tl.constexpr, FORMAT: tl.constexpr):
    """f: mean, sigma"""
    mean, sigma = tl.load(f), tl.load(f + 1)
    zr, zg, zb = normals(rows[1], SLOT, at[0] * at[2] + at[1], at[3], FORMAT[0], FORMAT[1])
    r, g, b = r + mean + sigma * zr, g + mean + sigma * zg, b + mean + sigma * zb
    if CLIP == 1:
        r, g, b = clamp(r), clamp(g), clamp(b)
    return r, g, b


@triton.jit
def inside(box, at):
    """Where a rectangle is.  box: four integers in memory"""
    y, x = at[0], at[1]
    return (x >= tl.load(box)) & (x < tl.load(box + 2)) & (y >= tl.load(box + 1)) & (y < tl.load(box + 3))


@triton.jit
def erase(r, g, b, f, box, rows, at, SLOT: tl.constexpr, FORMAT: tl.constexpr):
    """f: a value per channel"""
    vr, vg, vb = columns(f + at[3], FORMAT[0])
    fr, fg, fb = tl.zeros_like(r) + vr, tl.zeros_like(r) + vg, tl.zeros_like(r) + vb
    # NaN asks for noise: a switch on the sample, for a normal costs more than all else here
    if (vr != vr) | (vg != vg) | (vb != vb):
        zr, zg, zb = normals(rows[1], SLOT, at[0] * at[2] + at[1], at[3], FORMAT[0], FORMAT[1])
        fr, fg, fb = tl.where(vr != vr, zr, fr), tl.where(vg != vg, zg, fg), tl.where(vb != vb, zb, fb)
    hit = inside(box, at)
    return tl.where(hit, fr, r), tl.where(hit, fg, g), tl.where(hit, fb, b)


@triton.jit
def stretch(x, low, factor):
    """A channel from its range to all of [0, 1]; one that is constant is left alone."""
    return tl.where(factor > 0.0, clamp((x - low) * factor), x)


@triton.jit
def adjust(CODE: tl.constexpr, CHANNELS: tl.constexpr, r, g, b, f, known, at, FORMAT: tl.constexpr):
    """A stage whose statistic is known.  f: its parameter"""
    if CODE == CONTRAST:
        factor, mean = tl.load(f), tl.load(known)
        r, g, b = blend(factor, r, mean), blend(factor, g, mean), blend(factor, b, mean)
    elif CODE == AUTOCONTRAST:
        lr, lg, lb = columns(known + at[3], FORMAT[0])
        sr, sg, sb = columns(known + CHANNELS + at[3], FORMAT[0])
        r, g, b = stretch(r, lr, sr), stretch(g, lg, sg), stretch(b, lb, sb)
    else:
        known += 256 * at[3]
        r = tl.load(known + level(r))
        if FORMAT[0] == 3:
            g, b = tl.load(known + 256 + level(g)), tl.load(known + 512 + level(b))
    return r, g, b


@triton.jit
def measure(
    CODE: tl.constexpr, CHANNELS: tl.constexpr, MONO: tl.constexpr, r, g, b, cells, mask, at, FORMAT: tl.constexpr
):
    """A tile's share of the statistic that a reducing launch is for."""
    if CODE == CONTRAST:
        add_mean(cells, luma(r, g, b, MONO), mask)
    elif CODE == AUTOCONTRAST:
        add_range(cells + at[3], r, mask, CHANNELS)
        if FORMAT[0] == 3:
            add_range(cells + 1, g, mask, CHANNELS)
            add_range(cells + 2, b, mask, CHANNELS)
    else:
        add_counts(cells + 256 * at[3], r, mask)
        if FORMAT[0] == 3:
            add_counts(cells + 256, g, mask)
            add_counts(cells + 512, b, mask)


@triton.jit
def meet(PROGRAM: tl.constexpr, K: tl.constexpr, r, g, b, seen, rows, at, FORMAT: tl.constexpr, STOP: tl.constexpr):
    """A stage with a statistic: it is known, or this is the launch that reduces it."""
    f, known = rows[0] + PROGRAM[K + 1], rows[2] + seen * PROGRAM[K + 4]
    if STOP < 0:
        r, g, b = adjust(PROGRAM[K], PROGRAM[K + 2], r, g, b, f, known, at, FORMAT)
    elif seen == STOP:
        measure(
            PROGRAM[K], PROGRAM[K + 2], PROGRAM[K + 3], r, g, b, rows[3] + STOP * PROGRAM[K + 4], rows[4], at, FORMAT
        )
    elif STOP > 0:
        r, g, b = adjust(PROGRAM[K], PROGRAM[K + 2], r, g, b, f, known, at, FORMAT)
    return r, g, b


@triton.jit
def stage(PROGRAM: tl.constexpr, K: tl.constexpr, r, g, b, seen, rows, at, FORMAT: tl.constexpr, STOP: tl.constexpr):
    """One record.  Once the statistic that a reducing launch is for has been seen, the rest of the chain is passed
    by."""
    CODE: tl.constexpr = PROGRAM[K]
    f = rows[0] + PROGRAM[K + 1]
    if (STOP < 0) | (seen <= STOP):
        if (CODE == CONTRAST) | (CODE == AUTOCONTRAST) | (CODE == EQUALIZE):
            r, g, b = meet(PROGRAM, K, r, g, b, seen, rows, at, FORMAT, STOP)
            seen += 1
        elif CODE == SALT_PEPPER:
            r, g, b = salt_pepper(r, g, b, f, rows, at, PROGRAM[K + 4], PROGRAM[K + 3], FORMAT)
        elif CODE == GAUSSIAN:
            r, g, b = gaussian(r, g, b, f, rows, at, PROGRAM[K + 4], PROGRAM[K + 3], FORMAT)
        elif CODE == ERASE:
            r, g, b = erase(r, g, b, f, rows[1] + PROGRAM[K + 2], rows, at, PROGRAM[K + 4], FORMAT)
        else:
            r, g, b = value(CODE, PROGRAM[K + 1], PROGRAM[K + 2], PROGRAM[K + 3], r, g, b, rows, at, FORMAT)
    return r, g, b, seen


@triton.jit
def choose(PROGRAM: tl.constexpr, K: tl.constexpr, r, g, b, seen, rows, at, FORMAT: tl.constexpr, STOP: tl.constexpr):
    """Step by step the sample's branch: a switch at run time, uniform in the program."""
    for step in range(PROGRAM[K + 2]):
        index = tl.load(rows[1] + PROGRAM[K + 1] + step)
        for k in tl.static_range(tl.constexpr(PROGRAM[K + 4])):
            if index == k:
                # triton 3.6 knows no slices of a tuple: a record goes by its place
                r, g, b, seen = branch(PROGRAM, RECORD * (PROGRAM[K + 3] + k), r, g, b, seen, rows, at, FORMAT, STOP)
    return r, g, b, seen


@triton.jit
def branch(PROGRAM: tl.constexpr, K: tl.constexpr, r, g, b, seen, rows, at, FORMAT: tl.constexpr, STOP: tl.constexpr):
    """The records that one points to."""
    return walk(PROGRAM, PROGRAM[K], PROGRAM[K + 1], r, g, b, seen, rows, at, FORMAT, STOP)


@triton.jit
def walk(
    PROGRAM: tl.constexpr,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
    r,
    g,
    b,
    seen,
    rows,
    at,
    FORMAT: tl.constexpr,
    STOP: tl.constexpr,
):
    """The records first to last - 1.  seen: statistics so far"""
    for k in tl.static_range(FIRST, LAST):
        if PROGRAM[RECORD * k] == CHOICE:
            r, g, b, seen = choose(PROGRAM, RECORD * k, r, g, b, seen, rows, at, FORMAT, STOP)
        else:
            r, g, b, seen = stage(PROGRAM, RECORD * k, r, g, b, seen, rows, at, FORMAT, STOP)
    return r, g, b, seen
