"""Boxes and keypoints after the passes that move pixels, in float64: one launch each, a lane a box or a point.

Where they go was drawn with the batch, as two tables.  `maps` is [N, steps * 9] float64: for every step the matrix, row
by row, that takes a pixel centre of its input to one of its output.  `sizes` is [N, 2 + steps * 3] int64: height and
width of the images that go in, and for every step those of its output and whether the sample takes it."""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.compiler import ASTSource

from gpuaug_kernels.bind import Bound
from gpuaug_kernels.labels import FLOATS, rounded

# dtypes of boxes and points
NUMBERS = (
    *FLOATS,
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64),
)
# boxes or points of a program
BLOCK = 64
FORMATS = ("XYXY", "XYWH", "CXCYWH")
XYWH, CXCYWH = tl.constexpr(1), tl.constexpr(2)
OPTIONS = {"num_warps": 2, "enable_fp_fusion": False}
# numbers of a step in `maps` and `sizes`, and those before the first step in `sizes`
MATRIX, STEP, FIRST = tl.constexpr(9), tl.constexpr(3), tl.constexpr(2)


@triton.jit
def least(a, b):
    """The smaller of two floats; NaN stays NaN."""
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def most(a, b):
    """The larger of two floats; NaN stays NaN."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def step_matrix(maps, row, S: tl.constexpr, STEPS: tl.constexpr, mask):
    """The nine numbers of a step of each lane's sample: [BLOCK] float64 each."""
    at = maps + (row * STEPS + S) * MATRIX
    m = ()
    for k in tl.static_range(9):
        m = m + (tl.load(at + k, mask=mask, other=0.0),)
    return m


@triton.jit
def mapped(m, x, y):
    """A point after a map, and whether it has a place: one at or behind the horizon has none."""
    horizon = tl.full([], 1e-12, tl.float64)
    u = m[0] * x + m[1] * y + m[2]
    v = m[3] * x + m[4] * y + m[5]
    w = m[6] * x + m[7] * y + m[8]
    ahead = w > horizon
    w = tl.where(ahead | (w != w), w, horizon)
    return u / w, v / w, ahead


@triton.jit
def mapped_corners(m, c):
    """Four corners after a map.  c: x and y of each, from the edge of the first pixel, where maps count from its
    centre"""
    out = ()
    for k in tl.static_range(4):
        x, y, _ = mapped(m, c[2 * k] - 0.5, c[2 * k + 1] - 0.5)
        out = out + (x + 0.5, y + 0.5)
    return out


@triton.jit
def corners(x0, y0, x1, y1):
    """Of an upright rectangle, clockwise from the left upper one."""
    return x0, y0, x1, y0, x1, y1, x0, y1


@triton.jit
def hull(c):
    """The upright rectangle around four corners."""
    x0, y0 = least(least(c[0], c[2]), least(c[4], c[6])), least(least(c[1], c[3]), least(c[5], c[7]))
    x1, y1 = most(most(c[0], c[2]), most(c[4], c[6])), most(most(c[1], c[3]), most(c[5], c[7]))
    return x0, y0, x1, y1


@triton.jit
def within(c, limit, upright):
    """Corners of upright boxes without what lies beyond the limit."""
    out = ()
    for k in tl.static_range(8):
        inside = least(most(c[k], limit[k % 2]), limit[2 + k % 2])
        out = out + (tl.where(upright, inside, c[k]),)
    return out


@triton.jit
def chosen(active, new, old, COUNT: tl.constexpr):
    """Of two tuples of numbers the new ones where a sample takes the step."""
    out = ()
    for k in tl.static_range(COUNT):
        out = out + (tl.where(active, new[k], old[k]),)
    return out


@triton.jit(
    do_not_specialize=["total", "each"],
    do_not_specialize_on_alignment=["boxes", "valid", "maps", "sizes", "out", "kept"],
)
def follow_boxes(
    boxes,  # [N, K, 4] of a dtype of NUMBERS
    valid,  # [N, K] uint8; where not VALID nothing reads it, any dtype
    maps,  # [N, STEPS * 9] float64; any pointer where there are no steps
    sizes,  # [N, 2 + STEPS * 3] int64
    out,  # [N, K, 4] of a dtype of FLOATS
    kept,  # [N, K] uint8, whether there is still a box
    total,  # N * K
    each,  # K
    STEPS: tl.constexpr,
    FORMAT: tl.constexpr,  # a place in FORMATS
    VALID: tl.constexpr,
    MIN_AREA: tl.constexpr,
    MIN_SHARE: tl.constexpr,  # of a box that must be seen
    BLOCK: tl.constexpr,
):
    """Write the upright rectangle around what of each box is in the image.

    Bytes a box: its numbers and its mark, read and written; and 8 (2 + 12 a step) of its sample, mostly from the first
    cache."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < total
    row = at // each
    a = tl.load(boxes + 4 * at, mask=mask, other=0).to(tl.float64)
    b = tl.load(boxes + 4 * at + 1, mask=mask, other=0).to(tl.float64)
    c = tl.load(boxes + 4 * at + 2, mask=mask, other=0).to(tl.float64)
    d = tl.load(boxes + 4 * at + 3, mask=mask, other=0).to(tl.float64)
    if FORMAT == XYWH:
        a, b, c, d = a, b, a + c, b + d
    elif FORMAT == CXCYWH:
        a, b, c, d = a - c * 0.5, b - d * 0.5, a + c * 0.5, b + d * 0.5
    # false for NaN as well
    there = mask & (c >= a) & (d >= b)
    if VALID:
        there = there & (tl.load(valid + at, mask=mask, other=0) != 0)
    whole = corners(tl.where(there, a, 0.0), tl.where(there, b, 0.0), tl.where(there, c, 0.0), tl.where(there, d, 0.0))
    of = sizes + row * (FIRST + STEPS * STEP)
    height, width = tl.load(of, mask=mask, other=1).to(tl.float64), tl.load(of + 1, mask=mask, other=1).to(tl.float64)
    limit = (0.0 * height, 0.0 * height, width, height)
    upright = at >= 0
    seen = within(whole, limit, upright)
    for s in tl.static_range(STEPS):
        active = tl.load(of + FIRST + STEP * s + 2, mask=mask, other=0) != 0
        m = step_matrix(maps, row, s, STEPS, mask)
        height = tl.load(of + FIRST + STEP * s, mask=mask, other=1).to(tl.float64)
        width = tl.load(of + FIRST + STEP * s + 1, mask=mask, other=1).to(tl.float64)
        x0, y0, x1, y1 = hull(mapped_corners(m, corners(limit[0], limit[1], limit[2], limit[3])))
        x0, y0, x1, y1 = most(x0, 0.0 * height), most(y0, 0.0 * height), most(x1, 0.0 * height), most(y1, 0.0 * height)
        shown = (least(x0, width), least(y0, height), least(x1, width), least(y1, height))
        along, across = (m[1] == 0.0) & (m[3] == 0.0), (m[0] == 0.0) & (m[4] == 0.0)
        stands = upright & (along | across) & (m[6] == 0.0) & (m[7] == 0.0)
        moved = within(mapped_corners(m, seen), shown, stands)
        seen = chosen(active, moved, seen, 8)
        whole = chosen(active, mapped_corners(m, whole), whole, 8)
        limit = chosen(active, shown, limit, 4)
        upright = tl.where(active, stands, upright)
    x0, y0, x1, y1 = hull(seen)
    x0, y0 = least(most(x0, limit[0]), limit[2]), least(most(y0, limit[1]), limit[3])
    x1, y1 = least(most(x1, limit[0]), limit[2]), least(most(y1, limit[1]), limit[3])
    area = (x1 - x0) * (y1 - y0)
    ax, ay, bx, by = hull(whole)
    every = (bx - ax) * (by - ay)
    share = tl.where(every > 0.0, area / tl.where(every > 0.0, every, 1.0), 0.0)
    large = (area > 0.0) & (area >= tl.full([], MIN_AREA, tl.float64)) & (share >= tl.full([], MIN_SHARE, tl.float64))
    tl.store(kept + at, (there & large).to(tl.uint8), mask=mask)
    x0, y0 = tl.where(there, x0, 0.0), tl.where(there, y0, 0.0)
    x1, y1 = tl.where(there, x1, 0.0), tl.where(there, y1, 0.0)
    if FORMAT == XYWH:
        x0, y0, x1, y1 = x0, y0, x1 - x0, y1 - y0
    elif FORMAT == CXCYWH:
        x0, y0, x1, y1 = (x0 + x1) * 0.5, (y0 + y1) * 0.5, x1 - x0, y1 - y0
    # four numbers of a box side by side, so that whole sectors are written
    rows = tl.reshape(tl.join(tl.join(x0, x1), tl.join(y0, y1)), (4 * BLOCK,))
    place = tl.program_id(0).to(tl.int64) * (4 * BLOCK) + tl.arange(0, 4 * BLOCK)
    dtype: tl.constexpr = out.dtype.element_ty
    tl.store(out + place, rounded(rows, dtype).to(dtype), mask=place < 4 * total)


@triton.jit(
    do_not_specialize=["total", "each"],
    do_not_specialize_on_alignment=["points", "visible", "maps", "sizes", "out", "shown"],
)
def follow_points(
    points,  # [N, K, 2] of a dtype of NUMBERS
    visible,  # [N, K] of any dtype of integers; where not VISIBLE nothing reads it, any dtype
    maps,  # [N, STEPS * 9] float64; any pointer where there are no steps
    sizes,  # [N, 2 + STEPS * 3] int64
    out,  # [N, K, 2] of a dtype of FLOATS
    shown,  # [N, K] of the dtype of `visible`, or uint8; 0 where a point left an image on its way
    total,  # N * K
    each,  # K
    STEPS: tl.constexpr,
    VISIBLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write where each point is, and whether it is in the image.

    Bytes a point: its numbers and its mark, read and written; and of its sample as of a box."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < total
    row = at // each
    x = tl.load(points + 2 * at, mask=mask, other=0).to(tl.float64)
    y = tl.load(points + 2 * at + 1, mask=mask, other=0).to(tl.float64)
    of = sizes + row * (FIRST + STEPS * STEP)
    one, nothing = tl.full([], 1.0, tl.float64), tl.full([], 0.0, tl.float64)
    # an identity first, so that a point outside the image is not visible even where no pixel moves
    x, y, seen = moved_point((one, nothing, nothing, nothing, one, nothing, nothing, nothing, one), x, y, of, mask)
    for s in tl.static_range(STEPS):
        active = tl.load(of + FIRST + STEP * s + 2, mask=mask, other=0) != 0
        m = step_matrix(maps, row, s, STEPS, mask)
        nx, ny, inside = moved_point(m, x, y, of + FIRST + STEP * s, mask)
        x, y, seen = tl.where(active, nx, x), tl.where(active, ny, y), seen & (inside | (active == 0))
    kind: tl.constexpr = shown.dtype.element_ty
    mark = tl.full((BLOCK,), 1, kind)
    if VISIBLE:
        mark = tl.load(visible + at, mask=mask, other=0)
    tl.store(shown + at, tl.where(seen, mark, tl.zeros_like(mark)), mask=mask)
    rows = tl.reshape(tl.join(x, y), (2 * BLOCK,))
    place = tl.program_id(0).to(tl.int64) * (2 * BLOCK) + tl.arange(0, 2 * BLOCK)
    dtype: tl.constexpr = out.dtype.element_ty
    tl.store(out + place, rounded(rows, dtype).to(dtype), mask=place < 2 * total)


@triton.jit
def moved_point(m, x, y, size, mask):
    """A point after a map, and whether it is in the image.  size: pointers to the height of that, which its width
    follows"""
    height, width = tl.load(size, mask=mask, other=1), tl.load(size + 1, mask=mask, other=1)
    u, v, ahead = mapped(m, x, y)
    # false for NaN as well
    inside = (u >= -0.5) & (u < width.to(tl.float64) - 0.5) & (v >= -0.5) & (v < height.to(tl.float64) - 0.5)
    return u, v, ahead & inside


def moved_boxes(
    boxes: Tensor,
    valid: Tensor | None,
    tables: tuple[Tensor | None, Tensor],
    kind: str,
    min_area: float,
    min_share: float,
) -> tuple[Tensor, Tensor]:
    """Boxes [N, K, 4] in their format and dtype, float32 where that is of integers, and which of them there are, [N, K]
    bool.

    valid: [N, K] bool; None for all.  tables: `maps`, None without a step, and `sizes`.  kind: of FORMATS"""
    n, each = boxes.shape[:2]
    maps, sizes, steps = _checked(n, boxes.device, *tables)
    boxes = boxes.contiguous()
    out = torch.empty(boxes.shape, dtype=_floating(boxes.dtype), device=boxes.device)
    kept = torch.empty((n, each), dtype=torch.bool, device=boxes.device)
    if n * each:
        marks = sizes if valid is None else valid.contiguous().view(torch.uint8)
        bound = _boxes(steps, FORMATS.index(kind), valid is not None, min_area, min_share)
        given = (boxes, marks, maps, sizes, out, kept.view(torch.uint8), n * each, each)
        bound(boxes.device, (-(-n * each // BLOCK), 1, 1), *given)
    return out, kept


def moved_points(points: Tensor, visible: Tensor | None, tables: tuple[Tensor | None, Tensor]) -> tuple[Tensor, Tensor]:
    """Points [N, ..., 2] in their dtype, float32 where that is of integers, and which are visible, [N, ...] in the
    dtype that came, or bool.

    visible: [N, ...] bool or integers; None for all.  tables: as of `moved_boxes`"""
    n, shape = len(points), points.shape[:-1]
    maps, sizes, steps = _checked(n, points.device, *tables)
    points = points.contiguous()
    out = torch.empty(points.shape, dtype=_floating(points.dtype), device=points.device)
    shown = torch.empty(shape, dtype=torch.bool if visible is None else visible.dtype, device=points.device)
    if shown.numel():
        marks = sizes if visible is None else _whole(visible.contiguous())
        given = (points, marks, maps, sizes, out, _whole(shown), shown.numel(), shown.numel() // n)
        bound = _points(steps, visible is not None)
        bound(points.device, (-(-shown.numel() // BLOCK), 1, 1), *given)
    return out, shown


def _whole(marks: Tensor) -> Tensor:
    return marks.view(torch.uint8) if marks.dtype == torch.bool else marks


def _floating(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype in FLOATS else torch.float32


def _checked(n: int, device: torch.device, maps: Tensor | None, sizes: Tensor) -> tuple[Tensor, Tensor, int]:
    """The tables, and how many steps there are."""
    steps = 0 if maps is None else maps.shape[1] // MATRIX.value
    for t, columns, dtype in ((sizes, FIRST.value + STEP.value * steps, torch.int64), (maps, 9 * steps, torch.float64)):
        if t is None:
            continue
        if t.shape != (n, columns) or t.dtype != dtype or t.device != device or not t.is_contiguous():
            raise ValueError(
                f"maps and sizes of {n} samples must be contiguous [{n}, 9 a step] float64 and [{n}, 2 and 3 a step] "
                f"int64 on {device}, got {t.dtype} {tuple(t.shape)} of strides {t.stride()} on {t.device}"
            )
    return sizes if maps is None else maps, sizes, steps


@lru_cache(256)
def _boxes(steps: int, kind: int, valid: bool, min_area: float, min_share: float) -> Bound:
    return Bound(follow_boxes, box_constants(steps, kind, valid, min_area, min_share), OPTIONS)


@lru_cache(256)
def _points(steps: int, visible: bool) -> Bound:
    return Bound(follow_points, point_constants(steps, visible), OPTIONS)


def box_constants(steps: int, kind: int, valid: bool, min_area: float, min_share: float) -> dict[str, object]:
    """The compile-time constants of `follow_boxes`."""
    known = {"STEPS": steps, "FORMAT": kind, "VALID": int(valid)}
    return {**known, "MIN_AREA": min_area, "MIN_SHARE": min_share, "BLOCK": BLOCK}


def point_constants(steps: int, visible: bool) -> dict[str, object]:
    """The compile-time constants of `follow_points`."""
    return {"STEPS": steps, "VISIBLE": int(visible), "BLOCK": BLOCK}


def ahead(boxes: bool, steps: int) -> ASTSource:
    """The kernel of boxes or points that a launch would compile, for triton.compile and any target: float32, with
    marks."""
    kernel = follow_boxes if boxes else follow_points
    constant = box_constants(steps, 0, True, 1.0, 0.1) if boxes else point_constants(steps, True)
    types = {"maps": "*fp64", "sizes": "*i64", "total": "i32", "each": "i32"}
    types |= dict.fromkeys(("boxes", "points", "out"), "*fp32") | dict.fromkeys(
        ("valid", "visible", "kept", "shown"), "*u8"
    )
    signature = {k: types.get(k, "constexpr") for k in kernel.arg_names}
    return ASTSource(fn=kernel, signature=signature, constexprs=constant, attrs={})
