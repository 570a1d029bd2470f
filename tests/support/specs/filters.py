"""Specs of the transforms that read around a pixel."""

import numpy as np
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from oracles import Args, Draws, asked, only_apply, pair, when

from specs.base import BAD_P, COLOUR, INF, NAN, Spec, refused


def drawn_blur(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    return asked(v2.GaussianBlur(**a), n, size, rng, lambda p: {"sigma": p["sigma"]})


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
}
