"""Mixes in a row: choices among them as single mixes, and whose pixels an image is made of after them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any, TypeGuard

import torch
from torch import Tensor

from gpuaug import ir

# ---- choices among mixes


def single_mixes(p: ir.Pass) -> ir.Sequence:
    """A choice of which every branch is one mix or nothing as one mix a step, which gives the same images; any other
    pass as it is."""
    if not isinstance(p, ir.Choice) or not any(isinstance(q, ir.Mix) for q in ir.walk((p,))):
        return (p,)
    p = replace(p, branches=tuple(tuple(r for q in branch for r in single_mixes(q)) for branch in p.branches))
    if any(len(branch) > 1 or not all(isinstance(q, ir.Mix) for q in branch) for branch in p.branches):
        return (p,)
    mixes = {k: branch[0] for k, branch in enumerate(p.branches) if branch}
    return tuple(merged_mix(index, mixes) for index in p.index.unbind(1))


def merged_mix(index: Tensor, mixes: dict[int, Any]) -> ir.Mix:
    """One mix for those of several branches, which leaves alone the samples of other branches.

    index: [N] int64, the branch of each sample; mixes: by branch"""
    if len({type(p) for p in mixes.values()}) > 1:
        size = next(p.size for p in mixes.values() if not isinstance(p, ir.MixUp))
        mixes = {k: _inside(p, size) for k, p in mixes.items()}
    out: ir.Mix = chosen(index, mixes)
    took = chose_one_of(index, mixes)
    if isinstance(out, ir.MixUp):
        return replace(out, lam=torch.where(took, out.lam, 1.0))
    if isinstance(out, ir.CutMix | ir.MixInside):
        return replace(out, box=torch.where(took[:, None], out.box, 0))
    raise NotImplementedError(f"no {type(out).__name__} leaves a choice")


def _inside(p: Any, size: Tensor) -> ir.MixInside:
    """Any mix as the most general one.  size: [N, 2] int64"""
    if isinstance(p, ir.CutMix):
        return ir.MixInside(p.partner, p.box, torch.zeros_like(p.partner, dtype=torch.float32), p.size)
    if isinstance(p, ir.MixUp):
        whole = torch.cat([torch.zeros_like(size), size.flip(1)], 1)
        return ir.MixInside(p.partner, whole, p.lam, size)
    inside: ir.MixInside = p
    return inside


def chose_one_of(index: Tensor, members: Iterable[int]) -> Tensor:
    """Which samples chose one of these: [N] bool."""
    found = torch.zeros_like(index, dtype=torch.bool)
    for k in members:
        found = found | (index == k)
    return found


def chosen(index: Tensor, members: dict[int, Any]) -> Any:
    """One pass whose parameters are, for each sample, those of the member that it chose; a sample that chose none has
    those of any.  index: [N] int64; members: by branch, all of one type"""
    (_, out), *rest = members.items()
    for k, p in rest if out is not None else ():
        merged = {}
        for name, value in vars(p).items():
            before = getattr(out, name)
            if isinstance(value, Tensor) and value is not before:
                merged[name] = torch.where((index == k).view(-1, *(1,) * (value.ndim - 1)), value, before)
        out = replace(out, **merged)
    return out


# ---- whose pixels an image is made of


def for_labels(passes: ir.Sequence) -> ir.Sequence:
    """The passes that decide about mixed labels: from the first mix on all mixes, and crops, resizing, flips and
    padding; empty where nothing mixes.

    What is turned, projected or moved by a random field leaves the shares as they were, and so do noise and erasing."""
    every = [q for p in _moving(passes) for q in single_mixes(p)]
    first = next((k for k, p in enumerate(every) if any(isinstance(q, ir.Mix) for q in ir.walk((p,)))), len(every))
    return tuple(every[first:])


def _moving(passes: ir.Sequence) -> Iterator[ir.Pass]:
    for p in passes:
        if isinstance(p, ir.Choice):
            branches = tuple(tuple(_moving(branch)) for branch in p.branches)
            if any(branches):
                yield replace(p, branches=branches)
        elif isinstance(p, ir.Mix | ir.Resample):
            yield p


@singledispatch
def left(p: ir.Pass) -> Tensor:
    """The share of its pixels that a sample keeps in a mix, [N] float64; the rest is its partner's."""
    raise NotImplementedError(f"no rule says what {type(p).__name__} leaves of an image")


@left.register
def _(p: ir.MixUp) -> Tensor:
    return p.lam.double()


@left.register
def _(p: ir.CutMix | ir.MixInside) -> Tensor:
    taken = _area(box_inside(p)) / _area(_frame(p.size))
    return 1 - (taken if isinstance(p, ir.CutMix) else taken * (1 - p.lam.double()))


def box_inside(p: ir.CutMix | ir.MixInside) -> Tensor:
    """What lies in the image of a box, which somebody may have drawn: [N, 4] float64."""
    return _common(p.box.double(), _frame(p.size))


@dataclass(frozen=True, eq=False)
class Pair:
    """What one mix makes of labels: nothing of it depends on what another sample drew, so that it is drawn with the
    mix."""

    partner: Tensor  # [N] int64, rows of the batch
    own: Tensor  # [N] float64, the share that a sample keeps; the rest is its partner's


@dataclass(frozen=True, eq=False)
class Shares:
    """Whose pixels images are made of, whatever mixed them."""

    matrix: Tensor  # [N, N] float64: of image n the share that is of sample m


Mixes = ir.Sequence | Pair | Shares


def accounted(passes: ir.Sequence) -> Mixes:
    """Passes as `for_labels` gives them; a mix that is the only one as its account."""
    return Pair(passes[0].partner, left(passes[0])) if is_single(passes) else passes


def is_single(passes: ir.Sequence) -> TypeGuard[tuple[ir.Mix]]:
    """Whether passes as `for_labels` gives them are one mix."""
    return len(passes) == 1 and isinstance(passes[0], ir.Mix)


@dataclass(frozen=True, eq=False)
class Trail:
    """What the final images take from one sample each: parts of its pixels, whatever mixes came before, and a number of
    pixels that are its own.

    Weights below 0 take away what another part counts too."""

    who: Tensor  # [N] int64, rows of the batch
    weight: Tensor  # [N, parts] float64, of a pixel of a part in the final image
    box: Tensor  # [N, parts, 4] float64, the parts
    amount: Tensor  # [N] float64


def shares(passes: ir.Sequence, n: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Whose pixels the images are made of after passes as `for_labels` gives them: rows of the batch, [N] int64, and
    the share of each image that is theirs, [N] float64.  The shares of an image sum to 1.

    A pixel that no image fills, as of padding, is of the sample that was padded."""
    whole = end(passes, n, device)
    zeros = whole[:, 0]
    start = Trail(torch.arange(n, device=device), zeros[:, None] + 1, whole[:, None], zeros)
    total = _area(whole)
    return [(t.who, _amount(t) / total) for t in _before(passes, [start])]


def end(passes: ir.Sequence, n: int, device: torch.device) -> Tensor:
    """The rectangle of the images after passes: [N, 4] float64; of mixes that ask for no rectangle one pixel."""
    sized = [p for p in ir.walk(passes) if isinstance(p, ir.Resample | ir.CutMix | ir.MixInside)]
    if not sized:
        return ir.rows((0.0, 0.0, 1.0, 1.0), torch.empty(n, device=device), torch.float64)
    # branches keep the size, so that the last pass that knows one knows that of the end
    return _frame(sized[-1].size)


def _frame(size: Tensor) -> Tensor:
    """The rectangle of images of a size: [..., 4] float64.  size: [..., 2]"""
    far = size.flip(-1).double()
    return torch.cat([torch.zeros_like(far), far], -1)


def _area(box: Tensor) -> Tensor:
    """Of rectangles [..., 4]; of what is upside down 0."""
    sides = (box[..., 2:] - box[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def _common(a: Tensor, b: Tensor) -> Tensor:
    near, far = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    return torch.cat([near, torch.maximum(near, far)], -1)


def _sum(values: Tensor) -> Tensor:
    """[N] of [N, parts], one after the other: what adds nothing then changes no bit."""
    out = values.new_zeros(len(values))
    for column in values.unbind(1):
        out = out + column
    return out


def _amount(t: Trail) -> Tensor:
    """[N] float64, in pixels of the final image."""
    return t.amount + _sum(t.weight * _area(t.box))


def _before(passes: ir.Sequence, trails: list[Trail]) -> list[Trail]:
    """Trails through passes, from the last to the first."""
    for p in reversed(passes):
        trails = _joined(before(p, trails))
    return trails


def _joined(trails: list[Trail]) -> list[Trail]:
    """Trails of the very same rows as one, without what adds nothing, where it costs no wait to know."""
    groups: dict[int, list[Trail]] = {}
    for t in trails:
        groups.setdefault(id(t.who), []).append(t)
    out = []
    for group in groups.values():
        amount = group[0].amount
        for t in group[1:]:
            amount = amount + t.amount
        weight, box = torch.cat([t.weight for t in group], 1), torch.cat([t.box for t in group], 1)
        if weight.device.type == "cpu":
            kept = (weight * _area(box) != 0).any(0)
            weight, box = weight[:, kept], box[:, kept]
            if len(weight) and not weight.shape[1] and not amount.any():
                continue
        out.append(Trail(group[0].who, weight, box, amount))
    return out


@singledispatch
def before(p: ir.Pass, trails: list[Trail]) -> list[Trail]:
    """What images take from each sample's image as it was before a pass, from what they take from it after."""
    raise NotImplementedError(f"no rule says what {type(p).__name__} does to labels")


@before.register
def _(p: ir.MixUp, trails: list[Trail]) -> list[Trail]:
    out = []
    for t in trails:
        lam = p.lam[t.who].double()[:, None]
        out.append(replace(t, weight=t.weight * lam))
        out.append(_of_others(p, t, t.weight * (1 - lam), t.box))
    return out


@before.register
def _(p: ir.CutMix | ir.MixInside, trails: list[Trail]) -> list[Trail]:
    out = []
    for t in trails:
        within = _common(t.box, box_inside(p)[t.who][:, None])
        given = t.weight if isinstance(p, ir.CutMix) else t.weight * (1 - p.lam[t.who].double()[:, None])
        out.append(replace(t, weight=torch.cat([t.weight, -given], 1), box=torch.cat([t.box, within], 1)))
        out.append(_of_others(p, t, given, within))
    return out


def _of_others(p: ir.Mix, t: Trail, weight: Tensor, box: Tensor) -> Trail:
    return Trail(p.partner[t.who], weight, box, torch.zeros_like(t.amount))


def pixels_of_one(p: ir.Resample) -> Tensor:
    """How many pixels of the input one of the output stands for: [N] float64."""
    m = p.inverse
    return (m[:, 0, 0] * m[:, 1, 1] - m[:, 0, 1] * m[:, 1, 0]).abs()


def half_pixel(p: ir.Resample) -> float:
    """What the edge of a pixel lies beyond its centre; what is rounded down counts from the edge."""
    return 0.0 if p.kernel == "floor" and not p.integer_shift else 0.5


@before.register
def _(p: ir.Resample, trails: list[Trail]) -> list[Trail]:
    out = []
    for t in trails:
        matrix, half = p.inverse[t.who], half_pixel(p)
        pixels = pixels_of_one(p)[t.who][:, None]
        live = _common(t.box, p.live[t.who].double()[:, None])
        linear, shift = matrix[:, None, :2, :2], matrix[:, None, :2, 2]
        near, far = (
            linear[..., 0] * (c[..., :1] - 0.5) + linear[..., 1] * (c[..., 1:] - 0.5) + shift + half
            for c in (live[..., :2], live[..., 2:])
        )
        moved = torch.cat([torch.minimum(near, far), torch.maximum(near, far)], -1)
        inner = _common(moved, p.source[t.who].double()[:, None])
        rest = t.weight * (_area(t.box) - _area(inner) / pixels)
        out.append(Trail(t.who, t.weight / pixels, inner, t.amount + _sum(rest)))
    return out


@before.register
def _(p: ir.Choice, trails: list[Trail]) -> list[Trail]:
    for index in reversed(p.index.unbind(1)):
        ways: list[Trail] = []
        for k, branch in enumerate(p.branches):
            taken = []
            for t in trails:
                took = (index[t.who] == k).double()
                # what is known already is of no branch: it goes with the first
                amount = t.amount if k == 0 else torch.zeros_like(t.amount)
                taken.append(replace(t, weight=t.weight * took[:, None], amount=amount))
            ways += _before(branch, taken)
        trails = _joined(ways)
    return trails
