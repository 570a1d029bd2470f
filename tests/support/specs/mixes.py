"""Specs of the transforms that mix a sample with a partner from its batch."""

from types import SimpleNamespace

import numpy as np
import torchvision.transforms.v2 as v2
from oracles import Args, Draws, Sample, asked
from torch import Tensor

from specs.base import INF, NAN, Spec, refused


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
        ),
        mixes=True,
        moves=True,
        # where the labels are class numbers, no other mix may have come before
        anywhere=lambda a: "num_classes" not in a,
        # labels come as an argument of the call
        lacks=frozenset({"labels_getter"}),
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
        ),
        mixes=True,
        # labels come as an argument of the call
        lacks=frozenset({"labels_getter"}),
        moves=True,
        # as for CutMix
        anywhere=lambda a: "num_classes" not in a,
    ),
}
