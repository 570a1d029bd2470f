"""Where a chain's pixels come from: the pixel itself, an antialiased resample, or a warp.

Bytes read: the pixel itself once; a resample the footprint of the tile, each value as often as taps of the tile meet it, from the first cache
after the first; a warp four values or one.  Positions are float64 for a row and a column of the tile, weights float32.

What the functions here are handed:

    image    pointer to the sample's first value, then the strides of channel, row and column in elements (int64)
    i, d     the sample's integers and doubles
    at       y [h, 1], x [1, w], the width of the output, and the channel
"""

import triton
import triton.language as tl

from gpuaug_kernels.codes import BILINEAR, CONSTANT, EDGE, FLOOR, GEOMETRY, NEAREST, PIXEL, REFLECT, SYMMETRIC, TRIANGLE
from gpuaug_kernels.point import columns, inside


@triton.jit
def gather(image, y, x, channel, mask, CHANNELS: tl.constexpr):
    """The values at whole positions as float32, in the input's own units, 0 where masked."""
    at = image[0] + channel.to(tl.int64) * image[1] + y.to(tl.int64) * image[2] + x.to(tl.int64) * image[3]
    r = tl.load(at, mask=mask, other=0).to(tl.float32)
    g = r
    b = r
    if CHANNELS == 3:
        g = tl.load(at + image[1], mask=mask, other=0).to(tl.float32)
        b = tl.load(at + 2 * image[1], mask=mask, other=0).to(tl.float32)
    return r, g, b


@triton.jit
def units(image):
    """What 1.0 is in the input's units."""
    one: tl.constexpr = 255.0 if image[0].dtype.element_ty == tl.uint8 else 1.0
    return one


@triton.jit
def scaled(x, one):
    """x / one, rounded to nearest: thresholds sit on the grid of 1/255."""
    if one != 1.0:
        x = tl.div_rn(x, tl.full(x.shape, one, tl.float32))
    return x


@triton.jit
def pixel(image, at, mask, CHANNELS: tl.constexpr):
    r, g, b = gather(image, at[0], at[1], at[3], mask, CHANNELS)
    one = units(image)
    return scaled(r, one), scaled(g, one), scaled(b, one)


@triton.jit
def reach(tap, low, high, EXTEND: tl.constexpr):
    """Where a tap is read in [low, high), and whether what is read counts."""
    n = tl.maximum(high - low, 1)
    # a window that never exceeds its source needs no test beyond that of the weight
    known = tl.full(tap.shape, True, tl.int1)
    if EXTEND == CONSTANT:
        known = (tap >= low) & (tap < high)
    elif EXTEND == EDGE:
        tap = tl.minimum(tl.maximum(tap, low), low + n - 1)
    elif EXTEND == REFLECT:
        period = tl.maximum(2 * n - 2, 1)
        j = ((tap - low) % period + period) % period
        tap = low + tl.where(j < n, j, period - j)
    elif EXTEND == SYMMETRIC:
        j = ((tap - low) % (2 * n) + 2 * n) % (2 * n)
        tap = low + tl.where(j < n, j, 2 * n - 1 - j)
    return tap, known


@triton.jit
def span(position, footprint, first, last, KIND: tl.constexpr):
    """The taps of a row of positions: the first, how far the position lies beyond it, how many there are."""
    if KIND == FLOOR:
        start = tl.minimum(tl.maximum(tl.floor(position), first.to(tl.float64)), last.to(tl.float64) - 1.0)
        beyond = tl.zeros_like(start)
        count = 1
    else:
        start = tl.floor(position - footprint) + 1.0
        beyond = position - start
        count = tl.ceil(2.0 * footprint).to(tl.int32)
    # far outside the window nothing is read, and a float that is no int32 must not become one
    start = tl.minimum(tl.maximum(start, -1.0e9), 1.0e9).to(tl.int32)
    return start, beyond.to(tl.float32), count


@triton.jit
def weigh(k, start, beyond, footprint, first, last):
    """The weight of every position's tap number k."""
    w = tl.maximum(1.0 - tl.abs(k - beyond) / footprint, 0.0)
    return tl.where((start + k >= first) & (start + k < last), w, 0.0)


@triton.jit
def total(start, beyond, footprint, first, last, count):
    """The sum of a position's weights, 1 where there are none."""
    out = tl.zeros_like(beyond)
    for k in range(count):
        out += weigh(k, start, beyond, footprint, first, last)
    return tl.where(out > 0.0, out, 1.0)


@triton.jit
def resample(image, fill, i, d, at, CHANNELS: tl.constexpr, KIND: tl.constexpr, EXTEND: tl.constexpr):
    """A row of taps after the other; after a quarter turn, of the tile laid over."""
    i += GEOMETRY
    x0, y0, x1, y1 = tl.load(i), tl.load(i + 1), tl.load(i + 2), tl.load(i + 3)
    sx0, sy0, sx1, sy1 = tl.load(i + 4), tl.load(i + 5), tl.load(i + 6), tl.load(i + 7)
    xx, xy, yx, yy = tl.load(d), tl.load(d + 1), tl.load(d + 3), tl.load(d + 4)
    turned = xx == 0.0
    # input rows follow output columns after a turn; the tile is square, so that it serves both ways
    oy, ox = tl.ravel(at[0]), tl.ravel(at[1])
    down = tl.where(turned, yx, yy) * tl.where(turned, ox, oy).to(tl.float64) + tl.load(d + 5)
    across = tl.where(turned, xy, xx) * tl.where(turned, oy, ox).to(tl.float64) + tl.load(d + 2)
    wide, high = tl.load(d + 6), tl.load(d + 7)
    first_y, beyond_y, taps_y = span(down, high, y0, y1, KIND)
    first_x, beyond_x, taps_x = span(across, wide, x0, x1, KIND)
    wide, high = wide.to(tl.float32), high.to(tl.float32)
    one = units(image)
    fr, fg, fb = columns(fill + at[3], CHANNELS)
    r = tl.zeros((first_y.shape[0], first_x.shape[0]), tl.float32)
    g = r
    b = r
    for j in range(taps_y):
        wy = weigh(j, first_y, beyond_y, high, y0, y1)
        iy, known_y = reach(first_y + j, sy0, sy1, EXTEND)
        for k in range(taps_x):
            wx = weigh(k, first_x, beyond_x, wide, x0, x1)
            ix, known_x = reach(first_x + k, sx0, sx1, EXTEND)
            w, known = wy[:, None] * wx[None, :], known_y[:, None] & known_x[None, :]
            vr, vg, vb = gather(image, iy[:, None], ix[None, :], at[3], known & (w > 0.0), CHANNELS)
            if EXTEND == CONSTANT:
                vr, vg, vb = tl.where(known, vr, fr * one), tl.where(known, vg, fg * one), tl.where(known, vb, fb * one)
            r += w * vr
            g += w * vg
            b += w * vb
    weight = total(first_y, beyond_y, high, y0, y1, taps_y)[:, None] * total(first_x, beyond_x, wide, x0, x1, taps_x)[None, :]
    r, g, b = scaled(r / weight, one), scaled(g / weight, one), scaled(b / weight, one)
    if turned:
        r, g, b = tl.trans(r), tl.trans(g), tl.trans(b)
    live = inside(i + 8, at)
    return tl.where(live, r, fr), tl.where(live, g, fg), tl.where(live, b, fb)


@triton.jit
def position(d, at):
    """Input x and y of every pixel, float64."""
    y, x = at[0].to(tl.float64), at[1].to(tl.float64)
    sx = (tl.load(d) * x + tl.load(d + 1) * y) + tl.load(d + 2)
    sy = (tl.load(d + 3) * x + tl.load(d + 4) * y) + tl.load(d + 5)
    p, q, s = tl.load(d + 6), tl.load(d + 7), tl.load(d + 8)
    # an affine map divides by 1: a division of doubles is not paid for
    if (p != 0.0) | (q != 0.0) | (s != 1.0):
        sz = (p * x + q * y) + s
        sz = tl.where(sz == 0.0, 1.0e-300, sz)
        sx, sy = sx / sz, sy / sz
    return tl.minimum(tl.maximum(sx, -1.0e9), 1.0e9), tl.minimum(tl.maximum(sy, -1.0e9), 1.0e9)


@triton.jit
def even(x):
    """The nearest whole number as int32, half to even.  x: float64"""
    low = tl.floor(x)
    out, over = low.to(tl.int32), x - low
    return out + ((over > 0.5) | ((over == 0.5) & (out % 2 != 0))).to(tl.int32)


@triton.jit
def add_tap(sums, image, i, y, x, w, channel, mask, CHANNELS: tl.constexpr):
    """Sums of r, g, b and weight with one more tap; what is outside adds nothing."""
    known = mask & (y >= 0) & (y < tl.load(i)) & (x >= 0) & (x < tl.load(i + 1))
    r, g, b = gather(image, y, x, channel, known, CHANNELS)
    return sums[0] + w * r, sums[1] + w * g, sums[2] + w * b, sums[3] + tl.where(known, w, 0.0)


@triton.jit
def warp(image, fill, i, d, at, mask, CHANNELS: tl.constexpr, KIND: tl.constexpr, FILL: tl.constexpr):
    """Four taps, or the nearest."""
    i += GEOMETRY
    sx, sy = position(d, at)
    zero = tl.zeros_like(sx).to(tl.float32)
    sums = (zero, zero, zero, zero)
    if KIND == NEAREST:
        sums = add_tap(sums, image, i, even(sy), even(sx), zero + 1.0, at[3], mask, CHANNELS)
    else:
        left, top = tl.floor(sx), tl.floor(sy)
        fx, fy = (sx - left).to(tl.float32), (sy - top).to(tl.float32)
        x, y = left.to(tl.int32), top.to(tl.int32)
        sums = add_tap(sums, image, i, y, x, (1.0 - fx) * (1.0 - fy), at[3], mask, CHANNELS)
        sums = add_tap(sums, image, i, y, x + 1, fx * (1.0 - fy), at[3], mask, CHANNELS)
        sums = add_tap(sums, image, i, y + 1, x, (1.0 - fx) * fy, at[3], mask, CHANNELS)
        sums = add_tap(sums, image, i, y + 1, x + 1, fx * fy, at[3], mask, CHANNELS)
    one = units(image)
    r, g, b, m = scaled(sums[0], one), scaled(sums[1], one), scaled(sums[2], one), sums[3]
    if FILL == 1:
        fr, fg, fb = columns(fill + at[3], CHANNELS)
        r, g, b = (r - fr) * m + fr, (g - fg) * m + fg, (b - fb) * m + fb
    return r, g, b


@triton.jit
def read(PROGRAM: tl.constexpr, image, f, i, d, at, mask, CHANNELS: tl.constexpr):
    """The first record: three channels of every pixel of the tile, float32, uint8 taken to [0, 1]."""
    KIND: tl.constexpr = PROGRAM[0]
    if KIND == PIXEL:
        r, g, b = pixel(image, at, mask, CHANNELS)
    elif (KIND == TRIANGLE) | (KIND == FLOOR):
        r, g, b = resample(image, f + PROGRAM[2], i, d, at, CHANNELS, KIND, PROGRAM[1])
    else:
        tl.static_assert((KIND == BILINEAR) | (KIND == NEAREST), "no such source")
        r, g, b = warp(image, f + PROGRAM[2], i, d, at, mask, CHANNELS, KIND, PROGRAM[1])
    return r, g, b
