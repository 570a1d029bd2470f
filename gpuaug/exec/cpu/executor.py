"""Runs a plan on a host: the passes as data, walked by compiled rows, each sample on one thread from its source to its
output.

Between two mixes a sample stays in the workspace of its thread.  A pass without a compiled rule is run by the
reference."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug import fuse, ir, rng, windows
from gpuaug.exec import bounds, reference
from gpuaug.exec.cpu import blocks, layout
from gpuaug.exec.cpu.team import together
from gpuaug.exec.steps import FIRST, Step, Stored, short, traffic, written
from gpuaug.gathered import Gathered
from gpuaug.images import Images, Ragged

# below this many pixels waking a thread costs more than it saves
_WORTH_A_THREAD = 1 << 15
_LOW = 0xFFFFFFFF
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


@dataclass(frozen=True, eq=False)
class Fallback:
    """Passes that the reference runs."""

    passes: ir.Sequence
    keys: rng.Keys


def run(plan: fuse.Plan, source: Images, threads: int | None = None) -> Tensor:
    """The images after a plan: [N, C, H, W] in the plan's dtype and memory format.  threads: torch.get_num_threads() by
    default"""
    return execute(prepare(plan), source, threads)


def load_compiled() -> None:
    """Have Numba load the compiled rows, a tenth of a second or more of a process's first call, by running a pixel."""
    number = torch.zeros(1, dtype=torch.int64, device="cpu")
    frame = ir.Frame(torch.ones(1, 2, dtype=torch.int64, device="cpu"), (1, 1), 1, torch.float32)
    keys = rng.Keys(0, 0, number, number)
    pixel = torch.zeros(1, 1, 1, 1, device="cpu")
    run(fuse.Plan((ir.Finish(torch.float32, torch.contiguous_format),), keys, frame), pixel, 1)


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
        elif ours and _only_mixes(step, images):
            images = _in_place(step, images, threads)
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
    )


def _native(step: Rows, images: Images, threads: int) -> Tensor:
    """Passes by compiled rows.  images: uint8 or float32"""
    # entry and memory import Numba, which takes a while
    from gpuaug.exec.cpu import entry, memory

    if isinstance(images, Ragged) and images.windows is not None:
        windows.check(images, _reads(step))
    n, finish = len(step.keys), step.finish
    dtype = _made(finish)
    memory_format = finish.memory_format if finish else torch.contiguous_format
    out = _output((n, *step.shape), dtype, memory_format)
    if n:
        sources, source = _sources(images)
        keys = step.keys
        ids, occurrence = keys.ids.contiguous(), keys.occurrence.contiguous()
        inputs = np.zeros(memory.SLOTS, np.int64)
        inputs[: len(memory.GIVEN)] = (
            *(step.code.ctypes.data, len(step.code), step.consts.ctypes.data),
            *(v for t in (step.ints, step.floats, step.doubles) for v in (t.data_ptr(), t.stride(0) * t.itemsize)),
            *(sources.ctypes.data, *source, int(images.dtype == torch.uint8)),
            *(ids.data_ptr(), occurrence.data_ptr(), int(keys.epoch), keys.seed & _LOW, keys.seed >> 32),
            *(*step.channels, step.longest),
            *(out.data_ptr(), *(s * out.itemsize for s in out.stride()), _goes_out(out)),
        )
        size = int(entry.lay_out(inputs, n))
        if size < 0:
            raise ValueError(_stray(-size - 1, n))
        team = min(threads, n, 1 + n * step.shape[1] * step.shape[2] // _WORTH_A_THREAD)
        together([partial(entry.run_samples, inputs, _workspace(size)) for _ in range(team)])
    return out.to(finish.dtype) if finish and finish.dtype != dtype else out


def _stray(sample: int, n: int) -> str:
    return (
        f"the partner of sample {sample} must be a row of this batch, in [0, {n}), but is not; "
        "look at the transform that mixes"
    )


def _only_mixes(step: Rows, images: Tensor) -> bool:
    """Whether all that a step does to float32 images, which it leaves where they are, is one mix."""
    layout_out = step.finish.memory_format if step.finish else torch.contiguous_format
    return (
        len(step.code) == 2
        and step.code[0][layout.OP] in (layout.CUTMIX, layout.MIXUP, layout.MIX_INSIDE)
        and _made(step.finish) == images.dtype == torch.float32
        and images.is_contiguous(memory_format=layout_out)
        and bool(images.numel())
    )


def _in_place(step: Rows, images: Tensor, threads: int) -> Tensor:
    """The one mix of a step.  images: [N, C, H, W] float32, which nobody else holds"""
    from gpuaug.exec.cpu import in_place

    n, c, h, w = images.shape
    first = step.code[0]
    ints = step.ints[:, first[layout.INT_COLUMN] :]
    partner = ints[:, layout.PARTNER].contiguous().numpy()
    strays = np.flatnonzero((partner < 0) | (partner >= n))
    if len(strays):
        raise ValueError(_stray(int(strays[0]), n))
    walk, ends = np.empty(n, np.int64), np.zeros(n, np.int64)
    in_place.in_order(partner, walk, ends)
    planes = images.is_contiguous()
    sn, sc, sy, _ = (4 * s for s in images.stride())
    about = np.array((images.data_ptr(), sn, sc, sy, h, w, c, int(planes)), np.int64)
    box, share = np.empty((n, 4), np.int64), np.zeros(n, np.float32)
    box[:] = (0, 0, w, h)
    if first[layout.OP] != layout.MIXUP:
        box[:] = ints[:, layout.BOX : layout.BOX + 4].numpy().clip(0, (w, h, w, h))
    if first[layout.OP] != layout.CUTMIX:
        share[:] = step.floats[:, first[layout.FLOAT_COLUMN]].numpy()
    taken = np.zeros(1, np.int64)
    kept = [
        np.empty(max(in_place.PART, w * c), np.float32) for _ in range(min(threads, 1 + n * h * w // _WORTH_A_THREAD))
    ]
    together([partial(in_place.mix_images, taken, partner, walk, ends, box, share, about, k) for k in kept])
    return images.to(step.finish.dtype) if step.finish else images


def _goes_out(out: Tensor) -> int:
    """How the compiled rows write to an output."""
    from gpuaug.exec.cpu import memory

    if out.dtype == torch.uint8:
        return memory.BYTE_OUT
    return memory.STREAMED_OUT if out.numel() * out.element_size() >= blocks.LARGE else memory.FLOAT_OUT


def _output(shape: tuple[int, int, int, int], dtype: torch.dtype, memory_format: torch.memory_format) -> Tensor:
    """Memory for a batch [N, C, H, W]."""
    if memory_format != torch.channels_last:
        return blocks.empty(shape, dtype)
    n, c, h, w = shape
    return blocks.empty((n, h, w, c), dtype).permute(0, 3, 1, 2)


def _workspace(size: int) -> np.ndarray[Any, Any]:
    """Bytes that start at a multiple of 64."""
    memory = blocks.empty((size + 64,), torch.uint8)
    first = -memory.data_ptr() % 64
    return memory.numpy()[first : first + size]  # type: ignore[no-any-return]


def _sources(images: Images) -> tuple[np.ndarray[Any, Any], tuple[int, int]]:
    """The images in the fields of `layout`, [N or 1, IMAGE_LENGTH] int64; and bytes from one sample's row to the next,
    and from one's pixels to the next's where all share a row."""
    if isinstance(images, Ragged):
        out = np.empty((len(images), layout.IMAGE_LENGTH), np.int64)
        out[:, 0], out[:, 1:3] = images.begins, images.sides
        out[:, 3:] = images.strides * images.dtype.itemsize
        return out, (8 * layout.IMAGE_LENGTH, 0)
    store = images.store if isinstance(images, Gathered) else images
    sn, sc, sy, sx = (s * store.itemsize for s in store.stride())
    out = np.array([(store.data_ptr(), *store.shape[2:], sy, sx, sc)], np.int64)
    if not isinstance(images, Gathered):
        return out, (0, sn)
    out = out.repeat(len(images), 0)
    out[:, 0] += images.index.numpy() * sn
    return out, (8 * layout.IMAGE_LENGTH, 0)


def _reads(step: Rows) -> Tensor | None:
    """What a step loads of its images, as `windows.reads` says it of passes."""
    first = step.code[0]
    if first[0] not in (layout.RESAMPLE, layout.PROJECT):
        return None
    window, source = (step.ints[:, first[layout.INT_COLUMN] + k :][:, :4] for k in (layout.WINDOW, layout.INSIDE))
    if first[0] == layout.PROJECT:
        return window
    return windows.within(window, source, ir.BORDERS[first[layout.BORDER]])
