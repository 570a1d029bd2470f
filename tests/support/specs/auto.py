"""Specs of the automatic policies."""

from typing import Any

import numpy as np
import torchvision.transforms.v2 as v2
from oracles import Args, Draws, Sample, interpolation
from torch import Tensor

from specs.base import BAD_FILL, BAD_INTERPOLATION, COLOUR, NAN, RGB, Refused, Spec, refused

OPERATIONS = list(v2.RandAugment._AUGMENTATION_SPACE)


def operate(
    name: str, x: Tensor, sign: int, magnitude: int, bins: int, interpolation: v2.InterpolationMode, fill: Any
) -> Tensor:
    """One operation as v2.RandAugment applies it."""
    table, signed = v2.RandAugment._AUGMENTATION_SPACE[name]
    magnitudes = table(bins, *x.shape[1:])
    m = 0.0 if magnitudes is None else float(magnitudes[magnitude]) * (sign if signed else 1)
    tool = v2.RandAugment(interpolation=interpolation, fill=fill)
    return tool._apply_image_or_video_transform(x, name, m, interpolation=tool.interpolation, fill=tool._fill)


def rand_augment(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    magnitude, bins = a.get("magnitude", 9), a.get("num_magnitude_bins", 31)
    for op, sign in zip(p["op"].tolist(), p["sign"].tolist(), strict=True):
        x = operate(OPERATIONS[op], x, sign, magnitude, bins, interpolation(a, "nearest"), a.get("fill"))
    return x


def drawn_augment(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    shape = (n, a.get("num_ops", 2))
    return {"op": rng.integers(0, len(OPERATIONS), shape), "sign": 1 - 2 * rng.integers(0, 2, shape)}


SPECS = {
    "RandAugment": Spec(
        arguments=(
            {},
            {"num_ops": 3, "magnitude": 17},
            {"num_ops": 1, "magnitude": 30, "interpolation": "bilinear", "fill": 0.25},
            {"num_ops": 2, "magnitude": 5, "num_magnitude_bins": 11, "fill": RGB},
        ),
        # some operations move by the nearest pixel, others jump
        tolerance="resample, jump",
        meaning=rand_augment,
        draws=drawn_augment,
        refuses=(
            *refused("num_ops", 0, -1, 1.5, "2", True, NAN),
            *refused("magnitude", -1, 31, 2.5, NAN, "9"),
            *refused("num_magnitude_bins", 0, 1, 2.5, "31"),
            # fewer bins have no place for the magnitude, which is 9
            Refused({"num_magnitude_bins": 9}, names="magnitude", shows="got 9"),
            *BAD_INTERPOLATION,
            *BAD_FILL,
        ),
        channels=COLOUR,
        ties=True,
        # some of its operations turn and shift
        moves=True,
    ),
}
