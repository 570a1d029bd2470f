"""Tensors of what is none, arrays and PIL images, and of what is a tensor of another kind; and their way to a
device."""

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor


def from_array(name: str, array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor in an array's memory, copied where torch cannot read it: it warns of what is read-only, and refuses
    strides below 0 and foreign byte orders."""
    if not array.dtype.isnative or array.dtype.char in "qQ":
        # C has two types of 64 bits, and torch knows one
        array = array.astype(np.dtype(f"{array.dtype.kind}{array.dtype.itemsize}"))
    if not array.flags.writeable or any(s < 0 for s in array.strides):
        array = array.copy()
    try:
        return torch.from_numpy(array)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must hold numbers, got an array of {array.dtype}") from None


def from_pil(name: str, image: Any) -> Tensor:
    """[H, W, C] uint8."""
    mode = image.mode
    if mode not in ("L", "LA", "RGB", "RGBA"):
        raise TypeError(f"{name} has PIL mode {mode!r}, whose values are not 8-bit colours; {_pil_advice(mode)}")
    pixels = from_array(name, np.asarray(image))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _pil_advice(mode: str) -> str:
    """Which conversion loses nothing: `convert('RGB')` clips what has more than 8 bits."""
    if mode.startswith("I;16"):
        return "pass np.asarray(image)[:, :, None], which is uint16"
    if mode == "I":
        return "pass np.asarray(image).astype(np.uint16)[:, :, None] if it holds 16-bit values, as files of 16 bits do"
    if mode == "F":
        return "pass np.asarray(image)[:, :, None], whose values must run from 0 to 1"
    return f"use image.convert({ {'1': 'L', 'La': 'LA', 'PA': 'RGBA', 'RGBa': 'RGBA'}.get(mode, 'RGB')!r})"


def is_pil(value: Any) -> bool:
    """Whether a value is a PIL image, without importing PIL: there is none while nobody has."""
    return isinstance(value, getattr(sys.modules.get("PIL.Image"), "Image", ()))


def is_tv(value: Any) -> bool:
    """Whether a value is a tv_tensor, without importing torchvision."""
    return isinstance(value, getattr(sys.modules.get("torchvision.tv_tensors"), "TVTensor", ()))


def put(values: Any, device: torch.device) -> Tensor:
    """A tensor of what is on the host, on a device; from pinned memory, so that nothing waits for it."""
    host = torch.as_tensor(values, device=values.device if isinstance(values, Tensor) else "cpu")
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def chosen(index: Any, n: int) -> list[int]:
    """Rows by number or by mask, as a list.  index: integers, or n booleans"""
    rows = np.asarray(index.cpu() if isinstance(index, Tensor) else index)
    if rows.dtype == bool:
        if rows.shape != (n,):
            raise IndexError(f"a mask must have one value per image, {n}, got shape {rows.shape}")
        return [int(i) for i in rows.nonzero()[0]]
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise IndexError(
            f"an index must be a number, a slice, a list of numbers or a mask, got {rows.dtype} of shape {rows.shape}"
        )
    return [int(i) for i in rows]


def short(dtype: torch.dtype) -> str:
    """Its name without the module's."""
    return str(dtype).removeprefix("torch.")


def resolved(values: Tensor) -> Tensor:
    """Values as they lie in memory, not to be read negated or conjugated."""
    return values.resolve_conj().resolve_neg()
