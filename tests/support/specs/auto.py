"""Specs of the automatic policies."""

from typing import Any

import numpy as np
import torchvision.transforms.v2 as v2
from oracles import Args, Draws, Sample, interpolation
from torch import Tensor

from specs.base import BAD_FILL, BAD_INTERPOLATION, COLOUR, INF, NAN, RGB, Refused, Spec, refused

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


def trivial_augment(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    bins = a.get("num_magnitude_bins", 31)
    tool = v2.TrivialAugmentWide(bins, interpolation(a, "nearest"), a.get("fill"))
    return applied(tool, x, OPERATIONS[int(p["op"])], int(p["magnitude"]), int(p["sign"]), bins)


def applied(tool: Any, x: Tensor, name: str, place: int, sign: int, bins: int) -> Tensor:
    """One operation of a transform's own space."""
    table, signed = tool._AUGMENTATION_SPACE[name]
    magnitudes = table(bins, *x.shape[1:])
    m = 0.0 if magnitudes is None else float(magnitudes[place]) * (sign if signed else 1)
    return tool._apply_image_or_video_transform(x, name, m, interpolation=tool.interpolation, fill=tool._fill)


def drawn_trivial(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    bins = a.get("num_magnitude_bins", 31)
    return {
        "op": rng.integers(0, len(OPERATIONS), n),
        "magnitude": rng.integers(0, bins, n),
        "sign": 1 - 2 * rng.integers(0, 2, n),
    }


def auto_augment(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    policy = v2.AutoAugmentPolicy(a.get("policy", "imagenet"))
    tool = v2.AutoAugment(policy, interpolation(a, "nearest"), a.get("fill"))
    steps = tool._policies[int(p["policy_id"])]
    for (name, probability, place), u, sign in zip(steps, p["probs"], p["signs"].tolist(), strict=True):
        if u <= probability:
            x = applied(tool, x, name, place or 0, sign, 10)
    return x


def drawn_auto(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    return {
        "policy_id": rng.integers(0, 25, n),
        "probs": rng.random((n, 2), np.float32),
        "signs": 1 - 2 * rng.integers(0, 2, (n, 2)),
    }


def aug_mix(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    tool = v2.AugMix(interpolation=interpolation(a, "bilinear"), fill=a.get("fill"))
    own, *weights = p["weights"].tolist()
    out = own * x
    for i, weight in enumerate(weights):
        made = x
        for k in range(int(p["depth"][i])):
            op, place, sign = (int(p[name][i, k]) for name in ("op", "magnitude", "sign"))
            made = applied(tool, made, OPERATIONS[op], place, sign, 10)
        out = out + weight * made
    return out


def drawn_mix(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    width, depth, alpha = a.get("mixture_width", 3), a.get("chain_depth", -1), a.get("alpha", 1.0)
    shape = (n, width, 3 if depth < 0 else depth)
    space = v2.AugMix._AUGMENTATION_SPACE if a.get("all_ops", True) else v2.AugMix._PARTIAL_AUGMENTATION_SPACE
    own = rng.beta(alpha, alpha, (n, 1))
    return {
        "weights": np.hstack([own, (1 - own) * rng.dirichlet([alpha] * width, n)]),
        "op": rng.choice(sorted(OPERATIONS.index(name) for name in space), shape),
        "magnitude": rng.integers(0, a.get("severity", 3), shape),
        "sign": 1 - 2 * rng.integers(0, 2, shape),
        "depth": rng.integers(1, 4, (n, width)) if depth < 0 else np.full((n, width), depth),
    }


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
    "TrivialAugmentWide": Spec(
        arguments=(
            {},
            {"num_magnitude_bins": 7, "interpolation": "bilinear", "fill": 0.25},
            {"num_magnitude_bins": 2, "fill": RGB},
        ),
        tolerance="resample, jump",
        meaning=trivial_augment,
        draws=drawn_trivial,
        refuses=(
            *refused("num_magnitude_bins", 0, 1, 2.5, "31", None, True),
            *BAD_INTERPOLATION,
            *BAD_FILL,
        ),
        channels=COLOUR,
        ties=True,
        moves=True,
    ),
    "AutoAugment": Spec(
        arguments=(
            {},
            {"policy": "cifar10", "fill": RGB},
            # its shears put positions half-way between pixels, of which the nearest may be either
            {"policy": "svhn", "interpolation": "bilinear", "fill": 0.25},
        ),
        tolerance="resample, jump",
        meaning=auto_augment,
        draws=drawn_auto,
        refuses=(*refused("policy", "mnist", None, 3, "IMAGENET"), *BAD_INTERPOLATION, *BAD_FILL),
        channels=COLOUR,
        ties=True,
        moves=True,
    ),
    "AugMix": Spec(
        arguments=(
            {"severity": 5, "mixture_width": 2},
            {"severity": 10, "chain_depth": 2, "alpha": 0.5, "all_ops": False, "fill": 0.25},
            {"severity": 3, "mixture_width": 1, "chain_depth": 1, "alpha": 2.0, "fill": RGB},
        ),
        tolerance="resample, jump",
        meaning=aug_mix,
        draws=drawn_mix,
        refuses=(
            *refused("severity", 0, 11, 2.5, "3", None, True),
            *refused("mixture_width", 0, -1, 2.5, None),
            *refused("chain_depth", 0, -2, 1.5, None),
            *refused("alpha", 0, -1.0, NAN, INF, "1", None),
            *refused("all_ops", 1, None),
            *BAD_INTERPOLATION,
            *BAD_FILL,
        ),
        channels=COLOUR,
        # chains run apart and are added up
        falls_back=True,
        # jumps of several chains lie over one another, and what follows multiplies them
        anywhere=lambda a: False,
        moves=True,
    ),
}
