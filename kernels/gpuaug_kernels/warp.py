"""Projective maps: four taps of a position, or the nearest.

Bytes read: four values a channel and pixel, or one, each from the first cache after the first.  Arguments as in
source.py."""

import triton
import triton.language as tl

from gpuaug_kernels.constants import NEAREST, NOTHING
from gpuaug_kernels.point import columns
from gpuaug_kernels.source import gather, limited, scaled, settled, units


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
def split(position):
    """A position's whole part as int32 and what lies beyond it as float32.  position: float64"""
    whole = tl.floor(position)
    return limited(whole), (position - whole).to(tl.float32)


@triton.jit
def advance(along, across, shift, at):
    """The same of a row of an affine map, over the tile: doubles for its first pixel only, and float32 from there,
    since no weight jumps."""
    whole, beyond = split(along * at[5].to(tl.float64) + across * at[4].to(tl.float64) + shift)
    beyond += NOTHING
    moved = (
        along.to(tl.float32) * (at[1] - at[5]).to(tl.float32) + across.to(tl.float32) * (at[0] - at[4]).to(tl.float32)
    ) + beyond
    moved = tl.minimum(tl.maximum(moved, -1.0e9), 1.0e9)
    floor = tl.floor(moved)
    return whole + floor.to(tl.int32), on_pixel(moved - floor)


@triton.jit
def corners(d, at):
    """The upper left of every pixel's four taps, x and y, and how far it lies beyond them."""
    if (tl.load(d + 6) != 0.0) | (tl.load(d + 7) != 0.0) | (tl.load(d + 8) != 1.0):
        sx, sy = position(d, at)
        x, fx = split(sx + NOTHING)
        y, fy = split(sy + NOTHING)
        fx, fy = on_pixel(fx), on_pixel(fy)
    else:
        x, fx = advance(tl.load(d), tl.load(d + 1), tl.load(d + 2), at)
        y, fy = advance(tl.load(d + 3), tl.load(d + 4), tl.load(d + 5), at)
    return x, y, fx, fy


@triton.jit
def even(x):
    """The nearest integer as int32, half to even.  x: float64"""
    low = tl.floor(x)
    out, over = low.to(tl.int32), x - low
    return out + ((over > 0.5) | ((over == 0.5) & (out % 2 != 0))).to(tl.int32)


@triton.jit
def add_tap(sums, image, i, y, x, w, channel, mask, CHANNELS: tl.constexpr):
    """Sums of r, g, b and weight with one more tap; what is outside adds nothing."""
    known = mask & (y >= 0) & (y < tl.load(i)) & (x >= 0) & (x < tl.load(i + 1))
    if units(image) == 1.0:
        known = known & (w > 0.0)
    r, g, b = gather(image, y, x, channel, known, CHANNELS)
    return (sums[0] + w * r, sums[1] + w * g, sums[2] + w * b, sums[3] + tl.where(known, w, 0.0)), (r, g, b)


@triton.jit
def warp(image, fill, i, d, at, mask, CHANNELS: tl.constexpr, KIND: tl.constexpr, FILL: tl.constexpr):
    """Four taps, or the nearest."""
    zero = tl.zeros((at[0].shape[0], at[1].shape[1]), tl.float32)
    sums = (zero, zero, zero, zero)
    if KIND == NEAREST:
        # half a pixel off, a value is another
        sx, sy = position(d, at)
        sums, tap = add_tap(sums, image, i, even(sy), even(sx), zero + 1.0, at[3], mask, CHANNELS)
    else:
        x, y, fx, fy = corners(d, at)
        sums, tap = add_tap(sums, image, i, y, x, (1.0 - fx) * (1.0 - fy), at[3], mask, CHANNELS)
        sums, _ = add_tap(sums, image, i, y, x + 1, fx * (1.0 - fy), at[3], mask, CHANNELS)
        sums, _ = add_tap(sums, image, i, y + 1, x, (1.0 - fx) * fy, at[3], mask, CHANNELS)
        sums, _ = add_tap(sums, image, i, y + 1, x + 1, fx * fy, at[3], mask, CHANNELS)
    one = units(image)
    if KIND == NEAREST:
        r, g, b = scaled(tap[0], one), scaled(tap[1], one), scaled(tap[2], one)
    else:
        r, g, b = settled(sums[0], tap[0], one), settled(sums[1], tap[1], one), settled(sums[2], tap[2], one)
    if FILL == 1:
        fr, fg, fb = columns(fill + at[3], CHANNELS)
        r, g, b = shared(r, fr, sums[3]), shared(g, fg, sums[3]), shared(b, fb, sums[3])
    return r, g, b


@triton.jit
def shared(x, fill, share):
    """A value with as much of the fill as lies beyond the image."""
    return tl.where(share > 0.999999, x, (x - fill) * share + fill)


@triton.jit
def on_pixel(beyond):
    """How far beyond a pixel positions are that were moved on by NOTHING: what is beside it by no more than rounding is
    on it."""
    return tl.where(beyond < 2.0 * NOTHING, 0.0, beyond - NOTHING)
