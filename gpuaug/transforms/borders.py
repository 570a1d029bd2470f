"""Borders: what padding an image takes, what it leaves, and how far a border reaches, as in torchvision."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gpuaug import arguments, ir
from gpuaug.symbolic import require

_FAR = 2**24


def painting(name: str, value: Any) -> float | tuple[float, ...] | None:
    """None paints with 0, as in torchvision."""
    return 0.0 if value is None else arguments.fill(name, value, none=False)


def padding(name: str, value: Any) -> tuple[int, int, int, int]:
    """(left, top, right, bottom); what is below 0 crops."""
    items = list(value) if isinstance(value, list | tuple) else [value]
    if len(items) not in (1, 2, 4):
        raise ValueError(f"{name} must have 1, 2 or 4 values, got {len(items)}")
    a = [arguments.integer(name, v, -_FAR) for v in items]
    left, top, right, bottom = a * 4 if len(a) == 1 else a * 2 if len(a) == 2 else a
    return left, top, right, bottom


def padded(frame: ir.Frame, padding: Any) -> ir.Frame:
    left, top, right, bottom = padding
    if frame.fixed is not None:
        return frame.resized((frame.fixed[0] + top + bottom, frame.fixed[1] + left + right))
    return replace(frame, size=frame.size + ir.rows((top + bottom, left + right), frame.size))


def leaves_something(frame: ir.Frame, padding: Any, mode: str) -> None:
    """A negative padding leaves a pixel of every image.  frame: as far as the host knows it"""
    left, top, right, bottom = padding
    stays = (frame.size + ir.rows((top + bottom, left + right), frame.size) > 0).all(1)
    if mode == "constant":
        # torchvision crops before it paints, and cannot crop more than there is
        crops = (min(top, 0) + min(bottom, 0), min(left, 0) + min(right, 0))
        stays = stays & (frame.size + ir.rows(crops, frame.size) >= 0).all(1)

    def refuse() -> ValueError:
        return ValueError(
            f"padding must leave a pixel of every image, got {padding}, left, top, right and bottom, for one of "
            f"{tuple(frame.size[~stays][0].tolist())}; crop less, or Resize first"
        )

    require(stays, refuse)


def one_fill(fill: Any, mode: str) -> None:
    """Borders that are made of the image are not painted, and torchvision refuses a colour there."""
    if mode != "constant" and isinstance(fill, tuple) and len(fill) > 1:
        raise ValueError(f"fill must be one number with padding_mode {mode!r}, got {fill}; leave fill out")


def known(frame: ir.Frame) -> ir.Frame:
    """The frame as far as the host knows it: of images of one size a row, which is looked at on every device."""
    if frame.fixed is None:
        return frame
    return replace(frame, size=torch.tensor([frame.fixed], device="cpu"))


def check(frame: ir.Frame, near: Tensor, far: Tensor, mode: str) -> None:
    """A reflection reaches no further than the image.  near, far: [N, 2] int64 (y, x) of padding"""
    if mode not in ("reflect", "symmetric"):
        return
    # torchvision crops before it makes a symmetric border
    limit = frame.size - 1 if mode == "reflect" else frame.size + near.clamp(max=0) + far.clamp(max=0)
    fits = ((near <= limit) & (far <= limit)).all(1)

    def refuse() -> ValueError:
        (top, left), (bottom, right), size = (v[~fits][0].tolist() for v in (near, far, frame.size))
        return ValueError(
            f"padding_mode {mode!r} must not pad further than the image, got padding {(left, top, right, bottom)} for "
            f"size {tuple(size)}; pad less, or Resize first"
        )

    require(fits, refuse)
