"""Images of a list, each of whatever kind, as tensors [H, W, C] that belong together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug.arguments import named
from gpuaug.arrays import Rows, from_array, from_pil, is_pil, is_tv, resolved, short
from gpuaug.dtypes import DTYPES
from gpuaug.strides import CHANNELS, ready, shapes_of_ready


def together(items: Sequence[Any], layout: str | None) -> tuple[tuple[Tensor, ...], Rows | None]:
    """Images of a list as [H, W, C], all of the same channels, dtype and device; and their shapes, [N, 3], where those
    were looked at."""
    if len(items) == 0:
        raise ValueError(
            "images must not be an empty list: its channels are unknown; pass an empty tensor [0, C, H, W]"
        )
    shapes = shapes_of_ready(items) if layout != "chw" else None
    if shapes is not None:
        return tuple(items), shapes
    images = tuple(
        i if layout != "chw" and ready(i) else _one(i, n, layout or _of_a_pixel(i, items)) for n, i in enumerate(items)
    )
    for what, do in (
        ("channels", "convert them to RGB"),
        ("dtype", "convert them to one"),
        ("device", "move them to one"),
    ):
        found: list[Any] = [i.shape[2] if what == "channels" else getattr(i, what) for i in images]
        if len(set(found)) > 1:
            n = next(n for n, value in enumerate(found) if value != found[0])
            raise ValueError(
                f"images of a list must have the same {what}, got {found[0]} in image 0 and {found[n]} in image {n}; "
                f"{do}"
            )
    return images, None


def _of_a_pixel(item: Any, items: Sequence[Any]) -> str | None:
    """The layout of a tensor [1, 1, C], which fits both ways: that of the others, where every tensor among them is [H,
    W, C]."""
    if type(item) is not Tensor or item.ndim != 3 or item.shape[:2] != (1, 1):
        return None
    others = [i.shape for i in items if isinstance(i, Tensor) and i.shape[:2] != (1, 1)]
    return "hwc" if others and all(len(s) == 3 and s[2] in CHANNELS and s[0] not in CHANNELS for s in others) else None


def _one(item: Any, n: int, layout: str | None) -> Tensor:
    """One image of a list as [H, W, C] of any strides."""
    name = f"image {n} of the list"
    if is_pil(item):
        return from_pil(name, item)
    array = isinstance(item, np.ndarray)
    item = from_array(name, item) if array else item
    if not isinstance(item, Tensor):
        raise TypeError(f"{name} must be a tensor, an array or a PIL image, got {named(item)}")
    first = _channels_first(name, item, array, layout)
    item = plain(name, item)
    check_pixels(name, item)
    if item.ndim == 2:
        item = item[:, :, None]
    if item.ndim != 3 or min(item.shape) < 1:
        raise ValueError(f"{name} must have shape [H, W, C] or [C, H, W], each at least 1, got {tuple(item.shape)}")
    image: Tensor = item.permute(1, 2, 0) if first else item
    return image


def _channels_first(name: str, item: Tensor, array: bool, layout: str | None) -> bool:
    """Whether an image is [C, H, W]; refused where nothing says so."""
    if item.ndim != 3:
        return False
    shape, tv = tuple(item.shape), is_tv(item)
    if layout is not None:
        if tv and layout == "hwc":
            raise ValueError(
                f'{name} is a tv_tensor, which is [C, H, W], got layout="hwc" for it; '
                "leave layout out, or pass it as_subclass(torch.Tensor)"
            )
        return layout == "chw"
    if tv or (planar(shape) and not array):
        return True
    if array and not planar(shape):
        return False
    if not array and shape[2] in CHANNELS and shape[0] not in CHANNELS:
        return False
    ways = "an array is [H, W, C], and this looks like [C, H, W]" if array else "may be [C, H, W] or [H, W, C]"
    # floats go in a list alone, where an array says what it is
    do = (
        'gpuaug.Ragged(images, layout="chw") or layout="hwc"'
        if item.dtype == torch.uint8
        else "arrays [H, W, C], which are read as they are"
    )
    raise ValueError(f"{name} of shape {shape} {ways}; pass {do}")


def planar(shape: Sequence[int]) -> bool:
    """Whether three axes are taken for [C, H, W]."""
    return shape[0] in CHANNELS and shape[2] not in CHANNELS


def check_pixels(name: str, images: Tensor) -> None:
    if images.dtype not in DTYPES:
        raise TypeError(f"{name} must be of {', '.join(map(short, DTYPES))}, got {images.dtype}; convert first")
    if images.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {images.layout}; use .to_dense()")
    if images.requires_grad:
        raise ValueError(f"{name} requires grad, and augmentation is not differentiable here; pass .detach()")


def plain(name: str, images: Tensor) -> Tensor:
    """A tensor of torch's own class with its values as they lie in memory: a bit may say that they are to be read
    negated or conjugated."""
    if type(images) is not Tensor:
        if is_tv(images) and type(images).__name__ not in ("Image", "Video"):
            raise TypeError(
                f"{name} must be pixels, got tv_tensors.{type(images).__name__}; pass the images it belongs to"
            )
        images = images.as_subclass(Tensor)
    return resolved(images)
