"""Traces on a host: assembled into bytecode for the interpreter, which fills the tables of a batch.

A trace gives every value a number of its own; the interpreter has registers, which are taken again once a value was
used for the last time, so that a program of a thousand values runs in some hundred registers, near the processor."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gpuaug_kernels import codes
from torch import Tensor

from gpuaug.rng import Keys
from gpuaug.trace import inputs
from gpuaug.trace.interpreter import interpret
from gpuaug.trace.record import KINDS, REFERS, Table, Trace, needed

Array = np.ndarray[Any, Any]

_ARRAYS = {name: np.dtype(name) for name in codes.DTYPES}
_NO_SIZES = np.empty((0, 2), np.int64)
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in codes.DTYPES}


@dataclass(frozen=True, eq=False)
class Bytecode:
    """A trace with its values in registers, for `interpret`.  There are integer and float registers; the first of each
    kind hold the constants."""

    code: Array  # [instructions, 5] int32: operation, destination, three operands; "word" takes two rows
    integers: Array  # [constants] int64
    floats: Array  # [constants] float64
    registers: tuple[int, int]  # how many of integers, and of floats
    before: Array  # [tables] int64: columns of the tables before each, in the buffer of its dtype
    widths: Array  # [tables] int64: columns of each
    columns: tuple[int, ...]  # of all tables of each dtype of DTYPES


def assemble(trace: Trace, tables: tuple[Table, ...], slots: tuple[int, ...]) -> Bytecode:
    """The bytecode that fills these tables.  slots: numbers of inputs, as `inputs` has them, in their order

    A register is taken when a value is made and given back after its last use.  It is never the destination of that
    last use, so that no instruction writes what it reads and LLVM may vectorise."""
    order = needed(trace, tables)
    stores: dict[int, list[tuple[int, int]]] = {}
    for t, table in enumerate(tables):
        for column, number in enumerate(table.numbers):
            stores.setdefault(number, []).append((t, column))
    last = {arguments[i]: n for n in order for op, arguments in [trace.code[n]] for i in REFERS[op]}
    place: dict[int, int] = {}
    constants: dict[str, list[Any]] = {"i": [], "d": []}
    for n in order:
        if n in trace.constants:
            kind = trace.kind(n)
            place[n] = len(constants[kind])
            constants[kind].append(trace.constants[n])
    files = {kind: _Registers(len(values)) for kind, values in constants.items()}
    words: dict[tuple[int, ...], dict[int, int]] = {}
    for n in order:
        op, arguments = trace.code[n]
        if op == "word":
            words.setdefault(arguments[:2], {})[arguments[2]] = n
    code: list[tuple[int, ...]] = []
    for n in order:
        op, arguments = trace.code[n]
        if n not in place:
            if op == "word":
                # the first word of a counter that is asked for makes all four; those that nobody reads go to registers
                # that are free again at once
                lanes = words[arguments[:2]]
                to = [files["i"].take() for _ in range(4)]
                for lane, register in enumerate(to):
                    if lane in lanes:
                        place[lanes[lane]] = register
                code += [(codes.WORD, to[0], to[1], to[2], to[3]), (*arguments[:2], 0, 0, 0)]
                files["i"].give(*(r for lane, r in enumerate(to) if lane not in lanes))
            else:
                place[n] = files[KINDS[op]].take()
                operands = [place[a] if i in REFERS[op] else slots.index(a) for i, a in enumerate(arguments)]
                code.append((codes.OPERATIONS[op], place[n], *operands, *(0,) * (3 - len(operands))))
        code += [(codes.DTYPES[tables[t].dtype], t, column, place[n], 0) for t, column in stores.get(n, ())]
        for a in {arguments[i] for i in REFERS[op]} | {n}:
            if last.get(a, a) == n and a not in trace.constants:
                files[trace.kind(a)].give(place[a])
    return Bytecode(
        np.array(code, np.int32).reshape(-1, 5),
        np.array(constants["i"], np.int64),
        np.array(constants["d"], np.float64),
        (max(files["i"].count, 1), max(files["d"].count, 1)),
        np.array(
            [sum(len(o.numbers) for o in tables[:k] if o.dtype == t.dtype) for k, t in enumerate(tables)], np.int64
        ),
        np.array([len(t.numbers) for t in tables], np.int64),
        tuple(sum(len(t.numbers) for t in tables if t.dtype == name) for name in DTYPES),
    )


class _Registers:
    """Registers of one kind: the one that was given back last is taken first, for it is still in the cache."""

    def __init__(self, count: int):
        self.count = count
        self._free: list[int] = []

    def take(self) -> int:
        if self._free:
            return self._free.pop()
        self.count += 1
        return self.count - 1

    def give(self, *registers: int) -> None:
        self._free += registers


def partners(keys: Keys, slots: tuple[int, ...]) -> Tensor:
    """The inputs of these numbers, such as rows of partners: [slots, N] int64."""
    if not slots:
        return torch.from_numpy(np.empty((0, len(keys)), np.int64))
    return torch.stack(inputs.find(keys, slots, keys.partners))


def fill_tables(
    program: Bytecode, tables: tuple[Table, ...], keys: Keys, size: Tensor | None, mates: Tensor
) -> list[Tensor]:
    """The tables of a batch: [N, *shape] each.

    size: [N, 2] int64, or None where all images share one, which the trace then holds.  mates: [slots, N] int64, the
    rows of partners"""
    return tables_in(program, tables, fill_memory(program, keys, size, mates), len(keys))


def fill_memory(program: Bytecode, keys: Keys, size: Tensor | None, mates: Tensor) -> Array:
    """The same in one piece of memory, [words] int64, in which every table begins at a multiple of 64 bytes."""
    n = len(keys)
    padded, parts = _buffers(program, n)
    # arrays of NumPy: every small operation of torch costs more than the draws of a few samples
    memory = np.empty(parts[-1][2], np.int64)
    if n:
        ids, occurrence = keys.ids.contiguous().numpy(), keys.occurrence.contiguous().numpy()
        interpret(
            program.code,
            program.integers,
            program.floats,
            program.registers,
            np.array([keys.seed & 0xFFFFFFFF, keys.seed >> 32], np.uint32),
            int(keys.epoch),
            (ids, occurrence, _NO_SIZES if size is None else size.contiguous().numpy(), mates.numpy()),
            program.before * padded,
            program.widths,
            tuple(memory[first:last].view(_ARRAYS[name]) for name, first, last in parts),
        )
    return memory


def tables_in(program: Bytecode, tables: tuple[Table, ...], memory: Array, n: int) -> list[Tensor]:
    """The tables of n samples in a piece of memory."""
    padded, parts = _buffers(program, n)
    buffers = {name: memory[first:last].view(_ARRAYS[name]) for name, first, last in parts}
    return [
        torch.from_numpy(buffers[t.dtype][s : s + n * w].reshape(n, *t.shape))
        for t, s, w in zip(tables, (program.before * padded).tolist(), program.widths.tolist(), strict=True)
    ]


def tables_on(program: Bytecode, tables: tuple[Table, ...], memory: Tensor, n: int) -> list[Tensor]:
    """The same of a copy of that memory on a device."""
    padded, parts = _buffers(program, n)
    buffers = {name: memory[first:last].view(DTYPES[name]) for name, first, last in parts}
    return [
        buffers[t.dtype][s : s + n * w].view(n, *t.shape)
        for t, s, w in zip(tables, (program.before * padded).tolist(), program.widths.tolist(), strict=True)
    ]


def _buffers(program: Bytecode, n: int) -> tuple[int, list[tuple[str, int, int]]]:
    """Samples as tables have room for; and of the buffer of every dtype where it begins and ends, in words of 64
    bits."""
    padded, parts, first = -(-n // 16) * 16, [], 0
    for name, columns in zip(DTYPES, program.columns, strict=True):
        last = first + padded * columns * _ARRAYS[name].itemsize // 8
        parts.append((name, first, last))
        first = last
    return padded, parts
