"""Specs of the transforms that mix a sample with a partner from its batch."""

from types import SimpleNamespace

import numpy as np
import torchvision.transforms.v2 as v2
from oracles import Args, Draws, Sample, asked
from torch import Tensor

from specs.base import BAD_P, INF, NAN, Class, Instance, Spec, refused


def cutmix(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    x0, y0, x1, y1 = p["box"].tolist()
    out = x.clone()
    out[:, y0:y1, x0:x1] = s.images[int(p["partner"])][:, y0:y1, x0:x1]
    return out


def drawn_cutmix(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    """The box that torchvision draws after a lam, and the lam, which numpy hands to it."""
    lam = rng.beta(a.get("alpha", 1.0), a.get("alpha", 1.0), n)
    tool, left = v2.CutMix(alpha=a.get("alpha", 1.0), num_classes=10), iter(lam)
    tool._dist = SimpleNamespace(sample=lambda shape: next(left))
    return {"lam": lam, **asked(tool, n, size, rng, lambda p: {"box": p["box"]})}


def mixup(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    lam = float(p["lam"])
    return lam * x + (1 - lam) * s.images[int(p["partner"])]


def one_of_two(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    index = int(p["index"])
    if index == len(a["transforms"]):
        return x
    name, args = a["transforms"][index]
    return SPECS[name].meaning(args, x, p["transforms"][index], s)


def drawn_one_of_two(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    names = [name for name, _ in a["transforms"]]
    weights = np.asarray(a.get("p") or [1.0] * len(names))
    if "switch_prob" in a:
        weights = np.asarray([a["switch_prob"] if name == "CutMix" else 1 - a["switch_prob"] for name in names])
    index = rng.choice(len(weights), n, p=weights / weights.sum())
    mixed = rng.random(n) < a.get("prob", 1.0)
    each = [SPECS[name].draws(args, n, size, rng) for name, args in a["transforms"]]
    return {"index": np.where(mixed, index, len(names)), "transforms": each}


SMOOTHING = refused("label_smoothing", -0.1, 1.1, NAN, "0.1", None, True)
EITHER = (("CutMix", {"alpha": 1.0}), ("MixUp", {"alpha": 0.4}))

SPECS = {
    "CutMix": Spec(
        arguments=({"alpha": 1.0, "num_classes": 5}, {"alpha": 0.2, "num_classes": 5}, {"alpha": 4.0}),
        tolerance="exact",
        meaning=cutmix,
        draws=drawn_cutmix,
        fine={"num_classes": 3},
        refuses=(
            *refused("alpha", 0, -1.0, NAN, INF, "1", True),
            *refused("num_classes", 0, -1, 2.5, "3", True),
            *SMOOTHING,
        ),
        mixes=True,
        moves=True,
        # where the labels are class numbers, no other mix may have come before
        anywhere=lambda a: "num_classes" not in a,
        # labels come as an argument of the call
        lacks=frozenset({"labels_getter"}),
        adds=frozenset({"label_smoothing"}),
    ),
    "MixUp": Spec(
        arguments=({"alpha": 1.0, "num_classes": 5}, {"alpha": 0.2, "num_classes": 5}, {"alpha": 4.0}),
        tolerance="fused",
        meaning=mixup,
        draws=lambda a, n, size, rng: {"lam": rng.beta(a.get("alpha", 1.0), a.get("alpha", 1.0), n)},
        fine={"num_classes": 3},
        refuses=(
            *refused("alpha", 0, -1.0, NAN, INF, "1", True),
            *refused("num_classes", 0, -1, 2.5, "3", True),
            *SMOOTHING,
        ),
        mixes=True,
        # labels come as an argument of the call
        lacks=frozenset({"labels_getter"}),
        adds=frozenset({"label_smoothing"}),
        moves=True,
        # as for CutMix
        anywhere=lambda a: "num_classes" not in a,
    ),
    "RandomMix": Spec(
        arguments=(
            {"transforms": EITHER, "p": (0.3, 0.7), "num_classes": 5},
            {"transforms": EITHER, "switch_prob": 0.2, "prob": 0.7},
            {"transforms": (("CutMix", {"alpha": 0.2}), ("CutMix", {"alpha": 4.0})), "num_classes": 5},
            {"transforms": (("MixUp", {"alpha": 2.0}),), "prob": 0.5, "num_classes": 5, "label_smoothing": 0.1},
        ),
        tolerance="fused",
        meaning=one_of_two,
        draws=drawn_one_of_two,
        fine={"transforms": [Instance("CutMix"), Instance("MixUp")]},
        refuses=(
            *refused("transforms", [], None, 3, "CutMix", Instance("CutMix")),
            *refused("transforms", [Class("CutMix")], [3], [None], [Instance("RandomInvert")]),
            *refused("p", (0.5,), (0.5, 0.2, 0.3), (-0.5, 1.5), (0, 0), (NAN, 1), "ab", 0.5),
            *refused("per", "element", None, 1),
            *refused("switch_prob", -0.1, 1.5, NAN, "0.5", True),
            *(r._replace(arguments={"prob": r.arguments["p"]}) for r in BAD_P),
            *refused("num_classes", 0, -1, 2.5, "3", True),
            *SMOOTHING,
        ),
        mixes=True,
        moves=True,
        # as for CutMix
        anywhere=lambda a: "num_classes" not in a,
        ours=True,
    ),
}
