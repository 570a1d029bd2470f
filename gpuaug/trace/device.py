"""Traces on a GPU: assembled into the constants of a kernel, which fills the tables of a batch.

`gpuaug_kernels.draws` holds one kernel whose program is compile-time data: Triton compiles it once for each trace, and
every value is then a hardware register.  A batch takes one launch, and one more for the partners of each mix."""

from dataclasses import dataclass
from math import frexp, isfinite, prod
from typing import Any

import torch
from gpuaug_kernels import codes, draws
from torch import Tensor

from gpuaug.rng import MIX, Keys, counter_1
from gpuaug.trace import inputs
from gpuaug.trace.record import REFERS, Table, Trace, needed

_DTYPES = tuple(draws.BUFFERS)
# integers from here up to there may be a side of an image, or an area
_LEAST, _MOST = 16, 2**31


@dataclass(frozen=True, eq=False)
class Program(draws.DrawProgram):  # type: ignore[misc]
    """The program of a kernel, and where it leaves each table."""

    # the buffer, shape and strides of a sample's part, and the columns before it
    places: tuple[tuple[int, tuple[int, ...], tuple[int, ...], int], ...] = ()


def assemble(trace: Trace, tables: tuple[Table, ...], slots: tuple[int, ...]) -> Program:
    """The program of the kernel that fills these tables.  slots: numbers of inputs, as `inputs` has them"""
    place: dict[int, int] = {}
    known: dict[tuple[int, ...], int] = {}
    stores, columns = _stores(tables)
    out: list[float] = []
    count = 0

    def put(*record: float) -> None:
        out.extend((*record, *(0,) * (codes.FIELDS - len(record))))

    fixed = _in_code(trace)
    numbers: list[int | float] = []
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
            if n in fixed:
                put(codes.OPERATIONS[op], trace.constants[n])
            elif n in trace.constants:
                # not in the code: images of another size have other numbers here, and the same kernel
                put(codes.OPERATIONS[op], len(numbers), 1)
                numbers.append(trace.constants[n])
            else:
                put(
                    codes.OPERATIONS[op],
                    *(place[a] if i in REFERS[op] else slots.index(a) for i, a in enumerate(arguments)),
                )
        # a value is stored as soon as it is made, so that it need not stay in a register until the end
        for store in stores.get(n, ()):
            put(codes.DTYPES[store[0]], place[n], *store[1:])
    return Program(draws.Code(out), columns, tuple(numbers), _places(tables))


def _in_code(trace: Trace) -> set[int]:
    """The constants that stay in the code: all where sizes are given for each sample; else what something is shifted
    by, and numbers that hardly any size of an image leads to.  Read from memory they take registers."""
    if any(op in ("height", "width") for op, _ in trace.code):
        return set(trace.constants)
    shifts = {arguments[1] for op, arguments in trace.code if op in ("ishl", "ishr")}
    return {n for n, value in trace.constants.items() if n in shifts or _unlike_a_size(value)}


def _unlike_a_size(value: int | float) -> bool:
    """Small integers and masks; powers of two up to 2, as scale words to [0, 1), and infinity and NaN."""
    if isinstance(value, int):
        return not _LEAST <= abs(value) < _MOST
    return not isfinite(value) or (abs(value) <= 2.0 and abs(frexp(value)[0]) in (0.0, 0.5))


def _stores(tables: tuple[Table, ...]) -> tuple[dict[int, list[tuple[Any, ...]]], tuple[int, int, int, int]]:
    """Where each value is stored, as (dtype, columns before the table, columns of the table, column in it); and the
    columns of all tables of each dtype."""
    columns = dict.fromkeys(_DTYPES, 0)
    stores: dict[int, list[tuple[Any, ...]]] = {}
    for t in tables:
        for column, number in enumerate(t.numbers):
            stores.setdefault(number, []).append((t.dtype, columns[t.dtype], len(t.numbers), column))
        columns[t.dtype] += len(t.numbers)
    floats, ints, doubles, longs = columns.values()
    return stores, (floats, ints, doubles, longs)


def _places(tables: tuple[Table, ...]) -> tuple[tuple[int, tuple[int, ...], tuple[int, ...], int], ...]:
    columns, found = dict.fromkeys(_DTYPES, 0), []
    for t in tables:
        strides = tuple(prod(t.shape[k:]) for k in range(len(t.shape) + 1))
        found.append((_DTYPES.index(t.dtype), tuple(t.shape), strides, columns[t.dtype]))
        columns[t.dtype] += len(t.numbers)
    return tuple(found)


def partners(keys: Keys, slots: tuple[int, ...]) -> Tensor:
    """The inputs of these numbers, such as rows of partners: [slots, N] int64, the same as on a host."""
    ids, valid = keys.ids.contiguous(), keys.valid
    if not slots:
        return ids[None]
    if slots == (inputs.CLASSES,):
        return keys.classes().contiguous()[None]
    known = (ids, keys.occurrence.contiguous(), keys.epoch, keys.seed)
    valid = None if valid is None else valid.contiguous()
    every = torch.empty((len(slots), len(ids)), dtype=torch.int64, device=ids.device)
    for leader, words in inputs.shared(slots).items():
        draws.share(known, counter_1(MIX, leader), words, every, valid)
    for place, number in zip(every.unbind(0), slots, strict=True):
        slot = inputs.slot_of(number)
        if slot is not None:
            draws.partners(known, counter_1(MIX, slot), place, valid)
        elif not inputs.is_word(number):
            # classes, and which part of the batch a sample is in
            place.copy_(inputs.find(keys, (number,), keys.partners)[0])
    return every


def fill_tables(
    program: Program, tables: tuple[Table, ...], keys: Keys, size: Tensor | None, mates: Tensor
) -> list[Tensor]:
    """The tables of a batch: [N, *shape] each.

    size: [N, 2] int64, or None where all images share one, which the trace then holds.  mates: [slots, N] int64, the
    rows of partners"""
    n = keys.ids.shape[0]
    ids = keys.ids.contiguous()
    known = (ids, keys.occurrence.contiguous(), keys.epoch, keys.seed)
    buffers = draws.draw_tables(program, known, ids if size is None else size.contiguous(), mates)
    # one operation of torch a table: a view of its part of the buffer of its dtype
    return [
        buffers[place].as_strided((n, *shape), strides, first * (-(-n // 16) * 16))
        for place, shape, strides, first in program.places
    ]
