"""Large memory that is used again once nobody holds what lay in it: the system clears every page that it gives for the
first time, which takes a fifth of the time of the pixels."""

import mmap
import os
import sys
from contextlib import suppress
from threading import Lock
from typing import Any

import torch
from torch import Tensor

# from this many bytes on memory is worth keeping
LARGE = 1 << 22
# how much is kept at most, in bytes, whether in use or not: twice a batch of 256 images of 224 px
_MOST = 1 << 29
# a large page, on whose border the kernel lays memory of so many bytes
_PAGE = 1 << 21


def _references(things: list[Any], i: int) -> int:
    """How many there are to a thing of a list."""
    return sys.getrefcount(things[i])


# to what the list alone holds
_FREE = _references([object()], 0)


class Blocks:
    """Blocks of memory, of which each belongs to the tensor made in it as long as any view of that tensor lives."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Keep nothing; what a tensor holds lives as long as that."""
        self._blocks: list[mmap.mmap] = []  # that used last is the last
        self._lock = Lock()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A contiguous tensor of any values, as torch.empty."""
        count = 1
        for n in shape:
            count *= n
        size = count * dtype.itemsize
        if not LARGE <= size <= _MOST // 2 or sys.platform != "linux":
            return torch.empty(shape, dtype=dtype, device="cpu")
        with self._lock:
            block = self._take(-(-size // _PAGE) * _PAGE)
            # a tensor of a buffer holds a reference to it until its storage is gone
            return torch.frombuffer(block, dtype=dtype, count=count).view(shape)

    def _take(self, size: int) -> mmap.mmap:
        """A block that nobody holds, of at least so many bytes and not many more."""
        for i in range(len(self._blocks)):
            if _references(self._blocks, i) == _FREE and size <= len(self._blocks[i]) <= size + size // 4:
                self._blocks.append(self._blocks.pop(i))
                return self._blocks[-1]
        block = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # only advice, which a kernel without large pages refuses
        with suppress(OSError):
            block.madvise(mmap.MADV_HUGEPAGE)
        self._blocks.append(block)
        # those that were not used for longest are let go; one that a tensor holds lives as long as that
        while sum(map(len, self._blocks)) > _MOST:
            self._blocks.pop(0)
        return block


_blocks = Blocks()
empty = _blocks.empty
# a forked child begins anew: a thread of its parent may have held the lock, and is not there to release it
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_blocks.clear)
