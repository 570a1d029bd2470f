"""What a policy reads of its source images: a window of each, so that a decoder need not make the rest.

A tap whose weight is less than `ir.NOTHING` of the largest is none, by the definition of a resample.  So the pixels
that count for an output are those nearer to its position than the footprint, and those that count for any output lie
between the first and the last position, since positions are monotone along an axis.  No executor loads anything outside
the window of a resample, whatever it weighs: a window that is cut to what counts is what is read."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gpuaug import ir
from gpuaug.arrays import Rows
from gpuaug.images import Ragged


def focused(p: ir.Resample) -> ir.Resample:
    """The same resample, to the bit, with its window cut to the taps that count for live pixels; one pixel stays where
    none does."""
    near, far = p.live[:, :2].double(), (p.live[:, 2:] - 1).double()
    linear, shift = p.inverse[:, :2, :2], p.inverse[:, :2, 2]
    # of the two products of an axis one is 0
    a, b = ((linear * corner[:, None, :]).sum(2) + shift for corner in (near, far))
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    if p.integer_shift or p.kernel == "floor":
        first, last = low.floor().long(), high.floor().long() + 1
    else:
        half = p.footprint * (1.0 - ir.NOTHING)
        first, last = (low - half).floor().long() + 1, -((-high - half).floor().long())
    begin, end = p.window[:, :2], p.window[:, 2:]
    first = torch.minimum(torch.maximum(first, begin), end - 1)
    return replace(p, window=torch.cat([first, torch.maximum(torch.minimum(last, end), first + 1)], 1))


def reads(passes: ir.Sequence) -> Tensor | None:
    """The rectangle that passes load of their images: [N, 4] int64 (x0, y0, x1, y1), one pixel at least; None where
    they need all of them."""
    first = passes[0]
    if isinstance(first, ir.Project):
        return first.window
    return within(first.window, first.source, first.extend) if isinstance(first, ir.Resample) else None


def as_windows(rectangles: Tensor | None, size: Tensor) -> Rows:
    """(top, left, height, width) as a decoder takes them, [N, 4].  rectangles: as `reads` gives them, for images of
    these sizes, [N, 2]"""
    whole = size.numpy()
    if rectangles is None:
        return np.concatenate([np.zeros_like(whole), whole], 1)
    corner, far = rectangles[:, :2].numpy(), rectangles[:, 2:].numpy()
    return np.ascontiguousarray(np.concatenate([corner, far - corner], 1)[:, [1, 0, 3, 2]])


def within(window: Tensor, source: Tensor, extend: str) -> Tensor:
    """What is loaded for a window that may exceed its source.  window, source: [N, 4]"""
    if extend == "none":
        return window
    low, high = source[:, :2], source[:, 2:]
    begin, end = window[:, :2], window[:, 2:]
    first = torch.minimum(torch.maximum(begin, low), high - 1)
    last = torch.maximum(torch.minimum(end, high), first + 1)
    if extend in ("reflect", "symmetric"):
        # a border is mirrored from as many pixels as it is wide, and one that is left out
        before, after = (low - begin).clamp(min=0), (end - high).clamp(min=0)
        last = torch.where(before > 0, torch.maximum(last, torch.minimum(low + before + 1, high)), last)
        first = torch.where(after > 0, torch.minimum(first, torch.maximum(high - after - 1, low)), first)
    return torch.cat([first, last], 1)


def check(images: Ragged, wanted: Tensor | None) -> None:
    """Raise ValueError where more than the windows of images would be read.  wanted: as `reads` gives it, on the
    host"""
    whole = images.sides[:, ::-1]
    given = np.concatenate([np.zeros_like(whole), whole], 1) if wanted is None else wanted.numpy()
    here = images.rectangles
    beyond = (given[:, :2] < here[:, :2]).any(1) | (given[:, 2:] > here[:, 2:]).any(1)
    if beyond.any():
        n = int(beyond.argmax())
        need, have = (
            {"top": y0, "left": x0, "height": y1 - y0, "width": x1 - x0}
            for x0, y0, x1, y1 in (given[n].tolist(), here[n].tolist())
        )
        raise ValueError(
            f"window {n} must hold what the policy reads of its image, {need}, got {have}; decode the windows that "
            "Policy.windows gives for the same ids, epoch, occurrence and sizes, and pass its params with them"
        )
