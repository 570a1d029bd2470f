"""What several Specs say transforms by: torchvision and plain numpy.  Nothing here imports gpuaug."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from PIL import Image
from torch import Tensor

Args = dict[str, Any]
Draws = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """Who a sample is, and the batch around it."""

    row: int
    images: tuple[Tensor, ...]
    seed: int
    epoch: int
    id: int
    occurrence: int
    slot: int = 0


# ---- randomness of pixels, from SEMANTICS.md


def philox(seed: int, c0: np.ndarray, c1: int, c2: int, c3: int) -> list[np.ndarray]:
    """Philox4x32-10 in numpy: four uint64 arrays holding 32-bit words."""
    low = np.uint64(0xFFFFFFFF)
    a, b, c, d = np.broadcast_arrays(*(np.asarray(v, np.uint64) for v in (c0, c1, c2, c3)))
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        p, q = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, b, c, d = (
            (q >> np.uint64(32)) ^ b ^ np.uint64(key[0]),
            q & low,
            (p >> np.uint64(32)) ^ d ^ np.uint64(key[1]),
            p & low,
        )
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return [a, b, c, d]


def pixel_words(s: Sample, channels: int, height: int, width: int) -> np.ndarray:
    """The word of every value, [C, H, W] uint64, and under 4 * ceil(C / 4) - C further rows the rest of the blocks."""
    blocks = math.ceil(channels / 4)
    c1 = (1 << 28) | (s.occurrence << 16) | s.slot
    words = philox(s.seed, np.arange(height * width * blocks), c1, s.id % 2**32, ((s.id >> 32) << 18) | s.epoch)
    return np.stack(words, -1).reshape(height, width, 4 * blocks).transpose(2, 0, 1)


def pixel_normals(s: Sample, channels: int, height: int, width: int) -> Tensor:
    w = (pixel_words(s, channels, height, width) >> np.uint64(8)).astype(np.float64)
    radius, turn = np.sqrt(-2 * np.log((w[0::2] + 1) * 2.0**-24)), 2 * math.pi * w[1::2] * 2.0**-24
    z = np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1).reshape(-1, height, width)
    return torch.from_numpy(z[:channels]).float()


# ---- values, by torchvision


def interpolation(a: Args, default: str) -> v2.InterpolationMode:
    return v2.InterpolationMode(a.get("interpolation", default))


@cache
def torch_has_lanczos() -> bool:
    """Whether this torch resizes tensors by Lanczos, as its later versions do."""
    try:
        F.resize(torch.zeros(1, 4, 4), [3, 3], v2.InterpolationMode.LANCZOS, antialias=True)
    except (NotImplementedError, ValueError):
        return False
    return True


def resize(
    x: Tensor, size: list[int] | None, mode: v2.InterpolationMode, max_size: int | None = None, antialias: bool = True
) -> Tensor:
    """torchvision's resize of [..., H, W] float32; Pillow's, from which torch has its Lanczos, where torch has none."""
    if mode is not v2.InterpolationMode.LANCZOS or torch_has_lanczos():
        return F.resize(x, size, mode, max_size, antialias)
    height, width = F.resize(x.reshape(-1, *x.shape[-2:])[:1], size, v2.InterpolationMode.NEAREST, max_size).shape[-2:]
    planes = [Image.fromarray(plane.numpy()) for plane in x.reshape(-1, *x.shape[-2:]).contiguous()]
    made = [np.asarray(plane.resize((width, height), Image.Resampling.LANCZOS)) for plane in planes]
    return torch.from_numpy(np.stack(made)).reshape(*x.shape[:-2], height, width)


def pair(size: Any) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)


def per_image_fill(a: Args) -> Any:
    fill = a.get("fill", 0)
    return list(fill) if isinstance(fill, tuple) else fill


def when(make: Callable[[Args, Tensor, Args, Sample], Tensor]) -> Callable[[Args, Tensor, Args, Sample], Tensor]:
    return lambda a, x, p, s: make(a, x, p, s) if bool(p["apply"]) else x


def same(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    return x


# ---- draws: torchvision's own where it draws per call, else numpy

WHITE = torch.ones(1)


def coin(rng: np.random.Generator, n: int, p: float) -> np.ndarray:
    return rng.random(n) < p


def asked(
    tool: Any,
    n: int,
    size: tuple[int, int],
    rng: np.random.Generator,
    read: Callable[[Any], dict[str, Any]],
    channels: int = 3,
) -> Draws:
    """`make_params` n times."""
    image = WHITE.expand(channels, *size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        rows = [read(tool.make_params([image])) for _ in range(n)]
    return {k: np.asarray([r[k] for r in rows]) for k in rows[0]}


def torchvision(cls: type, *names: str, **fixed: Any) -> Callable[..., Draws]:
    return lambda a, n, size, rng: asked(cls(**{**a, **fixed}), n, size, rng, lambda p: {k: p[k] for k in names})


def nothing(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    return {}


def only_apply(default: float) -> Callable[..., Draws]:
    return lambda a, n, size, rng: {"apply": coin(rng, n, a.get("p", default))}


def only(params: Any, row: int) -> Any:
    """The parameters of one sample."""
    if isinstance(params, dict):
        return {k: only(v, row) for k, v in params.items()}
    return [only(v, row) for v in params] if isinstance(params, list) else params[row]
