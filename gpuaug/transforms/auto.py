"""Automatic policies, per sample: every sample has its own operations.  They lower to `ir.Choice`."""

from collections.abc import Callable
from dataclasses import dataclass

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
Fill = float | tuple[float, ...] | None


def _moved(frame: ir.Frame, kernel: str, fill: Fill, angle: Tensor, shift: tuple[Tensor, Tensor], shear: tuple[Tensor, Tensor], corner: bool) -> ir.Sequence:
    """A warp about the corner [0, 0] of the image, or about its middle."""
    centre = about(frame, (0.0, 0.0) if corner else None)
    return (warp(frame, frame, affine_inverse(centre, angle, shift, 1.0, shear), kernel, fill),)


def operation(name: str, magnitude: Tensor, frame: ir.Frame, kernel: str, fill: Fill) -> ir.Sequence:
    """One operation of torchvision's augmentation space.  magnitude: [N] float64, signed, in the operation's own unit."""
    zero, m = torch.zeros_like(magnitude), magnitude
    factor = (1.0 + m).float()
    made: dict[str, Callable[[], ir.Sequence]] = {
        "Identity": lambda: (),
        "ShearX": lambda: _moved(frame, kernel, fill, zero, (zero, zero), (torch.atan(m), zero), True),
        "ShearY": lambda: _moved(frame, kernel, fill, zero, (zero, zero), (zero, torch.atan(m)), True),
        "TranslateX": lambda: _moved(frame, kernel, fill, zero, (m.trunc(), zero), (zero, zero), False),
        "TranslateY": lambda: _moved(frame, kernel, fill, zero, (zero, m.trunc()), (zero, zero), False),
        "Rotate": lambda: _moved(frame, kernel, fill, -torch.deg2rad(m), (zero, zero), (zero, zero), False),
        "Brightness": lambda: (brightness(factor),),
        "Color": lambda: (ir.Saturation(factor),),
        "Contrast": lambda: (ir.Contrast(factor),),
        "Sharpness": lambda: (ir.Sharpness(factor),),
        "Posterize": lambda: (ir.Posterize(m.long()),),
        "Solarize": lambda: (ir.Solarize(m.float()),),
        "AutoContrast": lambda: (ir.Autocontrast(),),
        "Equalize": lambda: (ir.Equalize(),),
    }
    return made[name]()


@dataclass(frozen=True)
class RandAugment(Transform):
    """`num_ops` operations per sample, uniform with replacement, at one magnitude (Cubuk et al., 2020; torchvision's table)."""

    num_ops: int = 2
    magnitude: int = 9
    num_magnitude_bins: int = 31
    interpolation: str = "nearest"
    fill: Fill = None
    example = {"num_ops": 2, "magnitude": 17}

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_ops", arguments.integer("num_ops", self.num_ops, 1))
        object.__setattr__(self, "num_magnitude_bins", arguments.integer("num_magnitude_bins", self.num_magnitude_bins, 2))
        object.__setattr__(self, "magnitude", arguments.integer("magnitude", self.magnitude, 0, self.num_magnitude_bins - 1))
        object.__setattr__(self, "interpolation", arguments.interpolation(self.interpolation, ("nearest", "bilinear")))
        object.__setattr__(self, "fill", arguments.fill(self.fill))

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        words = draw.words(2 * self.num_ops)
        op = (words[:, : self.num_ops] * len(RANDAUGMENT)) >> 32
        return {"op": op, "sign": 1 - 2 * (words[:, self.num_ops :] >> 31)}

    def _strength(self, name: str, frame: ir.Frame) -> tuple[bool, float | Tensor]:
        """Whether a sign applies, and the size of the magnitude."""
        share = self.magnitude / (self.num_magnitude_bins - 1)
        if name.startswith("Translate"):
            return True, 150.0 / 331.0 * share * frame.size[:, 1 if name[-1] == "X" else 0].double()
        signed = {"ShearX": 0.3, "ShearY": 0.3, "Rotate": 30.0, "Brightness": 0.9, "Color": 0.9, "Contrast": 0.9, "Sharpness": 0.9}
        if name in signed:
            return True, signed[name] * share
        return False, {"Posterize": float(round(8 - 4 * share)), "Solarize": 1.0 - share}.get(name, 0.0)

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        colour_channels(self, frame)
        passes: list[ir.Pass] = []
        for k in range(self.num_ops):
            sign = params["sign"][:, k].double()
            branches = []
            for name in RANDAUGMENT:
                signed, size = self._strength(name, frame)
                magnitude = size * sign if signed else size * torch.ones_like(sign)
                branches.append(operation(name, magnitude, frame, self.interpolation, self.fill))
            passes.append(ir.Choice(params["op"][:, k : k + 1], tuple(branches)))
        return tuple(passes)
