"""What a person sees of a batch: pixels of 8 bits with their targets drawn in, and a policy's parameters in words.

Pillow is imported where it is needed, since a policy alone does without."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug.batch import Batch
from gpuaug.displayed import Pixels, Statistics, as_bytes, each
from gpuaug.follow.read import to_xyxy
from gpuaug.transforms import Normalize, ToDtype, Transform

__all__ = ["Cell", "Pixels", "as_bytes", "drawn", "each", "label", "numbers", "statistics", "with_targets"]

# of boxes, masks and points, told apart by their place
COLOURS = ((230, 57, 70), (29, 122, 243), (46, 160, 67), (245, 159, 0), (155, 81, 224), (0, 170, 170))
# of a mask over its image
_STRENGTH = 0.45
# names of a soft label, and numbers of a parameter, that are written out
_NAMES, _NUMBERS = 2, 4


@dataclass(frozen=True, eq=False)
class Cell:
    """A picture and the lines below it."""

    pixels: Pixels
    lines: tuple[str, ...] = ()


def statistics(transforms: Sequence[Transform], dtype: torch.dtype = torch.uint8) -> Statistics | None:
    """Mean and standard deviation that bring what these transforms make of images of a dtype back into [0, 1]: of the
    last Normalize, and of a ToDtype without scale; None where they leave it there."""
    found = [t for t in transforms if isinstance(t, Normalize)]
    unscaled = any(isinstance(t, ToDtype) and t.dtype.is_floating_point and not t.scale for t in transforms)
    top = 1.0 if dtype.is_floating_point or not unscaled else float(torch.iinfo(dtype).max)
    if not found:
        return None if top == 1.0 else ((0.0,), (1 / top,))
    return tuple(m / top for m in found[-1].mean), tuple(s / top for s in found[-1].std)


def with_targets(pixels: Pixels, batch: Batch, i: int) -> Pixels:
    """A picture with the masks, boxes and keypoints of sample i."""
    from PIL import Image, ImageDraw

    if batch.masks is None and batch.boxes is None and batch.keypoints is None:
        return pixels
    out = pixels
    if batch.masks is not None:
        out = _masked(out, torch.as_tensor(batch.masks[i]).cpu())
    image = Image.fromarray(out)
    pen = ImageDraw.Draw(image)
    for k, (left, top, right, bottom) in _boxes(batch, i):
        corners = (left, top, max(left, right - 1), max(top, bottom - 1))
        pen.rectangle(corners, outline=COLOURS[k % len(COLOURS)], width=2)
    for k, (x, y) in _points(batch, i):
        colour = COLOURS[k % len(COLOURS)]
        # an image's first pixel is at (0, 0), as the pen has it
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour, outline=(255, 255, 255))
    return np.asarray(image)


def _masked(pixels: Pixels, masks: Tensor) -> Pixels:
    """A mask [H, W] has a colour a value, several [M, H, W] have one each."""
    if masks.ndim == 2:
        layers = [(int(v), masks == v) for v in np.unique(masks.numpy()).tolist() if v]
    else:
        layers = [(k + 1, m > 0) for k, m in enumerate(masks)]
    out = pixels.astype(np.float64)
    for number, where in layers:
        colour = np.array(COLOURS[(number - 1) % len(COLOURS)], np.float64)
        there = where.numpy()
        out[there] = out[there] * (1 - _STRENGTH) + colour * _STRENGTH
    return out.round().astype(np.uint8)


def _boxes(batch: Batch, i: int) -> Iterator[tuple[int, tuple[float, ...]]]:
    if batch.boxes is None:
        return
    xyxy = to_xyxy(torch.as_tensor(batch.boxes[i]).cpu().double(), str(batch.box_format or "XYXY").upper())
    valid = torch.ones(len(xyxy), dtype=torch.bool, device="cpu")
    if batch.box_valid is not None:
        valid = torch.as_tensor(batch.box_valid[i]).cpu()
    for k, (box, there) in enumerate(zip(xyxy.tolist(), valid.tolist(), strict=True)):
        if there and box[2] > box[0] and box[3] > box[1]:
            yield k, tuple(box)


def _points(batch: Batch, i: int) -> Iterator[tuple[int, tuple[float, ...]]]:
    if batch.keypoints is None:
        return
    points = torch.as_tensor(batch.keypoints[i]).cpu().double().reshape(-1, 2)
    visible = torch.ones(len(points), dtype=torch.bool, device="cpu")
    if batch.visible is not None:
        visible = torch.as_tensor(batch.visible[i]).cpu().reshape(-1) > 0
    for k, (point, there) in enumerate(zip(points.tolist(), visible.tolist(), strict=True)):
        if there:
            yield k, tuple(point)


def label(labels: Any, i: int, classes: Sequence[str] | None = None) -> str:
    """Sample i's label in words: a class, or the largest parts of a soft one."""
    if labels is None:
        return ""
    row = torch.as_tensor(labels[i]).cpu()

    def name(k: int) -> str:
        return classes[k] if classes is not None and 0 <= k < len(classes) else str(k)

    if row.ndim == 0:
        return name(int(row)) if not row.is_floating_point() else f"{float(row):.3g}"
    if row.ndim > 1 or not row.numel():
        return ""
    best = row.double().sort(descending=True)
    parts = [(float(v), int(k)) for v, k in zip(best.values[:_NAMES], best.indices[:_NAMES], strict=True) if v > 0]
    return ", ".join(f"{name(k)} {v:.2f}" for v, k in parts)


# ---- parameters


def drawn(transforms: Sequence[Transform], params: Sequence[dict[str, Any]], i: int) -> list[str]:
    """What each transform drew for sample i, a line each; those that draw nothing are left out."""
    lines = []
    for t, values in zip(transforms, params, strict=True):
        said = numbers(t, values, i)
        if said:
            lines.append(f"{type(t).__name__} {said}")
    return lines


def numbers(t: Transform, values: dict[str, Any], i: int) -> str:
    """What one transform drew for sample i."""
    apply = values.get("apply")
    if isinstance(apply, Tensor) and apply.dtype == torch.bool and apply.ndim == 1:
        if not bool(apply[i]):
            return "not applied"
        if len(values) == 1:
            return "applied"
    said = [f"{k}={_number(v[i])}" for k, v in values.items() if isinstance(v, Tensor) and v.ndim and k != "apply"]
    inside = values.get("transforms")
    if isinstance(inside, list) and len(inside) == len(t.children):
        index = values.get("index")
        chosen = isinstance(index, Tensor) and index.ndim == 1 and int(index[i]) < len(inside)
        places = [int(index[i])] if chosen and index is not None else range(len(inside))
        said += drawn([t.children[k] for k in places], [inside[k] for k in places], i)
    return ", ".join(said)


def _number(value: Tensor) -> str:
    flat = value.detach().cpu().flatten().tolist()
    if len(flat) > _NUMBERS:
        return f"{len(flat)} numbers"
    said = [
        "yes" if v is True else "no" if v is False else f"{v:.3g}" if isinstance(v, float) else str(v) for v in flat
    ]
    return said[0] if len(said) == 1 else f"({', '.join(said)})"
