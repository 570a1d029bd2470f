"""Specs of the transforms that write over pixels: noise and erasing."""

import math
from typing import Any

import numpy as np
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from oracles import Args, Draws, Sample, asked, coin, nothing, pixel_normals, pixel_words
from torch import Tensor

from specs.base import BAD_P, BAD_RANGES, INF, NAN, RGB, Spec, refused


def salt_and_pepper(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    amount, salt = a.get("amount", 0.05), a.get("salt_vs_pepper", 0.5)
    words = pixel_words(s, *x.shape)[: len(x)] if a.get("per_channel") else pixel_words(s, *x.shape)[:1]
    u = torch.from_numpy((words >> np.uint64(8)).astype(np.float64) * 2.0**-24).float()
    out = torch.where(u < np.float32(amount), torch.zeros(()), x)
    return torch.where(u < np.float32(amount * salt), torch.ones(()), out)


def gaussian_noise(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    out = x + a.get("mean", 0.0) + a.get("sigma", 0.1) * pixel_normals(s, *x.shape)
    return out.clamp(0, 1) if a.get("clip", True) else out


def erase(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    if not p["apply"]:
        return x
    for k in range(most(a)):
        i, j, h, w, v = (p[name] if most(a) == 1 else p[name][k] for name in "ijhwv")
        if not h or not w:
            continue
        i, j, h, w = int(i), int(j), int(h), int(w)
        if a.get("value") == "random" or a.get("mode") == "pixel":
            x = F.erase(x, i, j, h, w, pixel_normals(s, *x.shape)[:, i : i + h, j : j + w])
        elif a.get("mode") == "rand":
            x = F.erase(x, i, j, h, w, v[:, None, None])
        else:
            value = a.get("value", 0.0)
            colour = torch.tensor(value if isinstance(value, tuple) else (value,) * len(x))
            x = F.erase(x, i, j, h, w, colour[:, None, None])
    return x


def most(a: Args) -> int:
    """The most rectangles that an image gets."""
    return a.get("max_count") or a.get("min_count", 1)


def drawn_erasing(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    if most(a) > 1 or "mode" in a:
        return drawn_by_timm(a, n, size, rng)

    def read(p: Any) -> dict[str, Any]:
        failed = p["v"] is None
        return {"i": p["i"], "j": p["j"], "h": 0 if failed else p["h"], "w": 0 if failed else p["w"]}

    value = a.get("value", 0.0)
    box = asked(v2.RandomErasing(**{**a, "value": 0.0}), n, size, rng, read)
    row = (math.nan,) * 3 if value == "random" else value if isinstance(value, tuple) else (value,) * 3
    return {"apply": coin(rng, n, a.get("p", 0.5)), **box, "v": np.tile(np.asarray(row, np.float64), (n, 1))}


def drawn_by_timm(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    """timm's rule for several rectangles: each of ten tries of a share of the area, over their number."""
    height, width = size
    low, high = a.get("scale", (0.02, 0.33))
    ratio = a.get("ratio", (0.3, 3.3))
    count = rng.integers(a.get("min_count", 1), most(a) + 1, n)
    out = {name: np.zeros((n, most(a)), np.int64) for name in "ijhw"}
    for row in range(n):
        for k in range(count[row]):
            area = rng.uniform(low, high, 10) * height * width / count[row]
            aspect = np.exp(rng.uniform(*np.log(ratio), 10))
            h, w = np.rint(np.sqrt(area * aspect)).astype(int), np.rint(np.sqrt(area / aspect)).astype(int)
            fits = np.flatnonzero((h < height) & (w < width))
            if len(fits):
                h, w = h[fits[0]], w[fits[0]]
                at = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
                for name, value in zip("ijhw", (*at, h, w), strict=True):
                    out[name][row, k] = value
    v = rng.normal(size=(n, most(a), 3)) if a.get("mode") == "rand" else np.full((n, most(a), 3), a.get("value", 0.0))
    drawn = {**out, "v": np.full_like(v, math.nan) if a.get("mode") == "pixel" else v}
    if most(a) == 1:
        drawn = {name: value[:, 0] for name, value in drawn.items()}
    return {"apply": coin(rng, n, a.get("p", 0.5)), **drawn}


SPECS = {
    "GaussianNoise": Spec(
        arguments=({}, {"mean": 0.1, "sigma": 0.3}, {"sigma": 0.3, "clip": False}),
        tolerance="colour",
        meaning=gaussian_noise,
        draws=nothing,
        refuses=(
            *refused("mean", NAN, INF, "0"),
            *refused("sigma", -0.1, NAN, INF, None),
            *refused("clip", 1, "no"),
        ),
        # unclamped noise leaves [0, 1]
        anywhere=lambda a: a.get("clip", True),
    ),
    "RandomErasing": Spec(
        arguments=(
            {"p": 0.75, "value": RGB},
            {"p": 1.0, "value": "random"},
            {"p": 1.0, "scale": (0.3, 1.0), "ratio": (0.1, 0.4), "value": 0.6},
            {},
            {"p": 1.0, "mode": "rand", "max_count": 3},
            {"p": 0.8, "mode": "pixel"},
            {"p": 1.0, "value": 0.7, "min_count": 2},
        ),
        tolerance="colour",
        meaning=erase,
        draws=drawn_erasing,
        refuses=(
            *BAD_P,
            *refused("scale", *BAD_RANGES, (-0.1, 0.3), (0.1, 1.5)),
            *refused("ratio", *BAD_RANGES, (0.0, 1.0), (-1.0, 1.0)),
            *refused("value", "noise", NAN, (), (0.1, NAN), None, {"a": 1}),
            *refused("inplace", "yes"),
            *refused("mode", "noise", None, 3, True),
            *refused("min_count", 0, -1, 2.5, True, "2"),
            *refused("max_count", 0, -1, 2.5, True, "2"),
            *refused("num_splits", -1, 2.5, True, None),
        ),
        # timm's
        adds=frozenset({"mode", "min_count", "max_count", "num_splits"}),
        # a normal distribution leaves [0, 1]
        anywhere=lambda a: a.get("value") != "random" and "mode" not in a,
    ),
    "SaltAndPepper": Spec(
        arguments=({}, {"amount": 0.3, "salt_vs_pepper": 0.8}, {"amount": 0.5, "per_channel": True}),
        tolerance="exact",
        meaning=salt_and_pepper,
        draws=nothing,
        refuses=(
            *refused("amount", -0.1, 1.1, NAN, "0.1", None, True),
            *refused("salt_vs_pepper", -0.1, 1.1, NAN, "0.1", None, True),
            *refused("per_channel", 1, None),
        ),
        ours=True,
    ),
}
