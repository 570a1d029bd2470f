"""The one way to compare images.  It raises, and knows no tolerance that is not in the table."""

import torch
from torch import Tensor

# kind -> (largest difference of a value in [0, 1], share of the values that may differ by more)
TOLERANCES = {
    # pixels that are only moved or overwritten, and two runs of the same code
    "exact": (0.0, 0.0),
    # the same float64 weights applied in one step or in several: float32 intermediates differ in the last bits
    "fused": (1e-6, 0.0),
    # a handful of float32 operations in another order
    "colour": (2e-5, 0.0),
    # torchvision computes positions and weights in float32, 6e-8 of a coordinate of a few hundred, times the contrast
    # between neighbours
    "resample": (1e-4, 0.0),
    # posterize, solarize, equalize and nearest jump: a last bit picks the other side
    "jump": (2e-5, 1e-3),
    "resample, jump": (1e-4, 1e-3),
    # libjpeg transforms in integers: a coefficient half-way between two multiples goes either way, and moves its block
    "codec": (8 / 255, 0.05),
}


def ulp(dtype: torch.dtype) -> float:
    """What rounding the output adds: a unit in the last place of 16 bits, a level of 8 bits, nothing for 32."""
    return {torch.uint8: 1 / 255, torch.float16: 2**-10, torch.bfloat16: 2**-7}.get(dtype, 0.0)


def unit(images: Tensor) -> Tensor:
    return images.double() / 255 if images.dtype == torch.uint8 else images.double()


def compare(got: Tensor, want: Tensor, kind: str, what: str = "", scale: float = 1.0) -> None:
    """Raise unless two images agree to the tolerance of their kind.  scale: 1 / std after a Normalize."""
    limit, share = TOLERANCES[kind]
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)} instead of {tuple(want.shape)}"
    assert got.dtype == want.dtype, f"{what}: {got.dtype} instead of {want.dtype}"
    assert got.numel() == 0 or not (got.isnan() | want.isnan()).any(), f"{what}: NaN"
    a, b = unit(got), unit(want)
    room = limit * scale + (ulp(got.dtype) * b.abs().clamp(min=1.0) * 1.0001 if kind != "exact" else 0.0)
    wrong = (a - b).abs() > room
    if wrong.sum() > share * wrong.numel():
        worst = (a - b).abs().max().item()
        first = tuple(wrong.nonzero()[0].tolist())
        raise AssertionError(
            f"{what}: {wrong.double().mean().item():.4%} of the values differ by more than {limit * scale:g} ({kind}), "
            f"the worst by {worst:g}; the first at {first}: got {a[first].item():.6f}, want {b[first].item():.6f}"
        )


def changed(a: Tensor, b: Tensor) -> float:
    """The share of values that differ: a guard against tests that look at nothing."""
    return (unit(a) != unit(b)).double().mean().item()
