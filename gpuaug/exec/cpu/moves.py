"""Pixels that are only moved: as rows of floats for the stages after them, or straight from the source to the output.

Where columns follow one another in the source, forwards or backwards, they are a run, which is copied as one; the few
beside it, which a border makes, go by a table."""

import math

from numba import int64, uint64

from gpuaug.exec.cpu import points
from gpuaug.exec.cpu.layout import BORDER, FILLS, OFFSET_Y, STEP_XX, STEP_YX, STEP_YY
from gpuaug.exec.cpu.memory import (
    ADDRESS,
    AT,
    BYTES,
    CHANNEL,
    COLUMN,
    LX0,
    LX1,
    LY0,
    LY1,
    PLACE,
    ROW,
    RUN_FIRST,
    RUN_LAST,
    RUN_START,
    RUN_STEP,
    SX0,
    SX1,
    SY0,
    SY1,
    TARGET,
    TARGET_CHANNEL,
    TARGET_COLUMN,
    TARGET_ROW,
    TARGET_SAMPLE,
    X0,
    X1,
    Y0,
    Y1,
    bytes_,
    constants_of,
    copy_bytes,
    copy_floats,
    double_field,
    field,
    float_field,
    floats,
    get,
    load_byte,
    load_float,
    longs,
    put,
    store_byte,
    store_float,
)
from gpuaug.exec.cpu.resample import reach
from gpuaug.numba_cache import njit


@njit
def place_columns(t, code, step, offset, w):
    """Where each column of a row of the output is in a row of the source: the run, and for the others bytes, or -1 for
    fill."""
    table, extend = longs(get(t, AT), w), field(code, BORDER)
    x0, x1, low, high = get(t, X0), get(t, X1), get(t, SX0), get(t, SX1)
    first, last, shift = get(t, LX0), get(t, LX1), int64(math.floor(offset))
    a, b, near, far = first, first, max(x0, low), min(x1, high)
    if step == 1.0:
        a, b = near - shift, far - shift
    elif step == -1.0:
        a, b = shift - far + 1, shift - near + 1
    a = min(max(a, first), last)
    b = max(min(b, last), a)
    put(t, RUN_FIRST, a)
    put(t, RUN_LAST, b)
    put(t, RUN_START, (a + shift if step == 1.0 else shift - a) * get(t, COLUMN))
    put(t, RUN_STEP, get(t, COLUMN) if step == 1.0 else -get(t, COLUMN))
    for x in range(first, last):
        if x < a or x >= b:
            i = min(max(int64(math.floor(step * x + offset)), x0), x1 - 1)
            j = reach(i, low, high, extend)
            table[x] = j * get(t, COLUMN) if j >= 0 else int64(-1)


@njit
def row_position(reals, y):
    """The position of output row y among input rows."""
    turned = double_field(reals, STEP_XX) == 0.0
    return double_field(reals, STEP_YX if turned else STEP_YY) * y + double_field(reals, OFFSET_Y)


@njit
def _source_row(t, code, y):
    """The row of the source that row y of the output is, or -1 where it is fill."""
    if not get(t, LY0) <= y < get(t, LY1) or get(t, LX1) <= get(t, LX0):
        return int64(-1)
    i = min(max(int64(math.floor(row_position(get(t, PLACE), y))), get(t, Y0)), get(t, Y1) - 1)
    return reach(i, get(t, SY0), get(t, SY1), field(code, BORDER))


@njit
def move_row(t, code, row, pitch, y, w, c, fill, fills):
    """Row y of what is moved, as planes of floats `pitch` bytes apart: each is copied, whatever it is."""
    kind, table = get(t, BYTES), longs(get(t, AT), w)
    first, last, a, b, j = get(t, LX0), get(t, LX1), get(t, RUN_FIRST), get(t, RUN_LAST), _source_row(t, code, y)
    if j < 0:
        first, last, a, b = w, w, w, w
    line, start = get(t, ADDRESS) + j * get(t, ROW), get(t, RUN_START)
    read_row(line + start, get(t, RUN_STEP), get(t, CHANNEL), kind, b - a, c, row + 4 * a, pitch)
    for k in range(c):
        at, to, value = line + k * get(t, CHANNEL), row + k * pitch, float_field(fill, min(k, fills - 1))
        for x in range(first):
            store_float(to + 4 * x, value)
        for x in range(max(last, first), w):
            store_float(to + 4 * x, value)
        if a > first or b < last:
            for x in range(first, last):
                if x < a or x >= b:
                    value_here = value
                    if table[x] >= 0:
                        value_here = points.unit(load_byte(at + table[x])) if kind else load_float(at + table[x])
                    store_float(to + 4 * x, value_here)


# ---- rows as floats


@njit
def read_row(at, step, channel, kind, count, c, to, pitch):
    """Pixels `step` bytes apart as planes of floats, bytes divided by 255."""
    if kind and channel == 1 and c == 3 and (step == 3 or step == -3):
        pixels = bytes_(min(at, at + (count - 1) * step), 3 * count)
        _read_pixels(
            pixels, step < 0, floats(to, count), floats(to + pitch, count), floats(to + 2 * pitch, count), count
        )
        return
    for k in range(c):
        read(at + k * channel, step, kind, count, to + k * pitch)


@njit(fastmath={"contract"})
def _read_pixels(pixels, back, r, g, b, count):
    if back:
        for x in range(count):
            i = 3 * (count - 1 - x)
            r[x], g[x], b[x] = (
                points.unit(pixels[uint64(i)]),
                points.unit(pixels[uint64(i + 1)]),
                points.unit(pixels[uint64(i + 2)]),
            )
    else:
        for x in range(count):
            i = 3 * x
            r[x], g[x], b[x] = (
                points.unit(pixels[uint64(i)]),
                points.unit(pixels[uint64(i + 1)]),
                points.unit(pixels[uint64(i + 2)]),
            )


@njit
def read(at, step, kind, count, to):
    """The same of one channel."""
    out = floats(to, count)
    if kind:
        if step == 1:
            pixels = bytes_(at, count)
            for x in range(count):
                out[x] = points.unit(pixels[x])
        elif step == -1:
            pixels = bytes_(at - count + 1, count)
            for x in range(count):
                out[x] = points.unit(pixels[uint64(count - 1 - x)])
        else:
            for x in range(count):
                out[x] = points.unit(load_byte(at + x * step))
    elif step == 4:
        copy_floats(to, at, count)
    else:
        for x in range(count):
            out[x] = load_float(at + x * step)


# ---- straight to the output


def _copier(array, size, copy):
    """A function that copies a run of pixels of `size` bytes a channel.  array, copy: of numbers of that size"""

    @njit
    def copy_all(to, to_step, to_channel, at, step, channel, count, c):
        back, whole = step < 0, c * size
        # the lowest address that is read
        low = at + (count - 1) * step if back else at
        apart, pixels = abs(step) == size, channel == size and abs(step) == whole
        to_apart, to_pixels = to_step == size, to_channel == size and to_step == whole
        if pixels and to_pixels and not back:
            copy(to, low, count * c)
        elif pixels and to_pixels and c == 3:
            source, out = array(low, 3 * count), array(to, 3 * count)
            for x in range(count):
                i = 3 * (count - 1 - x)
                for k in range(3):
                    out[uint64(3 * x + k)] = source[uint64(i + k)]
        elif pixels and to_apart and c == 3:
            source = array(low, 3 * count)
            r, g, b = array(to, count), array(to + to_channel, count), array(to + 2 * to_channel, count)
            if back:
                for x in range(count):
                    i = 3 * (count - 1 - x)
                    r[x], g[x], b[x] = source[uint64(i)], source[uint64(i + 1)], source[uint64(i + 2)]
            else:
                for x in range(count):
                    i = 3 * x
                    r[x], g[x], b[x] = source[uint64(i)], source[uint64(i + 1)], source[uint64(i + 2)]
        elif apart and to_pixels and c == 3 and not back:
            out = array(to, 3 * count)
            r, g, b = array(low, count), array(low + channel, count), array(low + 2 * channel, count)
            for x in range(count):
                i = 3 * x
                out[uint64(i)], out[uint64(i + 1)], out[uint64(i + 2)] = r[x], g[x], b[x]
        else:
            for k in range(c):
                line, place = at + k * channel, to + k * to_channel
                if apart and to_apart and not back:
                    copy(place, line, count)
                elif apart and to_apart:
                    source, out = array(low + k * channel, count), array(place, count)
                    for x in range(count):
                        out[x] = source[uint64(count - 1 - x)]
                else:
                    for x in range(count):
                        if size == 1:
                            store_byte(place + x * to_step, load_byte(line + x * step))
                        else:
                            store_float(place + x * to_step, load_float(line + x * step))

    return copy_all


_copy_bytes, _copy_floats = _copier(bytes_, 1, copy_bytes), _copier(floats, 4, copy_floats)


@njit
def copy_run(kind, to, to_step, to_channel, at, step, channel, count, c):
    """Copy pixels that follow one another, from addresses and steps in bytes to others.  kind 1: bytes, 0: floats"""
    if count > 0 and kind:
        _copy_bytes(to, to_step, to_channel, at, step, channel, count, c)
    elif count > 0:
        _copy_floats(to, to_step, to_channel, at, step, channel, count, c)


@njit
def _put(place, value, kind):
    """One fill."""
    if kind:
        store_byte(place, points.byte(value))
    else:
        store_float(place, value)


@njit
def straight(t, n, code, h, w, c):
    """Sample n to its output, by the move at `code`, of which `resize.prepare` knows; both are bytes, or floats."""
    kind, table, one = get(t, BYTES), longs(get(t, AT), w), 1 if get(t, BYTES) else 4
    fill, fills = constants_of(t, code), field(code, FILLS)
    step, across = get(t, TARGET_COLUMN), get(t, TARGET_CHANNEL)
    for y in range(h):
        to = get(t, TARGET) + n * get(t, TARGET_SAMPLE) + y * get(t, TARGET_ROW)
        first, last, a, b, j = get(t, LX0), get(t, LX1), get(t, RUN_FIRST), get(t, RUN_LAST), _source_row(t, code, y)
        if j < 0:
            first, last, a, b = w, w, w, w
        line = get(t, ADDRESS) + j * get(t, ROW)
        at = line + get(t, RUN_START)
        copy_run(kind, to + a * step, step, across, at, get(t, RUN_STEP), get(t, CHANNEL), b - a, c)
        if b - a == w:
            continue
        for k in range(c):
            here, place, value = line + k * get(t, CHANNEL), to + k * across, float_field(fill, min(k, fills - 1))
            if step == one:
                _fill(place, first, value, kind)
                _fill(place + max(last, first) * one, w - max(last, first), value, kind)
            else:
                for x in range(first):
                    _put(place + x * step, value, kind)
                for x in range(max(last, first), w):
                    _put(place + x * step, value, kind)
            for x in range(first, last if a > first or b < last else first):
                if x < a or x >= b:
                    if table[x] < 0:
                        _put(place + x * step, value, kind)
                    elif kind:
                        store_byte(place + x * step, load_byte(here + table[x]))
                    else:
                        store_float(place + x * step, load_float(here + table[x]))


@njit
def _fill(place, count, value, kind):
    """Fills side by side."""
    if kind:
        out, level = bytes_(place, count), points.byte(value)
        for x in range(count):
            out[x] = level
    else:
        more = floats(place, count)
        for x in range(count):
            more[x] = value
