"""Prototypes of a resample of bytes that no launch uses, in the place of functions of `gpuaug_kernels`: rows of taps
counted one by one, and rows of taps first, their means stored in shared memory, then taps along a row.

`tl.gather` is all that Triton has to read another thread's value, and it stores the tile anew for every four taps and
every channel; stored_gluon.py stores it once.  try_stored_tile.py counts both.  Values are those of taps.py but for
rounding; here means of rows stay float32."""

import triton
import triton.language as tl
from gpuaug_kernels.constants import BYTE_UNIT, LIFT, PLANES, TILE, WORDS
from gpuaug_kernels.source import snap_mean, unit_scale
from gpuaug_kernels.taps import (
    axis_taps,
    byte_means,
    column_weight,
    inverse_weight,
    plane_sums,
    row_sums,
    tap_weight,
)
from gpuaug_kernels.words import funnel, join4, load_taps, split4, word_base

# ---- rows counted, not in pairs


@triton.jit
def counted_means(image, along, rows, x1, y1, TAPS: tl.constexpr, FORM: tl.constexpr):
    """taps.byte_means, but that no row of taps is read that weighs nothing, and none beside another."""
    first_x, beyond_x, slope_x, taps_x = along
    first_y, beyond_y, slope_y, taps_y = rows
    words, beyond = word_base(image, 4)
    pitch = image.row_stride.to(tl.int32)
    slope_x *= LIFT
    r = tl.zeros_like(beyond_x)
    g, b, total_x, total_y = r, r, r, r
    for k in range(0, taps_x, TAPS):
        tap = tl.minimum(first_x + k, x1 - TAPS)
        column, place = tap if FORM == PLANES else 3 * tap + beyond, tap - first_x
        distance = place.to(tl.float32) - beyond_x
        w0 = tl.where(place < k, 0.0, column_weight(distance, slope_x))
        w1, w2, w3 = w0, w0, w0
        total_x += w0
        if TAPS > 1:
            w1 = tl.where(place + 1 < k, 0.0, column_weight(distance + 1.0, slope_x))
            total_x += w1
        if TAPS > 2:
            w2 = tl.where(place + 2 < k, 0.0, column_weight(distance + 2.0, slope_x))
            w3 = tl.where(place + 3 < k, 0.0, column_weight(distance + 3.0, slope_x))
            total_x += w2 + w3
        total_y = tl.zeros_like(total_y)
        for j in range(0, taps_y):
            v = tap_weight(first_y, beyond_y, slope_y, j, y1)
            row = tl.minimum(first_y + j, y1 - 1) * pitch + column
            if FORM == PLANES:
                sr, sg, sb = plane_sums(image, row, w0, w1, w2, w3, TAPS)
            else:
                p, q, s = load_taps(words, row, pitch, TAPS)
                sr, sg, sb = row_sums(p, q, s, w0, w1, w2, w3, TAPS)
            r, g, b = r + v * sr, g + v * sg, b + v * sb
            total_y += v
    over = inverse_weight(total_y) * inverse_weight(total_x * BYTE_UNIT)
    return r * over, g * over, b * over


# ---- rows first, the tile stored once


@triton.jit
def stored_words(image, i, d, down, across, FORMAT: tl.constexpr):
    """source.triangle_words by a stored tile: all columns of the tile of the output together where 64 columns of the
    image hold their taps, else eight after each other where these do."""
    x0, x1, y1 = tl.load(i), tl.load(i + 2), tl.load(i + 3)
    place = tl.arange(0, TILE * TILE)
    footprint, first = (tl.load(d + 6), tl.load(d + 7)), (x0, tl.load(i + 1))
    all_left, all_need = part_window(across, footprint[0], x0, x1, 0, TILE)
    # columns that any eight of them take at most
    some_need = tl.ceil(2.0 * footprint[0] + 7.0 * tl.abs(across.step)).to(tl.int32) + 1
    words: tl.constexpr = FORMAT.form == WORDS
    if (all_need <= 32) & words:
        r, g, b = part_means(image, down, across, footprint, first, (all_left, x1, y1), 0, TILE, 32)
    elif (all_need <= 64) & words:
        r, g, b = part_means(image, down, across, footprint, first, (all_left, x1, y1), 0, TILE, 64)
    elif (some_need <= 64) & words:
        r, g, b = parts_means(image, down, across, footprint, first, x1, y1)
    else:
        along = axis_taps(across, footprint[0], x0, x1, place % TILE)
        rows = axis_taps(down, footprint[1], first[1], y1, place // TILE)
        if x1 - x0 < 4:
            r, g, b = byte_means(image, along, rows, x1, y1, 1, FORMAT.form)
        else:
            r, g, b = byte_means(image, along, rows, x1, y1, 4, FORMAT.form)
    one = unit_scale(image, FORMAT)
    return snap_mean(r, r, one), snap_mean(g, g, one), snap_mean(b, b, one)


@triton.jit
def part_window(across, footprint, x0, x1, begin, WIDE: tl.constexpr):
    """The least column of the taps of WIDE columns of the tile from one on, and how many columns they take."""
    near, _, _, taps = axis_taps(across, footprint, x0, x1, tl.full((), 0, tl.int32) + begin)
    far, _, _, _ = axis_taps(across, footprint, x0, x1, tl.full((), WIDE - 1, tl.int32) + begin)
    left = tl.minimum(near, far)
    return left, tl.minimum(tl.maximum(near, far) + taps, x1) - left


@triton.jit
def parts_means(image, down, across, footprint, first, x1, y1):
    """part_means of the whole tile, eight columns of the output after each other."""
    r = tl.zeros((TILE, TILE // 8, 8), tl.float32)
    g, b = r, r
    number = tl.arange(0, TILE // 8)[None, :, None]
    for k in range(0, TILE // 8):
        left, _ = part_window(across, footprint[0], first[0], x1, 8 * k, 8)
        pr, pg, pb = part_means(image, down, across, footprint, first, (left, x1, y1), 8 * k, 8, 64)
        mine = number == k
        r = tl.where(mine, tl.reshape(pr, (TILE, 1, 8)), r)
        g = tl.where(mine, tl.reshape(pg, (TILE, 1, 8)), g)
        b = tl.where(mine, tl.reshape(pb, (TILE, 1, 8)), b)
    return tl.reshape(r, (TILE * TILE,)), tl.reshape(g, (TILE * TILE,)), tl.reshape(b, (TILE * TILE,))


@triton.jit
def part_means(image, down, across, footprint, first, window, begin, WIDE: tl.constexpr, COLUMNS: tl.constexpr):
    """Weighted means of three channels, in bytes: [TILE * WIDE].

    down, across: the tile's axes; footprint, first: half widths of the kernel and the window's begin, along x and y;
    window: the least column of the part's taps, and the window's end; begin: the part's first column in the tile;
    COLUMNS: of what is stored"""
    left, x1, _ = window
    red, green, blue = row_means(image, down, footprint[1], first[1], window, COLUMNS)
    place = tl.arange(0, TILE * WIDE)
    first_x, beyond_x, slope_x, taps_x = axis_taps(across, footprint[0], first[0], x1, begin + place % WIDE)
    at = (place // WIDE) * COLUMNS + (first_x - left)
    last = TILE * COLUMNS - 1
    r = tl.zeros_like(beyond_x)
    g, b, total = r, r, r
    for k in range(0, taps_x, 4):
        # what lies beyond what is stored weighs nothing
        p0, p1, p2, p3 = (at + k) & last, (at + k + 1) & last, (at + k + 2) & last, (at + k + 3) & last
        taps = join4(p0, p1, p2, p3)
        w0, w1 = tap_weight(first_x, beyond_x, slope_x, k, x1), tap_weight(first_x, beyond_x, slope_x, k + 1, x1)
        w2, w3 = tap_weight(first_x, beyond_x, slope_x, k + 2, x1), tap_weight(first_x, beyond_x, slope_x, k + 3, x1)
        r += gathered(red, taps, w0, w1, w2, w3)
        g += gathered(green, taps, w0, w1, w2, w3)
        b += gathered(blue, taps, w0, w1, w2, w3)
        total += w0 + w1 + w2 + w3
    over = inverse_weight(total)
    return r * over, g * over, b * over


@triton.jit
def gathered(tile, at, w0, w1, w2, w3):
    """The weighted sum of four values of the tile."""
    a, b, c, d = split4(tl.gather(tile, at, 0))
    return w0 * a + w1 * b + w2 * c + w3 * d


@triton.jit
def row_means(image, down, footprint, first, window, COLUMNS: tl.constexpr):
    """[TILE * COLUMNS] three times: of every row of the tile and every column from the window's on the mean of a
    column's taps, in bytes.  Columns beyond the window are anything that is finite."""
    left, x1, y1 = window
    GROUPS: tl.constexpr = COLUMNS // 4
    item = tl.arange(0, TILE * GROUPS)
    first_y, beyond_y, slope_y, taps_y = axis_taps(down, footprint, first, y1, item // GROUPS)
    words, beyond = word_base(image, 4)
    pitch = image.row_stride.to(tl.int32)
    bits = level_bits(pitch)
    column = 3 * (left + 4 * (item % GROUPS)) + beyond
    end = 3 * x1 - 1 + beyond
    zero = tl.zeros((TILE * GROUPS,), tl.float32)
    sums = (zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero)
    total = zero
    for j in range(0, taps_y, 2):
        v = tap_weight(first_y, beyond_y, slope_y, j, y1)
        w = tap_weight(first_y, beyond_y, slope_y, j + 1, y1)
        upper, lower = tl.minimum(first_y + j, y1 - 1) * pitch, tl.minimum(first_y + j + 1, y1 - 1) * pitch
        p0, q0, s0 = four_pixels(words, upper + column, (upper + end) >> 2)
        p1, q1, s1 = four_pixels(words, lower + column, (lower + end) >> 2)
        sums = add_row(sums, v, p0, q0, s0, bits)
        sums = add_row(sums, w, p1, q1, s1, bits)
        total += v + w
    over = inverse_weight(total)
    return (
        joined_mean(sums[0], sums[3], sums[6], sums[9], over),
        joined_mean(sums[1], sums[4], sums[7], sums[10], over),
        joined_mean(sums[2], sums[5], sums[8], sums[11], over),
    )


@triton.jit
def joined_mean(a, b, c, d, over):
    """Four columns of a channel one after the other, as means.  a, b, c, d: sums of 256 + bytes"""
    return join4(a * over - 256.0, b * over - 256.0, c * over - 256.0, d * over - 256.0)


@triton.jit
def level_bits(pitch):
    """256.0 as bits, by way of something that is not known when compiling: one instruction then masks a byte and sets
    these.  pitch: anything from 0 on, int32"""
    return (0x43800000 + (pitch >> 31)).to(tl.uint32)


@triton.jit
def level_float(word, K: tl.constexpr, bits):
    """256 + byte K of a uint32, exactly.  bits: of level_bits"""
    if K < 2:
        moved = word << (15 - 8 * K)
    else:
        moved = word >> (8 * K - 15)
    return ((moved & 0x7F8000) | bits).to(tl.float32, bitcast=True)


@triton.jit
def four_pixels(words, at, last):
    """Four pixels of three bytes from a place on, as three words.  last: the last word that is read"""
    first, shift = at >> 2, ((at & 3) * 8).to(tl.uint32)
    p, q = tl.load(words + tl.minimum(first, last)), tl.load(words + tl.minimum(first + 1, last))
    s, t = tl.load(words + tl.minimum(first + 2, last)), tl.load(words + tl.minimum(first + 3, last))
    return funnel(p, q, shift), funnel(q, s, shift), funnel(s, t, shift)


@triton.jit
def add_row(sums, v, p, q, s, bits):
    """Sums of twelve values with one more row.  p, q, s: its bytes"""
    return (
        sums[0] + v * level_float(p, 0, bits),
        sums[1] + v * level_float(p, 1, bits),
        sums[2] + v * level_float(p, 2, bits),
        sums[3] + v * level_float(p, 3, bits),
        sums[4] + v * level_float(q, 0, bits),
        sums[5] + v * level_float(q, 1, bits),
        sums[6] + v * level_float(q, 2, bits),
        sums[7] + v * level_float(q, 3, bits),
        sums[8] + v * level_float(s, 0, bits),
        sums[9] + v * level_float(s, 1, bits),
        sums[10] + v * level_float(s, 2, bits),
        sums[11] + v * level_float(s, 3, bits),
    )
