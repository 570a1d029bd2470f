"""Specs of the transforms that give each sample a size of its own.

The arguments that go through every ring leave all samples at one size, so that they can come out as a batch; ranges are
the business of tests/test_sizes.py."""

import numpy as np
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from oracles import Args, Draws, Sample, asked, coin, interpolation, per_image_fill, resize
from torch import Tensor

from specs.base import BAD_FILL, BAD_P, BAD_RESAMPLING, INF, NAN, RGB, Spec, refused, resampled


def resized(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    mode, antialias = interpolation(a, "bilinear"), a.get("antialias", True)
    return resize(x, p["size"].tolist(), mode, antialias=antialias)


def drawn_resize(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    """The size that torchvision's resize makes of the side that it draws."""

    def read(p: Args) -> Args:
        return {"size": F.resize_image(np_zeros(size), p["size"]).shape[-2:]}

    return asked(v2.RandomResize(**a), n, size, rng, read)


def np_zeros(size: tuple[int, int]) -> Tensor:
    import torch

    return torch.zeros(1, *size)


def drawn_size(tool: type) -> object:
    return lambda a, n, size, rng: asked(tool(**a), n, size, rng, lambda p: {"size": p["size"]})


def drawn_zoom(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    padding = asked(v2.RandomZoomOut(**a), n, size, rng, lambda p: {"padding": p["padding"]})
    return {"apply": coin(rng, n, a.get("p", 0.5)), **padding}


RESIZED = (*BAD_RESAMPLING, *refused("antialias", 1, "yes"))

SPECS = {
    "RandomResize": Spec(
        arguments=(
            {"min_size": 14, "max_size": 15},
            {"min_size": 60, "max_size": 61, "interpolation": "nearest"},
            {"min_size": 25, "max_size": 26, "interpolation": "bicubic"},
        ),
        tolerance=resampled("bilinear"),
        meaning=resized,
        draws=drawn_resize,
        fine={"min_size": 3, "max_size": 9},
        refuses=(
            *refused("min_size", 0, -3, 2.5, NAN, "7", None, True),
            *refused("max_size", 0, 2.5, NAN, "7", None),
            *RESIZED,
        ),
        ties=True,
        moves=True,
    ),
    "RandomShortestSize": Spec(
        arguments=(
            {"min_size": 14},
            {"min_size": (60, 60), "max_size": 50, "antialias": False},
            {"min_size": 30, "interpolation": "lanczos"},
        ),
        tolerance=resampled("bilinear"),
        meaning=resized,
        draws=drawn_size(v2.RandomShortestSize),
        fine={"min_size": 9},
        refuses=(
            *refused("min_size", 0, -3, 2.5, NAN, "7", None, (), (3, 0), (5, 2.5), True),
            *refused("max_size", 0, -3, 2.5, "7", True),
            *RESIZED,
        ),
        moves=True,
    ),
    "ScaleJitter": Spec(
        arguments=(
            {"target_size": (18, 16), "scale_range": (0.8, 0.8)},
            {"target_size": (40, 90), "scale_range": (1.5, 1.5), "interpolation": "nearest-exact"},
            {"target_size": (30, 90), "scale_range": (0.875, 0.875), "interpolation": "bicubic", "antialias": False},
        ),
        tolerance=resampled("bilinear"),
        meaning=resized,
        draws=drawn_size(v2.ScaleJitter),
        fine={"target_size": (9, 12)},
        refuses=(
            *refused("target_size", 7, (7,), (0, 3), (3, -1), (2.5, 3), (NAN, 3), "ab", None, (1, 2, 3)),
            *refused("scale_range", (0.0, 1.0), (2.0, 1.0), (NAN, 1.0), (1.0, INF), (0.5,), 0.5, None, "ab"),
            *RESIZED,
        ),
        ties=True,
        moves=True,
    ),
    "RandomZoomOut": Spec(
        arguments=({"side_range": (1.5, 1.5), "p": 1.0, "fill": RGB}, {"side_range": (2.0, 2.0), "p": 1.0}),
        tolerance="exact",
        meaning=lambda a, x, p, s: F.pad(x, p["padding"].tolist(), fill=per_image_fill(a)),
        draws=drawn_zoom,
        refuses=(
            *BAD_P,
            *BAD_FILL,
            *refused("side_range", (0.5, 2.0), (3.0, 2.0), (NAN, 2.0), (1.0, INF), (1.0,), 2.0, None, "ab"),
        ),
        moves=True,
    ),
}
