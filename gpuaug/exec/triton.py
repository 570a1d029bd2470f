"""Runs a plan by the kernels of gpuaug_kernels: puts parameters into tables and names the stages; no arithmetic on pixels happens here.

A launch whose passes have no rule here runs by the reference, on the same device, and `describe` says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import Any

import torch
from gpuaug_kernels import codes, launch
from gpuaug_kernels.chain import Program, Source, Tables
from torch import Tensor

from gpuaug import ir
from gpuaug.batch import Images, Ragged
from gpuaug.exec import reference
from gpuaug.fuse import Launch, Plan
from gpuaug.rng import Keys

Record = tuple[int, ...]


@dataclass(frozen=True)
class Switch:
    """A choice whose branches have yet to find their place in the program."""

    index: int
    steps: int
    branches: tuple[list[Any], ...]


Node = Record | Switch


def run(plan: Plan, source: Images, out: Tensor | None = None) -> Tensor:
    """The images after a plan: [N, C, H, W] in the plan's dtype and memory format; written to `out`, which has both, where it is given."""
    images: Any = source
    frame = plan.frame
    launches = regroup(plan.launches)
    for number, one in enumerate(launches, 1):
        last = out if number == len(launches) else None
        if lacks(one, frame):
            images = reference.run_passes(one.passes, _floats(images), plan.keys)
            images = images if last is None else last.copy_(images)
        else:
            images = Marshal(one.passes, frame, plan.keys).run(images, last)
        frame = ir.verify(one.passes, frame)
    result: Tensor = images
    return result


def lacks(one: Launch, frame: ir.Frame) -> str:
    """Why a launch runs by the reference; empty where the kernels have rules for all of it."""
    return next((reason for p in one.passes if (reason := _reason(p))), "")


def _reason(p: ir.Pass) -> str:
    if isinstance(p, ir.Choice):
        inner = [q for branch in p.branches for q in branch]
        moved = next((q for q in inner if not ir.is_pointwise(q)), None)
        return f"a choice holds {type(moved).__name__}" if moved else next((reason for q in inner if (reason := _reason(q))), "")
    if rule.dispatch(type(p)) is rule.dispatch(ir.Pass):
        return f"triton executor has no rule for {type(p).__name__}"
    if isinstance(p, ir.Resample) and p.fixed is None:
        return "its images end in different sizes"
    return ""


def regroup(launches: Sequence[Launch]) -> tuple[Launch, ...]:
    """The launches that the kernel makes of a plan's: a cut joins the resample before it, and a launch holds one mix.

    A tile reads both sides of a cut only where it meets the edge, so that resampling twice there costs less than writing the crop and
    reading it again; a MixUp reads both everywhere.
    """
    out: list[Launch] = []
    for one in launches:
        for part in _one_mix_each(one):
            joined = replace(out[-1], passes=(*out[-1].passes, *part.passes)) if out else part
            mixes = sum(isinstance(p, ir.Mix) for p in joined.passes)
            if out and isinstance(part.passes[0], ir.CutMix) and mixes == 1 and all(_reason(p) == "" for p in joined.passes):
                out[-1] = joined
            else:
                out.append(part)
    return tuple(out)


def _one_mix_each(one: Launch) -> list[Launch]:
    parts: list[list[ir.Pass]] = [[]]
    for p in one.passes:
        if isinstance(p, ir.Mix) and any(isinstance(q, ir.Mix) for q in parts[-1]):
            parts.append([])
        parts[-1].append(p)
    return [replace(one, passes=tuple(part)) for part in parts]


def _floats(images: Any) -> Any:
    return reference.floats(images) if isinstance(images, Tensor | Ragged) else images


@dataclass
class Columns:
    """A table in the making: one row a sample."""

    dtype: torch.dtype
    parts: list[Tensor] = field(default_factory=list)
    width: int = 0

    def add(self, *values: Tensor) -> int:
        """The column where the first of these, each [N] or [N, k], begins."""
        at = self.width
        for v in values:
            part = v if v.ndim == 2 else v[:, None]
            self.parts.append(part)
            self.width += part.shape[1]
        return at

    def table(self) -> Tensor:
        """[N, columns] contiguous."""
        return torch.cat([p.to(self.dtype) for p in self.parts], 1)


class Marshal:
    """One launch on its way to the kernel."""

    def __init__(self, passes: ir.Sequence, frame: ir.Frame, keys: Keys):
        self.frame, self.keys, self.passes = frame, keys, passes
        self.floats, self.integers, self.doubles = Columns(torch.float32), Columns(torch.int32), Columns(torch.float64)
        self.source: Record = (codes.PIXEL.value, 0, 0, 0, 0)
        self.mix: Record = (codes.ALONE.value, 0, 0, 0, 0)
        self.finish = ir.Finish(torch.float32, torch.contiguous_format)
        self.end = ir.verify(passes, frame)
        self.channels = frame.channels  # as they stand at the stage being added
        self.wide = max([frame.channels, *(p.channels for p in passes if isinstance(p, ir.Gray))])
        self._header()
        before: list[Node] = []
        after: list[Node] = []
        for p in passes:
            (before if self.mix[0] == codes.ALONE.value else after).extend(rule(p, self))
        self.before, self.after = before, after
        # the least and the most contrasts that a sample meets in each stage
        self.counts = [_contrasts(p) for p in passes if ir.is_pointwise(p)]

    def _header(self) -> None:
        """The columns that every program has."""
        c2, c3 = self.keys.counter()
        seed = ir.rows((_signed(self.keys.seed), _signed(self.keys.seed >> 32)), c2)
        self.integers.add(c2, c3, self.keys.occurrence << 16, seed, self.frame.size[:, 1] * self.frame.channels)
        self.floats.add(torch.zeros_like(c2))
        self.doubles.add(torch.zeros_like(c2))

    def per_channel(self, values: Tensor) -> Tensor:
        """A column for every channel that the kernel knows of.  values: [N, 1] or [N, C]"""
        return values.expand(-1, self.wide) if values.shape[1] == 1 else values

    def constant(self, values: tuple[float, ...]) -> Tensor:
        """The same for all samples, for every channel."""
        return self.per_channel(ir.rows(values, self.keys.ids, torch.float32))

    def stage(self, code: Any, floats: int = 0, integers: int = 0, flag: bool = False, slot: int = 0) -> list[Node]:
        """One record."""
        return [(code.value, floats, integers, int(flag), slot)]

    def program(self, stages: int | None = None) -> Program:
        """The whole chain; or the first stages of it, those before the mix and then those after it."""
        split, every = len(self.before), [*self.before, *self.after]
        nodes = every if stages is None else every[:stages]
        mixes = stages is None or stages > split
        records = _flat([self.source, self.mix if mixes else (codes.ALONE.value, 0, 0, 0, 0), *nodes])
        colour = self.wide == 3
        return Program(
            records=tuple(v for r in records for v in r),
            parts=(2 + min(split, len(nodes)), 2 + len(nodes), sum(most for _, most in self.counts[:split])),
            channels=3 if colour else 1,
            groups=1 if colour else self.wide,
            blocks=-(-self.wide // 4),
            written=self.end.channels,
        )

    def tables(self) -> Tables:
        """The parameters, with room for the means."""
        means = torch.zeros((len(self.keys), max(1, sum(most for _, most in self.counts))), dtype=torch.float32, device=self.keys.ids.device)
        return Tables(self.floats.table(), self.integers.table(), self.doubles.table(), means)

    def run(self, images: Any, into: Tensor | None = None) -> Tensor:
        """Reduce what statistics there are, then run the chain."""
        assert self.end.fixed is not None
        source, tables = _source(images), self.tables()
        for number, program in self.reductions():
            tables.means[:, number] = launch.mean(source, program, tables, self.end.fixed, number)
        last = self.finish.memory_format == torch.channels_last
        out: Tensor = launch.images(source, self.program(), tables, self.end.fixed, self.finish.dtype, last, into)
        return out

    def reductions(self) -> list[tuple[int, Program]]:
        """For every contrast that a sample may meet its number and a program that comes to it; numbers before the mix come first."""
        programs = []
        for first, last in ((0, len(self.before)), (len(self.before), len(self.counts))):
            counts = self.counts[first:last]
            for number in range(sum(most for _, most in counts)):
                # a sample may have been spared earlier ones, so that this is as far on as the fewest before it allow
                on = max(k for k, (_, most) in enumerate(counts) if most and sum(least for least, _ in counts[:k]) <= number)
                programs.append(self.program(first + on + 1))
        return list(enumerate(programs))


def _signed(word: int) -> int:
    """The low 32 bits of a number as an int32 holds them."""
    return ((word + 2**31) & 0xFFFFFFFF) - 2**31


def _contrasts(p: ir.Pass) -> tuple[int, int]:
    """The least and the most contrasts that a sample meets in a stage; several steps of a choice are an order, so that each branch comes once."""
    if not isinstance(p, ir.Choice):
        return (int(isinstance(p, ir.Contrast)),) * 2
    counts = [[sum(c) for c in zip((0, 0), *map(_contrasts, branch), strict=True)] for branch in p.branches]
    least, most = (min, max) if p.index.shape[1] == 1 else (sum, sum)
    return least(low for low, _ in counts), most(high for _, high in counts)


def _flat(nodes: Sequence[Node]) -> list[Record]:
    """Records in the order of codes.py: these, then what their choices point to."""
    records: list[Record] = [()] * len(nodes)

    def place(at: int, row: Sequence[Node]) -> None:
        for k, node in enumerate(row):
            if not isinstance(node, Switch):
                records[at + k] = node
                continue
            first = len(records)
            records[at + k] = (codes.CHOICE.value, node.index, node.steps, first, len(node.branches))
            records.extend([()] * len(node.branches))
            for j, branch in enumerate(node.branches):
                begin = len(records)
                records[first + j] = (begin, begin + len(branch), 0, 0, 0)
                records.extend([()] * len(branch))
                place(begin, branch)

    place(0, nodes)
    return records


def _source(images: Any) -> Source:
    """Dense images by their strides, others by their addresses."""
    if isinstance(images, Tensor):
        return Source(images, images.dtype, images.shape[1], ragged=False)
    if not isinstance(images, Ragged):
        images = Ragged(tuple(i.permute(1, 2, 0).contiguous() for i in images))
    return Source(images.table()[:, 0].contiguous(), images.images[0].dtype, images.channels, ragged=True, owner=images)


# ---- rules


@singledispatch
def rule(p: ir.Pass, m: Marshal) -> list[Node]:
    """The records of a pass; its parameters go to the tables."""
    raise NotImplementedError(f"triton executor has no rule for {type(p).__name__}")


@rule.register
def _(p: ir.Resample, m: Marshal) -> list[Node]:
    # a triangle over whole positions is the pixel itself
    kind = codes.FLOOR.value if p.moves else {"triangle": codes.TRIANGLE, "floor": codes.FLOOR}[p.kernel].value
    extends = {"none": codes.NONE, "constant": codes.CONSTANT, "edge": codes.EDGE, "reflect": codes.REFLECT, "symmetric": codes.SYMMETRIC}
    m.integers.add(p.window, p.source, p.live)
    m.doubles = Columns(torch.float64)
    m.doubles.add(p.inverse[:, :2].flatten(1), p.footprint)
    m.source = (kind, extends[p.extend].value, m.floats.add(m.constant(p.fill)), 0, 0)
    return []


@rule.register
def _(p: ir.Warp, m: Marshal) -> list[Node]:
    kind = {"bilinear": codes.BILINEAR, "nearest": codes.NEAREST}[p.kernel].value
    m.integers.add(m.frame.size)
    m.doubles = Columns(torch.float64)
    m.doubles.add(p.inverse.flatten(1))
    m.source = (kind, int(p.fill is not None), m.floats.add(m.constant(p.fill or (0.0,))), 0, 0)
    return []


@rule.register
def _(p: ir.Sharpness, m: Marshal) -> list[Node]:
    m.integers.add(m.frame.size)
    m.source = (codes.SHARPEN.value, 0, m.floats.add(p.factor), 0, 0)
    return []


@rule.register
def _(p: ir.Affine, m: Marshal) -> list[Node]:
    scale, bias = (m.floats.add(m.per_channel(v)) for v in (p.scale, p.bias))
    return m.stage(codes.AFFINE, scale, bias, p.clamp)


@rule.register
def _(p: ir.Normalize, m: Marshal) -> list[Node]:
    mean, over = (m.floats.add(m.constant(v)) for v in (p.mean, tuple(1.0 / s for s in p.std)))
    return m.stage(codes.NORMALIZE, mean, over)


@rule.register
def _(p: ir.Saturation, m: Marshal) -> list[Node]:
    return m.stage(codes.SATURATION, m.floats.add(p.factor)) if m.channels > 1 else m.stage(codes.IDENTITY)


@rule.register
def _(p: ir.Hue, m: Marshal) -> list[Node]:
    return m.stage(codes.HUE, m.floats.add(p.shift)) if m.channels > 1 else m.stage(codes.IDENTITY)


@rule.register
def _(p: ir.Contrast, m: Marshal) -> list[Node]:
    return m.stage(codes.CONTRAST, m.floats.add(p.factor), flag=m.channels == 1)


@rule.register
def _(p: ir.Gray, m: Marshal) -> list[Node]:
    mono, m.channels = m.channels == 1, p.channels
    return m.stage(codes.GRAY, flag=mono)


@rule.register
def _(p: ir.Solarize, m: Marshal) -> list[Node]:
    return m.stage(codes.SOLARIZE, m.floats.add(p.threshold))


@rule.register
def _(p: ir.Posterize, m: Marshal) -> list[Node]:
    return m.stage(codes.POSTERIZE, integers=m.integers.add(p.bits))


@rule.register
def _(p: ir.SaltPepper, m: Marshal) -> list[Node]:
    return m.stage(codes.SALT_PEPPER, m.floats.add(p.salt, p.amount), flag=p.per_channel, slot=p.slot)


@rule.register
def _(p: ir.GaussianNoise, m: Marshal) -> list[Node]:
    return m.stage(codes.GAUSSIAN, m.floats.add(p.mean, p.sigma), flag=p.clip, slot=p.slot)


@rule.register
def _(p: ir.Erase, m: Marshal) -> list[Node]:
    return m.stage(codes.ERASE, m.floats.add(m.per_channel(p.value)), m.integers.add(p.box), slot=p.slot)


@rule.register
def _(p: ir.CutMix, m: Marshal) -> list[Node]:
    m.mix = (codes.CUTMIX.value, 0, m.integers.add(p.partner, p.box), 0, 0)
    return []


@rule.register
def _(p: ir.MixUp, m: Marshal) -> list[Node]:
    m.mix = (codes.MIXUP.value, m.floats.add(p.lam), m.integers.add(p.partner), 0, 0)
    return []


@rule.register
def _(p: ir.Choice, m: Marshal) -> list[Node]:
    branches = tuple([node for q in branch for node in rule(q, m)] for branch in p.branches)
    return [Switch(m.integers.add(p.index), p.index.shape[1], branches)]


@rule.register
def _(p: ir.Finish, m: Marshal) -> list[Node]:
    m.finish = p
    return []
