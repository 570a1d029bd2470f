"""Shared memory as TTGIR has it: buffers that a kernel allocates and parts of them, in which element k lies at byte k
times its size, and the wavefronts that threads need to write and to gather there.  Another order is refused rather than
guessed at.

What the rules are handed: the run of a program (dry_run.py), and one operation."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import ttgir
from lanes import access_width, elements, shared_passes

PLAIN = r"#ttg\.swizzled_shared<\{vec = 1, perPhase = 1, maxPhase = 1, order = \[(?:0|1, 0)\]\}>"
DTYPES = {"f32": np.float32, "i16": np.int16, "i32": np.int32, "i64": np.int64}
BYTES = {"f64": 8, "i64": 8, "f32": 4, "i32": 4, "f16": 2, "bf16": 2, "i16": 2, "i8": 1}


@dataclass(frozen=True)
class Buffer:
    """A stretch of what a program allocated."""

    values: np.ndarray  # flat
    shape: ttgir.Vector
    begin: int  # bytes, of the first value


def descriptor(text: str, encodings: dict[str, str]) -> tuple[ttgir.Vector, str]:
    """Shape and element of a memory descriptor's type.  Raises ValueError for an order that is not that of memory."""
    found = re.match(r"!ttg\.memdesc<((?:\d+x)+)(\w+), (#\w+), #smem", text.strip())
    if not found:
        raise ValueError(f"no memory descriptor of shared memory: {text}")
    layout = ttgir.expand(found[3], tuple(sorted(encodings.items())))
    if not re.match(PLAIN, layout):
        raise ValueError(f"unknown encoding, of which nothing can be said: {layout}")
    if found[2] not in DTYPES:
        raise ValueError(f"no rule for shared memory of {found[2]}; there is {', '.join(DTYPES)}")
    return tuple(int(v) for v in found[1].split("x") if v), found[2]


def _allocate(run: Any, op: ttgir.Op) -> None:
    if op.operands:
        raise NotImplementedError(f"no rule for shared memory that is allocated with values: {op.text}")
    shape, element = descriptor(run.types(op)[-1].element, run.module.encodings)
    values = np.zeros(int(np.prod(shape)), DTYPES[element])
    run.values[op.results[0]] = Buffer(values, shape, run.allocated)
    run.allocated += -(-values.nbytes // 128) * 128


def _index(run: Any, op: ttgir.Op) -> None:
    of, k = (run.values[o] for o in op.operands)
    if not 0 <= k < of.shape[0]:
        raise IndexError(f"part {k} of a buffer of {of.shape[0]}")
    step = of.values.size // of.shape[0]
    part = of.values[k * step : (k + 1) * step]
    run.values[op.results[0]] = Buffer(part, of.shape[1:], of.begin + int(k) * step * part.itemsize)


def _reinterpret(run: Any, op: ttgir.Op) -> None:
    of, (shape, element) = run.values[op.operands[0]], descriptor(run.types(op)[-1].element, run.module.encodings)
    if int(np.prod(shape)) != of.values.size or DTYPES[element] != of.values.dtype:
        raise ValueError(f"{of.values.dtype} of {of.shape} cannot be {element} of {shape}")
    run.values[op.results[0]] = Buffer(of.values, shape, of.begin)


def _local_store(run: Any, op: ttgir.Op) -> None:
    value, buffer = (run.values[o] for o in op.operands)
    buffer.values[:] = np.asarray(value).reshape(-1)
    store(run, op, run.types(op)[0], buffer.begin)


def _local_gather(run: Any, op: ttgir.Op) -> None:
    buffer, index = run.values[op.operands[0]], np.asarray(run.values[op.operands[1]])
    if len(buffer.shape) != 1:
        raise NotImplementedError(f"no rule for a gather along one of several axes: {op.text}")
    run.values[op.results[0]] = buffer.values[index]
    type_ = run.types(op)[-1]
    run.loaded(op, type_)
    gather(run, type_, index, buffer.values.itemsize, buffer.begin)


def _gather_registers(run: Any, op: ttgir.Op) -> None:
    """A gather of values that threads hold: all are written to shared memory before, anew for each gather."""
    axis = int(re.search(r"axis = (\d+)", op.text)[1])  # type: ignore[index]
    x, index = (run.values[o] for o in op.operands)
    run.values[op.results[0]] = np.take_along_axis(x, index, axis)
    source, type_ = run.types(op)[0], run.types(op)[-1]
    run.loaded(op, type_)
    if len(source.shape) > 1 or not any(any(b) for b in run.module.layout(source).warp):
        # within each warp, by shuffles
        run.counts.shared += 2 * np.prod(type_.shape) / 32
        return
    store(run, op, source, 0)
    gather(run, type_, index, BYTES[source.element], 0)
    run.counts.barriers += 1


def _barrier(run: Any, op: ttgir.Op) -> None:
    run.counts.barriers += 1


RULES: dict[str, Callable[[Any, ttgir.Op], None]] = {
    "tt.gather": _gather_registers,
    "ttg.local_alloc": _allocate,
    "ttg.memdesc_index": _index,
    "ttg.memdesc_reinterpret": _reinterpret,
    "ttg.local_store": _local_store,
    "ttg.local_gather": _local_gather,
    "ttg.barrier": _barrier,
}


def store(run: Any, op: ttgir.Op, type_: ttgir.TensorType, begin: int) -> None:
    """Count a store of a tensor's values one after the other: those of a thread that lie together are written together,
    as wide as the PTX says."""
    size, layout = BYTES[type_.element], run.module.layout(type_)
    together = access_width(run.shared_widths, run.module.place(op.loc), size, layout.register) // size
    held = elements(layout, type_.shape)
    first = held.reshape(-1, together, held.shape[-1])[:, 0]
    run.counts.shared += shared_passes(begin + first * size, together * size)
    run.counts.threads["shared store"] = run.counts.threads.get("shared store", 0) + first.size


def gather(run: Any, type_: ttgir.TensorType, index: np.ndarray, size: int, begin: int) -> None:
    """Count the loads of a gather, one for each value, and one address for all that the same index gathers.

    size: of a value, in bytes; begin: of the first one"""
    wanted = index.reshape(-1)[elements(run.module.layout(type_), type_.shape)]
    run.counts.shared += shared_passes(begin + wanted.reshape(-1, wanted.shape[-1]) * size, size)
    if run.addressed is not index:
        run.addressed = index
        run.count_registers("addptr", type_)
