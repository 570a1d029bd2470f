"""Checks of the values that executors index with, such as windows, branch numbers and rows of partners.

They are made before a pixel is read, because parameters may have been edited between `draw` and `replay`, and anybody
may write a transform: a value out of bounds would read foreign memory."""

from collections.abc import Iterator
from functools import partial, singledispatch
from typing import Any

import torch
from torch import Tensor

from gpuaug import ir
from gpuaug.symbolic import is_symbolic, require

Rule = tuple[str, Any, Tensor, str]  # field, its values, [N, ...] bool where they are in bounds, and what they must be


def check(passes: ir.Sequence, frame: ir.Frame) -> None:
    """Raise ValueError where a pass would read beyond its images or its batch.  Values on a GPU are not looked at, for
    that would make the host wait: kernels stay inside by themselves."""
    for p in passes:
        for name, values, holds, expected in rules(p, frame):
            require(holds, partial(_refusal, p, name, values, holds, expected))
        frame = ir.after((p,), frame)


def _refusal(p: ir.Pass, name: str, values: Tensor, holds: Tensor, expected: str) -> ValueError:
    row = int((~holds).nonzero()[0, 0])
    return ValueError(
        f"{type(p).__name__}.{name} must be {expected}, got {values[row].tolist()} for sample {row}; "
        "give parameters that fit this batch"
    )


@singledispatch
def rules(p: ir.Pass, frame: ir.Frame) -> Iterator[Rule]:
    """What must hold of the values of a pass: of most passes nothing, since they index with none."""
    yield from ()


@rules.register
def _(p: ir.Mix, frame: ir.Frame) -> Iterator[Rule]:
    n = len(frame.size)
    # a symbol knows no count of samples, and the partners that a trace finds are always rows of the batch
    if not is_symbolic(p.partner):
        yield "partner", p.partner, (p.partner >= 0) & (p.partner < n), f"a row of this batch, in [0, {n})"


@rules.register
def _(p: ir.Choice, frame: ir.Frame) -> Iterator[Rule]:
    count = len(p.branches)
    yield "index", p.index, (p.index >= 0) & (p.index < count), f"the number of a branch, in [0, {count})"
    for branch in p.branches:
        check(branch, frame)


@rules.register
def _(p: ir.Blend, frame: ir.Frame) -> Iterator[Rule]:
    for chain in p.chains:
        check(chain, frame)
    yield from ()


@rules.register
def _(p: ir.Jpeg, frame: ir.Frame) -> Iterator[Rule]:
    yield "quality", p.quality, (p.quality >= 1) & (p.quality <= 100), "in [1, 100]"


@rules.register
def _(p: ir.PermuteChannels, frame: ir.Frame) -> Iterator[Rule]:
    count = frame.channels
    holds = (p.order >= 0) & (p.order < count)
    for k in range(count):
        holds = holds & (p.order == k).any(1, keepdim=True)
    yield "order", p.order, holds, f"a permutation of the {count} channels"


@rules.register
def _(p: ir.Posterize, frame: ir.Frame) -> Iterator[Rule]:
    yield "bits", p.bits, (p.bits >= 0) & (p.bits <= 8), "in [0, 8]"


@rules.register
def _(p: ir.Resample, frame: ir.Frame) -> Iterator[Rule]:
    whole = frame.whole()
    if p.source is not whole:
        yield "source", p.source, _within(p.source, whole), "inside the image"
    if p.extend == "none" and p.window is not p.source:
        yield from _readable(p.window, p.source)


@rules.register
def _(p: ir.Project, frame: ir.Frame) -> Iterator[Rule]:
    yield from _readable(p.window, frame.whole())


def _readable(window: Tensor, source: Tensor) -> Iterator[Rule]:
    yield "window", window, _within(window, source), "inside the image"
    yield "window", window, window[:, 2:] > window[:, :2], "a rectangle with a pixel at least"


def _within(inner: Tensor, outer: Tensor) -> Tensor:
    """[N, 4] bool.  inner, outer: [N, 4]"""
    return torch.cat([inner[:, :2] >= outer[:, :2], inner[:, 2:] <= outer[:, 2:]], 1)
