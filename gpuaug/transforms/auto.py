"""Automatic policies, per sample: every sample has its own operations.  They lower to `ir.Choice`."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gpuaug import arguments, ir
from gpuaug.rng import Draw
from gpuaug.transforms.base import Drawn, Transform, colour_channels
from gpuaug.transforms.colour import brightness
from gpuaug.transforms.warps import about, affine_inverse, warp

__all__ = ["RandAugment"]

RANDAUGMENT = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
_MOVES = RANDAUGMENT[1:6]
Fill = float | tuple[float, ...] | None


def _moved(op: Tensor, magnitude: dict[str, Tensor], frame: ir.Frame, kernel: str, fill: Fill) -> ir.Sequence:
    """The five operations that move pixels as one warp, by each sample's own number; the others' samples stay where
    they are."""
    zero = torch.zeros_like(magnitude["Rotate"])
    of = {
        name: torch.where(op == number, magnitude[name], zero)
        for number, name in enumerate(RANDAUGMENT)
        if name in _MOVES
    }
    # shears are about the corner of the image, the others about its middle
    sheared = (op == 1) | (op == 2)
    (left, top), (x, y) = about(frame, (0.0, 0.0)), about(frame, None)
    centre = (torch.where(sheared, left, x), torch.where(sheared, top, y))
    shift = (of["TranslateX"].trunc(), of["TranslateY"].trunc())
    return (
        warp(
            frame,
            frame,
            affine_inverse(centre, -torch.deg2rad(of["Rotate"]), shift, 1.0, (of["ShearX"], of["ShearY"])),
            kernel,
            fill,
        ),
    )


def operations(op: Tensor, magnitude: dict[str, Tensor], frame: ir.Frame, kernel: str, fill: Fill) -> ir.Choice:
    """One operation of torchvision's augmentation space for every sample.

    op: [N] int64, places in RANDAUGMENT; magnitude: [N] float64 by name, signed, in the operation's own unit: radians
    of a shear, pixels of a translation, degrees of a rotation."""
    factor = {name: (1.0 + magnitude[name]).float() for name in ("Brightness", "Color", "Contrast", "Sharpness")}
    branches: tuple[ir.Sequence, ...] = (
        (),
        _moved(op, magnitude, frame, kernel, fill),
        (brightness(factor["Brightness"]),),
        (ir.Saturation(factor["Color"]),),
        (ir.Contrast(factor["Contrast"]),),
        (ir.Sharpness(factor["Sharpness"]),),
        (ir.Posterize(magnitude["Posterize"].long()),),
        (ir.Solarize(magnitude["Solarize"].float()),),
        (ir.Autocontrast(),),
        (ir.Equalize(),),
    )
    # one branch for the identity, one for all that moves
    last = len(_MOVES)
    return ir.Choice(torch.where(op > last, op - last + 1, (op > 0).long())[:, None], branches)


def spaced(first: float, last: float, count: int, place: int) -> float:
    """One of `count` float32 numbers at equal distances, to the bit of torch.linspace, which counts from the nearer
    end.

    A translation is cut to an integer, and most products that are one would be a last bit below it if they were formed
    in another order."""
    start, end = np.float32(first), np.float32(last)
    step = float((end - start) / np.float32(count - 1))
    near, steps = (start, place) if place < count // 2 else (end, place - (count - 1))
    # a float32 times a small integer is exact in float64: it is rounded once, as a fused multiply-add rounds it
    return float(np.float32(float(near) + step * steps))


@dataclass(frozen=True)
class RandAugment(Transform):
    """`num_ops` operations per sample, uniform with replacement, at one magnitude (Cubuk et al., 2020; torchvision's
    table)."""

    num_ops: int = 2
    magnitude: int = 9
    num_magnitude_bins: int = 31
    interpolation: str = "nearest"
    fill: Fill = None
    example = {"num_ops": 2, "magnitude": 17}
    checks = {
        "num_ops": partial(arguments.integer, low=1),
        "num_magnitude_bins": partial(arguments.integer, low=2),
        "interpolation": partial(arguments.interpolation, allowed=("nearest", "bilinear")),
        "fill": arguments.fill,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self._keep("magnitude", arguments.integer("magnitude", self.magnitude, 0, self.num_magnitude_bins - 1))

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        words = draw.words(2 * self.num_ops)
        op = (words[:, : self.num_ops] * len(RANDAUGMENT)) >> 32
        return {"op": op, "sign": 1 - 2 * (words[:, self.num_ops :] >> 31)}

    def _strength(self, name: str, frame: ir.Frame) -> tuple[bool, float]:
        """Whether a sign applies, and the size of the magnitude."""
        place, bins = self.magnitude, self.num_magnitude_bins
        if name.startswith("Translate"):
            # without a common size the caller refuses it
            side = (frame.fixed or (0, 0))[1 if name[-1] == "X" else 0]
            return True, spaced(0.0, 150.0 / 331.0 * side, bins, place)
        if name.startswith("Shear"):
            # torchvision shears by the angle whose tangent the magnitude is
            return True, math.atan(spaced(0.0, 0.3, bins, place))
        signed = {"Rotate": 30.0, "Brightness": 0.9, "Color": 0.9, "Contrast": 0.9, "Sharpness": 0.9}
        if name in signed:
            return True, spaced(0.0, signed[name], bins, place)
        return False, {
            "Posterize": float(round(8 - place / ((bins - 1) / 4))),
            "Solarize": spaced(1.0, 0.0, bins, place),
        }.get(name, 0.0)

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        colour_channels(self, frame)
        passes: list[ir.Pass] = []
        sizes = {name: self._strength(name, frame) for name in RANDAUGMENT}
        for k in range(self.num_ops):
            sign = params["sign"][:, k].double()
            magnitude = {
                name: size * (sign if signed else torch.ones_like(sign)) for name, (signed, size) in sizes.items()
            }
            passes.append(operations(params["op"][:, k], magnitude, frame, self.interpolation, self.fill))
        return tuple(passes)
