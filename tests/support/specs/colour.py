"""Specs of the transforms that change values, not positions."""

from typing import Any

import numpy as np
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from oracles import Args, Draws, Sample, asked, nothing, only_apply, when
from torch import Tensor

from specs.base import BAD_P, COLOUR, NAN, Spec, refused

FACTORS = ("brightness", "contrast", "saturation", "hue")
BAD_INTERVAL = ((0.9, 0.1), (NAN, 1.0), (0.1,), (0.1, 0.2, 0.3), "ab", 0.3, None)
BAD_FACTOR = (-0.1, NAN, (0.5,), (-0.2, 1.0), (2.0, 1.0), (0.1, NAN), "0.1", (1, 2, 3), True)


def color_jitter(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    for fn in p["fn_idx"].tolist():
        name = FACTORS[fn]
        if a.get(name):
            x = getattr(F, f"adjust_{name}")(x, p[f"{name}_factor"].item())
    return x


def drawn_jitter(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    def read(p: Any) -> dict[str, Any]:
        # None is what torchvision draws for a factor that it leaves alone
        unchanged = {k: 0.0 if k == "hue" else 1.0 for k in FACTORS}
        drawn = {k: p[f"{k}_factor"] for k in FACTORS}
        factors = {f"{k}_factor": unchanged[k] if v is None else float(v) for k, v in drawn.items()}
        return {"fn_idx": [int(i) for i in p["fn_idx"]], **factors}

    return asked(v2.ColorJitter(**a), n, size, rng, read)


def photometric_distort(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
    used = dict(zip((*names, "channel_permutation"), p["apply"].tolist(), strict=True))
    params = {k: (p[k].item() if k in names else p[k].tolist()) if on else None for k, on in used.items()}
    tool = v2.RandomPhotometricDistort(**a)
    return tool.transform(x, {**params, "contrast_before": bool(p["contrast_before"])})


def drawn_distort(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    tool = v2.RandomPhotometricDistort(**a)
    factors = {f"{k}_factor": rng.uniform(*getattr(tool, k), n) for k in FACTORS}
    return {
        "apply": rng.random((n, 5)) < tool.p,
        "contrast_before": rng.random(n) < 0.5,
        **factors,
        "channel_permutation": rng.permuted(np.tile(np.arange(3), (n, 1)), axis=1),
    }


SPECS = {
    "ColorJitter": Spec(
        arguments=(
            {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
            {"brightness": (0.5, 3.0), "contrast": (0.0, 2.5), "saturation": (0.0, 3.0), "hue": 0.5},
            {"contrast": 0.8},
            {"saturation": 0.8, "hue": (-0.3, 0.1)},
            {"hue": 0.5},
            {"brightness": 0.0, "contrast": 0.9, "hue": 0.2},
        ),
        tolerance="colour",
        meaning=color_jitter,
        draws=drawn_jitter,
        refuses=(
            *refused("brightness", *BAD_FACTOR),
            *refused("contrast", *BAD_FACTOR),
            *refused("saturation", *BAD_FACTOR),
            *refused("hue", -0.1, 0.6, NAN, (-0.6, 0.1), (0.2, 0.1), (0.1, 0.7), "0.1", (0.1,)),
        ),
        channels=COLOUR,
    ),
    "Grayscale": Spec(
        arguments=({}, {"num_output_channels": 3}),
        tolerance="colour",
        meaning=lambda a, x, p, s: F.rgb_to_grayscale(x, a.get("num_output_channels", 1)),
        draws=nothing,
        refuses=refused("num_output_channels", 0, 2, 4, "3", None, 1.5),
        channels=COLOUR,
        # one channel is left
        anywhere=lambda a: a.get("num_output_channels") == 3,
    ),
    "RandomGrayscale": Spec(
        arguments=({"p": 0.5},),
        tolerance="colour",
        meaning=when(lambda a, x, p, s: F.rgb_to_grayscale(x, len(x))),
        draws=only_apply(0.1),
        refuses=BAD_P,
        channels=COLOUR,
    ),
    "RandomInvert": Spec(
        arguments=({}, {"p": 0.8}),
        tolerance="colour",
        meaning=when(lambda a, x, p, s: F.invert(x)),
        draws=only_apply(0.5),
        refuses=BAD_P,
    ),
    "RandomPosterize": Spec(
        arguments=tuple({"bits": b, "p": 0.9} for b in (1, 3, 7)),
        tolerance="jump",
        meaning=when(lambda a, x, p, s: F.posterize(x, a["bits"])),
        draws=only_apply(0.5),
        fine={"bits": 3},
        refuses=(*BAD_P, *refused("bits", -1, 9, 2.5, "3", NAN, True, None)),
    ),
    "RandomSolarize": Spec(
        arguments=({"threshold": 0.5}, {"threshold": 0.25, "p": 0.9}),
        tolerance="jump",
        meaning=when(lambda a, x, p, s: F.solarize(x, a["threshold"])),
        draws=only_apply(0.5),
        fine={"threshold": 0.5},
        refuses=(*BAD_P, *refused("threshold", -0.1, 1.1, 128, NAN, "0.5", None, True)),
    ),
    "RandomAutocontrast": Spec(
        arguments=({}, {"p": 0.9}),
        tolerance="colour",
        meaning=when(lambda a, x, p, s: F.autocontrast(x)),
        draws=only_apply(0.5),
        refuses=BAD_P,
        channels=COLOUR,
    ),
    "RandomEqualize": Spec(
        arguments=({}, {"p": 0.9}),
        tolerance="jump",
        meaning=when(lambda a, x, p, s: F.equalize(x)),
        draws=only_apply(0.5),
        refuses=BAD_P,
        channels=COLOUR,
    ),
    "RGB": Spec(
        arguments=({},),
        tolerance="exact",
        meaning=lambda a, x, p, s: F.grayscale_to_rgb(x),
        draws=nothing,
        # torchvision takes one channel, or three and more
        channels=(1, 3, 4),
        identity=lambda a: True,
    ),
    "RandomChannelPermutation": Spec(
        arguments=({},),
        tolerance="exact",
        meaning=lambda a, x, p, s: F.permute_channels(x, p["permutation"].tolist()),
        draws=lambda a, n, size, rng: {"permutation": rng.permuted(np.tile(np.arange(3), (n, 1)), axis=1)},
    ),
    "RandomPhotometricDistort": Spec(
        arguments=(
            {"p": 0.7},
            {"brightness": (0.4, 1.6), "contrast": (0.0, 2.5), "saturation": (0.0, 3.0), "hue": (-0.5, 0.5), "p": 1.0},
        ),
        tolerance="colour",
        meaning=photometric_distort,
        draws=drawn_distort,
        refuses=(
            *BAD_P,
            *refused("brightness", *BAD_INTERVAL),
            *refused("contrast", *BAD_INTERVAL),
            *refused("saturation", *BAD_INTERVAL),
            *refused("hue", *BAD_INTERVAL, (-0.6, 0.1), (0.1, 0.7)),
        ),
        channels=COLOUR,
    ),
}
