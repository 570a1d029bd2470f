"""Rows of several resamples as one: a projective map under a triangle, from an image of any strides, bytes or
floats."""

import math

from numba import float32, int64

from gpuaug.exec.cpu.layout import (
    BOTTOM,
    FILLS,
    LEFT,
    MATRIX,
    PROJECT_FOOTPRINT_X,
    PROJECT_FOOTPRINT_Y,
    RIGHT,
    TOP,
)
from gpuaug.exec.cpu.memory import (
    ADDRESS,
    BYTES,
    CHANNEL,
    COLUMN,
    PX,
    PY,
    ROW,
    ROW_WEIGHTS,
    SCRATCH,
    SCRATCH_LONG,
    constants_of,
    double_field,
    doubles,
    doubles_of,
    field,
    float_field,
    floats,
    get,
    ints_of,
    load_byte,
    load_float,
    store_float,
)
from gpuaug.exec.cpu.warp import positions
from gpuaug.numba_cache import njit

_0 = float32(0.0)


@njit
def triangle(position, footprint, over, first, last, out):
    """Weights of the taps in [first, last), not normalised: writes out[0 .. count), gives (first tap, count, their sum,
    that of all taps).

    over: 1 / footprint
    """
    # no tap lies further away than this, and none at NaN
    p = position if position > first - footprint - 2.0 else first - footprint - 2.0
    p = p if p < last + footprint + 2.0 else last + footprint + 2.0
    low, high = int64(math.floor(p - footprint)) + 1, int64(math.ceil(p + footprint))
    near = max(low, first)
    count = max(min(min(high, last) - near, len(out)), 0)
    inside = 0.0
    for k in range(count):
        v = max(1.0 - abs(near + k - p) * over, 0.0)
        out[k] = float32(v)
        inside += v
    every = inside
    if count < high - low:
        every = 0.0
        for i in range(low, high):
            every += max(1.0 - abs(i - p) * over, 0.0)
    return near, count, inside, every


@njit(forceinline=True)
def _pixel(at, kind):
    return float32(load_byte(at)) if kind else load_float(at)


@njit(fastmath={"contract"}, forceinline=True)
def three_sums(at, row, column, channel, kind, wx, columns, wy, rows):
    """Weighted sums of a block of pixels in three channels.  at: of its first pixel; row, column, channel: bytes"""
    a, b, c = _0, _0, _0
    for j in range(rows):
        p, q, r, place = _0, _0, _0, at + j * row
        for i in range(columns):
            w = wx[i]
            p += w * _pixel(place, kind)
            q += w * _pixel(place + channel, kind)
            r += w * _pixel(place + 2 * channel, kind)
            place += column
        a, b, c = a + wy[j] * p, b + wy[j] * q, c + wy[j] * r
    return a, b, c


@njit(fastmath={"contract"})
def one_sum(at, row, column, kind, wx, columns, wy, rows):
    """The same of one channel."""
    a = _0
    for j in range(rows):
        p, place = _0, at + j * row
        for i in range(columns):
            p += wx[i] * _pixel(place, kind)
            place += column
        a += wy[j] * p
    return a


@njit
def project_row(t, code, to, pitch, y, w, c):
    """Row y of the pass at `code`: planes of floats at `to`, `pitch` bytes apart."""
    reals, window = doubles_of(t, code), ints_of(t, code)
    consts, count = constants_of(t, code), field(code, FILLS)
    wide, high = double_field(reals, PROJECT_FOOTPRINT_X), double_field(reals, PROJECT_FOOTPRINT_Y)
    x0, y0, x1, y1 = field(window, LEFT), field(window, TOP), field(window, RIGHT), field(window, BOTTOM)
    here, row, column, channel, kind = get(t, ADDRESS), get(t, ROW), get(t, COLUMN), get(t, CHANNEL), get(t, BYTES)
    px, py = doubles(get(t, PX), w), doubles(get(t, PY), w)
    wx, wy = floats(get(t, SCRATCH), get(t, SCRATCH_LONG)), floats(get(t, ROW_WEIGHTS), get(t, SCRATCH_LONG))
    unit, over_x, over_y = 255.0 if kind else 1.0, 1.0 / wide, 1.0 / high
    positions(doubles(reals, MATRIX), y, w, px, py)
    for x in range(w):
        left, columns, inside_x, every_x = triangle(px[x], wide, over_x, x0, x1, wx)
        top, rows, inside_y, every_y = triangle(py[x], high, over_y, y0, y1, wy)
        inside, every = inside_x * inside_y, every_x * every_y
        at, k, place = here + top * row + left * column, 0, to + 4 * x
        # where nothing is inside, a pass without fill gives what 0 / 0 does
        scale = float32(1.0 / ((every if count else inside) * unit))
        while k < c:
            if c - k >= 3:
                # the kind as a constant, so that no load tests it
                if kind:
                    p, q, r = three_sums(at, row, column, channel, 1, wx, columns, wy, rows)
                else:
                    p, q, r = three_sums(at, row, column, channel, 0, wx, columns, wy, rows)
                store_float(place, p * scale)
                store_float(place + pitch, q * scale)
                store_float(place + 2 * pitch, r * scale)
            else:
                store_float(place, one_sum(at, row, column, kind, wx, columns, wy, rows) * scale)
            step = 3 if c - k >= 3 else 1
            k, at, place = k + step, at + step * channel, place + step * pitch
        if count and inside < every:
            rest = float32(1.0 - inside / every)
            for k in range(c):
                place = to + k * pitch + 4 * x
                store_float(place, load_float(place) + rest * float_field(consts, min(k, count - 1)))
