"""The recipes of one policy, by kind of batch: same size, channels, dtype and backend.

The first batch of a kind on a host is drawn step by step; the second finds the recipe, which must make what the first
made; and from then on the recipe serves.  Where there can be none, the reason is kept in its place."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug import ir
from gpuaug.rng import Keys
from gpuaug.transforms.base import Transform

Build = Callable[[Keys, ir.Frame], Any]
# of a recipe, what it makes of keys and sizes
Fill = Callable[[Any, Keys, Tensor | None], Any]

# how many kinds are remembered, and after how many calls one that did not come again makes room
_MOST, _RECENT = 64, 1024


@dataclass(frozen=True, eq=False)
class _First:
    """The first batch of a kind on a host, and what drawing step by step made of it: a recipe must make the same."""

    keys: Keys
    size: Tensor | None
    made: Any


def _fill(recipe: Any, keys: Keys, size: Tensor | None) -> Any:
    return recipe.fill(keys, size)


class Recipes:
    """Recipes by kind of batch.  On a host they are found at the second batch of a kind, since most policies of a test
    or a notebook are called once."""

    def __init__(self) -> None:
        # by kind: a Recipe; a sentence that says why there is none; or the first batch, of a kind that came once
        self._known: dict[Hashable, Any] = {}
        # what an executor keeps of calls, by a kind of its own
        self.calls: dict[Hashable, Any] = {}
        # what targets of samples that were drawn ahead wanted of the passes in the call before; None where none did
        self.followed: Any = None
        # the call at which each kind came last
        self._used: dict[Hashable, int] = {}
        self._calls = 0
        # a loader draws in a thread of its own: two must not look for one recipe, nor one of them make room meanwhile
        self._lock = Lock()

    def prepare(
        self,
        kind: Hashable,
        keys: Keys,
        size: Tensor | None,
        frame: Callable[[], ir.Frame],
        build: Build,
        fill: Fill = _fill,
    ) -> Any:
        """What `build` makes of keys and a frame, by the recipe of its kind where there is one.

        size: [N, 2] int64 where images differ.  frame: makes the frame, which a recipe does without.  fill: what
        is asked of the recipe, its `fill` or its `filled`"""
        host = keys.ids.device.type == "cpu"
        self._calls += 1
        # with torch's default dtype, which an integer tensor times a float has
        known, kind = self._known, (host, torch.get_default_dtype(), kind)
        recipe = known.get(kind)
        room = recipe is not None or self._room()
        if recipe is None and host:
            made = build(keys, frame())
            if room:
                known[kind] = _First(_kept(keys), None if size is None else size.clone(), made)
                self._used[kind] = self._calls
            return made
        # on a GPU the first call of a kind compiles its kernels anyway, and its program with them; nothing can be
        # compiled while a graph is captured
        capturing = recipe is None and keys.ids.is_cuda and torch.cuda.is_current_stream_capturing()
        if recipe is None and (not room or capturing):
            return build(keys, frame())
        if recipe is None or isinstance(recipe, _First):
            with self._lock:
                recipe = known.get(kind)
                if recipe is None or isinstance(recipe, _First):
                    recipe = known[kind] = find(frame(), build, recipe)
        self._used[kind] = self._calls
        made = None if isinstance(recipe, str) else fill(recipe, keys, size)
        # something that was required does not hold: step by step raises the error that says what
        return build(keys, frame()) if made is None else made

    def _room(self) -> bool:
        """Whether one more kind can be remembered.  A kind is forgotten only if it did not come for long: to forget one
        that comes again is to trace over and over, which costs more than to draw another kind step by step."""
        if len(self._known) >= _MOST:
            with self._lock:
                for kind in list(self._known):
                    if self._used.get(kind, 0) < self._calls - _RECENT:
                        self._known.pop(kind, None)
                        self._used.pop(kind, None)
        return len(self._known) < _MOST


def find(frame: ir.Frame, build: Build, first: _First | None = None) -> Any:
    """The recipe of `build` for batches of a kind, or a sentence that says why there is none."""
    # imported when a recipe is first looked for: a policy that is called once does without the tracer
    from gpuaug.trace.recipe import Untraceable, line_of, trace_build

    try:
        recipe = trace_build(frame, build)
        # what depends on more than keys and sizes, such as len(ids) or torch.rand, was recorded as a constant
        if first is not None and not agree(recipe.fill(first.keys, first.size), first.made):
            return "what is drawn depends on more than the keys and the size of a sample"
        return recipe
    except Exception as error:
        # a transform of a user may raise anything on a symbol, and still be fine on tensors
        return f"{type(error).__name__}: {error}{'' if isinstance(error, Untraceable) else line_of(error)}"


def _kept(keys: Keys) -> Keys:
    """A copy of keys: their owner may write other ids into the tensors."""
    epoch = int(keys.epoch) if isinstance(keys.epoch, Tensor) else keys.epoch
    valid = None if keys.valid is None else keys.valid.clone()
    labels = None if keys.labels is None else keys.labels.clone()
    return Keys(keys.seed, epoch, keys.ids.clone(), keys.occurrence.clone(), valid, labels)


def check_values(transforms: Sequence[Transform]) -> None:
    """Raise where a transform may change between two calls: a value is a frozen dataclass without attributes beside its
    fields, or has none."""
    for t in transforms:
        kind: Any = type(t)
        frozen = is_dataclass(kind) and getattr(kind, "__dataclass_params__").frozen  # noqa: B009
        known = {f.name for f in fields(kind)} if frozen else set()
        more = [
            name for name in vars(t) if name not in known and not isinstance(getattr(kind, name, None), cached_property)
        ]
        if more:
            raise TypeError(
                f"{more[0]} of {kind.__name__} may change between two calls; make it a field of a frozen dataclass"
            )
        check_values(t.children)


def agree(a: Any, b: Any) -> bool:
    """Whether two structures hold the same values: float64 but for the last bits, in which torch's own functions differ
    with the size of a batch."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        if a.dtype == torch.float64:
            return torch.allclose(a, b, rtol=2.0**-48, atol=2.0**-60, equal_nan=True)
        return bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, Keys):
        return True
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(agree, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(agree(v, b[k]) for k, v in a.items())
    if is_dataclass(a):
        # scratch memory was written to, or taken, when the first batch ran
        return all(agree(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if "scratch" not in f.metadata)
    return bool(a == b)
