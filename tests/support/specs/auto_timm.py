"""Specs of timm's automatic policies, by the tables and level functions of timm/data/auto_augment.py."""

import math
import re
from typing import Any

import numpy as np
import torch
import torchvision.transforms.v2.functional as F
from oracles import Args, Draws, Sample, interpolation
from torch import Tensor

from specs.base import BAD_FILL, BAD_INTERPOLATION, COLOUR, Spec, refused

PLAIN = """AutoContrast Equalize Invert Rotate Posterize Solarize SolarizeAdd Color Contrast Brightness Sharpness ShearX
ShearY TranslateXRel TranslateYRel""".split()
INCREASING = [
    f"{n}Increasing" if n in "Posterize Solarize Color Contrast Brightness Sharpness".split() else n for n in PLAIN
]
WEIGHTS = {
    "Rotate": 3, "ShearX": 2, "ShearY": 2, "TranslateXRel": 1, "TranslateYRel": 1, "ColorIncreasing": 0.25,
    "SharpnessIncreasing": 0.25, "AutoContrast": 0.25, "SolarizeIncreasing": 0.05, "SolarizeAdd": 0.05,
    "ContrastIncreasing": 0.05, "BrightnessIncreasing": 0.05, "Equalize": 0.05, "PosterizeIncreasing": 0.05,
    "Invert": 0.05,
}  # fmt: skip
THREE = {
    "SolarizeIncreasing": 6, "Desaturate": 6, "GaussianBlur": 6, "Rotate": 3, "ShearX": 2, "ShearY": 2,
    "PosterizeIncreasing": 1, "AutoContrast": 1, "ColorIncreasing": 1, "SharpnessIncreasing": 1,
    "ContrastIncreasing": 1, "BrightnessIncreasing": 1, "Equalize": 1, "Invert": 1,
}  # fmt: skip
# the first two of the 25 pairs of v0, enough to find the others by
V0 = "Equalize ShearY Color Rotate Solarize SolarizeAdd ShearX Invert Posterize AutoContrast TranslateYRel".split()
FACTORS = {"Color": "saturation", "Brightness": "brightness", "Contrast": "contrast", "Sharpness": "sharpness"}


def names(config: str) -> list[str]:
    if config.startswith("v0"):
        return [n if n != "Posterize" or not config.startswith("v0r") else "PosterizeIncreasing" for n in V0]
    if "tweights" in config:
        return list(WEIGHTS)
    if "t3aw" in config:
        return list(THREE)
    return INCREASING if "inc1" in config else PLAIN


def warped(a: Args, x: Tensor, rows: list[float]) -> Tensor:
    """Pillow's affine map, which acts on x + 0.5, by torchvision's: its inverse matrix about the middle."""
    height, width = x.shape[1:]
    p, q, r, s, t, u = rows
    cx, cy = width / 2, height / 2
    centred = [p, q, p * cx + q * cy + r - cx, s, t, s * cx + t * cy + u - cy]
    fill = a.get("fill", (124 / 255, 116 / 255, 104 / 255))
    from torchvision.transforms.v2.functional._geometry import _affine_grid, _apply_grid_transform

    theta = torch.tensor(centred, dtype=torch.float32).reshape(1, 2, 3)
    grid = _affine_grid(theta, w=width, h=height, ow=width, oh=height)
    values = None if fill is None else list(fill) if isinstance(fill, tuple) else [fill]
    return _apply_grid_transform(x, grid, interpolation(a, "bilinear").value, fill=values)


def operate(a: Args, x: Tensor, name: str, level: float, sign: int) -> Tensor:
    """One operation of timm at a level of 0 to 10, with the sign that it drew."""
    share, base = level / 10, name.removesuffix("Increasing")
    height, width = x.shape[1:]
    if base in FACTORS:
        factor = max(0.1, 1 + sign * share * 0.9) if base != name else share * 1.8 + 0.1
        return getattr(F, f"adjust_{FACTORS[base]}")(x, factor)
    if base == "Solarize":
        cut = min(256, int(share * 256))
        return F.solarize(x, (256 - cut if base != name else cut) / 255) if cut != (0 if base != name else 256) else x
    if base.startswith("Posterize"):
        bits = {"Posterize": int(share * 4), "PosterizeIncreasing": 4 - int(share * 4)}.get(name, int(share * 4) + 4)
        return F.posterize(x, bits)
    if name == "SolarizeAdd":
        return torch.where(x < 128 / 255, (x + min(128, int(share * 110)) / 255).clamp(max=1), x)
    if name == "Desaturate":
        return F.adjust_saturation(x, 1 - (0.5 + 0.5 * share))
    if name == "GaussianBlur":
        return F.gaussian_blur(x, [13, 13], [0.1 + 1.9 * share] * 2)
    if name == "Rotate":
        turn = -math.radians(sign * share * 30)
        cos, sin, cx, cy = math.cos(turn), math.sin(turn), width / 2, height / 2
        return warped(a, x, [cos, sin, cx - cos * cx - sin * cy, -sin, cos, cy + sin * cx - cos * cy])
    moved = {
        "ShearX": [1, sign * share * 0.3, 0, 0, 1, 0],
        "ShearY": [1, 0, 0, sign * share * 0.3, 1, 0],
        "TranslateXRel": [1, 0, sign * share * 0.45 * width, 0, 1, 0],
        "TranslateYRel": [1, 0, 0, 0, 1, sign * share * 0.45 * height],
    }
    if name in moved:
        return warped(a, x, moved[name])
    return {"AutoContrast": F.autocontrast, "Equalize": F.equalize, "Invert": F.invert}[name](x)


def augment(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    known = names(a.get("config", "rand-m9-mstd0.5-inc1"))
    steps = zip(*(p[n].tolist() for n in ("op", "magnitude", "sign", "apply")), strict=True)
    for op, level, sign, apply in steps:
        x = operate(a, x, known[op], level, sign) if apply else x
    return x


def said(config: str, key: str, default: float) -> float:
    found = re.search(rf"-{key}([\d.]+)", config)
    return float(found[1]) if found else default


def drawn(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    config = a.get("config", "rand-m9-mstd0.5-inc1")
    known, layers = names(config), int(said(config, "n", 2))
    shape = (n, layers)
    op = rng.integers(0, len(known), shape)
    if "tweights" in config or "t3aw" in config:
        chance = np.array(list((WEIGHTS if "tweights" in config else THREE).values()), float)
        op = np.array([rng.choice(len(known), layers, replace=False, p=chance / chance.sum()) for _ in range(n)])
    level = np.full(shape, said(config, "m", 10))
    noise = said(config, "mstd", 0)
    level = rng.uniform(0, level) if noise > 100 else level + noise * rng.standard_normal(shape)
    return {
        "op": op,
        "apply": rng.random(shape) < said(config, "p", 0.5),
        "magnitude": level.clip(0, said(config, "mmax", 10)),
        "sign": 1 - 2 * rng.integers(0, 2, shape),
    }


def drawn_pairs(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    """From the 25 pairs of timm's v0."""
    table = [
        [(V0.index(op), float(p), float(m)) for op, p, m in (step.split() for step in row.split(","))]
        for row in PAIRS.strip().splitlines()
    ]
    policy = rng.integers(0, 25, n)
    op, chance, level = (np.array([[step[i] for step in row] for row in table])[policy] for i in range(3))
    level = level + said(a.get("config", "original-mstd0.5"), "mstd", 0) * rng.standard_normal((n, 2))
    return {
        "op": op.astype(np.int64),
        "apply": rng.random((n, 2)) < chance,
        "magnitude": level.clip(0, 10),
        "sign": 1 - 2 * rng.integers(0, 2, (n, 2)),
    }


PAIRS = """
Equalize 0.8 1, ShearY 0.8 4
Color 0.4 9, Equalize 0.6 3
Color 0.4 1, Rotate 0.6 8
Solarize 0.8 3, Equalize 0.4 7
Solarize 0.4 2, Solarize 0.6 2
Color 0.2 0, Equalize 0.8 8
Equalize 0.4 8, SolarizeAdd 0.8 3
ShearX 0.2 9, Rotate 0.6 8
Color 0.6 1, Equalize 1.0 2
Invert 0.4 9, Rotate 0.6 0
Equalize 1.0 9, ShearY 0.6 3
Color 0.4 7, Equalize 0.6 0
Posterize 0.4 6, AutoContrast 0.4 7
Solarize 0.6 8, Color 0.6 9
Solarize 0.2 4, Rotate 0.8 9
Rotate 1.0 7, TranslateYRel 0.8 9
ShearX 0.0 0, Solarize 0.8 4
ShearY 0.8 0, Color 0.6 4
Color 1.0 0, Rotate 0.6 2
Equalize 0.8 4, Equalize 0.0 8
Equalize 1.0 4, AutoContrast 0.6 2
ShearY 0.4 7, SolarizeAdd 0.6 7
Posterize 0.8 2, Solarize 0.6 10
Solarize 0.6 8, Equalize 0.6 1
Color 0.8 6, Rotate 0.4 5
"""
BAD_CONFIG: tuple[Any, ...] = (
    "",
    "m9",
    "rand-z3",
    "rand-m",
    "rand-n0",
    "rand-p2",
    "rand-tnothing",
    "augmix-m5",
    None,
    9,
)

SPECS = {
    "TimmRandAugment": Spec(
        arguments=(
            {"config": "rand-m9-n3-mstd0.5-inc1", "fill": 0.5},
            {"config": "rand-m7-p0.8", "fill": None},
            {"config": "rand-m15-mmax20-n2-mstd101-tweights-p1", "fill": (0.2, 0.7, 0.4)},
            {"config": "rand-m6-n4-t3aw-p0.9", "fill": 0.0},
        ),
        tolerance="resample, jump",
        meaning=augment,
        draws=drawn,
        refuses=(*refused("config", *BAD_CONFIG), *BAD_INTERPOLATION, *BAD_FILL),
        channels=COLOUR,
        # the blur of one set reaches six pixels
        small=lambda a, h, w: "t3aw" not in a.get("config", ""),
        anywhere=lambda a: "t3aw" not in a.get("config", ""),
        ties=True,
        moves=True,
        ours=True,
    ),
    "TimmAutoAugment": Spec(
        arguments=({"config": "v0-mstd0.5", "fill": 0.5}, {"config": "v0r", "fill": (0.2, 0.7, 0.4)}),
        tolerance="resample, jump",
        meaning=augment,
        draws=drawn_pairs,
        refuses=(*refused("config", *BAD_CONFIG, "rand-m9", "v0-m3"), *BAD_INTERPOLATION, *BAD_FILL),
        channels=COLOUR,
        ties=True,
        moves=True,
        ours=True,
    ),
}
