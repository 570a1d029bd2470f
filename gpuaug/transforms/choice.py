"""Transforms that choose among other transforms per sample.  All lower to `ir.Choice`; children keep size, channels and
dtype, but that those of a RandomChoice may all end in one other size."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpuaug import arguments, ir
from gpuaug.rng import Draw
from gpuaug.transforms.base import Drawn, Transform, WithProbability, lower_all, numbered, sample_all
from gpuaug.transforms.colour import RandomInvert, RandomSolarize
from gpuaug.transforms.functions import wrapping
from gpuaug.transforms.stamps import SaltAndPepper

__all__ = ["RandomApply", "RandomChoice", "RandomOrder"]

_EXAMPLE = (RandomInvert(0.9), SaltAndPepper(0.3), RandomSolarize(0.4))


def _transforms(name: str, value: Any) -> tuple[Transform, ...]:
    if isinstance(value, Transform | str) or not isinstance(value, Sequence) or not value:
        raise TypeError(f"{name} must be a list of at least one transform, got {value!r}")
    for t in value:
        if not isinstance(t, Transform):
            do = wrapping(t)
            raise TypeError(f"{name} must be gpuaug transforms, got {t!r}{do and '; ' + do}")
    return tuple(value)


def _shown(frame: ir.Frame) -> str:
    """A frame in words."""
    size = "images of different sizes" if frame.fixed is None else f"{frame.fixed[0]}x{frame.fixed[1]}"
    return f"{size} of {frame.channels} channels and {frame.dtype}"


class _Container(Transform):
    transforms: tuple[Transform, ...]
    checks = {"transforms": _transforms}

    @property
    def children(self) -> tuple[Transform, ...]:
        return self.transforms

    def _keeps(self, before: ir.Frame, after: ir.Frame) -> None:
        if (before.fixed, before.channels, before.dtype) != (after.fixed, after.channels, after.dtype):
            raise ValueError(
                f"{type(self).__name__} must hold transforms that keep size, channels and dtype, got one that makes "
                f"{_shown(after)} where {_shown(before)} are expected; move it outside, or put all transforms that "
                "change the size to one and the same into a RandomChoice"
            )

    def _each(
        self, params: Drawn, frame: ir.Frame, slot: int, wanted: ir.Frame | None = None
    ) -> tuple[ir.Sequence, ...]:
        """The passes of each child on its own.  wanted: what all of them must end in, if not in what comes in"""
        branches = []
        for (at, child), drawn in zip(numbered(self.transforms, slot + 1), params["transforms"], strict=True):
            passes, end = lower_all((child,), (drawn,), frame, at)
            self._keeps(wanted or frame, end)
            branches.append(passes)
        return tuple(branches)


@dataclass(frozen=True)
class RandomApply(_Container, WithProbability):
    """All of the transforms, in order, with probability p.

    With p = 1 they may change the size: several transforms in one place of a RandomChoice."""

    transforms: tuple[Transform, ...]
    p: float = 0.5
    example = {"transforms": _EXAMPLE, "p": 0.5}

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        inside = draw.slot + 1
        return {**super().sample(draw, frame), "transforms": sample_all(self.transforms, draw, frame, inside)}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        passes, end = lower_all(self.transforms, params["transforms"], frame, slot + 1)
        if self.p == 1.0 and frame.fixed != end.fixed is not None:
            return passes
        self._keeps(frame, end)
        return (ir.Choice(params["apply"].long()[:, None], ((), passes)),)

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        if self.p < 1.0:
            return frame
        end = frame
        for child, drawn in zip(self.transforms, params["transforms"], strict=True):
            end = child.after(end, drawn)
        return frame if end.fixed is None else replace(frame, size=end.size, fixed=end.fixed)


@dataclass(frozen=True)
class RandomChoice(_Container):
    """One of the transforms, with weights `p` or all alike.

    They keep the size of the images, or all of them end in one and the same."""

    transforms: tuple[Transform, ...]
    p: tuple[float, ...] | None = None
    example = {"transforms": _EXAMPLE, "p": (0.2, 0.5, 0.3)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.p is not None:
            weights = arguments.numbers("p", self.p, (len(self.transforms),), 0.0)
            if not sum(weights):
                raise ValueError("p must hold a weight above 0, got only zeros")
            self._keep("p", tuple(w / sum(weights) for w in weights))

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        index = draw.choice(self.p or len(self.transforms))
        return {"index": index, "transforms": _separately(self.transforms, draw, frame)}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        ends = self._ends(params, frame)
        if len({e.fixed for e in ends}) > 1:
            shown = ", ".join(dict.fromkeys(map(_shown, ends)))
            raise ValueError(
                "RandomChoice must hold transforms that keep the size, or that all end in one and the same, got "
                f"{shown}; give them one size"
            )
        end = self.after(frame, params)
        changes = end.fixed != frame.fixed
        branches = self._each(params, frame, slot, end)
        return (ir.Choice(params["index"][:, None], branches, end.fixed if changes else None),)

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        ends = self._ends(params, frame)
        # others are refused, by lower
        common = len({e.fixed for e in ends}) == 1 and ends[0].fixed is not None
        return replace(frame, size=ends[0].size, fixed=ends[0].fixed) if common else frame

    def _ends(self, params: Drawn, frame: ir.Frame) -> list[ir.Frame]:
        """What each of the transforms makes of images."""
        return [t.after(frame, drawn) for t, drawn in zip(self.transforms, params["transforms"], strict=True)]


@dataclass(frozen=True)
class RandomOrder(_Container):
    """All of the transforms in a random order."""

    transforms: tuple[Transform, ...]
    example = {"transforms": _EXAMPLE}

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        return {
            "order": draw.permutation(len(self.transforms)),
            "transforms": _separately(self.transforms, draw, frame),
        }

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return (ir.Choice(params["order"], self._each(params, frame, slot)),)


def _separately(transforms: Sequence[Transform], draw: Draw, frame: ir.Frame) -> list[dict[str, Any]]:
    """What each child draws, on the frame before the container."""
    return [child.sample(draw.at(slot), frame) for slot, child in numbered(transforms, draw.slot + 1)]
