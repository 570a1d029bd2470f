"""Sources that weigh many neighbours of a position: a blur along one axis, and a projective map under a triangle.

Bytes read: each value as often as a tap of the tile falls on it, from the first cache after the first time.  Arguments
as in source.py, but where said."""

import triton
import triton.language as tl

from gpuaug_kernels.constants import NOTHING, REFLECT, TILE
from gpuaug_kernels.point import load_channels
from gpuaug_kernels.source import border_tap, gather, snap_mean, to_unit, unit_scale
from gpuaug_kernels.taps import to_int32
from gpuaug_kernels.warp import blend_fill, mapped_position


@triton.jit
def reflect_tap(tap, size, FAR: tl.constexpr):
    """Where a tap at most FAR beyond the image is read: the border reflects without repeating the edge."""
    out = tl.abs(tap)
    out = tl.minimum(out, 2 * (size - 1) - out)
    # one reflection is enough, but for images smaller than the blur, which need a remainder
    if size <= FAR:
        out, _ = border_tap(tap, 0, size, REFLECT)
    return out


@triton.jit
def blur(image, weights, i, at, mask, FORMAT: tl.constexpr, TAPS: tl.constexpr, ROWS: tl.constexpr):
    """A weighted mean along x or along y.  i: input height and width; weights: pointer to [TAPS] float32"""
    y, x = at.y, at.x
    FAR: tl.constexpr = TAPS // 2
    r = tl.zeros((TILE * TILE,), tl.float32)
    g = r
    b = r
    for k in range(TAPS):
        w = tl.load(weights + k)
        if ROWS:
            vr, vg, vb = gather(image, y, reflect_tap(x + (k - FAR), tl.load(i + 1), FAR), at.channel, mask, FORMAT)
        else:
            vr, vg, vb = gather(image, reflect_tap(y + (k - FAR), tl.load(i), FAR), x, at.channel, mask, FORMAT)
        r, g, b = r + w * vr, g + w * vg, b + w * vb
    one = unit_scale(image, FORMAT)
    return to_unit(r, one), to_unit(g, one), to_unit(b, one)


@triton.jit
def projected_taps(position, half):
    """The first tap of every position, how far the position lies beyond it, the slope of the triangle, and how many
    taps there are."""
    first = tl.ceil(position - half)
    return to_int32(first), (position - first).to(tl.float32), 1.0 / half.to(tl.float32), (2.0 * half).to(tl.int32) + 1


@triton.jit
def project(image, fill, i, d, at, mask, FORMAT: tl.constexpr, FILL: tl.constexpr):
    """The mean of the taps in the window; with a fill, that of all taps, those beyond it filled.

    i: window, x0 y0 x1 y1; d: map from output to input (0 to 8), half widths of the triangle (9, 10)"""
    sx, sy = mapped_position(d, at)
    first_x, beyond_x, slope_x, taps_x = projected_taps(sx, tl.load(d + 9))
    first_y, beyond_y, slope_y, taps_y = projected_taps(sy, tl.load(d + 10))
    x0, y0, x1, y1 = tl.load(i), tl.load(i + 1), tl.load(i + 2), tl.load(i + 3)
    r = tl.zeros((TILE * TILE,), tl.float32)
    g = r
    b = r
    # the weight of all taps, and of those in the window, along each axis
    every_x, every_y, inside_x, inside_y = r, r, r, r
    for j in range(taps_y):
        wy = 1.0 - tl.abs(j - beyond_y) * slope_y
        wy = tl.where(wy > NOTHING, wy, 0.0)
        y = first_y + j
        within = (y >= y0) & (y < y1)
        every_y += wy
        inside_y += tl.where(within, wy, 0.0)
        every_x = tl.zeros_like(r)
        inside_x = tl.zeros_like(r)
        for k in range(taps_x):
            wx = 1.0 - tl.abs(k - beyond_x) * slope_x
            wx = tl.where(wx > NOTHING, wx, 0.0)
            x = first_x + k
            valid = (x >= x0) & (x < x1)
            every_x += wx
            inside_x += tl.where(valid, wx, 0.0)
            w = wy * wx
            vr, vg, vb = gather(image, y, x, at.channel, mask & within & valid & (w > 0.0), FORMAT)
            r, g, b = r + w * vr, g + w * vg, b + w * vb
    one = unit_scale(image, FORMAT)
    every, inside = every_x * every_y, inside_x * inside_y
    over = 1.0 / tl.where(inside > 0.0, inside, 1.0)
    nr, ng, nb = r, g, b
    if one == 1.0:
        # the tap that weighs most
        y, x = first_y + tl.floor(beyond_y + 0.5).to(tl.int32), first_x + tl.floor(beyond_x + 0.5).to(tl.int32)
        nr, ng, nb = gather(image, y, x, at.channel, mask & (y >= y0) & (y < y1) & (x >= x0) & (x < x1), FORMAT)
    r, g, b = snap_mean(r * over, nr, one), snap_mean(g * over, ng, one), snap_mean(b * over, nb, one)
    if FILL == 1:
        fr, fg, fb = load_channels(fill + at.channel, FORMAT.channels)
        share = inside / tl.where(every > 0.0, every, 1.0)
        r, g, b = blend_fill(r, fr, share), blend_fill(g, fg, share), blend_fill(b, fb, share)
    return r, g, b
