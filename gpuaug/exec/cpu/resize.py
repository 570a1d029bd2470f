"""A resample at work: what its rows share, and a few of its rows at a time."""

import math

from gpuaug_kernels.codes import CONSTANT, NONE
from numba import float32, int64

from gpuaug.exec.cpu import moves
from gpuaug.exec.cpu.layout import (
    BORDER,
    FILLS,
    FILTER,
    FOOTPRINT_X,
    FOOTPRINT_Y,
    IS_CLAMPED,
    IS_COPY,
    LIVE,
    OFFSET_X,
    STEP_XX,
    STEP_XY,
)
from gpuaug.exec.cpu.memory import (
    ADDRESS,
    ADDRESSES,
    AT,
    BYTES,
    CHANNEL,
    CHANNELS,
    COLUMN,
    FIRST,
    LAST,
    LAYOUT,
    LX0,
    LX1,
    LY0,
    LY1,
    MAPPED,
    MIDDLE,
    PLACE,
    ROW,
    ROW_WEIGHTS,
    RUNS,
    SCRATCH,
    SCRATCH_LONG,
    SX0,
    SX1,
    SY0,
    SY1,
    WEIGHTS,
    WIDE,
    X0,
    X1,
    Y0,
    Y1,
    constants_of,
    double_field,
    doubles_of,
    field,
    float_field,
    floats,
    get,
    ints_of,
    load_float,
    longs,
    prefetch,
    put,
    store_float,
    store_long,
)
from gpuaug.exec.cpu.produce import is_turned, size
from gpuaug.exec.cpu.resample import (
    all_finite,
    band_rows,
    band_table,
    clamp,
    columns_of_few,
    reach,
    settle,
    settle_columns,
    taps_at,
    weigh_rows,
    weigh_strided,
)
from gpuaug.exec.cpu.vectors import BAND
from gpuaug.numba_cache import njit

PLANES, PIXELS, STRIDED = 0, 1, 2
# bytes of a cache line, and how many rows of output ahead of their use input rows are asked for
_LINE, _AHEAD = 64, 4
_255 = float32(255.0)


@njit
def prepare(t, code, c):
    """What the rows of the resample at `code` share: rectangles, layout and the weights of its columns."""
    turned = is_turned(t, code)
    ints = ints_of(t, code)
    for k in range(12):
        put(t, X0 + k, field(ints, k))
    _, w = size(t, code)
    if turned:
        for k in range(4):
            put(t, LX0 + k, field(ints, LIVE + (k ^ 1)))
    put(t, LX0, min(max(get(t, LX0), 0), w))
    put(t, LX1, min(max(get(t, LX1), 0), w))
    one, step = (1 if get(t, BYTES) else 4), get(t, COLUMN)
    put(t, LAYOUT, PLANES if step == one else PIXELS if get(t, CHANNEL) == one and step == one * c else STRIDED)
    x0, x1, low, high = get(t, X0), get(t, X1), get(t, SX0), get(t, SX1)
    mapped, extend = x0 < low or x1 > high, field(code, BORDER)
    if (mapped and extend == CONSTANT) or extend == NONE:
        x0, x1 = max(x0, low), max(min(x1, high), max(x0, low))
    elif mapped:
        x0, x1 = low, high
    put(t, MAPPED, mapped)
    put(t, FIRST, x0)
    put(t, LAST, x1)
    # of the steps along x one is 0: that of output y, or, with a quarter turn, that of output x
    reals = doubles_of(t, code)
    put(t, PLACE, reals)
    along, groups = double_field(reals, STEP_XY if turned else STEP_XX), (w + BAND - 1) // BAND
    if field(code, IS_COPY):
        moves.place_columns(t, code, along, double_field(reals, OFFSET_X), w)
        return
    if not get(t, BYTES):
        _places(t, along, double_field(reals, OFFSET_X), w, c)
    runs, weights = longs(get(t, RUNS), 3 * groups), floats(get(t, WEIGHTS), 1 << 40)
    scratch = floats(get(t, SCRATCH), get(t, SCRATCH_LONG))
    x0, x1, low, high, kind = get(t, X0), get(t, X1), get(t, LX0), get(t, LX1), field(code, FILTER)
    band_table(
        along,
        double_field(reals, OFFSET_X),
        double_field(reals, FOOTPRINT_X),
        x0,
        x1,
        low,
        high,
        kind,
        groups,
        runs,
        weights,
        scratch,
    )


@njit
def _places(t, step, offset, w, c):
    """Where the nearest column of each is among sums of floats, in bytes."""
    table, x0, x1 = longs(get(t, AT), w), get(t, X0), get(t, X1)
    for x in range(w):
        i = min(max(int64(math.floor(step * x + offset + 0.5)), x0), x1 - 1)
        table[x] = (i - x0) * (4 * c if get(t, LAYOUT) == PIXELS and not get(t, MAPPED) else 4)


@njit
def resample_rows(t, code, tile, pitch, down, y0, count, w, c):
    """Rows y0 to y0 + count - 1, at `tile`, planes `pitch` and rows `down` bytes apart."""
    fill, fills = constants_of(t, code), field(code, FILLS)
    if field(code, IS_COPY):
        for r in range(count):
            moves.move_row(t, code, tile + r * down, pitch, y0 + r, w, c, fill, fills)
        return
    columns, live = get(t, X1) - get(t, X0), False
    middle, mapped = get(t, MIDDLE), get(t, MAPPED)
    for r in range(count):
        if get(t, LY0) <= y0 + r < get(t, LY1):
            live = True
            _fetch(t, y0 + r + _AHEAD)
            to = middle + 4 * r * columns * c
            _weigh(t, code, get(t, WIDE) if mapped else to, y0 + r, c, fill, fills)
            if mapped:
                _map_columns(t, to, c, field(code, BORDER), fill, fills)
    if live:
        together = get(t, LAYOUT) == PIXELS and not mapped
        column, channel = (4 * c, int64(4)) if together else (int64(4), 4 * columns)
        divisor = _255 if get(t, BYTES) else float32(1.0)
        weights, groups = get(t, WEIGHTS), (w + BAND - 1) // BAND
        band_rows(
            tile, pitch, down, middle, 4 * columns * c, column, channel, get(t, RUNS), weights, groups, c, divisor
        )
        if not get(t, BYTES):
            for r in range(count):
                if get(t, LY0) <= y0 + r < get(t, LY1):
                    _settle_row(
                        t, code, tile + r * down, pitch, middle + 4 * r * columns * c, column, channel, columns, w, c
                    )
        if field(code, IS_CLAMPED):
            for r in range(count):
                for k in range(c):
                    clamp(tile + r * down + k * pitch, w)
    for r in range(count):
        inside = get(t, LY0) <= y0 + r < get(t, LY1)
        first, last = (get(t, LX0), get(t, LX1)) if inside else (w, w)
        if first > 0 or last < w:
            _outside(tile + r * down, pitch, c, w, first, last, fill, fills)


@njit
def _fetch(t, y):
    """Ask for the input rows that output row y is the first to read: they arrive while the rows before it are made."""
    reals = get(t, PLACE)
    reach = double_field(reals, FOOTPRINT_Y)
    here, before = moves.row_position(reals, y), moves.row_position(reals, y - 1)
    first, last = int64(math.ceil(before + reach)), int64(math.ceil(here + reach))
    if here < before:
        first, last = int64(math.floor(here - reach)) + 1, int64(math.floor(before - reach)) + 1
    first, last = max(first, max(get(t, Y0), get(t, SY0))), min(last, min(get(t, Y1), get(t, SY1)))
    wide, planes = (get(t, LAST) - get(t, FIRST)) * get(t, COLUMN), 1 if get(t, LAYOUT) == PIXELS else get(t, CHANNELS)
    for j in range(first, last):
        for k in range(planes):
            at = get(t, ADDRESS) + j * get(t, ROW) + get(t, FIRST) * get(t, COLUMN) + k * get(t, CHANNEL)
            for x in range(0, wide, _LINE):
                prefetch(at + x)


@njit
def _settle_row(t, code, row, pitch, sums, column, channel, columns, w, c):
    """Columns of a row of floats from sums that are not finite, and of sums that are all the same."""
    reals, first, last = get(t, PLACE), min(get(t, LX0), w), min(get(t, LX1), w)
    finite = all_finite(sums, columns * c)
    for k in range(c):
        to, at = row + k * pitch, sums + k * channel
        if not finite:
            # of the two steps along x that of the other axis is 0
            along, scratch = (
                double_field(reals, STEP_XX) + double_field(reals, STEP_XY),
                floats(get(t, SCRATCH), get(t, SCRATCH_LONG)),
            )
            footprint, offset = double_field(reals, FOOTPRINT_X), double_field(reals, OFFSET_X)
            x0, x1, kind = get(t, X0), get(t, X1), field(code, FILTER)
            columns_of_few(to, at, column, along, offset, footprint, x0, x1, first, last, kind, scratch)
        settle_columns(to, at, longs(get(t, AT), w), first, last)


@njit
def _outside(row, pitch, c, w, first, last, fill, fills):
    """Fill beside the live columns [first, last)."""
    for k in range(c):
        value, x = float_field(fill, min(k, fills - 1)), floats(row + k * pitch, w)
        for i in range(first):
            x[i] = value
        for i in range(max(last, first), w):
            x[i] = value


@njit
def _taps(t, code, y):
    """Addresses and weights of the input rows of output row y: (number, weight of the rows that are fill)."""
    reals = get(t, PLACE)
    position = moves.row_position(reals, y)
    most = get(t, SCRATCH_LONG)
    weights, addresses = floats(get(t, ROW_WEIGHTS), most), longs(get(t, ADDRESSES), most)
    low, count = taps_at(
        position, double_field(reals, FOOTPRINT_Y), get(t, Y0), get(t, Y1), field(code, FILTER), weights
    )
    found, missing = 0, float32(0.0)
    start, step = get(t, ADDRESS) + get(t, FIRST) * get(t, COLUMN), get(t, ROW)
    for k in range(count):
        if weights[k] == float32(0.0):
            continue
        j = reach(low + k, get(t, SY0), get(t, SY1), field(code, BORDER))
        if j < 0:
            missing += weights[k]
        else:
            addresses[found], weights[found] = start + j * step, weights[k]
            found += 1
    return found, missing if found else float32(1.0)


@njit
def _weigh(t, code, to, y, c, fill, fills):
    """The weighted sum of input rows over the columns that are read, in the layout of the input."""
    taps, missing = _taps(t, code, y)
    count, layout, kind = get(t, LAST) - get(t, FIRST), get(t, LAYOUT), get(t, BYTES)
    addresses, weights = get(t, ADDRESSES), get(t, ROW_WEIGHTS)
    for k in range(1 if layout == PIXELS else c):
        if layout == STRIDED:
            weigh_strided(to + 4 * k * count, addresses, weights, taps, count, get(t, COLUMN), kind)
        else:
            weigh_rows(to + 4 * k * count, addresses, weights, taps, count * c if layout == PIXELS else count, kind)
        if not kind and taps and missing == float32(0.0):
            near = int64(0)
            for i in range(taps):
                near = i if float_field(weights, i) > float_field(weights, near) else near
            step = get(t, COLUMN) if layout == STRIDED else int64(4)
            settle(to + 4 * k * count, field(addresses, near), count * c if layout == PIXELS else count, step)
        for i in range(taps):
            store_long(addresses + 8 * i, field(addresses, i) + get(t, CHANNEL))
    if missing != float32(0.0):
        for k in range(c):
            value = missing * float_field(fill, min(k, fills - 1)) * (_255 if kind else float32(1.0))
            at, step = (to + 4 * k, 4 * c) if layout == PIXELS else (to + 4 * k * count, 4)
            for x in range(count):
                store_float(at + x * step, load_float(at + x * step) + value)


@njit
def _map_columns(t, to, c, extend, fill, fills):
    """Columns of a window that exceeds the source, as planes."""
    x0, x1, first, count = get(t, X0), get(t, X1), get(t, FIRST), get(t, LAST) - get(t, FIRST)
    for k in range(c):
        at, step = (get(t, WIDE) + 4 * k, 4 * c) if get(t, LAYOUT) == PIXELS else (get(t, WIDE) + 4 * k * count, 4)
        value = float_field(fill, min(k, fills - 1)) * (_255 if get(t, BYTES) else float32(1.0))
        for x in range(x0, x1):
            j = reach(x, get(t, SX0), get(t, SX1), extend)
            store_float(to + 4 * (k * (x1 - x0) + x - x0), load_float(at + (j - first) * step) if j >= 0 else value)
