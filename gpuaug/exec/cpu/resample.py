"""Rows of a separable resample: a weighted sum of input rows, then a banded product along the columns."""

import math

from gpuaug_kernels.codes import CUBIC, EDGE, FLOOR, LANCZOS, NOTHING, REFLECT, SYMMETRIC, TRIANGLE
from numba import float32, int32, int64

from gpuaug.exec.cpu.memory import field, float_field, floats, load_byte, load_float, store_float
from gpuaug.exec.cpu.vectors import (
    BAND,
    LANES,
    band_1,
    band_3,
    band_pixels,
    vertical_f32,
    vertical_f32_one,
    vertical_u8,
    vertical_u8_one,
)
from gpuaug.numba_cache import njit

_0 = float32(0.0)
# values that differ by less, as a part of one of them, differ by what rounding does to a sum
_ROUNDING = float32(2.0**-20)
_LARGEST = float32(3.4e38)


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
def weight_at(u, kind):
    """The weight of a tap by its distance as a part of the half width."""
    if u >= 1.0 - NOTHING:
        return 0.0
    if kind == TRIANGLE:
        return 1.0 - u
    if kind == LANCZOS:
        # sinc(3 u) sinc(u), since sin(3 t) = sin(t) (3 - 4 sin(t)^2)
        t = math.pi * u
        sine = math.sin(t)
        w = (sine / t) ** 2 * (1.0 - 4.0 / 3.0 * sine * sine) if t > 1e-9 else 1.0
    else:
        a, x = -0.75 if kind == CUBIC else -0.5, 2.0 * u
        w = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0 if x < 1.0 else a * (((x - 5.0) * x + 8.0) * x - 4.0)
    return w if abs(w) >= NOTHING else 0.0


@njit
def taps_at(position, footprint, first, last, kind, out):
    """Normalised float32 weights around a position: writes out[0 .. count), gives (first tap, count).  kind: the
    kernels' code of what weighs them"""
    if kind == FLOOR:
        out[0] = float32(1.0)
        return min(max(int64(math.floor(position)), first), last - 1), int64(1)
    # taps whose weight is below NOTHING are left out, and the others normalised without them
    half = footprint * (1.0 - NOTHING)
    low = max(int64(math.floor(position - half)) + 1, first)
    high = min(int64(math.ceil(position + half)), last)
    count = max(min(high - low, len(out)), 0)
    total = 0.0
    inverse = 1.0 / footprint
    for k in range(count):
        total += weight_at(abs(low + k - position) * inverse, kind)
    # where a position lies beyond the part that is read there may be no tap at all
    scale = 1.0 / total if total > 0.0 else 0.0
    for k in range(count):
        out[k] = float32(weight_at(abs(low + k - position) * inverse, kind) * scale)
    return low, count


@njit
def taps_most(footprint):
    """The most taps of one position."""
    return int64(math.ceil(2.0 * footprint)) + 2


@njit
def run_most(step, footprint):
    """The most input columns that BAND neighbouring outputs read."""
    return int64(math.ceil((BAND - 1) * abs(step) + 2.0 * footprint)) + 3


@njit
def band_table(step, offset, footprint, first, last, live_first, live_last, kind, groups, runs, weights, scratch):
    """Weights of all output columns in groups of BAND.  runs: 3 numbers a group; weights: [rows, BAND]; input columns
    count from `first`."""
    # the taps of `taps_at`, which no group needs to exceed
    row, half = 0, 0.0 if kind == FLOOR else footprint * (1.0 - NOTHING)
    for g in range(groups):
        x0, x1 = max(g * BAND, live_first), min(g * BAND + BAND, live_last)
        if x1 <= x0:
            runs[3 * g], runs[3 * g + 1], runs[3 * g + 2] = 0, 0, row
            continue
        a, b = step * x0 + offset, step * (x1 - 1) + offset
        near, far = min(a, b), max(a, b)
        begin, end = int64(math.floor(near - half)) + 1, int64(math.ceil(far + half))
        if kind == FLOOR:
            begin, end = begin - 1, int64(math.floor(far)) + 1
        low = min(max(begin, first), last - 1)
        high = max(min(end, last), low + 1)
        runs[3 * g], runs[3 * g + 1], runs[3 * g + 2] = low - first, high - low, row
        for i in range(row * BAND, (row + high - low) * BAND):
            weights[i] = _0
        for x in range(x0, x1):
            tap, count = taps_at(step * x + offset, footprint, first, last, kind, scratch)
            at = (row + tap - low) * BAND + x - g * BAND
            for k in range(count):
                weights[at + k * BAND] = scratch[k]
        row += high - low


@njit
def weigh_rows(to, rows, by, taps, count, kind):
    """out[0 .. count) = sum of weights times rows.  to, by: addresses of floats; rows: of the rows' addresses; kind 1:
    bytes, 0: floats"""
    many = count // (4 * LANES)
    done = many * 4 * LANES
    if kind:
        vertical_u8(to, rows, by, taps, 0, many)
    else:
        vertical_f32(to, rows, by, taps, 0, many)
    while done < count and count >= LANES:
        # the last run overlaps the one before: no pixel beyond the row is touched
        first = min(done, count - LANES)
        if kind:
            vertical_u8_one(to, rows, by, taps, first, 1)
        else:
            vertical_f32_one(to, rows, by, taps, first, 1)
        done = first + LANES
    if done < count:
        weigh_strided(to, rows, by, taps, count, 1 if kind else 4, kind)


@njit(fastmath={"contract"})
def weigh_strided(to, rows, by, taps, count, step, kind):
    """The same a pixel at a time, for any distance `step` in bytes: to the same bits, so that no layout of memory is
    seen."""
    for x in range(count):
        total = _0
        for k in range(taps):
            at = field(rows, k) + x * step
            pixel = float32(load_byte(at)) if kind else load_float(at)
            total += float_field(by, k) * pixel
        store_float(to + 4 * x, total)


@njit
def settle(to, near, count, step):
    """The value of the nearest row where a sum of rows differs from it by rounding alone.  to, near: addresses of
    floats, near `step` bytes apart"""
    for x in range(count):
        value, tap = float_field(to, x), load_float(near + x * step)
        store_float(to + 4 * x, tap if abs(value - tap) <= _ROUNDING * abs(tap) else value)


@njit
def settle_columns(to, source, places, first, last):
    """The same of the columns [first, last) of a row.  places: bytes from `source` to the nearest column of each"""
    for x in range(first, last):
        value, tap = float_field(to, x), load_float(source + places[x])
        store_float(to + 4 * x, tap if abs(value - tap) <= _ROUNDING * abs(tap) else value)


@njit
def clamp(at, count):
    """A row of floats kept in [0, 1]."""
    row = floats(at, count)
    for x in range(count):
        row[x] = min(max(row[x], _0), float32(1.0))


@njit
def all_finite(at, count):
    """Whether floats in a row are numbers, all of them."""
    lost = int32(0)
    for x in range(count):
        lost |= int32(0) if abs(float_field(at, x)) <= _LARGEST else int32(1)
    return lost == 0


@njit
def columns_of_few(to, source, column, step, offset, footprint, first, last, live_first, live_last, kind, scratch):
    """A row of outputs one at a time, by the taps that weigh something only: what a band multiplies by 0 may be
    NaN."""
    for x in range(live_first, live_last):
        tap, count = taps_at(step * x + offset, footprint, first, last, kind, scratch)
        total = _0
        for k in range(count):
            if scratch[k] != _0:
                total += scratch[k] * load_float(source + (tap - first + k) * column)
        store_float(to + 4 * x, total)


@njit
def band_rows(to, across, down, source, row, column, channel, runs, weights, groups, channels, divisor):
    """Output rows from rows of column sums.  across, down: bytes between channels and rows of the output; row, column,
    channel: of the sums"""
    c = 0
    while channel == 4 and channels - c >= 3:
        band_pixels(
            to + c * across, down, across, source + c * channel, row, column, channel, runs, weights, groups, divisor
        )
        c += 3
    while channels - c >= 3:
        band_3(
            to + c * across, down, across, source + c * channel, row, column, channel, runs, weights, groups, divisor
        )
        c += 3
    while c < channels:
        band_1(
            to + c * across, down, across, source + c * channel, row, column, channel, runs, weights, groups, divisor
        )
        c += 1
