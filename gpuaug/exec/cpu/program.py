"""Passes as data: instructions, constants and tables of parameters per sample, which the compiled walk reads."""

from dataclasses import dataclass, field
from functools import singledispatch

import torch
from torch import Tensor

from gpuaug import fuse, ir
from gpuaug.exec.cpu import codes

EXTENDS = ("none", "constant", "edge", "reflect", "symmetric")


@dataclass
class Program:
    """Grows by one pass after another."""

    rows: list[list[int]] = field(default_factory=list)
    consts: list[float] = field(default_factory=list)
    ints: list[Tensor] = field(default_factory=list)
    floats: list[Tensor] = field(default_factory=list)
    doubles: list[Tensor] = field(default_factory=list)
    widths: dict[str, int] = field(default_factory=lambda: {"ints": 0, "floats": 0, "doubles": 0})

    def add(self, code: int, **places: int) -> list[int]:
        """Append an instruction; places by the names of `codes`."""
        row = [code] + [0] * (codes.WIDTH - 1)
        for name, value in places.items():
            row[_PLACES[name]] = value
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


_PLACES = {"f": 1, "i": 2, "d": 3, "k": 4, "count": 5, "flag": 6, "a": 7, "b": 8, "slot": 9}


def encode(passes: ir.Sequence) -> Program:
    """The program of passes; a Finish is what the entry point does anyway."""
    program = Program()
    for p in passes:
        emit(p, program)
    program.add(codes.HALT)
    return program


def longest(passes: ir.Sequence) -> int:
    """The most instructions that one sample can meet."""
    return sum(
        p.index.shape[1] * max(map(longest, p.branches), default=0) if isinstance(p, ir.Choice) else 1 for p in passes
    )


def most_channels(passes: ir.Sequence, channels: int) -> int:
    """The most channels at any point."""
    return max([channels, *(p.channels for p in ir.walk(passes) if isinstance(p, ir.Gray))])


@singledispatch
def emit(p: ir.Pass, program: Program) -> None:
    """Append one pass."""
    raise NotImplementedError(f"cpu executor has no rule for {type(p).__name__}")


def knows(p: ir.Pass) -> bool:
    """Whether there is a rule for a type of pass."""
    return emit.dispatch(type(p)) is not emit.dispatch(ir.Pass)


@emit.register
def _(p: ir.Finish, program: Program) -> None:
    pass


@emit.register
def _(p: ir.Choice, program: Program) -> None:
    index = program.column("ints", p.index)
    row = program.add(codes.CHOICE, i=index, count=len(p.branches), flag=p.index.shape[1])
    jumps = [program.add(codes.JUMP) for _ in p.branches]
    for jump, branch in zip(jumps, p.branches, strict=True):
        jump[_PLACES["a"]] = len(program.rows)
        for q in branch:
            emit(q, program)
        program.add(codes.RETURN)
    row[_PLACES["a"]] = len(program.rows)


@emit.register
def _(p: ir.Resample, program: Program) -> None:
    live = p.live
    if p.integer_shift and p.extend == "constant":
        # pixels that only move are fill or not: so that fill is exact, it is taken from the constant, not from a sum
        real = fuse.intersect(p.window, p.source)
        live = fuse.intersect(live, ir.map_rectangle(fuse.invert_move(p.inverse), real))
        live = torch.where((real[:, 2:] > real[:, :2]).all(1, keepdim=True), live, 0)
    program.add(
        codes.RESAMPLE,
        d=program.column("doubles", p.inverse[:, :2].reshape(-1, 6), p.footprint),
        i=program.column("ints", p.window, p.source, live, p.size),
        k=program.constants(*p.fill),
        count=len(p.fill),
        flag=int(p.kernel == "floor" or p.integer_shift),
        a=EXTENDS.index(p.extend),
    )


@emit.register
def _(p: ir.Warp, program: Program) -> None:
    fill = p.fill or ()
    program.add(
        codes.WARP,
        d=program.column("doubles", p.inverse.reshape(-1, 9)),
        k=program.constants(*fill),
        count=len(fill),
        flag=int(p.kernel == "nearest"),
        a=p.fixed[0],
        b=p.fixed[1],
    )


@emit.register
def _(p: ir.Project, program: Program) -> None:
    fill = p.fill or ()
    program.add(
        codes.PROJECT,
        d=program.column("doubles", p.inverse.reshape(-1, 9), p.footprint),
        i=program.column("ints", p.window),
        k=program.constants(*fill),
        count=len(fill),
        a=p.fixed[0],
        b=p.fixed[1],
    )


@emit.register
def _(p: ir.Sharpness, program: Program) -> None:
    program.add(codes.SHARPNESS, f=program.column("floats", p.factor))


@emit.register
def _(p: ir.GaussianBlur, program: Program) -> None:
    program.add(codes.BLUR, f=program.column("floats", p.sigma), a=p.kernel_size[0], b=p.kernel_size[1])


@emit.register
def _(p: ir.CutMix, program: Program) -> None:
    program.add(codes.CUTMIX, i=program.column("ints", p.partner, p.box))


@emit.register
def _(p: ir.MixUp, program: Program) -> None:
    program.add(codes.MIXUP, i=program.column("ints", p.partner), f=program.column("floats", p.lam))


@emit.register
def _(p: ir.Affine, program: Program) -> None:
    scale, bias = program.column("floats", p.scale), program.column("floats", p.bias)
    program.add(codes.AFFINE, f=scale, count=p.scale.shape[1], a=bias, b=p.bias.shape[1], flag=int(p.clamp))


@emit.register
def _(p: ir.Normalize, program: Program) -> None:
    scales, biases = [1.0 / s for s in p.std], [-m / s for m, s in zip(p.mean, p.std, strict=True)]
    program.add(codes.NORMALIZE, k=program.constants(*scales, *biases), count=len(scales))


@emit.register
def _(p: ir.Saturation, program: Program) -> None:
    program.add(codes.SATURATION, f=program.column("floats", p.factor))


@emit.register
def _(p: ir.Contrast, program: Program) -> None:
    program.add(codes.CONTRAST, f=program.column("floats", p.factor))


@emit.register
def _(p: ir.Hue, program: Program) -> None:
    program.add(codes.HUE, f=program.column("floats", p.shift))


@emit.register
def _(p: ir.Gray, program: Program) -> None:
    program.add(codes.GRAY, count=p.channels)


@emit.register
def _(p: ir.Solarize, program: Program) -> None:
    program.add(codes.SOLARIZE, f=program.column("floats", p.threshold))


@emit.register
def _(p: ir.Posterize, program: Program) -> None:
    program.add(codes.POSTERIZE, i=program.column("ints", p.bits))


@emit.register
def _(p: ir.Autocontrast, program: Program) -> None:
    program.add(codes.AUTOCONTRAST)


@emit.register
def _(p: ir.Equalize, program: Program) -> None:
    program.add(codes.EQUALIZE)


@emit.register
def _(p: ir.SaltPepper, program: Program) -> None:
    salt, amount = program.column("floats", p.salt), program.column("floats", p.amount)
    program.add(codes.SALT_PEPPER, f=salt, a=amount, flag=int(p.per_channel), slot=p.slot)


@emit.register
def _(p: ir.GaussianNoise, program: Program) -> None:
    mean, sigma = program.column("floats", p.mean), program.column("floats", p.sigma)
    program.add(codes.GAUSSIAN, f=mean, a=sigma, flag=int(p.clip), slot=p.slot)


@emit.register
def _(p: ir.Erase, program: Program) -> None:
    program.add(
        codes.ERASE,
        i=program.column("ints", p.box),
        f=program.column("floats", p.value),
        count=p.value.shape[1],
        slot=p.slot,
    )
