"""Symbols: tensors whose numbers are instructions of a trace.  Torch code that runs on them writes the trace.

A symbol holds an array of instruction numbers of the tensor's own shape, but for the axis of the samples, which is 1
long there: broadcasting, slicing and writing in place are then NumPy's.  Samples are told by their count, which no
other axis has."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug.rng import Keys
from gpuaug.symbolic import Symbolic
from gpuaug.trace.record import Table, Trace

Array = np.ndarray[Any, Any]
Handler = Callable[..., Any]

# a prime, so that no product of other axes has it
SAMPLES = 7919
# overload of an operation -> what it does to symbols: handler(trace, out, *arguments, **options), `out` the result on
# the meta device
HANDLERS: dict[Any, Handler] = {}


class Untraceable(Exception):
    """What a transform does cannot be written as a trace: it asks for numbers on the host, mixes samples, or uses an
    unknown operation."""


class Symbol(Symbolic, Tensor):
    """A tensor of a batch that is not there."""

    numbers: Array
    # the trace that its numbers are instructions of
    of: Trace

    @staticmethod
    def __new__(cls, trace: Trace, numbers: Array, like: Tensor) -> "Symbol":
        """like: a tensor of the shape and dtype on any device"""
        if axis_of_samples(like.shape) is None:
            raise Untraceable(f"a tensor of shape {tuple(like.shape)} is of all samples together")
        # strides too, for what is a view of what depends on them
        device, strides = torch.device("cpu"), like.stride()
        out = Tensor._make_wrapper_subclass(cls, like.shape, strides, dtype=like.dtype, device=device)  # type: ignore[attr-defined]
        out.of = trace
        out.numbers = numbers
        assert numbers.shape == collapsed(like.shape), f"{numbers.shape} for {tuple(like.shape)}"
        return out  # type: ignore[no-any-return]

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        handler = HANDLERS.get(func)
        if handler is None:
            # below autograd, in a custom operator or in inference mode, what is made of other operations comes here
            # whole
            parts = func.decompose(*args, **kwargs or {})
            if parts is NotImplemented:
                raise Untraceable(f"{func} is not known to the trace")
            return parts
        options = dict(kwargs or {})
        trace = next(a.of for a in _flat((*args, *options.values())) if isinstance(a, Symbol))
        if options.pop("pin_memory", None):
            raise Untraceable("pinned memory is of the host")
        there = {"device": "meta"} if "device" in options else {}
        out = _outcome(func, _described(args), _described(options | there), torch.get_default_dtype())
        return handler(
            trace,
            out,
            *args,
            **{k: v for k, v in options.items() if k not in ("device", "layout", "memory_format", "non_blocking")},
        )

    def tolist(self) -> Any:
        raise Untraceable("numbers are read on the host")

    def numpy(self, *, force: bool = False) -> Any:
        raise Untraceable("numbers are read on the host")

    def require(self) -> None:
        """Let the trace see to it that this, [N] bool, holds for every sample."""
        self.of.required.update(self.numbers.flatten().tolist())

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Symbol({tuple(self.shape)}, {self.dtype})"


def _flat(values: Any) -> list[Any]:
    """Arguments, those in lists too."""
    return [w for v in values for w in (_flat(v) if isinstance(v, list | tuple) else (v,))]


@dataclass(frozen=True)
class _Like:
    """What an operation's result depends on of a tensor, but for its numbers."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


def _described(value: Any) -> Hashable:
    """Arguments as a key, from which `_meta` makes them again.  Beside a number its type, on which dtypes depend: 1 is
    True is 1.0 to a dict."""
    if isinstance(value, Tensor):
        return _Like(tuple(value.shape), value.stride(), value.dtype)
    if isinstance(value, list | tuple):
        return type(value), tuple(_described(v) for v in value)
    if isinstance(value, dict):
        return dict, tuple((k, _described(v)) for k, v in value.items())
    return None, (type(value), value)


def _meta(key: Any) -> Any:
    """Arguments from their key, with every tensor on the meta device."""
    if isinstance(key, _Like):
        return torch.empty_strided(key.shape, key.stride, dtype=key.dtype, device="meta")
    kind, parts = key
    if kind is None:
        return parts[1]
    return {k: _meta(v) for k, v in parts} if kind is dict else kind(_meta(v) for v in parts)


# the same few hundred come again for every kind of batch, and torch takes up to a millisecond for one
@lru_cache(maxsize=4096)
def _outcome(func: Any, args: Any, options: Any, default: torch.dtype) -> Any:
    """What an operation makes, on the meta device: of a shape, strides and a dtype, and never written to.  default:
    torch's, on which it depends"""
    return func(*_meta(args), **_meta(options))


def collapsed(shape: Any) -> tuple[int, ...]:
    """A shape with the axis of the samples 1 long."""
    if sum(s == SAMPLES for s in shape) > 1:
        raise Untraceable(f"samples meet samples in a tensor of shape {tuple(shape)}")
    return tuple(1 if s == SAMPLES else int(s) for s in shape)


def axis_of_samples(shape: Any) -> int | None:
    """Which axis it is."""
    return next((i for i, s in enumerate(shape) if s == SAMPLES), None)


def kind_of(dtype: torch.dtype) -> str:
    """How the trace holds a dtype."""
    if dtype in (torch.float64, torch.float32):
        return "d"
    if dtype in (torch.int64, torch.int32, torch.bool):
        return "i"
    raise Untraceable(f"{dtype} is not known to the trace")


def numbers_of(trace: Trace, value: Any) -> Array:
    """The numbers of a symbol, of a tensor that is the same for all samples, or of a scalar."""
    if isinstance(value, Symbol):
        return value.numbers
    if not isinstance(value, Tensor):
        return np.array(trace.constant(int(value) if isinstance(value, bool | int) else float(value)), dtype=object)
    axis = axis_of_samples(value.shape)
    if axis is not None:
        first = value.narrow(axis, 0, 1)
        if not torch.equal(
            torch.nan_to_num(first.double(), 0.5).expand_as(value), torch.nan_to_num(value.double(), 0.5)
        ):
            raise Untraceable("a tensor numbers the samples by their place in the batch")
        value = first
    real = kind_of(value.dtype) == "d"
    flat = [trace.constant(float(v) if real else int(v)) for v in value.flatten().tolist()]
    out = np.empty(len(flat), dtype=object)
    out[:] = flat
    return out.reshape(value.shape)


def symbol(trace: Trace, numbers: Any, dtype: torch.dtype, *rest: int) -> Symbol:
    """[N, *rest] from numbers of as many columns."""
    flat = np.empty(len(numbers), dtype=object)
    flat[:] = numbers
    return Symbol(trace, flat.reshape(1, *rest), torch.empty((SAMPLES, *rest), dtype=dtype, device="meta"))


def table(trace: Trace, tensor: Tensor) -> Table:
    """What to make of a tensor of N rows."""
    if axis_of_samples(tensor.shape) != 0 or kind_of(tensor.dtype) not in "id" or tensor.dtype == torch.bool:
        raise Untraceable(f"a table is [N, ...] of numbers, got {tensor.dtype} {tuple(tensor.shape)}")
    numbers = numbers_of(trace, tensor)
    return Table(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape[1:]), tuple(numbers.flatten().tolist()))


class SymbolicKeys(Symbolic, Keys):
    """The keys of samples that are not there."""

    def __init__(self, trace: Trace):
        ids, occurrence, epoch = (
            symbol(trace, [trace.add(name)], torch.int64) for name in ("id", "occurrence", "epoch")
        )
        for name, value in {
            "ids": ids,
            "occurrence": occurrence,
            "trace": trace,
            "known": Keys(0, epoch, ids, occurrence),
        }.items():
            object.__setattr__(self, name, value)

    @property
    def seed(self) -> int:  # type: ignore[override]
        """A number that changes from batch to batch."""
        raise Untraceable("the seed is a number of the batch")

    @property
    def epoch(self) -> Tensor:  # type: ignore[override]
        """A number in one batch and a tensor in another, neither of which a symbol can stand for."""
        raise Untraceable("the epoch is a number of the batch")

    def counter(self) -> tuple[Tensor, Tensor]:
        known: Keys = self.known  # type: ignore[attr-defined]
        return known.counter()

    def halves(self) -> Tensor:
        trace: Trace = self.trace  # type: ignore[attr-defined]
        return symbol(trace, [trace.add("low"), trace.add("high")], torch.int64, 2)

    def words(self, domain: int, c0: Tensor, slot: Tensor) -> Tensor:
        trace: Trace = self.trace  # type: ignore[attr-defined]
        counters = zip(slot.tolist(), c0.tolist(), strict=True)
        found = [trace.add("word", (domain << 28) | s, c, lane) for s, c in counters for lane in range(4)]
        return symbol(trace, found, torch.int64, len(c0), 4)

    def partners(self, slot: int) -> Tensor:
        trace: Trace = self.trace  # type: ignore[attr-defined]
        return symbol(trace, [trace.add("partner", slot)], torch.int64)


def sizes(trace: Trace) -> Symbol:
    """(H, W) of images of different sizes: [N, 2]."""
    return symbol(trace, [trace.add("height"), trace.add("width")], torch.int64, 2)
