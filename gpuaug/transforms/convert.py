"""Transforms about dtype and range.  Values are float32 in [0, 1] throughout; only the end of a policy rounds."""

from dataclasses import dataclass
from typing import Any

import torch

from gpuaug import arguments, ir
from gpuaug.dtypes import DTYPES, largest
from gpuaug.transforms.base import Drawn, Transform, with_dtype

__all__ = ["ConvertImageDtype", "Identity", "Normalize", "PILToTensor", "ToDtype", "ToImage", "ToTensor"]


def _dtype(name: str, value: Any) -> torch.dtype:
    if isinstance(value, dict):
        raise TypeError(f"{name} by type of input is not supported, got a dict; pass the dtype of the images")
    if value not in DTYPES:
        raise ValueError(f"{name} must be one of {', '.join(map(str, DTYPES))}, got {value!r}")
    found: torch.dtype = value
    return found


def _nonzero(name: str, value: Any) -> tuple[float, ...]:
    values = arguments.numbers(name, value)
    if not all(values):
        raise ValueError(f"{name} must not be 0, got {values}")
    return values


@dataclass(frozen=True)
class ToDtype(Transform):
    """The dtype from here on: uint8, int16, uint16, or any of floats.

    With `scale` ranges follow it, where the largest of an integer dtype is 1; without, numbers stay, so that uint8
    becomes 0.0 to 255.0, as in torchvision."""

    dtype: torch.dtype
    scale: bool = False
    example = {"dtype": torch.float32, "scale": True}
    checks = {"dtype": _dtype, "scale": arguments.flag}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        if self.scale or self.dtype == frame.dtype or (self.dtype.is_floating_point and frame.dtype.is_floating_point):
            return ()
        share = largest(frame.dtype) / largest(self.dtype)
        if frame.dtype.is_floating_point:
            raise ValueError(
                f"ToDtype({self.dtype}) from {frame.dtype} needs scale=True; without it values in [0, 1] would all "
                "become 0"
            )
        if share > 1 and not self.dtype.is_floating_point:
            raise ValueError(
                f"ToDtype({self.dtype}) from {frame.dtype} needs scale=True; without it larger values would wrap around"
            )
        row = ir.rows((share,), frame.size, torch.float32)
        return (ir.Affine(row, torch.zeros_like(row), clamp=False),)

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        return with_dtype(frame, self.dtype)


@dataclass(frozen=True)
class ToTensor(Transform):
    """float32 in [0, 1]: `ToDtype(torch.float32, scale=True)` under torchvision's older name."""

    example = {}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return ()

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        return with_dtype(frame, torch.float32)


@dataclass(frozen=True)
class ConvertImageDtype(Transform):
    """`ToDtype(dtype, scale=True)` under torchvision's older name."""

    dtype: torch.dtype = torch.float32
    example = {}
    checks = {"dtype": _dtype}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return ()

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        return with_dtype(frame, self.dtype)


@dataclass(frozen=True)
class Identity(Transform):
    """Images as they are: a place that another transform may take."""

    example = {}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return ()


@dataclass(frozen=True)
class PILToTensor(Transform):
    """Accepted so that torchvision pipelines read the same: a policy takes PIL images and arrays as they are."""

    example = {}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return ()


@dataclass(frozen=True)
class ToImage(Transform):
    """Accepted so that torchvision pipelines read the same: a policy takes PIL images and arrays as they are."""

    example = {}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return ()


@dataclass(frozen=True)
class Normalize(Transform):
    """(x - mean) / std per channel, unclamped, at its place in the order.

    Images must be of a float dtype here, as in torchvision.  `inplace` is accepted for torchvision's sake; inputs are
    never written to."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    inplace: bool = False
    example = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    checks = {"mean": arguments.numbers, "std": _nonzero, "inplace": arguments.flag}

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean and std must have the same length, got {len(self.mean)} and {len(self.std)}")

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        if not frame.dtype.is_floating_point:
            raise TypeError(
                f"Normalize needs float images, got {frame.dtype}; put ToDtype(torch.float32, scale=True) before it"
            )
        if len(self.mean) not in (1, frame.channels):
            raise ValueError(
                f"mean must have 1 value or one per channel, got {len(self.mean)} for {frame.channels} channels"
            )
        return (ir.Normalize(self.mean, self.std),)
