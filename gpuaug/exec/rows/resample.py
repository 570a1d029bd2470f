"""Rows of a separable resample: a weighted sum of input rows, then a banded product along the columns."""

import math

from numba import carray, float32, int64, njit

from gpuaug.exec.rows.vectors import (
    LANES,
    band_1,
    band_3,
    f32_pointer,
    u8_pointer,
    vertical_f32,
    vertical_f32_one,
    vertical_u8,
    vertical_u8_one,
)

NONE, CONSTANT, EDGE, REFLECT, SYMMETRIC = range(5)


@njit
def reach(i, low, high, extend):
    """Where tap i is read in [low, high), or -1 where it is fill."""
    if low <= i < high:
        return i
    n = max(high - low, 1)
    if extend == REFLECT:
        period = max(2 * n - 2, 1)
        j = (i - low) % period
        return low + (j if j < n else period - j)
    if extend == SYMMETRIC:
        j = (i - low) % (2 * n)
        return low + (j if j < n else 2 * n - 1 - j)
    if extend == EDGE:
        return min(max(i, low), low + n - 1)
    return int64(-1)


@njit
def taps_at(position, footprint, first, last, floor, out):
    """Normalised float32 weights around a position: writes out[0 .. count), gives (first tap, count)."""
    if floor:
        out[0] = float32(1.0)
        return min(max(int64(math.floor(position)), first), last - 1), 1
    low = max(int64(math.floor(position - footprint)) + 1, first)
    high = min(int64(math.ceil(position + footprint)), last)
    count = max(min(high - low, len(out)), 0)
    total = 0.0
    inverse = 1.0 / footprint
    for k in range(count):
        total += max(0.0, 1.0 - abs(low + k - position) * inverse)
    # outside the live part there may be no tap at all
    scale = 1.0 / total if total > 0.0 else 0.0
    for k in range(count):
        out[k] = float32(max(0.0, 1.0 - abs(low + k - position) * inverse) * scale)
    return low, count


@njit
def taps_most(footprint):
    """The most taps of one position."""
    return int64(math.ceil(2.0 * footprint)) + 2


@njit
def run_most(step, footprint):
    """The most input columns that 16 neighbouring outputs meet."""
    return int64(math.ceil((LANES - 1) * abs(step) + 2.0 * footprint)) + 3


@njit
def band_table(step, offset, footprint, first, last, live_first, live_last, floor, runs, weights, scratch):
    """Weights of all output columns in groups of 16.  runs: [groups, 3]; weights: [rows, 16] flat; input columns count from `first`."""
    row = 0
    for g in range(len(runs)):
        x0, x1 = max(g * LANES, live_first), min(g * LANES + LANES, live_last)
        if x1 <= x0:
            runs[g, 0], runs[g, 1], runs[g, 2] = 0, 0, row
            continue
        a, b = step * x0 + offset, step * (x1 - 1) + offset
        near, far = min(a, b), max(a, b)
        low = min(max(int64(math.floor(near - footprint)), first), last - 1)
        high = max(min(int64(math.ceil(far + footprint)) + 1, last), low + 1)
        runs[g, 0], runs[g, 1], runs[g, 2] = low - first, high - low, row
        weights[row * LANES : (row + high - low) * LANES] = float32(0.0)
        for x in range(x0, x1):
            tap, count = taps_at(step * x + offset, footprint, first, last, floor, scratch)
            at = (row + tap - low) * LANES + x - g * LANES
            for k in range(count):
                weights[at + k * LANES] = scratch[k]
        row += high - low


@njit
def gather_row(source, y, first, count, channels, kind, out):
    """Pixels of one input row, any strides, as floats [channels, count] in out."""
    at, sx, sc = source[0] + y * source[3] + first * source[4], source[4], source[5]
    for c in range(channels):
        base = at + c * sc
        if kind:
            if sx == 1:
                bytes_ = carray(u8_pointer(base), (count,))
                for x in range(count):
                    out[c * count + x] = float32(bytes_[x])
            else:
                for x in range(count):
                    out[c * count + x] = float32(u8_pointer(base + x * sx)[0])
        elif sx == 4:
            floats = carray(f32_pointer(base), (count,))
            for x in range(count):
                out[c * count + x] = floats[x]
        else:
            for x in range(count):
                out[c * count + x] = f32_pointer(base + x * sx)[0]


@njit
def weigh_rows(out, addresses, weights, taps, count, kind):
    """out[0 .. count) = sum of weights times the rows at the addresses; kind 1: bytes, 0: floats."""
    to, rows, by = out.ctypes.data, addresses.ctypes.data, weights.ctypes.data
    many = count // (4 * LANES)
    done = many * 4 * LANES
    few = (count - done) // LANES
    if kind:
        vertical_u8(to, rows, by, taps, 0, many)
        vertical_u8_one(to, rows, by, taps, done, few)
    else:
        vertical_f32(to, rows, by, taps, 0, many)
        vertical_f32_one(to, rows, by, taps, done, few)
    done += few * LANES
    if done == count:
        return
    if count >= LANES:
        # the last run overlaps the one before: no pixel beyond the row is touched
        if kind:
            vertical_u8_one(to, rows, by, taps, count - LANES, 1)
        else:
            vertical_f32_one(to, rows, by, taps, count - LANES, 1)
        return
    for x in range(done, count):
        total = float32(0.0)
        for k in range(taps):
            pixel = float32(u8_pointer(addresses[k] + x)[0]) if kind else f32_pointer(addresses[k] + 4 * x)[0]
            total += weights[k] * pixel
        out[x] = total


@njit
def band_rows(tile, middle, row, column, channel, runs, weights, channels, divisor):
    """ROWS output rows from ROWS rows of column sums.  tile: [ROWS, channels, width]; row, column, channel: strides of `middle` in bytes"""
    to, source = tile.ctypes.data, middle.ctypes.data
    across, down = 4 * tile.shape[2], 4 * tile.shape[1] * tile.shape[2]
    table, by = runs.ctypes.data, weights.ctypes.data
    c = 0
    while c < channels:
        out, start = to + c * across, source + c * channel
        if channels - c >= 3:
            band_3(out, down, across, start, row, column, channel, table, by, len(runs), divisor)
            c += 3
        else:
            band_1(out, down, across, start, row, column, channel, table, by, len(runs), divisor)
            c += 1


@njit
def extend_columns(middle, at, column, channel, channels, x0, x1, sx0, sx1, extend, fill, raw):
    """Column sums outside the source columns [sx0, sx1) of the window [x0, x1), by the border's rule.  column, channel: in floats"""
    for x in range(x0, x1):
        if sx0 <= x < sx1:
            continue
        j = reach(int64(x), int64(sx0), int64(sx1), extend)
        for c in range(channels):
            value = middle[at + (j - x0) * column + c * channel] if j >= 0 else fill[min(c, len(fill) - 1)] * raw
            middle[at + (x - x0) * column + c * channel] = value


@njit
def outside_live(tile, r, channels, width, first, last, fill):
    """Fill outside the columns [first, last) of row r of a tile."""
    for c in range(channels):
        value = fill[min(c, len(fill) - 1)]
        for x in range(min(max(first, 0), width)):
            tile[r, c, x] = value
        for x in range(max(last, 0), width):
            tile[r, c, x] = value
