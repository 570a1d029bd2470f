"""The source of a chain by its record: the pixel itself, one of several for each sample, or what source.py, warp.py and
stencil.py make of other pixels.

Bytes read: see those files.  What the functions here are handed:

    image     the sample's image (tuples.py)
    f, i, d   pointers to the sample's floats, integers and doubles
    at        the tile (tuples.py)
    height    of the output
"""

import triton
import triton.language as tl

from gpuaug_kernels.constants import (
    BILINEAR,
    BLUR_COLUMNS,
    BLUR_ROWS,
    CATMULL_ROM,
    FLOOR,
    NEAREST,
    PIXEL,
    PROJECT,
    RECORD,
    SHARPEN,
    SOURCE_DOUBLES,
    SOURCE_FLOATS,
    SOURCE_INTEGERS,
    SOURCE_OPTION,
    SWITCH,
    SWITCH_COUNT,
    SWITCH_FIRST,
    SWITCH_INDEX,
    TILE,
    TRIANGLE,
    WORDS,
)
from gpuaug_kernels.source import read_pixel, read_shifted, resample, sharpen
from gpuaug_kernels.stencil import blur, project
from gpuaug_kernels.warp import warp


@triton.jit
def read(PROGRAM: tl.constexpr, K: tl.constexpr, image, f, i, d, at, mask, height, FORMAT: tl.constexpr):
    """A record of a source: three channels of every pixel of the tile, float32, uint8 taken to [0, 1]."""
    KIND: tl.constexpr = PROGRAM[K]
    if KIND == SWITCH:
        r, g, b = read_switch(PROGRAM, K, image, f, i, d, at, mask, height, FORMAT)
    elif KIND == PIXEL:
        r, g, b = read_pixel(image, at, mask, height, FORMAT)
    else:
        f += PROGRAM[K + SOURCE_FLOATS]
        i += PROGRAM[K + SOURCE_INTEGERS]
        d += PROGRAM[K + SOURCE_DOUBLES]
        r, g, b = read_around(PROGRAM, K, image, f, i, d, at, mask, height, FORMAT)
    return r, g, b


@triton.jit
def read_around(PROGRAM: tl.constexpr, K: tl.constexpr, image, f, i, d, at, mask, height, FORMAT: tl.constexpr):
    """A source that reads other pixels than its own.  f, i, d: where its parameters begin"""
    KIND: tl.constexpr = PROGRAM[K]
    # a border, whether there is a fill, or the number of taps, by the kind
    OPTION: tl.constexpr = PROGRAM[K + SOURCE_OPTION]
    if (KIND == FLOOR) & (FORMAT.form == WORDS):
        r, g, b = read_shifted(image, f, i, d, at, height, FORMAT, OPTION)
    elif (KIND == TRIANGLE) | (KIND == FLOOR) | (KIND >= CATMULL_ROM):
        r, g, b = resample(image, f, i, d, at, FORMAT, KIND, OPTION)
    elif KIND == SHARPEN:
        r, g, b = sharpen(image, f, i, at, mask, FORMAT)
    elif (KIND == BILINEAR) | (KIND == NEAREST):
        r, g, b = warp(image, f, i, d, at, mask, FORMAT, KIND, OPTION)
    elif KIND == PROJECT:
        r, g, b = project(image, f, i, d, at, mask, FORMAT, OPTION)
    else:
        tl.static_assert((KIND == BLUR_ROWS) | (KIND == BLUR_COLUMNS), "no such source")
        r, g, b = blur(image, f, i, at, mask, FORMAT, OPTION, KIND == BLUR_ROWS)
    return r, g, b


@triton.jit
def read_switch(PROGRAM: tl.constexpr, K: tl.constexpr, image, f, i, d, at, mask, height, FORMAT: tl.constexpr):
    """The sample's one of several sources, chosen at run time: a tile has one sample, so that no warp diverges."""
    index = tl.load(i + PROGRAM[K + SWITCH_INDEX])
    r = tl.zeros((TILE * TILE,), tl.float32)
    g = r
    b = r
    for k in tl.static_range(tl.constexpr(PROGRAM[K + SWITCH_COUNT])):
        if index == k:
            r, g, b = read(PROGRAM, RECORD * (PROGRAM[K + SWITCH_FIRST] + k), image, f, i, d, at, mask, height, FORMAT)
    return r, g, b
