"""Inputs of a program that depend on the whole batch, [N] int64 each, which are found before it runs: partners,
classes, and what all samples of a batch share.

An input is named by one integer, in which its parts lie side by side, since instructions of a trace hold integers."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from gpuaug_kernels.codes import DOMAIN_BITS, SLOT_BITS
from torch import Tensor

from gpuaug.rng import Keys, Layout, counter_1

_PARTNER, _FIRST, _WORD, _CLASSES = range(4)
# the input that holds the classes of the samples
CLASSES = _CLASSES


class Word(NamedTuple):
    """A word of the one sample whose draws all samples share."""

    leader: int  # the slot in whose order it is the first
    domain: int
    slot: int
    number: int  # of the draw
    lane: int


def partner(slot: int) -> int:
    """The input that holds the rows of the partners in the mix of a slot."""
    return slot << 2 | _PARTNER


def first(parts: int) -> int:
    """The input that is 1 for samples in the first of so many parts of the batch, and 0 for others."""
    return parts << 2 | _FIRST


def word(w: Word) -> int:
    """The input that holds a shared word."""
    out = w.number
    for part, bits in ((w.lane, 2), (w.domain, DOMAIN_BITS), (w.slot, SLOT_BITS), (w.leader, SLOT_BITS)):
        out = out << bits | part
    return out << 2 | _WORD


def _word(number: int) -> Word:
    parts = []
    for bits in (SLOT_BITS, SLOT_BITS, DOMAIN_BITS, 2):
        parts.append(number & ((1 << bits) - 1))
        number >>= bits
    leader, slot, domain, lane = parts
    return Word(leader, domain, slot, number, lane)


def slot_of(number: int) -> int | None:
    """The slot of the mix whose partners an input is; None for another."""
    return number >> 2 if number & 3 == _PARTNER else None


def is_word(number: int) -> bool:
    """Whether an input is a word that all samples share."""
    return number & 3 == _WORD


@lru_cache(64)
def shared(inputs: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
    """The shared words among these inputs by their leaders, as `gpuaug_kernels.draws.share` takes them: of each four
    numbers, the last of them its place among the inputs."""
    found: dict[int, list[int]] = {}
    for place, number in enumerate(inputs):
        if is_word(number):
            w = _word(number >> 2)
            found.setdefault(w.leader, []).extend((counter_1(w.domain, w.slot), w.number, w.lane, place))
    return {leader: tuple(words) for leader, words in found.items()}


def of_partners(inputs: tuple[int, ...]) -> int:
    """How many of these inputs are rows of partners."""
    return sum(i & 3 == _PARTNER for i in inputs)


def find(keys: Keys, inputs: tuple[int, ...], partners: Callable[[int], Tensor]) -> list[Tensor]:
    """The inputs of a batch, [N] int64 each.  partners: as `Keys.partners`"""
    blocks = {leader: layout.block(keys.shared(leader)) for leader, layout in _layouts(inputs).items()}
    out = []
    for number in inputs:
        kind, rest = number & 3, number >> 2
        if kind == _PARTNER:
            out.append(partners(rest))
        elif kind == _FIRST:
            out.append(keys.in_first(rest).long())
        elif kind == _CLASSES:
            out.append(keys.classes().contiguous())
        else:
            w = _word(rest)
            out.append(blocks[w.leader].get(w.domain, w.slot, w.number, 1)[:, w.lane])
    return out


@lru_cache(64)
def _layouts(inputs: tuple[int, ...]) -> dict[int, Layout]:
    """All shared words among these inputs, by leader, so that each leader's are computed in one go."""
    counts: dict[int, dict[tuple[int, int], int]] = {}
    for w in (_word(i >> 2) for i in inputs if i & 3 == _WORD):
        of = counts.setdefault(w.leader, {})
        of[w.domain, w.slot] = max(w.number + 1, of.get((w.domain, w.slot), 0))
    return {leader: Layout(of) for leader, of in counts.items()}
