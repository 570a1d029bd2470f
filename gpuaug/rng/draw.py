"""Random numbers that are a pure function of (seed, epoch, sample id, occurrence, slot, draw number).

Philox4x32-10 (Salmon et al., SC 2011), bit-identical to `triton.language.philox`.  The key is the 64-bit seed; the
counter is

    c0  draw number, or pixel * ceil(C / 4) + channel // 4
    c1  domain: 4 bits | occurrence: 12 bits | slot: 16 bits
    c2  id mod 2^32
    c3  (id >> 32) << 18 | epoch                                   id < 2^46, epoch < 2^18
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from gpuaug_kernels.codes import (
    DOMAIN_SHIFT,
    EPOCH_BITS,
    ID_BITS,
    MIX,
    OCCURRENCE_BITS,
    OCCURRENCE_SHIFT,
    PARAMETERS,
    PIXELS,
    SLOT_BITS,
)
from torch import Tensor

from gpuaug.symbolic import smooth

# of the draws: another number means that one seed gives other augmentations (tests/support/golden.py)
VERSION = 1
OTHER_DRAWS = (
    "the same seed would give other augmentations; "
    "use the gpuaug that wrote this, or remove the entry to go on with the draws of this one"
)

MAX_ID, MAX_EPOCH, MAX_OCCURRENCE, MAX_SLOT = 1 << ID_BITS, 1 << EPOCH_BITS, 1 << OCCURRENCE_BITS, 1 << SLOT_BITS
_M = 0xFFFFFFFF
Number = TypeVar("Number", int, Tensor)


def counter_1(domain: int, slot: Number) -> Number:
    """c1 of a counter but for the occurrence.  slot: a number, or a tensor of them"""
    return slot | (domain << DOMAIN_SHIFT)  # type: ignore[no-any-return]


def philox(seed: int, c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four uint32 words per counter, held in int64: the definition.  c0..c3: int64, broadcast against each other."""
    k0, k1 = seed & _M, (seed >> 32) & _M
    for _ in range(10):
        # an int64 product wraps, and its 64 bits are still those of the unsigned product
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = ((p1 >> 32) & _M) ^ c1 ^ k0, p1 & _M, ((p0 >> 32) & _M) ^ c3 ^ k1, p0 & _M
        k0, k1 = (k0 + 0x9E3779B9) & _M, (k1 + 0xBB67AE85) & _M
    a, b, c, d = torch.broadcast_tensors(c0, c1, c2, c3)  # type: ignore[no-untyped-call]
    return a, b, c, d


def _expm1(x: Tensor) -> Tensor:
    """exp(x) - 1 of float64 x >= 0 by exp and log, which every device has (Kahan; Higham, Accuracy and Stability, 2002,
    section 1.14.1)."""
    y = smooth("exp", x)
    near = torch.where(y == 1.0, x, (y - 1.0) * x / smooth("log", y))
    return torch.where(x > 40.0, y, near)


def unit(words: Tensor) -> Tensor:
    """Words to float64 in [0, 1) on the grid of 2^-24."""
    return (words >> 8).double() * 2.0**-24


def gauss(w0: Tensor, w1: Tensor) -> tuple[Tensor, Tensor]:
    """Two standard normals per pair of words (Box and Muller, 1958), float64."""
    radius = torch.sqrt(-2.0 * torch.log(((w0 >> 8) + 1).double() * 2.0**-24))
    turn = (2.0 * math.pi) * unit(w1)
    return radius * torch.cos(turn), radius * torch.sin(turn)


@dataclass(frozen=True, eq=False)
class Keys:
    """Who is being augmented: with these a sample's randomness is fixed, wherever it is computed."""

    seed: int  # the 64 bits of the key
    epoch: int | Tensor  # a number, or an int64 tensor without dimensions on the device of ids
    ids: Tensor  # [N] int64
    occurrence: Tensor  # [N] int64
    valid: Tensor | None = None  # [N] bool, false for samples that are nobody's partner; None: there are none
    labels: Tensor | None = None  # [N] int64, the classes that a policy chooses by; None: it does not

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Tensor) -> "Keys":
        """The keys of some samples.  rows: [M] int64 or bool"""
        valid = None if self.valid is None else self.valid[rows]
        labels = None if self.labels is None else self.labels[rows]
        return Keys(self.seed, self.epoch, self.ids[rows], self.occurrence[rows], valid, labels)

    def classes(self) -> Tensor:
        """The labels, which a policy that chooses by class must have: [N] int64."""
        if self.labels is None:
            raise ValueError(
                "ByClass chooses by class, got no labels; pass labels=, the class number of each sample, [N] integers"
            )
        return self.labels

    def counter(self) -> tuple[Tensor, Tensor]:
        """c2 and c3 of every sample: 2 x [N] int64."""
        return self.ids & _M, ((self.ids >> 32) << EPOCH_BITS) | self.epoch

    def halves(self) -> Tensor:
        """The words of the key, low and high, for every sample: [N, 2] int64."""
        return torch.stack([torch.full_like(self.ids, self.seed & _M), torch.full_like(self.ids, self.seed >> 32)], 1)

    def words(self, domain: int, c0: Tensor, slot: Tensor) -> Tensor:
        """Words of every sample at every counter.  c0, slot: [T] int64 -> [N, T, 4] int64"""
        c1, (c2, c3) = counter_1(domain, slot), self.counter()
        if self.ids.device.type == "cpu":
            from gpuaug.rng import host

            c0, c1, occurrence, c2, c3 = (x.to(torch.uint32) for x in (c0, c1, self.occurrence, c2, c3))
            counters = (x.contiguous().numpy() for x in (c0, c1, occurrence, c2, c3))
            return torch.from_numpy(host.table(self.seed, *counters))
        high = (self.occurrence << OCCURRENCE_SHIFT)[:, None] | c1
        return torch.stack(philox(self.seed, c0, high, c2[:, None], c3[:, None]), -1)

    def order(self, slot: int) -> Tensor:
        """The rows of the batch sorted by a keyed word of a slot: [N] int64.

        Ties go by id, then by occurrence, so the place in the batch does not matter, only its members."""
        zero = torch.zeros(1, dtype=torch.int64, device=self.ids.device)
        word = self.words(MIX, zero, zero + slot)[:, 0, 0]
        order = self.occurrence.argsort(stable=True)
        for key in (self.ids, word):
            order = order[key[order].argsort(stable=True)]
        return order

    def partners(self, slot: int) -> Tensor:
        """The row of each sample's partner in the mix of a slot: [N] int64, the next in the cycle of the batch in its
        keyed order.

        A sample that is not valid, and one that would get such a partner, is its own.
        """
        order = self.order(slot)
        return self.among_valid(torch.empty_like(order).scatter_(0, order, order.roll(-1)))

    def shared(self, slot: int) -> "Keys":
        """The keys of the first valid sample in the keyed order of a slot for every sample, so that all draw alike,
        wherever they stand in the batch."""
        order = self.order(slot)
        if self.valid is not None:
            order = order[self.valid[order].long().argsort(descending=True, stable=True)]
        first, n = order[:1], len(self)
        return Keys(self.seed, self.epoch, self.ids[first].expand(n), self.occurrence[first].expand(n), self.valid)

    def in_first(self, parts: int) -> Tensor:
        """Whether a sample stands in the first of so many equal parts of the batch: [N] bool."""
        return torch.arange(len(self), device=self.ids.device) < len(self) // parts

    def among_valid(self, partners: Tensor) -> Tensor:
        """Partners, [N] int64, of which those that are not valid are replaced by the sample itself."""
        if self.valid is None:
            return partners
        return torch.where(self.valid & self.valid[partners], partners, torch.arange(len(self), device=partners.device))

    def pixels(self, slot: int, height: int, width: int, channels: int) -> Tensor:
        """The words of every pixel: [N, height, width, ceil(channels / 4), 4] int64."""
        blocks = -(-channels // 4)
        c0 = torch.arange(height * width * blocks, device=self.ids.device)
        return self.words(PIXELS, c0, torch.full_like(c0, slot)).view(len(self), height, width, blocks, 4)


class Layout:
    """Which draw numbers each slot of a policy asks for, so that one block of words serves the whole policy."""

    def __init__(self, counts: dict[tuple[int, int], int]):
        """counts: (domain, slot) -> draw numbers used"""
        self.counts = counts
        self._tables: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def block(self, keys: Keys) -> "Block":
        """All parameter words of a batch."""
        words = {}
        for domain in sorted({d for d, _ in self.counts}):
            slots = {s: c for (d, s), c in self.counts.items() if d == domain}
            c0, slot = self._table(domain, slots, keys.ids.device)
            start, rows = 0, keys.words(domain, c0, slot)
            for s, count in slots.items():
                words[domain, s] = rows[:, start : start + count]
                start += count
        return Block(keys, words)

    def _table(self, domain: int, slots: dict[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        if (domain, device) not in self._tables:
            c0 = torch.cat([torch.arange(c, device="cpu") for c in slots.values()]).to(device)
            slot = torch.cat([torch.full((c,), s, device="cpu") for s, c in slots.items()]).to(device)
            self._tables[domain, device] = (c0, slot)
        return self._tables[domain, device]


class Block:
    """The random words of a batch: looked up where the layout foresaw them, computed where it did not."""

    def __init__(self, keys: Keys, words: dict[tuple[int, int], Tensor] | None = None):
        self.keys, self.foreseen = keys, words or {}
        self.asked: dict[tuple[int, int], int] = {}

    def get(self, domain: int, slot: int, first: int, count: int) -> Tensor:
        """Draw numbers first to first + count of a slot: [N, 4 * count] int64"""
        self.asked[domain, slot] = max(first + count, self.asked.get((domain, slot), 0))
        known = self.foreseen.get((domain, slot))
        if known is None or known.shape[1] < first + count:
            c0 = torch.arange(first, first + count, device=self.keys.ids.device)
            return self.keys.words(domain, c0, torch.full_like(c0, slot)).flatten(1)
        return known[:, first : first + count].flatten(1)


class Draw:
    """The random source of one transform in one batch: the same words on any device and in any batch.

    Every call takes the next draw numbers (four words each, one number for up to four values) and gives float64 or
    int64."""

    def __init__(self, keys: Keys, slot: int, block: Block | None = None, domain: int = PARAMETERS):
        self.keys, self.slot, self.domain = keys, slot, domain
        self._block = block or Block(keys)
        self._next = 0

    def at(self, slot: int, domain: int = PARAMETERS) -> "Draw":
        """The source of another slot or domain of the same batch."""
        return Draw(self.keys, slot, self._block, domain)

    def shared(self) -> "Draw":
        """The source that gives all samples of the batch what it gives one of them."""
        keys = self.keys.shared(self.slot)
        return Draw(keys, self.slot, Block(keys), self.domain)

    def words(self, count: int) -> Tensor:
        """[N, count] int64 in [0, 2^32)."""
        numbers = -(-count // 4)
        self._next += numbers
        return self._block.get(self.domain, self.slot, self._next - numbers, numbers)[:, :count]

    def uniform(self, low: float = 0.0, high: float = 1.0, count: int | None = None) -> Tensor:
        """[N] or [N, count] float64 in [low, high)."""
        u = unit(self.words(count or 1))
        if (low, high) != (0.0, 1.0):
            u = low + (high - low) * u
        return u if count else u[:, 0]

    def coin(self, p: float) -> Tensor:
        """[N] bool, true with probability p."""
        return self.uniform() < p

    def integer(self, low: int | Tensor, high: int | Tensor) -> Tensor:
        """[N] int64 in [low, high), uniform to 2^-32; bounds are numbers or [N]."""
        return low + ((self.words(1)[:, 0] * (high - low)) >> 32)

    def normal(self, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """[N] float64."""
        w = self.words(2)
        radius = smooth("sqrt", -2.0 * smooth("log", ((w[:, 0] >> 8) + 1).double() * 2.0**-24))
        return mean + std * radius * smooth("cos", (2.0 * math.pi) * unit(w[:, 1]))

    def beta(self, alpha: float) -> Tensor:
        """[N] float64 from Beta(alpha, alpha), any alpha > 0, in the open interval (0, 1) as torch.distributions has
        it.

        Exact and free of rejection: if T is Student's t with 2 alpha degrees of freedom, then (1 + T / sqrt(2 alpha +
        T^2)) / 2 is Beta(alpha, alpha), and Bailey's polar form (Mathematics of Computation 62, 1994) gives T^2 / (2
        alpha) as (U^(-1/alpha) - 1) cos(2 pi V)^2 for any real alpha."""
        w = self.words(2)
        log_u = smooth("log", ((w[:, 0] >> 8) + 1).double() * 2.0**-24)
        cosine = smooth("cos", (2.0 * math.pi) * unit(w[:, 1]))
        q = _expm1(-log_u / alpha) * cosine.square()
        # of s = sqrt(q / (1 + q)) the smaller end is (1 - s) / 2, written so that nothing cancels
        small = (0.5 / ((1.0 + q) * (1.0 + smooth("sqrt", 1.0 / (1.0 + 1.0 / q))))).clamp(min=2.0**-1022)
        return torch.where(cosine < 0, small, (1.0 - small).clamp(max=1.0 - 2.0**-53))

    def permutation(self, k: int) -> Tensor:
        """[N, k] int64: a random order of 0 .. k-1."""
        place = torch.arange(k, device=self.keys.ids.device)
        return (self.words(k) * 256 + place).argsort(1)

    def choice(self, k: int | Sequence[float]) -> Tensor:
        """[N] int64: one of k alike, or one of len(k) with these weights."""
        if isinstance(k, int):
            return self.integer(0, k)
        u, total = self.uniform(), math.fsum(k)
        edges = [math.fsum(k[: i + 1]) / total for i in range(len(k) - 1)]
        return sum((u >= e).long() for e in edges) + torch.zeros_like(self.keys.ids)
