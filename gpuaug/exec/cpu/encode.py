"""Passes as data: instructions, constants and tables of parameters per sample, which the compiled walk reads."""

from dataclasses import dataclass, field
from functools import singledispatch

import torch
from gpuaug_kernels import codes
from torch import Tensor

from gpuaug import fuse, ir, windows
from gpuaug.exec.cpu import layout


@dataclass
class Instructions:
    """Passes as the compiled rows read them; grows by one pass after another."""

    rows: list[list[int]] = field(default_factory=list)
    consts: list[float] = field(default_factory=list)
    ints: list[Tensor] = field(default_factory=list)
    floats: list[Tensor] = field(default_factory=list)
    doubles: list[Tensor] = field(default_factory=list)
    widths: dict[str, int] = field(default_factory=lambda: {"ints": 0, "floats": 0, "doubles": 0})

    def add(self, code: int, **fields: int) -> list[int]:
        """Append an instruction.  fields: by the names that `layout` gives them, in lower case"""
        row = [code] + [0] * (layout.LENGTH - 1)
        for name, value in fields.items():
            row[getattr(layout, name.upper())] = value
        self.rows.append(row)
        return row

    def column(self, table: str, *values: Tensor) -> int:
        """Append columns of parameters; gives the first."""
        first = self.widths[table]
        for v in values:
            part = v if v.ndim == 2 else v[:, None]
            getattr(self, table).append(part)
            self.widths[table] += part.shape[1]
        return first

    def constants(self, *values: float) -> int:
        """Append constants; gives the place of the first."""
        self.consts += values
        return len(self.consts) - len(values)

    def table(self, name: str, like: Tensor, dtype: torch.dtype) -> Tensor:
        """All columns of a table: [N, columns] contiguous, of a dtype.  like: [N, ...]"""
        columns = getattr(self, name) or [torch.zeros_like(like[:, :1])]
        return torch.cat([c.to(dtype) for c in columns], 1)


def encode(passes: ir.Sequence) -> Instructions:
    """The instructions of passes; a Finish is what the entry point does anyway."""
    out = Instructions()
    for p in passes:
        emit(p, out)
    out.add(layout.HALT)
    return out


def longest(passes: ir.Sequence) -> int:
    """The most instructions that one sample can run."""
    return sum(
        p.index.shape[1] * max(map(longest, p.branches), default=0) if isinstance(p, ir.Choice) else 1 for p in passes
    )


def most_channels(passes: ir.Sequence, channels: int) -> int:
    """The most channels at any point."""
    return max([channels, *(p.channels for p in ir.walk(passes) if isinstance(p, ir.Gray))])


@singledispatch
def emit(p: ir.Pass, out: Instructions) -> None:
    """Append one pass.  out: what it is appended to"""
    raise NotImplementedError(f"cpu executor has no rule for {type(p).__name__}")


def has_rule(p: ir.Pass) -> bool:
    """Whether there is a rule for a type of pass."""
    return emit.dispatch(type(p)) is not emit.dispatch(ir.Pass)


@emit.register
def _(p: ir.Finish, out: Instructions) -> None:
    pass


@emit.register
def _(p: ir.Choice, out: Instructions) -> None:
    index = out.column("ints", p.index)
    row = out.add(codes.CHOICE, int_column=index, branches=len(p.branches), steps=p.index.shape[1])
    jumps = [out.add(layout.JUMP) for _ in p.branches]
    for jump, branch in zip(jumps, p.branches, strict=True):
        jump[layout.NEXT] = len(out.rows)
        for q in branch:
            emit(q, out)
        out.add(layout.RETURN)
    row[layout.NEXT] = len(out.rows)


@emit.register
def _(p: ir.Resample, out: Instructions) -> None:
    live, source = p.live, p.source
    if p.extend not in ("none", "constant"):
        # the rows of a border are made of all columns of the source: of those, what the window shows
        source = windows.within(p.window, p.source, p.extend)
    if p.integer_shift and p.extend == "constant":
        # pixels that only move are fill or not: so that fill is exact, it is taken from the constant, not from a sum
        real = fuse.intersect(p.window, p.source)
        live = fuse.intersect(live, ir.map_rectangle(fuse.invert_move(p.inverse), real))
        live = torch.where((real[:, 2:] > real[:, :2]).all(1, keepdim=True), live, 0)
    out.add(
        layout.RESAMPLE,
        double_column=out.column("doubles", p.inverse[:, :2].reshape(-1, 6), p.footprint),
        int_column=out.column("ints", p.window, source, live, p.size),
        constant=out.constants(*p.fill),
        fills=len(p.fill),
        is_copy=int(p.kernel == "floor" or p.integer_shift),
        border=codes.BORDERS[p.extend],
        filter=codes.FLOOR if p.integer_shift else codes.SOURCES[p.kernel],
        is_clamped=int(p.clamp),
    )


@emit.register
def _(p: ir.Warp, out: Instructions) -> None:
    fill = p.fill or ()
    out.add(
        layout.WARP,
        double_column=out.column("doubles", p.inverse.reshape(-1, 9)),
        constant=out.constants(*fill),
        fills=len(fill),
        is_nearest=int(p.kernel == "nearest"),
        made_height=p.fixed[0],
        made_width=p.fixed[1],
    )


@emit.register
def _(p: ir.Project, out: Instructions) -> None:
    fill = p.fill or ()
    out.add(
        layout.PROJECT,
        double_column=out.column("doubles", p.inverse.reshape(-1, 9), p.footprint),
        int_column=out.column("ints", p.window),
        constant=out.constants(*fill),
        fills=len(fill),
        made_height=p.fixed[0],
        made_width=p.fixed[1],
    )


@emit.register
def _(p: ir.Sharpness, out: Instructions) -> None:
    out.add(layout.SHARPNESS, float_column=out.column("floats", p.factor))


@emit.register
def _(p: ir.GaussianBlur, out: Instructions) -> None:
    out.add(layout.BLUR, float_column=out.column("floats", p.sigma), taps_x=p.kernel_size[0], taps_y=p.kernel_size[1])


@emit.register
def _(p: ir.CutMix, out: Instructions) -> None:
    out.add(layout.CUTMIX, int_column=out.column("ints", p.partner, p.box))


@emit.register
def _(p: ir.MixUp, out: Instructions) -> None:
    out.add(layout.MIXUP, int_column=out.column("ints", p.partner), float_column=out.column("floats", p.lam))


@emit.register
def _(p: ir.MixInside, out: Instructions) -> None:
    ints, floats = out.column("ints", p.partner, p.box), out.column("floats", p.lam)
    out.add(layout.MIX_INSIDE, int_column=ints, float_column=floats)


@emit.register
def _(p: ir.Affine, out: Instructions) -> None:
    scale, bias = out.column("floats", p.scale), out.column("floats", p.bias)
    out.add(
        codes.AFFINE,
        float_column=scale,
        count=p.scale.shape[1],
        bias_column=bias,
        bias_count=p.bias.shape[1],
        clamps=int(p.clamp),
    )


@emit.register
def _(p: ir.Normalize, out: Instructions) -> None:
    scales, biases = [1.0 / s for s in p.std], [-m / s for m, s in zip(p.mean, p.std, strict=True)]
    out.add(codes.NORMALIZE, constant=out.constants(*scales, *biases), count=len(scales))


@emit.register
def _(p: ir.Saturation, out: Instructions) -> None:
    out.add(codes.SATURATION, float_column=out.column("floats", p.factor))


@emit.register
def _(p: ir.Contrast, out: Instructions) -> None:
    out.add(codes.CONTRAST, float_column=out.column("floats", p.factor))


@emit.register
def _(p: ir.Hue, out: Instructions) -> None:
    out.add(codes.HUE, float_column=out.column("floats", p.shift))


@emit.register
def _(p: ir.Gray, out: Instructions) -> None:
    out.add(codes.GRAY, count=p.channels)


@emit.register
def _(p: ir.PermuteChannels, out: Instructions) -> None:
    out.add(codes.PERMUTE, int_column=out.column("ints", p.order))


@emit.register
def _(p: ir.Solarize, out: Instructions) -> None:
    out.add(codes.SOLARIZE, float_column=out.column("floats", p.threshold))


@emit.register
def _(p: ir.AddBelow, out: Instructions) -> None:
    addition, threshold = out.column("floats", p.addition), out.column("floats", p.threshold)
    out.add(codes.ADD_BELOW, float_column=addition, second_column=threshold)


@emit.register
def _(p: ir.Posterize, out: Instructions) -> None:
    out.add(codes.POSTERIZE, int_column=out.column("ints", p.bits))


@emit.register
def _(p: ir.Autocontrast, out: Instructions) -> None:
    out.add(codes.AUTOCONTRAST)


@emit.register
def _(p: ir.Equalize, out: Instructions) -> None:
    out.add(codes.EQUALIZE)


@emit.register
def _(p: ir.SaltPepper, out: Instructions) -> None:
    salt, amount = out.column("floats", p.salt), out.column("floats", p.amount)
    out.add(codes.SALT_PEPPER, float_column=salt, second_column=amount, per_channel=int(p.per_channel), slot=p.slot)


@emit.register
def _(p: ir.GaussianNoise, out: Instructions) -> None:
    mean, sigma = out.column("floats", p.mean), out.column("floats", p.sigma)
    out.add(codes.GAUSSIAN, float_column=mean, second_column=sigma, clamps=int(p.clip), slot=p.slot)


@emit.register
def _(p: ir.Erase, out: Instructions) -> None:
    out.add(
        codes.ERASE,
        int_column=out.column("ints", p.box),
        float_column=out.column("floats", p.value),
        count=p.value.shape[1],
        slot=p.slot,
    )
