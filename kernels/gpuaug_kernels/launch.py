"""What the host does with a chain: check, allocate, choose the grid, launch; and compile ahead of time for a card that
this machine lacks."""

from collections.abc import Sequence

import torch
from torch import Tensor
from triton.compiler import ASTSource
from triton.runtime.interpreter import InterpretedFunction

from gpuaug_kernels import codes
from gpuaug_kernels.bind import Bound
from gpuaug_kernels.chain import TILE, ChainProgram, Reduction, Source, Tables, chain
from gpuaug_kernels.statistics import finish
from gpuaug_kernels.tuples import Format, Kinds, Layout, Parts, Widths

# stages of a few instructions for every sample
LIGHT = {codes.IDENTITY, codes.AFFINE, codes.NORMALIZE, codes.GRAY, codes.SOLARIZE}
# stages of long polynomials
HEAVY = {codes.GAUSSIAN, codes.ERASE}
# sources that hold much for a pixel in registers
MANY_REGISTERS = {codes.BILINEAR, codes.NEAREST, codes.SWITCH, codes.PROJECT}
_TYPES = {torch.uint8: "*u8", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}


def images(
    source: Source,
    program: ChainProgram,
    tables: Tables,
    statistics: Tensor,
    size: tuple[int, int],
    dtype: torch.dtype,
    channels_last: bool,
    out: Tensor | None = None,
) -> Tensor:
    """Run the chain in one launch: [N, C, H, W] of a dtype, into `out` where it is given.

    statistics: what `reduce_statistics` gives"""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = (tables.integers.shape[0], program.written, *size)
    if out is not None and (out.shape != shape or out.dtype != dtype or not out.is_contiguous(memory_format=layout)):
        raise ValueError(
            f"out must be {dtype} {shape} in {layout}, got {out.dtype} {tuple(out.shape)} of strides {out.stride()}"
        )
    # the interpreter truncates to bfloat16 where a card rounds to nearest: there it writes float32, and torch rounds
    rounded = dtype == torch.bfloat16 and interpreted()
    written = out
    if written is None or rounded:
        written = torch.empty(
            shape, dtype=torch.float32 if rounded else dtype, device=tables.integers.device, memory_format=layout
        )
    kind = (source.place, channels_last, size[1], written.dtype, written.data_ptr() & 15)
    if kind not in program.bound:
        program.bound[kind] = output_layout(source, program, *kind[1:])
    _launch(source, program, tables, statistics, size, written, program.bound[kind])
    return written.to(dtype) if out is None else out.copy_(written) if rounded else out


def reduce_statistics(
    source: Source,
    reductions: Sequence[Reduction],
    tables: Tables,
    size: tuple[int, int],
    cells: Tensor | None = None,
) -> Tensor:
    """All statistics of samples, [N, columns] float32: for each number a launch over the images and one that finishes
    it.  cells: zeros to gather them in, [N, columns] int64, written to; None: made here"""
    statistics = statistics_table(reductions, tables.integers.shape[0], tables.integers.device)
    if not reductions:
        return statistics
    if cells is None or cells.shape != statistics.shape:
        cells = torch.zeros(statistics.shape, dtype=torch.int64, device=statistics.device)
    for reduction in reductions:
        _launch(source, reduction.program, tables, statistics, size, cells, Layout(), reduction)
        if statistics.shape[0]:
            _bound_finish(reduction, tables, statistics)(
                statistics.device,
                (statistics.shape[0], statistic_channels(reduction), 1),
                *(cells, tables.integers, statistics, size[0] * size[1]),
            )
    return statistics


def statistics_table(reductions: Sequence[Reduction], n: int, device: torch.device) -> Tensor:
    """An empty table for the statistics of n samples; without any it has one column, which nothing reads."""
    return torch.empty((n, max(1, sum(r.width for r in reductions))), dtype=torch.float32, device=device)


def statistic_channels(reduction: Reduction) -> int:
    """How many channels a statistic has: a mean of gray has one."""
    return reduction.program.channels * reduction.program.groups if set(reduction.kinds) - {codes.MEAN} else 1


def _bound_finish(reduction: Reduction, tables: Tables, statistics: Tensor) -> Bound:
    """The kernel that finishes a reduction, kept for its program."""
    kept, kind = reduction.program.bound, ("finish", reduction.number, tables.integers.shape[1], statistics.shape[1])
    if kind not in kept:
        constants = finish_constants(reduction, tables, statistics)
        kept[kind] = Bound(finish, constants, {"num_warps": constants.pop("num_warps")})
    made: Bound = kept[kind]
    return made


def finish_constants(reduction: Reduction, tables: Tables, statistics: Tensor) -> dict[str, object]:
    """The compile-time constants of `finish`, and how it is compiled."""
    return {
        "INTEGERS": tables.integers.shape[1],
        "STATISTICS": statistics.shape[1],
        "OFFSET": reduction.number * reduction.width,
        "KIND_COLUMN": reduction.kind_column,
        "KINDS": Kinds(*(int(k in reduction.kinds) for k in (codes.MEAN, codes.RANGE, codes.HISTOGRAM))),
        "num_warps": 1,
    }


def interpreted() -> bool:
    """Whether kernels run in the interpreter: TRITON_INTERPRET=1 was set before triton was imported."""
    return isinstance(chain, InterpretedFunction)


def options(program: ChainProgram) -> dict[str, int]:
    """How a program is compiled: few warps where a thread's pixels share work, and registers enough to spill none."""
    source, mix = program.records[0], program.records[codes.RECORD]
    stages = _stage_codes(program.records, 2, program.end)
    # a mix reads two sides, and a normal is a long polynomial for every pixel that a thread holds
    crowded = mix == codes.MIXUP or bool(stages & HEAVY)
    if source == codes.TRIANGLE:
        return {"num_warps": 4 if crowded or mix != codes.ALONE else 2, "maxnreg": 240}
    if source in (codes.PIXEL, codes.FLOOR):
        # where little is done to a pixel, most work is done once a thread; and one warp needs no barrier to exchange
        # values
        warps, registers = (
            (4, 168) if crowded else (1, 200) if stages <= LIGHT else (2, 160 if mix == codes.ALONE else 200)
        )
        return {"num_warps": warps, "maxnreg": registers}
    # left to itself ptxas spills a few registers to fit one block more on a multiprocessor
    return {"num_warps": 4, "maxnreg": 240 if source in MANY_REGISTERS else 128}


def _stage_codes(records: tuple[int, ...], first: int, last: int) -> set[int]:
    """The codes of records first to last - 1, and of what their choices point to."""
    found = set()
    for k in range(first, last):
        code, _, _, branch, count = records[codes.RECORD * k : codes.RECORD * (k + 1)]
        found.add(code)
        for j in range(branch, branch + count) if code == codes.CHOICE else ():
            found |= _stage_codes(records, *records[codes.RECORD * j : codes.RECORD * j + 2])
    return found


def reads_words(source: Source, program: ChainProgram) -> bool:
    """Whether pixels of three bytes are read sixteen at a time, as six words: every row begins at a multiple of eight
    bytes."""
    if (
        source.ragged
        or source.dtype != torch.uint8
        or program.channels != 3
        or program.records[0] not in (codes.PIXEL, codes.FLOOR)
    ):
        return False
    n, c, y, x = source.strides()
    return (c, x) == (1, 3) and n % 8 == y % 8 == source.data.data_ptr() % 8 == 0 and source.data.shape[3] % 16 == 0


def chain_constants(
    source: Source,
    program: ChainProgram,
    tables: Tables,
    statistics: Tensor,
    layout: Layout,
    reduction: Reduction | None,
) -> dict[str, object]:
    """The compile-time constants of `chain`."""
    # a stride that is known when compiling saves an instruction for each address
    step = 3 if source.strides()[3] == 3 else 0
    return {
        "PROGRAM": program.records,
        "PARTS": Parts(program.end_before, program.end, program.statistics_before),
        "WIDTHS": Widths(*(t.shape[1] for t in (tables.floats, tables.integers, tables.doubles, statistics))),
        "FORMAT": Format(program.channels, program.blocks, program.groups, int(reads_words(source, program)), step),
        "LAYOUT": layout,
        "RAGGED": 0 if not source.ragged else 1 if source.dtype == torch.uint8 else 2,
        "REDUCE": reduction.number if reduction else -1,
        "KIND_COLUMN": reduction.kind_column if reduction else -1,
        "TILE": TILE,
    }


def output_layout(
    source: Source, program: ChainProgram, channels_last: bool, width: int, dtype: torch.dtype, address: int = 0
) -> Layout:
    """How the kernel writes.  address: of the output, 0 for one that is aligned"""
    together = 0
    if channels_last and program.written == program.channels == 3 and address % 16 == 0:
        # as many neighbouring pixels as a thread holds anyway
        if reads_words(source, program) and width % 16 == 0:
            together = 8 if dtype == torch.float32 else 16
        elif program.records[0] in (codes.TRIANGLE, codes.SWITCH, codes.PIXEL) and width % 2 == 0:
            together = 2
    return Layout(min(program.channels, program.written), program.written, int(channels_last), together)


def _launch(
    source: Source,
    program: ChainProgram,
    tables: Tables,
    statistics: Tensor,
    size: tuple[int, int],
    out: Tensor,
    layout: Layout,
    reduction: Reduction | None = None,
) -> None:
    n, device = tables.integers.shape[0], out.device
    table = (tables.floats, tables.integers, tables.doubles, statistics)
    kind = (source.place, layout, reduction and reduction.number, *(t.shape[1] for t in table), device)
    bound = program.bound.get(kind)
    if bound is None or source.data.shape[0] != n or source.data.device != device:
        # whoever launches a program again does so with tables that were made in the same way
        _check(source, tables, statistics, out)
        constants = chain_constants(source, program, tables, statistics, layout, reduction)
        bound = program.bound[kind] = Bound(chain, constants, options(program))
    grid = (n * program.groups, -(-size[1] // TILE), -(-size[0] // TILE))
    if n:
        bound(device, grid, source.data, *table, out, *source.strides(), *size)


def _check(source: Source, tables: Tables, statistics: Tensor, out: Tensor) -> None:
    n, device = len(tables.integers), out.device
    every = vars(tables) | {"statistics": statistics}
    for name, dtype in (
        ("floats", torch.float32),
        ("integers", torch.int32),
        ("doubles", torch.float64),
        ("statistics", torch.float32),
    ):
        table = every[name]
        if (
            table.shape[:1] != (n,)
            or table.ndim != 2
            or table.dtype != dtype
            or table.device != device
            or not table.is_contiguous()
        ):
            raise ValueError(
                f"{name} must be contiguous [{n}, columns] {dtype} on {device}, "
                f"got {tuple(table.shape)} {table.dtype} on {table.device}"
            )
    if len(source.data) != n or source.data.device != device or source.data.ndim != (1 if source.ragged else 4):
        raise ValueError(
            f"the source must have {n} samples on {device}, got {tuple(source.data.shape)} on {source.data.device}"
        )
    if device.type == "cpu" and not interpreted():
        raise RuntimeError(
            'backend "triton" runs images on the CPU only in its interpreter, got images on the CPU; '
            'set TRITON_INTERPRET=1 before triton is imported, or use backend="auto"'
        )


def ahead(
    source: Source,
    program: ChainProgram,
    tables: Tables,
    statistics: Tensor,
    size: tuple[int, int],
    dtype: torch.dtype,
    channels_last: bool,
    reduction: Reduction | None = None,
) -> ASTSource:
    """The kernel that a launch would compile, for triton.compile and any target.  reduction: the one that it is for"""
    table = {"floats": "*fp32", "integers": "*i32", "doubles": "*fp64", "statistics": "*fp32"}
    pointers = {
        "source": "*i64" if source.ragged else _TYPES[source.dtype],
        **table,
        "out": "*i64" if reduction else _TYPES[dtype],
    }
    numbers = dict(
        zip(
            ("stride_n", "stride_c", "stride_y", "stride_x", "height", "width"), (*source.strides(), *size), strict=True
        )
    )
    layout = Layout() if reduction else output_layout(source, program, channels_last, size[1], dtype)
    # as a launch specialises arguments: a 1 is a constant, and a multiple of 16 allows wider loads
    constant = chain_constants(source, program, tables, statistics, layout, reduction)
    constant |= {k: 1 for k, v in numbers.items() if v == 1}
    signature = {k: "constexpr" if k in constant else pointers.get(k, "i32") for k in chain.arg_names}
    aligned = [*pointers, *(k for k, v in numbers.items() if v % 16 == 0)]
    return ASTSource(
        fn=chain,
        signature=signature,
        constexprs=constant,
        attrs={(chain.arg_names.index(k),): [["tt.divisibility", 16]] for k in aligned},
    )


def finish_ahead(reduction: Reduction, tables: Tables, statistics: Tensor, size: tuple[int, int]) -> ASTSource:
    """The same of the kernel that finishes a reduction."""
    constant = {k: v for k, v in finish_constants(reduction, tables, statistics).items() if k != "num_warps"}
    total = size[0] * size[1]
    numbers = {"total": total} if total == 1 else {}
    pointers = {"cells": "*i64", "integers": "*i32", "statistics": "*fp32"}
    signature = {k: "constexpr" if k in constant | numbers else pointers.get(k, "i32") for k in finish.arg_names}
    aligned = [*pointers, *(["total"] if total % 16 == 0 else [])]
    attrs = {(finish.arg_names.index(k),): [["tt.divisibility", 16]] for k in aligned}
    return ASTSource(fn=finish, signature=signature, constexprs=constant | numbers, attrs=attrs)
