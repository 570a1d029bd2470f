"""How a tile is written: every value once, neighbouring lanes side by side, whole sectors of 32 bytes where rows allow.

Three channels that come last are exchanged between threads before: as words of 32 bits, three of every four lanes have
one of their own, so that a warp writes 96 bytes without a gap.  What the functions here are handed:

    out      pointer to [N, LAYOUT.written, height, width] of any dtype
    r, g, b  [TILE * TILE], of the output's dtype but where said
    at       the tile (tuples.py)
    size     height and width of the output
"""

import triton
import triton.language as tl

from gpuaug_kernels.constants import HALVES, PLAIN, QUARTERS, SHORTS, TILE, VALUES
from gpuaug_kernels.words import join4, pack_shorts, rows_down, split2, split4


@triton.jit
def to_output(x, TYPE: tl.constexpr):
    """To the output's type: 16 bits to nearest even, 8 bits as torchvision does."""
    if TYPE == tl.uint8:
        # NaN has to become a number
        x = tl.floor(tl.minimum(tl.maximum(x, 0.0), 1.0) * 255.999)
    return x.to(TYPE)


@triton.jit
def store_tile(out, n, r, g, b, at, size, mask, LAYOUT: tl.constexpr):
    """Write a tile of one sample, rounded.  r, g, b: float32"""
    if LAYOUT.form == SHORTS:
        words = out.to(tl.pointer_type(tl.uint64), bitcast=True) + n * size[0] * size[1]
        tl.store(words + (at.y * size[1] + at.x), pack_shorts(r, g, b), mask=mask)
    else:
        TYPE: tl.constexpr = out.dtype.element_ty
        r = to_output(r, TYPE)
        if LAYOUT.channels == 3:
            g, b = to_output(g, TYPE), to_output(b, TYPE)
        if LAYOUT.form == PLAIN:
            store_plain(out, n, r, g, b, at, size, mask, LAYOUT)
        else:
            store_interleaved(out, n, r, g, b, at, size, LAYOUT.form)


@triton.jit
def store_plain(out, n, r, g, b, at, size, mask, LAYOUT: tl.constexpr):
    """Each channel by itself."""
    height, width = size
    if LAYOUT.last == 1:
        place, step = (at.y * width + at.x).to(tl.int64) * LAYOUT.written, 1
    else:
        place, step = (at.y * width + at.x).to(tl.int64), tl.cast(height, tl.int64) * width
    first = out + (n * height * width * LAYOUT.written + at.channel * step)
    tl.store(first + place, r, mask=mask)
    if LAYOUT.channels == 3:
        tl.store(first + step + place, g, mask=mask)
        tl.store(first + 2 * step + place, b, mask=mask)


@triton.jit
def pack_halves(a, b):
    """Two values of 16 bits, the first lowest: uint32."""
    return half_bits(a) | (half_bits(b) << 16)


@triton.jit
def half_bits(x):
    """A value of 16 bits as uint32."""
    return x.to(tl.uint16, bitcast=True).to(tl.uint32)


@triton.jit
def pack_bytes(a, b, c, d):
    """Four bytes, the first lowest: uint32."""
    return a.to(tl.uint32) | (b.to(tl.uint32) << 8) | (c.to(tl.uint32) << 16) | (d.to(tl.uint32) << 24)


@triton.jit
def store_interleaved(out, n, r, g, b, at, size, FORM: tl.constexpr):
    """Three channels that come last: [N, height, width, 3].  FORM: how many pixels make three units of a lane"""
    height, width = size
    if FORM == HALVES:
        # two pixels of three halves are three words
        words = out.to(tl.pointer_type(tl.uint32), bitcast=True)
        a0, a1 = split2(pack_halves(r, g))
        b0, b1 = split2(half_bits(b))
        last = (a1 >> 16) | (b1 << 16)
        units = join4(a0, b0 | (a1 << 16), last, last)
        store_units(words, n, units, at, height, width, 2)
    elif FORM == QUARTERS:
        # four pixels of three bytes are three words
        words = out.to(tl.pointer_type(tl.uint32), bitcast=True)
        r0, r1, r2, r3 = split4(r)
        g0, g1, g2, g3 = split4(g)
        b0, b1, b2, b3 = split4(b)
        last = pack_bytes(b2, r3, g3, b3)
        units = join4(pack_bytes(r0, g0, b0, r1), pack_bytes(g1, b1, r2, g2), last, last)
        store_units(words, n, units, at, height, width, 4)
    else:
        tl.static_assert(FORM == VALUES, "no such form")
        store_units(out, n, join4(r, g, b, b), at, height, width, 1)


@triton.jit
def store_units(out, n, units, at, height, width, PIXELS: tl.constexpr):
    """Write three of every four units, one a lane; the fourth is the third again, so that no lane needs a mask.

    units: [4 TILE^2 / PIXELS]; PIXELS: that three units hold"""
    ROW: tl.constexpr = 4 * TILE // PIXELS
    k = tl.arange(0, units.shape[0])
    y, within = k // ROW, k % ROW
    group, part = within // 4, within % 4
    groups = width // PIXELS
    # an image of less than 2^31 units begins at a product of 32 bits to 64
    image = out + n.to(tl.uint32).to(tl.uint64) * tl.cast(height * groups * 3, tl.uint32).to(tl.uint64)
    tile = image + (at.top * groups + at.left // PIXELS) * 3
    # the place in a row first: a thread's units lie below each other, and then share it
    place = rows_down(tile + (3 * group + tl.minimum(part, 2)), y, 3 * groups)
    whole = (at.top + TILE <= height) & (at.left + TILE <= width)
    if whole:
        tl.store(place, units)
    else:
        mask = (at.top + y < height) & (at.left + PIXELS * group < width)
        tl.store(place, units, mask=mask)
