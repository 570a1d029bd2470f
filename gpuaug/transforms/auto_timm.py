"""timm's automatic policies, per sample: its tables, probabilities and noisy magnitudes.  They lower to `ir.Choice`.

What differs from timm: values are float32 and not rounded after every operation, a warp interpolates as `interpolation`
says for all samples (timm draws bilinear or bicubic), and a blur is a true Gaussian of 13 taps."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpuaug import arguments, ir
from gpuaug.rng import Draw
from gpuaug.transforms.auto_tables import TIMM_AUTOAUGMENT, TIMM_RANDAUGMENT
from gpuaug.transforms.base import Drawn, Transform, colour_channels, looked_up
from gpuaug.transforms.colour import brightness, invert
from gpuaug.transforms.filters import blur
from gpuaug.transforms.geometry import matrix
from gpuaug.transforms.warps import about, affine_inverse, warp

__all__ = ["TimmAutoAugment", "TimmRandAugment"]

# the largest magnitude, unless a string says otherwise
_TOP = 10.0
# timm's magnitude noise above this is uniform
_UNIFORM = 100.0
_MOVES = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
_BLUR = 13
# ImageNet's mean, which timm fills with
_MEAN = (124 / 255, 116 / 255, 104 / 255)
Fill = float | tuple[float, ...] | None


class Config(NamedTuple):
    """What a string of timm's says."""

    name: str  # of the policy, or of the set of operations
    magnitude: float = _TOP
    layers: int = 2
    chance: float = 0.5
    noise: float = 0.0  # standard deviation of the magnitude; infinite: uniform from 0
    top: float = _TOP


@lru_cache
def parsed(config: str, kind: str) -> Config:
    """The meaning of a string of timm's; raises ValueError where it has none.  kind: "rand" or "auto" """

    def refuse(why: str) -> ValueError:
        return ValueError(f"config must be a string of timm's, got {config!r}: {why}")

    rand = kind == "rand"
    first, *sections = config.split("-")
    known = ("rand",) if rand else tuple(TIMM_AUTOAUGMENT)
    if first not in known:
        others = {"rand": "; it is for RandAugment.from_timm", "augmix": "; gpuaug.AugMix has that policy's arguments"}
        raise refuse(f"it must begin with {' or '.join(map(repr, known))}{'' if rand else others.get(first, '')}")
    said: dict[str, Any] = {"name": "plain" if rand else first}
    chosen = None
    for section in sections:
        if rand and section.startswith("t"):
            chosen = section[1:]
            if chosen not in TIMM_RANDAUGMENT:
                raise refuse(f"there is no set of operations {chosen!r}, but {', '.join(TIMM_RANDAUGMENT)}")
            continue
        found = re.fullmatch(r"(mstd|mmax|inc|m|n|p)(\d+(?:\.\d+)?)", section)
        if found is None or not (rand or found[1] == "mstd"):
            raise refuse(f"its section {section!r} means nothing")
        key, value = found[1], float(found[2])
        if key == "inc":
            said["name"] = "increasing" if value else "plain"
        else:
            said[{"mstd": "noise", "mmax": "top", "m": "magnitude", "n": "layers", "p": "chance"}[key]] = value
    if chosen:
        said["name"] = chosen
    if said.get("noise", 0.0) > _UNIFORM:
        said["noise"] = math.inf
    made = Config(**said)._replace(layers=int(said.get("layers", 2)))
    if made.layers < 1 or not 0 <= made.chance <= 1:
        raise refuse("n must be at least 1, and p in [0, 1]")
    weights = list(TIMM_RANDAUGMENT.get(made.name, {"": None}).values())
    if weights[0] is not None and made.layers > len(weights):
        raise refuse(f"{made.layers} of {len(weights)} operations can't be drawn without repeating one; lower n")
    return made


def _config(name: str, value: Any, kind: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string of timm's, such as 'rand-m9-mstd0.5-inc1', got {value!r}")
    parsed(value, kind)
    return value


def _levels(draw: Draw, magnitude: Tensor, count: int, said: Config) -> Tensor:
    """Magnitudes with their noise: [N, count] float32.  magnitude: [N, count] float64"""
    if said.noise == math.inf:
        magnitude = magnitude * draw.uniform(count=count)
    elif said.noise:
        noise = torch.stack([draw.normal(0.0, said.noise) for _ in range(count)], 1)
        magnitude = magnitude + noise
    return magnitude.clamp(min=0.0, max=said.top).float()


def _operations(
    names: tuple[str, ...], op: Tensor, level: Tensor, sign: Tensor, apply: Tensor, frame: ir.Frame, look: Any
) -> ir.Choice:
    """One operation for every sample, or none.

    op: [N] int64, places in `names`; level: [N] float64, from 0 to 1 where the magnitude runs to 10; sign: [N] int64;
    look: the transform that knows interpolation and fill"""
    signed = level * sign.double()
    branches: list[ir.Sequence] = [()]
    place = [0] * len(names)
    moves = [n for n in names if n in _MOVES]
    if moves:
        branches.append((_moved(names, op, signed, frame, look),))
    for k, name in enumerate(names):
        if name in _MOVES:
            place[k] = 1
        else:
            place[k] = len(branches)
            branches.append(_passes(name, level, signed, frame))
    return ir.Choice(torch.where(apply, looked_up(place, op, torch.int64), 0)[:, None], tuple(branches))


def _moved(names: tuple[str, ...], op: Tensor, signed: Tensor, frame: ir.Frame, look: Any) -> ir.Warp:
    """Rotation, shears and shifts as one warp; the samples of other operations stay where they are.

    A shear is about the corner of the image, as Pillow's transform is."""
    zero = torch.zeros_like(signed)
    of = {n: torch.where(op == k, signed, zero) for k, n in enumerate(names) if n in _MOVES}
    angle, x, y = (of.get(n, zero) for n in ("Rotate", "ShearX", "ShearY"))
    angle, x, y = angle * 30.0, x * 0.3, y * 0.3
    height, width = frame.size.double().unbind(1)
    across, down = of.get("TranslateXRel", zero) * 0.45 * width, of.get("TranslateYRel", zero) * 0.45 * height
    turned = affine_inverse(about(frame, None), -torch.deg2rad(angle), (0.0, 0.0), 1.0, (0.0, 0.0))
    moved = matrix(1.0, x, x * 0.5 + across, y, 1.0, y * 0.5 + down, signed)
    return warp(frame, frame, ir.product(turned, moved), look.interpolation, look.fill)


def _factor(level: Tensor, signed: Tensor) -> Tensor:
    return (level * 1.8 + 0.1).float()


def _increasing(level: Tensor, signed: Tensor) -> Tensor:
    return (1.0 + signed * 0.9).clamp(min=0.1).float()


def _cut(level: Tensor, steps: float) -> Tensor:
    """int(level * steps): [N] int64."""
    return (level * steps).long()


_FACTORS: dict[str, Callable[[Tensor], ir.Pass]] = {
    "Brightness": brightness,
    "Color": ir.Saturation,
    "Contrast": ir.Contrast,
    "Sharpness": ir.Sharpness,
}


def _passes(name: str, level: Tensor, signed: Tensor, frame: ir.Frame) -> ir.Sequence:
    """What an operation that moves no pixels becomes."""
    base = name.removesuffix("Increasing")
    if base in _FACTORS:
        return (_FACTORS[base]((_increasing if name != base else _factor)(level, signed)),)
    if base == "Solarize":
        threshold = _cut(level, 256.0).clamp(max=256)
        return (ir.Solarize((256 - threshold if name != base else threshold).float() / 255),)
    if base.startswith("Posterize"):
        bits = _cut(level, 4.0).clamp(max=4)
        return (ir.Posterize({"Posterize": bits, "PosterizeIncreasing": 4 - bits}.get(name, bits + 4)),)
    rows = torch.zeros_like(level).float()
    if name == "SolarizeAdd":
        return (ir.AddBelow(_cut(level, 110.0).clamp(max=128).float() / 255, rows + 128 / 255),)
    if name == "Desaturate":
        return (ir.Saturation((0.5 - 0.5 * level).clamp(min=0.0).float()),)
    if name == "GaussianBlur":
        sigma = (0.1 + 1.9 * level).clamp(max=2.0).float()
        return (blur(torch.stack([sigma, sigma], 1), (_BLUR, _BLUR), frame, "timm's GaussianBlur"),)
    return {"AutoContrast": (ir.Autocontrast(),), "Equalize": (ir.Equalize(),), "Invert": (invert(rows),)}[name]


class _Timm(Transform):
    interpolation: str
    fill: Fill
    checks = {
        "interpolation": partial(arguments.interpolation, allowed=("nearest", "bilinear")),
        "fill": arguments.fill,
    }

    def _each(self, names: tuple[str, ...], params: Drawn, frame: ir.Frame) -> ir.Sequence:
        """A choice for each column of the parameters."""
        colour_channels(self, frame)
        passes = []
        for op, level, sign, apply in zip(
            *(params[n].unbind(1) for n in ("op", "magnitude", "sign", "apply")), strict=True
        ):
            passes.append(_operations(names, op, level.double() / _TOP, sign, apply, frame, self))
        return tuple(passes)


@dataclass(frozen=True)
class TimmRandAugment(_Timm):
    """timm's RandAugment, by the string that its training script takes.

    config: "rand" and, in any order, m (magnitude, 10), n (operations, 2), p (probability of each, 0.5), mstd (noise of
    the magnitude; above 100 it is uniform from 0), mmax (its upper bound, 10), inc1 (operations that grow with it), t
    and the name of a set: "weights", "3a", "3aw"; as in "rand-m9-mstd0.5-inc1"."""

    config: str = "rand-m9-mstd0.5-inc1"
    interpolation: str = "bilinear"
    fill: Fill = _MEAN
    example = {"config": "rand-m9-n3-mstd0.5-inc1", "fill": 0.5}
    checks = {"config": partial(_config, kind="rand")}

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        said = parsed(self.config, "rand")
        weights, n = list(TIMM_RANDAUGMENT[said.name].values()), said.layers
        if weights[0] is None:
            op = (draw.words(n) * len(weights)) >> 32
        else:
            op = _without_repeating(draw, [w or 0.0 for w in weights], n)
        magnitude = torch.full_like(op, 1).double() * said.magnitude
        return {
            "op": op,
            "apply": draw.uniform(count=n) < said.chance,
            "magnitude": _levels(draw, magnitude, n, said),
            "sign": 1 - 2 * (draw.words(n) >> 31),
        }

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return self._each(tuple(TIMM_RANDAUGMENT[parsed(self.config, "rand").name]), params, frame)


def _without_repeating(draw: Draw, weights: list[float], count: int) -> Tensor:
    """[N, count] int64: places drawn one after the other by weight, none of them twice."""
    u = draw.uniform(count=count)
    left = [torch.full_like(u[:, 0], w) for w in weights]
    chosen: list[Tensor] = []
    for k in range(count):
        total = left[0]
        for weight in left[1:]:
            total = total + weight
        target, reached = u[:, k] * total, torch.zeros_like(total)
        # the last that has a weight, where rounding leaves the target beyond the sum
        place = torch.zeros_like(total).long()
        found = torch.zeros_like(total) > 1
        for i, weight in enumerate(left):
            reached = reached + weight
            here = ~found & (weight > 0)
            place = torch.where(here, i, place)
            found = found | (here & (target < reached))
        chosen.append(place)
        left = [torch.where(place == i, 0.0, weight) for i, weight in enumerate(left)]
    return torch.stack(chosen, 1)


@dataclass(frozen=True)
class TimmAutoAugment(_Timm):
    """timm's AutoAugment, by the string that its training script takes.

    config: the policy, "original", "originalr", "v0" or "v0r", and perhaps mstd, the noise of the magnitude: as in
    "original-mstd0.5"."""

    config: str = "original-mstd0.5"
    interpolation: str = "bilinear"
    fill: Fill = _MEAN
    example = {"config": "v0-mstd0.5", "fill": 0.5}
    checks = {"config": partial(_config, kind="auto")}

    def _table(self) -> tuple[Any, ...]:
        return TIMM_AUTOAUGMENT[parsed(self.config, "auto").name]

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(op for pair in self._table() for op, _, _ in pair))

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        table = self._table()
        policy = (draw.words(1)[:, 0] * len(table)) >> 32
        op, chance, magnitude = (
            torch.stack([looked_up([entry(pair[k]) for pair in table], policy, dtype) for k in range(2)], 1)
            for entry, dtype in (
                (lambda step: self._names.index(step[0]), torch.int64),
                (lambda step: step[1], torch.float64),
                (lambda step: step[2], torch.float64),
            )
        )
        return {
            "op": op,
            "apply": draw.uniform(count=2) < chance,
            "magnitude": _levels(draw, magnitude, 2, parsed(self.config, "auto")),
            "sign": 1 - 2 * (draw.words(2) >> 31),
        }

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return self._each(self._names, params, frame)
