"""Transforms that write over pixels: noise and erasing.  All lower to `ir.SaltPepper`, `ir.GaussianNoise` or
`ir.Erase`."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

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
    """Erase random rectangles with probability p (Zhong et al., 2017, algorithm 1).

    value: a number, one number per channel, or "random" for N(0, 1) per pixel and channel.  inplace is accepted for
    torchvision's sake; inputs are never written to.  mode, as timm has it: "const" paints `value`, "rand" one colour
    from N(0, 1) for each rectangle, "pixel" N(0, 1) per pixel and channel.  min_count to max_count rectangles, each of
    the area over their number; None: min_count.  num_splits: the first of so many equal parts of a batch stays clean;
    0 or 1: none."""

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: float | tuple[float, ...] | str = 0.0
    inplace: bool = False
    mode: str = "const"
    min_count: int = 1
    max_count: int | None = None
    num_splits: int = 0
    example = {"p": 0.75, "value": (0.2, 0.4, 0.6)}
    checks = {
        "scale": partial(arguments.interval, low=0.0, high=1.0),
        "ratio": partial(arguments.interval, low=1e-9),
        "value": _value,
        "inplace": arguments.flag,
        "mode": partial(arguments.one_of, allowed=("const", "rand", "pixel")),
        "min_count": partial(arguments.integer, low=1),
        "max_count": arguments.optional(partial(arguments.integer, low=1)),
        "num_splits": partial(arguments.integer, low=0),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode != "const" and self.value != 0.0:
            raise ValueError(
                f'value is what mode "const" paints, got {self.value!r} with mode {self.mode!r}; leave one of them out'
            )
        if self._most < self.min_count:
            raise ValueError(f"max_count must be at least min_count, {self.min_count}, got {self.max_count}")

    @property
    def _most(self) -> int:
        return self.max_count or self.min_count

    def _values(self, frame: ir.Frame) -> tuple[float, ...]:
        if isinstance(self.value, str) or self.mode != "const":
            return (math.nan,) * frame.channels
        values = self.value if isinstance(self.value, tuple) else (float(self.value),)
        return values * frame.channels if len(values) == 1 else values

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        apply = super().sample(draw, frame)["apply"]
        if self.num_splits > 1:
            apply = apply & ~draw.keys.in_first(self.num_splits)
        count: Tensor | int = self.min_count
        if self._most > self.min_count:
            count = draw.integer(self.min_count, self._most + 1)
        # rectangles beyond a sample's own number are empty
        made = [self._box(draw, frame, count, k) for k in range(self._most)]
        stacked = {name: torch.stack([box[name] for box in made], 1) for name in made[0]}
        # of one rectangle without the axis of rectangles, as torchvision draws it
        return {"apply": apply, **(stacked if self._most > 1 else made[0])}

    def _box(self, draw: Draw, frame: ir.Frame, count: Tensor | int, number: int) -> Drawn:
        """One of `count` rectangles, [N] each, and what is painted there, [N, C]."""
        height, width = frame.size.unbind(1)
        area = (height * width)[:, None] * draw.uniform(*self.scale, count=10)
        if isinstance(count, Tensor):
            area = area / count[:, None]
        elif count > 1:
            area = area / count
        aspect = smooth("exp", draw.uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), count=10))
        h, w = (smooth("round", smooth("sqrt", v)).long() for v in (area * aspect, area / aspect))
        fits = (h < height[:, None]) & (w < width[:, None])
        first, found = fits.long().argmax(1, keepdim=True), fits.any(1)
        if isinstance(count, Tensor):
            found = found & (count > number)
        h, w = torch.where(found, h.gather(1, first)[:, 0], 0), torch.where(found, w.gather(1, first)[:, 0], 0)
        i, j = draw.integer(0, height - h + 1), draw.integer(0, width - w + 1)
        if self.mode == "rand":
            v = torch.stack([draw.normal() for _ in range(frame.channels)], 1).float()
        else:
            v = ir.rows(self._values(frame), i, torch.float32)
        return {"i": torch.where(found, i, 0), "j": torch.where(found, j, 0), "h": h, "w": w, "v": v}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        if self.mode == "const" and not isinstance(self.value, str):
            painted("value", self._values(frame), frame)
        one = self._most == 1
        made = (params[name][:, None] if one else params[name] for name in "jiwhv")
        passes = []
        for x0, y0, w, h, v in zip(*(p.unbind(1) for p in made), strict=True):
            box = torch.stack([x0, y0, x0 + w, y0 + h], 1)
            passes.append(ir.Erase(slot, torch.where(params["apply"][:, None], box, 0), v))
        return tuple(passes)

    @classmethod
    def from_timm(
        cls,
        probability: Any = 0.5,
        min_area: float = 0.02,
        max_area: float = 1 / 3,
        min_aspect: float = 0.3,
        max_aspect: float | None = None,
        mode: str = "const",
        min_count: int = 1,
        max_count: int | None = None,
        num_splits: int = 0,
        device: Any = None,
    ) -> "RandomErasing":
        """What `timm.data.random_erasing.RandomErasing` does with the same arguments, or given such an object in place
        of them.  Place it behind Normalize, where timm has it.  device is accepted for timm's sake."""
        if hasattr(probability, "log_aspect_ratio"):
            t = probability
            low, high = map(math.exp, t.log_aspect_ratio)
            counts = t.min_count, t.max_count, t.num_splits
            return cls(t.probability, (t.min_area, t.max_area), (low, high), 0.0, False, t.mode or "const", *counts)
        ratio = (min_aspect, max_aspect or 1 / min_aspect)
        counts = min_count, max_count or None, num_splits
        return cls(probability, (min_area, max_area), ratio, 0.0, False, mode.lower() or "const", *counts)
