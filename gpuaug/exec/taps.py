"""How the reference weighs taps: a tap of weight 0 is left out, even NaN, and a mean of equal values is that value."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gpuaug import ir


def between(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """(1 - share) a + share b, as a + share (b - a), which is exactly a where b equals a; where that is not finite, as
    for two infinities, by the weighted sum."""
    out = a + share * (b - a)
    return torch.where(out.isfinite(), out, torch.where(share == 0, a, a * (1 - share) + b * share))


def _keys(a: float) -> Callable[[Tensor], Tensor]:
    """Keys's cubic, of which one unit of the argument is two pixels."""

    def weight(u: Tensor) -> Tensor:
        x = 2 * u
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        return torch.where(x < 1, near, ((x - 5) * x + 8) * x * a - 4 * a)

    return weight


# weights by the distance as a part of the half width, in [0, 1]
_KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "triangle": lambda u: 1 - u,
    "catmull_rom": _keys(-0.5),
    "cubic": _keys(-0.75),
    "lanczos": lambda u: torch.sinc(3 * u) * torch.sinc(u),
}


def weights(position: Tensor, first: int, last: int, footprint: Tensor, kernel: str) -> Tensor:
    """Weights of the taps first to last - 1 at each position: [positions, taps] float64, rows that sum to 1."""
    taps = torch.arange(first, last, dtype=torch.float64, device=position.device)
    u = (taps - position[:, None]).abs() / footprint
    w = _KERNELS[kernel](u)
    w = torch.where((1 - u < ir.NOTHING) | (w.abs() < ir.NOTHING), 0.0, w)
    return w / w.sum(1, keepdim=True)


def weighed(wy: Tensor, tile: Tensor, wx: Tensor) -> Tensor:
    """wy tile wx, in float64, so that neither TF32 nor the order of the sum shows in float32; a weight of 0 takes no
    part, whatever it multiplies."""
    finite = tile.isfinite()
    out = (wy @ torch.where(finite, tile, 0.0).double() @ wx).float()
    if tile.device.type == "cpu" and bool(finite.all()):
        return out
    up, down, lost = (kind.double() for kind in (tile == math.inf, tile == -math.inf, tile.isnan()))
    plus, minus = ((sign * wy > 0).double() for sign in (1, -1))
    right, wrong = ((sign * wx > 0).double() for sign in (1, -1))
    # a negative weight turns an infinity around
    high = (plus @ up + minus @ down) @ right + (plus @ down + minus @ up) @ wrong > 0
    low = (plus @ down + minus @ up) @ right + (plus @ up + minus @ down) @ wrong > 0
    none = (plus + minus) @ lost @ (right + wrong) > 0
    out = torch.where(high, math.inf, torch.where(low, -math.inf, out))
    return torch.where(none | (high & low), math.nan, out)
