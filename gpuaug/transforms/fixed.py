"""Transforms that give fixed views of an image, numbered instead of drawn.  All lower to `ir.Resample`.

Which view a sample is follows from its occurrence, so that the views of a batch are one batch: `Policy.views` makes
them.  They are not in the registry: a policy that holds one gives a list where others give a tensor."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpuaug import arguments, ir
from gpuaug.rng import Draw
from gpuaug.symbolic import require
from gpuaug.transforms.base import Drawn, Transform
from gpuaug.transforms.geometry import crop, flip

__all__ = ["FiveCrop", "Flips", "TenCrop"]


class FixedViews(Transform):
    """A transform whose `count` views are numbered by the occurrence of a sample: view occurrence mod count."""

    @property
    def count(self) -> int:
        """How many there are."""
        raise NotImplementedError

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        return {"view": draw.keys.occurrence % self.count}


class _Crops(FixedViews):
    size: int | tuple[int, int]
    checks = {"size": arguments.size}

    def _five(self, corner: Tensor, frame: ir.Frame) -> ir.Resample:
        """Left upper, right upper, left lower and right lower corner, and the middle.  corner: [N], 0 to 4"""
        assert isinstance(self.size, tuple)
        height, width = self.size
        if frame.fixed is not None:
            fits = torch.tensor([frame.fixed[0] >= height and frame.fixed[1] >= width], device="cpu")
        else:
            fits = (frame.size[:, 0] >= height) & (frame.size[:, 1] >= width)

        def refuse() -> ValueError:
            have = frame.fixed or tuple(frame.size[~fits][0].tolist())
            name = type(self).__name__
            return ValueError(f"size {self.size} of {name} is larger than the image {have}; Resize it first")

        require(fits, refuse)
        out = self.after(frame, {})
        spare = frame.size - out.size
        # half to even, as a crop of the middle is rounded
        middle = (spare / 2).round().long()
        zero = torch.zeros_like(corner)
        left = torch.where(corner == 4, middle[:, 1], torch.where(corner % 2 == 1, spare[:, 1], zero))
        top = torch.where(corner == 4, middle[:, 0], torch.where(corner >= 2, spare[:, 0], zero))
        return crop(frame, left, top, out, "none")

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        assert isinstance(self.size, tuple)
        return frame.resized(self.size)


@dataclass(frozen=True)
class FiveCrop(_Crops):
    """Five views of `size`: left upper, right upper, left lower and right lower corner, and the middle.

    An image that is smaller raises."""

    size: int | tuple[int, int]
    example = {"size": 8}
    count = 5  # type: ignore[assignment]

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return (self._five(params["view"], frame),)


@dataclass(frozen=True)
class TenCrop(_Crops):
    """Ten views of `size`: those of FiveCrop, and those of the image mirrored left to right, or, with `vertical_flip`,
    upside down."""

    size: int | tuple[int, int]
    vertical_flip: bool = False
    example = {"size": 8}
    checks = {"vertical_flip": arguments.flag}
    count = 10  # type: ignore[assignment]

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        view = params["view"]
        return flip(frame, view >= 5, int(self.vertical_flip)), self._five(view % 5, frame)


@dataclass(frozen=True)
class Flips(FixedViews):
    """Two views, the image as it is and mirrored left to right; with `vertical` four: both upside down too."""

    vertical: bool = False
    checks = {"vertical": arguments.flag}

    @property
    def count(self) -> int:
        """2, or 4."""
        return 4 if self.vertical else 2

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        view = params["view"]
        mirrored = (flip(frame, view % 2 == 1, 0),)
        return (*mirrored, flip(frame, view >= 2, 1)) if self.vertical else mirrored


def fixed_views(transforms: Sequence[Transform]) -> int:
    """How many views the transforms of a policy give; 0 where they give none of their own.  Raises ValueError for more
    than one such transform, and for one inside another transform."""
    found = [t for t in transforms if isinstance(t, FixedViews)]
    for t in transforms:
        hidden = next((c for c in _inside(t) if isinstance(c, FixedViews)), None)
        if hidden is not None:
            name = type(hidden).__name__
            raise ValueError(f"{name} must stand in the list of a policy, got it inside {type(t).__name__}")
    if len(found) > 1:
        names = " and ".join(type(t).__name__ for t in found)
        raise ValueError(f"a policy must hold at most one transform of fixed views, got {names}; use one of them")
    return found[0].count if found else 0


def _inside(t: Transform) -> list[Transform]:
    return [d for c in t.children for d in (c, *_inside(c))]
