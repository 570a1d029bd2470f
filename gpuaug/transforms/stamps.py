"""Transforms that write over pixels: noise and erasing.  All lower to `ir.SaltPepper`, `ir.GaussianNoise` or
`ir.Erase`."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from gpuaug import arguments, ir
from gpuaug.rng import Draw
from gpuaug.symbolic import smooth
from gpuaug.transforms.base import Drawn, Transform, WithProbability, painted

__all__ = ["GaussianNoise", "RandomErasing", "SaltAndPepper"]


def _value(name: str, value: Any) -> float | tuple[float, ...] | str | None:
    if not isinstance(value, str):
        return arguments.fill(name, value, none=False)
    if value != "random":
        raise ValueError(f'{name} must be a number, one number per channel or "random", got {value!r}')
    return value


@dataclass(frozen=True)
class SaltAndPepper(Transform):
    """Replace each pixel with probability `amount`: by 1 with probability `salt_vs_pepper`, else by 0.

    All channels of a pixel together, or each on its own with `per_channel=True`.
    """

    amount: float = 0.05
    salt_vs_pepper: float = 0.5
    per_channel: bool = False
    example = {"amount": 0.2}
    checks = {
        "amount": arguments.probability,
        "salt_vs_pepper": arguments.probability,
        "per_channel": arguments.flag,
    }

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
    checks = {"mean": arguments.number, "sigma": partial(arguments.number, low=0.0), "clip": arguments.flag}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        mean, sigma = ir.rows((self.mean, self.sigma), frame.size, torch.float32).unbind(1)
        return (ir.GaussianNoise(slot, mean, sigma, self.clip),)


@dataclass(frozen=True)
class RandomErasing(WithProbability):
    """Erase a random rectangle with probability p (Zhong et al., 2017, algorithm 1).

    `value`: a number, one number per channel, or "random" for N(0, 1) per pixel and channel.  `inplace` is accepted for
    torchvision's sake; inputs are never written to."""

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: float | tuple[float, ...] | str = 0.0
    inplace: bool = False
    example = {"p": 0.75, "value": (0.2, 0.4, 0.6)}
    checks = {
        "scale": partial(arguments.interval, low=0.0, high=1.0),
        "ratio": partial(arguments.interval, low=1e-9),
        "value": _value,
        "inplace": arguments.flag,
    }

    def _values(self, frame: ir.Frame) -> tuple[float, ...]:
        if isinstance(self.value, str):
            return (math.nan,) * frame.channels
        values = self.value if isinstance(self.value, tuple) else (float(self.value),)
        return values * frame.channels if len(values) == 1 else values

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        apply = super().sample(draw, frame)["apply"]
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
