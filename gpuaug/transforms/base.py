"""A transform says two things: what it draws, and which passes that becomes.

    @dataclass(frozen=True)
    class RandomGain(Transform):
        strength: float

        def sample(self, draw, frame):
            return {"gain": draw.uniform(1 - self.strength, 1 + self.strength)}

        def lower(self, params, frame, slot):
            gain = params["gain"].float()[:, None]
            return (ir.Affine(gain, torch.zeros_like(gain)),)

`sample` and `lower` are ordinary torch code on tensors whose first axis is the sample.  For a kind of batch that comes
again a policy runs them once on symbols, tensors without values, and records a program that draws all later batches in
one compiled call (`gpuaug.trace`).  Code that cannot be recorded still runs, step by step: the result is the same, and
drawing takes several times as long.  `Policy.describe` then says why, with the line.  Code that keeps these rules can:

- Values are not looked at: no `if` on a tensor, no int(), float(), bool(), .item(), .tolist() or .numpy() of one, no
  mask or tensor as an index.  Choose by torch.where or gather, and check by `gpuaug.symbolic.require`.
- Samples are apart: nothing goes along the first axis, such as a sum, an order, a slice or a cat, and nothing asks how
  many samples there are or which place one has.
- Randomness is of `draw` alone: no generator of torch, NumPy or Python, and neither seed nor epoch is read.
- Types are float64, float32, int64, int32 and bool, and exp, log, sin, cos and sqrt are of float64, by
  `gpuaug.symbolic.smooth`.
- Rounding is settled: no sum of more than two floats, no matrix product, no sort, argmax or remainder of floats, since
  torch does not say in which order it computes, or in which order NaN stands.
- Operations have a rule in `gpuaug.trace.aten` or `gpuaug.trace.axes`, or are made of such; a new tensor is made from
  drawn ones, by torch.stack, zeros_like or new_zeros.
- Nothing changes between calls: arguments are fields of a frozen dataclass, and no other attribute is set.
- Tensors lie in the open: in tuples, lists, dicts and dataclasses, each [N, ...], and not in a function of
  `ir.Custom`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor

from gpuaug import arguments, ir
from gpuaug.rng import Draw

# name -> tensor whose first axis is the sample; containers add "transforms": one such dict per child
Drawn = dict[str, Any]
# (name, value) -> the value as it is kept; it raises for a value that is refused
Check = Callable[[str, Any], Any]


class Transform:
    """Subclasses are frozen dataclasses whose fields are torchvision's arguments, in torchvision's order."""

    # arguments that the tests, the bench and the docs build it with
    example: ClassVar[dict[str, Any]]
    # argument -> its check; a subclass names those of its own, and the checks of the classes above it hold too
    checks: ClassVar[Mapping[str, Check]] = {}

    def __post_init__(self, *initial: Any) -> None:
        """Keep each argument as its check returns it.

        A check sees one argument; a subclass whose arguments depend on each other extends this method.  initial:
        `InitVar` fields of a user's subclass, which nothing here needs."""
        checks: dict[str, Check] = {}
        for cls in reversed(type(self).__mro__):
            if issubclass(cls, Transform):
                checks |= vars(cls).get("checks", {})
        names = [f.name for f in fields(self)]  # type: ignore[arg-type]
        for name in checks.keys() - set(names):
            raise TypeError(f"{type(self).__name__} checks {name!r}, which is no field of it; it has {names}")
        for name in names:
            if name in checks:
                self._keep(name, checks[name](name, getattr(self, name)))

    def _keep(self, name: str, value: Any) -> None:
        """Set a field while the value is made; afterwards it is frozen."""
        object.__setattr__(self, name, value)

    @property
    def children(self) -> tuple["Transform", ...]:
        """The transforms inside this one; they take the slots after its own."""
        return ()

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        """Parameters per sample: a pure function of `draw` and of the frame before the transform."""
        return {}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        """The passes that these parameters become: no randomness, no device, no input or output."""
        raise NotImplementedError

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        """The frame after the transform."""
        return frame

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """No transform is called by itself: it has no count of samples, and would draw alike for ever."""
        raise TypeError(
            f"{type(self).__name__} is not called by itself, for it has no seed and no count of samples, and would "
            f"draw alike for ever; make a policy once, policy = ga.Policy([{self!r}]), and call policy(images)"
        )


class WithProbability(Transform):
    """What each sample gets with probability `p`, drawn as `apply`, [N] bool.

    A subclass declares the field `p` itself, for torchvision's place and default of it differ."""

    p: float
    checks = {"p": arguments.probability}

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        return {"apply": draw.coin(self.p)}


def span(transform: Transform) -> int:
    """Slots that a transform takes: its own and those of its children."""
    return 1 + sum(span(c) for c in transform.children)


def numbered(transforms: Sequence[Transform], first: int) -> Iterator[tuple[int, Transform]]:
    """Slots depth first, starting at `first`."""
    for t in transforms:
        yield first, t
        first += span(t)


def sample_all(transforms: Sequence[Transform], draw: Draw, frame: ir.Frame, first: int) -> list[Drawn]:
    """What each of a row of transforms draws."""
    drawn = []
    for slot, t in numbered(transforms, first):
        drawn.append(t.sample(draw.at(slot), frame))
        frame = t.after(frame, drawn[-1])
    return drawn


def lower_all(
    transforms: Sequence[Transform], drawn: Sequence[Drawn], frame: ir.Frame, first: int
) -> tuple[ir.Sequence, ir.Frame]:
    """The passes of a row of transforms, and the frame after them."""
    passes: list[ir.Pass] = []
    for _, lowered, after in lower_each(transforms, drawn, frame, first):
        passes += lowered
        frame = after
    return tuple(passes), frame


def lower_each(
    transforms: Sequence[Transform], drawn: Sequence[Drawn], frame: ir.Frame, first: int
) -> Iterator[tuple[Transform, ir.Sequence, ir.Frame]]:
    """Each of a row of transforms with its passes and the frame after it."""
    for (slot, t), params in zip(numbered(transforms, first), drawn, strict=True):
        lowered = t.lower(params, frame, slot)
        if not _fit(lowered, frame):
            raise ValueError(
                f"{type(t).__name__} needs images of one size; put a step that fixes the size, such as "
                "Resize((224, 224)), before it"
            )
        frame = t.after(frame, params)
        yield t, lowered, frame


def _fit(passes: ir.Sequence, frame: ir.Frame) -> bool:
    """Whether what needs images of one size stands behind what fixes it."""
    for p in passes:
        if frame.fixed is None and not ir.takes_sizes(p):
            return False
        frame = ir.after((p,), frame)
    return True


def when(apply: Tensor, *passes: ir.Pass) -> ir.Sequence:
    """The passes for the samples where `apply` holds, [N] bool."""
    return (ir.Choice(apply.long()[:, None], ((), passes)),)


def painted(name: str, value: float | tuple[float, ...] | None, frame: ir.Frame) -> tuple[float, ...]:
    """One value or one per channel to paint with, refused where it looks like 0 to 255 on images that are still
    uint8.  None: black."""
    values = value if isinstance(value, tuple) else (float(value or 0),)
    if len(values) not in (1, frame.channels):
        raise ValueError(
            f"{name} must be one number or one per channel, got {len(values)} for {frame.channels} channels"
        )
    if not frame.dtype.is_floating_point and any(not 0 <= v <= 1 for v in values):
        raise ValueError(
            f"{name} must be in [0, 1] on uint8 images, whose values run from 0 to 1 here, got {values}; divide by 255"
        )
    return values


def looked_up(table: Sequence[float], places: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The entry of a table at every place.  places: [N, ...] int64"""
    flat = places.flatten(1) if places.ndim > 1 else places[:, None]
    found = ir.rows(tuple(table), flat, dtype).gather(1, flat)
    return found.view_as(places) if places.ndim > 1 else found[:, 0]


def colour_channels(transform: Transform, frame: ir.Frame) -> None:
    """Colour has a meaning for one and for three channels."""
    if frame.channels not in (1, 3):
        raise ValueError(
            f"{type(transform).__name__} needs images of 1 or 3 channels, got {frame.channels}; select the channels "
            "first"
        )


def with_dtype(frame: ir.Frame, dtype: torch.dtype) -> ir.Frame:
    """The frame holding another dtype."""
    return replace(frame, dtype=dtype)
