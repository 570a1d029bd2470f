"""What the host does with a chain: check, allocate, choose the grid, launch; and compile ahead of time for a card that
this machine lacks."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from triton.compiler import ASTSource
from triton.runtime import driver
from triton.runtime.interpreter import InterpretedFunction

from gpuaug_kernels import codes
from gpuaug_kernels.bind import Bound
from gpuaug_kernels.chain import TILE, ChainProgram, NextStatistic, Reduction, Source, Tables, chain
from gpuaug_kernels.statistics import finish
from gpuaug_kernels.tuples import Following, Format, Kinds, Layout, Parts, Widths

# stages of long polynomials
HEAVY = {codes.GAUSSIAN, codes.ERASE}
# sources that hold much for a pixel in registers
MANY_REGISTERS = {codes.BILINEAR, codes.NEAREST, codes.PROJECT}
_TYPES = {
    torch.uint8: "*u8",
    torch.uint16: "*u16",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
}


def images(
    source: Source,
    program: ChainProgram,
    tables: Tables,
    statistics: Tensor,
    size: tuple[int, int],
    dtype: torch.dtype,
    channels_last: bool,
    out: Tensor | None = None,
    following: NextStatistic | None = None,
) -> Tensor:
    """Run the chain in one launch: [N, C, H, W] of a dtype, into `out` where it is given.

    statistics: what `reduce_statistics` gives; following: what to gather of the images, which are then in no more than
    16 bits of [0, 1] or in float32"""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = (tables.integers.shape[0], program.written, *size)
    if out is not None and (out.shape != shape or out.dtype != dtype or not out.is_contiguous(memory_format=layout)):
        raise ValueError(
            f"out must be {dtype} {shape} in {layout}, got {out.dtype} {tuple(out.shape)} of strides {out.stride()}"
        )
    # the interpreter truncates to bfloat16 where a card rounds to nearest: there it writes float32, and torch rounds
    rounded = dtype == torch.bfloat16 and interpreted()
    written = out
    if dtype == torch.uint16:
        written = pixels16(shape, tables.integers.device)
    elif written is None or rounded:
        written = torch.empty(
            shape, dtype=torch.float32 if rounded else dtype, device=tables.integers.device, memory_format=layout
        )
    kind = (source.place, channels_last, size[1], written.dtype, written.data_ptr() & 15)
    if kind not in program.bound:
        program.bound[kind] = output_layout(source, program, *kind[1:])
    _launch(source, program, tables, statistics, size, written, program.bound[kind], None, following)
    return written.to(dtype) if out is None else out.copy_(written) if rounded else out


def pixels16(shape: tuple[int, ...], device: torch.device | str) -> Tensor:
    """Empty images of three channels in [0, 1] for a later launch: round(65535 x), a pixel in eight bytes."""
    n, channels, height, width = shape
    if channels != 3:
        raise ValueError(f"images of uint16 must have 3 channels, got {channels}; let them be float32")
    return torch.empty((n, height, width, 4), dtype=torch.uint16, device=device).permute(0, 3, 1, 2)[:, :3]


def reduce_statistics(
    source: Source,
    reductions: Sequence[Reduction],
    tables: Tables,
    size: tuple[int, int],
    cells: Tensor | None = None,
    gathered: bool = False,
) -> Tensor:
    """All statistics of samples, [N, columns] float32: for each number a launch over the images and one that finishes
    it.

    cells: zeros to gather them in, [N, columns] int64, written to; None: made here; gathered: they hold the first
    statistic already, of the launch that wrote the source"""
    statistics = statistics_table(reductions, tables.integers.shape[0], tables.integers.device)
    if not reductions:
        return statistics
    if cells is None:
        cells = cells_table(reductions, tables.integers.shape[0], tables.integers.device)
    for reduction in reductions:
        if reduction.number or not gathered:
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


def cells_table(reductions: Sequence[Reduction], n: int, device: torch.device) -> Tensor:
    """Zeros to gather the statistics of n samples in."""
    return torch.zeros((n, max(1, sum(r.width for r in reductions))), dtype=torch.int64, device=device)


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


def options(program: ChainProgram, target: int = 90, following: Reduction | None = None) -> dict[str, int]:
    """How a program is compiled: registers enough to spill none, and no more, since what runs at once hides what is
    waited for.  target: compute capability times ten"""
    source, mix = program.records[0], program.records[codes.RECORD]
    # a normal is a long polynomial for every pixel that a thread holds
    heavy = any(_stage_codes(p.records, 2, p.end) & HEAVY for p in (program, following and following.program) if p)
    # the compiler takes more for the same on later cards
    later = target >= 100
    if source in codes.RESAMPLES and source != codes.FLOOR:
        return {"num_warps": 8, "maxnreg": 168 if heavy or mix != codes.ALONE else 128 if later else 80}
    if source in (codes.PIXEL, codes.FLOOR):
        if heavy or mix != codes.ALONE:
            # so do those before Hopper, by a few
            return {"num_warps": 4, "maxnreg": 168 if heavy else 128 if later else 96 if target >= 90 else 112}
        # sixteen pixels a thread share what a tile costs
        return {"num_warps": 2, "maxnreg": 168 if later else 128}
    if source == codes.SWITCH:
        # each source has its own needs, and few pixels a thread spill none of them; four programs at once then hide
        # what each waits for
        many = _ways(program.records) & (MANY_REGISTERS - {codes.NEAREST})
        return {"num_warps": 8, "maxnreg": 128 if many or heavy or mix != codes.ALONE else 80 if later else 64}
    # left to itself ptxas spills a few registers to fit one block more on a multiprocessor
    return {"num_warps": 4, "maxnreg": 240 if source in MANY_REGISTERS else 128}


def target_of(device: torch.device) -> int:
    """The compute capability of a card, times ten: of the device, or of what Triton compiles for where that is none."""
    if device.type == "cuda":
        return _capability(device.index)
    return 90 if interpreted() else int(driver.active.get_current_target().arch)


@cache
def _capability(index: int) -> int:
    major, minor = torch.cuda.get_device_capability(index)
    return 10 * major + minor


def _stage_codes(records: tuple[int, ...], first: int, last: int) -> set[int]:
    """The codes of records first to last - 1, and of what their choices point to."""
    found = set()
    for k in range(first, last):
        code, _, _, branch, count = records[codes.RECORD * k : codes.RECORD * (k + 1)]
        found.add(code)
        for j in range(branch, branch + count) if code == codes.CHOICE else ():
            found |= _stage_codes(records, *records[codes.RECORD * j : codes.RECORD * j + 2])
    return found


def _ways(records: tuple[int, ...]) -> set[int]:
    """The codes of the sources that a SWITCH picks from."""
    _, count, first, _, _ = records[: codes.RECORD]
    return {records[codes.RECORD * k] for k in range(first, first + count)}


def source_form(source: Source, program: ChainProgram) -> int:
    """How a program reads its images: bytes of three channels as parts of words, wherever a row begins."""
    if source.dtype == torch.uint16:
        return codes.PIXELS16
    _, c, y, x = source.strides()
    small = source.ragged or 2 * c + y * source.data.shape[2] < 2**31
    words = source.dtype == torch.uint8 and program.channels == source.channels == 3 and small
    if words and (c, x) == (1, 3):
        return codes.WORDS
    # a stride of 1 would be a constant, which has no type
    return codes.PLANES if words and x == 1 and 1 not in (c, y) else codes.EACH


def rows_aligned(source: Source) -> bool:
    """Whether every row begins at a multiple of eight bytes."""
    if source.ragged:
        return False
    n, _, y, _ = source.strides()
    return n % 8 == y % 8 == source.data.data_ptr() % 8 == 0


def chain_constants(
    source: Source,
    program: ChainProgram,
    tables: Tables,
    statistics: Tensor,
    layout: Layout,
    reduction: Reduction | None,
    following: Reduction | None = None,
    cells: int = 0,
) -> dict[str, object]:
    """The compile-time constants of `chain`.  cells: columns"""
    # a stride that is known when compiling saves an instruction for each address
    step = 3 if source.strides()[3] == 3 else 0
    form = source_form(source, program)
    places = 0 if not source.ragged else source.data.shape[1] if source.data.ndim == 2 else 1
    # not a constant where it changes nothing
    aligned = int(form == codes.WORDS and program.records[0] == codes.PIXEL and rows_aligned(source))
    return {
        "PROGRAM": program.records,
        "PARTS": Parts(program.end_before, program.end, program.statistics_before),
        "WIDTHS": Widths(*(t.shape[1] for t in (tables.floats, tables.integers, tables.doubles, statistics)), cells),
        "FORMAT": Format(program.channels, program.blocks, program.groups, form, aligned, step, places),
        "LAYOUT": layout,
        "RAGGED": 0 if not source.ragged else 1 if source.dtype == torch.uint8 else 2,
        "REDUCE": reduction.number if reduction else -1,
        "KIND_COLUMN": reduction.kind_column if reduction else -1,
        "FOLLOW": following.program.records if following else (0,),
        "FOLLOWING": Following(following.program.end, following.kind_column) if following else Following(),
        "TILE": TILE,
    }


def output_layout(
    source: Source, program: ChainProgram, channels_last: bool, width: int, dtype: torch.dtype, address: int = 0
) -> Layout:
    """How the kernel writes.  address: of the output, 0 for one that is aligned"""
    form = codes.PLAIN
    if dtype == torch.uint16:
        form = codes.SHORTS
    elif channels_last and program.written == program.channels == 3:
        # a lane writes a word of 32 bits, where a row is whole ones
        form, values = {1: (codes.QUARTERS, 4), 2: (codes.HALVES, 2)}.get(dtype.itemsize, (codes.VALUES, 1))
        if width % values or address % 4:
            form = codes.VALUES
    return Layout(min(program.channels, program.written), program.written, int(channels_last), form)


def _launch(
    source: Source,
    program: ChainProgram,
    tables: Tables,
    statistics: Tensor,
    size: tuple[int, int],
    out: Tensor,
    layout: Layout,
    reduction: Reduction | None = None,
    following: NextStatistic | None = None,
) -> None:
    n, device = tables.integers.shape[0], out.device
    table = (tables.floats, tables.integers, tables.doubles, statistics)
    # a launch that reduces writes its cells alone
    cells = out if reduction else following.cells if following else statistics
    after = following.reduction if following else None
    which = reduction.number if reduction else -2 if following else -1
    kind = (source.place, layout, which, *(t.shape[1] for t in (*table, cells)), device)
    bound = program.bound.get(kind)
    if bound is None or source.data.shape[0] != n or source.data.device != device:
        # a program that is launched again has tables that were made in the same way
        _check(source, tables, statistics, out)
        target = target_of(device)
        width = cells.shape[1] if reduction or following else 0
        constants = chain_constants(source, program, tables, statistics, layout, reduction, after, width)
        bound = program.bound[kind] = Bound(chain, constants, options(program, target, after))
    grid = (n * program.groups, -(-size[1] // TILE), -(-size[0] // TILE))
    if n:
        bound(device, grid, source.data, *table, out, cells, *source.strides(), *size)


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
    known = source.data.shape[1:] in ((), (3,)) if source.ragged else source.data.ndim == 4
    if len(source.data) != n or source.data.device != device or not known:
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
    following: Reduction | None = None,
    cells: int = 0,
) -> ASTSource:
    """The kernel that a launch would compile, for triton.compile and any target.  reduction: the one that it is for;
    following: the one that it gathers; cells: columns of their cells"""
    table = {"floats": "*fp32", "integers": "*i32", "doubles": "*fp64", "statistics": "*fp32"}
    pointers = {
        "source": "*i64" if source.ragged else _TYPES[source.dtype],
        **table,
        "out": "*i64" if reduction else _TYPES[dtype],
        "cells": "*i64" if reduction or following else "*fp32",
    }
    numbers = dict(
        zip(
            ("stride_n", "stride_c", "stride_y", "stride_x", "height", "width"), (*source.strides(), *size), strict=True
        )
    )
    layout = Layout() if reduction else output_layout(source, program, channels_last, size[1], dtype)
    # as a launch specialises arguments: a 1 is a constant, and a multiple of 16 allows wider loads
    constant = chain_constants(source, program, tables, statistics, layout, reduction, following, cells)
    constant |= {k: 1 for k, v in numbers.items() if v == 1 and k != "height"}
    signature = {k: "constexpr" if k in constant else pointers.get(k, "i32") for k in chain.arg_names}
    aligned = [*pointers, *(k for k, v in numbers.items() if v % 16 == 0 and k != "height")]
    return ASTSource(
        fn=chain,
        signature=signature,
        constexprs=constant,
        attrs={(chain.arg_names.index(k),): [["tt.divisibility", 16]] for k in aligned},
    )


def finish_ahead(reduction: Reduction, tables: Tables, statistics: Tensor) -> ASTSource:
    """The same of the kernel that finishes a reduction."""
    constant = {k: v for k, v in finish_constants(reduction, tables, statistics).items() if k != "num_warps"}
    pointers = {"cells": "*i64", "integers": "*i32", "statistics": "*fp32"}
    signature = {k: "constexpr" if k in constant else pointers.get(k, "i32") for k in finish.arg_names}
    attrs = {(finish.arg_names.index(k),): [["tt.divisibility", 16]] for k in pointers}
    return ASTSource(fn=finish, signature=signature, constexprs=constant, attrs=attrs)
