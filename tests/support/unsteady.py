"""Where a policy has no one answer: solarize, posterize, equalize and JPEG jump, so that a last bit of one value, in which
two correct executors may differ, decides about a pixel, and through a histogram about all."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
from compare import TOLERANCES, compare, unit
from torch import Tensor

from gpuaug import ir, rng
from gpuaug.exec import reference

# how often last bits are changed, so that a value that is as near to a jump as they reach falls to either side
_TRIES = 16
# by how much: what two interpolations differ in, and what the sixteen bits that lie between two launches leave out
APART = {"cpu": 2.0**-22, "triton": 2.0**-17}


def compare_where_steady(
    got: Tensor,
    want: Tensor,
    kind: str,
    run: Callable[[Any], Tensor],
    images: Any,
    what: str,
    scale: float,
    backend: str = "cpu",
) -> None:
    """`compare`, but for values that change when the last bits of what lies between two passes change.

    run: by the reference, as `want` came of these images; backend: what gave `got`"""
    try:
        compare(got, want, kind, what, scale)
    except AssertionError:
        free = _unsteady(run, images, TOLERANCES[kind][0] * scale, APART[backend])
        compare(torch.where(free, want, got), want, kind, what, scale)


def _unsteady(run: Callable[[Any], Tensor], images: Any, limit: float, most: float) -> Tensor:
    numbers, apply = np.random.default_rng(0), reference.apply

    def near(p: ir.Pass, x: Tensor, keys: rng.Keys) -> Tensor:
        out = apply(p, x, keys)
        if not out.is_floating_point() or out.numel() == 0:
            return out
        noise = torch.from_numpy(numbers.uniform(-most, most, tuple(out.shape)))
        # colours stay in their range
        low, high = min(0.0, out.min().item()), max(1.0, out.max().item())
        return (out + noise * out.abs().clamp(min=1.0)).clamp(low, high).to(out.dtype)

    want = unit(run(images))
    changed = torch.zeros(want.shape, dtype=torch.bool)
    with mock.patch.object(reference, "apply", near):
        for _ in range(_TRIES):
            changed |= (unit(run(images)) - want).abs() > limit
    return changed
