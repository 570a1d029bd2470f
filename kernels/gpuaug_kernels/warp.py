"""Projective maps: four taps of a position, or the nearest.

Bytes read: four values a channel and pixel, or one, each from the first cache after the first time.  Arguments as in
source.py, but d: pointer to the map from output to input, [9] float64."""

import triton
import triton.language as tl

from gpuaug_kernels.constants import BYTE_UNIT, LIFT, NEAREST, NOTHING, PLANES, TILE, WORDS
from gpuaug_kernels.point import load_channels
from gpuaug_kernels.source import gather, snap_mean, to_unit, unit_scale
from gpuaug_kernels.taps import to_int32
from gpuaug_kernels.tuples import Sums
from gpuaug_kernels.words import load_plane, load_taps, subnormal, word_base


@triton.jit
def mapped_position(d, at):
    """Input x and y of every pixel, float64; where the map has none, far outside."""
    y, x = at.y.to(tl.float64), at.x.to(tl.float64)
    sx = (tl.load(d) * x + tl.load(d + 1) * y) + tl.load(d + 2)
    sy = (tl.load(d + 3) * x + tl.load(d + 4) * y) + tl.load(d + 5)
    p, q, s = tl.load(d + 6), tl.load(d + 7), tl.load(d + 8)
    # an affine map would divide by 1: the division of doubles is saved
    if (p != 0.0) | (q != 0.0) | (s != 1.0):
        sz = (p * x + q * y) + s
        # a maximum with NaN is the other number
        sz = tl.where(sz == 0.0, float("nan"), sz)
        sx, sy = sx / sz, sy / sz
    return tl.minimum(tl.maximum(sx, -1.0e9), 1.0e9), tl.minimum(tl.maximum(sy, -1.0e9), 1.0e9)


@triton.jit
def split_position(position):
    """A position's floor as int32, and how far it lies beyond it as float32.  position: float64"""
    floor = tl.floor(position)
    return to_int32(floor), (position - floor).to(tl.float32)


@triton.jit
def affine_positions(along, across, shift, at):
    """The same of one coordinate of an affine map over the tile, along * x + across * y + shift: doubles for its first
    pixel only, and float32 from there, since weights are continuous in the position."""
    base, beyond = split_position(along * at.left.to(tl.float64) + across * at.top.to(tl.float64) + shift)
    beyond += NOTHING
    moved = (
        along.to(tl.float32) * (at.x - at.left).to(tl.float32) + across.to(tl.float32) * (at.y - at.top).to(tl.float32)
    ) + beyond
    moved = tl.minimum(tl.maximum(moved, -1.0e9), 1.0e9)
    floor = tl.floor(moved)
    return base + floor.to(tl.int32), snap_to_pixel(moved - floor)


@triton.jit
def corners(d, at):
    """The upper left of every pixel's four taps, x and y, and how far the position lies beyond it along each."""
    if (tl.load(d + 6) != 0.0) | (tl.load(d + 7) != 0.0) | (tl.load(d + 8) != 1.0):
        sx, sy = mapped_position(d, at)
        x, fx = split_position(sx + NOTHING)
        y, fy = split_position(sy + NOTHING)
        fx, fy = snap_to_pixel(fx), snap_to_pixel(fy)
    else:
        x, fx = affine_positions(tl.load(d), tl.load(d + 1), tl.load(d + 2), at)
        y, fy = affine_positions(tl.load(d + 3), tl.load(d + 4), tl.load(d + 5), at)
    return x, y, fx, fy


@triton.jit
def round_half_even(x):
    """The nearest integer as int32, half to even.  x: float64"""
    low = tl.floor(x)
    out, over = low.to(tl.int32), x - low
    return out + ((over > 0.5) | ((over == 0.5) & (out % 2 != 0))).to(tl.int32)


@triton.jit
def add_tap(sums, image, i, y, x, w, channel, mask, FORMAT: tl.constexpr):
    """Sums with one more tap, and the tap; one outside the image adds nothing."""
    valid = mask & (y >= 0) & (y < tl.load(i)) & (x >= 0) & (x < tl.load(i + 1))
    if unit_scale(image, FORMAT) == 1.0:
        valid = valid & (w > 0.0)
    r, g, b = gather(image, y, x, channel, valid, FORMAT)
    sums = Sums(sums.r + w * r, sums.g + w * g, sums.b + w * b, sums.weight + tl.where(valid, w, 0.0))
    return sums, r, g, b


@triton.jit
def column_taps(i, x, fx):
    """The first of a row's two taps of bytes, and the weights of both: they are read even where a position lies beside
    the image, of an image of one column the one, and what is outside weighs nothing.  i: input height and width"""
    width = tl.load(i + 1)
    first = tl.minimum(tl.maximum(x, 0), tl.maximum(width - 2, 0))
    near = tl.where(first == x, 1.0 - fx, tl.where(first == x + 1, fx, 0.0))
    far = tl.where(first == x, fx, tl.where(first == x - 1, 1.0 - fx, 0.0))
    return first, near, tl.where(width > 1, far, 0.0)


@triton.jit
def add_row(sums, image, i, y, columns, fy, mask, FORM: tl.constexpr):
    """Sums with the two taps of a row of bytes, three channels each, which three words hold; and 256 times the
    weights'.  columns: of column_taps; FORM: WORDS or PLANES"""
    first, near, far = columns
    height, width = tl.load(i), tl.load(i + 1)
    share = tl.where(mask & (y >= 0) & (y < height), fy * LIFT, 0.0)
    at = tl.minimum(tl.maximum(y, 0), height - 1) * image.row_stride.to(tl.int32)
    w, v = near * share, far * share
    if FORM == PLANES:
        at += first
        end = at + tl.where(width > 1, 1, 0)
        r0, r1, _, _ = load_plane(image, 0, at, end, 2)
        g0, g1, _, _ = load_plane(image, 1, at, end, 2)
        b0, b1, _, _ = load_plane(image, 2, at, end, 2)
    else:
        words, beyond = word_base(image, 4)
        at += 3 * first + beyond
        a, b, _ = load_taps(words, at, at + tl.where(width > 1, 5, 2), width, 2)
        r0, g0, b0 = subnormal(a, 0), subnormal(a, 1), subnormal(a, 2)
        r1, g1, b1 = subnormal(a, 3), subnormal(b, 0), subnormal(b, 1)
    return Sums(sums.r + w * r0 + v * r1, sums.g + w * g0 + v * g1, sums.b + w * b0 + v * b1, sums.weight + w + v)


@triton.jit
def warp(image, fill, i, d, at, mask, FORMAT: tl.constexpr, KIND: tl.constexpr, FILL: tl.constexpr):
    """Four taps, or the nearest; with a fill, as much of it as lies outside the image.  i: input height and width"""
    zero = tl.zeros((TILE * TILE,), tl.float32)
    sums = Sums(zero, zero, zero, zero)
    if KIND == NEAREST:
        # in doubles: where rounding moves a position over a half, another pixel is read
        sx, sy = mapped_position(d, at)
        y, x = round_half_even(sy), round_half_even(sx)
        sums, nr, ng, nb = add_tap(sums, image, i, y, x, zero + 1.0, at.channel, mask, FORMAT)
    else:
        x, y, fx, fy = corners(d, at)
        nr, ng, nb = zero, zero, zero
        if (FORMAT.form == WORDS) | (FORMAT.form == PLANES):
            columns = column_taps(i, x, fx)
            sums = add_row(sums, image, i, y, columns, 1.0 - fy, mask, FORMAT.form)
            sums = add_row(sums, image, i, y + 1, columns, fy, mask, FORMAT.form)
            level: tl.constexpr = 1.0 / (BYTE_UNIT * LIFT)
            sums = Sums(sums.r * level, sums.g * level, sums.b * level, sums.weight * (1.0 / LIFT))
        else:
            sums, nr, ng, nb = add_tap(sums, image, i, y, x, (1.0 - fx) * (1.0 - fy), at.channel, mask, FORMAT)
            sums, _, _, _ = add_tap(sums, image, i, y, x + 1, fx * (1.0 - fy), at.channel, mask, FORMAT)
            sums, _, _, _ = add_tap(sums, image, i, y + 1, x, (1.0 - fx) * fy, at.channel, mask, FORMAT)
            sums, _, _, _ = add_tap(sums, image, i, y + 1, x + 1, fx * fy, at.channel, mask, FORMAT)
    one = unit_scale(image, FORMAT)
    if KIND == NEAREST:
        r, g, b = to_unit(nr, one), to_unit(ng, one), to_unit(nb, one)
    else:
        r, g, b = snap_mean(sums.r, nr, one), snap_mean(sums.g, ng, one), snap_mean(sums.b, nb, one)
    if FILL == 1:
        fr, fg, fb = load_channels(fill + at.channel, FORMAT.channels)
        r, g, b = blend_fill(r, fr, sums.weight), blend_fill(g, fg, sums.weight), blend_fill(b, fb, sums.weight)
    return r, g, b


@triton.jit
def blend_fill(x, fill, share):
    """A value with the fill where its taps lie outside.  share: the weight of those inside, 0 to 1"""
    return tl.where(share > 0.999999, x, (x - fill) * share + fill)


@triton.jit
def snap_to_pixel(beyond):
    """How far positions are beyond a pixel, given that plus NOTHING: those beside it by no more than rounding are on
    it."""
    return tl.where(beyond < 2.0 * NOTHING, 0.0, beyond - NOTHING)
