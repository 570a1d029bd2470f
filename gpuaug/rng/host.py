"""Philox words on a host, compiled by Numba: the same bits as `gpuaug.rng.philox`, about thirty times faster."""

import math

import numpy as np
from gpuaug_kernels.codes import EPOCH_BITS, OCCURRENCE_SHIFT
from numba import uint32, uint64

from gpuaug.numba_cache import kernel, njit

_WORD = uint64(0xFFFFFFFF)


@njit(inline="always")
def philox_words(k0, k1, c0, c1, c2, c3):
    """Four uint32 words of one counter.  All arguments uint32."""
    # in lanes of 64 bits, whose upper halves nobody reads: a vector multiplies those, and would have to pack and unpack
    # words of 32 bits in every round
    c0, c1, c2, c3, k0, k1 = uint64(c0), uint64(c1), uint64(c2), uint64(c3), uint64(k0), uint64(k1)
    for _ in range(10):
        p0, p1 = uint64(0xD2511F53) * (c0 & _WORD), uint64(0xCD9E8D57) * (c2 & _WORD)
        c0, c1, c2, c3 = (p1 >> uint64(32)) ^ c1 ^ k0, p1, (p0 >> uint64(32)) ^ c3 ^ k1, p0
        k0, k1 = (k0 + uint64(0x9E3779B9)) & _WORD, (k1 + uint64(0xBB67AE85)) & _WORD
    return uint32(c0), uint32(c1), uint32(c2), uint32(c3)


@njit(inline="always")
def counter_1(occurrence):
    """The occurrence in its place in c1 of a counter."""
    return uint32(occurrence << OCCURRENCE_SHIFT)


@njit(inline="always")
def counter_3(identity, epoch):
    """c3 of a counter.  identity: all bits of the id, int64"""
    return uint32(((identity >> 32) << EPOCH_BITS) | epoch)


@kernel
def _table(k0, k1, c0, c1, occurrence, c2, c3, out):
    for n in range(out.shape[0]):
        high = counter_1(occurrence[n])
        for t in range(out.shape[1]):
            w = philox_words(k0, k1, c0[t], uint32(c1[t] | high), c2[n], c3[n])
            out[n, t, 0], out[n, t, 1], out[n, t, 2], out[n, t, 3] = w


def table(
    seed: int, c0: np.ndarray, c1: np.ndarray, occurrence: np.ndarray, c2: np.ndarray, c3: np.ndarray
) -> np.ndarray:
    """Words of every sample at every counter.  c0, c1: [T]; occurrence, c2, c3: [N]; all uint32 -> [N, T, 4] int64."""
    out = np.empty((len(c2), len(c0), 4), np.int64)
    _table(np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32), c0, c1, occurrence, c2, c3, out)
    return out


_FUNCTIONS = ("exp", "log", "sin", "cos")


@kernel
def _apply(which, x, out):
    for i in range(len(x)):
        if which == 0:
            out[i] = math.exp(x[i])
        elif which == 1:
            out[i] = math.log(x[i])
        elif which == 2:
            out[i] = math.sin(x[i])
        else:
            out[i] = math.cos(x[i])


def apply(function: str, x: np.ndarray) -> np.ndarray:
    """exp, log, sin or cos of float64 numbers, by the C library: the same bits for a number wherever it stands."""
    out = np.empty(x.shape, np.float64)
    _apply(_FUNCTIONS.index(function), np.ascontiguousarray(x).reshape(-1), out.reshape(-1))
    return out
