"""What the host does with a chain: check, allocate, choose the grid, launch; and compile ahead of time for a card that is not here."""

import torch
import triton
from torch import Tensor
from triton.compiler import ASTSource
from triton.runtime.interpreter import InterpretedFunction

from gpuaug_kernels import codes
from gpuaug_kernels.chain import TILE, Program, Source, Tables, chain

_TYPES = {torch.uint8: "*u8", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}


def means(tables: Tables, count: int) -> Tensor:
    """Room for the means of `count` contrasts: [N, max(1, count)] float32."""
    return torch.empty((len(tables.integers), max(1, count)), dtype=torch.float32, device=tables.integers.device)


def images(
    source: Source, program: Program, tables: Tables, known: Tensor, size: tuple[int, int], dtype: torch.dtype, channels_last: bool, out: Tensor | None = None
) -> Tensor:
    """Run the chain: [N, C, H, W] of a dtype, in one launch; into `out` where it is given.  known: the means"""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = (len(tables.integers), program.written, *size)
    if out is not None and (out.shape != shape or out.dtype != dtype or not out.is_contiguous(memory_format=layout)):
        raise ValueError(f"out must be {dtype} {shape} in {layout}, got {out.dtype} {tuple(out.shape)} of strides {out.stride()}")
    # the interpreter cuts bfloat16 off where a card rounds to nearest: there it writes float32, and torch rounds
    rounded = dtype == torch.bfloat16 and interpreted()
    written = out
    if written is None or rounded:
        written = torch.empty(shape, dtype=torch.float32 if rounded else dtype, device=tables.integers.device, memory_format=layout)
    _launch(source, program, tables, known, size, written, _layout(program, channels_last), -1)
    return written.to(dtype) if out is None else out.copy_(written) if rounded else out


def mean(source: Source, program: Program, tables: Tables, known: Tensor, size: tuple[int, int], number: int) -> Tensor:
    """The mean of gray at every sample's contrast of this number: [N] float32, in one launch and a sum over tiles.  known: the means of lower number"""
    tiles = triton.cdiv(size[0], TILE) * triton.cdiv(size[1], TILE)
    out = torch.empty((len(tables.integers), tiles), dtype=torch.int64, device=tables.integers.device)
    _launch(source, program, tables, known, size, out, (0, 0, 0), number)
    return (out.sum(1).double() / (size[0] * size[1] * 2.0**24)).float()


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
    elif source in (codes.BILINEAR.value, codes.NEAREST.value, codes.SWITCH.value):
        registers = 240
    return {"num_warps": 4, "maxnreg": registers}


def constants(source: Source, program: Program, tables: Tables, known: Tensor, layout: tuple[int, int, int], stop: int) -> dict[str, object]:
    """What the kernel is specialised on."""
    return {
        "PROGRAM": program.records,
        "PARTS": program.parts,
        "WIDTHS": tuple(t.shape[1] for t in (tables.floats, tables.integers, tables.doubles, known)),
        "FORMAT": (program.channels, program.blocks, program.groups),
        "LAYOUT": layout,
        "RAGGED": 0 if not source.ragged else 1 if source.dtype == torch.uint8 else 2,
        "STOP": stop,
        "TILE": TILE,
    }


def _layout(program: Program, channels_last: bool) -> tuple[int, int, int]:
    return min(program.channels, program.written), program.written, int(channels_last)


def _launch(
    source: Source, program: Program, tables: Tables, known: Tensor, size: tuple[int, int], out: Tensor, layout: tuple[int, int, int], stop: int
) -> None:
    _check(source, tables, known, out)
    grid = (len(tables.integers) * program.groups, triton.cdiv(size[1], TILE), triton.cdiv(size[0], TILE))
    if grid[0]:
        table = (tables.floats, tables.integers, tables.doubles, known)
        # triton launches on the current device, which need not be that of the images
        with torch.cuda.device_of(out):
            chain[grid](source.data, *table, out, *source.strides(), *size, **constants(source, program, tables, known, layout, stop), **options(program))


def _check(source: Source, tables: Tables, known: Tensor, out: Tensor) -> None:
    n, device = len(tables.integers), out.device
    every = vars(tables) | {"means": known}
    for name, dtype in (("floats", torch.float32), ("integers", torch.int32), ("doubles", torch.float64), ("means", torch.float32)):
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
    source: Source, program: Program, tables: Tables, known: Tensor, size: tuple[int, int], dtype: torch.dtype, channels_last: bool, stop: int = -1
) -> ASTSource:
    """The kernel that a launch would compile, for triton.compile and any target.  stop: as in the kernel"""
    table = {"floats": "*fp32", "integers": "*i32", "doubles": "*fp64", "means": "*fp32"}
    pointers = {"source": "*i64" if source.ragged else _TYPES[source.dtype], **table, "out": _TYPES[dtype] if stop < 0 else "*i64"}
    numbers = dict(zip(("stride_n", "stride_c", "stride_y", "stride_x", "height", "width"), (*source.strides(), *size), strict=True))
    layout = _layout(program, channels_last) if stop < 0 else (0, 0, 0)
    # as a launch sees it: a 1 is a constant, and what is a multiple of 16 is loaded wider for it
    constant = constants(source, program, tables, known, layout, stop) | {k: 1 for k, v in numbers.items() if v == 1}
    signature = {k: "constexpr" if k in constant else pointers.get(k, "i32") for k in chain.arg_names}
    aligned = [*pointers, *(k for k, v in numbers.items() if v % 16 == 0)]
    return ASTSource(fn=chain, signature=signature, constexprs=constant, attrs={(chain.arg_names.index(k),): [["tt.divisibility", 16]] for k in aligned})
