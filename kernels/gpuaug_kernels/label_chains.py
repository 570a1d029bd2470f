"""Soft labels after several mixes of each sample, with crops, resizing and flips between them, in one launch: out[n] is
the sum of share * row(who) over the samples of whose pixels the image is made.

A path says at each mix whether a pixel is of the sample or of its partner: k mixes have 2^k paths, a lane each.  Of
what a path shows, a mix leaves the whole and takes away what lies inside its box: it has 2^k parts, which are added up
one after the other.  A lane reads 8 bytes of each mix (the partner) and 8 to 120 of each pass, of each part anew from
the first cache; a program then reads a number or a row a path, and writes its classes.

Every operation is the one that torch does, in float64 and in that order, so that a host gives the same bits."""

from collections.abc import Sequence
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.compiler import ASTSource

from gpuaug_kernels import codes
from gpuaug_kernels.bind import Bound
from gpuaug_kernels.constants import CHAIN_BEHIND, CHAIN_COLUMN, CHAIN_FIELDS, CHAIN_HALVES, CUTMIX, MIXUP, MOVED
from gpuaug_kernels.labels import block, checked_valid, constants, options, rounded, soft_row

# more have too many paths
MOST_MIXES = 6


@triton.jit
def area(box):
    """Of rectangles x0, y0, x1, y1; of what is upside down 0."""
    return tl.maximum(box[2] - box[0], 0.0) * tl.maximum(box[3] - box[1], 0.0)


@triton.jit
def common(a, b):
    """What lies in two rectangles."""
    x0, y0 = tl.maximum(a[0], b[0]), tl.maximum(a[1], b[1])
    x1, y1 = tl.maximum(x0, tl.minimum(a[2], b[2])), tl.maximum(y0, tl.minimum(a[3], b[3]))
    return x0, y0, x1, y1


@triton.jit
def load_box(at):
    """Four numbers as a rectangle."""
    return tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3)


@triton.jit
def before_resample(at, weight, box, HALVES: tl.constexpr):
    """Weight and rectangle of a part before a resample, and how many pixels of it are of no other sample.

    at: pointers to its linear map (0 to 3), its shift (4, 5), the pixels that one of it was made of (6), what of the
    output is not filled (7 to 10), and the source (11 to 14), float64"""
    shown = common(box, load_box(at + 7))
    half: tl.constexpr = 0.5 * HALVES
    xx, xy, yx, yy = load_box(at)
    sx, sy, pixels = tl.load(at + 4), tl.load(at + 5), tl.load(at + 6)
    left, top, right, bottom = shown[0] - 0.5, shown[1] - 0.5, shown[2] - 0.5, shown[3] - 0.5
    near_x, near_y = xx * left + xy * top + sx + half, yx * left + yy * top + sy + half
    far_x, far_y = xx * right + xy * bottom + sx + half, yx * right + yy * bottom + sy + half
    near = tl.minimum(near_x, far_x), tl.minimum(near_y, far_y)
    far = tl.maximum(near_x, far_x), tl.maximum(near_y, far_y)
    inner = common((near[0], near[1], far[0], far[1]), load_box(at + 11))
    rest = weight * (area(box) - area(inner) / pixels)
    return weight / pixels, inner, rest


@triton.jit
def before_mix(KIND: tl.constexpr, at, weight, box, other, inner):
    """The same before a mix.  at: pointers to its share, or its box and its share; other: whether a path is the
    partner's; inner: whether the part is what lies in the box, which is taken away"""
    if KIND == MIXUP:
        share = tl.load(at)
        weight = tl.where(other, weight * (1.0 - share), weight * share)
        weight = tl.where(inner, 0.0, weight)
    else:
        given = weight if KIND == CUTMIX else weight * (1.0 - tl.load(at + 4))
        inside = common(box, load_box(at))
        taken = other | inner
        box = (
            tl.where(taken, inside[0], box[0]),
            tl.where(taken, inside[1], box[1]),
            tl.where(taken, inside[2], box[2]),
            tl.where(taken, inside[3], box[3]),
        )
        weight = tl.where(taken, tl.where(other, given, -given), weight)
        weight = tl.where(other & inner, 0.0, weight)
    return weight, box


@triton.jit
def partners_path(MIXES: tl.constexpr, BEHIND: tl.constexpr, path):
    """Whether a path is the partner's at the mix behind which so many others stand."""
    return ((path >> (MIXES - 1 - BEHIND)) & 1) == 1


@triton.jit
def before_pass(
    CHAIN: tl.constexpr,
    R: tl.constexpr,
    MIXES: tl.constexpr,
    numbers,
    partners,
    path,
    part,
    who,
    weight,
    box,
    rest,
    COLUMNS: tl.constexpr,
):
    """Whose pixels, weight, rectangle and rest before the pass whose record begins at R, from those after it."""
    KIND: tl.constexpr = CHAIN[R]
    BEHIND: tl.constexpr = CHAIN[R + CHAIN_BEHIND]
    at = numbers + who * COLUMNS + CHAIN[R + CHAIN_COLUMN]
    if KIND == MOVED:
        weight, box, rest = before_resample(at, weight, box, CHAIN[R + CHAIN_HALVES])
    else:
        other = partners_path(MIXES, BEHIND, path)
        weight, box = before_mix(KIND, at, weight, box, other, ((part >> BEHIND) & 1) == 1)
        who = tl.where(other, tl.load(partners + who * MIXES + BEHIND), who)
    return who, weight, box, rest


@triton.jit
def follow_part(
    CHAIN: tl.constexpr,
    LAST: tl.constexpr,
    MIXES: tl.constexpr,
    numbers,
    partners,
    n,
    path,
    part,
    COLUMNS: tl.constexpr,
):
    """One part of each path, from the final image to before pass LAST - 1 of the chain: whose pixels, weight,
    rectangle, and the pixels of no other sample that this very pass leaves."""
    who = n + path.to(tl.int64) * 0
    weight = tl.full(path.shape, 1.0, tl.float64)
    rest = tl.zeros_like(weight)
    # the last columns are width and height of the final image
    right, bottom = tl.load(numbers + n * COLUMNS + COLUMNS - 2), tl.load(numbers + n * COLUMNS + COLUMNS - 1)
    box = rest, rest, rest + right, rest + bottom
    for k in tl.static_range(LAST):
        who, weight, box, rest = before_pass(
            CHAIN, CHAIN_FIELDS * k, MIXES, numbers, partners, path, part, who, weight, box, rest, COLUMNS
        )
    return who, weight, box, rest


@triton.jit
def add_rest(
    CHAIN: tl.constexpr,
    K: tl.constexpr,
    MIXES: tl.constexpr,
    numbers,
    partners,
    n,
    path,
    amount,
    COLUMNS: tl.constexpr,
):
    """The pixels of no other sample that each path has before pass K of the chain, from those after it."""
    BEHIND: tl.constexpr = CHAIN[CHAIN_FIELDS * K + CHAIN_BEHIND]
    if CHAIN[CHAIN_FIELDS * K] == MOVED:
        added = tl.zeros_like(amount)
        for part in range(1 << BEHIND):
            _, _, _, rest = follow_part(CHAIN, K + 1, MIXES, numbers, partners, n, path, part, COLUMNS)
            added += rest
        amount += added
    else:
        # what is known already is of the sample alone
        amount = tl.where(partners_path(MIXES, BEHIND, path), 0.0, amount)
    return amount


@triton.jit
def mix_chained_labels(
    labels,  # [N] integers, or [N, classes] of a dtype of FLOATS where SOFT
    partners,  # [N, MIXES] int64, rows of the batch, of the last mix first
    numbers,  # [N, COLUMNS] float64, as CHAIN says
    valid,  # [N] uint8; where not VALID nothing reads it, any dtype
    out,  # [N, classes] of a dtype of FLOATS
    stride_n,  # of labels; those of out are apart
    stride_c,
    out_n,
    out_c,
    classes,
    CHAIN: tl.constexpr,  # records, from the last pass to the first
    LENGTH: tl.constexpr,  # records
    MIXES: tl.constexpr,
    COLUMNS: tl.constexpr,
    KEEP: tl.constexpr,
    SPREAD: tl.constexpr,
    SOFT: tl.constexpr,
    VALID: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write BLOCK classes of the soft row of a sample.

    Bytes a sample: a row of numbers and of partners a path, a class number or soft row a path (1 more where VALID), and
    its row written."""
    n = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < classes
    dtype: tl.constexpr = out.dtype.element_ty
    path = tl.arange(0, 1 << MIXES)
    amount = tl.zeros(path.shape, tl.float64)
    for k in tl.static_range(LENGTH):
        amount = add_rest(CHAIN, k, MIXES, numbers, partners, n, path, amount, COLUMNS)
    whole = tl.load(numbers + n * COLUMNS + COLUMNS - 2) * tl.load(numbers + n * COLUMNS + COLUMNS - 1)
    added = tl.zeros_like(amount)
    who = path.to(tl.int64)
    for part in range(1 << MIXES):
        who, weight, box, _ = follow_part(CHAIN, LENGTH, MIXES, numbers, partners, n, path, part, COLUMNS)
        added += weight * area(box)
    share = (amount + added) / whole
    mixed = tl.zeros((BLOCK,), tl.float64)
    for one in range(1 << MIXES):
        row = tl.sum(tl.where(path == one, who, 0), 0)
        x = soft_row(labels, valid, row, columns, inside, stride_n, stride_c, KEEP, SPREAD, SOFT, VALID, dtype)
        mixed += tl.sum(tl.where(path == one, share, 0.0), 0) * x
    tl.store(out + n * out_n + columns.to(tl.int64) * out_c, rounded(mixed, dtype).to(dtype), mask=inside)


def mixed(
    labels: Tensor,
    classes: int,
    chain: Sequence[int],
    partners: Tensor,
    numbers: Tensor,
    valid: Tensor | None,
    smoothing: float,
) -> Tensor:
    """Soft rows after a chain of mixes, as `labels.mixed` of one.

    chain: its records; partners: [N, mixes] int64; numbers: [N, columns] float64, the last two of which are width and
    height of the final images"""
    soft, n = labels.ndim == 2, len(labels)
    given = {"partners": (partners, torch.int64), "numbers": (numbers, torch.float64)}
    for name, (t, dtype) in given.items():
        if t.ndim != 2 or len(t) != n or t.dtype != dtype or not t.is_contiguous() or t.device != labels.device:
            raise ValueError(
                f"{name} must be contiguous [{n}, columns] {dtype} on {labels.device}, got {tuple(t.shape)} {t.dtype} "
                f"of strides {t.stride()} on {t.device}"
            )
    flags = numbers if valid is None else checked_valid(valid, n, labels.device)
    out = torch.empty_like(labels) if soft else torch.empty(n, classes, dtype=torch.float32, device=labels.device)
    if out.numel():
        fixed = (smoothing, classes if smoothing else 0, soft, valid is not None, block(classes))
        strides = (*labels.stride(), 0)[:2] + out.stride()
        _bound(tuple(chain), numbers.shape[1], *fixed)(
            labels.device,
            (n, -(-classes // block(classes)), 1),
            *(labels, partners, numbers, flags, out, *strides, classes),
        )
    return out


def chain_constants(chain: tuple[int, ...], columns: int) -> dict[str, object]:
    """The compile-time constants of a chain."""
    length = len(chain) // codes.CHAIN_FIELDS
    mixes = sum(code != codes.MOVED for code in chain[:: codes.CHAIN_FIELDS])
    return {"CHAIN": chain, "LENGTH": length, "MIXES": mixes, "COLUMNS": columns}


@lru_cache(256)
def _bound(
    chain: tuple[int, ...], columns: int, smoothing: float, classes: int, soft: bool, valid: bool, size: int
) -> Bound:
    every = chain_constants(chain, columns) | constants(smoothing, classes, soft, valid, size)
    return Bound(mix_chained_labels, every, options(size))


def ahead(chain: tuple[int, ...], columns: int, classes: int) -> ASTSource:
    """The kernel that a launch would compile of class numbers, int64, for triton.compile and any target."""
    constant = chain_constants(chain, columns) | constants(0.0, 0, False, False, block(classes))
    pointers = {"labels": "*i64", "partners": "*i64", "numbers": "*fp64", "valid": "*fp64", "out": "*fp32"}
    constant |= {"stride_n": 1, "out_c": 1}
    signature = {k: "constexpr" if k in constant else pointers.get(k, "i32") for k in mix_chained_labels.arg_names}
    return ASTSource(
        fn=mix_chained_labels,
        signature=signature,
        constexprs=constant,
        attrs={(mix_chained_labels.arg_names.index(k),): [["tt.divisibility", 16]] for k in pointers},
    )
