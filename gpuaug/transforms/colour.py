"""Transforms that change values, not positions.  All lower to `ir.Pointwise` passes."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from gpuaug import arguments, ir
from gpuaug.rng import Draw
from gpuaug.transforms.base import Drawn, Transform, WithProbability, colour_channels, when

__all__ = [
    "RGB",
    "ColorJitter",
    "Grayscale",
    "RandomAutocontrast",
    "RandomChannelPermutation",
    "RandomEqualize",
    "RandomGrayscale",
    "RandomInvert",
    "RandomPhotometricDistort",
    "RandomPosterize",
    "RandomSolarize",
]

_FACTORS = ("brightness", "contrast", "saturation", "hue")


def _jitter(name: str, value: Any) -> tuple[float, float] | None:
    """torchvision's ColorJitter._check_input: None where nothing would change."""
    low, high, centre = (-0.5, 0.5, 0.0) if name == "hue" else (0.0, float("inf"), 1.0)
    if value is None:
        return None
    if isinstance(value, list | tuple):
        pair = arguments.interval(name, value, low, high)
    else:
        v = arguments.number(name, value, 0.0)
        pair = (centre - v, centre + v) if name == "hue" else (max(0.0, centre - v), centre + v)
        arguments.interval(name, pair, low, high)
    return None if pair == (centre, centre) else pair


def _one_or_three(name: str, value: Any) -> int:
    if arguments.integer(name, value, 1, 3) == 2:
        raise ValueError(f"{name} must be 1 or 3, got 2")
    return int(value)


def brightness(factor: torch.Tensor) -> ir.Affine:
    """clamp(f x).  factor: [N] float32"""
    return ir.Affine(factor[:, None], torch.zeros_like(factor)[:, None])


def invert(like: torch.Tensor) -> ir.Affine:
    """1 - x for every sample of `like`."""
    ones = ir.rows((1.0,), like, torch.float32)
    return ir.Affine(-ones, ones, clamp=False)


@dataclass(frozen=True)
class ColorJitter(Transform):
    """Brightness, contrast, saturation and hue by random factors, in a random order.

    A number v stands for [max(0, 1 - v), 1 + v], or [-v, v] for hue; a pair for itself.  What is not given is left
    alone."""

    brightness: float | tuple[float, float] | None = None
    contrast: float | tuple[float, float] | None = None
    saturation: float | tuple[float, float] | None = None
    hue: float | tuple[float, float] | None = None
    example = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    checks = dict.fromkeys(_FACTORS, _jitter)

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        order = draw.permutation(4)
        u = draw.uniform(count=4)
        drawn: Drawn = {"fn_idx": order}
        for i, name in enumerate(_FACTORS):
            low, high = getattr(self, name) or ((0.0, 0.0) if name == "hue" else (1.0, 1.0))
            drawn[f"{name}_factor"] = (low + (high - low) * u[:, i]).float()
        return drawn

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        colour_channels(self, frame)
        passes = (brightness, ir.Contrast, ir.Saturation, ir.Hue)
        branches = tuple(
            (make(params[f"{name}_factor"]),) if getattr(self, name) is not None else ()
            for name, make in zip(_FACTORS, passes, strict=True)
        )
        used = [b for b in branches if b]
        return sum(used, ()) if len(used) < 2 else (ir.Choice(params["fn_idx"], branches),)


@dataclass(frozen=True)
class Grayscale(Transform):
    """0.2989 R + 0.587 G + 0.114 B, in one channel or repeated in three."""

    num_output_channels: int = 1
    example = {"num_output_channels": 3}
    checks = {"num_output_channels": _one_or_three}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        colour_channels(self, frame)
        return (ir.Gray(self.num_output_channels),)

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        return replace(frame, channels=self.num_output_channels)


@dataclass(frozen=True)
class RandomGrayscale(WithProbability):
    """Gray in every channel, with probability p."""

    p: float = 0.1
    example = {"p": 0.5}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        colour_channels(self, frame)
        return when(params["apply"], ir.Gray(frame.channels))


@dataclass(frozen=True)
class RandomInvert(WithProbability):
    """1 - x, with probability p."""

    p: float = 0.5
    example = {"p": 0.5}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return when(params["apply"], invert(params["apply"]))


@dataclass(frozen=True)
class RandomSolarize(WithProbability):
    """1 - x where x >= threshold, with probability p.  threshold: in [0, 1], on uint8 images too (torchvision's 128 is
    128 / 255)."""

    threshold: float
    p: float = 0.5
    example = {"threshold": 0.5}
    checks = {"threshold": partial(arguments.share, call="RandomSolarize({})")}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        threshold = ir.rows((self.threshold,), params["apply"], torch.float32)[:, 0]
        return when(params["apply"], ir.Solarize(threshold))


@dataclass(frozen=True)
class RandomPosterize(WithProbability):
    """Keep the upper `bits` bits of 8, with probability p."""

    bits: int
    p: float = 0.5
    example = {"bits": 3}
    checks = {"bits": partial(arguments.integer, low=0, high=8)}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return when(params["apply"], ir.Posterize(ir.rows((self.bits,), params["apply"])[:, 0]))


@dataclass(frozen=True)
class RandomAutocontrast(WithProbability):
    """Stretch each channel to all of [0, 1], with probability p; a constant channel stays as it is."""

    p: float = 0.5
    example = {"p": 0.75}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        colour_channels(self, frame)
        return when(params["apply"], ir.Autocontrast())


@dataclass(frozen=True)
class RandomEqualize(WithProbability):
    """Flatten each channel's histogram of 256 levels, with probability p, by Pillow's table."""

    p: float = 0.5
    example = {"p": 0.75}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        colour_channels(self, frame)
        return when(params["apply"], ir.Equalize())


@dataclass(frozen=True)
class RGB(Transform):
    """Three channels: a gray image's one is repeated, and images of more stay as they are."""

    example = {}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        if frame.channels == 2:
            raise ValueError("RGB needs images of 1, 3 or more channels, got 2; select the channels first")
        return (ir.Gray(3),) if frame.channels == 1 else ()

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        return replace(frame, channels=3) if frame.channels == 1 else frame


@dataclass(frozen=True)
class RandomChannelPermutation(Transform):
    """The channels in a random order."""

    example = {}

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        return {"permutation": draw.permutation(frame.channels)}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return (ir.PermuteChannels(params["permutation"]),)


@dataclass(frozen=True)
class RandomPhotometricDistort(Transform):
    """Brightness, contrast, saturation, hue and the order of channels, each with probability p (Liu et al., SSD, 2016).

    The contrast comes before saturation and hue, or after them, by a fair coin.  The four ranges are (low, high)."""

    brightness: tuple[float, float] = (0.875, 1.125)
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: tuple[float, float] = (-0.05, 0.05)
    p: float = 0.5
    example = {"brightness": (0.7, 1.3), "p": 0.75}
    checks = {
        **dict.fromkeys(_FACTORS[:3], partial(arguments.interval, low=0.0)),
        "hue": partial(arguments.interval, low=-0.5, high=0.5),
        "p": arguments.probability,
    }

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        u, coins = draw.uniform(count=4), draw.uniform(count=6)
        drawn: Drawn = {"apply": coins[:, :5] < self.p, "contrast_before": coins[:, 5] < 0.5}
        for i, name in enumerate(_FACTORS):
            low, high = getattr(self, name)
            drawn[f"{name}_factor"] = (low + (high - low) * u[:, i]).float()
        return {**drawn, "channel_permutation": draw.permutation(frame.channels)}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        colour_channels(self, frame)
        of = {name: params[f"{name}_factor"] for name in _FACTORS}
        bright, contrast, saturated, turned, permuted = params["apply"].unbind(1)
        before = params["contrast_before"]
        return (
            *when(bright, brightness(of["brightness"])),
            *when(contrast & before, ir.Contrast(of["contrast"])),
            *when(saturated, ir.Saturation(of["saturation"])),
            *when(turned, ir.Hue(of["hue"])),
            *when(contrast & ~before, ir.Contrast(of["contrast"])),
            *when(permuted, ir.PermuteChannels(params["channel_permutation"])),
        )
