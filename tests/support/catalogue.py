"""What to test each transform with, and how close it must come.  Nothing here imports gpuaug.

CASES[name]: sets of arguments.  KINDS[name](arguments): a row of the table of tolerances in tests/support/compare.py.
"""

from collections.abc import Callable
from typing import Any

import torch

Args = dict[str, Any]

INSIDE = (("RandomInvert", {"p": 0.9}), ("SaltAndPepper", {"amount": 0.3}), ("RandomSolarize", {"threshold": 0.4}))
NESTED = (
    ("RandomApply", {"transforms": INSIDE, "p": 0.7}),
    ("GaussianNoise", {"sigma": 0.2}),
    ("RandomHorizontalFlip", {"p": 0.6}),
)
MODES = ("constant", "edge", "reflect", "symmetric")
RGB = (0.2, 0.7, 0.4)

CASES: dict[str, tuple[Args, ...]] = {
    "CenterCrop": (
        {"size": (21, 19)},
        {"size": (24, 18)},
        {"size": 64},
        {"size": (70, 11)},
        {"size": (10, 80)},
        {"size": (61, 72)},
    ),
    "ColorJitter": (
        {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
        {"brightness": (0.5, 3.0), "contrast": (0.0, 2.5), "saturation": (0.0, 3.0), "hue": 0.5},
        {"contrast": 0.8},
        {"saturation": 0.8, "hue": (-0.3, 0.1)},
        {"hue": 0.5},
        {"brightness": 0.0, "contrast": 0.9, "hue": 0.2},
    ),
    "CutMix": ({"alpha": 1.0, "num_classes": 5}, {"alpha": 0.2, "num_classes": 5}, {"alpha": 4.0}),
    "GaussianNoise": ({}, {"mean": 0.1, "sigma": 0.3}, {"sigma": 0.3, "clip": False}),
    "Grayscale": ({}, {"num_output_channels": 3}),
    "Normalize": ({"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}, {"mean": (0.5,), "std": (0.25,)}),
    "PILToTensor": ({},),
    "Pad": (
        {"padding": (1, 2, 3, 0), "fill": 0.5},
        {"padding": 4, "fill": RGB},
        *({"padding": (5, 3), "padding_mode": m} for m in MODES),
        {"padding": (11, 0, 2, 9), "padding_mode": "reflect"},
        {"padding": (37, 41, 1, 0), "padding_mode": "symmetric"},
    ),
    "RandAugment": (
        {},
        {"num_ops": 3, "magnitude": 17},
        {"num_ops": 1, "magnitude": 30, "interpolation": "bilinear", "fill": 0.25},
        {"num_ops": 2, "magnitude": 5, "num_magnitude_bins": 11, "fill": RGB},
    ),
    "RandomAffine": (
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
    "RandomApply": ({"transforms": INSIDE, "p": 0.5}, {"transforms": NESTED, "p": 0.8}),
    "RandomChoice": ({"transforms": INSIDE, "p": (0.2, 0.5, 0.3)}, {"transforms": NESTED}),
    "RandomCrop": (
        {"size": (20, 31)},
        {"size": (20, 31), "padding": 6},
        *({"size": (30, 27), "padding": (3, 5, 7, 9), "padding_mode": m} for m in MODES),
        {"size": (60, 30), "pad_if_needed": True, "fill": RGB},
        {"size": (45, 62), "padding": (1, 2), "pad_if_needed": True, "fill": 0.3},
        {"size": (45, 50), "pad_if_needed": True, "padding_mode": "edge"},
    ),
    "RandomErasing": (
        {"p": 0.75, "value": RGB},
        {"p": 1.0, "value": "random"},
        {"p": 1.0, "scale": (0.3, 1.0), "ratio": (0.1, 0.4), "value": 0.6},
        {},
    ),
    "RandomGrayscale": ({"p": 0.5},),
    "RandomHorizontalFlip": ({}, {"p": 0.3}),
    "RandomInvert": ({}, {"p": 0.8}),
    "RandomOrder": ({"transforms": INSIDE}, {"transforms": NESTED}),
    "RandomPosterize": tuple({"bits": b, "p": 0.9} for b in (1, 3, 7)),
    "RandomResizedCrop": (
        {"size": (12, 10)},
        {"size": 33, "scale": (0.02, 0.3), "ratio": (0.4, 2.5)},
        {"size": (25, 14), "antialias": False},
        {"size": (17, 23), "interpolation": "nearest"},
        {"size": (19, 9), "interpolation": "nearest-exact"},
        {"size": (15, 16), "scale": (0.9, 1.4), "ratio": (2.0, 3.0)},
    ),
    "RandomRot90": ({}, {"p": 0.75}),
    "RandomRotation": (
        {"degrees": 40.0, "interpolation": "bilinear"},
        {"degrees": (10.0, 170.0), "fill": RGB},
        {"degrees": 180.0, "interpolation": "bilinear", "fill": None, "center": (5.0, 30.0)},
        {"degrees": (33.0, 33.0), "expand": True, "interpolation": "bilinear", "fill": 0.7},
        {"degrees": (90.0, 90.0), "expand": True},
        {"degrees": (-117.5, -117.5), "expand": True},
        {"degrees": (33.0, 33.0), "expand": True, "center": (3.0, 7.0), "interpolation": "bilinear"},
        {"degrees": (-270.0, -270.0), "expand": True, "center": (4.5, 1.0), "interpolation": "bilinear"},
    ),
    "RandomSolarize": ({"threshold": 0.5}, {"threshold": 0.25, "p": 0.9}),
    "RandomVerticalFlip": ({}, {"p": 0.3}),
    "Resize": (
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
    ),
    "SaltAndPepper": ({}, {"amount": 0.3, "salt_vs_pepper": 0.8}, {"amount": 0.5, "per_channel": True}),
    "ToDtype": (
        {"dtype": torch.float32, "scale": True},
        {"dtype": torch.uint8, "scale": True},
        {"dtype": torch.bfloat16, "scale": True},
    ),
    "ToImage": ({},),
    "ToTensor": ({},),
}


def interpolates(default: str) -> Callable[[Args], str]:
    return lambda a: "resample, jump" if a.get("interpolation", default).startswith("nearest") else "resample"


KINDS: dict[str, Callable[[Args], str]] = {
    "RandomResizedCrop": interpolates("bilinear"),
    "Resize": interpolates("bilinear"),
    "RandomAffine": interpolates("nearest"),
    "RandomRotation": interpolates("nearest"),
    # warps by the nearest pixel, and operations that jump
    "RandAugment": lambda a: "resample, jump",
    **dict.fromkeys(
        ("CenterCrop", "Pad", "RandomCrop", "RandomHorizontalFlip", "RandomVerticalFlip", "RandomRot90", "CutMix"),
        lambda a: "exact",
    ),
    **dict.fromkeys(("PILToTensor", "ToImage", "ToTensor", "SaltAndPepper"), lambda a: "exact"),
    **dict.fromkeys(
        ("RandomPosterize", "RandomSolarize", "RandomApply", "RandomChoice", "RandomOrder"), lambda a: "jump"
    ),
    **dict.fromkeys(
        ("ColorJitter", "Grayscale", "RandomGrayscale", "RandomInvert", "GaussianNoise", "RandomErasing", "ToDtype"),
        lambda a: "colour",
    ),
    # divided by a std of about 0.22
    "Normalize": lambda a: "colour",
}
