"""What torch's elementwise operations do to symbols: arithmetic, comparisons, casts, where, fills.

Each handler appends the instructions of one element to the trace, for every element of the array that a symbol holds;
torch.add of two float32 symbols [N] is "dadd" and "single".  An operation that is neither here nor in `axes` is
refused: nothing is guessed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug.trace.record import Trace
from gpuaug.trace.tensor import HANDLERS, Array, Handler, Symbol, Untraceable, collapsed, kind_of, numbers_of

aten = torch.ops.aten


def handles(*operations: Any) -> Callable[[Handler], Handler]:
    """Register a handler for overloads of torch operations."""

    def put(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(operations, handler))
        return handler

    return put


def each(function: Callable[..., int], *arrays: Array) -> Array:
    """A function of one element of each array, broadcast: it adds instructions and gives the number of a value."""
    out = np.frompyfunc(function, len(arrays), 1)(*arrays)
    return out if isinstance(out, np.ndarray) else np.array(out, dtype=object)


def cast(trace: Trace, numbers: Array, to: torch.dtype, known: torch.dtype | None = None) -> Array:
    """Values as another dtype holds them.  known: the dtype that they have already, where they have one"""
    real, single, narrow, truth = kind_of(to) == "d", to == torch.float32, to == torch.int32, to == torch.bool

    def one(number: int) -> int:
        if real:
            out = number if trace.kind(number) == "d" else trace.add("to_float", number)
            return out if not single or known == torch.float32 else trace.add("single", out)
        if trace.kind(number) == "d":
            if truth:
                return trace.add("ieq", trace.add("deq", number, trace.constant(0.0)), trace.constant(0))
            number = trace.add("to_integer", trace.add("dtrunc", number))
        if narrow and known not in (torch.int32, torch.bool):
            return trace.add("ishr", trace.add("ishl", number, trace.constant(32)), trace.constant(32))
        if truth and known != torch.bool:
            return trace.add("ieq", trace.add("ieq", number, trace.constant(0)), trace.constant(0))
        return number

    return each(one, numbers)


def operand(trace: Trace, value: Any, to: torch.dtype) -> Array:
    """An argument as the dtype that an operation computes in."""
    return cast(trace, numbers_of(trace, value), to, value.dtype if isinstance(value, Tensor) else None)


def computed(*values: Any) -> torch.dtype:
    """The dtype that torch promotes arguments to."""
    like = [torch.empty(v.shape, dtype=v.dtype, device="meta") if isinstance(v, Tensor) else v for v in values]
    return torch.result_type(*like) if len(like) > 1 else like[0].dtype


def rounded(trace: Trace, numbers: Array, to: torch.dtype) -> Array:
    """What was computed in int64 or float64, as a narrower dtype holds it: a float32 is rounded, an int32 wraps, and
    True + True is True."""
    return numbers if to in (torch.float64, torch.int64) else cast(trace, numbers, to)


def arithmetic(name: str) -> Handler:
    """A handler of an operation on two values of one kind: "add" becomes "iadd" or "dadd"."""

    def handler(trace: Trace, out: Tensor, a: Any, b: Any, **options: Any) -> Symbol:
        scale = options.pop("alpha", 1)
        if scale != 1 or options.pop("rounding_mode", None) is not None or options:
            raise Untraceable(f"{name} with options {options}")
        kind = kind_of(out.dtype)
        op = {"i": "i", "d": "d"}[kind] + name
        found = each(lambda x, y: trace.add(op, x, y), operand(trace, a, out.dtype), operand(trace, b, out.dtype))
        return Symbol(trace, found if name in ("min", "max") else rounded(trace, found, out.dtype), out)

    return handler


HANDLERS.update(
    {
        **dict.fromkeys((aten.add.Tensor, aten.add.Scalar), arithmetic("add")),
        **dict.fromkeys((aten.sub.Tensor, aten.sub.Scalar), arithmetic("sub")),
        **dict.fromkeys((aten.mul.Tensor, aten.mul.Scalar), arithmetic("mul")),
        **dict.fromkeys((aten.div.Tensor, aten.div.Scalar), arithmetic("div")),
        **dict.fromkeys((aten.minimum.default,), arithmetic("min")),
        **dict.fromkeys((aten.maximum.default,), arithmetic("max")),
    }
)
_FLIPPED = arithmetic("sub")
handles(aten.rsub.Scalar, aten.rsub.Tensor)(lambda trace, out, a, b, **options: _FLIPPED(trace, out, b, a, **options))


def comparison(name: str, swap: bool = False, negate: bool = False) -> Handler:
    """A handler of a comparison: a > b is b < a, and a != b is not a == b."""

    def handler(trace: Trace, out: Tensor, a: Any, b: Any) -> Symbol:
        dtype = computed(a, b)
        x, y = (operand(trace, v, dtype) for v in ((b, a) if swap else (a, b)))
        found = each(lambda p, q: trace.add(kind_of(dtype) + name, p, q), x, y)
        if negate:
            found = each(lambda p: trace.add("ieq", p, trace.constant(0)), found)
        return Symbol(trace, found, out)

    return handler


for _ops, _handler in (
    ((aten.lt.Tensor, aten.lt.Scalar), comparison("lt")),
    ((aten.gt.Tensor, aten.gt.Scalar), comparison("lt", swap=True)),
    ((aten.le.Tensor, aten.le.Scalar), comparison("le")),
    ((aten.ge.Tensor, aten.ge.Scalar), comparison("le", swap=True)),
    ((aten.eq.Tensor, aten.eq.Scalar), comparison("eq")),
    ((aten.ne.Tensor, aten.ne.Scalar), comparison("eq", negate=True)),
):
    handles(*_ops)(_handler)


def on_integers(
    name: str, check: Callable[[Trace, int, torch.dtype], None] = lambda trace, number, dtype: None
) -> Handler:
    """A handler of an operation on integers or truth values alone.  check: of the right operand"""

    def handler(trace: Trace, out: Tensor, a: Any, b: Any, **options: Any) -> Symbol:
        if kind_of(out.dtype) != "i":
            raise Untraceable(f"{name} of {out.dtype}")
        x, y = numbers_of(trace, a), numbers_of(trace, b)
        for number in y.flatten():
            check(trace, number, out.dtype)
        found = each(lambda p, q: trace.add(name, p, q), x, y)
        return Symbol(trace, rounded(trace, found, out.dtype) if out.dtype == torch.int32 else found, out)

    return handler


def logical(name: str) -> Handler:
    """A handler of an operation that takes its operands as truth values."""

    def handler(trace: Trace, out: Tensor, a: Any, b: Any) -> Symbol:
        return Symbol(
            trace,
            each(lambda x, y: trace.add(name, x, y), operand(trace, a, torch.bool), operand(trace, b, torch.bool)),
            out,
        )

    return handler


HANDLERS |= {aten.logical_and.default: logical("iand"), aten.logical_or.default: logical("ior")}


def _shifts(trace: Trace, number: int, dtype: torch.dtype) -> None:
    """A shift by more bits than there are differs between processors, and from torch."""
    if not 0 <= trace.constants.get(number, -1) < torch.iinfo(dtype).bits:
        raise Untraceable("a shift by a tensor, or by more bits than there are; shift by a constant")


def _divides(trace: Trace, number: int, dtype: torch.dtype) -> None:
    """Require a divisor that is not 0: torch's error for it comes from drawing step by step."""
    if not trace.constants.get(number):
        trace.required.add(trace.add("ieq", trace.add("ieq", number, trace.constant(0)), trace.constant(0)))


for _names, _name, _check in (
    ("__and__ bitwise_and", "iand", None),
    ("__or__ bitwise_or", "ior", None),
    ("__lshift__ bitwise_left_shift", "ishl", _shifts),
    ("__rshift__ bitwise_right_shift", "ishr", _shifts),
    ("floor_divide", "idiv", _divides),
):
    for _packet in _names.split():
        for _overload in ("Tensor", "Scalar", "default", "Tensor_Scalar"):
            if hasattr(getattr(aten, _packet), _overload):
                HANDLERS[getattr(getattr(aten, _packet), _overload)] = on_integers(_name, *([_check] if _check else []))


@handles(aten.logical_not.default, aten.bitwise_not.default)
def _(trace: Trace, out: Tensor, a: Symbol) -> Symbol:
    if out.dtype != torch.bool or a.dtype != torch.bool:
        raise Untraceable("bitwise not of numbers; it is traced of bool")
    return Symbol(trace, each(lambda x: trace.add("ieq", x, trace.constant(0)), a.numbers), out)


@handles(aten.remainder.Scalar, aten.remainder.Tensor)
def _(trace: Trace, out: Tensor, a: Any, b: Any) -> Symbol:
    if kind_of(out.dtype) != "i":
        raise Untraceable("the remainder of floats; take integers")

    def one(x: int, y: int) -> int:
        _divides(trace, y, out.dtype)
        return trace.add("isub", x, trace.add("imul", trace.add("idiv", x, y), y))

    return Symbol(trace, each(one, numbers_of(trace, a), numbers_of(trace, b)), out)


def function(name: str, exact: bool = True) -> Handler:
    """A handler of a function of one float.  exact: whether it has one right result in any precision; otherwise it is
    traced in float64 alone, since libraries for float32 round differently."""

    def handler(trace: Trace, out: Tensor, a: Symbol) -> Symbol:
        if kind_of(a.dtype) == "i":
            if exact:
                return Symbol(trace, a.numbers.copy(), out)
            raise Untraceable(f"{name} of integers")
        if not exact and a.dtype != torch.float64:
            raise Untraceable(f"{name} of {a.dtype}; take float64")
        return Symbol(trace, each(lambda x: trace.add(name, x), a.numbers), out)

    return handler


for _name in ("floor", "trunc", "round"):
    HANDLERS[getattr(aten, _name).default] = function(f"d{_name}")
# the square root among them: torch's own is off by a last bit where it is vectorised
for _name in ("exp", "log", "sin", "cos", "sqrt"):
    HANDLERS[getattr(aten, _name).default] = function(f"d{_name}", exact=False)


@handles(aten.neg.default)
def _(trace: Trace, out: Tensor, a: Symbol) -> Symbol:
    if kind_of(a.dtype) == "d":
        return Symbol(trace, each(lambda x: trace.add("dneg", x), a.numbers), out)
    return Symbol(
        trace, rounded(trace, each(lambda x: trace.add("isub", trace.constant(0), x), a.numbers), out.dtype), out
    )


@handles(aten.abs.default)
def _(trace: Trace, out: Tensor, a: Symbol) -> Symbol:
    if kind_of(a.dtype) == "d":
        return Symbol(trace, each(lambda x: trace.add("dabs", x), a.numbers), out)
    return Symbol(
        trace,
        rounded(
            trace, each(lambda x: trace.add("imax", x, trace.add("isub", trace.constant(0), x)), a.numbers), out.dtype
        ),
        out,
    )


@handles(aten.reciprocal.default)
def _(trace: Trace, out: Tensor, a: Symbol) -> Symbol:
    return HANDLERS[aten.div.Tensor](trace, out, 1.0, a)  # type: ignore[no-any-return]


@handles(aten.pow.Tensor_Scalar)
def _(trace: Trace, out: Tensor, a: Symbol, power: float) -> Symbol:
    if power != 2:
        raise Untraceable(f"a power of {power}; multiply, or take exp and log of float64")
    return HANDLERS[aten.mul.Tensor](trace, out, a, a)  # type: ignore[no-any-return]


@handles(aten.deg2rad.default)
def _(trace: Trace, out: Tensor, a: Symbol) -> Symbol:
    return HANDLERS[aten.mul.Tensor](trace, out, a, 0.017453292519943295)  # type: ignore[no-any-return]


@handles(aten.clamp.default, aten.clamp_min.default, aten.clamp_max.default)
def _(trace: Trace, out: Tensor, a: Symbol, low: Any = None, high: Any = None, **named: Any) -> Symbol:
    low, high = named.get("min", low), named.get("max", high)
    found, kind = operand(trace, a, out.dtype), kind_of(out.dtype)
    for bound, op in ((low, "max"), (high, "min")):
        if bound is not None:
            found = each(lambda x, y, op=op: trace.add(kind + op, x, y), found, operand(trace, bound, out.dtype))  # type: ignore[misc]
    return Symbol(trace, found, out)


@handles(aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar)
def _(trace: Trace, out: Tensor, condition: Any, a: Any, b: Any) -> Symbol:
    op = f"{kind_of(out.dtype)}where"
    arrays = (numbers_of(trace, condition), operand(trace, a, out.dtype), operand(trace, b, out.dtype))
    return Symbol(trace, each(lambda c, x, y: trace.add(op, c, x, y), *arrays), out)


@handles(aten._to_copy.default)
def _(trace: Trace, out: Tensor, a: Symbol, **options: Any) -> Symbol:
    return Symbol(trace, cast(trace, a.numbers, out.dtype, a.dtype).copy(), out)


def _constant(value: float) -> Handler:
    def handler(trace: Trace, out: Tensor, a: Symbol, given: Any = None, **options: Any) -> Symbol:
        # new_zeros and new_ones are given a shape in this place
        number = value if given is None or isinstance(given, list) else given
        found = operand(trace, float(number) if kind_of(out.dtype) == "d" else number, out.dtype)
        return Symbol(trace, np.full(collapsed(out.shape), found.item(), dtype=object), out)

    return handler


HANDLERS |= {
    aten.zeros_like.default: _constant(0),
    aten.ones_like.default: _constant(1),
    aten.full_like.default: _constant(0),
}
# empty memory must be written before it is read; code that reads it is found out when the first batch is compared with
# what it draws step by step
HANDLERS |= {
    aten.empty_like.default: _constant(0),
    aten.new_zeros.default: _constant(0),
    aten.new_ones.default: _constant(1),
}


@handles(aten.fill_.Tensor, aten.fill_.Scalar, aten.copy_.default)
def _(trace: Trace, out: Tensor, a: Any, value: Any, **options: Any) -> Symbol:
    if not isinstance(a, Symbol):
        raise Untraceable(
            "symbols are written into a plain tensor; make it by torch.stack, or x.new_zeros of a drawn x"
        )
    a.numbers[...] = operand(trace, value, a.dtype)
    return a
