"""Conversions to plain tensors, of NumPy arrays, PIL images and tensors of other classes, and copies to a device."""

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

Rows = np.ndarray[Any, np.dtype[np.int64]]


def from_array(name: str, array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor that shares the memory of an array; a copy of an array that torch would warn of, because it is
    read-only, or refuse, for negative strides or a foreign byte order."""
    if not array.dtype.isnative or array.dtype.char in "qQ":
        # NumPy has two types of 64-bit integers, C's long and long long, and torch takes only one of them
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
    """Whether a value is a PIL image.  PIL is not imported: if nobody has, no such value exists."""
    # tensors first: torch.compile would trace every entry of sys.modules
    return not isinstance(value, Tensor) and isinstance(value, getattr(sys.modules.get("PIL.Image"), "Image", ()))


def is_tv(value: Any) -> bool:
    """Whether a value is a tv_tensor, without importing torchvision."""
    return type(value) is not Tensor and isinstance(
        value, getattr(sys.modules.get("torchvision.tv_tensors"), "TVTensor", ())
    )


def put(values: Any, device: torch.device) -> Tensor:
    """A tensor, an array or a list of the host as a tensor on a device; by way of pinned memory, so that the host does
    not wait for the copy."""
    host = torch.as_tensor(values, device=values.device if isinstance(values, Tensor) else "cpu")
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)


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


def integer_rows(name: str, values: Any, width: int, n: int) -> Rows:
    """Integers [n, width] on the host."""
    try:
        array = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be integers [{n}, {width}], got {type(values).__name__}") from None
    if array.dtype.kind not in "iu" or array.shape != (n, width):
        raise ValueError(f"{name} must be integers [{n}, {width}], got {array.dtype} {list(array.shape)}")
    return array.astype(np.int64)


def short(dtype: torch.dtype) -> str:
    """The name of a dtype without its module: "uint8" of torch.uint8."""
    return str(dtype).removeprefix("torch.")


def resolved(values: Tensor) -> Tensor:
    """A tensor whose lazy negation and conjugation, if it has them, are carried out."""
    return values.resolve_conj().resolve_neg()
