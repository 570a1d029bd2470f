"""Which passes leave values in [0, 1] where they were: what lies there between two launches is kept in 16 bits."""

from functools import singledispatch

import torch

from gpuaug import ir
from gpuaug.exec.triton.canonical import BlurColumns, BlurRows, Pick


def between_launches(passes: ir.Sequence, channels: int, unit: bool) -> torch.dtype:
    """What images are kept as after a launch, for another.  channels: of them; unit: whether they came in [0, 1]

    uint16 is round(65535 x), which holds every k / 255 exactly and is wrong by no more than 8e-6."""
    for p in passes:
        unit = (unit and keeps_unit(p)) or (isinstance(p, ir.Affine) and p.clamp)
    return torch.uint16 if unit and channels == 3 else torch.float32


@singledispatch
def keeps_unit(p: ir.Pass) -> bool:
    """Whether every value of [0, 1] stays there."""
    return False


@keeps_unit.register
def _(
    p: ir.Saturation
    | ir.Contrast
    | ir.Hue
    | ir.Gray
    | ir.Solarize
    | ir.Posterize
    | ir.Autocontrast
    | ir.Equalize
    | ir.SaltPepper
    | ir.Sharpness
    | ir.GaussianBlur
    | ir.CutMix
    | BlurRows
    | BlurColumns,
) -> bool:
    return True


@keeps_unit.register
def _(p: ir.Affine) -> bool:
    return p.clamp


@keeps_unit.register
def _(p: ir.GaussianNoise) -> bool:
    return p.clip


@keeps_unit.register
def _(p: ir.Warp | ir.Project) -> bool:
    return p.fill is None or all(0.0 <= v <= 1.0 for v in p.fill)


@keeps_unit.register
def _(p: ir.Resample) -> bool:
    return (p.kernel in ("triangle", "floor") or p.clamp) and all(0.0 <= v <= 1.0 for v in p.fill)


@keeps_unit.register
def _(p: Pick) -> bool:
    return all(q is None or keeps_unit(q) for q in p.sources)


@keeps_unit.register
def _(p: ir.Choice) -> bool:
    return all(keeps_unit(q) for branch in p.branches for q in branch)
