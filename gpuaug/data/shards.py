"""The order of sharded data: a few shards are open at a time, and every rank reads its own.

The shards of an epoch, permuted, lie one after the other in a line of n samples.  The line is cut into K streams of
equal length (to one sample), and each stream into windows, in each of which samples are permuted.  Position p is then
the sample p // K of the stream p mod K, so any n consecutive positions take from all streams alike, and with a world W
that divides K, rank r, which takes the positions r modulo W, reads the streams r, r + W, ... alone.  Other worlds see
the same sequence, but their ranks read from more streams."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuaug import arguments
from gpuaug.data import permutation
from gpuaug.data.permutation import Ints, Permutation, Permutations

STREAMS, WINDOW = 64, 256


def checked(sizes: Sequence[int], n: int) -> Ints:
    """The sizes of shards that hold n samples together: [shards] int64"""
    values = np.asarray(sizes)
    if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "iu":
        raise TypeError(f"shards must be a sequence of numbers of samples, got {sizes!r:.60}")
    if (values < 0).any():
        raise ValueError(f"shards must hold 0 samples or more, got {values.min()} in shard {values.argmin()}")
    if int(values.sum()) != n:
        raise ValueError(
            f"shards hold {int(values.sum())} samples together, and there are {n}; give the number in each shard"
        )
    return values.astype(np.int64)


class Shards:
    """Shards dealt to streams and shuffled inside windows.  A shard is a contiguous range of ids, in order."""

    striped = True

    def __init__(self, sizes: Ints, streams: int = STREAMS, window: int = WINDOW):
        self.sizes, self.streams, self.window = sizes, streams, window
        self.length = int(sizes.sum())
        self.first = np.cumsum(sizes) - sizes

    def epoch(self, seed: int, epoch: int) -> "ShardsEpoch":
        return ShardsEpoch(self, seed, epoch)

    def about(self) -> dict[str, Any]:
        digest = hashlib.sha256(self.sizes.astype("<i8").tobytes()).hexdigest()[:16]
        kept = {"shards": len(self.sizes), "shard_sizes": digest, "streams": self.streams, "window": self.window}
        return {"order": "shards", "samples": self.length, "shuffle": True, **kept}

    def adopt(self, about: dict[str, Any]) -> "Shards":
        return Shards(
            self.sizes,
            *(arguments.integer(name, about.get(name, getattr(self, name)), 1) for name in ("streams", "window")),
        )


class ShardsEpoch:
    """The line of one epoch, O(shards) of memory."""

    def __init__(self, of: Shards, seed: int, epoch: int):
        self._of = of
        order = Permutation(seed, epoch, permutation.SHARDS, len(of.sizes))(np.arange(len(of.sizes)))
        self._ends = np.cumsum(of.sizes[order])
        # what to add to a place in the line to have the id
        self._shift = of.first[order] - (self._ends - of.sizes[order])
        self._inside = Permutations(seed, epoch, permutation.WINDOWS)

    def at(self, positions: Ints) -> tuple[Ints, Ints]:
        """Ids and occurrences at positions in [0, length), of any shape."""
        k, m = self._of.streams, self._of.window
        flat = np.asarray(positions).reshape(-1)
        along, stream = np.divmod(flat, k)
        start, size = self._window(stream, along // m)
        place = start + self._inside(along // m * k + stream, size, along % m)
        ids = place + self._shift[np.searchsorted(self._ends, place, "right")]
        return ids.reshape(positions.shape), np.zeros_like(positions)

    def ranges(self, stream: int, window: int) -> list[range]:
        """The ids that a window of a stream holds, as ranges in the order of the line: what to read for it, before its
        samples are asked for."""
        if not 0 <= stream < self._of.streams:
            raise ValueError(f"stream must be in [0, {self._of.streams}), got {stream}")
        start, size = (int(x[0]) for x in self._window(np.array([stream]), np.array([window])))
        found, end = [], start + max(size, 0)
        while start < end:
            shard = int(np.searchsorted(self._ends, start, "right"))
            stop = min(end, int(self._ends[shard]))
            found.append(range(start + int(self._shift[shard]), stop + int(self._shift[shard])))
            start = stop
        return found

    def _window(self, stream: Ints, window: Ints) -> tuple[Ints, Ints]:
        """Where a window begins in the line, and how many samples it holds.  The first n mod K streams are longer by
        one."""
        each, longer = divmod(self._of.length, self._of.streams)
        before = window * self._of.window
        return stream * each + np.minimum(stream, longer) + before, np.minimum(
            each + (stream < longer) - before, self._of.window
        )


class Unshuffled:
    """Ids as they are numbered: a rank then reads blocks of one shard, so there are no streams."""

    striped = False

    def __init__(self, of: Shards):
        self._of, self.length = of, of.length

    def epoch(self, seed: int, epoch: int) -> "Unshuffled":
        return self

    def at(self, positions: Ints) -> tuple[Ints, Ints]:
        """Ids and occurrences at positions in [0, length), of any shape."""
        return positions, np.zeros_like(positions)

    def about(self) -> dict[str, Any]:
        return {**self._of.about(), "shuffle": False}

    def adopt(self, about: dict[str, Any]) -> "Unshuffled":
        return Unshuffled(self._of.adopt(about))
