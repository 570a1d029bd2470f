"""All parameters of a batch in one launch: a trace of the draws, each thread a sample, its numbers in registers.

It reads 16 bytes a sample (id and occurrence; 16 more where images differ in size, 8 for a partner) and writes every
column of every table once.  An operation is FIELDS numbers: its code, and the places of its operands among the numbers
made so far, or what the code says; integers all, but for the value of a float constant."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

import torch
from torch import Tensor
from triton.compiler import ASTSource
from triton.runtime import driver

from gpuaug_kernels import codes
from gpuaug_kernels.bind import Bound, supplied
from gpuaug_kernels.draw_kernels import ROWS, draw_parameters, find_partners, share_words

BLOCK = 32
# of the search for partners: samples looked at together, and warps that look
CHUNK, WARPS = 64, 4
# ids and occurrences [N] int64 contiguous, epoch (int64 on the device, or a number), seed
Who = tuple[Tensor, Tensor, int | Tensor, int]
BUFFERS = {name: getattr(torch, name) for name in codes.DTYPES}


class Code:
    """The numbers of all operations, one after the other.

    No tuple: triton would take it apart at every access.  The hash is computed once, since every launch asks for it."""

    def __init__(self, values: Sequence[float]):
        self.values = tuple(values)
        self._hash = hash(self.values)

    def __getitem__(self, place: int) -> float:
        return self.values[place]

    def __len__(self) -> int:
        return len(self.values)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Code) and self.values == other.values

    def __repr__(self) -> str:
        # part of the key under which triton caches a compiled kernel on disk
        return f"Code{self.values}"


@dataclass(frozen=True, eq=False)
class DrawProgram:
    """What to compile: a trace as data."""

    code: Code
    columns: tuple[int, int, int, int]  # of all tables of each dtype of BUFFERS

    numbers: tuple[int | float, ...] = ()  # constants that the kernel reads, so that it is compiled for any of them

    @cached_property
    def bound(self) -> Bound:
        """Its kernel."""
        return Bound(draw_parameters, constants(self), OPTIONS)

    @cached_property
    def _sent(self) -> dict[tuple[torch.device, int], Tensor]:
        return {}

    def numbers_on(self, device: torch.device) -> Tensor:
        """The numbers, as int64 or the bits of float64: sent once for each stream that asks, so that nobody waits."""
        stream = 0
        if device.type == "cuda" and not self.bound.plain:
            index = torch.cuda.current_device() if device.index is None else device.index
            stream = driver.active.get_current_stream(index)
        found = self._sent.get((device, stream))
        if found is None:
            found = self._sent[device, stream] = self._send(device)
        return found

    def _send(self, device: torch.device) -> Tensor:
        there = [t for (d, _), t in self._sent.items() if d == device]
        if there and device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            # all streams had come to an end when the capture began
            return there[0]
        whole = struct.pack(f"={len(self.numbers)}q", *map(_bits, self.numbers)) or bytes(8)
        host = torch.frombuffer(bytearray(whole), dtype=torch.int64)
        return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)


def draw_tables(program: DrawProgram, keys: Who, size: Tensor, partners: Tensor) -> tuple[Tensor, ...]:
    """The buffers of all tables: table after table [N rounded up to 16, columns], each from its own column of
    `program.columns`.

    size: [N, 2] int64; partners: [slots, N] int64"""
    ids, occurrences, epoch, seed = keys
    n = len(ids)
    _check(ids, occurrences, size, partners)
    padded = -(-n // 16) * 16
    out = tuple(
        torch.empty(padded * c, dtype=d, device=ids.device)
        for c, d in zip(program.columns, BUFFERS.values(), strict=True)
    )
    if n:
        program.bound(
            *(ids.device, (-(-n // BLOCK), 1, 1)),
            *(
                ids,
                occurrences,
                epoch,
                size,
                partners,
                supplied(program.numbers_on, ids.device),
                *words(seed),
                *out,
                n,
            ),
        )
    return out


OPTIONS = {"num_warps": 1, "enable_fp_fusion": False}


def words(seed: int) -> tuple[int, int]:
    """The words of a seed, low and high, as kernels take them: signed, so that Triton compiles one kernel for all."""
    low, high = seed & 0xFFFFFFFF, seed >> 32
    return low - (low >> 31 << 32), high - (high >> 31 << 32)


def _bits(number: int | float) -> int:
    """A number as an int64 with the same bits."""
    return struct.unpack("=q", struct.pack("=d", number))[0] if isinstance(number, float) else number


def constants(program: DrawProgram) -> dict[str, object]:
    """The compile-time constants of `draw_parameters`."""
    return {"CODE": program.code, "LENGTH": len(program.code) // codes.FIELDS, "BLOCK": BLOCK}


def partners(keys: Who, c1: int, out: Tensor, valid: Tensor | None = None) -> None:
    """Write the row of each sample's partner, to `out`: [N] int64.  c1: domain and slot of the counter.  valid: [N]
    bool, of those that may mix; None for all"""
    _launch(_partner_kernel(c1, valid is not None), keys, out, valid)


def share(keys: Who, c1: int, words: tuple[int, ...], out: Tensor, valid: Tensor | None = None) -> None:
    """Write words of the sample whose draws all share to rows of `out`: [rows, N] int64.

    c1: domain and slot of the order in which that sample is the first, valid ones before others.  words: of each the
    domain and slot, the number of the draw, the lane, and the row.  valid: as of `partners`"""
    _launch(_share_kernel(c1, words, valid is not None), keys, out, valid)


def _launch(kernel: Bound, keys: Who, out: Tensor, valid: Tensor | None) -> None:
    """Launch what looks at all samples for each block of them."""
    ids, occurrences, epoch, seed = keys
    n = len(ids)
    if n >= ROWS.value:
        raise ValueError(f"a batch must have fewer than {ROWS.value} samples, got {n}")
    _check(ids, occurrences, out)
    if valid is not None:
        if valid.shape != (n,) or valid.dtype != torch.bool or not valid.is_contiguous() or valid.device != ids.device:
            raise ValueError(f"valid must be contiguous [{n}] bool on {ids.device}, got {valid.dtype} "
                             f"{tuple(valid.shape)} on {valid.device}")  # fmt: skip
        valid = valid.view(torch.uint8)
    if n:
        marks = ids if valid is None else valid
        grid = (-(-n // BLOCK), 1, 1)
        kernel(ids.device, grid, ids, occurrences, epoch, *words(seed), marks, out, n)


def partner_constants(c1: int, valid: bool) -> dict[str, object]:
    """The compile-time constants of `find_partners`."""
    return {"C1": c1, "VALID": int(valid), "BLOCK": BLOCK, "CHUNK": CHUNK}


@cache
def _partner_kernel(c1: int, valid: bool) -> Bound:
    return Bound(find_partners, partner_constants(c1, valid), {"num_warps": WARPS})


@lru_cache(256)
def _share_kernel(c1: int, words: tuple[int, ...], valid: bool) -> Bound:
    return Bound(share_words, share_constants(c1, words, valid), {"num_warps": WARPS})


def share_constants(c1: int, words: tuple[int, ...], valid: bool) -> dict[str, object]:
    """The compile-time constants of `share_words`.  words: as of `share`"""
    return {**partner_constants(c1, valid), "WORDS": Code(words), "COUNT": len(words) // 4}


def _check(*tensors: Tensor) -> None:
    for t in tensors:
        if t.dtype != torch.int64 or not t.is_contiguous() or t.device != tensors[0].device:
            raise ValueError(
                f"ids, occurrences, sizes and partners must be contiguous int64 on {tensors[0].device}, got {t.dtype} "
                f"of strides {t.stride()} on {t.device}"
            )


def ahead(program: DrawProgram) -> ASTSource:
    """The kernel that a launch would compile, for triton.compile and any target: epoch a number, tensors aligned."""
    pointers = {
        "ids": "*i64",
        "occurrences": "*i64",
        "sizes": "*i64",
        "partners": "*i64",
        "constants": "*i64",
        "floats": "*fp32",
        "ints": "*i32",
        "doubles": "*fp64",
        "longs": "*i64",
    }
    types = {**pointers, **dict.fromkeys(("epoch", "low", "high", "n"), "i32")}
    constant = constants(program)
    signature = {name: "constexpr" if name in constant else types[name] for name in draw_parameters.arg_names}
    return ASTSource(
        fn=draw_parameters,
        signature=signature,
        constexprs=constant,
        attrs={(draw_parameters.arg_names.index(k),): [["tt.divisibility", 16]] for k in pointers},
    )
