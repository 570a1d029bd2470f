"""Tables brought to the windows of their images, where a card drew them: rows are those of the windows, and nothing is
loaded outside."""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.compiler import ASTSource

from gpuaug_kernels.bind import Bound
from gpuaug_kernels.constants import PITCH

BLOCK = 256
OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}


@triton.jit(
    do_not_specialize=["total", "columns"], do_not_specialize_on_alignment=["integers", "pitches", "corners", "out"]
)
def fit_windows(
    integers,  # [N, columns] int32
    pitches,  # [N] int64, from row to row
    corners,  # [N, 4] int64, the rectangle (x0, y0, x1, y1) that is in memory
    out,  # [N, columns] int32
    total,  # N * columns
    columns,
    FIRST: tl.constexpr,  # the column where the rectangle that is cut begins
    INSIDE: tl.constexpr,  # pixels that must stay between each of its ends and the far end of what is in memory
    BLOCK: tl.constexpr,
):
    """Write a table with the pitch of every image, and a rectangle of each row cut to what is there.

    Bytes a sample: 4 a column and 40 read, 4 a column written."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < total
    row = at // columns
    column = at - row * columns
    value = tl.load(integers + at, mask=mask, other=0).to(tl.int64)
    value = tl.where(column == PITCH, tl.load(pitches + row, mask=mask, other=0), value)
    k = column - FIRST
    cut = (k >= 0) & (k < 4)
    axis = tl.where(cut, k % 2, 0)
    low = tl.load(corners + 4 * row + axis, mask=mask & cut, other=0) + tl.where(k >= 2, INSIDE, 0)
    high = tl.load(corners + 4 * row + 2 + axis, mask=mask & cut, other=0) - tl.where(k < 2, INSIDE, 0)
    value = tl.where(cut, tl.minimum(tl.maximum(value, low), high), value)
    tl.store(out + at, value.to(tl.int32), mask=mask)


def fitted(integers: Tensor, pitches: Tensor, corners: Tensor, first: int, inside: int) -> Tensor:
    """A copy of `integers`, [N, columns] int32, for images of which windows are in memory.

    pitches: [N] int64.  corners: [N, 4] int64, (x0, y0, x1, y1) of each window.  first: the column of the rectangle
    that is cut to the window.  inside: 1 where its near ends must be pixels of the window and its far ends stand behind
    one, 0 where they may be any border of it"""
    n, columns = integers.shape
    known = ((integers, (n, columns), torch.int32), (pitches, (n,), torch.int64), (corners, (n, 4), torch.int64))
    for t, shape, dtype in known:
        if t.shape != shape or t.dtype != dtype or not t.is_contiguous() or t.device != integers.device:
            raise ValueError(
                f"integers, pitches and corners of {n} samples must be contiguous [{n}, columns] int32, [{n}] and "
                f"[{n}, 4] int64 on one device, got {t.dtype} {tuple(t.shape)} on {t.device}"
            )
    out = torch.empty_like(integers)
    if n:
        grid = (-(-n * columns // BLOCK), 1, 1)
        _bound(first, inside)(integers.device, grid, integers, pitches, corners, out, n * columns, columns)
    return out


@lru_cache(256)
def _bound(first: int, inside: int) -> Bound:
    return Bound(fit_windows, constants(first, inside), OPTIONS)


def constants(first: int, inside: int) -> dict[str, object]:
    """The compile-time constants of `fit_windows`."""
    return {"FIRST": first, "INSIDE": inside, "BLOCK": BLOCK}


def ahead() -> ASTSource:
    """The kernel that a launch would compile, for triton.compile and any target."""
    pointers = {"integers": "*i32", "pitches": "*i64", "corners": "*i64", "out": "*i32"}
    types = {**pointers, "total": "i32", "columns": "i32"}
    signature = {k: types.get(k, "constexpr") for k in fit_windows.arg_names}
    return ASTSource(fn=fit_windows, signature=signature, constexprs=constants(9, 1), attrs={})
