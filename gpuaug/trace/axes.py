"""What torch's operations along an axis, and those that change axes, do to symbols: reductions, orders, shapes, joins.

The axis of the samples is never gone along: a program makes one sample and sees no other.  Reductions unroll, and an
order of k values becomes about k^2 comparisons, which suits the few values that a transform draws."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug.trace.aten import cast, each, handles, operand
from gpuaug.trace.record import Trace
from gpuaug.trace.tensor import (
    HANDLERS,
    SYMBOLIC_BATCH,
    Array,
    Handler,
    Symbol,
    Untraceable,
    axis_of_samples,
    collapsed,
    kind_of,
    numbers_of,
)

aten = torch.ops.aten


def _axis(a: Tensor, dim: int) -> int:
    """An axis counted from the front, refused where it is that of the samples."""
    dim %= max(a.ndim, 1)
    if dim == axis_of_samples(a.shape):
        raise Untraceable("an operation goes from sample to sample")
    return dim


def _ordered(a: Tensor, dim: int) -> int:
    """An axis to put in order, of integers alone: among floats torch sorts NaN last, which comparisons do not give."""
    if kind_of(a.dtype) == "d":
        raise Untraceable("an order of floats; take integers, such as draw.words")
    return _axis(a, dim)


def _reduced(trace: Trace, a: Symbol, dims: Any, keep: bool, step: Callable[[int, int], int]) -> Array:
    found = a.numbers
    for dim in sorted((_axis(a, d) for d in ([dims] if isinstance(dims, int) else dims)), reverse=True):
        rows = [found.take(k, dim) for k in range(found.shape[dim])]
        total = rows[0]
        for row in rows[1:]:
            total = each(step, total, row)
        found = np.expand_dims(total, dim) if keep else total
    return found


@handles(aten.sum.dim_IntList)
def _(trace: Trace, out: Tensor, a: Symbol, dims: Any, keep: bool = False, **options: Any) -> Symbol:
    if out.dtype not in (torch.float64, torch.int64):
        raise Untraceable(f"a sum in {out.dtype}")
    numbers = a.numbers if kind_of(a.dtype) == kind_of(out.dtype) else cast(trace, a.numbers, out.dtype)
    if out.dtype == torch.float64 and np.prod([a.shape[d] for d in dims]) > 2:
        # torch does not say in which order it adds, and float addition is not associative
        raise Untraceable("a sum of more than two floats; add them one by one")
    return Symbol(
        trace,
        _reduced(
            trace, Symbol(trace, numbers, a), dims, keep, lambda x, y: trace.add(kind_of(out.dtype) + "add", x, y)
        ),
        out,
    )


def _extreme(name: str) -> Handler:
    def handler(trace: Trace, out: Tensor, a: Symbol, dims: Any = (), keep: bool = False) -> Symbol:
        op = kind_of(a.dtype) + name
        return Symbol(trace, _reduced(trace, a, dims or range(a.ndim), keep, lambda x, y: trace.add(op, x, y)), out)

    return handler


HANDLERS |= {aten.amin.default: _extreme("min"), aten.amax.default: _extreme("max")}


def _truth(op: str) -> Handler:
    def handler(trace: Trace, out: Tensor, a: Symbol, dim: int, keep: bool = False) -> Symbol:
        truths = Symbol(trace, cast(trace, a.numbers, torch.bool, a.dtype), a)
        return Symbol(trace, _reduced(trace, truths, dim, keep, lambda x, y: trace.add(op, x, y)), out)

    return handler


HANDLERS |= {aten.any.dim: _truth("ior"), aten.all.dim: _truth("iand")}


@handles(aten.argmax.default)
def _(trace: Trace, out: Tensor, a: Symbol, dim: int | None = None, keep: bool = False) -> Symbol:
    """The place of the first of the largest."""
    if dim is None:
        raise Untraceable("argmax over samples; pass dim")
    dim, kind = _ordered(a, dim), kind_of(a.dtype)
    rows = [a.numbers.take(k, dim) for k in range(a.numbers.shape[dim])]
    best, place = rows[0], each(lambda x: trace.constant(0), rows[0])
    for k, row in enumerate(rows[1:], 1):
        more = each(lambda x, y: trace.add(f"{kind}lt", x, y), best, row)
        place = each(lambda c, y, k=k: trace.add("iwhere", c, trace.constant(k), y), more, place)  # type: ignore[misc]
        best = each(lambda c, x, y: trace.add(f"{kind}where", c, y, x), more, best, row)
    return Symbol(trace, np.expand_dims(place, dim) if keep else place, out)


def _require_inside(trace: Trace, number: int, count: int) -> None:
    """Require a place to lie in an axis of `count`: an index that torch refuses is left to torch, step by step."""
    left, seen = [number], set[int]()
    while left:
        place = left.pop()
        op, arguments = trace.code[place]
        if op == "iwhere":
            # what argmax and sort give is one of some constants: each alternative is looked at by itself
            left += [a for a in arguments[1:] if a not in seen]
            seen.update(arguments[1:])
        elif not 0 <= trace.constants.get(place, -1) < count:
            trace.required |= {
                trace.add("ile", trace.constant(0), place),
                trace.add("ilt", place, trace.constant(count)),
            }


@handles(aten.gather.default)
def _(trace: Trace, out: Tensor, a: Any, dim: int, index: Any, **options: Any) -> Symbol:
    dim, op, table = _axis(a, dim), f"{kind_of(a.dtype)}where", numbers_of(trace, a)
    for number in np.unique(numbers_of(trace, index)):
        _require_inside(trace, number, a.shape[dim])
    rows, where = [table.take([k], dim) for k in range(table.shape[dim])], numbers_of(trace, index)
    found = np.broadcast_to(rows[0], np.broadcast_shapes(rows[0].shape, where.shape))
    for k, row in enumerate(rows[1:], 1):
        found = each(
            lambda i, x, y, k=k: trace.add(op, trace.add("ieq", i, trace.constant(k)), y, x), where, found, row
        )  # type: ignore[misc]
    return Symbol(trace, found.copy(), out)


@handles(aten.sort.default, aten.sort.stable)
def _(
    trace: Trace, out: Any, a: Symbol, dim: int = -1, descending: bool = False, **options: Any
) -> tuple[Symbol, Symbol]:
    """The rank of each value is the count of those that stand before it."""
    dim, kind = _ordered(a, options.get("dim", dim)), kind_of(a.dtype)
    if descending:
        raise Untraceable("a descending order; sort the negated values")
    rows = [a.numbers.take(k, dim) for k in range(a.numbers.shape[dim])]
    ranks = []
    for i, row in enumerate(rows):
        rank = each(lambda x: trace.constant(0), row)
        for j, other in enumerate(rows):
            if j != i:
                # stable: of equal values the first stays first
                op, pair = ("le", (other, row)) if j < i else ("lt", (other, row))
                rank = each(lambda t, x, y, op=op: trace.add("iadd", t, trace.add(kind + op, x, y)), rank, *pair)  # type: ignore[misc]
        ranks.append(rank)
    order, values = [], []
    for k in range(len(rows)):
        place, value = each(lambda x: trace.constant(0), rows[0]), rows[0]
        for i in range(1, len(rows)):
            here = each(lambda r, k=k: trace.add("ieq", r, trace.constant(k)), ranks[i])  # type: ignore[misc]
            place = each(lambda c, x, i=i: trace.add("iwhere", c, trace.constant(i), x), here, place)  # type: ignore[misc]
            value = each(lambda c, x, y: trace.add(f"{kind}where", c, y, x), here, value, rows[i])
        order.append(place)
        values.append(value)
    return Symbol(trace, np.stack(values, dim), out[0]), Symbol(trace, np.stack(order, dim), out[1])


# ---- shapes


def _reshaped(trace: Trace, out: Tensor, a: Symbol, *given: Any, **options: Any) -> Symbol:
    before, after = (math.prod(t.shape[: axis_of_samples(t.shape)]) for t in (a, out))
    if before != after:
        raise Untraceable("a reshape spreads samples over other axes; keep them the first axis")
    found = a.numbers.reshape(collapsed(out.shape))
    if not np.shares_memory(found, a.numbers):
        raise Untraceable("torch would refuse or copy this view, by the strides of the batch; take reshape on [N, ...]")
    return Symbol(trace, found, out)


def _expanded(trace: Trace, out: Tensor, a: Symbol, *given: Any, **options: Any) -> Symbol:
    return Symbol(trace, np.broadcast_to(a.numbers, collapsed(out.shape)), out)


def _same(trace: Trace, out: Tensor, a: Symbol, *given: Any, **options: Any) -> Symbol:
    return Symbol(trace, a.numbers, out)


HANDLERS |= dict.fromkeys((aten.view.default, aten._unsafe_view.default), _reshaped)
HANDLERS |= dict.fromkeys((aten.unsqueeze.default, aten.squeeze.dim), _reshaped)
HANDLERS |= dict.fromkeys((aten.detach.default, aten.alias.default, aten.lift_fresh.default), _same)
HANDLERS[aten.expand.default] = _expanded
HANDLERS[aten.clone.default] = lambda trace, out, a, **options: Symbol(trace, a.numbers.copy(), out)


@handles(aten.permute.default, aten.transpose.int, aten.t.default)
def _(trace: Trace, out: Tensor, a: Symbol, *given: Any) -> Symbol:
    if len(given) == 1:
        return Symbol(trace, a.numbers.transpose([d % a.ndim for d in given[0]]), out)
    return Symbol(trace, a.numbers.swapaxes(*(given or (0, 1))), out)


@handles(aten.select.int)
def _(trace: Trace, out: Tensor, a: Symbol, dim: int, index: int) -> Symbol:
    dim = _axis(a, dim)
    return Symbol(trace, a.numbers[(slice(None),) * dim + (index, ...)], out)


@handles(aten.slice.Tensor)
def _(trace: Trace, out: Tensor, a: Symbol, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Symbol:
    dim %= a.ndim
    if dim == axis_of_samples(a.shape):
        # [:] of the samples is all of them, whatever their count
        if start not in (None, 0) or end not in (None, SYMBOLIC_BATCH, 2**63 - 1) or step != 1:
            raise Untraceable("a slice of samples")
        return Symbol(trace, a.numbers, out)
    return Symbol(trace, a.numbers[(slice(None),) * dim + (slice(start, end, step),)], out)


@handles(aten.unbind.int)
def _(trace: Trace, out: Any, a: Symbol, dim: int = 0) -> list[Symbol]:
    dim = _axis(a, dim)
    return [Symbol(trace, a.numbers[(slice(None),) * dim + (k, ...)], o) for k, o in enumerate(out)]


@handles(aten.flip.default)
def _(trace: Trace, out: Tensor, a: Symbol, dims: list[int]) -> Symbol:
    return Symbol(trace, np.flip(a.numbers, tuple(_axis(a, d) for d in dims)).copy(), out)


def _joined(join: Callable[..., Array]) -> Handler:
    def handler(trace: Trace, out: Tensor, parts: list[Any], dim: int = 0) -> Symbol:
        dim %= out.ndim
        # a stack puts its new axis before the one that had this number
        if any(dim == axis_of_samples(p.shape) for p in parts) and join is np.concatenate:
            raise Untraceable("samples are put side by side")
        arrays = [operand(trace, p, out.dtype) for p in parts if p.numel()]
        return Symbol(trace, join(arrays, dim), out)

    return handler


HANDLERS |= {aten.cat.default: _joined(np.concatenate), aten.stack.default: _joined(np.stack)}
