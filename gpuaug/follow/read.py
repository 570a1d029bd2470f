"""The door of targets: masks, boxes and keypoints of a Batch become tensors, and what cannot be taken is refused in
words.

Values are looked at on a host alone, where that costs no wait; on a GPU a box that is upside down is no valid one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpuaug import arguments
from gpuaug.arrays import from_array, is_tv, put, resolved, short
from gpuaug.images import Images, Ragged

FORMATS = ("XYXY", "XYWH", "CXCYWH")
MODES = ("nearest", "bilinear")


class Boxed(NamedTuple):
    """Boxes of a batch."""

    given: Tensor  # [N, K, 4] numbers
    valid: Tensor | None  # [N, K] bool; None for all of them
    format: str  # that they came in

    @property
    def dtype(self) -> torch.dtype:
        """Of what comes out."""
        return self.given.dtype if self.given.is_floating_point() else torch.float32

    def upright(self) -> tuple[Tensor, Tensor]:
        """Corners, [N, K, 4] float64, and which of them are a box, [N, K] bool; zeros where there is none."""
        xyxy = to_xyxy(self.given.double(), self.format)
        kept = (xyxy[..., 2:] >= xyxy[..., :2]).all(2)
        kept = kept if self.valid is None else self.valid & kept
        # whatever stands in a place without a box
        return torch.where(kept[..., None], xyxy, 0.0), kept


class Pointed(NamedTuple):
    """Keypoints of a batch."""

    given: Tensor  # [N, ..., 2] numbers
    visible: Tensor | None  # [N, ...] bool or integers; None for all of them

    @property
    def dtype(self) -> torch.dtype:
        """Of what comes out."""
        return self.given.dtype if self.given.is_floating_point() else torch.float32

    def flat(self) -> tuple[Tensor, Tensor]:
        """Points, [N, K, 2] float64, and which are visible, [N, K]."""
        xy, visible = self.given.double().flatten(1, -2), self.visible
        return xy, torch.ones_like(xy[..., 0], dtype=torch.bool) if visible is None else visible.flatten(1)


class Masked(NamedTuple):
    """Masks of a batch."""

    masks: Tensor | Ragged  # [N, M, H, W], or a Ragged [H, W, M]
    flat: bool  # whether they came without M
    bilinear: bool
    fill: float


# ---- boxes


def boxes(batch: Any, n: int, device: torch.device) -> Boxed:
    """The boxes of a Batch."""
    kind = _format(batch.boxes, batch.box_format)
    given, counted = _rows("boxes", batch.boxes, n, 4, device)
    if given.ndim != 3 or given.shape[2] != 4:
        raise ValueError(f"boxes must be [{n}, K, 4], or a list of [K, 4], got shape {tuple(given.shape)}")
    valid = _marks("box_valid", batch.box_valid, given.shape[:2], counted, device)
    if valid is not None and valid.dtype != torch.bool:
        raise TypeError(f"box_valid must be bool [{n}, K], got {valid.dtype}")
    out = Boxed(given, valid, kind)
    if device.type == "cpu":
        _, kept = out.upright()
        wrong = ~kept if valid is None else valid & ~kept
        if bool(wrong.any()):
            row, column = (int(v) for v in wrong.nonzero()[0])
            raise ValueError(
                f"boxes must not be upside down or NaN, got {given[row, column].tolist()} in {kind}, box {column} of "
                f"image {row}; check box_format, and clear box_valid where there is no box"
            )
    return out


def _format(given: Any, named: Any) -> str:
    """The format of boxes: that of tv_tensors, or the one that is named."""
    items = given if isinstance(given, list | tuple) else [given]
    found = {_name(b.format) for b in items if hasattr(b, "format") and is_tv(b)}
    if named is not None:
        found.add(_name(named))
    if not found:
        raise ValueError('boxes came without a format, and four numbers do not tell; pass box_format="XYXY", "XYWH" or '
                         '"CXCYWH"')  # fmt: skip
    if len(found) > 1 or not found <= set(FORMATS):
        raise ValueError(
            f"box_format must be one of {', '.join(FORMATS)}, the same for all boxes, got {', '.join(sorted(found))}"
        )
    return found.pop()


def _name(kind: Any) -> str:
    """A format's name, of an enum too."""
    return str(getattr(kind, "value", kind)).upper()


def to_xyxy(boxes: Tensor, kind: str) -> Tensor:
    """[..., 4] of any format."""
    a, b = boxes[..., :2], boxes[..., 2:]
    if kind == "XYXY":
        return boxes
    near = a if kind == "XYWH" else a - b / 2
    return torch.cat([near, a + b if kind == "XYWH" else a + b / 2], -1)


def from_xyxy(xyxy: Tensor, kind: str) -> Tensor:
    """[..., 4] in any format."""
    near, far = xyxy[..., :2], xyxy[..., 2:]
    if kind == "XYXY":
        return xyxy
    return torch.cat([near if kind == "XYWH" else (near + far) / 2, far - near], -1)


# ---- keypoints


def keypoints(batch: Any, n: int, device: torch.device) -> Pointed:
    """The keypoints of a Batch."""
    given, counted = _rows("keypoints", batch.keypoints, n, 2, device)
    if given.ndim < 3 or given.shape[-1] != 2:
        raise ValueError(f"keypoints must be [{n}, K, 2], or a list of [K, 2], got shape {tuple(given.shape)}")
    shape = tuple(given.shape[:-1])
    visible = _marks("visible", batch.visible, shape, counted, device)
    if visible is not None and (visible.is_floating_point() or visible.is_complex()):
        raise TypeError(f"visible must be bool or integers {list(shape)}, got {visible.dtype}")
    return Pointed(given, visible)


# ---- masks


def masks(batch: Any, source: Images) -> Masked:
    """The masks of a Batch, as its images lie: in one tensor, or each by itself."""
    n, device = len(source), source.device
    given = batch.masks
    if isinstance(given, np.ndarray | Tensor):
        items: Sequence[Any] = [_tensor("masks", given, device)]
        flat, many = items[0].ndim == 3, items[0]
        if many.ndim not in (3, 4):
            raise ValueError(f"masks must be [{n}, H, W] or [{n}, M, H, W], got shape {tuple(many.shape)}")
        _as_many("masks", len(many), n)
        rows = many[:, None] if flat else many
        # of one size the first stands for all
        items = list(rows if isinstance(source, Ragged) else rows[:1])
    else:
        items = [_tensor("masks", m, device) for m in _listed("masks", given, n)]
        flat = all(m.ndim == 2 for m in items)
        if any(m.ndim not in (2, 3) for m in items):
            raise ValueError("masks of a list must be [H, W] or [M, H, W], got shapes "
                             f"{sorted({tuple(m.shape) for m in items})}")  # fmt: skip
        items = [m[None] if m.ndim == 2 else m for m in items]
    _one_kind(items)
    sizes = [s[:2] for s in source.shapes] if isinstance(source, Ragged) else [tuple(source.shape[2:])] * len(items)
    for i, (mask, size) in enumerate(zip(items, sizes, strict=True)):
        if tuple(mask.shape[1:]) != tuple(size):
            raise ValueError(
                f"masks must have the size of their images, got {tuple(mask.shape[1:])} for image {i} of {tuple(size)}"
            )
    dtype = items[0].dtype if items else many.dtype
    mode = arguments.one_of("mask_interpolation", batch.mask_interpolation, MODES)
    if mode == "bilinear" and not dtype.is_floating_point:
        raise TypeError(
            f'mask_interpolation="bilinear" needs float masks, got {dtype}; a mean of two class numbers is not a class'
        )
    most = max((len(m) for m in items), default=many.shape[1] if not items and not flat else 1)
    items = [m if len(m) == most else torch.cat([m, m.new_zeros(most - len(m), *m.shape[1:])]) for m in items]
    if isinstance(source, Ragged):
        laid: Tensor | Ragged = Ragged.of(tuple(m.permute(1, 2, 0).contiguous() for m in items))
    elif isinstance(given, Tensor) or not items:
        # as they lie, without a copy
        laid = many[:, None] if flat else many
    else:
        laid = torch.stack(list(items))
    return Masked(laid, flat, mode == "bilinear", _fill(batch.mask_fill, dtype))


def _fill(value: Any, dtype: torch.dtype) -> float:
    """A value that a mask can hold."""
    fill = arguments.number("mask_fill", value)
    if dtype.is_floating_point:
        return fill
    limits = None if dtype == torch.bool else torch.iinfo(dtype)
    low, high = (0, 1) if limits is None else (limits.min, limits.max)
    if fill != int(fill) or not low <= fill <= high:
        raise ValueError(f"mask_fill must be a value of the masks' {short(dtype)}, {low} to {high}, got {value}")
    return fill


def _one_kind(items: Sequence[Tensor]) -> None:
    for i, m in enumerate(items):
        if m.dtype.is_complex or m.dtype != items[0].dtype:
            raise TypeError(
                f"masks must be of one dtype, bool, integers or floats, got {short(m.dtype)} in image {i} and "
                f"{short(items[0].dtype)} in image 0"
            )


# ---- what all are made of


def _as_many(name: str, got: int, n: int) -> None:
    if got != n:
        raise ValueError(f"{name} must have one row per image, {n}, got {got}")


def _listed(name: str, given: Any, n: int) -> list[Any]:
    if not isinstance(given, list | tuple):
        raise TypeError(f"{name} must be a tensor, an array, or a list with an item per image, got "
                        f"{type(given).__name__}")  # fmt: skip
    _as_many(name, len(given), n)
    return list(given)


def _tensor(name: str, given: Any, device: torch.device) -> Tensor:
    """A plain tensor on the device of the images."""
    if not isinstance(given, Tensor):
        given = put(from_array(name, np.asarray(given)), device)
    given = resolved(given.as_subclass(Tensor))
    assert isinstance(given, Tensor)
    if given.device != device:
        raise ValueError(
            f"{name} must be on the device of the images, got {given.device} and {device}; "
            f"move them with .to({str(device)!r})"
        )
    if given.requires_grad:
        raise ValueError(f"{name} requires grad, and augmentation is not differentiable here; pass .detach()")
    return given


def _rows(name: str, given: Any, n: int, width: int, device: torch.device) -> tuple[Tensor, list[int] | None]:
    """[n, K, width] of a tensor or of a list of [K_i, width], and the K_i of a list."""
    if isinstance(given, Tensor | np.ndarray):
        out = _tensor(name, given, device)
        if not out.ndim:
            raise ValueError(f"{name} must be [{n}, K, {width}], got one number")
        _as_many(name, len(out), n)
        _numbers(name, out)
        return out, None
    items: list[Tensor] = []
    for i, item in enumerate(_listed(name, given, n)):
        one = _tensor(name, item, device)
        if not one.numel():
            # an empty list has no second axis
            one = one.reshape(0, width).float()
        if one.ndim != 2 or one.shape[1] != width:
            raise ValueError(f"{name} of image {i} must be [K, {width}], got shape {tuple(one.shape)}")
        _numbers(name, one)
        items.append(one)
    counts = [len(i) for i in items]
    most, dtype = max(counts, default=0), torch.float32
    for kind in {one.dtype for one in items}:
        dtype = torch.promote_types(dtype, kind)
    out = torch.zeros((n, most, width), dtype=dtype, device=device)
    return _padded(out, items, counts), counts


def _padded(out: Tensor, items: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    """Items, [K_i, ...] each, written to the first places of the rows of `out`, [n, K, ...]: by as many operations
    whatever n is."""
    if out.numel():
        rows = np.repeat(np.arange(len(counts)) * out.shape[1], counts)
        places = rows + np.concatenate([np.arange(k) for k in counts])
        at = put(torch.from_numpy(places.astype(np.int64)), out.device)
        out.flatten(0, 1).index_copy_(0, at, torch.cat([i.to(out.dtype) for i in items]))
    return out


def _numbers(name: str, values: Tensor) -> None:
    if values.dtype == torch.bool or values.is_complex():
        raise TypeError(f"{name} must be numbers, got {values.dtype}")


def _marks(
    name: str, given: Any, shape: Sequence[int], counted: list[int] | None, device: torch.device
) -> Tensor | None:
    """A mark for each box or point, [N, K]: those that came, and false where a list was padded; None for all."""
    n, there = shape[0], None
    if counted is not None:
        there = put(torch.from_numpy(np.arange(shape[1]) < np.asarray(counted, np.int64)[:, None]), device)
    if given is None:
        return there
    if isinstance(given, Tensor | np.ndarray):
        out = _tensor(name, given, device)
    else:
        items = [_tensor(name, v, device) for v in _listed(name, given, n)]
        for i, item in enumerate(items):
            if counted is not None and tuple(item.shape) != (counted[i],):
                raise ValueError(f"{name} of image {i} must be [{counted[i]}], got shape {tuple(item.shape)}")
        out = torch.zeros(tuple(shape), dtype=items[0].dtype if items else torch.bool, device=device)
        if counted is None:
            # rows of a tensor
            for i, item in enumerate(items):
                if item.ndim < 1 or len(item) > shape[1] or item.shape[1:] != shape[2:]:
                    raise ValueError(f"{name} of image {i} must be {list(shape[1:])}, got shape {tuple(item.shape)}")
        out = _padded(out, items, [len(i) for i in items])
    if tuple(out.shape) != tuple(shape):
        raise ValueError(f"{name} must be {list(shape)}, as what it tells of, got shape {tuple(out.shape)}")
    return out if there is None else torch.where(there, out, torch.zeros_like(out))
