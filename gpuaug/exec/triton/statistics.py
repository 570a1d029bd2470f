"""Which statistics the samples of a launch meet, and when: each sample counts those on its own way through the
stages."""

import torch
from gpuaug_kernels import codes
from torch import Tensor

from gpuaug import ir


def counts(p: ir.Pass) -> tuple[int, int]:
    """The least and the most statistics that a sample meets in a stage; several steps of a choice are an order, so that
    each branch comes once."""
    if not isinstance(p, ir.Choice):
        return (int(bool(kinds(p))),) * 2
    each = [[sum(c) for c in zip((0, 0), *map(counts, branch), strict=True)] for branch in p.branches]
    least, most = (min, max) if p.index.shape[1] == 1 else (sum, sum)
    return least(low for low, _ in each), most(high for _, high in each)


def kinds(p: ir.Pass) -> set[str]:
    """The kinds of statistic in a stage."""
    return {q.statistic for q in ir.walk((p,)) if isinstance(q, ir.Pointwise) and q.statistic}


def reaches(stages: ir.Sequence, number: int) -> list[int]:
    """The stages in which some sample may meet the statistic of this number, which counts from the first stage."""
    each = [counts(p) for p in stages]
    early = [sum(least for least, _ in each[:k]) for k in range(len(each))]
    late = [sum(most for _, most in each[: k + 1]) for k in range(len(each))]
    return [k for k, (_, most) in enumerate(each) if most and early[k] <= number < late[k]]


def halves(passes: ir.Sequence) -> tuple[ir.Sequence, ir.Sequence]:
    """Passes before the mix among them, and those from it on: each half counts its statistics from 0."""
    mixes = [k for k, p in enumerate(passes) if isinstance(p, ir.Mix)]
    return (passes[: mixes[0]], passes[mixes[0] :]) if mixes else (passes, ())


def reduced(stages: ir.Sequence) -> list[list[str]]:
    """For every statistic that a sample may meet, by number, the kinds that it may be of: each is a launch over the
    images and one over its sums."""
    found = []
    for number in range(sum(most for _, most in map(counts, stages))):
        found.append(sorted({k for at in reaches(stages, number) for k in kinds(stages[at])}, key=codes.STATISTICS.__getitem__))
    return found


def met(stages: ir.Sequence, number: int, keys: Tensor) -> Tensor:
    """What each sample meets as the statistic of this number: 0 for none, or the code of its kind.
    [N] int64"""
    found = torch.zeros_like(keys)
    seen = torch.zeros_like(keys)
    every = torch.ones_like(keys)

    def follow(p: ir.Pass, active: Tensor) -> None:
        nonlocal found, seen
        if isinstance(p, ir.Choice):
            for step in p.index.unbind(1):
                for k, branch in enumerate(p.branches):
                    chosen = active * (step == k)
                    for q in branch:
                        if kinds(q):
                            follow(q, chosen)
        else:
            (code,) = (codes.STATISTICS[k] for k in kinds(p))
            found = found + active * (seen == number) * code
            seen = seen + active

    for p in stages:
        if kinds(p):
            follow(p, every)
    return found
