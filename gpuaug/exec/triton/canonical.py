"""Passes as the kernels run them: what moves or reads neighbours stands at the front of a launch, inside branches too.

A choice that holds such passes becomes choices of one step, of whose branches each holds one at most, at its front; a
mix at the front of a branch leaves the choice.  Such a choice is then one source, picked by number, and a choice among
points."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from gpuaug import fuse, ir


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
    measured: tuple[bool, ...]  # whether a statistic may follow each in the choice that it is of


def is_source(p: ir.Pass) -> bool:
    """Whether a pass reads other places than its own pixel and its partner's, all in one way."""
    return isinstance(p, ir.Resample | ir.Warp | ir.Project | ir.Stencil)


def normal(passes: ir.Sequence) -> ir.Sequence:
    """The same images from passes in normal form; a choice without one is left as it is."""
    return tuple(q for p in passes for q in rewritten(p))


@singledispatch
def rewritten(p: ir.Pass) -> ir.Sequence:
    """A pass in normal form."""
    return (p,)


@rewritten.register
def _(p: ir.GaussianBlur) -> tuple[ir.Pass, ...]:
    wide, high = (gaussian(size, sigma) for size, sigma in zip(p.kernel_size, p.sigma.unbind(1), strict=True))
    return BlurRows(wide), BlurColumns(high)


def gaussian(size: int, sigma: Tensor) -> Tensor:
    """Weights exp(-x^2 / 2 sigma^2) that sum to 1, those of sigma 0 all in the middle: [N, size] float32.  sigma: [N]
    float32"""
    square = (torch.arange(size, dtype=torch.float32, device=sigma.device) - size // 2).square()
    spread = 2 * sigma[:, None].square()
    weights = torch.where(
        spread == 0, (square == 0).float(), torch.exp(-square / torch.where(spread == 0, 1.0, spread))
    )
    return weights / weights.sum(1, keepdim=True)


@rewritten.register
def _(p: ir.Choice) -> tuple[ir.Pass, ...]:
    if ir.is_pointwise(p):
        return (p,)
    branches = [normal(_folded(branch)) for branch in p.branches]
    rows = [_segments(branch) for branch in branches]
    if obstacle(replace(p, branches=tuple(branches))):
        return (p,)
    return tuple(q for index in p.index.unbind(1) for q in _one_step(index, rows))


def _folded(branch: ir.Sequence) -> ir.Sequence:
    """Moves melt into the resample beside them, but where a warp rounds: its ties would fall otherwise."""
    return branch if any(isinstance(p, ir.Warp) and p.kernel == "nearest" for p in branch) else fuse.fold(branch)


def obstacle(p: ir.Choice) -> str:
    """Why a choice has no normal form; empty where it has one.  p: its branches are in normal form"""
    inner = list(ir.walk(tuple(q for branch in p.branches for q in branch)))
    if any(isinstance(q, ir.Custom) for q in inner):
        return "a choice holds Custom"
    mixes = [q for q in inner if isinstance(q, ir.Mix)]
    first = [branch[0] for branch in p.branches if branch and isinstance(branch[0], ir.Mix)]
    if len({type(q) for q in mixes}) > 1:
        return "a choice holds mixes of two kinds"
    if len(first) < len(mixes):
        return f"a choice holds {type(mixes[0]).__name__} after another pass"
    if len({q.fixed for q in inner if isinstance(q, ir.Resample | ir.Warp | ir.Project)}) > 1:
        return "the images of a choice change their size within a branch"
    if len({q.channels for q in inner if isinstance(q, ir.Gray)}) > 1:
        return "the images of a choice change their channels within a branch"
    return ""


def _segments(branch: ir.Sequence) -> list[list[ir.Pass]]:
    """A row of passes, cut before each that must stand at the front."""
    parts: list[list[ir.Pass]] = [[]]
    for p in branch:
        if isinstance(p, ir.Mix) or not ir.is_pointwise(p):
            parts.append([])
        parts[-1].append(p)
    return parts if parts[0] else parts[1:]


def _one_step(index: Tensor, rows: list[list[list[ir.Pass]]]) -> Iterator[ir.Pass]:
    """Passes one after the other that do what each sample's branch does.  index: [N]"""
    mixes = {k: row[0][0] for k, row in enumerate(rows) if row and isinstance(row[0][0], ir.Mix)}
    if mixes:
        yield hoisted(next(iter(mixes.values())), index, mixes)
    parts = [[row[0][1:], *row[1:]] if k in mixes else row for k, row in enumerate(rows)]
    for j in range(max(len(row) for row in parts)):
        branches = tuple(tuple(row[j]) if j < len(row) else () for row in parts)
        if any(branches):
            yield ir.Choice(index[:, None], branches)


@singledispatch
def hoisted(first: ir.Pass, index: Tensor, mixes: dict[int, Any]) -> ir.Pass:
    """The mixes of branches by their number as one, which leaves alone the samples of other branches.  index: [N]"""
    raise NotImplementedError(f"no {type(first).__name__} leaves a choice")


@hoisted.register
def _(first: ir.CutMix, index: Tensor, mixes: dict[int, ir.CutMix]) -> ir.Pass:
    chosen: ir.CutMix = selected(index, mixes)
    return replace(chosen, box=torch.where(among(index, mixes)[:, None], chosen.box, 0))


@hoisted.register
def _(first: ir.MixUp, index: Tensor, mixes: dict[int, ir.MixUp]) -> ir.Pass:
    chosen: ir.MixUp = selected(index, mixes)
    return replace(chosen, lam=torch.where(among(index, mixes), chosen.lam, 1.0))


def among(index: Tensor, members: dict[int, Any]) -> Tensor:
    """Which samples chose one of these: [N] bool."""
    chosen = torch.zeros_like(index, dtype=torch.bool)
    for k in members:
        chosen = chosen | (index == k)
    return chosen


def selected(index: Tensor, members: dict[int, Any]) -> Any:
    """One pass whose parameters are, for each sample, those of the member that it chose; of no matter where it chose
    none."""
    (_, out), *rest = members.items()
    for k, p in rest if out is not None else ():
        merged = {}
        for name, value in vars(p).items():
            before = getattr(out, name)
            if isinstance(value, Tensor) and value is not before:
                merged[name] = torch.where((index == k).view(-1, *(1,) * (value.ndim - 1)), value, before)
        out = replace(out, **merged)
    return out


# ---- a choice in normal form as a source and points


@singledispatch
def spread(p: ir.Pass) -> ir.Sequence:
    """A choice with sources as these, picked by number, and its points; any other pass as it is."""
    return (p,)


@spread.register
def _(p: ir.Choice) -> tuple[ir.Pass, ...]:
    if ir.is_pointwise(p):
        return (p,)
    leaf, ways = number(p)
    groups: dict[object, dict[int, ir.Pass | None]] = {}
    measured: dict[object, bool] = {}
    # the pixel itself first, if some sample may have it
    for k, (source, follows) in sorted(enumerate(ways), key=lambda way: way[1][0] is not None):
        kind = _kind(source)
        groups.setdefault(kind, {})[k] = source
        measured[kind] = measured.get(kind, False) or follows
    index = torch.zeros_like(leaf)
    for j, members in list(enumerate(groups.values()))[1:]:
        index = torch.where(among(leaf, members), j, index)
    found = tuple(selected(leaf, members) for members in groups.values())
    source = found[0] if len(found) == 1 else Pick(index, found, tuple(measured.values()))
    after = points(p)
    return (source, after) if any(after.branches) else (source,)


def _kind(p: ir.Pass | None) -> object:
    """What passes must share to be one source with parameters per sample."""
    if p is None:
        return None
    shapes = tuple(v.shape[1:] if isinstance(v, Tensor) else v for v in vars(p).values())
    return type(p), shapes


def number(p: ir.Choice) -> tuple[Tensor, list[tuple[ir.Pass | None, bool]]]:
    """Which of all the ways through a choice each sample takes, [N] int64; and each way's source, and whether a
    statistic may follow it."""
    index = p.index[:, 0]
    leaf = index
    found: list[tuple[ir.Pass | None, bool]] = []
    for k, branch in enumerate(p.branches):
        front, rest = _front(branch)
        follows = any(isinstance(q, ir.Pointwise) and q.statistic for q in ir.walk(rest))
        within, ways = number(front) if isinstance(front, ir.Choice) else (0, [(front, False)])
        # while there is one way a branch, they are numbered as the branches are
        if len(found) + len(ways) > k + 1:
            leaf = torch.where(index == k, within + len(found), leaf)
        found += [(source, measured or follows) for source, measured in ways]
    return leaf, found


def _front(branch: ir.Sequence) -> tuple[ir.Pass | None, ir.Sequence]:
    """What stands at the front of a branch and is no point, and the rest."""
    return (branch[0], branch[1:]) if branch and not ir.is_pointwise(branch[0]) else (None, branch)


def points(p: ir.Choice) -> ir.Choice:
    """What follows the sources."""
    branches = []
    for branch in p.branches:
        front, rest = _front(branch)
        inner = points(front) if isinstance(front, ir.Choice) else None
        branches.append((inner, *rest) if inner and any(inner.branches) else rest)
    return ir.Choice(p.index, tuple(branches))
