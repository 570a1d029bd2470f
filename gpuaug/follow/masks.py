"""Masks as images: the passes that move pixels, with the nearest pixel in place of a mean, run by the same executors.

Values are only moved, so that any dtype keeps its values to the bit: those that no executor holds go through as planes
of 16 bits."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gpuaug import fuse, ir, rng
from gpuaug.exec import choose, load
from gpuaug.images import Ragged
from gpuaug.transforms.geometry import NUDGE

# what executors hold to the bit; others go through as planes of 16 bits
_HELD = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)
_BYTES = (torch.bool, torch.int8)
_WIDE = (torch.int32, torch.int64)


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
    dtype, count = masks.dtype, masks.channels if isinstance(masks, Ragged) else masks.shape[1]
    end = ir.after(passes, frame)
    if not passes:
        return masks if isinstance(masks, Tensor) else masks.dense()
    assert end.fixed is not None
    if not count:
        device = frame.size.device
        return torch.zeros((len(masks), 0, *end.fixed), dtype=dtype, device=device)
    # no executor computes in float64
    held = torch.float32 if bilinear and dtype == torch.float64 else _narrow(masks, fill)
    if held is not None:
        small = _each(masks, lambda m: m.to(held))
        return follow(passes, small, frame, keys, backend, bilinear=bilinear, fill=fill).to(dtype)
    source, painted = _encoded(masks, fill)
    made = tuple(as_bilinear(p, painted) if bilinear else as_nearest(p, painted) for p in passes)
    planes = source.channels if isinstance(source, Ragged) else source.shape[1]
    whole = replace(frame, channels=planes, dtype=source.dtype)
    last = torch.contiguous_format if planes == count else torch.channels_last
    finished = (*made, ir.Finish(source.dtype, last))
    executor = load(choose(backend, source.device))
    plan = fuse.Plan(fuse.fold(finished), keys, whole)
    out: Tensor = executor.execute(executor.prepare(plan), source)
    if dtype in _BYTES:
        return out.view(dtype)
    if planes == count:
        return out.to(dtype)
    values = out.permute(0, 2, 3, 1).to(torch.int16).contiguous().view(dtype)
    return values.permute(0, 3, 1, 2).contiguous()


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


def _encoded(masks: Tensor | Ragged, fill: float) -> tuple[Tensor | Ragged, tuple[float, ...] | None]:
    """Masks as an executor takes them, and what a border is painted with; None for zeros.

    Of a list executors take uint8 and float32 alone."""
    dtype = masks.dtype
    if dtype in _BYTES:
        held = _each(masks, lambda m: m.view(torch.uint8))
    elif dtype in _HELD:
        held = masks
    else:
        held = _each(masks, _halves)
    if isinstance(held, Ragged) and held.dtype not in (torch.uint8, torch.float32):
        held = held.mapped(Tensor.float)
    if not fill:
        return held, None
    value = torch.tensor([fill], dtype=torch.float64, device="cpu").to(dtype)
    if held.dtype == torch.uint8:
        return held, (int(value.view(torch.uint8)) / 255,)
    if dtype in _HELD:
        return held, (float(value),)
    count = masks.channels if isinstance(masks, Ragged) else masks.shape[1]
    return held, tuple(float(v) for v in value.view(torch.int16)) * count


def _halves(values: Tensor) -> Tensor:
    """[..., M] as [..., halves * M] float32: 16 bits each."""
    # flat, for an axis of length 1 may have any stride
    return values.reshape(-1).view(torch.int16).float().view(*values.shape[:-1], -1)


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
        p, fill = _in_its_box(p), fill or (0.0,)
        if p.integer_shift or p.kernel == "floor":
            return replace(p, fill=fill)
        return replace(p, inverse=nearest_inverse(p), kernel="floor", fill=fill)
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
    scale = torch.diagonal(p.inverse[:, :2, :2], dim1=1, dim2=2)
    out = torch.zeros_like(p.inverse)
    out[:, 0, 0], out[:, 1, 1], out[:, 2, 2] = scale[:, 0], scale[:, 1], 1.0
    out[:, :2, 2] = p.window[:, :2].double() + NUDGE - scale * p.live[:, :2].double()
    return out


def as_bilinear(p: Any, fill: tuple[float, ...] | None) -> ir.Pass:
    """A pass that moves pixels as one that interpolates, as that of images with antialias does."""
    if isinstance(p, ir.Choice):
        return replace(p, branches=tuple(tuple(as_bilinear(q, fill) for q in branch) for branch in p.branches))
    if isinstance(p, ir.Resample):
        p = _in_its_box(p)
        if p.integer_shift or p.kernel == "triangle":
            return replace(p, fill=fill or (0.0,))
        scale = torch.diagonal(p.inverse[:, :2, :2], dim1=1, dim2=2)
        out = nearest_inverse(p)
        out[:, :2, 2] += 0.5 * scale - 0.5 - NUDGE
        return replace(p, inverse=out, footprint=scale.clamp(min=1.0), kernel="triangle", fill=fill or (0.0,))
    if isinstance(p, ir.Warp | ir.Elastic):
        return replace(p, kernel="bilinear", fill=fill)
    if isinstance(p, ir.Project):
        return replace(p, fill=None if p.fill is None else fill or (0.0,))
    same: ir.Pass = p
    return same
