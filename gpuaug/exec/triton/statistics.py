"""Which statistics the samples of a launch need, and in which stage: each sample numbers those on its own way through
the stages, from 0."""

import torch
from gpuaug_kernels import codes
from torch import Tensor

from gpuaug import ir


def least_and_most(p: ir.Pass) -> tuple[int, int]:
    """The least and the most statistics that a sample needs in a stage.

    A choice of several steps is an order of its branches: each sample takes every one once."""
    if not isinstance(p, ir.Choice):
        return (int(bool(kinds(p))),) * 2
    each = [[sum(c) for c in zip((0, 0), *map(least_and_most, branch), strict=True)] for branch in p.branches]
    least, most = (min, max) if p.index.shape[1] == 1 else (sum, sum)
    return least(low for low, _ in each), most(high for _, high in each)


def kinds(p: ir.Pass) -> set[str]:
    """The kinds of statistic in a stage."""
    return {q.statistic for q in ir.walk((p,)) if isinstance(q, ir.Pointwise) and q.statistic}


def stages_with(stages: ir.Sequence, number: int) -> list[int]:
    """The stages in which some sample may need its statistic of this number, counted from the first stage."""
    each = [least_and_most(p) for p in stages]
    early = [sum(least for least, _ in each[:k]) for k in range(len(each))]
    late = [sum(most for _, most in each[: k + 1]) for k in range(len(each))]
    return [k for k, (_, most) in enumerate(each) if most and early[k] <= number < late[k]]


def split_at_mix(passes: ir.Sequence) -> tuple[ir.Sequence, ir.Sequence]:
    """Passes before the mix among them, and those from it on: each part numbers its statistics from 0."""
    mixes = [k for k, p in enumerate(passes) if isinstance(p, ir.Mix)]
    return (passes[: mixes[0]], passes[mixes[0] :]) if mixes else (passes, ())


def kinds_by_number(stages: ir.Sequence) -> list[list[str]]:
    """By number, the kinds that the samples' statistics of that number may be of: each number is a launch over the
    images and one that finishes it."""
    found = []
    for number in range(sum(most for _, most in map(least_and_most, stages))):
        found.append(
            sorted(
                {k for at in stages_with(stages, number) for k in kinds(stages[at])}, key=codes.STATISTICS.__getitem__
            )
        )
    return found


def kind_of_each(stages: ir.Sequence, number: int, keys: Tensor) -> Tensor:
    """The kind of each sample's statistic of this number, [N] int64: its code, or 0 where the sample
    has no such statistic.  keys: any [N] int64"""
    found = torch.zeros_like(keys)
    passed = torch.zeros_like(keys)
    every = torch.ones_like(keys)

    def follow(p: ir.Pass, active: Tensor) -> None:
        nonlocal found, passed
        if isinstance(p, ir.Choice):
            for step in p.index.unbind(1):
                for k, branch in enumerate(p.branches):
                    chosen = active * (step == k)
                    for q in branch:
                        if kinds(q):
                            follow(q, chosen)
        else:
            (code,) = (codes.STATISTICS[k] for k in kinds(p))
            found = found + active * (passed == number) * code
            passed = passed + active

    for p in stages:
        if kinds(p):
            follow(p, every)
    return found
