"""Recipes: what a call of a policy prepares, found once on symbols as a fixed structure with tables in it.

For example, a policy of RandomInvert prepares (Choice(index, ...), Finish(...)).  Its recipe keeps that structure, with
"table 0" in place of the tensor `index`, and the program that fills table 0 from the ids of a batch."""

import linecache
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from importlib import import_module
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpuaug import ir
from gpuaug.rng import Keys
from gpuaug.symbolic import is_symbolic
from gpuaug.trace import axes, inputs
from gpuaug.trace.record import Table, Trace, needed
from gpuaug.trace.tensor import (
    HANDLERS,
    SYMBOLIC_BATCH,
    SymbolicKeys,
    Untraceable,
    axis_of_samples,
    register_rules,
    sizes,
    table,
)

__all__ = ["Recipe", "Untraceable", "trace_build"]

# axes is imported for the handlers that it registers
assert HANDLERS and axes, "no operation can be traced"
register_rules()
# values that a program for a GPU may have: a thousand take seconds to compile, and twice as many more than twice that
_LONGEST = 4096
# from the tables of a batch and its keys: the structure for that batch
Maker = Callable[[list[Tensor], Keys], Any]
# folders of code that is no user's
_GPUAUG, _TORCH, _PYTHON = (os.path.dirname(os.path.abspath(str(m.__file__))) + os.sep for m in (ir, torch, os))


@dataclass(frozen=True, eq=False)
class Recipe:
    """The structure that `build` makes of keys and a frame, for any batch of that kind of frame."""

    trace: Trace = field(repr=False)
    tables: tuple[Table, ...] = field(repr=False)
    program: Any = field(repr=False)  # the trace as `runtime` runs it: host.Bytecode, or the constants of a kernel
    runtime: ModuleType  # `trace.host` (the interpreter) or `trace.device` (a compiled kernel)
    slots: tuple[int, ...]  # inputs that are found before the program runs, as `inputs` numbers them
    make: Maker = field(repr=False)
    required: bool  # whether the last table holds what `symbolic.require` asked for

    @property
    def instructions(self) -> int:
        """How many run for each sample."""
        return len(needed(self.trace, self.tables))

    @property
    def kernels(self) -> int:
        """How many a GPU launches to draw: one for all tables, and one for the partners of each mix."""
        return 1 + inputs.of_partners(self.slots)

    @property
    def obstacle(self) -> str:
        """Why a GPU draws step by step instead; empty where it does not."""
        return _too_long(self.trace, self.tables)

    def fill(self, keys: Keys, size: Tensor | None) -> Any:
        """The structure for a batch; None where something that was required does not hold for one of its samples.

        On a GPU this is not checked: that would make the host wait for the device.  size: [N, 2] int64, where
        images differ in it"""
        partners = self.runtime.partners(keys, self.slots)
        values = self.runtime.fill_tables(self.program, self.tables, keys, size, partners)
        if self.required and keys.ids.device.type == "cpu" and not values[-1].numpy().all():
            return None
        return self.make(values, keys)

    def filled(self, keys: Keys, size: Tensor | None) -> "Filled | None":
        """As `fill` on a host, with the memory that the tables lie in."""
        memory = self.runtime.fill_memory(self.program, keys, size, self.runtime.partners(keys, self.slots))
        values = self.runtime.tables_in(self.program, self.tables, memory, len(keys))
        if self.required and not values[-1].numpy().all():
            return None
        return Filled(self, keys, memory, self.make(values, keys))


class Filled(NamedTuple):
    """What a recipe has made on a host for a batch."""

    recipe: Recipe
    keys: Keys
    memory: np.ndarray[Any, Any]  # [words] int64, with all tables: where, the recipe and the number of samples say
    made: Any  # the structure, whose tables are in that memory

    def on(self, memory: Tensor) -> Any:
        """The structure with its tables in a copy of the memory on a device."""
        own = self.recipe
        return own.make(own.runtime.tables_on(own.program, own.tables, memory, len(self.keys)), self.keys)


# in inference mode and in a custom operator, torch leaves operations that are made of others in one piece
@torch.inference_mode(False)
@torch.no_grad()
def trace_build(frame: ir.Frame, build: Callable[[Keys, ir.Frame], Any]) -> Recipe:
    """The recipe of what `build` makes, for the device of a frame of the kind.

    Raises Untraceable where `build` looks at values or goes from sample to sample, with the line that does; and
    whatever `build` raises."""
    trace = Trace()
    keys = SymbolicKeys(trace)
    size = sizes(trace) if frame.fixed is None else torch.tensor([frame.fixed], device="cpu").expand(SYMBOLIC_BATCH, 2)
    try:
        made = build(keys, replace(frame, size=size))
    except Untraceable as error:
        raise Untraceable(f"{error}{line_of(error)}") from error
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
    # by name: a host without Triton cannot import the other
    runtime = import_module(f"gpuaug.trace.{'host' if host else 'device'}")
    return Recipe(trace, every, runtime.assemble(trace, every, slots), runtime, slots, make, bool(required))


def line_of(error: BaseException) -> str:
    """The line of a transform that an error comes from, in words; empty where it comes from none.

    A user's own code is named rather than the line of gpuaug that it called; if there is none, a transform of ours."""
    ours = ""
    for frame, number in reversed(list(traceback.walk_tb(error.__traceback__))):
        name = frame.f_code.co_filename
        # packages of others may be installed in a folder of the standard library
        if name.startswith(_TORCH) or (name.startswith(_PYTHON) and "-packages" not in name):
            continue
        said = f", in {frame.f_code.co_name} at {name}:{number}"
        text = linecache.getline(name, number).strip()
        said += f": {text}" if text else ""
        if not name.startswith(_GPUAUG):
            return said
        if not ours and name.startswith(f"{_GPUAUG}transforms{os.sep}") and os.path.basename(name) != "base.py":
            ours = said
    return ours


def _too_long(trace: Trace, tables: tuple[Table, ...]) -> str:
    return (
        f"more than {_LONGEST} values a sample would take minutes to compile"
        if len(needed(trace, tables)) > _LONGEST
        else ""
    )


def _maker(value: Any, trace: Trace, tables: list[Table], known: dict[int, int]) -> Maker | None:
    """How to make a part of the structure again from tables; None where it is the same for every batch.

    Adds to `tables` those that it needs.  known: symbol, by its identity -> its table"""
    if isinstance(value, Tensor):
        if axis_of_samples(value.shape) is None:
            return None
        # a tensor that is used twice is one table
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
        return _remade(value, changed) if changed else None
    if _holds_symbols(value, set()):
        raise Untraceable(
            f"{getattr(value, '__name__', type(value).__name__)} holds tensors that were drawn; "
            "keep them in fields of a pass or of another dataclass, where a recipe can put those of each batch"
        )
    return None


def _remade(value: Any, changed: dict[str, Maker]) -> Maker:
    """How to make a dataclass again with other values in some fields."""
    kind, kept = type(value), {f.name: getattr(value, f.name) for f in fields(value) if f.name not in changed}
    if hasattr(kind, "__post_init__") or "__dict__" not in dir(value) or not all(f.init for f in fields(value)):
        return lambda values, keys: replace(value, **{k: m(values, keys) for k, m in changed.items()})
    new, pairs = object.__new__, tuple(changed.items())

    def make(values: list[Tensor], keys: Keys) -> Any:
        # what its __init__ would do: a frozen dataclass sets every field by a call of its own
        made = new(kind)
        filled = made.__dict__
        filled.update(kept)
        for name, maker in pairs:
            filled[name] = maker(values, keys)
        return made

    return make


def _holds_symbols(value: Any, seen: set[int]) -> bool:
    """Whether a symbol can be reached from a value: in a container, an attribute, a function's closure or defaults."""
    if is_symbolic(value):
        return True
    if id(value) in seen or isinstance(value, Tensor | ModuleType | type):
        return False
    seen.add(id(value))
    parts: list[Any] = list(vars(value).values()) if hasattr(value, "__dict__") else []
    if isinstance(value, FunctionType):
        parts += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values(), *(value.__closure__ or ())]
    elif isinstance(value, CellType):
        parts += _contents(value)
    elif isinstance(value, MethodType):
        parts += [value.__self__, value.__func__]
    elif isinstance(value, partial):
        parts += [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, dict):
        parts += value.values()
    elif isinstance(value, tuple | list | set | frozenset):
        parts += value
    return any(_holds_symbols(p, seen) for p in parts)


def _contents(cell: CellType) -> list[Any]:
    """What a variable of a closure holds, if it was set at all."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []
