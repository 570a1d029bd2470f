"""Where a policy has no one answer: solarize, posterize and equalize jump, so that a last bit of one value, in which two
correct interpolations may differ, decides about a pixel, and through a histogram about all."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from compare import TOLERANCES, compare, unit
from torch import Tensor

# how often last bits are changed, so that a value that is as near to a jump as they reach falls to either side, and by
# how much: what two interpolations differ in
_TRIES, _LAST_BITS = 16, 2.0**-22


def compare_where_steady(
    got: Tensor, want: Tensor, kind: str, run: Callable[[Any], Tensor], images: Any, what: str, scale: float
) -> None:
    """`compare`, but for values that `run`, which gave `want` of these images, changes itself when their last bits
    change."""
    try:
        compare(got, want, kind, what, scale)
    except AssertionError:
        free = _unsteady(run, images, TOLERANCES[kind][0] * scale)
        compare(torch.where(free, want, got), want, kind, what, scale)


def _unsteady(run: Callable[[Any], Tensor], images: Any, limit: float) -> Tensor:
    numbers, floats = np.random.default_rng(0), _floats(images)

    def near(x: Tensor) -> Tensor:
        noise = torch.from_numpy(numbers.uniform(-_LAST_BITS, _LAST_BITS, tuple(x.shape)).astype(np.float32))
        return (x + noise).clamp(0, 1)

    want = unit(run(floats))
    out = torch.zeros(want.shape, dtype=torch.bool)
    for _ in range(_TRIES):
        moved = [near(torch.from_numpy(x)).numpy() for x in floats] if isinstance(floats, list) else near(floats)
        out |= (unit(run(moved)) - want).abs() > limit
    return out


def _floats(images: Any) -> Any:
    """Images as float32 of the same values."""
    if isinstance(images, list):
        return [np.asarray(x, np.float32) / 255 for x in images]
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()
