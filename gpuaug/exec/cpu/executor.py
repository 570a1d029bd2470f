"""Runs a plan on a host: the passes as data, walked by compiled rows, each sample on one thread from its source to its
output.

Between two mixes a sample stays in the workspace of its thread.  A pass without a compiled rule is run by the
reference."""

import ctypes
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from gpuaug_kernels import codes
from torch import Tensor

from gpuaug import fuse, ir, rng, windows
from gpuaug.exec import bounds, reference
from gpuaug.exec.cpu import layout
from gpuaug.exec.steps import FIRST, Step, Stored, short, traffic, written
from gpuaug.gathered import Gathered
from gpuaug.images import Images, Ragged

# below this many pixels waking a thread costs more than it saves
_WORTH_A_THREAD = 1 << 15
_CHUNKS_A_THREAD = 4
_LARGE = 1 << 22
# instructions that read no key: what only crops, resizes and normalises need not be told who its samples are
_KEYLESS = {layout.HALT, layout.RESAMPLE, codes.AFFINE, codes.NORMALIZE}
_NO_KEYS = np.zeros((1, codes.KEY_LENGTH), np.uint32)
# what the compiled rows read; torch makes float32 of the rest
_TAKEN = (torch.uint8, torch.float32)


@dataclass(frozen=True, eq=False)
class Rows:
    """Passes that run without the batch in between, as data, with nothing of the images in it."""

    code: np.ndarray[Any, Any]  # [instructions, layout.LENGTH] int64
    consts: np.ndarray[Any, Any]  # float32
    ints: Tensor  # [N, columns] int64
    floats: Tensor  # [N, columns] float32
    doubles: Tensor  # [N, columns] float64
    keys: rng.Keys
    channels: tuple[int, int]  # of what comes in, and the most at any point
    longest: int  # the most instructions that one sample can run
    shape: tuple[int, int, int]  # (C, H, W) of what comes out
    finish: ir.Finish | None
    keyless: bool  # whether no instruction takes words of the keys


@dataclass(frozen=True, eq=False)
class Fallback:
    """Passes that the reference runs."""

    passes: ir.Sequence
    keys: rng.Keys


def run(plan: fuse.Plan, source: Images, threads: int | None = None) -> Tensor:
    """The images after a plan: [N, C, H, W] in the plan's dtype and memory format.  threads: torch.get_num_threads() by
    default"""
    return execute(prepare(plan), source, threads)


def prepare(plan: fuse.Plan) -> tuple[Rows | Fallback, ...]:
    """The steps of a plan, in order, with nothing of the images in them."""
    bounds.check(plan.passes, plan.frame)
    return tuple(
        Fallback(s.passes, plan.keys)
        if s.fallback
        else _rows(s.passes, s.frame, ir.after(s.passes, s.frame), plan.keys)
        for s in steps(plan)
    )


def execute(prepared: Sequence[Rows | Fallback], source: Images, threads: int | None = None) -> Tensor:
    """What `run` gives, from steps that were prepared for images of these sizes."""
    images: Any = source if isinstance(source, Ragged | Gathered) or source.dtype in _TAKEN else source.float()
    threads, ours = threads or torch.get_num_threads(), False
    for step in prepared:
        if isinstance(step, Fallback):
            images = reference.run_passes(step.passes, reference.floats(images), step.keys)
        elif ours and _only_cuts(step, images):
            images = _cut(step, images, threads)
        else:
            images = _native(step, images, threads)
        # what a function of a user gives may be held by it
        ours = isinstance(step, Rows)
    return images  # type: ignore[no-any-return]


def steps(plan: fuse.Plan) -> tuple[Step, ...]:
    """As many passes as one compiled call runs for each sample; a mix begins a step, and a pass without a compiled rule
    is one."""
    made: list[Step] = []
    frame, dtype = plan.frame, plan.frame.dtype
    for passes, reason, fallback in _grouped(plan.passes, frame):
        after = ir.after(passes, frame)
        loads, stores = traffic(passes, frame, dtype) if fallback else _traffic(passes, frame, after, dtype)
        made.append(Step(passes, frame, "torch" if fallback else "rows", loads, stores, reason, fallback))
        frame, dtype = after, torch.float32
    return tuple(made)


def _grouped(passes: ir.Sequence, frame: ir.Frame) -> Iterator[tuple[ir.Sequence, str, str]]:
    """(passes, why they are a step, why they fall back)."""
    together: list[ir.Pass] = []
    reason = FIRST
    for p in passes:
        fallback = lacks(p, frame)
        if together and (fallback or isinstance(p, ir.Mix)):
            yield tuple(together), reason, ""
            waits = f"{short(p)} reads other samples as they are here, so that all of them must have come this far"
            together, reason = [], f"{short(p)} is not compiled" if fallback else waits
        if fallback:
            yield (p,), reason, fallback
            reason = f"{short(p)} before it is not compiled"
        else:
            together.append(p)
        frame = ir.after((p,), frame)
    if together:
        yield tuple(together), reason, ""


def lacks(p: ir.Pass, frame: ir.Frame) -> str:
    """Why a pass cannot run here; empty if it can.  frame: of the images before it"""
    from gpuaug.exec.cpu import encode

    for q in ir.walk((p,)):
        if not encode.has_rule(q):
            return f"{type(q).__name__} has no compiled rule"
        if isinstance(q, ir.Choice) and any(isinstance(r, ir.Mix) for branch in q.branches for r in ir.walk(branch)):
            return "a mix inside a choice needs the whole batch in the middle of a sample"
        if (
            isinstance(q, ir.GaussianBlur)
            and frame.fixed is not None
            and (q.kernel_size[1] // 2 >= frame.fixed[0] or q.kernel_size[0] // 2 >= frame.fixed[1])
        ):
            return "a blur wider than its image"
    return ""


def _traffic(
    passes: ir.Sequence, frame: ir.Frame, after: ir.Frame, dtype: torch.dtype
) -> tuple[tuple[Stored, ...], tuple[Stored, ...]]:
    """What a step of compiled rows reads and writes, and torch before and after it where the rows know no dtype.
    dtype: of what comes in"""
    finish = passes[-1] if isinstance(passes[-1], ir.Finish) else None
    made, ends = _made(finish), written(passes)
    loads, stores = [Stored(frame, dtype)], [Stored(after, made)]
    if dtype not in _TAKEN:
        loads, stores = [*loads, Stored(frame, torch.float32)], [Stored(frame, torch.float32), *stores]
    if any(isinstance(p, ir.MixUp | ir.MixInside) for p in passes):
        # the partner's pixels beside its own
        loads.append(Stored(frame, dtype if dtype in _TAKEN else torch.float32))
    if ends != made:
        loads, stores = [*loads, Stored(after, made)], [*stores, Stored(after, ends)]
    return tuple(loads), tuple(stores)


def _made(finish: ir.Finish | None) -> torch.dtype:
    """What the compiled rows write; torch makes other types of it."""
    return torch.uint8 if finish and finish.dtype == torch.uint8 else torch.float32


def _rows(passes: ir.Sequence, frame: ir.Frame, after: ir.Frame, keys: rng.Keys) -> Rows:
    """Passes with compiled rules."""
    from gpuaug.exec.cpu import encode

    assert after.fixed is not None
    made = encode.encode(passes)
    kinds = (("ints", torch.int64), ("floats", torch.float32), ("doubles", torch.float64))
    ints, floats, doubles = (made.table(name, frame.size, dtype) for name, dtype in kinds)
    finish = passes[-1] if isinstance(passes[-1], ir.Finish) else None
    return Rows(
        np.array(made.rows, np.int64),
        np.array(made.consts or [0.0], np.float32),
        ints,
        floats,
        doubles,
        keys,
        (frame.channels, encode.most_channels(passes, frame.channels)),
        encode.longest(passes),
        (after.channels, *after.fixed),
        finish,
        {row[layout.OP] for row in made.rows} <= _KEYLESS,
    )


def _native(step: Rows, images: Images, threads: int) -> Tensor:
    """Passes by compiled rows.  images: uint8 or float32"""
    from gpuaug.exec.cpu import memory
    from gpuaug.exec.cpu.entry import lay_out

    if isinstance(images, Ragged) and images.windows is not None:
        windows.check(images, _reads(step))
    n, finish = len(step.keys), step.finish
    dtype = _made(finish)
    layout = finish.memory_format if finish else torch.contiguous_format
    out = _on_large_pages(torch.empty((n, *step.shape), dtype=dtype, memory_format=layout, device="cpu"))
    if n:
        columns = [t.numpy() for t in (step.ints, step.floats, step.doubles)]
        tables = [step.code, step.consts, *columns, _sources(images), _NO_KEYS if step.keyless else _keys(step.keys)]
        code, consts, ints, floats, doubles, sources, key = (a.ctypes.data for a in tables)
        inputs = np.zeros(memory.SLOTS, np.int64)
        kind = int(images.dtype == torch.uint8)
        inputs[: memory.TARGET_KIND + 1] = (
            *(
                code,
                len(step.code),
                consts,
                ints,
                columns[0].strides[0],
                floats,
                columns[1].strides[0],
                doubles,
                columns[2].strides[0],
            ),
            *(sources, kind, key, *step.channels, step.longest),
            *(out.data_ptr(), *(s * out.itemsize for s in out.stride()), _goes_out(out)),
        )
        pixels = n * step.shape[1] * step.shape[2]
        size = int(lay_out(inputs, n))
        if size < 0:
            raise ValueError(_stray(-size - 1, n))
        # memory that is touched for the first time costs more than a row of stages: one piece a thread, for all of its
        # samples
        workers = [_Worker(inputs, _workspace(size)) for _ in range(min(threads, n, 1 + pixels // _WORTH_A_THREAD))]
        _share_out(workers, n, -(-n * _WORTH_A_THREAD // pixels))
    return out.to(finish.dtype) if finish and finish.dtype != dtype else out


def _stray(sample: int, n: int) -> str:
    return (
        f"the partner of sample {sample} must be a row of this batch, in [0, {n}), but is not; "
        "look at the transform that mixes"
    )


def _only_cuts(step: Rows, images: Tensor) -> bool:
    """Whether all that a step does to float32 images is to put rectangles of others into them."""
    layout_out = step.finish.memory_format if step.finish else torch.contiguous_format
    return (
        list(step.code[:, layout.OP]) == [layout.CUTMIX, layout.HALT]
        and _made(step.finish) == images.dtype == torch.float32
        and images.is_contiguous(memory_format=layout_out)
        and bool(images.numel())
    )


def _cut(step: Rows, images: Tensor, threads: int) -> Tensor:
    """The CutMix of a step in place.  images: [N, C, H, W] float32, which nobody else holds"""
    from gpuaug.exec.cpu import cut

    n, c, h, w = images.shape
    ints = step.ints[:, step.code[0][layout.INT_COLUMN] :]
    partner, box = ints[:, layout.PARTNER].numpy(), ints[:, layout.BOX : layout.BOX + 4].numpy()
    strays = np.flatnonzero((partner < 0) | (partner >= n))
    if len(strays):
        raise ValueError(_stray(int(strays[0]), n))
    box = box.clip(0, (w, h, w, h))
    sizes = (box[:, 2:] - box[:, :2]).clip(0).prod(1) * c
    ends = np.cumsum(sizes)
    kept = _on_large_pages(torch.empty(max(int(ends[-1]), 1), dtype=torch.float32, device="cpu")).numpy()
    sn, sc, sy, _ = (4 * s for s in images.stride())
    planes = images.is_contiguous()
    about = np.array((images.data_ptr(), sn, sc, sy, c, int(planes)), np.int64)
    given = (np.ascontiguousarray(partner), box, ends - sizes, about, kept)
    team = min(threads, n, 1 + n * h * w // _WORTH_A_THREAD)
    for back in (False, True):
        # all are out before the first goes in
        def part(first: int, last: int, back: bool = back) -> None:
            cut.move_boxes(first, last, *given, back)

        _share_out([part] * team, n)
    return images.to(step.finish.dtype) if step.finish else images


def _goes_out(out: Tensor) -> int:
    """How the compiled rows write to an output."""
    from gpuaug.exec.cpu import memory

    if out.dtype == torch.uint8:
        return memory.BYTE_OUT
    return memory.STREAMED_OUT if out.numel() * out.element_size() >= _LARGE else memory.FLOAT_OUT


@dataclass(frozen=True)
class _Worker:
    """One thread's part in a launch."""

    inputs: np.ndarray[Any, Any]
    memory: np.ndarray[Any, Any]

    def __call__(self, first: int, last: int) -> None:
        from gpuaug.exec.cpu.entry import run_samples

        run_samples(first, last, self.inputs, self.memory)


def _workspace(size: int) -> np.ndarray[Any, Any]:
    """Bytes that start at a multiple of 64."""
    memory = _on_large_pages(torch.empty(size + 64, dtype=torch.uint8, device="cpu"))
    first = -memory.data_ptr() % 64
    return memory[first : first + size].numpy()  # type: ignore[no-any-return]


def _on_large_pages(memory: Tensor) -> Tensor:
    """Ask Linux for pages of 2 MiB: fresh ones of 4 KiB cost more than the pixels written to them."""
    size = memory.numel() * memory.element_size()
    if size >= _LARGE and sys.platform == "linux":
        page = 4096
        first = -(-memory.data_ptr() // page) * page
        last = (memory.data_ptr() + size) // page * page
        # only advice: what it returns does not matter
        _libc().madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), 14)
    return memory


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _sources(images: Images) -> np.ndarray[Any, Any]:
    """Every image in the fields of `layout`: [N, IMAGE_LENGTH] int64."""
    if isinstance(images, Ragged):
        out = np.empty((len(images), 6), np.int64)
        out[:, 0], out[:, 1:3] = images.addresses.numpy(), images.size.numpy()
        out[:, 3:] = images.strides * images.dtype.itemsize
        return out
    store = images.store if isinstance(images, Gathered) else images
    sn, sc, sy, sx = (s * store.itemsize for s in store.stride())
    out = np.empty((len(images), 6), np.int64)
    out[:] = (store.data_ptr(), *images.shape[2:], sy, sx, sc)
    out[:, 0] += (images.index.numpy() if isinstance(images, Gathered) else np.arange(len(images))) * sn
    return out


def _reads(step: Rows) -> Tensor | None:
    """What a step loads of its images, as `windows.reads` says it of passes."""
    first = step.code[0]
    if first[0] not in (layout.RESAMPLE, layout.PROJECT):
        return None
    window, source = (step.ints[:, first[layout.INT_COLUMN] + k :][:, :4] for k in (layout.WINDOW, layout.INSIDE))
    if first[0] == layout.PROJECT:
        return window
    return windows.within(window, source, ir.BORDERS[first[layout.BORDER]])


def _keys(keys: rng.Keys) -> np.ndarray[Any, Any]:
    """The key of every sample, in the order of `codes`: [N, KEY_LENGTH] uint32."""
    out = np.empty((len(keys), codes.KEY_LENGTH), np.uint32)
    c2, c3 = keys.counter()
    out[:, codes.KEY_C2], out[:, codes.KEY_C3] = c2.numpy(), c3.numpy()
    out[:, codes.KEY_LOW], out[:, codes.KEY_HIGH] = keys.seed & 0xFFFFFFFF, keys.seed >> 32
    out[:, codes.KEY_OCCURRENCE] = keys.occurrence.numpy() << codes.OCCURRENCE_SHIFT
    return out


# ---- threads


def _share_out(workers: Sequence[Callable[[int, int], None]], n: int, few: int = sys.maxsize) -> None:
    """Share n samples among workers, this thread's and others': each takes the next few, at most, until none are
    left."""
    if len(workers) == 1:
        workers[0](0, n)
        return
    # small parts, so that nobody waits long for the last; next() on a counter is atomic, so that no lock is needed
    size = min(few, max(1, n // (len(workers) * _CHUNKS_A_THREAD)))
    counter = itertools.count(0, size)

    def work(worker: Callable[[int, int], None]) -> None:
        for first in counter:
            if first >= n:
                return
            worker(first, min(first + size, n))

    pool = _pool(os.getpid(), len(workers) - 1)
    helpers = [pool.submit(work, w) for w in workers[1:]]
    try:
        work(workers[0])
    finally:
        for h in helpers:
            h.result()


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads kept between calls.  A forked process, which has none of its parent's, makes its own."""
    return ThreadPoolExecutor(threads, "gpuaug")
