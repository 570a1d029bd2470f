"""Keyed permutations: position to id and back, a pure function of (seed, epoch, purpose) that stores nothing which
grows with the data.

A long permutation is a Feistel network on the numbers left * b + right, left < a, right < b, where a and b lie next to
the square root of n (Black and Rogaway, Ciphers with arbitrary finite domains, 2002): a round adds to one half, modulo
its size, a hash of the other half under a key of its own.  a * b exceeds n by less than b, and who lands there takes
the network again until it does not.  Four rounds are known to be too few; here are twelve.  A short permutation is
stored, because only sorting by random keys makes every order alike."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gpuaug import rng

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

# what is permuted, each under keys of its own: the slot of the counter of `gpuaug.rng`
SAMPLES, SHARDS, WINDOWS, DRAWS, CLASSES, SUBSTITUTES, BLOCKS = range(7)

ROUNDS = 12
# up to this many a permutation is stored: that takes some milliseconds an epoch
STORED = 1 << 14
# up to this many a permutation among many is found by counting, because a network of so few numbers is visibly uneven
COUNTED = 16
# numbers at a time: enough to hide what a call of NumPy costs, and what a round touches stays in the cache
_BLOCK = 4096
# Stafford's variant 13 of the finaliser of MurmurHash3, as in SplitMix64: every bit that goes in turns half of those
# that come out
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def words(seed: int, epoch: int, purpose: int, count: int) -> Words:
    """Random 64-bit words.  Seed and epoch go through Philox as key and counter, so that neighbours have nothing in
    common."""
    # on the host, whatever torch.set_default_device says
    c0 = torch.arange(-(-count // 2), device="cpu")
    fixed = (torch.tensor([value], device="cpu") for value in (rng.counter_1(rng.SAMPLER, purpose), 0, epoch))
    w = [np.ascontiguousarray(x.numpy()).astype(np.uint64) for x in rng.philox(seed, c0, *fixed)]
    pairs = np.stack((w[0] | (w[1] << np.uint64(32)), w[2] | (w[3] << np.uint64(32))), axis=1)
    return pairs.reshape(-1)[:count]


def mix(x: Words) -> Words:
    """A hash of 64-bit numbers, one to one."""
    x = (x ^ (x >> np.uint64(30))) * _M1
    x = (x ^ (x >> np.uint64(27))) * _M2
    return x ^ (x >> np.uint64(31))


class Permutation:
    """An order of 0 .. n - 1, drawn for (seed, epoch, purpose)."""

    def __init__(self, seed: int, epoch: int, purpose: int, n: int):
        self.n = n
        if n <= STORED:
            # two equal words of 64 bits are next to impossible, and a stable sort orders even those
            self._ids = np.argsort(words(seed, epoch, purpose, n), kind="stable")
            self._positions = np.empty_like(self._ids)
            self._positions[self._ids] = np.arange(n)
        else:
            self._keys = words(seed, epoch, purpose, ROUNDS)

    def __call__(self, positions: Ints) -> Ints:
        """The ids at positions in [0, n)."""
        return self._ids[positions] if self.n <= STORED else _network(positions, self.n, self._keys, None, _forth)

    def inverse(self, ids: Ints) -> Ints:
        """The positions of ids in [0, n)."""
        return self._positions[ids] if self.n <= STORED else _network(ids, self.n, self._keys, None, _back)


class Permutations:
    """An order of its own, of any size, for every number: one within each class and round, or within each window."""

    def __init__(self, seed: int, epoch: int, purpose: int):
        key = words(seed, epoch, purpose, ROUNDS + 2)
        self._keys, self._number, self._member = key[:ROUNDS], key[ROUNDS], key[ROUNDS + 1]

    def __call__(self, number: Ints, size: Ints, index: Ints) -> Ints:
        """The member at index of the permutation `number`, which has `size` members.  number, size, index: [M], index <
        size"""
        tweak = mix(number.astype(np.uint64) ^ self._number)
        out = np.empty_like(index)
        few = size <= COUNTED
        if few.any():
            out[few] = self._count(tweak[few], size[few], index[few])
        many = ~few
        if many.any():
            out[many] = _network(index[many], size[many], self._keys, tweak[many], _forth)
        return out

    def _count(self, tweak: Words, size: Ints, index: Ints) -> Ints:
        """Every member has a random word, and goes where as many words are smaller as its own: exactly uniform."""
        members = np.arange(size.max(), dtype=np.uint64)
        member, out = mix(members ^ self._member), np.empty_like(index)
        step = _BLOCK // COUNTED
        for start in range(0, index.size, step):
            part = slice(start, start + step)
            # the member in the low bits, so that no two words of one permutation are equal
            word = (mix(tweak[part, None] ^ member) & ~np.uint64(COUNTED - 1)) | members
            own = np.take_along_axis(word, index[part, None], 1)
            out[part] = np.count_nonzero((word < own) & (members < size[part, None].astype(np.uint64)), axis=1)
        return out


def _network(index: Ints, n: int | Ints, keys: Words, tweak: Words | None, rounds: Callable[..., None]) -> Ints:
    """The network, in blocks, and again for those that land at n or beyond."""
    at = np.asarray(index, np.int64).astype(np.uint64).reshape(-1)
    end: Words = np.asarray(n, np.uint64)
    _blocks(at, n, keys, tweak, rounds)
    beyond = np.flatnonzero(at >= end)
    while beyond.size:
        again = at[beyond]
        _blocks(again, n if isinstance(n, int) else n[beyond], keys, None if tweak is None else tweak[beyond], rounds)
        at[beyond] = again
        beyond = beyond[again >= (end if isinstance(n, int) else end[beyond])]
    return at.astype(np.int64).reshape(np.shape(index))


def _blocks(at: Words, n: int | Ints, keys: Words, tweak: Words | None, rounds: Callable[..., None]) -> None:
    scratch = np.empty((4, min(_BLOCK, at.size)), np.uint64)
    for start in range(0, at.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        _once(
            at[part],
            n if isinstance(n, int) else n[part],
            keys,
            None if tweak is None else tweak[part],
            rounds,
            scratch,
        )


def _once(
    at: Words, n: int | Ints, keys: Words, tweak: Words | None, rounds: Callable[..., None], scratch: Words
) -> None:
    """The network, once, in place."""
    b: Any
    if isinstance(n, int):
        b = math.isqrt(n - 1) + 1
        a = -(-n // b)
    else:
        b = np.ceil(np.sqrt(n)).astype(np.int64)
        a = -(-n // b)
    a, b = np.asarray(a, np.uint64), np.asarray(b, np.uint64)
    left, right, t, u = scratch[:, : at.size]
    np.floor_divide(at, b, out=left)
    np.multiply(left, b, out=t)
    np.subtract(at, t, out=right)
    rounds(((left, right, a), (right, left, b)), keys, tweak, t, u)
    np.multiply(left, b, out=t)
    np.add(t, right, out=at)


def _forth(halves: Any, keys: Words, tweak: Words | None, t: Words, u: Words) -> None:
    for i, key in enumerate(keys):
        half, other, size = halves[i % 2]
        _hash(other, size, key, tweak, t, u)
        np.add(half, t, out=half)
        # the smaller of x and x - size is x modulo size, as what is below 0 is very large without a sign
        np.subtract(half, size, out=u)
        np.minimum(half, u, out=half)


def _back(halves: Any, keys: Words, tweak: Words | None, t: Words, u: Words) -> None:
    for i in reversed(range(len(keys))):
        half, other, size = halves[i % 2]
        _hash(other, size, keys[i], tweak, t, u)
        np.subtract(half, t, out=half)
        np.add(half, size, out=u)
        np.minimum(half, u, out=half)


def _hash(other: Words, size: Words, key: np.uint64, tweak: Words | None, t: Words, u: Words) -> None:
    """t = a hash of a half below 2^24 in [0, size): the upper 40 bits of the finaliser, scaled, so that no value is
    favoured by more than 2^-17.

    The finaliser's first shift would move bits of the key only, and its last one bits that are not used.
    """
    if tweak is None:
        np.bitwise_xor(other, key, out=t)
    else:
        np.bitwise_xor(tweak, key, out=t)
        np.bitwise_xor(t, other, out=t)
    np.multiply(t, _M1, out=t)
    np.right_shift(t, np.uint64(27), out=u)
    np.bitwise_xor(t, u, out=t)
    np.multiply(t, _M2, out=t)
    np.right_shift(t, np.uint64(24), out=t)
    np.multiply(t, size, out=t)
    np.right_shift(t, np.uint64(40), out=t)
