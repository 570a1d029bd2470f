"""Tables that a host drew, brought to the images of a call before they are sent to a GPU."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from gpuaug_kernels import codes

from gpuaug import ir, windows
from gpuaug.exec.triton.marshal import Fallback, Prepared
from gpuaug.images import Images, Ragged

Words = np.ndarray[Any, Any]


def may_fit(ready: tuple[Any, ...]) -> bool:
    """Whether all of a call is launches of kernels, which read tables alone.  ready: as `call.prepared` makes it"""
    steps, _, how = ready
    return how is None and not any(isinstance(s, Fallback) for s in steps)


def fit(ready: tuple[Any, ...], memory: Words, copy: Words, images: Images) -> None:
    """Write to a copy of the tables how the windows of images lie.

    ready: as `call.prepared` makes it, with its tables in `memory`.  Raises ValueError where more than a window would
    be read"""
    if not isinstance(images, Ragged) or images.windows is None:
        return
    # compiled, and loaded only where there are windows
    from gpuaug.exec.triton import compiled

    first: Prepared = ready[0][0]
    code, border, _, column, _ = first.program.records[: codes.RECORD]
    if code not in (*codes.RESAMPLES, codes.PROJECT):
        windows.check(images, None)
    integers, extend = first.tables.integers, codes.NONE if code == codes.PROJECT else border
    begin, columns = (integers.data_ptr() - memory.ctypes.data) // 4, integers.shape[1]
    table = copy.view(np.int32)[begin : begin + len(images) * columns].reshape(-1, columns)
    if not compiled.fit(table, column, extend, images.strides, np.ascontiguousarray(images.windows)):
        read, source = integers[:, column : column + 4], integers[:, column + 4 : column + 8]
        windows.check(images, windows.within(read, source, ir.BORDERS[extend]))


def fitted(steps: Sequence[Prepared]) -> tuple[Prepared, ...]:
    """Steps with tables that `fit` has written to."""
    return replace(steps[0], fitted=True), *steps[1:]
