"""What the host does with a chain: check, allocate, choose the grid, launch; and compile ahead of time for a card that is not here."""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor
from triton.compiler import ASTSource
from triton.runtime.interpreter import InterpretedFunction

from gpuaug_kernels import codes
from gpuaug_kernels.chain import TILE, Program, Reduction, Source, Tables, chain
from gpuaug_kernels.statistics import finish

_TYPES = {torch.uint8: "*u8", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}


def images(
    source: Source, program: Program, tables: Tables, known: Tensor, size: tuple[int, int], dtype: torch.dtype, channels_last: bool, out: Tensor | None = None
) -> Tensor:
    """Run the chain: [N, C, H, W] of a dtype, in one launch; into `out` where it is given.  known: what `reduced` gives"""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = (len(tables.integers), program.written, *size)
    if out is not None and (out.shape != shape or out.dtype != dtype or not out.is_contiguous(memory_format=layout)):
        raise ValueError(f"out must be {dtype} {shape} in {layout}, got {out.dtype} {tuple(out.shape)} of strides {out.stride()}")
    # the interpreter cuts bfloat16 off where a card rounds to nearest: there it writes float32, and torch rounds
    rounded = dtype == torch.bfloat16 and interpreted()
    written = out
    if written is None or rounded:
        written = torch.empty(shape, dtype=torch.float32 if rounded else dtype, device=tables.integers.device, memory_format=layout)
    _launch(source, program, tables, known, size, written, _layout(program, channels_last))
    return written.to(dtype) if out is None else out.copy_(written) if rounded else out


def reduced(source: Source, reductions: Sequence[Reduction], tables: Tables, size: tuple[int, int]) -> Tensor:
    """The statistics that samples meet, [N, all of a sample] float32: for each number a launch over the images and one over what it found."""
    known = room(reductions, len(tables.integers), tables.integers.device)
    cells = torch.zeros(known.shape, dtype=torch.int64, device=known.device) if reductions else known
    for one in reductions:
        _launch(source, one.program, tables, known, size, cells, (0, 0, 0), one)
        if len(known):
            with torch.cuda.device_of(known):
                finish[(len(known), channels(one))](cells, tables.integers, known, size[0] * size[1], **finishing(one, tables, known))
    return known


def room(reductions: Sequence[Reduction], n: int, device: torch.device) -> Tensor:
    """Where the statistics of n samples go; a launch without any has a column that nobody reads."""
    return torch.empty((n, max(1, sum(r.room for r in reductions))), dtype=torch.float32, device=device)


def channels(one: Reduction) -> int:
    """How many channels a statistic has: a mean of gray has one."""
    return one.program.channels * one.program.groups if set(one.kinds) - {codes.MEAN.value} else 1


def finishing(one: Reduction, tables: Tables, known: Tensor) -> dict[str, object]:
    """What the finish of a reduction is specialised on."""
    return {
        "WIDTHS": (tables.integers.shape[1], known.shape[1]),
        "OFFSET": one.number * one.room,
        "COLUMN": one.column,
        "KINDS": tuple(int(k.value in one.kinds) for k in (codes.MEAN, codes.RANGE, codes.HISTOGRAM)),
        "num_warps": 1,
    }


def interpreted() -> bool:
    """Whether kernels run in the interpreter: TRITON_INTERPRET=1 was set before triton was imported."""
    return isinstance(chain, InterpretedFunction)


def options(program: Program) -> dict[str, int]:
    """How a program is compiled: eight pixels a thread, for what a row or a column of a tile shares, and as few registers as spill nothing."""
    source, mix = program.records[0], program.records[codes.RECORD.value]
    # with its own choice of registers ptxas spills a few to fit one block more on a multiprocessor
    registers = 128
    if source == codes.TRIANGLE.value:
        registers = 168 if mix == codes.ALONE.value else 240
    elif source in (codes.BILINEAR.value, codes.NEAREST.value, codes.SWITCH.value, codes.PROJECT.value):
        registers = 240
    return {"num_warps": 4, "maxnreg": registers}


def constants(source: Source, program: Program, tables: Tables, known: Tensor, layout: tuple[int, int, int], one: Reduction | None) -> dict[str, object]:
    """What the kernel is specialised on."""
    return {
        "PROGRAM": program.records,
        "PARTS": program.parts,
        "WIDTHS": tuple(t.shape[1] for t in (tables.floats, tables.integers, tables.doubles, known)),
        "FORMAT": (program.channels, program.blocks, program.groups),
        "LAYOUT": layout,
        "RAGGED": 0 if not source.ragged else 1 if source.dtype == torch.uint8 else 2,
        "STOP": one.number if one else -1,
        "MEETS": one.column if one else -1,
        "TILE": TILE,
    }


def _layout(program: Program, channels_last: bool) -> tuple[int, int, int]:
    return min(program.channels, program.written), program.written, int(channels_last)


def _launch(
    source: Source,
    program: Program,
    tables: Tables,
    known: Tensor,
    size: tuple[int, int],
    out: Tensor,
    layout: tuple[int, int, int],
    one: Reduction | None = None,
) -> None:
    _check(source, tables, known, out)
    grid = (len(tables.integers) * program.groups, triton.cdiv(size[1], TILE), triton.cdiv(size[0], TILE))
    if grid[0]:
        table = (tables.floats, tables.integers, tables.doubles, known)
        # triton launches on the current device, which need not be that of the images
        with torch.cuda.device_of(out):
            chain[grid](source.data, *table, out, *source.strides(), *size, **constants(source, program, tables, known, layout, one), **options(program))


def _check(source: Source, tables: Tables, known: Tensor, out: Tensor) -> None:
    n, device = len(tables.integers), out.device
    every = vars(tables) | {"known": known}
    for name, dtype in (("floats", torch.float32), ("integers", torch.int32), ("doubles", torch.float64), ("known", torch.float32)):
        table = every[name]
        if table.shape[:1] != (n,) or table.ndim != 2 or table.dtype != dtype or table.device != device or not table.is_contiguous():
            raise ValueError(f"{name} must be contiguous [{n}, columns] {dtype} on {device}, got {tuple(table.shape)} {table.dtype} on {table.device}")
    if len(source.data) != n or source.data.device != device or source.data.ndim != (1 if source.ragged else 4):
        raise ValueError(f"the source must have {n} samples on {device}, got {tuple(source.data.shape)} on {source.data.device}")
    if device.type == "cpu" and not interpreted():
        raise RuntimeError(
            'backend "triton" runs images on the CPU only in its interpreter, got images on the CPU; set TRITON_INTERPRET=1 before triton is imported, '
            'or use backend="auto"'
        )


def ahead(
    source: Source,
    program: Program,
    tables: Tables,
    known: Tensor,
    size: tuple[int, int],
    dtype: torch.dtype,
    channels_last: bool,
    one: Reduction | None = None,
) -> ASTSource:
    """The kernel that a launch would compile, for triton.compile and any target.  one: the reduction that it is for"""
    table = {"floats": "*fp32", "integers": "*i32", "doubles": "*fp64", "known": "*fp32"}
    pointers = {"source": "*i64" if source.ragged else _TYPES[source.dtype], **table, "out": "*i64" if one else _TYPES[dtype]}
    numbers = dict(zip(("stride_n", "stride_c", "stride_y", "stride_x", "height", "width"), (*source.strides(), *size), strict=True))
    layout = (0, 0, 0) if one else _layout(program, channels_last)
    # as a launch sees it: a 1 is a constant, and what is a multiple of 16 is loaded wider for it
    constant = constants(source, program, tables, known, layout, one) | {k: 1 for k, v in numbers.items() if v == 1}
    signature = {k: "constexpr" if k in constant else pointers.get(k, "i32") for k in chain.arg_names}
    aligned = [*pointers, *(k for k, v in numbers.items() if v % 16 == 0)]
    return ASTSource(fn=chain, signature=signature, constexprs=constant, attrs={(chain.arg_names.index(k),): [["tt.divisibility", 16]] for k in aligned})


def finish_ahead(one: Reduction, tables: Tables, known: Tensor, size: tuple[int, int]) -> ASTSource:
    """The same of the kernel that makes known what a reduction has found."""
    constant = {k: v for k, v in finishing(one, tables, known).items() if k != "num_warps"}
    total = size[0] * size[1]
    numbers = {"total": total} if total == 1 else {}
    pointers = {"cells": "*i64", "integers": "*i32", "known": "*fp32"}
    signature = {k: "constexpr" if k in constant | numbers else pointers.get(k, "i32") for k in finish.arg_names}
    aligned = [*pointers, *(["total"] if total % 16 == 0 else [])]
    attrs = {(finish.arg_names.index(k),): [["tt.divisibility", 16]] for k in aligned}
    return ASTSource(fn=finish, signature=signature, constexprs=constant | numbers, attrs=attrs)
