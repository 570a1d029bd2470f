"""Colour stages on one row: planes [C, >= W] float32 in place.

A row is in the first-level cache while its stages run, so that each is a plain loop of its own that LLVM vectorises.
Sums may be contracted and reordered; comparisons that decide a pixel are exact."""

import numpy as np
from numba import float32

from gpuaug.numba_cache import njit

_FAST = {"contract", "reassoc", "nsz", "arcp"}
_0, _1, _2, _4, _6 = (float32(v) for v in (0, 1, 2, 4, 6))
_3, _5 = float32(3), float32(5)
_SIXTH = float32(1 / 6)
_255 = float32(255.0)
_OVER = _1 / _255
_R, _G, _B = float32(0.2989), float32(0.587), float32(0.114)


@njit(fastmath=_FAST, forceinline=True)
def clamp(x):
    """x in [0, 1]; NaN stays NaN."""
    x = _0 if x < _0 else x
    return _1 if x > _1 else x


@njit(fastmath=_FAST)
def affine(x, w, scale, bias):
    for i in range(w):
        x[i] = x[i] * scale + bias


@njit(fastmath=_FAST)
def affine_clamped(x, w, scale, bias):
    for i in range(w):
        x[i] = clamp(x[i] * scale + bias)


@njit(fastmath=_FAST)
def saturation(r, g, b, w, f):
    rest = _1 - f
    for i in range(w):
        gray = (_R * r[i] + _G * g[i] + _B * b[i]) * rest
        r[i], g[i], b[i] = clamp(f * r[i] + gray), clamp(f * g[i] + gray), clamp(f * b[i] + gray)


@njit(fastmath=_FAST)
def hue(r, g, b, w, shift):
    turn = shift * _6
    for i in range(w):
        x, y, z = r[i], g[i], b[i]
        high, low = max(x, max(y, z)), min(x, min(y, z))
        chroma = high - low
        inverse = _1 / (chroma if chroma > _0 else _1)
        h = _4 + (x - y) * inverse
        h = _2 + (z - x) * inverse if high == y else h
        h = (y - z) * inverse if high == x else h
        h += turn
        k = h + _5
        k -= _6 * np.floor(k * _SIXTH)
        r[i] = high - chroma * clamp(min(k, _4 - k))
        k = h + _3
        k -= _6 * np.floor(k * _SIXTH)
        g[i] = high - chroma * clamp(min(k, _4 - k))
        k = h + _1
        k -= _6 * np.floor(k * _SIXTH)
        b[i] = high - chroma * clamp(min(k, _4 - k))


@njit(fastmath=_FAST)
def gray_to_first(r, g, b, w):
    for i in range(w):
        r[i] = _R * r[i] + _G * g[i] + _B * b[i]


@njit
def swap(x, y, w):
    for i in range(w):
        x[i], y[i] = y[i], x[i]


@njit
def solarize(x, w, threshold):
    for i in range(w):
        x[i] = _1 - x[i] if x[i] >= threshold else x[i]


@njit
def add_below(x, w, addition, threshold):
    for i in range(w):
        if x[i] < threshold:
            more = x[i] + addition
            x[i] = more if more < _1 else _1


@njit
def posterize(x, w, levels):
    top, share = levels - _1, _1 / levels
    for i in range(w):
        level = np.floor(x[i] * levels)
        level = _0 if level < _0 else level
        x[i] = (top if level > top else level) * share


@njit
def autocontrast(x, w, low, high):
    if high == low:
        return
    span = high - low
    for i in range(w):
        x[i] = clamp((x[i] - low) / span)


@njit
def level(x):
    """The bin of a value in a histogram of 256; never outside, whatever x."""
    v = x * float32(255.999)
    v = v if v > _0 else _0
    return np.int32(v if v < float32(255.0) else float32(255.0))


@njit
def equalize(x, w, table):
    for i in range(w):
        x[i] = table[level(x[i])]


# ---- statistics, in a fixed order


@njit(fastmath=_FAST)
def gray_sum(r, g, b, w):
    """The sum of gray over a row."""
    total = _0
    for i in range(w):
        total += _R * r[i] + _G * g[i] + _B * b[i]
    return total


@njit(fastmath=_FAST)
def plain_sum(x, w):
    """The sum of a row."""
    total = _0
    for i in range(w):
        total += x[i]
    return total


@njit(fastmath=_FAST)
def extremes(x, w, low, high):
    """The lowest and highest of a row and of what came before."""
    for i in range(w):
        low, high = min(low, x[i]), max(high, x[i])
    return low, high


@njit
def histogram(x, w, counts):
    for i in range(w):
        counts[level(x[i])] += 1


@njit
def equalizing_table(counts, pixels, table):
    """Pillow's table from a histogram.  counts: [256]; table: [256] float32, written"""
    last = 255
    while last > 0 and counts[last] == 0:
        last -= 1
    step = (pixels - counts[last]) // 255
    before = 0
    for k in range(256):
        value = k if step == 0 else min(max((before + step // 2) // step, 0), 255)
        table[k] = float32(value) / float32(255.0)
        before += counts[k]


# ---- bytes


@njit(fastmath={"contract"}, forceinline=True)
def unit(level):
    """level / 255: a product and one correction, which makes it exact where a multiply-add is fused."""
    value = float32(level)
    quotient = value * _OVER
    return quotient + (value - quotient * _255) * _OVER


# ---- partners and the end


@njit(fastmath=_FAST)
def blend(x, other, w, lam):
    rest = _1 - lam
    # what has no weight is not multiplied
    if rest == _0:
        return
    for i in range(w):
        x[i] = lam * x[i] + rest * other[i] if lam != _0 else other[i]


@njit(forceinline=True)
def byte(x):
    """floor(255.999 clamp(x))"""
    v = x if x > _0 else _0
    return np.uint8(np.int32((v if v < _1 else _1) * float32(255.999)))


@njit
def to_bytes(x, w, out):
    """floor(255.999 clamp(x))"""
    for i in range(w):
        out[i] = byte(x[i])


@njit
def to_strided_bytes(x, w, out, step):
    """The same, `step` elements apart."""
    for i in range(w):
        out[i * step] = byte(x[i])


@njit
def to_strided(x, w, out, step):
    """A plane to every step-th float of out."""
    for i in range(w):
        out[i * step] = x[i]


@njit
def interleave(r, g, b, w, out):
    """Three planes to pixels."""
    for i in range(w):
        out[3 * i], out[3 * i + 1], out[3 * i + 2] = r[i], g[i], b[i]
