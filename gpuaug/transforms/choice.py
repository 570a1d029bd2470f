"""Transforms that choose among other transforms per sample.  All lower to `ir.Choice`; children keep size, channels and
dtype."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpuaug import arguments, ir
from gpuaug.rng import Draw
from gpuaug.transforms.base import Drawn, Transform, WithProbability, lower_all, numbered, sample_all
from gpuaug.transforms.colour import RandomInvert, RandomSolarize
from gpuaug.transforms.stamps import SaltAndPepper

__all__ = ["RandomApply", "RandomChoice", "RandomOrder"]

_EXAMPLE = (RandomInvert(0.9), SaltAndPepper(0.3), RandomSolarize(0.4))


def _transforms(name: str, value: Any) -> tuple[Transform, ...]:
    if isinstance(value, Transform | str) or not isinstance(value, Sequence) or not value:
        raise TypeError(f"{name} must be a list of at least one transform, got {value!r}")
    for t in value:
        if not isinstance(t, Transform):
            raise TypeError(f"{name} must be gpuaug transforms, got {t!r}")
    return tuple(value)


class _Container(Transform):
    transforms: tuple[Transform, ...]
    checks = {"transforms": _transforms}

    @property
    def children(self) -> tuple[Transform, ...]:
        return self.transforms

    def _keeps(self, before: ir.Frame, after: ir.Frame) -> None:
        if (before.fixed, before.channels, before.dtype) != (after.fixed, after.channels, after.dtype):
            raise ValueError(
                f"{type(self).__name__} must hold transforms that keep size, channels and dtype; move those that do "
                "not outside it"
            )

    def _each(self, params: Drawn, frame: ir.Frame, slot: int) -> tuple[ir.Sequence, ...]:
        """The passes of each child on its own."""
        branches = []
        for (at, child), drawn in zip(numbered(self.transforms, slot + 1), params["transforms"], strict=True):
            passes, end = lower_all((child,), (drawn,), frame, at)
            self._keeps(frame, end)
            branches.append(passes)
        return tuple(branches)


@dataclass(frozen=True)
class RandomApply(_Container, WithProbability):
    """All of the transforms, in order, with probability p."""

    transforms: tuple[Transform, ...]
    p: float = 0.5
    example = {"transforms": _EXAMPLE, "p": 0.5}

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        inside = draw.slot + 1
        return {**super().sample(draw, frame), "transforms": sample_all(self.transforms, draw, frame, inside)}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        passes, end = lower_all(self.transforms, params["transforms"], frame, slot + 1)
        self._keeps(frame, end)
        return (ir.Choice(params["apply"].long()[:, None], ((), passes)),)


@dataclass(frozen=True)
class RandomChoice(_Container):
    """One of the transforms, with weights `p` or all alike."""

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
        return (ir.Choice(params["index"][:, None], self._each(params, frame, slot)),)


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
