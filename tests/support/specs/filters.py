"""Specs of the transforms that read around a pixel."""

import io

import numpy as np
import PIL.Image
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from oracles import Args, Draws, Sample, asked, only_apply, pair, when
from torch import Tensor

from specs.base import BAD_P, COLOUR, INF, NAN, Spec, refused


def drawn_blur(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    return asked(v2.GaussianBlur(**a), n, size, rng, lambda p: {"sigma": p["sigma"]})


def jpeg(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    """Pillow's, which is torchvision's too: both are libjpeg."""
    levels, file = (x * 255).round().byte().permute(1, 2, 0).numpy(), io.BytesIO()
    PIL.Image.fromarray(levels.squeeze(-1) if len(x) == 1 else levels).save(file, "JPEG", quality=int(p["quality"]))
    made = np.atleast_3d(np.asarray(PIL.Image.open(file)))
    return torch.from_numpy(made.copy()).permute(2, 0, 1) / 255


def span(quality: int | tuple[int, int]) -> tuple[int, int]:
    low, high = quality if isinstance(quality, tuple) else (quality, quality)
    return low, high + 1


SPECS = {
    "GaussianBlur": Spec(
        arguments=(
            {"kernel_size": 5, "sigma": (0.5, 1.5)},
            {"kernel_size": (3, 7)},
            {"kernel_size": (9, 1), "sigma": 2.0},
        ),
        tolerance="colour",
        meaning=lambda a, x, p, s: F.gaussian_blur(x, pair(a["kernel_size"]), p["sigma"].tolist()),
        draws=drawn_blur,
        fine={"kernel_size": 3},
        refuses=(
            *refused("kernel_size", 0, 2, -3, 2.5, NAN, True, "3", None, (), (3, 4), (3, 3, 3)),
            *refused("sigma", 0, -1.0, NAN, INF, (2.0, 1.0), (0.0, 1.0), (0.1,), "1", None, True),
        ),
        # a border is reflected once: the kernel reaches no further than the image
        small=lambda a, h, w: pair(a["kernel_size"])[0] // 2 < w and pair(a["kernel_size"])[1] // 2 < h,
        anywhere=lambda a: max(pair(a["kernel_size"])) < 9,
    ),
    "RandomAdjustSharpness": Spec(
        arguments=({"sharpness_factor": 3.0}, {"sharpness_factor": 0.0, "p": 0.9}, {"sharpness_factor": 0.4}),
        tolerance="colour",
        meaning=when(lambda a, x, p, s: F.adjust_sharpness(x, a["sharpness_factor"])),
        draws=only_apply(0.5),
        fine={"sharpness_factor": 2.0},
        refuses=(*BAD_P, *refused("sharpness_factor", -0.1, NAN, INF, "2", None, True)),
        channels=COLOUR,
        # beyond [0, 1] it sharpens what two images differ by
        gain=lambda a: max(1.0, a["sharpness_factor"]),
    ),
    "JPEG": Spec(
        arguments=({"quality": (20, 60)}, {"quality": 95}),
        tolerance="codec",
        meaning=jpeg,
        draws=lambda a, n, size, rng: {"quality": rng.integers(*span(a["quality"]), n)},
        fine={"quality": 50},
        refuses=refused("quality", 0, 101, 2.5, "50", None, True, (60, 20), (5,), (0, 50), (5, 101), (1.5, 3)),
        channels=COLOUR,
        # a codec of integers
        anywhere=lambda a: False,
        falls_back=True,
    ),
}
