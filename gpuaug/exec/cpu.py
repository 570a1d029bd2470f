"""Runs a plan on a host: the passes as data, walked by compiled rows, each sample on one thread from its source to its output.

Between two mixes a sample stays in the workspace of its thread.  A launch without a compiled rule is run by the reference.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug import fuse, ir, rng
from gpuaug.batch import Images, Ragged
from gpuaug.exec import reference

# below this many pixels waking a thread costs more than it saves
_WORTH_A_THREAD = 1 << 15
_CHUNKS_A_THREAD = 4


def run(plan: fuse.Plan, source: Images, threads: int | None = None) -> Tensor:
    """The images after a plan: [N, C, H, W] in the plan's dtype and memory format.  threads: torch.get_num_threads() by default"""
    images: Any = source if isinstance(source, Ragged) or source.dtype in (torch.uint8, torch.float32) else source.float()
    frame = plan.frame
    for native, passes in _segments(plan):
        after = ir.verify(passes, frame)
        if native:
            images = _native(passes, images, frame, after, plan.keys, threads or torch.get_num_threads())
        else:
            images = reference.run_passes(passes, reference.floats(images), plan.keys)
        frame = after
    return images  # type: ignore[no-any-return]


def lacks(launch: fuse.Launch, frame: ir.Frame) -> str:
    """Why a launch cannot run here; empty if it can."""
    from gpuaug.exec.rows import program

    for p in ir.walk(launch.passes):
        if not program.knows(p):
            return f"{type(p).__name__} has no compiled rule"
        if isinstance(p, ir.Choice) and any(isinstance(q, ir.Mix) for branch in p.branches for q in ir.walk(branch)):
            return "a mix inside a choice needs the whole batch in the middle of a sample"
        if isinstance(p, ir.GaussianBlur) and frame.fixed is not None and (p.kernel_size[1] // 2 >= frame.fixed[0] or p.kernel_size[0] // 2 >= frame.fixed[1]):
            return "a blur wider than its image"
    return ""


def _segments(plan: fuse.Plan) -> Iterator[tuple[bool, ir.Sequence]]:
    """Passes that run without the batch in between: (whether compiled, passes)."""
    frame, together = plan.frame, ()  # type: tuple[ir.Frame, ir.Sequence]
    for launch in plan.launches:
        if lacks(launch, frame):
            if together:
                yield True, together
            yield False, launch.passes
            together = ()
        else:
            for p in launch.passes:
                if isinstance(p, ir.Mix) and together:
                    yield True, together
                    together = ()
                together = (*together, p)
        frame = ir.verify(launch.passes, frame)
    if together:
        yield True, together


def _native(passes: ir.Sequence, images: Images, frame: ir.Frame, after: ir.Frame, keys: rng.Keys, threads: int) -> Tensor:
    """Passes by compiled rows.  images: uint8 or float32"""
    from gpuaug.exec.rows import memory, program
    from gpuaug.exec.rows.entry import run_samples

    n = len(keys)
    assert after.fixed is not None
    finish = passes[-1] if isinstance(passes[-1], ir.Finish) else None
    dtype = torch.uint8 if finish and finish.dtype == torch.uint8 else torch.float32
    layout = finish.memory_format if finish else torch.contiguous_format
    out = torch.empty((n, after.channels, *after.fixed), dtype=dtype, memory_format=layout)
    if n:
        made = program.encode(passes)
        tables: list[np.ndarray[Any, Any]] = [
            np.array(made.rows, np.int64),
            np.array(made.consts or [0.0], np.float32),
            *(made.table(name, n, dtype) for name, dtype in (("ints", np.int64), ("floats", np.float32), ("doubles", np.float64))),
            _sources(images),
            _keys(keys),
        ]
        code, consts, ints, floats, doubles, sources, key = (a.ctypes.data for a in tables)
        inputs = np.zeros(memory.SLOTS, np.int64)
        kind = int(isinstance(images, Ragged) or images.dtype == torch.uint8)
        inputs[: memory.TARGET_KIND + 1] = (
            *(code, len(made.rows), consts, ints, tables[2].strides[0], floats, tables[3].strides[0], doubles, tables[4].strides[0]),
            *(sources, kind, key, frame.channels, program.most_channels(passes, frame.channels), program.longest(passes)),
            *(out.data_ptr(), *(s * out.itemsize for s in out.stride()), int(dtype == torch.uint8)),
        )
        pixels = n * after.fixed[0] * after.fixed[1]
        _spread(lambda first, last: run_samples(first, last, inputs), n, min(threads, n, 1 + pixels // _WORTH_A_THREAD))
    return out.to(finish.dtype) if finish and finish.dtype != dtype else out


def _sources(images: Images) -> np.ndarray[Any, Any]:
    """Address, H, W and strides in bytes of row, column and channel: [N, 6] int64."""
    if isinstance(images, Ragged):
        rows = [(i.data_ptr(), h, w, w * c, c, 1) for i in images.images for h, w, c in (i.shape,)]
        return np.array(rows, np.int64).reshape(-1, 6)
    sn, sc, sy, sx = (s * images.itemsize for s in images.stride())
    out = np.empty((len(images), 6), np.int64)
    out[:] = (images.data_ptr(), *images.shape[2:], sy, sx, sc)
    out[:, 0] += np.arange(len(images)) * sn
    return out


def _keys(keys: rng.Keys) -> np.ndarray[Any, Any]:
    """Seed, occurrence and counter of every sample: [N, 5] uint32."""
    out = np.empty((len(keys), 5), np.uint32)
    c2, c3 = keys.counter()
    out[:, 0], out[:, 1], out[:, 2] = keys.seed & 0xFFFFFFFF, keys.seed >> 32, keys.occurrence.numpy() << 16
    out[:, 3], out[:, 4] = c2.numpy(), c3.numpy()
    return out


# ---- threads


@dataclass(frozen=True)
class _Chunks:
    """Ranges of samples that any number of threads take one after another."""

    task: Callable[[int, int], None]
    total: int
    size: int
    counter: Iterator[int]

    def work(self) -> None:
        for k in self.counter:
            if k * self.size >= self.total:
                return
            self.task(k * self.size, min(k * self.size + self.size, self.total))


def _spread(task: Callable[[int, int], None], n: int, threads: int) -> None:
    """Run a task over ranges of samples on this thread and others."""
    if threads <= 1:
        task(0, n)
        return
    # next() on a counter is atomic, so that no lock is needed
    chunks = _Chunks(task, n, max(1, n // (threads * _CHUNKS_A_THREAD)), itertools.count())
    helpers = [_pool(os.getpid(), threads - 1).submit(chunks.work) for _ in range(threads - 1)]
    try:
        chunks.work()
    finally:
        for h in helpers:
            h.result()


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads kept between calls.  A forked process, which has none of its parent's, makes its own."""
    return ThreadPoolExecutor(threads, "gpuaug")
