"""Masks as images: the passes that move pixels, with the nearest pixel in place of a mean, run by the same executors.

Values are only moved, so that any dtype keeps its values to the bit: those that no executor holds go through as planes
of 16 bits, on a GPU as their bytes."""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpuaug import fuse, ir, rng
from gpuaug.exec import choose, load
from gpuaug.images import Ragged
from gpuaug.transforms.geometry import NUDGE

# what executors hold to the bit
_HELD = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)
_BYTES = (torch.bool, torch.int8)
_WIDE = (torch.int32, torch.int64)


class Encoded(NamedTuple):
    """Masks as an executor takes them."""

    source: Tensor | Ragged
    painted: tuple[float, ...] | None  # what a border is painted with; None for zeros
    dtype: torch.dtype  # that they came in
    held: torch.dtype  # that the planes of the source stand for
    each: int  # masks of an image
    bilinear: bool

    @property
    def kind(self) -> tuple[Any, ...]:
        """All of it that `prepared` asks for."""
        planes = self.source.channels if isinstance(self.source, Ragged) else self.source.shape[1]
        return self.source.dtype, planes, self.each, self.painted, self.bilinear


def follow(
    passes: ir.Sequence,
    masks: Tensor | Ragged,
    frame: ir.Frame,
    keys: rng.Keys,
    backend: str,
    *,
    bilinear: bool,
    fill: float,
) -> Tensor:
    """Masks after passes that move pixels.  masks: [N, M, H, W], or a Ragged [H, W, M], as the images are.  frame: of
    the images"""
    if not passes:
        return masks if isinstance(masks, Tensor) else masks.dense()
    name = choose(backend, masks.device)
    given = encoded(masks, fill, bilinear, name)
    steps = prepared(passes, frame, keys, name, given.kind) if given.each else ()
    return moved(steps, given, ir.after(passes, frame), name)


def encoded(masks: Tensor | Ragged, fill: float, bilinear: bool, name: str) -> Encoded:
    """Masks as an executor of a name takes them."""
    dtype, count = masks.dtype, masks.channels if isinstance(masks, Ragged) else masks.shape[1]
    in_bytes = name == "triton"
    # no executor computes in float64
    held = torch.float32 if bilinear and dtype == torch.float64 else None if in_bytes else _narrow(masks, fill)
    if held is not None:
        masks = _each(masks, lambda m: m.to(held))
    return Encoded(*_planes(masks, fill, in_bytes), dtype, masks.dtype, count, bilinear)


def prepared(passes: ir.Sequence, frame: ir.Frame, keys: rng.Keys, name: str, kind: tuple[Any, ...]) -> Any:
    """What an executor of a name runs of masks, without the masks.  kind: of an Encoded"""
    dtype, planes, count, painted, bilinear = kind
    made = tuple(as_bilinear(p, painted) if bilinear else as_nearest(p, painted) for p in passes)
    last = torch.contiguous_format if planes == count else torch.channels_last
    whole = replace(frame, channels=planes, dtype=dtype)
    plan = fuse.Plan(fuse.fold((*made, ir.Finish(dtype, last))), keys, whole)
    return load(name).prepare(plan)


def moved(steps: Any, given: Encoded, end: ir.Frame, name: str) -> Tensor:
    """Masks after steps that were prepared.  end: the frame of the images that come out"""
    if not given.each:
        assert end.fixed is not None
        return torch.zeros((len(given.source), 0, *end.fixed), dtype=given.dtype, device=given.source.device)
    return decoded(load(name).execute(steps, given.source), given)


def decoded(out: Tensor, given: Encoded) -> Tensor:
    """Masks in the dtype that they came in, from what an executor made."""
    if given.held in _BYTES:
        out = out.view(given.held)
    elif out.shape[1] == given.each:
        out = out.to(given.held)
    else:
        values = out.permute(0, 2, 3, 1)
        if out.dtype != torch.uint8:
            values = values.to(torch.int16)
        out = values.contiguous().view(given.held).permute(0, 3, 1, 2).contiguous()
    return out.to(given.dtype)


def _narrow(masks: Tensor | Ragged, fill: float) -> torch.dtype | None:
    """A dtype that executors hold and that holds every value of wide integers, as class numbers mostly are; None on a
    GPU, where nobody looks, or where there is none."""
    if masks.dtype not in _WIDE or masks.device.type != "cpu" or not len(masks):
        return None
    ends = [m.aminmax() for m in (masks.images if isinstance(masks, Ragged) else (masks,)) if m.numel()]
    low, high = min(fill, *(int(e.min) for e in ends)), max(fill, *(int(e.max) for e in ends))
    if 0 <= low and high <= 255:
        return torch.uint8
    # float32 counts by ones up to here
    return torch.float32 if -(2**24) <= low and high <= 2**24 else None


def _planes(masks: Tensor | Ragged, fill: float, in_bytes: bool) -> tuple[Tensor | Ragged, tuple[float, ...] | None]:
    """Masks by planes that an executor holds, and what a border is painted with; None for zeros.

    Of a list executors take uint8 and float32 alone.  in_bytes: values that no executor holds as their bytes, which is
    a view where a mask has one plane; else as 16 bits each"""
    dtype = masks.dtype
    if dtype in _BYTES:
        source = _each(masks, lambda m: m.view(torch.uint8))
    elif dtype in _HELD:
        source = masks
    else:
        source = _each(masks, _bytes if in_bytes else _halves)
    if isinstance(source, Ragged) and source.dtype not in (torch.uint8, torch.float32):
        source = source.mapped(Tensor.float)
    if not fill:
        return source, None
    value = torch.tensor([fill], dtype=torch.float64, device="cpu").to(dtype)
    count = masks.channels if isinstance(masks, Ragged) else masks.shape[1]
    if source.dtype == torch.uint8:
        parts = tuple(v / 255 for v in value.view(torch.uint8).tolist())
        return source, parts * (count if len(parts) > 1 else 1)
    if dtype in _HELD:
        return source, (float(value),)
    return source, tuple(float(v) for v in value.view(torch.int16)) * count


def _halves(values: Tensor) -> Tensor:
    """[..., M] as [..., halves * M] float32: 16 bits each."""
    # flat, for an axis of length 1 may have any stride
    return values.reshape(-1).view(torch.int16).float().view(*values.shape[:-1], -1)


def _bytes(values: Tensor) -> Tensor:
    """[..., M] as [..., bytes * M] uint8."""
    return values.reshape(-1).view(torch.uint8).view(*values.shape[:-1], -1)


def _each(masks: Tensor | Ragged, do: Any) -> Tensor | Ragged:
    """`do` to masks [..., M]."""
    if isinstance(masks, Ragged):
        return masks.mapped(do)
    out: Tensor = do(masks.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return out


def as_nearest(p: Any, fill: tuple[float, ...] | None) -> ir.Pass:
    """A pass that moves pixels as one that takes the nearest and paints `fill` where there is none.

    What is resized takes floor(x * scale), as torchvision's masks do, or the very pixels of an image that is resized to
    the nearest; what is turned takes the pixel nearest to where it reads, half to even."""
    if isinstance(p, ir.Choice):
        return replace(p, branches=tuple(tuple(as_nearest(q, fill) for q in branch) for branch in p.branches))
    if isinstance(p, ir.Resample):
        box, fill = _in_its_box(p), fill or (0.0,)
        if box.integer_shift or box.kernel == "floor":
            return replace(box, fill=fill)
        return replace(box, inverse=nearest_inverse(box), kernel="floor", fill=fill)
    if isinstance(p, ir.Warp | ir.Elastic):
        return replace(p, kernel="nearest", fill=fill)
    if isinstance(p, ir.Project):
        return ir.Warp(p.inverse, p.size, p.fixed, p.window, "nearest", fill)
    if isinstance(p, ir.MixUp | ir.MixInside):
        raise ValueError(
            "masks cannot follow a MixUp by their nearest pixels, for a mean of two class numbers is not a class; "
            'pass float masks and mask_interpolation="bilinear", or use CutMix'
        )
    same: ir.Pass = p
    return same


def _in_its_box(p: ir.Resample) -> ir.Resample:
    """A resample whose window is what is resized, where its kernel reads an edge beyond that; nothing is clamped."""
    if p.kernel == "cubic":
        return replace(p, window=p.source, extend="none", clamp=False)
    return replace(p, clamp=False) if p.clamp else p


def nearest_inverse(p: ir.Resample) -> Tensor:
    """Output pixel -> position whose floor is the input pixel, for what is resized: [N, 3, 3]."""
    scale = _scale(p)
    out = torch.zeros_like(p.inverse)
    out[:, 0, 0], out[:, 1, 1], out[:, 2, 2] = scale[:, 0], scale[:, 1], 1.0
    out[:, :2, 2] = p.window[:, :2].double() + NUDGE - scale * p.live[:, :2].double()
    return out


def _scale(p: ir.Resample) -> Tensor:
    """Input pixels of an output pixel along x and y: [N, 2]."""
    return torch.stack([p.inverse[:, 0, 0], p.inverse[:, 1, 1]], 1)


def as_bilinear(p: Any, fill: tuple[float, ...] | None) -> ir.Pass:
    """A pass that moves pixels as one that interpolates, as that of images with antialias does."""
    if isinstance(p, ir.Choice):
        return replace(p, branches=tuple(tuple(as_bilinear(q, fill) for q in branch) for branch in p.branches))
    if isinstance(p, ir.Resample):
        box = _in_its_box(p)
        if box.integer_shift or box.kernel == "triangle":
            return replace(box, fill=fill or (0.0,))
        scale = _scale(box)
        out = nearest_inverse(box)
        out[:, :2, 2] += 0.5 * scale - 0.5 - NUDGE
        return replace(box, inverse=out, footprint=scale.clamp(min=1.0), kernel="triangle", fill=fill or (0.0,))
    if isinstance(p, ir.Warp | ir.Elastic):
        return replace(p, kernel="bilinear", fill=fill)
    if isinstance(p, ir.Project):
        return replace(p, fill=None if p.fill is None else fill or (0.0,))
    same: ir.Pass = p
    return same
