"""Specs of the transforms about dtype and range."""

import torch
import torchvision.transforms.v2.functional as F
from oracles import Args, nothing, same

from specs.base import NAN, Refused, Spec, refused


def converted(a: Args, dtype: torch.dtype) -> torch.dtype | None:
    """Without a scale, numbers that the other dtype has no room for are refused."""
    to = a["dtype"]
    if a.get("scale") or to.is_floating_point:
        return to
    return None if dtype.is_floating_point or torch.iinfo(dtype).max > torch.iinfo(to).max else to


SPECS = {
    "Normalize": Spec(
        arguments=(
            {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
            {"mean": (0.5,), "std": (0.25,)},
        ),
        tolerance="colour",
        meaning=lambda a, x, p, s: F.normalize(x, list(a["mean"]), list(a["std"])),
        draws=nothing,
        fine={"mean": (0.5,) * 3, "std": (0.2,) * 3},
        refuses=(
            *refused("mean", (), (NAN,) * 3, (0.1, 0.2), "abc", 0.5, None),
            *refused("std", (), (NAN,) * 3, (0.1, 0.2), "abc", 0.5, None, (0.1, 0, 0.1)),
            *refused("inplace", 1),
        ),
        # divided by the spread
        gain=lambda a: 1 / min(a["std"]),
        # a mean and a deviation are defined on floats, and leave the range of [0, 1]
        dtype=lambda a, dtype: dtype if dtype.is_floating_point else None,
        anywhere=lambda a: False,
    ),
    "ConvertImageDtype": Spec(
        arguments=({}, {"dtype": torch.uint8}, {"dtype": torch.bfloat16}),
        tolerance="colour",
        meaning=lambda a, x, p, s: F.to_dtype(x, a.get("dtype", torch.float32), scale=True),
        draws=nothing,
        refuses=refused("dtype", torch.int64, torch.complex64, torch.bool, "float32", None, int),
        identity=lambda a: a.get("dtype", torch.float32) == torch.float32,
        dtype=lambda a, dtype: a.get("dtype", torch.float32),
        # 8 and 16 bits would round between two transforms
        anywhere=lambda a: a.get("dtype", torch.float32) == torch.float32,
    ),
    "Identity": Spec(arguments=({},), tolerance="exact", meaning=same, draws=nothing, identity=lambda a: True),
    # float32 in [0, 1] is what every transform has before it, and what these ask for
    "PILToTensor": Spec(arguments=({},), tolerance="exact", meaning=same, draws=nothing, identity=lambda a: True),
    "ToDtype": Spec(
        arguments=(
            {"dtype": torch.float32, "scale": True},
            {"dtype": torch.uint8, "scale": True},
            {"dtype": torch.bfloat16, "scale": True},
        ),
        tolerance="colour",
        meaning=lambda a, x, p, s: F.to_dtype(x, a["dtype"], a.get("scale", False)),
        draws=nothing,
        fine={"dtype": torch.float32},
        refuses=(
            *refused("dtype", torch.int64, torch.int32, torch.complex64, torch.bool, "float32", None, int),
            Refused({"dtype": {torch.Tensor: torch.float32}}, shows="got a dict"),
            *refused("scale", 1),
        ),
        identity=lambda a: a["dtype"] == torch.float32,
        dtype=converted,
        # 8 and 16 bits would round between two transforms
        anywhere=lambda a: a["dtype"] == torch.float32,
    ),
    "ToImage": Spec(arguments=({},), tolerance="exact", meaning=same, draws=nothing, identity=lambda a: True),
    "ToTensor": Spec(
        arguments=({},),
        tolerance="exact",
        meaning=same,
        draws=nothing,
        identity=lambda a: True,
        dtype=lambda a, dtype: torch.float32,
    ),
}
