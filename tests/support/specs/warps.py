"""Specs of the transforms that turn, shear, scale and shift."""

import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from oracles import Args, Sample, interpolation, per_image_fill, torchvision
from torch import Tensor

from specs.base import BAD_CENTER, BAD_DEGREES, BAD_FILL, BAD_INTERPOLATION, INF, NAN, RGB, Spec, refused, resampled


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
            # a range of degrees is what expand=True cannot have
            *(*refused("expand", 1), *(r._replace(shows="(-10.0, 10.0)") for r in refused("expand", True))),
            *BAD_FILL,
            *BAD_CENTER,
        ),
        # the middle of an image of even size is a tie, which the last bit decides
        small=lambda a, h, w: a.get("interpolation", "nearest") != "nearest",
        moves=True,
    ),
}
