"""Labels after mixes: one launch, but for choices among chains of passes and more mixes than a kernel follows, which
take operations of torch."""

from dataclasses import dataclass
from functools import singledispatch

import torch
from gpuaug_kernels import codes, label_chains
from gpuaug_kernels import labels as kernels
from torch import Tensor

from gpuaug import ir, mixing, targets


@dataclass(frozen=True, eq=False)
class Chain:
    """What several mixes and the passes between them make of labels, as one table for the kernel."""

    records: tuple[int, ...]  # as codes.py says
    partners: Tensor  # [N, mixes] int64, rows of the batch, of the last mix first
    numbers: Tensor  # [N, columns] float64


def accounted(passes: ir.Sequence) -> mixing.Mixes | Chain:
    """As `mixing.accounted`; a chain of mixes, crops, resizing and flips as its table."""
    mixes = sum(isinstance(p, ir.Mix) for p in passes)
    if mixing.is_single(passes) or not 0 < mixes <= label_chains.MOST_MIXES:
        return mixing.accounted(passes)
    if not all(isinstance(p, ir.Mix | ir.Resample) for p in passes):
        return mixing.accounted(passes)
    records: list[int] = []
    partners: list[Tensor] = []
    columns: list[Tensor] = []
    for p in reversed(passes):
        code, halves, values = encoded(p)
        records += [code, len(columns), len(partners), halves]
        columns += values
        if isinstance(p, ir.Mix):
            partners.append(p.partner)
    n, device = len(partners[0]), partners[0].device
    columns += mixing.end(passes, n, device)[:, 2:].unbind(1)
    every = ([v[:, None] for v in values] for values in (partners, columns))
    return Chain(tuple(records), *(torch.cat(v, 1) for v in every))


def label_launches(passes: ir.Sequence) -> int:
    """How many launches labels take after passes as `mixing.for_labels` gives them, 0 where torch does it."""
    return int(isinstance(accounted(passes), mixing.Pair | Chain))


@singledispatch
def encoded(p: ir.Pass) -> tuple[int, int, list[Tensor]]:
    """The code of a pass in a chain, the half pixels that it adds, and its numbers, each [N] float64."""
    raise NotImplementedError(f"no rule says how labels follow {type(p).__name__} in a kernel")


@encoded.register
def _(p: ir.MixUp) -> tuple[int, int, list[Tensor]]:
    return codes.MIXUP, 0, [p.lam.double()]


@encoded.register
def _(p: ir.CutMix) -> tuple[int, int, list[Tensor]]:
    return codes.CUTMIX, 0, [*mixing.box_inside(p).unbind(1)]


@encoded.register
def _(p: ir.MixInside) -> tuple[int, int, list[Tensor]]:
    return codes.MIX_INSIDE, 0, [*mixing.box_inside(p).unbind(1), p.lam.double()]


@encoded.register
def _(p: ir.Resample) -> tuple[int, int, list[Tensor]]:
    m = p.inverse
    linear = [m[:, 0, 0], m[:, 0, 1], m[:, 1, 0], m[:, 1, 1]]
    shift = [m[:, 0, 2], m[:, 1, 2], mixing.pixels_of_one(p)]
    boxes = [*p.live.double().unbind(1), *p.source.double().unbind(1)]
    return codes.MOVED, int(mixing.half_pixel(p) > 0), [*linear, *shift, *boxes]


def follow_labels(
    mixes: mixing.Mixes | Chain,
    labels: Tensor,
    num_classes: int | None,
    valid: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """As `targets.follow`, to the same bits."""
    if not isinstance(mixes, mixing.Pair | Chain):
        return targets.follow(mixes, labels, num_classes, valid, smoothing)
    if labels.dtype.is_floating_point != (labels.dtype in kernels.FLOATS) or labels.requires_grad:
        # a gradient needs operations that torch knows
        known = mixes if isinstance(mixes, mixing.Pair) else _shares(mixes)
        return targets.follow(known, labels, num_classes, valid, smoothing)
    classes = targets.classes_of(labels, num_classes, valid)
    if isinstance(mixes, Chain):
        table = (mixes.partners.contiguous(), mixes.numbers.contiguous())
        rows: Tensor = label_chains.mixed(labels, classes, mixes.records, *table, valid, smoothing)
    else:
        rows = kernels.mixed(labels, classes, mixes.partner.contiguous(), mixes.own.contiguous(), valid, smoothing)
    return rows


def _shares(chain: Chain) -> mixing.Shares:
    n = len(chain.partners)
    alone = torch.eye(n, dtype=torch.float64, device=chain.partners.device)
    table = (chain.partners.contiguous(), chain.numbers.contiguous())
    return mixing.Shares(label_chains.mixed(alone, n, chain.records, *table, None, 0.0))
