"""The taps of an antialiased resample along an axis, and means of bytes whose taps are read as words."""

import triton
import triton.language as tl

from gpuaug_kernels.constants import BYTE_UNIT, CUBIC, LANCZOS, LIFT, NOTHING, PLANES, TRIANGLE
from gpuaug_kernels.words import load_plane, load_taps, subnormal, word_base


@triton.jit
def to_int32(x):
    """An integer held as float64 as int32, limited to 1e9: the conversion of what int32 cannot hold is undefined.

    By way of float32, which is exact to 2^24: no image is larger, and nothing is read beyond."""
    return tl.minimum(tl.maximum(x.to(tl.float32), -1.0e9), 1.0e9).to(tl.int32)


@triton.jit
def axis_taps(axis, footprint, first, last, index):
    """The taps of positions along an axis.  index: rows or columns of the tile

    Of each the first tap in the window [first, last), and how far the position lies beyond that tap; of all the slope
    of the triangle, and the most taps."""
    origin = axis.step * axis.first.to(tl.float64) + axis.shift
    base = tl.floor(origin - footprint)
    # relative to the tile's first tap float32 is exact enough: a weight is continuous in the position
    position = index.to(tl.float32) * axis.step.to(tl.float32)
    position += (origin - base).to(tl.float32)
    start = tl.floor(position - footprint.to(tl.float32)) + 1.0
    tap = to_int32(base) + start.to(tl.int32)
    moved = tl.maximum(first - tap, 0)
    beyond = position - start - moved.to(tl.float32)
    return (
        tl.minimum(tap + moved, last - 1),
        beyond,
        1.0 / footprint.to(tl.float32),
        tl.ceil(2.0 * footprint).to(tl.int32),
    )


@triton.jit
def sine_of_half_turns(u):
    """sin(pi u) of u in [0, 1], by its series: the library's reduces angles of any size, and takes memory for it."""
    v = tl.minimum(u, 1.0 - u)
    w = v * v
    p = 0.0821458866 - 0.00737043094 * w
    p = 0.599264529 - p * w
    p = 2.55016404 - p * w
    p = 5.16771278 - p * w
    return v * (3.1415926535897931 - p * w)


@triton.jit
def tap_weight(tap, beyond, slope, k, last, KIND: tl.constexpr = TRIANGLE):
    """The weight of every position's tap number k; 0 beyond the window."""
    u = tl.abs(k - beyond) * slope
    near = 1.0 - u
    w = near
    if KIND == LANCZOS:
        # sinc(3 u) sinc(u), since sin(3 t) = sin(t) (3 - 4 sin(t)^2)
        sine = sine_of_half_turns(u)
        share = sine / (3.1415926535897931 * tl.maximum(u, 1e-6))
        share = tl.where(u > 1e-6, share, 1.0)
        w = share * share * (1.0 - 1.3333333333333333 * sine * sine)
    elif KIND != TRIANGLE:
        a: tl.constexpr = -0.75 if KIND == CUBIC else -0.5
        x = 2.0 * u
        w = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
        w = tl.where(x < 1.0, w, a * (((x - 5.0) * x + 8.0) * x - 4.0))
    kept = (tap + k < last) & (near > NOTHING)
    if KIND != TRIANGLE:
        kept = kept & (tl.abs(w) > NOTHING)
    return tl.where(kept, w, 0.0)


@triton.jit
def inverse_weight(total):
    """1 / total, and 1 where no tap counts."""
    return 1.0 / tl.where(total > 0.0, total, 1.0)


@triton.jit
def heaviest_tap(tap, beyond, last):
    """The tap that weighs most."""
    return tl.minimum(tap + tl.maximum(tl.floor(beyond + 0.5), 0.0).to(tl.int32), last - 1)


@triton.jit
def row_weight(k, beyond, slope, last):
    """The weight of row k of a position's taps; `last` is the last in the window.  beyond: times the slope"""
    w = 1.0 - tl.abs(k * slope - beyond)
    return tl.where((w > NOTHING) & (k <= last), w, 0.0)


@triton.jit
def column_weight(distance, slope):
    """LIFT times the weight of taps at a distance from their position.  slope: LIFT times that of axis_taps"""
    w = LIFT - tl.abs(distance) * slope
    return tl.where(w > NOTHING * LIFT, w, 0.0)


@triton.jit
def byte_means(image, along, rows, x1, y1, TAPS: tl.constexpr, FORM: tl.constexpr):
    """Weighted means of three channels, in bytes.

    along, rows: what axis_taps gives; x1, y1: the window's end; TAPS: 1, 2 or 4 of a row that are read at once, no more
    than the window is wide; FORM: WORDS or PLANES"""
    first_x, beyond_x, slope_x, taps_x = along
    slope_x *= LIFT
    first_y, beyond_y, slope_y, taps_y = rows
    words, beyond = word_base(image, 4)
    pitch = image.row_stride.to(tl.int32)
    # rows are counted from the window's last one up
    last = y1 - 1 - first_y
    end = (y1 - 1) * pitch
    beyond_y *= slope_y
    r = tl.zeros_like(beyond_x)
    g, b, total_x, total_y = r, r, r, r
    for k in range(0, taps_x, TAPS):
        # at the window's end from further left, so that no more than the window is read
        tap = tl.minimum(first_x + k, x1 - TAPS)
        column, place = end + (tap if FORM == PLANES else 3 * tap + beyond), tap - first_x
        distance = place.to(tl.float32) - beyond_x
        w0 = column_weight(distance, slope_x)
        w1, w2, w3 = w0, w0, w0
        if TAPS > 1:
            w1 = column_weight(distance + 1.0, slope_x)
        if TAPS > 2:
            w2, w3 = column_weight(distance + 2.0, slope_x), column_weight(distance + 3.0, slope_x)
        # but those that a round before has weighed
        w0, w1 = tl.where(place < k, 0.0, w0), tl.where(place + 1 < k, 0.0, w1)
        w2, w3 = tl.where(place + 2 < k, 0.0, w2), tl.where(place + 3 < k, 0.0, w3)
        total_x += w0
        if TAPS > 1:
            total_x += w1
        if TAPS > 2:
            total_x += w2 + w3
        total_y = tl.zeros_like(total_y)
        # two rows at a time, so that more loads are under way; one that is too many weighs nothing
        for j in range(0, taps_y, 2):
            v0, v1 = row_weight(j, beyond_y, slope_y, last), row_weight(j + 1, beyond_y, slope_y, last)
            upper = column - tl.maximum(last - j, 0) * pitch
            lower = column - tl.maximum(last - (j + 1), 0) * pitch
            if FORM == PLANES:
                r0, g0, s0 = plane_sums(image, upper, w0, w1, w2, w3, TAPS)
                r1, g1, s1 = plane_sums(image, lower, w0, w1, w2, w3, TAPS)
            else:
                a0, b0, c0 = load_taps(words, upper, pitch, TAPS)
                a1, b1, c1 = load_taps(words, lower, pitch, TAPS)
                r0, g0, s0 = row_sums(a0, b0, c0, w0, w1, w2, w3, TAPS)
                r1, g1, s1 = row_sums(a1, b1, c1, w0, w1, w2, w3, TAPS)
            r, g, b = r + v0 * r0, g + v0 * g0, b + v0 * s0
            r, g, b = r + v1 * r1, g + v1 * g1, b + v1 * s1
            total_y += v0 + v1
    over = inverse_weight(total_y) * inverse_weight(total_x * BYTE_UNIT)
    return r * over, g * over, b * over


@triton.jit
def row_sums(a, b, c, w0, w1, w2, w3, TAPS: tl.constexpr):
    """The weighted sums of a row's taps, which are subnormal.  a, b, c: their bytes, uint32"""
    red, green, blue = w0 * subnormal(a, 0), w0 * subnormal(a, 1), w0 * subnormal(a, 2)
    if TAPS > 1:
        red += w1 * subnormal(a, 3)
        green += w1 * subnormal(b, 0)
        blue += w1 * subnormal(b, 1)
    if TAPS > 2:
        red += w2 * subnormal(b, 2)
        green += w2 * subnormal(b, 3)
        blue += w2 * subnormal(c, 0)
        red += w3 * subnormal(c, 1)
        green += w3 * subnormal(c, 2)
        blue += w3 * subnormal(c, 3)
    return red, green, blue


@triton.jit
def plane_sums(image, at, w0, w1, w2, w3, TAPS: tl.constexpr):
    """The same of taps that lie in three planes.  at: the first, beyond the plane's first byte"""
    return (
        plane_sum(image, 0, at, w0, w1, w2, w3, TAPS),
        plane_sum(image, 1, at, w0, w1, w2, w3, TAPS),
        plane_sum(image, 2, at, w0, w1, w2, w3, TAPS),
    )


@triton.jit
def plane_sum(image, CHANNEL: tl.constexpr, at, w0, w1, w2, w3, TAPS: tl.constexpr):
    """The same of one plane."""
    taps = load_plane(image, CHANNEL, at, 1, TAPS)
    out = w0 * taps[0]
    if TAPS > 1:
        out += w1 * taps[1]
    if TAPS > 2:
        out += w2 * taps[2]
        out += w3 * taps[3]
    return out
