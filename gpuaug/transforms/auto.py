"""Automatic policies, per sample: every sample has its own operations.  They lower to `ir.Choice`."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug import arguments, ir
from gpuaug.rng import Draw, unit
from gpuaug.symbolic import smooth
from gpuaug.transforms.auto_tables import AUTOAUGMENT
from gpuaug.transforms.auto_timm import TimmAutoAugment, TimmRandAugment
from gpuaug.transforms.base import Drawn, Transform, colour_channels, looked_up
from gpuaug.transforms.colour import brightness, invert
from gpuaug.transforms.warps import about, affine_inverse, warp

__all__ = ["AugMix", "AutoAugment", "RandAugment", "TrivialAugmentWide"]

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
# of those with a sign: the moves and the four factors
_SIGNED = RANDAUGMENT[1:10]
# those that AutoAugment has
_OPERATIONS = (*RANDAUGMENT, "Invert")
_BINS = 10
# those that AugMix has, as places in RANDAUGMENT: all, or those that its paper kept apart from the test's corruptions
_BLENDED = tuple(range(1, len(RANDAUGMENT)))
_BLENDED_FEW = (*range(1, 6), *range(10, len(RANDAUGMENT)))
_INTERPOLATION = partial(arguments.interpolation, allowed=("nearest", "bilinear"))
Fill = float | tuple[float, ...] | None
_FACTORS = RANDAUGMENT[6:10]
_WIDE = ("ShearX", "ShearY", *_FACTORS)


def _policy(name: str, value: Any) -> str:
    """The name of a policy: torchvision's AutoAugmentPolicy, or its value."""
    return arguments.one_of(name, getattr(value, "value", value), tuple(AUTOAUGMENT))


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


def operations(
    op: Tensor, magnitude: dict[str, Tensor], frame: ir.Frame, kernel: str, fill: Fill, inverts: bool = False
) -> ir.Choice:
    """One operation of torchvision's augmentation space for every sample.

    op: [N] int64, places in RANDAUGMENT, and after its last Invert where `inverts`; magnitude: [N] float64 by name,
    signed, in the operation's own unit: radians of a shear, pixels of a translation, degrees of a rotation."""
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
    if inverts:
        branches = (*branches, (invert(op),))
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


def spaced_by_sample(first: Tensor, last: Tensor, count: int, place: Tensor) -> Tensor:
    """`spaced` for each sample's own ends and place: [N] float64.  first, last: [N] float32; place: [N] int64"""
    step = ((last - first) / (count - 1)).double()
    low = place < count // 2
    near, steps = torch.where(low, first, last).double(), torch.where(low, place, place - (count - 1)).double()
    return (near + step * steps).float().double()


def _magnitudes(
    op: Tensor,
    place: Tensor,
    sign: Tensor,
    bins: int,
    last: dict[str, float],
    posterize: tuple[float, float],
) -> dict[str, Tensor]:
    """What `operations` takes, where each sample has a bin of its own.

    op, place, sign: [N] int64; last: the magnitude in the last bin, by operation, where the first bin's is 0; a shear's
    is the tangent of its angle.  posterize: the bits that the first bin leaves, and how many the last takes away."""
    ends = [last.get(name, 0.0) for name in RANDAUGMENT] + [0.0]
    zero = torch.zeros_like(op).float()
    size = spaced_by_sample(zero, looked_up(ends, op), bins, place) * sign.double()
    angles = [math.atan(spaced(0.0, last["ShearX"], bins, b)) for b in range(bins)]
    magnitude = dict.fromkeys(_SIGNED, size)
    magnitude["ShearX"] = magnitude["ShearY"] = looked_up(angles, place, torch.float64) * sign.double()
    magnitude["Solarize"] = spaced_by_sample(zero + 1.0, zero, bins, place)
    bits, away = posterize
    magnitude["Posterize"] = (bits - place.double() / ((bins - 1) / away)).round()
    return magnitude


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
        "interpolation": _INTERPOLATION,
        "fill": arguments.fill,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self._keep("magnitude", arguments.integer("magnitude", self.magnitude, 0, self.num_magnitude_bins - 1))

    @staticmethod
    def from_timm(config: str, **options: Any) -> TimmRandAugment:
        """timm's RandAugment by the string that its training script takes: "rand-m9-mstd0.5-inc1".  options: of
        `TimmRandAugment`"""
        return TimmRandAugment(config, **options)

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


@dataclass(frozen=True)
class TrivialAugmentWide(Transform):
    """One operation per sample, uniform, at a magnitude of its own (Mueller and Hutter, 2021; torchvision's table)."""

    num_magnitude_bins: int = 31
    interpolation: str = "nearest"
    fill: Fill = None
    example = {}
    checks = {
        "num_magnitude_bins": partial(arguments.integer, low=2),
        "interpolation": _INTERPOLATION,
        "fill": arguments.fill,
    }

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        op, place, sign = draw.words(3).unbind(1)
        return {
            "op": (op * len(RANDAUGMENT)) >> 32,
            "magnitude": (place * self.num_magnitude_bins) >> 32,
            "sign": 1 - 2 * (sign >> 31),
        }

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        colour_channels(self, frame)
        op, place, sign = (params[name] for name in ("op", "magnitude", "sign"))
        last = {"Rotate": 135.0, "TranslateX": 32.0, "TranslateY": 32.0} | dict.fromkeys(_WIDE, 0.99)
        magnitude = _magnitudes(op, place, sign, self.num_magnitude_bins, last, (8.0, 6.0))
        return (operations(op, magnitude, frame, self.interpolation, self.fill),)


@dataclass(frozen=True)
class AutoAugment(Transform):
    """One of 25 learned pairs of operations per sample (Cubuk et al., 2019; torchvision's tables).

    policy: "imagenet", "cifar10" or "svhn", for the data set that it was learned on; torchvision's AutoAugmentPolicy is
    taken too."""

    policy: str = "imagenet"
    interpolation: str = "nearest"
    fill: Fill = None
    example = {"policy": "cifar10"}
    checks = {"policy": _policy, "interpolation": _INTERPOLATION, "fill": arguments.fill}

    @staticmethod
    def from_timm(config: str, **options: Any) -> TimmAutoAugment:
        """timm's AutoAugment by the string that its training script takes: "original-mstd0.5".  options: of
        `TimmAutoAugment`"""
        return TimmAutoAugment(config, **options)

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        words = draw.words(5)
        return {
            "policy_id": (words[:, 0] * len(AUTOAUGMENT[self.policy])) >> 32,
            "probs": unit(words[:, 1:3]).float(),
            "signs": 1 - 2 * (words[:, 3:] >> 31),
        }

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        colour_channels(self, frame)
        # without a common size the caller refuses it
        height, width = frame.fixed or (0, 0)
        last = {"Rotate": 30.0, "TranslateX": 150.0 / 331.0 * width, "TranslateY": 150.0 / 331.0 * height}
        last |= {"ShearX": 0.3, "ShearY": 0.3} | dict.fromkeys(_FACTORS, 0.9)
        passes: list[ir.Pass] = []
        for k in range(2):
            names, chances, places = zip(*(pair[k] for pair in AUTOAUGMENT[self.policy]), strict=True)
            chosen = params["policy_id"]
            numbers = [_OPERATIONS.index(name) for name in names]
            op, place = (looked_up(t, chosen, torch.int64) for t in (numbers, places))
            # the probabilities are float32 as torchvision compares them
            used = params["probs"][:, k] <= looked_up(chances, chosen)
            magnitude = _magnitudes(op, place, params["signs"][:, k], _BINS, last, (8.0, 4.0))
            op = torch.where(used, op, 0)
            passes.append(operations(op, magnitude, frame, self.interpolation, self.fill, inverts=True))
        return tuple(passes)


@dataclass(frozen=True)
class AugMix(Transform):
    """A random blend of the image and of chains of random operations (Hendrycks et al., 2020; torchvision's table).

    severity: 1 to 10, the largest bin of a magnitude.  mixture_width: chains.  chain_depth: operations in a chain, -1
    for 1 to 3, drawn for each.  alpha: of the Dirichlet and Beta distributions of the weights; for one other than 1 a
    weight is drawn by at most 6 tries of Marsaglia and Tsang's method (2000), which fail, and leave its mode, in less
    than one case of 10^7."""

    severity: int = 3
    mixture_width: int = 3
    chain_depth: int = -1
    alpha: float = 1.0
    all_ops: bool = True
    interpolation: str = "bilinear"
    fill: Fill = None
    example = {"severity": 5, "mixture_width": 2}
    checks = {
        "severity": partial(arguments.integer, low=1, high=_BINS),
        "mixture_width": partial(arguments.integer, low=1),
        "chain_depth": partial(arguments.integer, low=-1),
        "alpha": partial(arguments.number, low=1e-3),
        "all_ops": arguments.flag,
        "interpolation": _INTERPOLATION,
        "fill": arguments.fill,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.chain_depth:
            raise ValueError("chain_depth must be at least 1, or -1 for 1 to 3, got 0")

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        width, depth = self.mixture_width, self._deepest
        own = draw.beta(self.alpha)
        gammas = [_gamma(draw, self.alpha) for _ in range(width)]
        total = gammas[0]
        for gamma in gammas[1:]:
            total = total + gamma
        weights = torch.stack([own, *((1.0 - own) * gamma / total for gamma in gammas)], 1)
        ops = _BLENDED if self.all_ops else _BLENDED_FEW
        words = draw.words(3 * width * depth).view(-1, 3, width, depth)
        drawn = {
            "weights": weights.float(),
            "op": looked_up(ops, (words[:, 0] * len(ops)) >> 32, torch.int64),
            "magnitude": (words[:, 1] * self.severity) >> 32,
            "sign": 1 - 2 * (words[:, 2] >> 31),
        }
        if self.chain_depth < 0:
            return {**drawn, "depth": 1 + ((draw.words(width) * 3) >> 32)}
        return {**drawn, "depth": torch.full_like(words[:, 0, :, 0], self.chain_depth)}

    @property
    def _deepest(self) -> int:
        return 3 if self.chain_depth < 0 else self.chain_depth

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        colour_channels(self, frame)
        # without a common size the caller refuses it
        height, width = frame.fixed or (0, 0)
        last = {"Rotate": 30.0, "TranslateX": width / 3.0, "TranslateY": height / 3.0}
        last |= {"ShearX": 0.3, "ShearY": 0.3} | dict.fromkeys(_FACTORS, 0.9)
        chains = []
        for i in range(self.mixture_width):
            chain: list[ir.Pass] = []
            for k in range(self._deepest):
                op, place, sign = (params[name][:, i, k] for name in ("op", "magnitude", "sign"))
                op = torch.where(params["depth"][:, i] > k, op, 0)
                magnitude = _magnitudes(op, place, sign, _BINS, last, (4.0, 4.0))
                chain.append(operations(op, magnitude, frame, self.interpolation, self.fill))
            chains.append(tuple(chain))
        return (ir.Blend(params["weights"], tuple(chains)),)


def _gamma(draw: Draw, alpha: float) -> Tensor:
    """[N] float64 from Gamma(alpha, 1)."""
    if alpha == 1.0:
        return -smooth("log", ((draw.words(1)[:, 0] >> 8) + 1).double() * 2.0**-24)
    # below 1 of Gamma(alpha + 1), times a power of a uniform (Marsaglia and Tsang, section 6)
    d = (alpha if alpha > 1.0 else alpha + 1.0) - 1.0 / 3.0
    found = torch.full_like(draw.keys.ids, 0, dtype=torch.float64) + d
    for _ in range(6):
        x, u = draw.normal(), ((draw.words(1)[:, 0] >> 8) + 1).double() * 2.0**-24
        cube = 1.0 + x / math.sqrt(9.0 * d)
        positive = cube > 0
        v = torch.where(positive, cube * cube * cube, 1.0)
        accepted = positive & (smooth("log", u) < (0.5 * x * x + d) - d * v + d * smooth("log", v))
        # the last that is accepted: as good as the first, and nothing need be remembered
        found = torch.where(accepted, d * v, found)
    if alpha > 1.0:
        return found
    u = ((draw.words(1)[:, 0] >> 8) + 1).double() * 2.0**-24
    return found * smooth("exp", smooth("log", u) / alpha)
