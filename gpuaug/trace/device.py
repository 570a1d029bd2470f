"""Runs traces on a GPU, by the one kernel of gpuaug_kernels that is compiled for each."""

from typing import Any

import torch
from gpuaug_kernels import codes
from gpuaug_kernels import draws as machine
from torch import Tensor

from gpuaug.rng import MIX, Keys, counter_1
from gpuaug.trace.record import REFERS, Table, Trace, needed

_ITEMS = tuple(machine.BUFFERS)


def assemble(trace: Trace, tables: tuple[Table, ...], slots: tuple[int, ...]) -> machine.DrawProgram:
    """A trace as the kernel reads it.  slots: of the rows of partners"""
    place: dict[int, int] = {}
    known: dict[tuple[int, ...], int] = {}
    stores, columns = _stores(tables)
    out: list[float] = []
    count = 0

    def put(*record: float) -> None:
        out.extend((*record, *(0,) * (codes.FIELDS - len(record))))

    for n in needed(trace, tables):
        op, arguments = trace.code[n]
        if op == "word":
            if arguments[:2] not in known:
                known[arguments[:2]] = count
                put(codes.WORD, *arguments[:2])
                count += 4
            place[n] = known[arguments[:2]] + arguments[2]
        else:
            place[n] = count
            count += 1
            if n in trace.constants:
                put(codes.OPERATIONS[op], trace.constants[n])
            else:
                put(
                    codes.OPERATIONS[op],
                    *(place[a] if i in REFERS[op] else slots.index(a) for i, a in enumerate(arguments)),
                )
        # at once, so that a number need not be kept for it
        for store in stores.get(n, ()):
            put(codes.DTYPES[store[0]], place[n], *store[1:])
    return machine.DrawProgram(machine.Code(out), columns)


def _stores(tables: tuple[Table, ...]) -> tuple[dict[int, list[tuple[Any, ...]]], tuple[int, int, int, int]]:
    """Where each number goes: dtype, columns before the table, of it, before this one; and the columns of all tables of
    each dtype."""
    columns = dict.fromkeys(_ITEMS, 0)
    stores: dict[int, list[tuple[Any, ...]]] = {}
    for t in tables:
        for column, number in enumerate(t.numbers):
            stores.setdefault(number, []).append((t.dtype, columns[t.dtype], len(t.numbers), column))
        columns[t.dtype] += len(t.numbers)
    floats, ints, doubles, longs = columns.values()
    return stores, (floats, ints, doubles, longs)


def partners(keys: Keys, slots: tuple[int, ...]) -> Tensor:
    """[slots, N] int64, as `Keys.partners` has them."""
    rows = [machine.partners(keys.ids, keys.occurrence, keys.epoch, keys.seed, counter_1(MIX, s)) for s in slots]
    return torch.stack(rows) if len(rows) > 1 else rows[0][None] if rows else keys.ids[None]


def run(
    program: machine.DrawProgram, tables: tuple[Table, ...], keys: Keys, size: Tensor | None, mates: Tensor
) -> list[Tensor]:
    """The tables of a batch.  size: [N, 2] int64, or None where the trace holds it; mates: [slots, N] int64"""
    n = len(keys)
    known = (keys.ids.contiguous(), keys.occurrence.contiguous(), keys.epoch, keys.seed)
    buffers = dict(
        zip(
            _ITEMS,
            machine.draw_tables(program, known, known[0] if size is None else size.contiguous(), mates),
            strict=True,
        )
    )
    columns, made = dict.fromkeys(_ITEMS, 0), []
    for t in tables:
        width, first = len(t.numbers), columns[t.dtype] * (-(-n // 16) * 16)
        made.append(buffers[t.dtype][first : first + n * width].view(n, *t.shape))
        columns[t.dtype] += width
    return made
