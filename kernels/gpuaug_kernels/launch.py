"""What the host does with a chain: check, allocate, choose the grid, launch; and compile ahead of time for a card that is not here."""

import torch
import triton
from torch import Tensor
from triton.compiler import ASTSource
from triton.runtime.interpreter import InterpretedFunction

from gpuaug_kernels import codes
from gpuaug_kernels.chain import TILE, Program, Source, Tables, chain

# stages of a few instructions, all of them for every sample
LIGHT = {c.value for c in (codes.IDENTITY, codes.AFFINE, codes.NORMALIZE, codes.GRAY, codes.SOLARIZE)}
HEAVY = {codes.GAUSSIAN.value, codes.ERASE.value}
_TYPES = {torch.uint8: "*u8", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}


def images(
    source: Source, program: Program, tables: Tables, size: tuple[int, int], dtype: torch.dtype, channels_last: bool, out: Tensor | None = None
) -> Tensor:
    """Run the chain: [N, C, H, W] of a dtype, in one launch; into `out` where it is given."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = (len(tables.integers), program.written, *size)
    if out is not None and (out.shape != shape or out.dtype != dtype or not out.is_contiguous(memory_format=layout)):
        raise ValueError(f"out must be {dtype} {shape} in {layout}, got {out.dtype} {tuple(out.shape)} of strides {out.stride()}")
    # the interpreter cuts bfloat16 off where a card rounds to nearest: there it writes float32, and torch rounds
    rounded = dtype == torch.bfloat16 and interpreted()
    written = out
    if written is None or rounded:
        written = torch.empty(shape, dtype=torch.float32 if rounded else dtype, device=tables.integers.device, memory_format=layout)
    _launch(source, program, tables, size, written, _layout(source, program, channels_last, size[1], written.dtype, written.data_ptr()), -1)
    return written.to(dtype) if out is None else out.copy_(written) if rounded else out


def mean(source: Source, program: Program, tables: Tables, size: tuple[int, int], number: int) -> Tensor:
    """The mean of gray at every sample's contrast of this number: [N] float32, in one launch and a sum over tiles."""
    tiles = triton.cdiv(size[0], TILE) * triton.cdiv(size[1], TILE)
    out = torch.empty((len(tables.integers), tiles), dtype=torch.int64, device=tables.integers.device)
    _launch(source, program, tables, size, out, (0, 0, 0, 0), number)
    return (out.sum(1).double() / (size[0] * size[1] * 2.0**24)).float()


def interpreted() -> bool:
    """Whether kernels run in the interpreter: TRITON_INTERPRET=1 was set before triton was imported."""
    return isinstance(chain, InterpretedFunction)


def options(program: Program) -> dict[str, int]:
    """How a program is compiled: pixels a thread, for what they share, and registers enough to spill nothing."""
    source, mix = program.records[0], program.records[codes.RECORD.value]
    stages = _stages(program.records, 2, program.parts[1])
    # a mix reads two sides, and a normal is a long polynomial for every pixel that a thread holds
    crowded = mix == codes.MIXUP.value or bool(stages & HEAVY)
    if source == codes.TRIANGLE.value:
        return {"num_warps": 4 if crowded or mix != codes.ALONE.value else 2, "maxnreg": 240}
    if source in (codes.PIXEL.value, codes.FLOOR.value):
        # where little is done to a pixel, most is what a thread does once; and what one warp holds is exchanged without a barrier
        warps, registers = (4, 128) if crowded else (1, 200) if stages <= LIGHT else (2, 160)
        return {"num_warps": warps, "maxnreg": registers}
    # with its own choice of registers ptxas spills a few to fit one block more on a multiprocessor
    return {"num_warps": 4, "maxnreg": 240 if source in (codes.BILINEAR.value, codes.NEAREST.value) else 128}


def _stages(records: tuple[int, ...], first: int, last: int) -> set[int]:
    """The codes of a row of records, and of what its choices point to."""
    found = set()
    for k in range(first, last):
        code, _, _, branch, count = records[codes.RECORD.value * k : codes.RECORD.value * (k + 1)]
        found.add(code)
        for j in range(branch, branch + count) if code == codes.CHOICE.value else ():
            found |= _stages(records, *records[codes.RECORD.value * j : codes.RECORD.value * j + 2])
    return found


def words(source: Source, program: Program) -> bool:
    """Whether pixels of three bytes are read sixteen at a time, as six words: every row begins at a multiple of eight bytes."""
    if source.ragged or source.dtype != torch.uint8 or program.channels != 3 or program.records[0] not in (codes.PIXEL.value, codes.FLOOR.value):
        return False
    n, c, y, x = source.strides()
    return (c, x) == (1, 3) and n % 8 == y % 8 == source.data.data_ptr() % 8 == 0 and source.data.shape[3] % 16 == 0


def constants(source: Source, program: Program, tables: Tables, layout: tuple[int, ...], stop: int) -> dict[str, object]:
    """What the kernel is specialised on.  FORMAT ends in whether pixels are read by words, and the stride of a column where it is 3."""
    # a stride that is known makes one instruction of an address
    step = 3 if source.strides()[3] == 3 else 0
    return {
        "PROGRAM": program.records,
        "PARTS": program.parts,
        "WIDTHS": tuple(t.shape[1] for t in (tables.floats, tables.integers, tables.doubles, tables.means)),
        "FORMAT": (program.channels, program.blocks, program.groups, int(words(source, program)), step),
        "LAYOUT": layout,
        "RAGGED": 0 if not source.ragged else 1 if source.dtype == torch.uint8 else 2,
        "STOP": stop,
        "TILE": TILE,
    }


def _layout(source: Source, program: Program, channels_last: bool, width: int, dtype: torch.dtype, address: int = 0) -> tuple[int, int, int, int]:
    """How the kernel writes.  address: of the output"""
    together = 0
    if channels_last and program.written == program.channels == 3 and address % 16 == 0:
        # as many neighbours as a thread holds anyway
        if words(source, program) and width % 16 == 0:
            together = 8 if dtype == torch.float32 else 16
        elif program.records[0] == codes.TRIANGLE.value and width % 2 == 0:
            together = 2
    return min(program.channels, program.written), program.written, int(channels_last), together


def _launch(source: Source, program: Program, tables: Tables, size: tuple[int, int], out: Tensor, layout: tuple[int, ...], stop: int) -> None:
    _check(source, tables, out)
    grid = (len(tables.integers) * program.groups, triton.cdiv(size[1], TILE), triton.cdiv(size[0], TILE))
    if grid[0]:
        table = (tables.floats, tables.integers, tables.doubles, tables.means)
        # triton launches on the current device, which need not be that of the images
        with torch.cuda.device_of(out):
            chain[grid](source.data, *table, out, *source.strides(), *size, **constants(source, program, tables, layout, stop), **options(program))


def _check(source: Source, tables: Tables, out: Tensor) -> None:
    n, device = len(tables.integers), out.device
    for name, dtype in (("floats", torch.float32), ("integers", torch.int32), ("doubles", torch.float64), ("means", torch.float32)):
        table = getattr(tables, name)
        if table.shape[:1] != (n,) or table.ndim != 2 or table.dtype != dtype or table.device != device or not table.is_contiguous():
            raise ValueError(f"{name} must be contiguous [{n}, columns] {dtype} on {device}, got {tuple(table.shape)} {table.dtype} on {table.device}")
    if len(source.data) != n or source.data.device != device or source.data.ndim != (1 if source.ragged else 4):
        raise ValueError(f"the source must have {n} samples on {device}, got {tuple(source.data.shape)} on {source.data.device}")
    if device.type == "cpu" and not interpreted():
        raise RuntimeError(
            'backend "triton" runs images on the CPU only in its interpreter, got images on the CPU; set TRITON_INTERPRET=1 before triton is imported, '
            'or use backend="auto"'
        )


def ahead(source: Source, program: Program, tables: Tables, size: tuple[int, int], dtype: torch.dtype, channels_last: bool, stop: int = -1) -> ASTSource:
    """The kernel that a launch would compile, for triton.compile and any target.  stop: as in the kernel"""
    table = {"floats": "*fp32", "integers": "*i32", "doubles": "*fp64", "means": "*fp32"}
    pointers = {"source": "*i64" if source.ragged else _TYPES[source.dtype], **table, "out": _TYPES[dtype] if stop < 0 else "*i64"}
    numbers = dict(zip(("stride_n", "stride_c", "stride_y", "stride_x", "height", "width"), (*source.strides(), *size), strict=True))
    layout = _layout(source, program, channels_last, size[1], dtype) if stop < 0 else (0, 0, 0, 0)
    # as a launch sees it: a 1 is a constant, and what is a multiple of 16 is loaded wider for it
    constant = constants(source, program, tables, layout, stop) | {k: 1 for k, v in numbers.items() if v == 1}
    signature = {k: "constexpr" if k in constant else pointers.get(k, "i32") for k in chain.arg_names}
    aligned = [*pointers, *(k for k, v in numbers.items() if v % 16 == 0)]
    return ASTSource(fn=chain, signature=signature, constexprs=constant, attrs={(chain.arg_names.index(k),): [["tt.divisibility", 16]] for k in aligned})
