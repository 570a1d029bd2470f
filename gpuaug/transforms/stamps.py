"""Transforms that write over pixels: noise and erasing.  All lower to `ir.SaltPepper`, `ir.GaussianNoise` or
`ir.Erase`."""

import math
from dataclasses import dataclass

import torch

from gpuaug import arguments, ir
from gpuaug.rng import Draw
from gpuaug.symbolic import smooth
from gpuaug.transforms.base import Drawn, Transform, painted

__all__ = ["GaussianNoise", "RandomErasing", "SaltAndPepper"]


@dataclass(frozen=True)
class SaltAndPepper(Transform):
    """Replace each pixel with probability `amount`: by 1 with probability `salt_vs_pepper`, else by 0.

    All channels of a pixel together, or each on its own with `per_channel=True`.
    """

    amount: float = 0.05
    salt_vs_pepper: float = 0.5
    per_channel: bool = False
    example = {"amount": 0.2}

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", arguments.number("amount", self.amount, 0.0, 1.0))
        object.__setattr__(self, "salt_vs_pepper", arguments.number("salt_vs_pepper", self.salt_vs_pepper, 0.0, 1.0))
        arguments.flag("per_channel", self.per_channel)

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        salt, amount = ir.rows((self.amount * self.salt_vs_pepper, self.amount), frame.size, torch.float32).unbind(1)
        return (ir.SaltPepper(slot, salt, amount, self.per_channel),)


@dataclass(frozen=True)
class GaussianNoise(Transform):
    """Add N(mean, sigma) to every pixel and channel; clipped to [0, 1] unless `clip=False`."""

    mean: float = 0.0
    sigma: float = 0.1
    clip: bool = True
    example = {"mean": 0.02, "sigma": 0.1}

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", arguments.number("mean", self.mean))
        object.__setattr__(self, "sigma", arguments.number("sigma", self.sigma, 0.0))
        arguments.flag("clip", self.clip)

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        mean, sigma = ir.rows((self.mean, self.sigma), frame.size, torch.float32).unbind(1)
        return (ir.GaussianNoise(slot, mean, sigma, self.clip),)


@dataclass(frozen=True)
class RandomErasing(Transform):
    """Erase a random rectangle with probability p (Zhong et al., 2017, algorithm 1).

    `value`: a number, one number per channel, or "random" for N(0, 1) per pixel and channel.  `inplace` is accepted for
    torchvision's sake; inputs are never written to."""

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: float | tuple[float, ...] | str = 0.0
    inplace: bool = False
    example = {"p": 0.75, "value": (0.2, 0.4, 0.6)}

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "p", arguments.number("p", self.p, 0.0, 1.0))
        put(self, "scale", arguments.interval("scale", self.scale, 0.0, 1.0))
        put(self, "ratio", arguments.interval("ratio", self.ratio, 1e-9))
        if isinstance(self.value, str):
            if self.value != "random":
                raise ValueError(f'value must be a number, one number per channel or "random", got {self.value!r}')
        else:
            put(self, "value", arguments.fill(self.value, none=False, name="value"))
        arguments.flag("inplace", self.inplace)

    def _values(self, frame: ir.Frame) -> tuple[float, ...]:
        if isinstance(self.value, str):
            return (math.nan,) * frame.channels
        values = self.value if isinstance(self.value, tuple) else (float(self.value),)
        return values * frame.channels if len(values) == 1 else values

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        apply = draw.coin(self.p)
        height, width = frame.size.unbind(1)
        area = (height * width)[:, None] * draw.uniform(*self.scale, count=10)
        aspect = smooth("exp", draw.uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), count=10))
        h, w = (smooth("round", smooth("sqrt", v)).long() for v in (area * aspect, area / aspect))
        fits = (h < height[:, None]) & (w < width[:, None])
        first, found = fits.long().argmax(1, keepdim=True), fits.any(1)
        h, w = torch.where(found, h.gather(1, first)[:, 0], 0), torch.where(found, w.gather(1, first)[:, 0], 0)
        i, j = draw.integer(0, height - h + 1), draw.integer(0, width - w + 1)
        box = {"i": torch.where(found, i, 0), "j": torch.where(found, j, 0), "h": h, "w": w}
        return {"apply": apply, **box, "v": ir.rows(self._values(frame), apply, torch.float32)}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        values = self._values(frame)
        if not isinstance(self.value, str):
            painted("value", values, frame)
        x0, y0 = params["j"], params["i"]
        box = torch.stack([x0, y0, x0 + params["w"], y0 + params["h"]], 1)
        return (ir.Erase(slot, torch.where(params["apply"][:, None], box, 0), params["v"]),)
