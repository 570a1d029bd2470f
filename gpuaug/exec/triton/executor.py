"""Runs a plan by the kernels of gpuaug_kernels; no arithmetic on pixels happens here.

A plan is prepared (records and tables, see marshal.py), then executed on images.  A launch whose passes have no rule runs by the reference, on
the same device, and `describe` says so.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any

from gpuaug_kernels import launch
from gpuaug_kernels.chain import Source
from torch import Tensor

from gpuaug import fuse, ir
from gpuaug.batch import Images, Ragged
from gpuaug.exec import reference
from gpuaug.exec.triton import rules
from gpuaug.exec.triton.canonical import BlurColumns, BlurRows, normal
from gpuaug.exec.triton.marshal import Fallback, Prepared
from gpuaug.exec.triton.statistics import kinds
from gpuaug.fuse import Launch, Plan


def run(plan: Plan, source: Images, out: Tensor | None = None) -> Tensor:
    """The images after a plan: [N, C, H, W] in the plan's dtype and memory format; written to `out`, which has both, where it is given."""
    return execute(prepare(plan), source, out)


def prepare(plan: Plan) -> tuple[Prepared | Fallback, ...]:
    """The launches of a plan, in order, with nothing of the images in them."""
    made: list[Prepared | Fallback] = []
    frame = plan.frame
    for one in regroup(plan.launches):
        made.append(Fallback(one.passes, plan.keys) if lacks(one, frame) else rules.prepare(one.passes, frame, plan.keys))
        frame = ir.verify(one.passes, frame)
    return tuple(made)


def execute(prepared: Sequence[Prepared | Fallback], source: Images, out: Tensor | None = None) -> Tensor:
    """What `run` gives, from launches that were prepared for images of these sizes."""
    images: Any = source
    for number, one in enumerate(prepared, 1):
        images = perform(one, images, out if number == len(prepared) else None)
    result: Tensor = images
    return result


@singledispatch
def perform(one: Any, images: Any, out: Tensor | None) -> Any:
    """The images after one launch."""
    raise NotImplementedError(f"triton executor cannot run {type(one).__name__}")


@perform.register
def _(one: Fallback, images: Any, out: Tensor | None) -> Any:
    made = reference.run_passes(one.passes, _floats(images), one.keys)
    return made if out is None else out.copy_(made)


@perform.register
def _(one: Prepared, images: Any, out: Tensor | None) -> Any:
    source = _source(images)
    known = launch.reduced(source, one.reductions, one.tables, one.size)
    return launch.images(source, one.program, one.tables, known, one.size, one.dtype, one.channels_last, out)


def lacks(one: Launch, frame: ir.Frame) -> str:
    """Why a launch runs by the reference; empty where the kernels have rules for all of it."""
    return next((reason for p in one.passes if (reason := rules.lacks(p))), "")


def regroup(launches: Sequence[Launch]) -> tuple[Launch, ...]:
    """The launches that the kernels make of a plan's, of passes in normal form.

    A cut joins the resample before it: a tile reads both sides of a cut only where it meets the edge, so that resampling twice there costs
    less than writing the crop and reading it again; a MixUp reads both everywhere.  Points join a choice that reads neighbours.  What is dear to
    read is written first where a statistic of it is asked for, since the statistic would read it all once more.
    """
    out: list[Launch] = []
    passes = normal(tuple(p for one in launches for p in one.passes))
    for one in fuse.launches(passes):
        for part in (p for half in _written_first(one) for p in _one_mix_each(half)):
            if out and _joins(out[-1].passes, part.passes):
                out[-1] = replace(out[-1], passes=(*out[-1].passes, *part.passes))
            else:
                out.append(part)
    return tuple(out)


def _joins(before: ir.Sequence, passes: ir.Sequence) -> bool:
    """Whether passes run in the launch of those before them."""
    together = (*before, *passes)
    if fuse.alone(passes[0]) or any(rules.lacks(p) for p in together) or (dear(before[0]) and any(map(kinds, passes))):
        return False
    return sum(isinstance(p, ir.Mix) for p in together) < 2 and not (isinstance(passes[0], ir.MixUp) and fuse.alone(before[0]))


@singledispatch
def dear(p: ir.Pass) -> bool:
    """Whether a pixel of a source takes more than a hundred instructions: to make it twice costs more than to write and read it (bench/NOTES.md)."""
    return False


@dear.register
def _(p: BlurRows | BlurColumns | ir.Project) -> bool:
    return True


@dear.register
def _(p: ir.Resample) -> bool:
    return p.kernel == "triangle" and not p.moves


@dear.register
def _(p: ir.Warp) -> bool:
    return p.kernel == "bilinear"


def _written_first(one: Launch) -> list[Launch]:
    """A launch, or two: the source alone, and the rest."""
    first, *rest = one.passes
    if not (dear(first) and any(map(kinds, rest))):
        return [one]
    why = f"{type(first).__name__} twice, once for a statistic, costs more than writing it once"
    return [replace(one, passes=(first,)), Launch(tuple(rest), why)]


def _one_mix_each(one: Launch) -> list[Launch]:
    parts: list[list[ir.Pass]] = [[]]
    for p in one.passes:
        if isinstance(p, ir.Mix) and any(isinstance(q, ir.Mix) for q in parts[-1]):
            parts.append([])
        parts[-1].append(p)
    return [replace(one, passes=tuple(part)) for part in parts]


def _floats(images: Any) -> Any:
    return reference.floats(images) if isinstance(images, Tensor | Ragged) else images


def _source(images: Any) -> Source:
    """Dense images by their strides, others by their addresses."""
    if isinstance(images, Tensor):
        return Source(images, images.dtype, images.shape[1], ragged=False)
    if not isinstance(images, Ragged):
        images = Ragged(tuple(i.permute(1, 2, 0).contiguous() for i in images))
    return Source(images.addresses, images.images[0].dtype, images.channels, ragged=True, owner=images)
