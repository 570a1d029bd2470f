"""Transforms that give each sample a size of its own: a later step must fix it.  All lower to one `ir.Resample`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gpuaug import arguments, ir
from gpuaug.rng import Draw
from gpuaug.transforms import borders
from gpuaug.transforms.base import Drawn, Transform, WithProbability, painted
from gpuaug.transforms.geometry import INTERPOLATION, antialiased, antialiases, crop, resize

__all__ = ["RandomResize", "RandomShortestSize", "RandomZoomOut", "ScaleJitter"]


def _sides(name: str, value: Any) -> tuple[int, ...]:
    """Sides to choose among; a number stands for itself alone."""
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if not values:
        raise ValueError(f"{name} must hold at least one size, got {value!r}")
    return tuple(arguments.integer(name, v, 1) for v in values)


class _Resized(Transform):
    """What is resized to a size that was drawn, `size`, [N, 2] int64 (H, W)."""

    interpolation: str
    antialias: bool
    checks = {"interpolation": INTERPOLATION, "antialias": antialiases}

    def __post_init__(self) -> None:
        super().__post_init__()
        antialiased(self)

    def _common(self, fixed: tuple[int, int]) -> tuple[int, int] | None:
        """The one size that can come out of images of one size; None where sizes differ."""
        raise NotImplementedError

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return (resize(frame, frame.whole(), self.after(frame, params), self.interpolation, self.antialias),)

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        common = None if frame.fixed is None else self._common(frame.fixed)
        return replace(frame, size=params["size"], fixed=None) if common is None else frame.resized(common)


def _shorter(side: Tensor, size: Tensor) -> Tensor:
    """(H, W) with this shorter side and the ratio of `size`, whose long side is int(side * long / short): [N, 2]."""
    short, long = size.amin(1), size.amax(1)
    far = (side * long // short).clamp(min=1)
    upright = (size[:, 1] <= size[:, 0])[:, None]
    return torch.where(upright, torch.stack([far, side], 1), torch.stack([side, far], 1))


@dataclass(frozen=True)
class RandomResize(_Resized):
    """Resize the shorter side to a random size of [min_size, max_size), with the aspect ratio kept."""

    min_size: int
    max_size: int
    interpolation: str = "bilinear"
    antialias: bool = True
    example = {"min_size": 14, "max_size": 15}
    checks = {"min_size": partial(arguments.integer, low=1), "max_size": partial(arguments.integer, low=2)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_size <= self.min_size:
            raise ValueError(
                f"max_size must be above min_size, for it is not drawn itself, got {self.max_size} and {self.min_size}"
            )

    def _common(self, fixed: tuple[int, int]) -> tuple[int, int] | None:
        if self.max_size - self.min_size > 1:
            return None
        size = torch.tensor([fixed], device="cpu")
        height, width = _shorter(torch.full_like(size[:, 0], self.min_size), size)[0].tolist()
        return height, width

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        return {"size": _shorter(draw.integer(self.min_size, self.max_size), frame.size)}


@dataclass(frozen=True)
class RandomShortestSize(_Resized):
    """Resize the shorter side to one of `min_size`, the longer one to `max_size` at most, with the aspect ratio kept.

    Both sides are truncated, as in torchvision."""

    min_size: int | tuple[int, ...]
    max_size: int | None = None
    interpolation: str = "bilinear"
    antialias: bool = True
    example = {"min_size": 14}
    checks = {"min_size": _sides, "max_size": arguments.optional(partial(arguments.integer, low=1))}

    def _sized(self, side: Tensor, size: Tensor) -> Tensor:
        share = side.double() / size.amin(1).double()
        if self.max_size is not None:
            bound = torch.full_like(share, self.max_size) / size.amax(1).double()
            share = torch.minimum(share, bound)
        return (size.double() * share[:, None]).long().clamp(min=1)

    def _common(self, fixed: tuple[int, int]) -> tuple[int, int] | None:
        assert isinstance(self.min_size, tuple)
        if len(set(self.min_size)) > 1:
            return None
        size = torch.tensor([fixed], device="cpu")
        height, width = self._sized(torch.full_like(size[:, 0], self.min_size[0]), size)[0].tolist()
        return height, width

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        assert isinstance(self.min_size, tuple)
        index = draw.integer(0, len(self.min_size))
        side = ir.rows(self.min_size, index).gather(1, index[:, None])[:, 0]
        return {"size": self._sized(side, frame.size)}


@dataclass(frozen=True)
class ScaleJitter(_Resized):
    """Resize to the largest size within `target_size`, times a random scale (Ghiasi et al., Simple Copy-Paste, 2021).

    target_size: (W, H) as torchvision reads it: its first number bounds the width."""

    target_size: tuple[int, int]
    scale_range: tuple[float, float] = (0.1, 2.0)
    interpolation: str = "bilinear"
    antialias: bool = True
    example = {"target_size": (18, 16), "scale_range": (0.8, 0.8)}
    checks = {"scale_range": partial(arguments.interval, low=1e-9)}

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.numbers("target_size", self.target_size, (2,))
        self._keep("target_size", tuple(arguments.integer("target_size", v, 1) for v in self.target_size))

    def _sized(self, scale: Tensor, size: Tensor) -> Tensor:
        sides = size.double()
        bounds = ir.rows((float(self.target_size[1]), float(self.target_size[0])), size, torch.float64) / sides
        return (sides * (bounds.amin(1) * scale)[:, None]).long().clamp(min=1)

    def _common(self, fixed: tuple[int, int]) -> tuple[int, int] | None:
        low, high = self.scale_range
        if low != high:
            return None
        size = torch.tensor([fixed], device="cpu")
        height, width = self._sized(torch.full_like(size[:, 0], low, dtype=torch.float64), size)[0].tolist()
        return height, width

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        return {"size": self._sized(draw.uniform(*self.scale_range), frame.size)}


@dataclass(frozen=True)
class RandomZoomOut(WithProbability):
    """Put the image at a random place of a canvas whose sides are larger by a random factor, with probability p (Liu et
    al., SSD, 2016)."""

    fill: float | tuple[float, ...] | None = 0
    side_range: tuple[float, float] = (1.0, 4.0)
    p: float = 0.5
    example = {"side_range": (1.5, 1.5), "p": 1.0}
    checks = {"fill": borders.painting, "side_range": partial(arguments.interval, low=1.0)}

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        apply = super().sample(draw, frame)["apply"]
        u = draw.uniform(count=3)
        low, high = self.side_range
        # the width first
        size = frame.size.flip(1)
        spare = (size.double() * (low + (high - low) * u[:, :1])).long() - size
        near = (spare.double() * u[:, 1:]).long()
        return {"apply": apply, "padding": torch.cat([near, spare - near], 1)}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        left, top = self._padding(params)[:, :2].unbind(1)
        out = self.after(frame, params)
        return (crop(frame, -left, -top, out, "constant", painted("fill", self.fill, frame)),)

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        low, high = self.side_range
        if frame.fixed is not None and low == high and self.p in (0.0, 1.0):
            factor = low if self.p else 1.0
            return frame.resized((int(frame.fixed[0] * factor), int(frame.fixed[1] * factor)))
        left, top, right, bottom = self._padding(params).unbind(1)
        return replace(frame, size=frame.size + torch.stack([top + bottom, left + right], 1), fixed=None)

    def _padding(self, params: Drawn) -> Tensor:
        """(left, top, right, bottom), 0 where it is not applied: [N, 4] int64."""
        return torch.where(params["apply"][:, None], params["padding"], 0)
