"""Transforms that mix a sample with a partner from its batch.  All lower to `ir.Mix`; labels follow in
`gpuaug.targets`."""

from dataclasses import dataclass
from functools import partial

import torch

from gpuaug import arguments, ir
from gpuaug.rng import Draw
from gpuaug.symbolic import smooth
from gpuaug.transforms.base import Drawn, Transform

__all__ = ["CutMix", "MixUp", "Mixing"]


@dataclass(frozen=True)
class Mixing(Transform):
    """Any transform that mixes samples and their labels."""

    alpha: float = 1.0
    num_classes: int | None = None
    checks = {
        "alpha": partial(arguments.number, low=1e-6),
        "num_classes": arguments.optional(partial(arguments.integer, low=1)),
    }

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        # the open interval of float32, as torch.distributions.Beta has it
        lam = draw.beta(self.alpha).float().clamp(max=1.0 - 2.0**-24)
        return {"lam": lam, "partner": draw.keys.partners(draw.slot)}


@dataclass(frozen=True)
class CutMix(Mixing):
    """Paste a rectangle of the partner (Yun et al., 2019, section 3.1); a label's weight is the exact area that
    remains.

    `num_classes` is needed for labels that are class numbers.
    """

    example = {"alpha": 1.0, "num_classes": 5}

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        drawn = super().sample(draw, frame)
        height, width = frame.size.unbind(1)
        x, y = draw.integer(0, width), draw.integer(0, height)
        half = 0.5 * smooth("sqrt", 1.0 - drawn["lam"].double())
        dx, dy = (half * width).long(), (half * height).long()
        zero = torch.zeros_like(x)
        corners = [
            torch.maximum(x - dx, zero),
            torch.maximum(y - dy, zero),
            torch.minimum(x + dx, width),
            torch.minimum(y + dy, height),
        ]
        return {"lam": drawn["lam"], "box": torch.stack(corners, 1), "partner": drawn["partner"]}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return (ir.CutMix(params["partner"], params["box"], frame.size),)


@dataclass(frozen=True)
class MixUp(Mixing):
    """lam x + (1 - lam) partner, lam from Beta(alpha, alpha) for each sample (Zhang et al., 2018, section 2).

    `num_classes` is needed for labels that are class numbers.
    """

    example = {"alpha": 1.0, "num_classes": 5}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return (ir.MixUp(params["partner"], params["lam"]),)


def mixes_in(transform: Transform) -> list[Mixing]:
    """The mixes that a transform is or holds."""
    own = [transform] if isinstance(transform, Mixing) else []
    return own + [m for c in transform.children for m in mixes_in(c)]
