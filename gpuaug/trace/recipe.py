"""What a call of a policy prepares, found once on symbols: a fixed structure, and tables that a trace fills for every
batch."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from gpuaug import ir
from gpuaug.rng import Keys
from gpuaug.trace import axes
from gpuaug.trace.record import Table, Trace, needed
from gpuaug.trace.tensor import HANDLERS, SAMPLES, Symbol, SymbolicKeys, Untraceable, axis_of_samples, sizes, table

__all__ = ["Recipe", "Untraceable", "trace_build"]

assert HANDLERS and axes, "symbols know no operation"
# instructions of a kernel: it takes seconds to compile a thousand, and more than in proportion beyond
_LONGEST = 4096
# from the tables of a batch, its keys and its frame's sizes: the structure for that batch
Maker = Callable[[list[Tensor], Keys], Any]


@dataclass(frozen=True, eq=False)
class Recipe:
    """The structure that `build` makes of keys and a frame, for any batch of that kind of frame."""

    trace: Trace
    tables: tuple[Table, ...]
    program: Any  # for the machine of the device
    machine: ModuleType  # host or device
    slots: tuple[int, ...]  # of the mixes, whose partners are found beforehand
    make: Maker
    required: bool  # whether the last table is of what must hold

    @property
    def instructions(self) -> int:
        """How many a sample takes."""
        return len(needed(self.trace, self.tables))

    @property
    def kernels(self) -> int:
        """How many a GPU launches: one for all tables, and one for the partners of each mix."""
        return 1 + len(self.slots)

    @property
    def obstacle(self) -> str:
        """Why a GPU draws step by step instead; empty where it does not."""
        return _too_long(self.trace, self.tables)

    def fill(self, keys: Keys, size: Tensor | None) -> Any:
        """The structure for a batch; None where something that is required of the batch does not hold.

        On a GPU that is not looked at, for that would wait for the device.  size: [N, 2] int64, for images that differ
        in it"""
        values = self.machine.run(self.program, self.tables, keys, size, self.machine.partners(keys, self.slots))
        if self.required and keys.ids.device.type == "cpu" and not values[-1].all():
            return None
        return self.make(values, keys)


def trace_build(frame: ir.Frame, build: Callable[[Keys, ir.Frame], Any]) -> Recipe:
    """The recipe of what `build` makes, for the device of a frame of the kind.

    Raises Untraceable where `build` looks at numbers, or goes from sample to sample.
    """
    trace = Trace()
    keys = SymbolicKeys(trace)
    size = sizes(trace) if frame.fixed is None else torch.tensor([frame.fixed], device="cpu").expand(SAMPLES, 2)
    made = build(keys, replace(frame, size=size))
    tables: list[Table] = []
    known: dict[int, int] = {}
    make = _maker(made, trace, tables, known) or (lambda values, keys: made)
    required = sorted(trace.required - {trace.constant(1)})
    if required:
        tables.append(Table("int64", (len(required),), tuple(required)))
    slots = tuple(sorted({arguments[0] for op, arguments in trace.code if op == "partner"}))
    every = tuple(tables)
    host = frame.size.device.type == "cpu"
    if not host and _too_long(trace, every):
        raise Untraceable(_too_long(trace, every))
    machine = import_module(f"gpuaug.trace.{'host' if host else 'device'}")
    return Recipe(trace, every, machine.assemble(trace, every, slots), machine, slots, make, bool(required))


def _too_long(trace: Trace, tables: tuple[Table, ...]) -> str:
    return (
        f"more than {_LONGEST} numbers a sample would take minutes to compile"
        if len(needed(trace, tables)) > _LONGEST
        else ""
    )


def _maker(value: Any, trace: Trace, tables: list[Table], known: dict[int, int]) -> Maker | None:
    """How to make a value again from tables; None where it is the same for every batch."""
    if isinstance(value, Tensor):
        if axis_of_samples(value.shape) is None:
            return None
        # by identity: a tensor that is used twice is made once
        if id(value) not in known:
            known[id(value)] = len(tables)
            tables.append(table(trace, value))
        place = known[id(value)]
        return lambda values, keys: values[place]
    if isinstance(value, Keys):
        return lambda values, keys: keys
    if isinstance(value, tuple | list):
        parts = [_maker(v, trace, tables, known) for v in value]
        if not any(parts):
            return None
        kind, pairs = type(value), list(zip(parts, value, strict=True))
        return lambda values, keys: kind([p(values, keys) if p else v for p, v in pairs])
    if isinstance(value, dict):
        made = {k: m for k, v in value.items() if (m := _maker(v, trace, tables, known))}
        return (lambda values, keys: {**value, **{k: m(values, keys) for k, m in made.items()}}) if made else None
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: m for f in fields(value) if (m := _maker(getattr(value, f.name), trace, tables, known))}
        return (
            (lambda values, keys: replace(value, **{k: m(values, keys) for k, m in changed.items()}))
            if changed
            else None
        )
    if any(isinstance(v, Symbol) for v in getattr(value, "__dict__", {}).values()):
        raise Untraceable(f"{type(value).__name__} holds tensors, and is no dataclass")
    return None
