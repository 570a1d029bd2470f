"""How the reference weighs taps: what weighs nothing takes no part, and what is the same everywhere stays the same."""

import math

import torch
from torch import Tensor


def between(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """(1 - share) a + share b, in the form that keeps a value which both hold; a difference of infinities has no
    number, and needs the other form."""
    out = a + share * (b - a)
    return torch.where(out.isfinite(), out, torch.where(share == 0, a, a * (1 - share) + b * share))


def weighed(wy: Tensor, tile: Tensor, wx: Tensor) -> Tensor:
    """wy tile wx, in float64 so that no setting of the matrix units and no order of the sum is seen; a weight of 0
    takes no part, whatever it meets."""
    finite = tile.isfinite()
    out = (wy @ torch.where(finite, tile, 0.0).double() @ wx).float()
    if tile.device.type == "cpu" and bool(finite.all()):
        return out
    high, low, none = (
        (wy > 0).double() @ kind.double() @ (wx > 0).double() > 0
        for kind in (tile == math.inf, tile == -math.inf, tile.isnan())
    )
    out = torch.where(high, math.inf, torch.where(low, -math.inf, out))
    return torch.where(none | (high & low), math.nan, out)
