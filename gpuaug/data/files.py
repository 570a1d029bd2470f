"""A batch of encoded files in a few pieces of memory, and local files read into them by compiled code.

A file costs four calls of the system.  Made by Python each gives the interpreter up and waits for it again, which takes
longer than the call where other threads work too; here all of a thread's files are read without it."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np

from gpuaug.data import file_kernels

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

# whether there is compiled code for this system; elsewhere Python reads
HERE = sys.platform == "linux" and sys.maxsize > 2**32 and sys.getfilesystemencoding() == "utf-8"
# from file to file, so that none begins in another's cache line
_ALIGNED = 64
# bytes of a name, after which the system takes no path
_LONG = 4096
# where nothing was read
NOTHING: Bytes = np.empty(0, np.uint8)


class Files(Sequence[Any]):
    """The items of a batch: files where they lie in memory, and whatever else there is in a slot.

    addresses, sizes: [N] int64, of every file; 0 where there is none.  parts: where slots begin, and the memory of
    theirs.  others: slot -> what is there instead."""

    def __init__(self, addresses: Ints, sizes: Ints, parts: "list[tuple[int, Bytes]]", others: dict[int, Any]):
        self.addresses, self.sizes, self.others = addresses, sizes, others
        self._firsts, self._memory = [first for first, _ in parts], [memory for _, memory in parts]

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return int(self.sizes.sum())

    def __getitem__(self, index: Any) -> Any:
        return self._shown[index]

    @cached_property
    def _shown(self) -> list[Any]:
        """Memory views."""
        out, ends = list[Any](), [*self._firsts[1:], len(self)]
        places, sizes = self.addresses.tolist(), self.sizes.tolist()
        for first, end, memory in zip(self._firsts, ends, self._memory, strict=True):
            view, origin = memory.data, memory.ctypes.data
            out += [view[a - origin : a - origin + n] for a, n in zip(places[first:end], sizes[first:end], strict=True)]
        for i, other in self.others.items():
            out[i] = other
        return out


@dataclass(frozen=True, eq=False)
class Paths:
    """Names of files in one folder, as they lie in memory.

    root: of all whose name does not begin with a slash; with one at its end, or empty.  names: [bytes].  ends: [N],
    where each ends"""

    root: Bytes
    names: Bytes
    ends: Ints

    @classmethod
    def of(cls, root: bytes, names: bytes, ends: Ints) -> "Paths":
        """Of bytes; nothing is copied."""
        fixed = ends.view()
        # one kind of array, whatever it came from: another would be compiled for anew
        fixed.flags.writeable = False
        return cls(np.frombuffer(root, np.uint8), np.frombuffer(names, np.uint8), fixed)


class Part(NamedTuple):
    """Some files that were read: into `memory`, from `begins` on.  sizes: -1 of those that are to be read otherwise"""

    memory: Bytes
    begins: Ints
    sizes: Ints


@cache
def load() -> None:
    """Compile what reads, or load it: before a time is measured."""
    paths, none, files = Paths.of(b"", b"", np.zeros(0, np.int64)), np.zeros(0, np.int64), np.zeros(0, np.int32)
    file_kernels.opened(paths.root, paths.names, paths.ends, none, NOTHING, files, none, 0)
    file_kernels.filled(files, none, none, NOTHING, 0)
    file_kernels.closed(files)


def read(paths: Paths, ids: Ints, alive: Callable[[bool], None]) -> Part:
    """Files in turn, whole.  alive: called with True when a time begins in which one of them, and little else, is
    read"""
    count, path = len(ids), np.empty(len(paths.root) + _LONG, np.uint8)
    files, sizes = np.full(count, -1, np.int32), np.zeros(count, np.int64)
    try:
        done = 0
        while done < count:
            alive(True)
            done = file_kernels.opened(paths.root, paths.names, paths.ends, ids, path, files, sizes, done)
        room = -(-sizes // _ALIGNED) * _ALIGNED
        begins = np.cumsum(room) - room
        memory = np.empty(int(room.sum()), np.uint8)
        done = 0
        while done < count:
            alive(True)
            done = file_kernels.filled(files, sizes, begins, memory, done)
    except BaseException:
        file_kernels.closed(files)
        raise
    return Part(memory, begins, sizes)
