"""Stages that write over pixels by the words of `gpuaug.rng`: the same bits, a row at a time."""

import math

import numpy as np
from gpuaug_kernels.codes import DOMAIN_SHIFT, KEY_C2, KEY_C3, KEY_HIGH, KEY_LOW, KEY_OCCURRENCE, PIXELS
from numba import float32, int32, uint32

from gpuaug.exec.cpu.memory import words
from gpuaug.exec.cpu.vectors import bits_float, float_bits
from gpuaug.numba_cache import njit
from gpuaug.rng.host import philox_words

_UNIT = float32(2.0**-24)
_LN2, _SQRT2 = float32(math.log(2.0)), float32(math.sqrt(2.0))


@njit
def row_words(to, stride, w, first, blocks, key, slot):
    """The four words of w pixels, as four rows of uint32 at `to`, `stride` bytes apart.

    first: counter of the first pixel; key: a row of the keys, in the order of `codes`
    """
    k0, k1, c2, c3 = key[KEY_LOW], key[KEY_HIGH], key[KEY_C2], key[KEY_C3]
    c1 = uint32(key[KEY_OCCURRENCE] | uint32(slot | (PIXELS << DOMAIN_SHIFT)))
    a, b, c, d = words(to, w), words(to + stride, w), words(to + 2 * stride, w), words(to + 3 * stride, w)
    start, step = uint32(first), uint32(blocks)
    for x in range(w):
        a[x], b[x], c[x], d[x] = philox_words(k0, k1, uint32(start + uint32(x) * step), c1, c2, c3)


@njit
def first_words(to, n, first, blocks, key, slot):
    """The first word alone of n pixels, as uint32 at `to`."""
    k0, k1, c2, c3 = key[KEY_LOW], key[KEY_HIGH], key[KEY_C2], key[KEY_C3]
    c1 = uint32(key[KEY_OCCURRENCE] | uint32(slot | (PIXELS << DOMAIN_SHIFT)))
    out, start, step = words(to, n), uint32(first), uint32(blocks)
    for x in range(n):
        out[x] = philox_words(k0, k1, uint32(start + uint32(x) * step), c1, c2, c3)[0]


@njit
def salt_pepper(x, w, word, salt, amount):
    one, zero = float32(1.0), float32(0.0)
    for i in range(w):
        u = float32(int32(word[i] >> uint32(8))) * _UNIT
        spot = one if u < salt else zero
        x[i] = spot if u < amount else x[i]


@njit(fastmath={"contract"}, inline="always")
def _log(x):
    """Natural logarithm of a float32 in (0, 1]: the exponent, and atanh of the mantissa in [sqrt(1/2), sqrt(2))."""
    bits = float_bits(x)
    e = (bits >> int32(23)) - int32(127)
    m = bits_float((bits & int32(0x7FFFFF)) | int32(0x3F800000))
    big = m > _SQRT2
    m = m * float32(0.5) if big else m
    e = float32(e + int32(1)) if big else float32(e)
    s = (m - float32(1.0)) / (m + float32(1.0))
    q = s * s
    series = float32(2 / 9)
    series = series * q + float32(2 / 7)
    series = series * q + float32(2 / 5)
    series = series * q + float32(2 / 3)
    series = series * q + float32(2.0)
    return s * series + e * _LN2


@njit(fastmath={"contract"}, inline="always")
def _sine(turn):
    """sin(2 pi turn) for |turn| <= 1/4."""
    t = turn * turn
    p = float32((2 * math.pi) ** 9 / 362880)
    p = p * t - float32((2 * math.pi) ** 7 / 5040)
    p = p * t + float32((2 * math.pi) ** 5 / 120)
    p = p * t - float32((2 * math.pi) ** 3 / 6)
    p = p * t + float32(2 * math.pi)
    p11 = float32((2 * math.pi) ** 11 / 39916800)
    return turn * (p - p11 * t * t * t * t * t)


@njit(fastmath={"contract"})
def normals(first, second, w, cosine, sine):
    """Two standard normals per pair of words (Box and Muller), to 1e-6: cosine, sine [>= w] float32 are written."""
    for i in range(w):
        u = float32(int32((first[i] >> uint32(8)) + uint32(1))) * _UNIT
        radius = np.sqrt(float32(-2.0) * _log(u))
        turn = float32(int32(second[i] >> uint32(8))) * _UNIT
        # the nearest half turn changes signs only
        half = np.floor(turn * float32(2.0) + float32(0.5))
        rest = turn - half * float32(0.5)
        sign = float32(1.0) - float32(2.0) * (half - float32(2.0) * np.floor(half * float32(0.5)))
        sine[i] = radius * sign * _sine(rest)
        cosine[i] = radius * sign * _sine(float32(0.25) - abs(rest))


@njit(fastmath={"contract"})
def add_noise(x, w, noise, mean, sigma, clip):
    for i in range(w):
        v = x[i] + mean + sigma * noise[i]
        x[i] = min(max(v, float32(0.0)), float32(1.0)) if clip else v


@njit
def write_over(x, w, noise, value):
    """A value, or the noise where it is NaN."""
    if value != value:
        for i in range(w):
            x[i] = noise[i]
    else:
        for i in range(w):
            x[i] = value
