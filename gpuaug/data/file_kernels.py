"""Local files opened, measured, read and closed by compiled code, some at a time."""

import os

import numpy as np
from numba import types

from gpuaug.numba_cache import kernel, njit

_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
# of Linux's C library, whose `open` takes its flags as if it had two arguments
_open = types.ExternalFunction("open", types.int32(types.intp, types.int32))
_seek = types.ExternalFunction("lseek", types.int64(types.int32, types.int64, types.int32))
_read = types.ExternalFunction("pread", types.int64(types.int32, types.intp, types.int64, types.int64))
_close = types.ExternalFunction("close", types.int32(types.int32))
_time = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.intp))
# the clock that only goes forward, and the end of a file, as Linux numbers them
_MONOTONIC, _END = 1, 2
# seconds after which a call comes back, so that the time of one file can be measured
TURN = 0.25
# what is no image of a batch: a folder says 2^63 - 1
_LARGE = 1 << 31
_SLASH = ord("/")


@njit
def _seconds(clock):
    """clock: [2] int64, which is written to"""
    _time(_MONOTONIC, clock.ctypes.data)
    return clock[0] + 1e-9 * clock[1]


@njit
def _named(root, names, ends, id, path):
    """Write a path that ends with 0; False where it is too long or is none."""
    begin, end = (ends[id - 1] if id else 0), ends[id]
    below = 0 if begin < end and names[begin] == _SLASH else len(root)
    if below + end - begin >= len(path):
        return False
    for k in range(below):
        path[k] = root[k]
    for k in range(begin, end):
        if names[k] == 0:
            return False
        path[below + k - begin] = names[k]
    path[below + end - begin] = 0
    return True


@kernel
def opened(root, names, ends, ids, path, files, sizes, begin):
    """Open files and ask how large they are, from the slot `begin` on; gives the slot where it stopped for its
    time.  sizes: -1 where anything is wrong"""
    clock = np.empty(2, np.int64)
    started = _seconds(clock)
    for k in range(begin, len(ids)):
        if k > begin and _seconds(clock) - started > TURN:
            return k
        sizes[k] = -1
        if not _named(root, names, ends, ids[k], path):
            continue
        files[k] = _open(path.ctypes.data, _FLAGS)
        if files[k] >= 0:
            size = _seek(files[k], 0, _END)
            if 0 <= size < _LARGE:
                sizes[k] = size
    return len(ids)


@kernel
def filled(files, sizes, begins, memory, begin):
    """Read what was opened, and close it; as `opened`."""
    clock = np.empty(2, np.int64)
    started = _seconds(clock)
    for k in range(begin, len(files)):
        if k > begin and _seconds(clock) - started > TURN:
            return k
        if files[k] < 0:
            continue
        got = 0
        while got < sizes[k]:
            more = _read(files[k], memory.ctypes.data + begins[k] + got, sizes[k] - got, got)
            if more <= 0:
                sizes[k] = -1
                break
            got += more
        _close(files[k])
        files[k] = -1
    return len(files)


@kernel
def closed(files):
    """Close what is open."""
    for k in range(len(files)):
        if files[k] >= 0:
            _close(files[k])
            files[k] = -1
