"""`Spec`, all that the tests know of one transform, and what several Specs share.  Nothing in this folder imports
gpuaug."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from oracles import Args, Draws, Sample, nothing
from torch import Tensor


class Instance(NamedTuple):
    """Stands for a transform of this name, made without arguments, where an argument is a transform."""

    name: str


class Class(NamedTuple):
    """Stands for the class of a transform, which users pass by mistake."""

    name: str


class Refused(NamedTuple):
    """Arguments of which the last is refused.

    names, shows: what the message must hold, where that is not the argument's own name and value."""

    arguments: Args
    names: str | None = None
    shows: str | None = None


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What to test a transform with, what it means, how it draws, and what it refuses."""

    # sets of arguments; each goes through every ring
    arguments: tuple[Args, ...]
    # a row of the table in compare.py, or what says it for a set of arguments
    tolerance: str | Callable[[Args], str]
    # (arguments, image [C, H, W] float32, its drawn parameters, who it is) -> the image after the transform
    meaning: Callable[[Args, Tensor, Args, Sample], Tensor]
    # (arguments, n, (h, w), generator) -> parameters of n samples
    draws: Callable[[Args, int, tuple[int, int], np.random.Generator], Draws] = nothing
    # arguments that are fine, and each of those that are not when they replace or join these
    fine: Args = field(default_factory=dict)
    refuses: tuple[Refused, ...] = ()

    # ---- where it is unlike most; a Spec that sets one of these says why

    # the numbers of channels that it takes; None: any
    channels: tuple[int, ...] | None = None
    # images that are not square leave it in different sizes
    square: bool = False
    # h and w of a small image that it takes; the kernels need two tiles for it, the second not full
    image: tuple[int, int] = (21, 35)
    # the dtype that leaves it, by the one that comes in; None where that one is refused
    dtype: Callable[[Args, torch.dtype], torch.dtype | None] = lambda a, dtype: dtype
    # pixels change their places, so that a mask or a box would no longer fit the image
    moves: bool = False
    # whether it may stand anywhere in a chain: it takes images of any size, three channels and values in [0, 1], and
    # leaves such
    anywhere: Callable[[Args], bool] = lambda a: True
    # the compiled executors have no rule for it, and it runs by the reference there
    falls_back: bool = False
    # float32 images come out as they went in
    identity: Callable[[Args], bool] = lambda a: False
    # it takes a partner from the batch, and labels
    mixes: bool = False
    # how many times larger it makes what two images differ by
    gain: Callable[[Args], float] = lambda a: 1.0
    # whether the oracle says what becomes of an image of h x w, a few pixels
    small: Callable[[Args, int, int], bool] = lambda a, h, w: True
    # it reads the nearest pixel, where a tie goes either way: of a few pixels that is one in ten
    ties: bool = False
    # torchvision has no transform of this name
    ours: bool = False
    # arguments of torchvision's that it does not take
    lacks: frozenset[str] = frozenset()
    # arguments of ours, which stand behind torchvision's
    adds: frozenset[str] = frozenset()

    def kind(self, arguments: Args) -> str:
        """The row of the table of tolerances."""
        return self.tolerance if isinstance(self.tolerance, str) else self.tolerance(arguments)

    def takes(self, channels: int, arguments: Args | None = None) -> bool:
        """Whether images of so many channels are taken; by these arguments, which may have a value for each of
        three."""
        per_channel = [v for k in ("fill", "value", "mean") if isinstance(v := (arguments or {}).get(k), tuple)]
        return (self.channels is None or channels in self.channels) and all(
            len(v) in (1, channels) for v in per_channel
        )


def refused(name: str, *values: Any) -> tuple[Refused, ...]:
    """Each of the values, as this argument."""
    return tuple(Refused({name: v}) for v in values)


def resampled(default: str) -> Callable[[Args], str]:
    """The tolerance of what interpolates.  default: of the argument `interpolation`"""
    return lambda a: "resample, jump" if a.get("interpolation", default).startswith("nearest") else "resample"


RGB = (0.2, 0.7, 0.4)
COLOUR = (1, 3)
NAN, INF = math.nan, math.inf

BAD_P = refused("p", -0.1, 1.5, NAN, INF, "0.5", True, None)
BAD_SIZE = refused("size", 0, -3, 2.5, NAN, True, "7", None, (), (3, 0), (1, 2, 3), (5, 2.5), (NAN, 4))
BAD_INTERPOLATION = refused("interpolation", "bicubic", "cubic", 7, None)
# of what is resized, which takes those two as well
BAD_RESAMPLING = (
    *refused("interpolation", "box", "hamming", "cubic", 7, 4, None, True),
    Refused({"interpolation": "lanczos", "antialias": False}, shows="False"),
)
BAD_FILL = refused("fill", NAN, "0", (), (0.1, NAN), {"image": 0})
BAD_DEGREES = refused("degrees", -1, NAN, (10, -10), (1, NAN), (1, 2, 3), "10", None, INF)
BAD_CENTER = refused("center", 3, (1,), (1, 2, 3), (NAN, 0), "ab")
BAD_RANGES = ((0.9, 0.1), (NAN, 1.0), (0.1, NAN), (0.1,), (0.1, 0.2, 0.3), "ab", 3.5, None, (0.1, INF))
