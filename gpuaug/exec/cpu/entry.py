"""The one compiled entry point: the samples of a batch through a plan, shared out among threads."""

import numpy as np
from gpuaug_kernels.codes import (
    EPOCH_BITS,
    KEY_C2,
    KEY_C3,
    KEY_HIGH,
    KEY_LENGTH,
    KEY_LOW,
    KEY_OCCURRENCE,
    OCCURRENCE_SHIFT,
)
from numba import uint32

from gpuaug.exec.cpu import memory as m
from gpuaug.exec.cpu.layout import (
    BLUR,
    CUTMIX,
    DOUBLE_COLUMN,
    FOOTPRINT_X,
    FOOTPRINT_Y,
    IMAGE_HEIGHT,
    IMAGE_WIDTH,
    INT_COLUMN,
    LEFT,
    LENGTH,
    MADE_HEIGHT,
    MADE_WIDTH,
    MIX_INSIDE,
    MIXUP,
    OP,
    OUT_HEIGHT,
    OUT_WIDTH,
    PARTNER,
    PROJECT,
    PROJECT_FOOTPRINT_X,
    PROJECT_FOOTPRINT_Y,
    RESAMPLE,
    RIGHT,
    STEP_XX,
    STEP_XY,
    TAPS_X,
    TAPS_Y,
    WARP,
)
from gpuaug.exec.cpu.memory import double_field, field, get, put, take_next, words
from gpuaug.exec.cpu.resample import run_most, taps_most
from gpuaug.exec.cpu.vectors import BAND, LANES, ROWS, settle_streams
from gpuaug.exec.cpu.walk import AT_ONCE, sample
from gpuaug.numba_cache import kernel, njit

_FLOATS, _WIDTH, _COLUMNS, _SOURCE, _TAPS, _BAND = range(6)
_INSTRUCTION = 8 * LENGTH  # bytes


@njit
def _raise(most, h, w):
    most[_FLOATS], most[_WIDTH] = max(most[_FLOATS], (h + 3) * (w + 4)), max(most[_WIDTH], w)
    most[_SOURCE] = max(most[_SOURCE], w)


@njit
def _measure(t, first, last, most):
    """The most that any sample needs: floats of a plane, width, window columns, columns read, taps, rows of weights.

    Gives -1, or the first sample whose partner is not one of these samples: nothing else checks the partner before its
    pixels are read.
    """
    for n in range(first, last):
        source = get(t, m.SOURCES) + n * get(t, m.SOURCE_ROW)
        ints, reals = get(t, m.INTS) + n * get(t, m.INT_BYTES), get(t, m.DOUBLES) + n * get(t, m.DOUBLE_BYTES)
        _raise(most, field(source, IMAGE_HEIGHT), field(source, IMAGE_WIDTH))
        for pc in range(get(t, m.ROWS_OF_CODE)):
            code = get(t, m.CODE) + _INSTRUCTION * pc
            op = field(code, OP)
            if op == WARP:
                _raise(most, field(code, MADE_HEIGHT), field(code, MADE_WIDTH))
            elif op == CUTMIX or op == MIXUP or op == MIX_INSIDE:
                if not first <= field(ints, field(code, INT_COLUMN) + PARTNER) < last:
                    return n
            elif op == PROJECT:
                _raise(most, field(code, MADE_HEIGHT), field(code, MADE_WIDTH))
                at = reals + 8 * field(code, DOUBLE_COLUMN)
                fx, fy = double_field(at, PROJECT_FOOTPRINT_X), double_field(at, PROJECT_FOOTPRINT_Y)
                most[_TAPS] = max(most[_TAPS], max(taps_most(fx), taps_most(fy)))
            elif op == BLUR:
                taps_x, taps_y = field(code, TAPS_X), field(code, TAPS_Y)
                most[_BAND] = max(most[_BAND], (taps_x + taps_y) // BAND + 1)
                most[_TAPS] = max(most[_TAPS], max(taps_x, taps_y))
            elif op == RESAMPLE:
                at, d = ints + 8 * field(code, INT_COLUMN), reals + 8 * field(code, DOUBLE_COLUMN)
                h, w, columns = field(at, OUT_HEIGHT), field(at, OUT_WIDTH), field(at, RIGHT) - field(at, LEFT)
                _raise(most, h, w)
                _raise(most, w, h)
                most[_COLUMNS] = max(most[_COLUMNS], columns)
                fx, fy = double_field(d, FOOTPRINT_X), double_field(d, FOOTPRINT_Y)
                most[_TAPS] = max(most[_TAPS], max(taps_most(fx), taps_most(fy)))
                step = max(abs(double_field(d, STEP_XX)), abs(double_field(d, STEP_XY)))
                most[_BAND] = max(most[_BAND], (max(h, w) + BAND - 1) // BAND * min(run_most(step, fx), columns + 1))
    return -1


@njit
def _take(t, slot, size, count):
    """Put `count` bytes at place `size`; gives the next place."""
    put(t, slot, size)
    return size + (count + 63) // 64 * 64


@njit
def _lay_out(t, most):
    """Places in one thread's memory, from address 0; gives its size in bytes."""
    c, wide = get(t, m.MOST_CHANNELS), (most[_WIDTH] + LANES) // LANES * LANES
    # of one row, or of several that are taken at once
    taps, many = most[_TAPS] + 2, max(wide, AT_ONCE + LANES)
    put(t, m.SCRATCH_LONG, taps)
    size = _take(t, m.BUFFER_A, 0, 4 * c * most[_FLOATS])
    size = _take(t, m.BUFFER_B, size, 4 * c * most[_FLOATS])
    size = _take(t, m.TILE, size, 4 * c * max(ROWS * wide, AT_ONCE) + 64 * c)
    size = _take(t, m.MIDDLE, size, 4 * ROWS * c * most[_COLUMNS])
    size = _take(t, m.WIDE, size, 4 * c * most[_SOURCE])
    size = _take(t, m.RUNS, size, 24 * (wide // BAND))
    size = _take(t, m.WEIGHTS, size, 4 * BAND * (most[_BAND] + 1))
    size = _take(t, m.SCRATCH, size, 4 * taps)
    size = _take(t, m.ROW_WEIGHTS, size, 4 * taps)
    size = _take(t, m.ADDRESSES, size, 8 * taps)
    size = _take(t, m.PX, size, 8 * many)
    size = _take(t, m.PY, size, 8 * many)
    size = _take(t, m.AT, size, 8 * many)
    size = _take(t, m.FX, size, 4 * many)
    size = _take(t, m.FY, size, 4 * many)
    size = _take(t, m.SHARE, size, 4 * many)
    # four rows of words, each as long as the row of cosines that ends where the sines begin
    size = _take(t, m.NOISE, size, 16 * many)
    size = _take(t, m.COSINE, size, 4 * many)
    size = _take(t, m.SINE, size, 4 * many)
    size = _take(t, m.SUM, size, 16)
    size = _take(t, m.LOW, size, 8 * c)
    size = _take(t, m.HIGH, size, 8 * c)
    size = _take(t, m.COUNTS, size, 4096 * c)
    size = _take(t, m.TABLES, size, 1024 * c)
    size = _take(t, m.ORDER, size, 8 * (get(t, m.LONGEST) + 1))
    size = _take(t, m.STACK, size, 16 * get(t, m.ROWS_OF_CODE))
    size = _take(t, m.KEY, size, 4 * KEY_LENGTH)
    # a row of a blur, with what its taps reach beyond either end
    return _take(t, m.BLURRED, size, 4 * (wide + taps))


@njit
def _write_key(t, n):
    """The key of sample n, in the order of `codes`, as `rng.Keys.counter` makes it."""
    key, number = words(get(t, m.KEY), KEY_LENGTH), field(get(t, m.IDS), n)
    key[KEY_C2], key[KEY_C3] = uint32(number), uint32(((number >> 32) << EPOCH_BITS) | get(t, m.EPOCH))
    key[KEY_OCCURRENCE] = uint32(field(get(t, m.OCCURRENCES), n) << OCCURRENCE_SHIFT)
    key[KEY_LOW], key[KEY_HIGH] = uint32(get(t, m.SEED_LOW)), uint32(get(t, m.SEED_HIGH))


@kernel
def lay_out(inputs, samples):
    """Fill in the places of the workspace, counted from 0; gives the bytes that one thread needs for any of the
    samples.

    Gives -1 - n instead where the partner of sample n is not one of the samples.

    inputs: [memory.SLOTS] int64, those of `memory.GIVEN` set
    """
    most = np.ones(6, np.int64)
    t = inputs.ctypes.data
    put(t, m.SAMPLES, samples)
    stray = _measure(t, 0, samples, most)
    if stray >= 0:
        return -1 - stray
    return _lay_out(t, most)


@kernel
def run_samples(inputs, memory):
    """Samples, as long as there are any that no other thread took: one at a time, since they differ in what they cost.

    inputs: as `lay_out` left it, shared by all threads; memory: this thread's, aligned to 64 bytes"""
    table = inputs.copy()
    t, base, shared = table.ctypes.data, memory.ctypes.data, inputs.ctypes.data
    for slot in range(m.BUFFER_A, m.SLOTS):
        put(t, slot, get(t, slot) + base)
    # rows beyond the last are multiplied too: what they hold decides nothing, but must not be slow to multiply
    for i in range(get(t, m.MIDDLE) - base, get(t, m.WIDE) - base):
        memory[i] = 0
    while True:
        n = take_next(shared + 8 * m.NEXT_SAMPLE)
        if n >= get(t, m.SAMPLES):
            break
        put(t, m.INT_ROW, get(t, m.INTS) + n * get(t, m.INT_BYTES))
        put(t, m.FLOAT_ROW, get(t, m.FLOATS) + n * get(t, m.FLOAT_BYTES))
        put(t, m.DOUBLE_ROW, get(t, m.DOUBLES) + n * get(t, m.DOUBLE_BYTES))
        _write_key(t, n)
        sample(t, n)
    settle_streams()
    # both tables live until here
    return table[0] + inputs[0]
