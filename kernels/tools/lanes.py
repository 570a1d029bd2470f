"""What a warp's access is: which value each of its lanes holds, and the requests, sectors and lines that its addresses
make."""

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
import ttgir

SECTOR, LINE = 32, 128


@dataclass
class Access:
    """All that one load, store or atomic of the code did, summed over what ran."""

    kind: str  # load, store, atomic
    place: tuple[str, int, int]
    buffer: str
    width: int  # bytes of an instruction of a thread
    scalar: bool
    requests: int = 0  # of a warp
    sectors: int = 0  # of 32 bytes, by request
    lines: int = 0  # of 128 bytes, by request
    wavefronts: float = 0  # passes through the banks of the first cache: words of a bank one after the other
    bytes: int = 0  # that lanes asked for, each once by request
    least: int = 0  # sectors that hold so many bytes
    # lanes of a warp that lie in another image row than the lane before, per request, and by how many bytes lanes are
    # apart
    far: int = 0
    steps: int = 0


@cache
def elements(layout: ttgir.Layout, shape: ttgir.Vector) -> np.ndarray:
    """[warps, registers, lanes]: the flat index of what each holds."""

    def numbers(bases: tuple[ttgir.Vector, ...]) -> np.ndarray:
        out = np.zeros((1 << len(bases), len(shape)), np.int64)
        for k, basis in enumerate(bases):
            out[(np.arange(1 << len(bases)) >> k) & 1 == 1] ^= np.array(basis, np.int64)
        return out

    w, r, n = numbers(layout.warp), numbers(layout.register), numbers(layout.lane)
    coordinates = w[:, None, None, :] ^ r[None, :, None, :] ^ n[None, None, :, :]
    strides = np.array([int(np.prod(shape[k + 1 :])) for k in range(len(shape))], np.int64)
    return (coordinates * strides).sum(-1)


def count_requests(found: Access, flat: np.ndarray, live: np.ndarray, size: int) -> None:
    """flat, live: [warps, registers, lanes]"""
    together = found.width // size
    warps, registers, lanes = flat.shape
    first = flat.reshape(warps * registers // together, together, lanes)
    on = live.reshape(first.shape)
    some = on.any((1, 2))
    first, on = first[some], on[some]
    last = first + (size - 1)
    big = np.int64(2**62)
    for unit, name in ((SECTOR, "sectors"), (LINE, "lines")):
        where = np.concatenate([first, last], 1).reshape(len(first), -1) // unit
        where = np.where(np.concatenate([on, on], 1).reshape(len(first), -1), where, big)
        where.sort(1)
        new = (where[:, 1:] != where[:, :-1]) & (where[:, 1:] != big)
        setattr(found, name, getattr(found, name) + int(new.sum() + len(first)))
    found.wavefronts += _wavefronts(found, first, on, size)
    spread = np.where(on, first, big).reshape(len(first), -1)
    spread.sort(1)
    distinct = ((spread[:, 1:] != spread[:, :-1]) & (spread[:, 1:] != big)).sum(1) + 1
    found.requests += len(first)
    found.bytes += int(distinct.sum()) * size
    found.least += int((-(-distinct * size // SECTOR)).sum())
    lane = first[:, 0, :]
    both = on[:, 0, 1:] & on[:, 0, :-1]
    step = np.abs(lane[:, 1:] - lane[:, :-1])
    found.far += int((both & (step >= 256)).sum())
    found.steps += int(both.sum())


def _wavefronts(found: Access, first: np.ndarray, on: np.ndarray, size: int) -> float:
    """Passes of requests through the banks: of a store its lines, of a load the most words of one bank.

    first, on: [requests, values of a lane, lanes]"""
    if found.kind != "load":
        lines = np.where(on, first // LINE, -1).reshape(len(first), -1)
        lines.sort(1)
        count = ((lines[:, 1:] != lines[:, :-1]) & (lines[:, 1:] >= 0)).sum(1) + (lines[:, 0] >= 0)
        return float(np.maximum(count, np.count_nonzero(on, (1, 2)) * size / LINE).sum())
    word = np.where(on, first // 4, -1).reshape(len(first), -1)
    if size == 8:
        word = np.concatenate([word, np.where(word >= 0, word + 1, -1)], 1)
    return _most_of_a_bank(word)


def _most_of_a_bank(word: np.ndarray) -> float:
    """Passes of groups of lanes through the banks, summed: the most different words of one bank.

    word: [groups, words], -1 for none"""
    word.sort(1)
    new = np.concatenate([word[:, :1] >= 0, (word[:, 1:] != word[:, :-1]) & (word[:, 1:] >= 0)], 1)
    row = np.broadcast_to(np.arange(len(word))[:, None], word.shape)[new]
    counts = np.zeros((len(word), 32), np.int64)
    np.add.at(counts, (row, word[new] % 32), 1)
    return float(counts.max(1).sum())


def shared_passes(first: np.ndarray, size: int) -> float:
    """Wavefronts of accesses to shared memory: of eight bytes a lane the halves of a warp go one after the other, of
    sixteen the quarters.

    first: [requests, lanes], bytes; size: that a lane moves, 1 to 16"""
    words = max(1, size // 4)
    word = first[..., None] // 4 + np.arange(words)
    return _most_of_a_bank(word.reshape(len(first) * words, -1))


def instruction_widths(ptx: str, kinds: str = r"(?:ld|st|atom|red)\.global") -> dict[tuple[str, int, int], set[int]]:
    """Bytes of a thread's accesses, by the place in the source that the PTX names.  kinds: of which, a pattern"""
    files = {m[1]: m[2].rsplit("/", 1)[-1] for m in re.finditer(r'\.file\s+(\d+) "([^"]+)"', ptx)}
    out: dict[tuple[str, int, int], set[int]] = {}
    place, before = ("?", 0, 0), ("?", 0, 0)
    inside = False
    for line in ptx.splitlines():
        if found := re.match(r"\s*\.loc\s+(\d+) (\d+) (\d+)", line):
            place = (files.get(found[1], "?"), int(found[2]), int(found[3]))
            before = before if inside else place
        elif "begin inline asm" in line:
            inside, before = True, place
        elif "end inline asm" in line:
            inside = False
        elif found := re.search(rf"\b{kinds}((?:\.[a-z0-9:]+)+)", line):
            parts = found[1].split(".")
            count = next((int(p[1:]) for p in parts if re.fullmatch(r"v\d", p)), 1)
            bits = next(int(p[1:]) for p in reversed(parts) if re.fullmatch(r"[busf]\d+", p))
            for at in {before, place} if inside else {place}:
                out.setdefault(at, set()).add(count * bits // 8)
    return out


def access_width(
    widths: dict[tuple[str, int, int], set[int]],
    place: tuple[str, int, int],
    size: int,
    registers: tuple[ttgir.Vector, ...],
) -> int:
    """Bytes that an instruction of a thread moves: no more than the layout lets it hold together.

    widths: of instruction_widths; size: of a value; registers: what the bits of a register's number add to a
    coordinate"""
    found = widths.get(place) or {w for (file, line, _), ws in widths.items() if (file, line) == place[:2] for w in ws}
    together = size
    for basis in registers:
        if any(basis[:-1]) or basis[-1] != together // size:
            break
        together *= 2
    # none fits where the compiler merged it into a wider one, or lost its place
    return min((w for w in found if size <= w <= together), default=size)
