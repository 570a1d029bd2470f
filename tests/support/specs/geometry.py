"""Specs of the transforms that move and resample pixels along the axes."""

from typing import Any

import oracles
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from oracles import Args, Sample, coin, interpolation, nothing, only_apply, pair, per_image_fill, torchvision, when
from torch import Tensor

from specs.base import BAD_FILL, BAD_P, BAD_RANGES, BAD_RESAMPLING, BAD_SIZE, RGB, Refused, Spec, refused, resampled

MODES = ("constant", "edge", "reflect", "symmetric")
BAD_PADDING = refused("padding", (1, 2, 3), (), 1.5, (1, 2, 3, float("nan")), "11", True)
BAD_BORDER = Refused({"padding": 2, "padding_mode": "edge", "fill": RGB})
BAD_RATIO = refused("ratio", *BAD_RANGES, (0.0, 1.0), (-1.0, 1.0))
BAD_ANTIALIAS = refused("antialias", "warn", 2)


def extends(a: Args) -> bool:
    """A reflection reaches no further than the image, and refuses one of a few pixels."""
    return a.get("padding_mode", "constant") not in ("reflect", "symmetric")


def tv_padding(padding: Any) -> list[int]:
    """(left, top, right, bottom)."""
    p = [padding] * 4 if isinstance(padding, int) else list(padding)
    return p * 2 if len(p) == 2 else p


def random_crop(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    (h, w), pad = pair(a["size"]), tv_padding(a.get("padding") or 0)
    if a.get("pad_if_needed"):
        short = [max(h - x.shape[1] - pad[1] - pad[3], 0), max(w - x.shape[2] - pad[0] - pad[2], 0)]
        pad = [pad[0] + short[1], pad[1] + short[0], pad[2] + short[1], pad[3] + short[0]]
    x = F.pad(x, pad, fill=per_image_fill(a), padding_mode=a.get("padding_mode", "constant"))
    return F.crop(x, int(p["top"]), int(p["left"]), h, w)


def resized_crop(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    box = (int(p[k]) for k in ("top", "left", "height", "width"))
    return oracles.resize(
        F.crop(x, *box), pair(a["size"]), interpolation(a, "bilinear"), antialias=a.get("antialias", True)
    )


def resize(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    size = [a["size"]] if isinstance(a["size"], int) else a["size"] and list(a["size"])
    return oracles.resize(x, size, interpolation(a, "bilinear"), a.get("max_size"), a.get("antialias", True))


def pad(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    mode = a.get("padding_mode", "constant")
    return F.pad(x, tv_padding(a["padding"]), fill=per_image_fill(a), padding_mode=mode)


SPECS = {
    "CenterCrop": Spec(
        arguments=(
            {"size": (21, 19)},
            {"size": (24, 18)},
            {"size": 64},
            {"size": (70, 11)},
            {"size": (10, 80)},
            {"size": (61, 72)},
        ),
        tolerance="exact",
        meaning=lambda a, x, p, s: F.center_crop(x, pair(a["size"])),
        draws=nothing,
        fine={"size": 8},
        refuses=BAD_SIZE,
        moves=True,
    ),
    "Pad": Spec(
        arguments=(
            {"padding": (1, 2, 3, 0), "fill": 0.5},
            {"padding": 4, "fill": RGB},
            *({"padding": (5, 3), "padding_mode": m} for m in MODES),
            {"padding": (11, 0, 2, 9), "padding_mode": "reflect"},
            {"padding": (28, 31, 1, 0), "padding_mode": "symmetric"},
            {"padding": (-3, 4, 5, -6), "fill": RGB},
            {"padding": (-2, -1), "fill": None},
            *({"padding": (-4, 3, 6, -5), "padding_mode": m} for m in MODES[1:]),
        ),
        tolerance="exact",
        meaning=pad,
        draws=nothing,
        fine={"padding": 2},
        refuses=(
            *BAD_PADDING,
            *refused("padding", None),
            *BAD_FILL,
            BAD_BORDER,
            *refused("padding_mode", "wrap", None, 1),
        ),
        # nothing is left of a few pixels
        small=lambda a, h, w: extends(a) and min(tv_padding(a["padding"])) >= 0,
        # the largest of the reflected borders
        image=(41, 38),
        moves=True,
        anywhere=lambda a: extends(a) and min(tv_padding(a["padding"])) >= 0,
    ),
    "RandomCrop": Spec(
        arguments=(
            {"size": (20, 31)},
            {"size": (20, 31), "padding": 6},
            *({"size": (30, 27), "padding": (3, 5, 7, 9), "padding_mode": m} for m in MODES),
            {"size": (60, 30), "pad_if_needed": True, "fill": RGB},
            {"size": (45, 62), "padding": (1, 2), "pad_if_needed": True, "fill": 0.3},
            {"size": (45, 50), "pad_if_needed": True, "padding_mode": "edge"},
            {"size": (54, 57), "pad_if_needed": True, "padding_mode": "reflect"},
            {"size": (54, 60), "padding": 2, "pad_if_needed": True, "padding_mode": "symmetric"},
            {"size": (50, 25), "padding": (-3, 4, 2, -5), "pad_if_needed": True, "fill": None},
        ),
        tolerance="exact",
        meaning=random_crop,
        draws=torchvision(v2.RandomCrop, "top", "left"),
        fine={"size": 8},
        refuses=(
            *BAD_SIZE,
            *BAD_PADDING,
            *refused("pad_if_needed", 1, None),
            *BAD_FILL,
            BAD_BORDER,
            *refused("padding_mode", "wrap"),
        ),
        # a reflection reaches no further than the image
        image=(41, 38),
        # what is larger than the padded image is refused
        small=lambda a, h, w: extends(a) and bool(a.get("pad_if_needed")),
        moves=True,
        anywhere=lambda a: extends(a) and bool(a.get("pad_if_needed")),
    ),
    "RandomHorizontalFlip": Spec(
        arguments=({}, {"p": 0.3}),
        tolerance="exact",
        meaning=when(lambda a, x, p, s: F.horizontal_flip(x)),
        draws=only_apply(0.5),
        refuses=BAD_P,
        moves=True,
    ),
    "RandomResizedCrop": Spec(
        arguments=(
            {"size": (12, 10)},
            {"size": 33, "scale": (0.02, 0.3), "ratio": (0.4, 2.5)},
            {"size": (25, 14), "antialias": False},
            {"size": (17, 23), "interpolation": "nearest"},
            {"size": (19, 9), "interpolation": "nearest-exact"},
            {"size": (15, 16), "scale": (0.9, 1.4), "ratio": (2.0, 3.0)},
            {"size": (24, 18), "interpolation": "bicubic"},
            {"size": (21, 26), "scale": (0.1, 0.4), "interpolation": "bicubic", "antialias": False},
            {"size": (14, 29), "interpolation": "lanczos"},
        ),
        tolerance=resampled("bilinear"),
        meaning=resized_crop,
        draws=torchvision(v2.RandomResizedCrop, "top", "left", "height", "width"),
        fine={"size": 8},
        refuses=(
            *BAD_SIZE,
            *refused("scale", *BAD_RANGES, (-0.1, 1.0), 0.5),
            *BAD_RATIO,
            *BAD_RESAMPLING,
            *BAD_ANTIALIAS,
        ),
        # torchvision's crop has no rows there, and fails; ours keeps one
        small=lambda a, h, w: h > 1 or a.get("ratio", (1, 1))[0] <= 1,
        moves=True,
    ),
    "RandomRot90": Spec(
        arguments=({}, {"p": 0.75}),
        tolerance="exact",
        meaning=when(lambda a, x, p, s: torch.rot90(x, int(p["k"]), (-2, -1))),
        draws=lambda a, n, size, rng: {"apply": coin(rng, n, a.get("p", 1.0)), "k": rng.integers(0, 4, n)},
        refuses=BAD_P,
        # a quarter turn swaps the sides
        square=True,
        image=(34, 34),
        moves=True,
        anywhere=lambda a: False,
        ours=True,
    ),
    "RandomVerticalFlip": Spec(
        arguments=({}, {"p": 0.3}),
        tolerance="exact",
        meaning=when(lambda a, x, p, s: F.vertical_flip(x)),
        draws=only_apply(0.5),
        refuses=BAD_P,
        moves=True,
    ),
    "Resize": Spec(
        arguments=(
            {"size": (9, 12)},
            {"size": 20},
            {"size": 70},
            {"size": 30, "max_size": 33},
            {"size": None, "max_size": 29},
            {"size": (64, 75)},
            {"size": (21, 90)},
            {"size": (20, 30), "antialias": False},
            {"size": (20, 75), "interpolation": "nearest"},
            {"size": 26, "interpolation": "nearest-exact"},
            {"size": (20, 75), "interpolation": "bicubic"},
            {"size": 23, "interpolation": "bicubic", "antialias": False},
            {"size": (61, 30), "interpolation": "lanczos"},
        ),
        tolerance=resampled("bilinear"),
        meaning=resize,
        draws=nothing,
        fine={"size": 8},
        refuses=(
            *BAD_SIZE,
            *(Refused({"size": 8, "max_size": v}) for v in (8, 4, 0, 9.5, "12", True)),
            Refused({"size": (8, 9), "max_size": 20}, shows="(8, 9)"),
            Refused({"size": None, "max_size": 0}),
            *BAD_RESAMPLING,
            *BAD_ANTIALIAS,
        ),
        moves=True,
    ),
}
