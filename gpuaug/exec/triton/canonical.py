"""The canonical form of passes, as the kernels run them: what moves pixels or reads neighbours stands at the front of a
launch, inside branches too.

A choice that holds such passes becomes choices of one step, of whose branches each holds one at most, at its front; a
mix at the front of a branch leaves the choice.  Such a choice is then one source, picked by number, and a choice among
pointwise passes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import singledispatch

import torch
from torch import Tensor

from gpuaug import fuse, ir
from gpuaug.mixing import chose_one_of, chosen, merged_mix
from gpuaug.symbolic import smooth


@dataclass(frozen=True, eq=False)
class BlurRows(ir.Stencil):
    """The mean along x under `weights`, the taps centred on the pixel; the border reflects without repeating the
    edge."""

    weights: Tensor  # [N, taps] float32, an odd number of taps


@dataclass(frozen=True, eq=False)
class BlurColumns(ir.Stencil):
    """The same along y."""

    weights: Tensor  # [N, taps] float32, an odd number of taps


@dataclass(frozen=True, eq=False)
class Pick(ir.Stencil):
    """Each sample by one of several sources; None is the pixel itself."""

    index: Tensor  # [N] int64
    sources: tuple[ir.Pass | None, ...]
    statistic_follows: tuple[bool, ...]  # whether one may follow each source within its choice


def is_source(p: ir.Pass) -> bool:
    """Whether a pass reads other places than its own pixel and its partner's, all in one way."""
    return isinstance(p, ir.Resample | ir.Warp | ir.Project | ir.Stencil)


def canonical_form(passes: ir.Sequence) -> ir.Sequence:
    """Passes in canonical form, which give the same images; a choice that has none is left as it is."""
    return tuple(q for p in passes for q in rewrite(p))


@singledispatch
def rewrite(p: ir.Pass) -> ir.Sequence:
    """A pass in canonical form."""
    return (p,)


@rewrite.register
def _(p: ir.Resample) -> tuple[ir.Pass, ...]:
    if not p.clamp or p.fixed is None:
        return (p,)
    one = ir.rows((1.0,), p.size, torch.float32)
    return replace(p, clamp=False), ir.Affine(one, torch.zeros_like(one))


@rewrite.register
def _(p: ir.GaussianBlur) -> tuple[ir.Pass, ...]:
    wide, high = (gaussian(size, sigma) for size, sigma in zip(p.kernel_size, p.sigma.unbind(1), strict=True))
    return BlurRows(wide), BlurColumns(high)


def gaussian(size: int, sigma: Tensor) -> Tensor:
    """Weights exp(-x^2 / 2 sigma^2) that sum to 1, those of sigma 0 all in the middle: [N, size] float32.  sigma: [N]
    float32"""
    reach = range(size // 2 + 1)
    scale = 2 * sigma.double().square()[:, None]
    safe = torch.where(scale == 0, 1.0, scale)
    squares = ir.rows(tuple(-float(k * k) for k in reach), sigma, torch.float64)
    middle = ir.rows(tuple(float(k == 0) for k in reach), sigma, torch.float64)
    # one side, in float64 and summed term by term, so that a trace can write it down
    side = torch.where(scale == 0, middle, smooth("exp", squares / safe)).unbind(1)
    total = side[0]
    for weight in side[1:]:
        total = total + 2 * weight
    return torch.stack([side[abs(k - size // 2)] / total for k in range(size)], 1).float()


@rewrite.register
def _(p: ir.Choice) -> tuple[ir.Pass, ...]:
    if ir.is_pointwise(p):
        return (p,)
    branches = [canonical_form(_fold_branch(branch)) for branch in p.branches]
    rows = [_split_at_sources(branch) for branch in branches]
    if why_not_canonical(replace(p, branches=tuple(branches))):
        return (p,)
    return tuple(q for index in p.index.unbind(1) for q in _one_step_choices(index, rows, p.fixed))


def _fold_branch(branch: ir.Sequence) -> ir.Sequence:
    """Fuse integer shifts into the resample beside them, but not beside a warp that rounds to the nearest pixel: a
    position half way between two pixels could then round to the other one."""
    return branch if any(isinstance(p, ir.Warp) and p.kernel == "nearest" for p in branch) else fuse.fold(branch)


def why_not_canonical(p: ir.Choice) -> str:
    """Why a choice has no canonical form; empty where it has one.  p: its branches are in canonical form"""
    inner = list(ir.walk(tuple(q for branch in p.branches for q in branch)))
    for q in inner:
        if isinstance(q, ir.Custom | ir.Blend | ir.Jpeg | ir.Elastic):
            return f"a choice holds {type(q).__name__}"
    mixes = [q for q in inner if isinstance(q, ir.Mix)]
    first = [branch[0] for branch in p.branches if branch and isinstance(branch[0], ir.Mix)]
    if len(first) < len(mixes):
        return f"a choice holds {type(mixes[0]).__name__} after another pass"
    if p.fixed is not None and not all(branch and is_source(branch[0]) for branch in p.branches):
        return "the images of a choice change their size behind other passes"
    if len({q.fixed for q in inner if isinstance(q, ir.Resample | ir.Warp | ir.Project)}) > 1:
        return "the images of a choice change their size within a branch"
    if len({q.channels for q in inner if isinstance(q, ir.Gray)}) > 1:
        return "the images of a choice change their channels within a branch"
    return ""


def _split_at_sources(branch: ir.Sequence) -> list[list[ir.Pass]]:
    """Passes in parts, a new one before each pass that must stand at the front."""
    parts: list[list[ir.Pass]] = [[]]
    for p in branch:
        if isinstance(p, ir.Mix) or not ir.is_pointwise(p):
            parts.append([])
        parts[-1].append(p)
    return parts if parts[0] else parts[1:]


def _one_step_choices(
    index: Tensor, rows: list[list[list[ir.Pass]]], fixed: tuple[int, int] | None
) -> Iterator[ir.Pass]:
    """Passes one after the other that do what each sample's branch does.

    index: [N] int64, the branch of each sample; rows: of each branch its parts; fixed: of the choice"""
    mixes = {k: row[0][0] for k, row in enumerate(rows) if row and isinstance(row[0][0], ir.Mix)}
    if mixes:
        yield merged_mix(index, mixes)
    parts = [[row[0][1:], *row[1:]] if k in mixes else row for k, row in enumerate(rows)]
    for j in range(max(len(row) for row in parts)):
        branches = tuple(tuple(row[j]) if j < len(row) else () for row in parts)
        if any(branches):
            yield ir.Choice(index[:, None], branches, fixed if j == 0 else None)


# ---- a choice in canonical form as a source and pointwise passes


@singledispatch
def source_and_points(p: ir.Pass) -> ir.Sequence:
    """A choice with sources as one pass that picks among them, and its pointwise passes; any other pass as it is."""
    return (p,)


@source_and_points.register
def _(p: ir.Choice) -> tuple[ir.Pass, ...]:
    if ir.is_pointwise(p):
        return (p,)
    leaf, ways = number_ways(p)
    groups: dict[object, dict[int, ir.Pass | None]] = {}
    statistic_follows: dict[object, bool] = {}
    # the pixel itself first, if some sample may have it
    for k, (source, follows) in sorted(enumerate(ways), key=lambda way: way[1][0] is not None):
        kind = _merge_key(source)
        groups.setdefault(kind, {})[k] = source
        statistic_follows[kind] = statistic_follows.get(kind, False) or follows
    index = torch.zeros_like(leaf)
    for j, members in list(enumerate(groups.values()))[1:]:
        index = torch.where(chose_one_of(leaf, members), j, index)
    found = tuple(chosen(leaf, members) for members in groups.values())
    source = found[0] if len(found) == 1 else Pick(index, found, tuple(statistic_follows.values()))
    after = points_after_sources(p)
    return (source, after) if any(after.branches) else (source,)


def _merge_key(p: ir.Pass | None) -> object:
    """What passes must share to be one source with parameters per sample."""
    if p is None:
        return None
    shapes = tuple(v.shape[1:] if isinstance(v, Tensor) else v for v in vars(p).values())
    return type(p), shapes


def number_ways(p: ir.Choice) -> tuple[Tensor, list[tuple[ir.Pass | None, bool]]]:
    """Number the ways through a choice and the choices at the front of its branches.

    Gives which one each sample takes, [N] int64; and of each its source, and whether a statistic may follow it."""
    index = p.index[:, 0]
    leaf = index
    found: list[tuple[ir.Pass | None, bool]] = []
    for k, branch in enumerate(p.branches):
        front, rest = _front(branch)
        follows = any(isinstance(q, ir.Pointwise) and q.statistic for q in ir.walk(rest))
        within, ways = number_ways(front) if isinstance(front, ir.Choice) else (0, [(front, False)])
        # with one way a branch so far, the branch's own number serves
        if len(found) + len(ways) > k + 1:
            leaf = torch.where(index == k, within + len(found), leaf)
        found += [(source, within_branch or follows) for source, within_branch in ways]
    return leaf, found


def _front(branch: ir.Sequence) -> tuple[ir.Pass | None, ir.Sequence]:
    """The pass at the front of a branch if it is not pointwise, and the rest."""
    return (branch[0], branch[1:]) if branch and not ir.is_pointwise(branch[0]) else (None, branch)


def points_after_sources(p: ir.Choice) -> ir.Choice:
    """The choice without its sources: what follows them."""
    branches = []
    for branch in p.branches:
        front, rest = _front(branch)
        inner = points_after_sources(front) if isinstance(front, ir.Choice) else None
        branches.append((inner, *rest) if inner and any(inner.branches) else rest)
    return ir.Choice(p.index, tuple(branches))
