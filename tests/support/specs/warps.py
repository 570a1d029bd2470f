"""Specs of the transforms that turn, shear, scale and shift."""

from unittest.mock import patch

import numpy as np
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from oracles import Args, Draws, Sample, asked, coin, interpolation, per_image_fill, pixel_words, torchvision, when
from torch import Tensor

from specs.base import (
    BAD_CENTER,
    BAD_DEGREES,
    BAD_FILL,
    BAD_INTERPOLATION,
    BAD_P,
    INF,
    NAN,
    RGB,
    Spec,
    refused,
    resampled,
)


def affine(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    return F.affine(
        x,
        angle=p["angle"].item(),
        translate=p["translate"].tolist(),
        scale=p["scale"].item(),
        shear=p["shear"].tolist(),
        interpolation=interpolation(a, "nearest"),
        fill=per_image_fill(a),
        center=a.get("center"),
    )


def rotate(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    return F.rotate(
        x,
        p["angle"].item(),
        interpolation(a, "nearest"),
        expand=a.get("expand", False),
        center=a.get("center"),
        fill=per_image_fill(a),
    )


def perspective(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    height, width = x.shape[1:]
    corners = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
    mode = interpolation(a, "bilinear")
    return F.perspective(x, corners, p["endpoints"].tolist(), interpolation=mode, fill=per_image_fill(a))


def drawn_perspective(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    """The corners that torchvision draws on its way to coefficients."""
    drawn = []

    def keep(startpoints: list[list[int]], endpoints: list[list[int]]) -> list[float]:
        drawn.append(endpoints)
        return [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]

    with patch("torchvision.transforms.v2._geometry._get_perspective_coeffs", keep):
        asked(v2.RandomPerspective(**a), n, size, rng, lambda p: {})
    return {"apply": coin(rng, n, a.get("p", 0.5)), "endpoints": np.asarray(drawn)}


def elastic(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    """torchvision's, with the field that the words of the pixels give."""
    height, width = x.shape[1:]
    words = pixel_words(s, 2, height, width)
    alpha, sigma = (v if isinstance(v, tuple) else (v, v) for v in (a.get("alpha", 50.0), a.get("sigma", 5.0)))
    field = []
    for axis, side in enumerate((width, height)):
        u = torch.from_numpy((words[axis] >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-23) - 1)[None, None]
        if sigma[axis] > 0:
            taps = int(8 * sigma[axis] + 1)
            u = F.gaussian_blur(u, [taps + (taps % 2 == 0)] * 2, list(sigma))
        field.append(u * alpha[axis] / side)
    displacement = torch.concat(field, 1).permute(0, 2, 3, 1)
    return F.elastic(x, displacement, interpolation=interpolation(a, "bilinear"), fill=per_image_fill(a))


SPECS = {
    "RandomAffine": Spec(
        arguments=(
            {
                "degrees": 30.0,
                "translate": (0.2, 0.1),
                "scale": (0.8, 1.3),
                "shear": (-10.0, 10.0, -5.0, 5.0),
                "interpolation": "bilinear",
            },
            {"degrees": (-180.0, 180.0), "interpolation": "bilinear", "fill": RGB},
            {"degrees": 90.0, "translate": (0.3, 0.3), "scale": (0.5, 2.0), "shear": 20.0},
            {"degrees": 25.0, "shear": (-15.0, 15.0), "interpolation": "bilinear", "fill": None},
            {"degrees": 45.0, "interpolation": "nearest", "fill": None, "center": (3.0, 7.5)},
            {"degrees": 60.0, "scale": (0.7, 0.9), "interpolation": "bilinear", "fill": 0.5, "center": (0.0, 0.0)},
            {"degrees": 0.0, "translate": (0.5, 0.5), "interpolation": "nearest", "fill": RGB},
        ),
        tolerance=resampled("nearest"),
        meaning=affine,
        draws=torchvision(v2.RandomAffine, "angle", "translate", "scale", "shear"),
        fine={"degrees": 10},
        refuses=(
            *BAD_DEGREES,
            *refused("translate", 0.1, (0.1,), (0.1, 1.2), (-0.1, 0.1), (NAN, 0.1), "ab", (0.1, 0.1, 0.1)),
            *refused("scale", 0.5, (0.0, 1.0), (-1.0, 1.0), (1.2, 0.8), (NAN, 1.0), (1.0, INF), (1.0,)),
            *refused("shear", -1, NAN, (5, -5), (1,), (1, 2, 3), (1, 2, 4, 3), (0, NAN), "ab"),
            *BAD_INTERPOLATION,
            *BAD_FILL,
            *BAD_CENTER,
        ),
        ties=True,
        moves=True,
    ),
    "RandomRotation": Spec(
        arguments=(
            {"degrees": 40.0, "interpolation": "bilinear"},
            {"degrees": (10.0, 170.0), "fill": RGB},
            {"degrees": 180.0, "interpolation": "bilinear", "fill": None, "center": (5.0, 30.0)},
            {"degrees": (33.0, 33.0), "expand": True, "interpolation": "bilinear", "fill": 0.7},
            {"degrees": (90.0, 90.0), "expand": True},
            {"degrees": (-117.5, -117.5), "expand": True},
            {"degrees": (33.0, 33.0), "expand": True, "center": (3.0, 7.0), "interpolation": "bilinear"},
            {"degrees": (-270.0, -270.0), "expand": True, "center": (4.5, 1.0), "interpolation": "bilinear"},
        ),
        tolerance=resampled("nearest"),
        meaning=rotate,
        draws=torchvision(v2.RandomRotation, "angle"),
        fine={"degrees": 10},
        refuses=(
            *BAD_DEGREES,
            *BAD_INTERPOLATION,
            *refused("expand", 1),
            *BAD_FILL,
            *BAD_CENTER,
        ),
        # the middle of an image of even size is a tie, which the last bit decides
        small=lambda a, h, w: a.get("interpolation", "nearest") != "nearest",
        moves=True,
    ),
    "RandomPerspective": Spec(
        arguments=(
            {"distortion_scale": 0.6, "p": 0.9},
            {"p": 1.0, "interpolation": "nearest", "fill": RGB},
            {"distortion_scale": 1.0, "p": 0.8, "fill": 0.5},
            {"distortion_scale": 0.3, "fill": None},
        ),
        tolerance=resampled("bilinear"),
        meaning=when(perspective),
        draws=drawn_perspective,
        refuses=(*BAD_P, *refused("distortion_scale", -0.1, 1.1, NAN, "1", None), *BAD_INTERPOLATION, *BAD_FILL),
        # where corners lie on a line, as those of one row do, torchvision fails, or makes what rounding gives
        small=lambda a, h, w: min(h, w) > 1 and a.get("distortion_scale", 0.5) < 1,
        ties=True,
        moves=True,
    ),
    "ElasticTransform": Spec(
        arguments=(
            {"alpha": 60.0, "sigma": 2.0},
            {"alpha": (40.0, 90.0), "sigma": (1.0, 2.2), "fill": RGB},
            {"alpha": 9.0, "sigma": 0.0, "interpolation": "nearest", "fill": None},
        ),
        tolerance=resampled("bilinear"),
        meaning=elastic,
        refuses=(
            *refused("alpha", -1.0, NAN, INF, (1.0, 2.0, 3.0), (), "1", None),
            *refused("sigma", -1.0, NAN, INF, (1.0, 2.0, 3.0), (), "1", None),
            *BAD_INTERPOLATION,
            *BAD_FILL,
        ),
        # the field is blurred with a border that is reflected once
        small=lambda a, h, w: a.get("sigma", 5.0) == 0.0,
        anywhere=lambda a: False,
        ties=True,
        moves=True,
        falls_back=True,
    ),
}
