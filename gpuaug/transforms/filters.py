"""Transforms that read around a pixel.  They lower to `ir.Stencil` passes and `ir.Jpeg`."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gpuaug import arguments, ir
from gpuaug.rng import Draw
from gpuaug.transforms.base import Drawn, Transform, WithProbability, colour_channels, when

__all__ = ["JPEG", "GaussianBlur", "RandomAdjustSharpness"]


def _kernel_size(name: str, value: Any) -> tuple[int, int]:
    """(x, y), both odd: torchvision's order."""
    sides = arguments.size(name, value)
    for side in sides:
        if side % 2 == 0:
            raise ValueError(f"{name} must be odd, so that a pixel is in its middle, got {value}")
    return sides


def _sigma(name: str, value: Any) -> tuple[float, float]:
    """An interval; a number stands for itself alone."""
    values = value if isinstance(value, list | tuple) else (value, value)
    low, high = arguments.interval(name, values, 0.0)
    if not low:
        raise ValueError(f"{name} must be above 0, got {value}")
    return low, high


@dataclass(frozen=True)
class GaussianBlur(Transform):
    """Blur each image with a Gaussian of a random sigma, the same along x and y.

    kernel_size: odd, a number or (x, y) in pixels.  sigma: a number, or the (low, high) that it is drawn from. What is
    beyond the border is reflected, without the edge itself twice (torchvision's gaussian_blur).
    """

    kernel_size: int | tuple[int, int]
    sigma: float | tuple[float, float] = (0.1, 2.0)
    example = {"kernel_size": 5, "sigma": (0.5, 1.5)}
    checks = {"kernel_size": _kernel_size, "sigma": _sigma}

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        sigma = draw.uniform(*self.sigma).float()  # type: ignore[misc]
        return {"sigma": torch.stack([sigma, sigma], 1)}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        assert isinstance(self.kernel_size, tuple)
        return (blur(params["sigma"], self.kernel_size, frame, "GaussianBlur"),)


def blur(sigma: Tensor, kernel_size: tuple[int, int], frame: ir.Frame, whose: str) -> ir.Pass:
    """The pass of a blur; a ValueError where the kernel reaches further than an image is reflected.  sigma: [N, 2]
    float32 (x, y)"""
    if frame.fixed is not None and any(
        k // 2 >= side for k, side in zip(kernel_size, reversed(frame.fixed), strict=True)
    ):
        raise ValueError(
            f"kernel_size {kernel_size} of {whose} reaches beyond the reflection of an image of {frame.fixed}; make it "
            "smaller than twice the image"
        )
    return ir.GaussianBlur(sigma, kernel_size)


def _quality(name: str, value: Any) -> tuple[int, int]:
    """(low, high), both included; a number stands for itself alone."""
    ends = value if isinstance(value, list | tuple) else (value, value)
    if len(ends) != 2:
        raise ValueError(f"{name} must be a number or (low, high), got {value!r}")
    low, high = (arguments.integer(name, v, 1, 100) for v in ends)
    if low > high:
        raise ValueError(f"{name} must run from low to high, got {value!r}; swap them")
    return low, high


@dataclass(frozen=True)
class JPEG(Transform):
    """What JPEG leaves of the image: a round trip at a random quality of 1 to 100, with chroma at half the size.

    Runs by the reference on every executor.  From Pillow's round trip it differs by less than half a level on average:
    libjpeg computes in integers."""

    quality: int | tuple[int, int]
    example = {"quality": (20, 60)}
    checks = {"quality": _quality}

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        low, high = self.quality  # type: ignore[misc]
        return {"quality": draw.integer(low, high + 1)}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        colour_channels(self, frame)
        return (ir.Jpeg(params["quality"]),)


@dataclass(frozen=True)
class RandomAdjustSharpness(WithProbability):
    """Sharpen by a factor, with probability p: 0 is a blurred image, 1 the image itself, 2 twice as sharp."""

    sharpness_factor: float
    p: float = 0.5
    example = {"sharpness_factor": 3.0}
    checks = {"sharpness_factor": partial(arguments.number, low=0.0)}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        colour_channels(self, frame)
        factor = ir.rows((self.sharpness_factor,), params["apply"], torch.float32)[:, 0]
        return when(params["apply"], ir.Sharpness(factor))
