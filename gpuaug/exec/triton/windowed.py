"""Tables that a host drew, brought to the images of a call before they are sent to a GPU."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from gpuaug_kernels import codes

from gpuaug import ir, windows
from gpuaug.exec.triton.marshal import Fallback, Prepared
from gpuaug.images import Ragged

Words = np.ndarray[Any, Any]


def may_fit(ready: tuple[Any, ...]) -> bool:
    """Whether all of a call is launches of kernels, which read tables alone.  ready: as `call.prepared` makes it"""
    steps, _, how = ready
    return how is None and not any(isinstance(s, Fallback) for s in steps)


def fit(ready: tuple[Any, ...], memory: Words, copy: Words, images: Ragged) -> None:
    """Write how images lie behind a copy of the tables, as `Ragged.known` says it, and of windows to the tables too.

    ready: as `call.prepared` makes it, with its tables in `memory`.  Raises ValueError where more than a window would
    be read"""
    first: Prepared = ready[0][0]
    code, border, _, column, _ = first.program.records[: codes.RECORD]
    if images.windows is None:
        column = -1
    elif code not in (*codes.RESAMPLES, codes.PROJECT):
        windows.check(images, None)
    integers, extend = first.tables.integers, codes.NONE if code == codes.PROJECT else border
    begin, columns = (integers.data_ptr() - memory.__array_interface__["data"][0]) // 4, integers.shape[1]
    table = copy.view(np.int32)[begin : begin + len(images) * columns].reshape(-1, columns)
    base, *arrays = images.lie()
    arrays = [np.ascontiguousarray(a, np.int64) for a in arrays]
    if not _compiled()(copy[len(memory) :], base, images.dtype.itemsize, *arrays, table, column, extend):
        read, source = integers[:, column : column + 4], integers[:, column + 4 : column + 8]
        windows.check(images, windows.within(read, source, ir.BORDERS[extend]))


@cache
def _compiled() -> Any:
    """Loaded when it is first needed: a call that draws on a GPU does without Numba."""
    from gpuaug.exec.triton import compiled

    return compiled.fit


def load_compiled() -> None:
    """Compile or load what the first call of a loader needs."""
    words, none = np.zeros(15, np.int64), np.empty((0, 4), np.int64)
    shapes, table = np.ones((1, 3), np.int64), np.zeros((1, 1), np.int32)
    _compiled()(words, 0, 1, words[:1], shapes, none, none, none, table, -1, codes.NONE)


def fitted(steps: Sequence[Prepared]) -> tuple[Prepared, ...]:
    """Steps with tables that `fit` has written to."""
    return replace(steps[0], fitted=True), *steps[1:]


def without_cells(steps: Sequence[Any]) -> tuple[Any, ...]:
    """Steps that take no zeros from the memory of their tables, which another call may have written to."""
    return tuple(replace(s, cells=[]) if isinstance(s, Prepared) and s.cells else s for s in steps)
