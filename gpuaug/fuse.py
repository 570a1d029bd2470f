"""Passes to a plan: neighbouring geometric passes that are together exactly one pass are folded into it, and so is a
choice among mixes.

For example, RandomResizedCrop, RandomHorizontalFlip and CenterCrop lower to three `ir.Resample`, of which the last two
only move pixels: folded, they are one `Resample` with the product of the matrices, so that the image is read,
interpolated and written once, with the result of the three to the bit of the interpolation.  Two passes that both
interpolate are not folded, because torchvision interpolates twice, unless the policy asks for `single_resample`.

Only passes are folded here.  Which of them then run together is each executor's business (`steps` of `exec/`)."""

from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor

from gpuaug import ir
from gpuaug.dtypes import Through
from gpuaug.mixing import single_mixes
from gpuaug.rng import Keys
from gpuaug.symbolic import smooth
from gpuaug.windows import focused


@dataclass(frozen=True, eq=False)
class Plan:
    """What an executor is given: passes in order, and who the samples are."""

    passes: ir.Sequence
    keys: Keys
    frame: ir.Frame  # of the input, as it goes in
    through: Through | None = None  # how images go through an executor that does not hold their dtype
    mixes: ir.Sequence = ()  # what labels follow, as `mixing.for_labels` gives it


def fold(passes: ir.Sequence, single_resample: bool = False) -> ir.Sequence:
    """The same images from fewer passes: what only moves pixels is folded into the resample before or after it, and a
    choice among mixes is one mix.

    single_resample: also fold neighbours that both interpolate into one interpolation: fewer bytes and a sharper image,
    but not torchvision's."""
    out: list[ir.Pass] = []
    for p in chain.from_iterable(map(single_mixes, passes)):
        both = _compose(out[-1], p) if out else None
        if both is None and single_resample and out:
            both = _project(out[-1], p)
        if both is None:
            out.append(p)
        else:
            out[-1] = both
    return tuple(out)


def _compose(a: ir.Pass, b: ir.Pass) -> ir.Pass | None:
    """One pass that does a, then b, with the same bits; None where there is none.

    One of the two must only move pixels (an integer shift, flip or quarter turn, which may also crop and pad)."""
    if (
        isinstance(a, ir.Warp)
        and isinstance(b, ir.Resample)
        and b.integer_shift
        and b.extend == "none"
        and b.fixed is not None
    ):
        return replace(a, inverse=ir.product(a.inverse, b.inverse), size=b.size, fixed=b.fixed)
    if not (isinstance(a, ir.Resample) and isinstance(b, ir.Resample)):
        return None
    if b.integer_shift:
        return _then_move(a, b)
    return _move_then(a, b) if a.integer_shift and b.kernel != "floor" else None


def _then_move(a: ir.Resample, b: ir.Resample) -> ir.Resample | None:
    """a, then the move b: output positions go through b's matrix before a's.  None where b pads with another border
    than a has."""
    if b.extend == "none":
        extend, fill = a.extend, a.fill
    elif a.clamp and not all(0.0 <= v <= 1.0 for v in b.fill):
        # executors may clamp the border with the rest
        return None
    elif b.extend == "constant" and (a.extend == "none" or (a.extend == "constant" and a.fill == b.fill)):
        extend, fill = "constant", b.fill
    else:
        return None
    live = intersect(ir.map_rectangle(invert_move(b.inverse), a.live), b.live)
    both = replace(
        a, inverse=ir.product(a.inverse, b.inverse), live=live, size=b.size, fixed=b.fixed, extend=extend, fill=fill
    )
    # a move within one size, such as a flip, leaves nothing out
    return both if b.extend == "none" and None is not a.fixed == b.fixed else focused(both)


def _move_then(a: ir.Resample, b: ir.Resample) -> ir.Resample | None:
    """The move a, then the resample b: its window and footprint are taken back to a's input.  None where b reads past
    its source with another border than a has."""
    if b.extend != "none" and (b.extend, b.fill) != (a.extend, a.fill):
        return None
    # a constant border may cover pixels of the image, where a crop was padded again, so that the source shrinks to what
    # is left; the other borders are made of the pixels of the whole image
    source = intersect(ir.map_rectangle(a.inverse, a.live), a.source) if a.extend in ("none", "constant") else a.source
    # where a crop shows its border alone nothing is left, and that lies inside the image too
    source = torch.minimum(source, torch.cat([a.source[:, 2:], a.source[:, 2:]], 1))
    footprint = (a.inverse[:, :2, :2].abs() * b.footprint[:, None, :]).sum(2)
    window = ir.map_rectangle(a.inverse, b.window)
    return replace(
        b,
        inverse=ir.product(a.inverse, b.inverse),
        footprint=footprint,
        window=window,
        source=source,
        extend=a.extend,
        fill=a.fill,
    )


def _project(a: ir.Pass, b: ir.Pass) -> ir.Project | None:
    """a, then b, as one interpolation of a's input; None where either is nearest, or their borders differ."""
    first, then = _projected(a), _projected(b)
    if first is None or then is None or None is not first.fill != then.fill is not None:
        return None
    footprint = first.footprint
    if not isinstance(b, ir.Warp):
        # what b averages over, taken back to a's input; a warp averages over nothing
        reach = (first.inverse[:, :2, :2] * then.footprint[:, None, :]).square().sum(2)
        footprint = torch.maximum(footprint, smooth("sqrt", reach))
    fill = then.fill if first.fill is None else first.fill
    return ir.Project(ir.product(first.inverse, then.inverse), footprint, first.window, then.size, then.fixed, fill)


def _projected(p: ir.Pass) -> ir.Project | None:
    """A pass that interpolates as the most general one that does, `ir.Project`; None for any other."""
    if isinstance(p, ir.Warp) and p.kernel == "bilinear":
        return ir.Project(p.inverse, torch.ones_like(p.inverse[:, 0, :2]), p.source, p.size, p.fixed, p.fill or (0.0,))
    if isinstance(p, ir.Resample) and p.kernel == "triangle" and p.extend == "none" and p.fixed is not None:
        return ir.Project(p.inverse, p.footprint, p.window, p.size, p.fixed)
    return p if isinstance(p, ir.Project) else None


def invert_move(matrix: Tensor) -> Tensor:
    """The inverse of a matrix that only moves pixels: its linear part is orthogonal, so that this is exact."""
    turned = matrix[:, :2, :2].transpose(1, 2)
    out = torch.zeros_like(matrix)
    out[:, :2, :2] = turned
    out[:, :2, 2] = -(turned * matrix[:, None, :2, 2]).sum(2)
    out[:, 2, 2] = 1.0
    return out


def intersect(a: Tensor, b: Tensor) -> Tensor:
    """The common part of rectangles, empty where there is none."""
    near = torch.maximum(a[:, :2], b[:, :2])
    return torch.cat([near, torch.maximum(near, torch.minimum(a[:, 2:], b[:, 2:]))], 1)
