"""Symbols: tensors of a batch that is not there.  Torch code that runs on them records a trace.

Where a tensor has values, a symbol has an array of the numbers of trace values (`gpuaug.trace.record`), of the tensor's
own shape but for the axis of the samples, which is 1 long: all samples run the same instructions.  So
torch.stack([x, y], 1) of two symbols [N] is a symbol [N, 2] whose `numbers` are [[3, 7]], and broadcasting, slicing,
views and writes in place are NumPy's own on that array.

`Symbol.__torch_dispatch__` hands every operation to a handler of `aten` or `axes`, and refuses those without one."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug.rng import Keys, counter_1
from gpuaug.symbolic import Symbolic
from gpuaug.trace import inputs
from gpuaug.trace.record import Table, Trace

Array = np.ndarray[Any, Any]
Handler = Callable[..., Any]

# The length that the axis of the samples has while a batch is traced.  Torch asks every tensor for its shape, and a
# batch to come has no length yet, so a length stands in for it that tells this axis from all others: too long for any
# other axis of parameters, and a prime, so that no product of other axes is it.  Not longer, since `_outcome` computes
# with it, and torch shares out tensors of more than 32 768 elements among threads that spin.  A tensor that has it by
# chance is refused or found out when the first batch is compared: it costs the recipe and no correctness.
SYMBOLIC_BATCH = 1031
# overload of an operation -> what it does to symbols: handler(trace, out, *arguments, **options), where `out` is the
# result on the meta device, which has a shape and a dtype
HANDLERS: dict[Any, Handler] = {}
# what hands a value to the host
_READS = torch.ops.aten._local_scalar_dense.default
# what else is refused where draws look at values, at other samples, or are torch's own: the usual operations, not all
_REFUSED = (
    "all any equal max mean min nonzero sum std var cumsum masked_select index.Tensor index_select topk "
    "bernoulli bernoulli_.float normal_ rand_like randint_like randn_like uniform_"
)


class Untraceable(Exception):
    """What a transform does cannot be recorded: it looks at values, mixes samples, or uses an unknown operation.  The
    message ends with the line of the transform that does it."""


class Symbol(Symbolic, Tensor):
    """A tensor of a batch that is not there: shape, dtype and strides, and where its values come from."""

    numbers: Array  # of trace values, in the shape of the tensor with the axis of the samples 1 long
    in_trace: Trace  # which they are values of

    @staticmethod
    def __new__(cls, trace: Trace, numbers: Array, like: Tensor) -> "Symbol":
        """like: a tensor of the shape and dtype on any device"""
        if axis_of_samples(like.shape) is None:
            raise Untraceable(f"a tensor of shape {tuple(like.shape)} has lost the axis of the samples")
        # with its strides, on which it depends what `view` may do
        device, strides = torch.device("cpu"), like.stride()
        out = Tensor._make_wrapper_subclass(cls, like.shape, strides, dtype=like.dtype, device=device)  # type: ignore[attr-defined]
        out.in_trace = trace
        out.numbers = numbers
        assert numbers.shape == collapsed(like.shape), f"{numbers.shape} for {tuple(like.shape)}"
        return out  # type: ignore[no-any-return]

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        handler = HANDLERS.get(func)
        if func is _READS:
            raise Untraceable("a value is read on the host, as by if, int() or float()")
        if handler is None:
            raise Untraceable(f"tracing has no rule for {func}")
        options = dict(kwargs or {})
        trace = next(a.in_trace for a in _flat((*args, *options.values())) if isinstance(a, Symbol))
        if options.pop("pin_memory", None):
            raise Untraceable("pinned memory is asked for, and a symbol is in no memory")
        there = {"device": "cpu"} if "device" in options else {}
        out = _outcome(func, _described(args), _described(options | there), torch.get_default_dtype())
        return handler(
            trace,
            out,
            *args,
            **{k: v for k, v in options.items() if k not in ("device", "layout", "memory_format", "non_blocking")},
        )

    def tolist(self) -> Any:
        raise Untraceable("values are read on the host")

    def numpy(self, *, force: bool = False) -> Any:
        raise Untraceable("values are read on the host")

    def require(self) -> None:
        """Make the trace check, for every batch to come, that this, [N] bool, holds for each sample."""
        self.in_trace.required.update(self.numbers.flatten().tolist())

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Symbol({tuple(self.shape)}, {self.dtype})"


# the rules below live as long as it does
_RULES = torch.library.Library("aten", "FRAGMENT")  # type: ignore[no-untyped-call]


@cache
def register_rules() -> None:
    """Have torch call a rule for operations on symbols, not `__torch_dispatch__`.

    Before it calls that, torch asks whether the tensor is a DTensor, and imports its distributed tensors for the
    question, SymPy among them: seconds, and 60 MB.  It looks for rules first.  Any other operation still comes by
    `__torch_dispatch__`, and pays."""
    for operation in (*HANDLERS, _READS, *(f"aten::{name}" for name in _REFUSED.split())):
        torch.library.register_torch_dispatch(operation, Symbol, _by_rule, lib=_RULES)


def _by_rule(cls: type[Symbol], func: Any, types: Any, args: Any, kwargs: Any) -> Any:
    return cls.__torch_dispatch__(func, types, args, kwargs)


def _flat(values: Any) -> list[Any]:
    """Arguments, those in lists too."""
    return [w for v in values for w in (_flat(v) if isinstance(v, list | tuple) else (v,))]


@dataclass(frozen=True)
class _Like:
    """What the shape and dtype of an operation's result depend on of a tensor."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


def _described(value: Any) -> Hashable:
    """Arguments as a key, from which `_filled` makes them again.  A number goes with its type, on which dtypes
    depend: to a dict 1, True and 1.0 are one key."""
    if isinstance(value, Tensor):
        return _Like(tuple(value.shape), value.stride(), value.dtype)
    if isinstance(value, list | tuple):
        return type(value), tuple(_described(v) for v in value)
    if isinstance(value, dict):
        return dict, tuple((k, _described(v)) for k, v in value.items())
    return None, (type(value), value)


def _filled(key: Any, value: int | None) -> Any:
    """Arguments from their key, every tensor on the host and full of one value; None: on the meta device."""
    if isinstance(key, _Like):
        if value is None:
            return torch.empty_strided(key.shape, key.stride, dtype=key.dtype, device="meta")
        reach = 1 + sum((n - 1) * s for n, s in zip(key.shape, key.stride, strict=True)) if all(key.shape) else 0
        return torch.full((reach,), value, dtype=key.dtype, device="cpu").as_strided(key.shape, key.stride)
    kind, parts = key
    if kind is None:
        return parts[1]
    if kind is dict:
        return {k: _filled(v, value) for k, v in parts}
    return kind(_filled(v, value) for v in parts)


def _shapes(made: Any) -> Any:
    """What an operation made, without its values."""
    if isinstance(made, Tensor):
        return torch.empty_strided(made.shape, made.stride(), dtype=made.dtype, device="meta")
    return type(made)(_shapes(m) for m in made) if isinstance(made, list | tuple) else made


# the same few hundred come again for every kind of batch, and torch takes up to a millisecond for each
@lru_cache(maxsize=4096)
def _outcome(func: Any, args: Any, options: Any, default: torch.dtype) -> Any:
    """What an operation makes, on the meta device: shapes, strides and dtypes; never written to.

    It is done on the host: torch's own rules for the meta device load its compiler, which takes seconds and 100 MB, but
    for views, which have the same rules on all devices and there need no memory: a slice of 20 words of every sample
    would leave the C library with megabytes.  Zeros are indices wherever one may stand, and ones divide.  default:
    torch's default dtype, on which the result may depend"""
    if func.is_view:
        return _shapes(func(*_filled(args, None), **_filled(options, None)))
    try:
        return _shapes(func(*_filled(args, 0), **_filled(options, 0)))
    except RuntimeError:
        return _shapes(func(*_filled(args, 1), **_filled(options, 1)))


def collapsed(shape: Any) -> tuple[int, ...]:
    """A shape with the axis of the samples 1 long."""
    if sum(s == SYMBOLIC_BATCH for s in shape) > 1:
        raise Untraceable(f"two axes are of samples in a tensor of shape {tuple(shape)}")
    return tuple(1 if s == SYMBOLIC_BATCH else int(s) for s in shape)


def axis_of_samples(shape: Any) -> int | None:
    """Which axis is that of the samples; None where none is."""
    return next((i for i, s in enumerate(shape) if s == SYMBOLIC_BATCH), None)


def kind_of(dtype: torch.dtype) -> str:
    """The kind of trace value that holds a dtype: "d" or "i"."""
    if dtype in (torch.float64, torch.float32):
        return "d"
    if dtype in (torch.int64, torch.int32, torch.bool):
        return "i"
    raise Untraceable(f"no value of a trace holds {dtype}; take float64, float32, int64, int32 or bool")


def numbers_of(trace: Trace, value: Any) -> Array:
    """The numbers of the values of a symbol; of a tensor that is the same for all samples, or of a scalar, as
    constants."""
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
            raise Untraceable("a tensor has other values for other samples, and so depends on their place in the batch")
        value = first
    real = kind_of(value.dtype) == "d"
    flat = [trace.constant(float(v) if real else int(v)) for v in value.flatten().tolist()]
    out = np.empty(len(flat), dtype=object)
    out[:] = flat
    return out.reshape(value.shape)


def symbol(trace: Trace, numbers: Any, dtype: torch.dtype, *rest: int) -> Symbol:
    """A symbol [N, *rest] from the numbers of its values, row-major over `rest`."""
    flat = np.empty(len(numbers), dtype=object)
    flat[:] = numbers
    return Symbol(trace, flat.reshape(1, *rest), torch.empty((SYMBOLIC_BATCH, *rest), dtype=dtype, device="meta"))


def table(trace: Trace, tensor: Tensor) -> Table:
    """The table that gives a tensor [N, ...] for every batch."""
    if axis_of_samples(tensor.shape) != 0 or kind_of(tensor.dtype) not in "id" or tensor.dtype == torch.bool:
        raise Untraceable(f"what is prepared must be [N, ...] of numbers, got {tensor.dtype} {tuple(tensor.shape)}")
    numbers = numbers_of(trace, tensor)
    return Table(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape[1:]), tuple(numbers.flatten().tolist()))


class SymbolicKeys(Symbolic, Keys):
    """The keys of a batch that is not there: its words and partners are inputs of the program."""

    def __init__(self, trace: Trace):
        ids, occurrence, epoch = (
            symbol(trace, [trace.add(name)], torch.int64) for name in ("id", "occurrence", "epoch")
        )
        for name, value in {
            "ids": ids,
            "occurrence": occurrence,
            "trace": trace,
            "inner": Keys(0, epoch, ids, occurrence),
        }.items():
            object.__setattr__(self, name, value)

    @property
    def seed(self) -> int:  # type: ignore[override]
        """Refused: one trace serves batches of every key."""
        raise Untraceable("the seed is read, and differs between batches; take draws")

    @property
    def epoch(self) -> Tensor:  # type: ignore[override]
        """Refused: it is an int in one batch and a tensor in another, and no symbol can stand for both."""
        raise Untraceable("the epoch is read, and differs between batches; make a policy for each stage")

    def counter(self) -> tuple[Tensor, Tensor]:
        inner: Keys = self.inner  # type: ignore[attr-defined]
        return inner.counter()

    def halves(self) -> Tensor:
        trace: Trace = self.trace  # type: ignore[attr-defined]
        return symbol(trace, [trace.add("low"), trace.add("high")], torch.int64, 2)

    def words(self, domain: int, c0: Tensor, slot: Tensor) -> Tensor:
        trace: Trace = self.trace  # type: ignore[attr-defined]
        counters = zip(slot.tolist(), c0.tolist(), strict=True)
        found = [trace.add("word", counter_1(domain, s), c, lane) for s, c in counters for lane in range(4)]
        return symbol(trace, found, torch.int64, len(c0), 4)

    def partners(self, slot: int) -> Tensor:
        trace: Trace = self.trace  # type: ignore[attr-defined]
        return symbol(trace, [trace.add("partner", inputs.partner(slot))], torch.int64)

    def shared(self, slot: int) -> Keys:
        return SharedKeys(self.trace, slot)  # type: ignore[attr-defined]

    def in_first(self, parts: int) -> Tensor:
        trace: Trace = self.trace  # type: ignore[attr-defined]
        return symbol(trace, [trace.add("partner", inputs.first(parts))], torch.int64) == 1

    def classes(self) -> Tensor:
        trace: Trace = self.trace  # type: ignore[attr-defined]
        return symbol(trace, [trace.add("partner", inputs.CLASSES)], torch.int64)


class SharedKeys(SymbolicKeys):
    """`Keys.shared` of a batch that is not there: its words are inputs of the program too."""

    def __init__(self, trace: Trace, leader: int):
        super().__init__(trace)
        object.__setattr__(self, "leader", leader)

    def words(self, domain: int, c0: Tensor, slot: Tensor) -> Tensor:
        trace: Trace = self.trace  # type: ignore[attr-defined]
        leader: int = self.leader  # type: ignore[attr-defined]
        counters = zip(slot.tolist(), c0.tolist(), strict=True)
        found = [
            trace.add("partner", inputs.word(inputs.Word(leader, domain, s, c, lane)))
            for s, c in counters
            for lane in range(4)
        ]
        return symbol(trace, found, torch.int64, len(c0), 4)


def sizes(trace: Trace) -> Symbol:
    """(H, W) of images of different sizes: [N, 2]."""
    return symbol(trace, [trace.add("height"), trace.add("width")], torch.int64, 2)
