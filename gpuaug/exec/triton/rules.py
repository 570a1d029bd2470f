"""How each pass becomes records of a chain and columns of its tables; a pass without a rule here runs by the
reference."""

from functools import singledispatch
from typing import Any

import torch
from gpuaug_kernels import codes

from gpuaug import ir
from gpuaug.exec.triton.canonical import BlurColumns, BlurRows, Pick, source_and_points, why_not_canonical
from gpuaug.exec.triton.marshal import PIXEL, ChoiceStage, Marshal, Node, Prepared, SourceSwitch, prepare_together
from gpuaug.rng import Keys


def prepare(passes: ir.Sequence, frame: ir.Frame, keys: Keys, stored: torch.dtype = torch.float32) -> Prepared:
    """One launch that shares nothing.  Arguments as of `marshal`"""
    return prepare_together((marshal(passes, frame, keys, stored),))[0]


def marshal(
    passes: ir.Sequence,
    frame: ir.Frame,
    keys: Keys,
    stored: torch.dtype = torch.float32,
    before: Marshal | None = None,
) -> Marshal:
    """One launch, for all of whose passes there are rules.

    stored: what it writes where no Finish says so; before: the launch whose tables it shares"""
    end = ir.after(passes, frame)
    passes = tuple(q for p in passes for q in source_and_points(p))
    m = Marshal(passes, frame, keys, end, before)
    m.finish = ir.Finish(stored, torch.contiguous_format)
    for p in passes:
        m.add(rule(p, m))
    return m


def fallback_reason(p: ir.Pass) -> str:
    """Why a pass runs by the reference; empty where there is a rule for it."""
    if isinstance(p, ir.Choice):
        inner = (fallback_reason(q) for branch in p.branches for q in branch)
        return why_not_canonical(p) or next((reason for reason in inner if reason), "")
    if rule.dispatch(type(p)) is rule.dispatch(ir.Pass):
        return f"triton executor has no rule for {type(p).__name__}"
    if isinstance(p, ir.PermuteChannels) and p.order.shape[1] not in (1, 3):
        return f"the kernels hold {p.order.shape[1]} channels one at a time"
    if isinstance(p, ir.Resample) and p.fixed is None:
        return "its images end in different sizes"
    return ""


@singledispatch
def rule(p: ir.Pass, m: Marshal) -> list[Node]:
    """The records of a pass; its parameters go to the tables."""
    raise NotImplementedError(f"triton executor has no rule for {type(p).__name__}")


@rule.register
def _(p: ir.Resample, m: Marshal) -> list[Node]:
    # at integer positions every kernel gives the pixel itself
    kind = codes.FLOOR if p.integer_shift else codes.SOURCES[p.kernel]
    integers, doubles = (
        m.integers.add(p.window, p.source, p.live),
        m.doubles.add(p.inverse[:, :2].flatten(1), p.footprint),
    )
    return m.set_source(kind, codes.BORDERS[p.extend], m.floats.add(m.constant(p.fill)), integers, doubles)


@rule.register
def _(p: ir.Warp, m: Marshal) -> list[Node]:
    kind = {"bilinear": codes.BILINEAR, "nearest": codes.NEAREST}[p.kernel]
    fill = m.floats.add(m.constant(p.fill)) if p.fill is not None else 0
    return m.set_source(kind, int(p.fill is not None), fill, m.input_size(), m.doubles.add(p.inverse.flatten(1)))


@rule.register
def _(p: ir.Sharpness, m: Marshal) -> list[Node]:
    return m.set_source(codes.SHARPEN, 0, m.floats.add(p.factor), m.input_size())


@rule.register
def _(p: BlurRows, m: Marshal) -> list[Node]:
    return m.set_source(codes.BLUR_ROWS, p.weights.shape[1], m.floats.add(p.weights), m.input_size())


@rule.register
def _(p: BlurColumns, m: Marshal) -> list[Node]:
    return m.set_source(codes.BLUR_COLUMNS, p.weights.shape[1], m.floats.add(p.weights), m.input_size())


@rule.register
def _(p: ir.Project, m: Marshal) -> list[Node]:
    fill = m.floats.add(m.constant(p.fill)) if p.fill is not None else 0
    return m.set_source(
        codes.PROJECT,
        int(p.fill is not None),
        fill,
        m.integers.add(p.window),
        m.doubles.add(p.inverse.flatten(1), p.footprint),
    )


@rule.register
def _(p: Pick, m: Marshal) -> list[Node]:
    ways: list[Any] = []
    for source in p.sources:
        if source is not None:
            rule(source, m)
        ways.append(PIXEL if source is None else m.source)
    m.source = SourceSwitch(m.integers.add(p.index), tuple(ways), p.statistic_follows)
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
    return m.stage(codes.CONTRAST, m.floats.add(p.factor), m.most_channels, m.channels == 1, m.statistic_width())


@rule.register
def _(p: ir.Autocontrast, m: Marshal) -> list[Node]:
    return m.stage(codes.AUTOCONTRAST, 0, m.most_channels, False, m.statistic_width())


@rule.register
def _(p: ir.Equalize, m: Marshal) -> list[Node]:
    return m.stage(codes.EQUALIZE, 0, m.most_channels, False, m.statistic_width())


@rule.register
def _(p: ir.Gray, m: Marshal) -> list[Node]:
    mono, m.channels = m.channels == 1, p.channels
    return m.stage(codes.GRAY, flag=mono)


@rule.register
def _(p: ir.PermuteChannels, m: Marshal) -> list[Node]:
    return m.stage(codes.PERMUTE, integers=m.integers.add(p.order)) if p.order.shape[1] == 3 else []


@rule.register
def _(p: ir.Solarize, m: Marshal) -> list[Node]:
    return m.stage(codes.SOLARIZE, m.floats.add(p.threshold))


@rule.register
def _(p: ir.AddBelow, m: Marshal) -> list[Node]:
    return m.stage(codes.ADD_BELOW, m.floats.add(p.addition, p.threshold))


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
    m.mix = (codes.CUTMIX, 0, m.integers.add(p.partner, p.box), 0, 0)
    return []


@rule.register
def _(p: ir.MixUp, m: Marshal) -> list[Node]:
    m.mix = (codes.MIXUP, m.floats.add(p.lam), m.integers.add(p.partner), 0, 0)
    return []


@rule.register
def _(p: ir.MixInside, m: Marshal) -> list[Node]:
    m.mix = (codes.MIX_INSIDE, m.floats.add(p.lam), m.integers.add(p.partner, p.box), 0, 0)
    return []


@rule.register
def _(p: ir.Choice, m: Marshal) -> list[Node]:
    branches = tuple([node for q in branch for node in rule(q, m)] for branch in p.branches)
    bits = codes.choice_bits(len(branches))
    steps, each = p.index.unbind(1), 31 // bits
    words = []
    for first in range(0, len(steps), each):
        word = steps[first]
        for k, index in enumerate(steps[first + 1 : first + each], 1):
            word = word + (index << (bits * k))
        words.append(word)
    return [ChoiceStage(m.integers.add(*words), len(steps), branches)]


@rule.register
def _(p: ir.Finish, m: Marshal) -> list[Node]:
    m.finish = p
    return []
