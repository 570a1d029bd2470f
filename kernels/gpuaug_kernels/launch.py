"""What the host does with a chain: check, allocate, choose the grid, launch; and compile ahead of time for a card that
is not here."""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor
from triton.compiler import ASTSource
from triton.runtime.interpreter import InterpretedFunction

from gpuaug_kernels import codes
from gpuaug_kernels.chain import TILE, Program, Reduction, Source, Tables, chain
from gpuaug_kernels.statistics import finish

# stages of a few instructions, all of them for every sample
LIGHT = {codes.IDENTITY, codes.AFFINE, codes.NORMALIZE, codes.GRAY, codes.SOLARIZE}
HEAVY = {codes.GAUSSIAN, codes.ERASE}
# sources that hold much for a pixel
WIDE = {codes.BILINEAR, codes.NEAREST, codes.SWITCH, codes.PROJECT}
_TYPES = {torch.uint8: "*u8", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}


def images(
    source: Source,
    program: Program,
    tables: Tables,
    known: Tensor,
    size: tuple[int, int],
    dtype: torch.dtype,
    channels_last: bool,
    out: Tensor | None = None,
) -> Tensor:
    """Run the chain: [N, C, H, W] of a dtype, in one launch; into `out` where it is given.  known: what `reduced`
    gives"""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = (len(tables.integers), program.written, *size)
    if out is not None and (out.shape != shape or out.dtype != dtype or not out.is_contiguous(memory_format=layout)):
        raise ValueError(
            f"out must be {dtype} {shape} in {layout}, got {out.dtype} {tuple(out.shape)} of strides {out.stride()}"
        )
    # the interpreter cuts bfloat16 off where a card rounds to nearest: there it writes float32, and torch rounds
    rounded = dtype == torch.bfloat16 and interpreted()
    written = out
    if written is None or rounded:
        written = torch.empty(
            shape, dtype=torch.float32 if rounded else dtype, device=tables.integers.device, memory_format=layout
        )
    _launch(
        source,
        program,
        tables,
        known,
        size,
        written,
        _layout(source, program, channels_last, size[1], written.dtype, written.data_ptr()),
    )
    return written.to(dtype) if out is None else out.copy_(written) if rounded else out


def reduced(source: Source, reductions: Sequence[Reduction], tables: Tables, size: tuple[int, int]) -> Tensor:
    """The statistics that samples meet, [N, all of a sample] float32: for each number a launch over the images and one
    over what it found."""
    known = room(reductions, len(tables.integers), tables.integers.device)
    cells = torch.zeros(known.shape, dtype=torch.int64, device=known.device) if reductions else known
    for one in reductions:
        _launch(source, one.program, tables, known, size, cells, (0, 0, 0, 0), one)
        if len(known):
            with torch.cuda.device_of(known):
                finish[(len(known), channels(one))](
                    cells, tables.integers, known, size[0] * size[1], **finishing(one, tables, known)
                )
    return known


def room(reductions: Sequence[Reduction], n: int, device: torch.device) -> Tensor:
    """Where the statistics of n samples go; a launch without any has a column that nobody reads."""
    return torch.empty((n, max(1, sum(r.room for r in reductions))), dtype=torch.float32, device=device)


def channels(one: Reduction) -> int:
    """How many channels a statistic has: a mean of gray has one."""
    return one.program.channels * one.program.groups if set(one.kinds) - {codes.MEAN} else 1


def finishing(one: Reduction, tables: Tables, known: Tensor) -> dict[str, object]:
    """What the finish of a reduction is specialised on."""
    return {
        "WIDTHS": (tables.integers.shape[1], known.shape[1]),
        "OFFSET": one.number * one.room,
        "COLUMN": one.column,
        "KINDS": tuple(int(k in one.kinds) for k in codes.STATISTICS.values()),
        "num_warps": 1,
    }


def interpreted() -> bool:
    """Whether kernels run in the interpreter: TRITON_INTERPRET=1 was set before triton was imported."""
    return isinstance(chain, InterpretedFunction)


def options(program: Program) -> dict[str, int]:
    """How a program is compiled: pixels a thread, for what they share, and registers enough to spill nothing."""
    source, mix = program.records[0], program.records[codes.RECORD]
    stages = _stages(program.records, 2, program.parts[1])
    # a mix reads two sides, and a normal is a long polynomial for every pixel that a thread holds
    crowded = mix == codes.MIXUP or bool(stages & HEAVY)
    if source == codes.TRIANGLE:
        return {"num_warps": 4 if crowded or mix != codes.ALONE else 2, "maxnreg": 240}
    if source in (codes.PIXEL, codes.FLOOR):
        # where little is done to a pixel, most is what a thread does once; and what one warp holds is exchanged without
        # a barrier
        warps, registers = (
            (4, 168) if crowded else (1, 200) if stages <= LIGHT else (2, 160 if mix == codes.ALONE else 200)
        )
        return {"num_warps": warps, "maxnreg": registers}
    # with its own choice of registers ptxas spills a few to fit one block more on a multiprocessor
    return {"num_warps": 4, "maxnreg": 240 if source in WIDE else 128}


def _stages(records: tuple[int, ...], first: int, last: int) -> set[int]:
    """The codes of a row of records, and of what its choices point to."""
    found = set()
    for k in range(first, last):
        code, _, _, branch, count = records[codes.RECORD * k : codes.RECORD * (k + 1)]
        found.add(code)
        for j in range(branch, branch + count) if code == codes.CHOICE else ():
            found |= _stages(records, *records[codes.RECORD * j : codes.RECORD * j + 2])
    return found


def words(source: Source, program: Program) -> bool:
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


def constants(
    source: Source, program: Program, tables: Tables, known: Tensor, layout: tuple[int, ...], one: Reduction | None
) -> dict[str, object]:
    """What the kernel is specialised on.  FORMAT ends in whether pixels are read by words, and the stride of a column
    where it is 3."""
    # a stride that is known makes one instruction of an address
    step = 3 if source.strides()[3] == 3 else 0
    return {
        "PROGRAM": program.records,
        "PARTS": program.parts,
        "WIDTHS": tuple(t.shape[1] for t in (tables.floats, tables.integers, tables.doubles, known)),
        "FORMAT": (program.channels, program.blocks, program.groups, int(words(source, program)), step),
        "LAYOUT": layout,
        "RAGGED": 0 if not source.ragged else 1 if source.dtype == torch.uint8 else 2,
        "STOP": one.number if one else -1,
        "MEETS": one.column if one else -1,
        "TILE": TILE,
    }


def _layout(
    source: Source, program: Program, channels_last: bool, width: int, dtype: torch.dtype, address: int = 0
) -> tuple[int, int, int, int]:
    """How the kernel writes.  address: of the output"""
    together = 0
    if channels_last and program.written == program.channels == 3 and address % 16 == 0:
        # as many neighbours as a thread holds anyway
        if words(source, program) and width % 16 == 0:
            together = 8 if dtype == torch.float32 else 16
        elif program.records[0] in (codes.TRIANGLE, codes.SWITCH, codes.PIXEL) and width % 2 == 0:
            together = 2
    return min(program.channels, program.written), program.written, int(channels_last), together


def _launch(
    source: Source,
    program: Program,
    tables: Tables,
    known: Tensor,
    size: tuple[int, int],
    out: Tensor,
    layout: tuple[int, ...],
    one: Reduction | None = None,
) -> None:
    _check(source, tables, known, out)
    grid = (len(tables.integers) * program.groups, triton.cdiv(size[1], TILE), triton.cdiv(size[0], TILE))
    if grid[0]:
        table = (tables.floats, tables.integers, tables.doubles, known)
        # triton launches on the current device, which need not be that of the images
        with torch.cuda.device_of(out):
            chain[grid](
                source.data,
                *table,
                out,
                *source.strides(),
                *size,
                **constants(source, program, tables, known, layout, one),
                **options(program),
            )


def _check(source: Source, tables: Tables, known: Tensor, out: Tensor) -> None:
    n, device = len(tables.integers), out.device
    every = vars(tables) | {"known": known}
    for name, dtype in (
        ("floats", torch.float32),
        ("integers", torch.int32),
        ("doubles", torch.float64),
        ("known", torch.float32),
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
                f"{name} must be contiguous [{n}, columns] {dtype} on {device}, got {tuple(table.shape)} {table.dtype} on {table.device}"
            )
    if len(source.data) != n or source.data.device != device or source.data.ndim != (1 if source.ragged else 4):
        raise ValueError(
            f"the source must have {n} samples on {device}, got {tuple(source.data.shape)} on {source.data.device}"
        )
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
    pointers = {
        "source": "*i64" if source.ragged else _TYPES[source.dtype],
        **table,
        "out": "*i64" if one else _TYPES[dtype],
    }
    numbers = dict(
        zip(
            ("stride_n", "stride_c", "stride_y", "stride_x", "height", "width"), (*source.strides(), *size), strict=True
        )
    )
    layout = (0, 0, 0, 0) if one else _layout(source, program, channels_last, size[1], dtype)
    # as a launch sees it: a 1 is a constant, and what is a multiple of 16 is loaded wider for it
    constant = constants(source, program, tables, known, layout, one) | {k: 1 for k, v in numbers.items() if v == 1}
    signature = {k: "constexpr" if k in constant else pointers.get(k, "i32") for k in chain.arg_names}
    aligned = [*pointers, *(k for k, v in numbers.items() if v % 16 == 0)]
    return ASTSource(
        fn=chain,
        signature=signature,
        constexprs=constant,
        attrs={(chain.arg_names.index(k),): [["tt.divisibility", 16]] for k in aligned},
    )


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
