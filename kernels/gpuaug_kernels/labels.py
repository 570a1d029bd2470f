"""Soft labels after one mix of each sample, in one launch: out[n] = own[n] * row(n) + (1 - own[n]) * row(partner[n]).

It reads 16 bytes a sample (its partner and its share) and its class number and its partner's, or both soft rows; one
byte more of each where samples may not be valid; and writes a soft row.

Every operation is the one that torch does, in float64 and in that order, so that a host gives the same bits."""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.compiler import ASTSource

from gpuaug_kernels.bind import Bound

# dtypes of soft rows
FLOATS = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.float64: "*fp64"}
# classes that one program writes, at least and at most
_LEAST, _MOST = 32, 1024


@triton.jit
def rounded(x, DTYPE: tl.constexpr):
    """Float64 values as a dtype holds them, by way of float32 as torch rounds them to 16 bits: in float32, or float64
    where the dtype is that."""
    if DTYPE == tl.float64:
        out = x
    elif DTYPE == tl.bfloat16:
        # by its bits to the nearest, ties to even, which the interpreter's own conversion does not
        single = x.to(tl.float32)
        bits = single.to(tl.int32, bitcast=True)
        near = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536
        out = tl.where(single == single, near.to(tl.float32, bitcast=True), single)
    else:
        out = x.to(tl.float32).to(DTYPE).to(tl.float32)
    return out


@triton.jit
def soft_row(
    labels,
    valid,
    row,
    columns,
    inside,
    stride_n,
    stride_c,
    KEEP: tl.constexpr,
    SPREAD: tl.constexpr,
    SOFT: tl.constexpr,
    VALID: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """Columns of the soft row of one sample before a mix, float64.

    labels: pointer to [N] integers or [N, classes] floats; valid: pointer to [N] uint8, read where VALID"""
    if SOFT:
        at = labels + row * stride_n + columns.to(tl.int64) * stride_c
        x = tl.load(at, mask=inside, other=0.0).to(tl.float64)
    else:
        number = tl.load(labels + row * stride_n).to(tl.int64)
        x = (columns.to(tl.int64) == number).to(tl.float64)
    if SPREAD != 0:
        x = rounded(tl.full([], KEEP, tl.float64) * x + tl.full([], SPREAD, tl.float64), DTYPE).to(tl.float64)
    if VALID:
        x = tl.where(tl.load(valid + row) != 0, x, 0.0)
    return x


@triton.jit
def mix_labels(
    labels,  # [N] integers, or [N, classes] of a dtype of FLOATS where SOFT
    partners,  # [N] int64, rows of the batch
    shares,  # [N] float64, of each sample in its own row
    valid,  # [N] uint8; where not VALID nothing reads it, any dtype
    out,  # [N, classes] of a dtype of FLOATS
    stride_n,  # of labels; those of out are apart
    stride_c,
    out_n,
    out_c,
    classes,
    KEEP: tl.constexpr,
    SPREAD: tl.constexpr,
    SOFT: tl.constexpr,
    VALID: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write BLOCK classes of the soft row of a sample.

    Bytes a sample: 16 read, and both numbers or both rows (2 more where VALID), and its row written."""
    n = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < classes
    dtype: tl.constexpr = out.dtype.element_ty
    own, partner = tl.load(shares + n), tl.load(partners + n)
    mine = soft_row(labels, valid, n, columns, inside, stride_n, stride_c, KEEP, SPREAD, SOFT, VALID, dtype)
    other = soft_row(labels, valid, partner, columns, inside, stride_n, stride_c, KEEP, SPREAD, SOFT, VALID, dtype)
    mixed = rounded(own * mine + (1.0 - own) * other, dtype)
    tl.store(out + n * out_n + columns.to(tl.int64) * out_c, mixed.to(dtype), mask=inside)


def mixed(
    labels: Tensor, classes: int, partners: Tensor, shares: Tensor, valid: Tensor | None, smoothing: float
) -> Tensor:
    """Soft rows after a mix: [N, classes] float32 of class numbers, or of the dtype of the rows that came.

    labels: [N] integers or [N, classes] of FLOATS; partners: [N] int64; shares: [N] float64, of each sample in its own
    row; valid: [N] bool; smoothing: of each row before the mix.  The row of a number that is no class is zeros"""
    soft, n = labels.ndim == 2, len(labels)
    _check(n, labels.device, partners=(partners, torch.int64), shares=(shares, torch.float64))
    if valid is not None:
        valid = checked_valid(valid, n, labels.device)
    out = torch.empty_like(labels) if soft else torch.empty(n, classes, dtype=torch.float32, device=labels.device)
    if out.numel():
        constants = (smoothing, classes if smoothing else 0, soft, valid is not None, block(classes))
        strides = (*labels.stride(), 0)[:2] + out.stride()
        _bound(*constants)(
            labels.device,
            (n, -(-classes // block(classes)), 1),
            *(labels, partners, shares, shares if valid is None else valid, out, *strides, classes),
        )
    return out


def checked_valid(valid: Tensor, n: int, device: torch.device) -> Tensor:
    """Which of n samples are valid, [N] bool, as a kernel reads it."""
    _check(n, device, valid=(valid, torch.bool))
    return valid.view(torch.uint8)


def block(classes: int) -> int:
    """How many classes one program writes."""
    # what Triton has for powers of two takes ten times as long
    return min(max(1 << (classes - 1).bit_length(), _LEAST), _MOST)


@lru_cache(256)
def _bound(smoothing: float, classes: int, soft: bool, valid: bool, size: int) -> Bound:
    return Bound(mix_labels, constants(smoothing, classes, soft, valid, size), options(size))


def constants(smoothing: float, classes: int, soft: bool, valid: bool, size: int) -> dict[str, object]:
    """The compile-time constants of `mix_labels`."""
    spread = smoothing / classes if smoothing else 0.0
    return {"KEEP": 1 - smoothing, "SPREAD": spread, "SOFT": int(soft), "VALID": int(valid), "BLOCK": size}


def options(size: int) -> dict[str, object]:
    """How it is compiled: a product and a sum stay two operations, as torch rounds them."""
    return {"num_warps": max(1, size // 256), "enable_fp_fusion": False}


def _check(n: int, device: torch.device, **known: tuple[Tensor, torch.dtype]) -> None:
    for name, (t, dtype) in known.items():
        if t.shape != (n,) or t.dtype != dtype or not t.is_contiguous() or t.device != device:
            raise ValueError(
                f"{name} must be contiguous [{n}] {dtype} on {device}, got {tuple(t.shape)} {t.dtype} of strides "
                f"{t.stride()} on {t.device}"
            )


def ahead(classes: int, smoothing: float = 0.0, dtype: torch.dtype | None = None, valid: bool = False) -> ASTSource:
    """The kernel that a launch would compile, for triton.compile and any target: contiguous labels.

    dtype: of soft rows; None: class numbers, int64"""
    soft = dtype is not None
    pointers = {
        "labels": FLOATS[dtype] if dtype is not None else "*i64",
        "partners": "*i64",
        "shares": "*fp64",
        "valid": "*u8" if valid else "*fp64",
        "out": FLOATS[dtype or torch.float32],
    }
    numbers = {"stride_n": classes if soft else 1, "stride_c": int(soft), "out_n": classes, "out_c": 1}
    numbers["classes"] = classes
    constant = constants(smoothing, classes, soft, valid, block(classes))
    # as a launch specialises arguments: a 1 is a constant, and a multiple of 16 allows wider loads
    constant |= {k: 1 for k, v in numbers.items() if v == 1}
    signature = {k: "constexpr" if k in constant else pointers.get(k, "i32") for k in mix_labels.arg_names}
    aligned = [*pointers, *(k for k, v in numbers.items() if v % 16 == 0)]
    return ASTSource(
        fn=mix_labels,
        signature=signature,
        constexprs=constant,
        attrs={(mix_labels.arg_names.index(k),): [["tt.divisibility", 16]] for k in aligned},
    )
