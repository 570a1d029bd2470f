"""How the reference weighs taps: a tap of weight 0 is left out, even NaN, and a mean of equal values is that value."""

import math

import torch
from torch import Tensor


def between(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """(1 - share) a + share b, as a + share (b - a), which is exactly a where b equals a; where that is not finite, as
    for two infinities, by the weighted sum."""
    out = a + share * (b - a)
    return torch.where(out.isfinite(), out, torch.where(share == 0, a, a * (1 - share) + b * share))


def weighed(wy: Tensor, tile: Tensor, wx: Tensor) -> Tensor:
    """wy tile wx, in float64, so that neither TF32 nor the order of the sum shows in float32; a weight of 0 takes no
    part, whatever it multiplies."""
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
