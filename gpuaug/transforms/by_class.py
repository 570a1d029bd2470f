"""A choice among rows of transforms that the label of a sample makes.  Lowers to resamples, whose parameters are those
of each sample's own row, and to `ir.Choice`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from gpuaug import fuse, ir
from gpuaug.dtypes import NATIVE
from gpuaug.rng import Draw
from gpuaug.transforms.base import Drawn, Transform, lower_all, sample_all, span
from gpuaug.transforms.geometry import matrix, move

__all__ = ["ByClass"]

Row = tuple[Transform, ...]


@dataclass(frozen=True, repr=False)
class ByClass(Transform):
    """The transforms of a sample's class, or `default` for a class that is not named.

    policies: {class: transforms, (class, class): transforms}, where transforms are one transform, a list, or a Policy,
    of which the transforms alone count.  Labels must be class numbers, [N] integers; a call without them raises
    ValueError.  Draws are keyed as ever: what a sample gets depends on its label and nothing else of the batch.

    All rows must end in the same size, channels and dtype.  Where rows resample at the same place, as each with its own
    RandomResizedCrop(224), the resamples become one with parameters by sample; what differs otherwise becomes branches
    of one step.  `Policy.describe` shows what cannot share a launch."""

    policies: Any  # as kept: ((classes, transforms), ...)
    default: Any = ()
    checks = {"policies": lambda name, value: _policies(name, value), "default": lambda name, value: _row(name, value)}

    @property
    def rows(self) -> tuple[Row, ...]:
        """The default, and the transforms of each group of classes."""
        return (self.default, *(row for _, row in self.policies))

    @property
    def children(self) -> tuple[Transform, ...]:
        # the default first: its draws stay when a class is added
        return tuple(t for row in self.rows for t in row)

    def __repr__(self) -> str:
        shown = (f"{c[0] if len(c) == 1 else c}: [{', '.join(map(repr, row))}]" for c, row in self.policies)
        return f"ByClass({{{', '.join(shown)}}}, default=[{', '.join(map(repr, self.default))}])"

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        labels = draw.keys.classes()
        index = torch.zeros_like(labels)
        for i, (classes, _) in enumerate(self.policies, 1):
            for low, high in _runs(classes):
                index = index + i * ((labels >= low) & (labels <= high)).long()
        drawn = [d for first, row in self._placed(draw.slot) for d in sample_all(row, draw, frame, first)]
        return {"index": index, "transforms": drawn}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        made = [lower_all(row, drawn, frame, first) for first, row, drawn in self._drawn(params, slot)]
        ends = [end for _, end in made]
        self._check(frame, ends)
        return _side_by_side(params["index"], [passes for passes, _ in made], frame)

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        ends = []
        for _, row, drawn in self._drawn(params, 0):
            end = frame
            for t, d in zip(row, drawn, strict=True):
                end = t.after(end, d)
            ends.append(end)
        return replace(ends[0], size=_select(params["index"], [end.size for end in ends]))

    def _placed(self, slot: int) -> Iterator[tuple[int, Row]]:
        """Each row with the slot of its first transform."""
        first = slot + 1
        for row in self.rows:
            yield first, row
            first += sum(map(span, row))

    def _drawn(self, params: Drawn, slot: int) -> Iterator[tuple[int, Row, list[Drawn]]]:
        """Each row with the slot of its first transform, and what was drawn for it."""
        left = list(params["transforms"])
        for first, row in self._placed(slot):
            yield first, row, left[: len(row)]
            left = left[len(row) :]

    def _check(self, frame: ir.Frame, ends: Sequence[ir.Frame]) -> None:
        kinds = list(dict.fromkeys((end.fixed, end.channels, end.dtype) for end in ends))
        if len(kinds) > 1:
            shown = " and ".join(f"{size or 'sizes that differ'}, {c} channels, {dtype}" for size, c, dtype in kinds)
            raise ValueError(
                f"ByClass must end in the same size, channels and dtype for every class, got {shown}; "
                "give each class the same crop or resize, or put that outside"
            )
        if kinds[0][1] != frame.channels:
            raise ValueError(
                f"ByClass must hold transforms that keep the channels, got {kinds[0][1]} from {frame.channels}; "
                "put what changes them outside"
            )
        if kinds[0][2] != frame.dtype and not {kinds[0][2], frame.dtype} <= set(NATIVE):
            raise ValueError(
                f"ByClass must hold transforms that keep {frame.dtype}, got {kinds[0][2]}; put the conversion outside"
            )


def by_class(transforms: Sequence[Transform]) -> bool:
    """Whether one of the transforms, or of those inside them, chooses by class."""
    return any(isinstance(t, ByClass) or by_class(t.children) for t in transforms)


def _policies(name: str, value: Any) -> tuple[tuple[tuple[int, ...], Row], ...]:
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, Sequence) and all(isinstance(v, Sequence) and len(v) == 2 for v in value):
        pairs = [(a, b) for a, b in value]
    else:
        raise TypeError(f"{name} must be a mapping from class numbers to transforms, got {value!r}; pass {{3: [...]}}")
    out, seen = [], set[int]()
    for key, row in pairs:
        many = not isinstance(key, str) and isinstance(key, Sequence | frozenset | range)
        classes = tuple(sorted(_class(name, c) for c in key) if many else [_class(name, key)])
        if not classes:
            raise ValueError(f"{name} must name at least one class for each row of transforms, got {key!r}")
        for c in classes:
            if c in seen:
                raise ValueError(f"{name} must name each class once, got {c} twice")
            seen.add(c)
        out.append((classes, _row(f"{name}[{key!r}]", row)))
    return tuple(out)


def _class(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise TypeError(
            f"{name} must be by class number, integers from 0, got {value!r}; number the names as the labels are"
        )
    return int(value)


def _row(name: str, value: Any) -> Row:
    """Transforms of a list, of a policy, or one alone."""
    if isinstance(value, nn.Module) and isinstance(getattr(value, "transforms", None), tuple):
        value = value.transforms
    value = (value,) if isinstance(value, Transform) else value
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be gpuaug transforms or a Policy, got {value!r}")
    for t in value:
        if not isinstance(t, Transform):
            raise TypeError(f"{name} must be gpuaug transforms, got {t!r}")
    return tuple(value)


def _runs(classes: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """The classes, in ascending order, as first and last of each run of neighbours."""
    low = high = classes[0]
    for c in classes[1:]:
        if c > high + 1:
            yield low, high
            low = c
        high = c
    yield low, high


# ---- rows side by side


def _side_by_side(index: Tensor, rows: list[ir.Sequence], frame: ir.Frame) -> ir.Sequence:
    """The passes that do to each sample what its row does, in as few steps as there are.  index: [N] int64"""
    if len(rows) == 1:
        return rows[0]
    made = _aligned(index, rows, frame)
    if made is None:
        # a resize and the crop behind it are one resample, as a crop that resizes is
        made = _aligned(index, [fuse.fold(row) for row in rows], frame)
    if made is None:
        raise ValueError(
            "ByClass cannot change the size of its classes in steps that differ in kind; give each class the same "
            "steps that change the size, such as one RandomResizedCrop(224) of its own, or put them outside"
        )
    return made


def _aligned(index: Tensor, rows: Sequence[ir.Sequence], frame: ir.Frame) -> ir.Sequence | None:
    rows, last = _ends(rows)
    out: list[ir.Pass] = []
    while any(rows):
        merged = _resampled(index, rows, frame)
        if merged is None:
            cuts = [_reach(row, frame) for row in rows]
            if frame.fixed is None or not any(cuts):
                return None
            out.append(ir.Choice(index[:, None], tuple(row[:k] for row, k in zip(rows, cuts, strict=True))))
            rows = [row[k:] for row, k in zip(rows, cuts, strict=True)]
        else:
            one, rows = merged
            out.append(one)
            frame = ir.after((one,), frame)
    return (*out, *last)


def _ends(rows: Sequence[ir.Sequence]) -> tuple[list[ir.Sequence], ir.Sequence]:
    """The rows without the Normalize that all of them end with, and that."""
    last = [row[-1] if row else None for row in rows]
    if not all(isinstance(p, ir.Normalize) and vars(p) == vars(last[0]) for p in last):
        return list(rows), ()
    return [row[:-1] for row in rows], (last[0],)  # type: ignore[return-value]


def _reach(row: ir.Sequence, frame: ir.Frame) -> int:
    """How many passes of a row keep the size."""
    return next((k for k, p in enumerate(row) if ir.after((p,), frame).fixed != frame.fixed), len(row))


def _resampled(index: Tensor, rows: list[ir.Sequence], frame: ir.Frame) -> tuple[ir.Resample, list[ir.Sequence]] | None:
    """The resamples at the front of all rows as one, and what is left of the rows.  None where they cannot be one.

    A row without one takes the identity where the others only move pixels within the size, as a flip does."""
    heads = [row[0] if row and isinstance(row[0], ir.Resample) else None for row in rows]
    found = [p for p in heads if p is not None]
    if not found:
        return None
    within = all(p.integer_shift and p.extend == "none" and p.fixed == frame.fixed is not None for p in found)
    if len(found) < len(rows) and not within:
        return None
    still = move(frame, matrix(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, frame.size), frame, frame.whole())
    parts = [still if p is None else p for p in heads]
    border = next((p for p in parts if p.extend != "none"), parts[0])
    for p in parts:
        if (p.fixed, p.kernel, p.clamp) != (border.fixed, border.kernel, border.clamp):
            return None
        if p.extend != "none" and (p.extend, p.fill) != (border.extend, border.fill):
            return None
    tensors: dict[str, Any] = {
        n: _select(index, [vars(p)[n] for p in parts]) for n, v in vars(border).items() if isinstance(v, Tensor)
    }
    shift = all(p.integer_shift for p in parts)
    left = [row if p is None else row[1:] for p, row in zip(heads, rows, strict=True)]
    return replace(border, **tensors, integer_shift=shift), left


def _select(index: Tensor, values: Sequence[Tensor]) -> Tensor:
    """Each sample's row of the tensor of its branch."""
    out = values[0]
    for i, value in enumerate(values[1:], 1):
        if value is not values[0]:
            out = torch.where((index == i).view(-1, *(1,) * (value.ndim - 1)), value, out)
    return out
