"""gpuaug inside `torch.compile`: a policy called with a tensor is one opaque operator, `gpuaug::policy`, in the graph;
every other call runs eagerly, in a graph break.

torch traces with tensors that have no values, and a Python object in the graph would be guarded: each new policy would
compile again, up to torch's limit of recompilations.  So the operator is told its policy by a handle, an int64 tensor
whose value is no guard, and shapes of its output by an `Outline`: the output's size as the shape of an empty tensor,
and a `Kind` for what else decides shape and dtype.  Two policies of one kind, such as RandomInvert and RandomSolarize,
share a compiled graph."""

import functools
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from gpuaug import ir, rng
from gpuaug.arrays import put
from gpuaug.dtypes import DTYPES
from gpuaug.transforms.base import Transform, numbered

# handle -> policy.  Handles are never used twice in a process, and a policy that is gone is forgotten
_handles = count(1)
# in place of an epoch: "the policy's own when the operator runs", so that `set_epoch` compiles nothing again
_OWN = -(2**63)
_policies: WeakValueDictionary[int, Any] = WeakValueDictionary()
_kinds: dict["Kind", int] = {}
_numbers: dict[int, "Kind"] = {}

Door = TypeVar("Door", bound=Callable[..., Any])


class Kind(NamedTuple):
    """What decides the shape and dtype of an output beside its size, which `Outline` holds."""

    # transforms that change size, channels or dtype; without those that only resize, where the output's size is fixed
    changers: tuple[Transform, ...]
    fixed: bool  # whether the output's size depends on the policy alone
    mixes: bool  # whether class numbers become soft rows
    memory_format: torch.memory_format

    def after(self, channels: int, size: tuple[int, int], dtype: torch.dtype) -> ir.Frame:
        """The frame that images of these channels, size and dtype end in."""
        return _after(self.changers, _blank(1, channels, dtype).resized(size))


class Outline(NamedTuple):
    """A policy as `torch.compile` sees it: inputs of the graph, and one number that is a guard."""

    handle: Tensor  # int64 without dimensions
    # [H, W, classes, 0]: torch makes the shape of a tensor dynamic when it sees a second one, which it never does to a
    # module's numbers
    sizes: Tensor
    kind: int


def register(policy: Any, classes: int | None) -> Outline:
    """The outline of a policy, under a handle of its own.  classes: of its mixes."""
    handle = next(_handles)
    _policies[handle] = policy
    kind, fixed = _foresee(policy.transforms, classes is not None, policy.memory_format)
    number = _kinds.setdefault(kind, len(_kinds))
    _numbers[number] = kind
    # a policy made under inference_mode or another default device is called outside of it
    with torch.inference_mode(False):
        return Outline(torch.tensor(handle, device="cpu"), torch.empty((*fixed, classes or 0, 0), device="cpu"), number)


def outline(policy: Any, shape: tuple[int, int, int], dtype: torch.dtype) -> tuple[tuple[int, int, int], torch.dtype]:
    """What comes out for images [N, C, H, W]: (C, H, W) and dtype."""
    end = _after(policy.transforms, _blank(1, shape[0], dtype).resized(shape[1:]))
    return (end.channels, *(end.fixed or (0, 0))), end.dtype


def _foresee(
    transforms: tuple[Transform, ...], mixes: bool, memory_format: torch.memory_format
) -> tuple[Kind, tuple[int, int]]:
    changers = tuple(t for t in transforms if type(t).after is not Transform.after)
    try:
        changers, fixed = _sifted(changers)
    except Exception:
        # a transform of a user may raise anything here: it is asked again for every graph, and shares none
        changers, fixed = (_Alone(changers),), None
    return Kind(changers, fixed is not None, mixes, memory_format), fixed or (0, 0)


@functools.lru_cache(256)
def _sifted(changers: tuple[Transform, ...]) -> tuple[tuple[Transform, ...], tuple[int, int] | None]:
    """The transforms that the kind of an output depends on, and the output's size if it is fixed.

    It is if images of unknown sizes end in one: then images of any size do."""
    fixed = _after(changers, _blank(0, 3, torch.uint8)).fixed
    return (tuple(t for t in changers if not _resizes_only(t)) if fixed else changers), fixed


class _Alone(Transform):
    """A row of transforms that equals no other, for it compares by identity."""

    def __init__(self, transforms: tuple[Transform, ...]):
        self.transforms = transforms

    def after(self, frame: ir.Frame, params: Any) -> ir.Frame:
        return _after(self.transforms, frame)


def _resizes_only(t: Transform) -> bool:
    whole = _blank(0, 3, torch.uint8).resized((4096, 4096))
    params = t.sample(_draw(0), whole)
    frames = [_blank(0, c, dtype).resized((4096, 4096)) for c in (1, 2, 3, 4) for dtype in DTYPES]
    ends = [t.after(f, params) for f in frames]
    return all((a.channels, a.dtype) == (b.channels, b.dtype) for a, b in zip(frames, ends, strict=True))


def _after(transforms: tuple[Transform, ...], frame: ir.Frame) -> ir.Frame:
    draw = _draw(len(frame.size))
    for slot, t in numbered(transforms, 0):
        frame = t.after(frame, t.sample(draw.at(slot), frame))
    return frame


def _blank(n: int, channels: int, dtype: torch.dtype) -> ir.Frame:
    return ir.Frame(torch.zeros((n, 2), dtype=torch.int64, device="cpu"), None, channels, dtype)


def _draw(n: int) -> rng.Draw:
    zero = torch.zeros(n, dtype=torch.int64, device="cpu")
    return rng.Draw(rng.Keys(0, 0, zero, zero, labels=zero), 0)


@torch.library.custom_op("gpuaug::policy", mutates_args=("next_id",))
def policy_operator(
    images: Tensor,
    labels: Tensor | None,
    ids: Tensor | None,
    epoch: Tensor | None,
    occurrence: Tensor | None,
    next_id: Tensor,
    handle: Tensor,
    size: list[int],
    classes: int,
    kind: int,
    epoch_number: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Augmented images and labels; without labels the second is empty.  epoch_number: _OWN where none was given."""
    policy = _policies[int(handle)]
    number = None if epoch_number == _OWN else epoch_number
    out, soft = policy.augment(images, labels, ids, number if epoch is None else epoch, occurrence, backend, next_id)
    if _numbers[kind].fixed and list(out.shape[2:]) != size:
        raise RuntimeError(
            f"{policy!r} made images of {list(out.shape[2:])}, and its transforms had foreseen {size}: "
            "look at their `after`"
        )
    rows = images.new_empty(0) if soft is None else soft
    return _own(out, images), rows if labels is None else _own(rows, labels)


def _own(made: Tensor, given: Tensor) -> Tensor:
    """What was made in memory of its own: torch forbids an operator to return an input, or a view of one."""
    return made.clone() if made.untyped_storage().data_ptr() == given.untyped_storage().data_ptr() else made


@policy_operator.register_fake
def _(
    images: Tensor,
    labels: Tensor | None,
    ids: Tensor | None,
    epoch: Tensor | None,
    occurrence: Tensor | None,
    next_id: Tensor,
    handle: Tensor,
    size: list[int],
    classes: int,
    kind: int,
    epoch_number: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    known = _numbers[kind]
    n, c, *sides = images.shape
    dtype, (h, w) = images.dtype, size if known.fixed else sides
    if known.changers:
        # while torch traces, tensors that this thread makes are fake; those of another thread are real
        with ThreadPoolExecutor(1) as pool:
            end = pool.submit(known.after, int(c), (8, 8) if known.fixed else (int(h), int(w)), dtype).result()
        c, dtype = end.channels, end.dtype
        h, w = (h, w) if known.fixed else end.fixed or (h, w)
    out = images.new_empty((n, c, h, w), dtype=dtype).contiguous(memory_format=known.memory_format)
    if labels is None:
        return out, images.new_empty(0)
    if not known.mixes or labels.ndim == 2:
        return out, torch.empty_like(labels)
    return out, labels.new_empty((n, classes), dtype=torch.float32)


def call(policy: Any, images: Tensor, labels: Any, ids: Any, epoch: Any, occurrence: Any, backend: str) -> Any:
    """`policy(images, ...)` with a tensor while torch traces: a call of the operator."""
    held, number = (epoch, _OWN) if isinstance(epoch, Tensor) else (None, _OWN if epoch is None else epoch)
    rows, ids, occurrence = (_tensor(v, images.device) for v in (labels, ids, occurrence))
    handle, sizes, kind = policy.outline
    h, w, classes, _ = sizes.shape
    out, soft = policy_operator(
        images, rows, ids, held, occurrence, policy.next_id, handle, [h, w], classes, kind, number, backend
    )
    return out if labels is None else (out, soft)


def _tensor(values: Any, device: torch.device) -> Tensor | None:
    """A tensor of a list or an array, as a call makes it outside of a graph."""
    if values is None or isinstance(values, Tensor):
        return values
    if isinstance(values, list | tuple) and all(type(v) is int for v in values):
        made: Tensor = integers(values, device)
        return made
    return torch.as_tensor(np.asarray(values), device=device)


@torch.library.custom_op("gpuaug::integers", mutates_args=())
def integers(values: list[int], device: torch.device) -> Tensor:
    """[N] int64.  As inputs of an operator integers are symbolic, so that other values need no other graph."""
    return put(values, device).long()


@integers.register_fake
def _(values: list[int], device: torch.device) -> Tensor:
    return torch.empty(len(values), dtype=torch.int64, device=device)


def eagerly(function: Door) -> Door:
    """The same function, run eagerly in a graph break of `torch.compile`: as by `torch.compiler.disable`, but that
    nothing imports the compiler before it is used."""
    disabled: Callable[..., Any] | None = None

    @functools.wraps(function)
    def door(*given: Any, **named: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*given, **named)
        nonlocal disabled
        if disabled is None:
            disabled = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
        return disabled(*given, **named)

    door._torchdynamo_disable = True  # type: ignore[attr-defined]
    door._torchdynamo_disable_msg = (  # type: ignore[attr-defined]
        "gpuaug runs lists, arrays, Batch, draw, replay and the functional forms eagerly; "
        "under fullgraph=True call the policy with a tensor [N, C, H, W] and tensors beside it"
    )
    return door  # type: ignore[return-value]
