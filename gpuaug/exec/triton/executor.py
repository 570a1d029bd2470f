"""Runs a plan by the kernels of gpuaug_kernels; no arithmetic on pixels happens here.

A plan is prepared (records and tables, see marshal.py), then executed on images, step by step.  A step with a pass that
has no rule runs by the reference, on the same device, and `describe` says so."""

from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any, NamedTuple

import torch
from gpuaug_kernels import bind, codes, launch
from gpuaug_kernels.chain import NextStatistic, Source, Tables
from gpuaug_kernels.windows import fitted as fitted_windows
from torch import Tensor

from gpuaug import ir, strides, windows
from gpuaug.exec import bounds, reference
from gpuaug.exec.steps import FIRST, Step, Stored, short, traffic, written
from gpuaug.exec.triton import rules
from gpuaug.exec.triton.canonical import BlurColumns, BlurRows, canonical_form, is_source
from gpuaug.exec.triton.following import gathered_before
from gpuaug.exec.triton.marshal import FEW_CELLS, Fallback, Marshal, Prepared, most_channels, prepare_together, width
from gpuaug.exec.triton.ranges import between_launches
from gpuaug.exec.triton.statistics import kinds, kinds_by_number, split_at_mix
from gpuaug.fuse import Plan
from gpuaug.gathered import Gathered
from gpuaug.images import Images, Ragged
from gpuaug.symbolic import is_symbolic

# torch's kernel that clears the cells of statistics
ZEROS = "fill with zeros"


def run(plan: Plan, source: Images, out: Tensor | None = None) -> Tensor:
    """The images after a plan: [N, C, H, W] in the plan's dtype and memory format; written to `out`, which has both,
    where it is given."""
    return execute(prepare(plan), source, out)


def prepare(plan: Plan) -> tuple[Prepared | Fallback, ...]:
    """The steps of a plan, in order, with nothing of the images in them."""
    # for a GPU a trace would compute values only to check them: the kernels themselves stay inside the batch
    if not is_symbolic(plan.keys) and plan.frame.size.device.type == "cpu":
        bounds.check(plan.passes, plan.frame)
    made: list[Prepared | Fallback] = []
    launches: list[Marshal] = []
    for s in steps(plan):
        if s.fallback:
            made.append(Fallback(s.passes, plan.keys))
        else:
            before = launches[-1] if launches else None
            launches.append(rules.marshal(s.passes, s.frame, plan.keys, s.stores[-1].dtype, before))
            if not s.gathers:
                made += prepare_together(launches)
                launches = []
    return tuple(made)


def execute(prepared: Sequence[Prepared | Fallback], source: Images, out: Tensor | None = None) -> Tensor:
    """What `run` gives, from steps that were prepared for images of these sizes."""
    images: Any = source
    gathered: NextStatistic | None = None
    for number, one in enumerate(prepared, 1):
        last = number == len(prepared)
        following = None if last else _following(one, prepared[number])
        images = perform(one, images, Beside(gathered, following, out if last else None))
        gathered = following
    result: Tensor = images
    return result


class Beside(NamedTuple):
    """What a step is given beside its images."""

    gathered: NextStatistic | None  # its first statistic, which the step before has gathered
    following: NextStatistic | None  # what it gathers for the step after it
    out: Tensor | None  # where it writes, if that is given


@singledispatch
def perform(one: Any, images: Any, beside: Beside) -> Any:
    """The images after one step."""
    raise NotImplementedError(f"triton executor cannot run {type(one).__name__}")


@perform.register
def _(one: Fallback, images: Any, beside: Beside) -> Any:
    made = reference.run_passes(one.passes, _floats(images), one.keys)
    return made if beside.out is None else beside.out.copy_(made)


@perform.register
def _(one: Prepared, images: Any, beside: Beside) -> Any:
    source, tables, gathered = _source(images), one.tables, beside.gathered
    if isinstance(source.owner, Ragged) and source.owner.windows is not None and not one.fitted:
        tables = _within(source.owner, one)
    cells = gathered.cells if gathered else _taken(one.cells)
    statistics = launch.reduce_statistics(source, one.reductions, tables, one.size, cells, gathered is not None)
    how = (one.size, one.dtype, one.channels_last, beside.out, beside.following)
    return launch.images(source, one.program, tables, statistics, *how)


def _following(one: Prepared | Fallback, after: Any) -> NextStatistic | None:
    """What a step gathers for the one after it."""
    if isinstance(one, Fallback) or one.following is None:
        return None
    integers = after.tables.integers
    cells = _taken(after.cells)
    if cells is None:
        cells = launch.cells_table(after.reductions, integers.shape[0], integers.device)
    return NextStatistic(one.following, cells)


def _taken(cells: list[Tensor]) -> Tensor | None:
    """The zeros that were drawn; None for every later execution of the same plan, at the same time too."""
    try:
        return cells.pop()
    except IndexError:
        return None


def steps(plan: Plan) -> tuple[Step, ...]:
    """As many passes, in canonical form, as one kernel runs, each with the kernels that reduce its statistics; and what
    the reference runs."""
    made: list[Step] = []
    frame, dtype = plan.frame, plan.frame.dtype
    groups = grouped(canonical_form(plan.passes))
    for number, (passes, reason) in enumerate(groups, 1):
        after = ir.verify(passes, frame)
        fallback = fallback_reason(passes)
        # between two launches values of [0, 1] take 16 bits; torch reads and writes float32
        unit = dtype in (torch.uint8, torch.uint16)
        kept = torch.float32
        if not fallback and number < len(groups) and not fallback_reason(groups[number][0]):
            kept = between_launches(passes, after.channels, unit)
        stored = kept if number < len(groups) else written(passes)
        source = Stored(frame, dtype)
        if fallback:
            # a list of floats, as the reference leaves images of different sizes
            listed = bool(made) and frame.fixed is None
            loads, stores = traffic(passes, frame, None if listed else dtype)
            made.append(Step(passes, frame, "torch", loads, stores, reason, fallback))
        else:
            gathered = bool(made) and bool(made[-1].gathers)
            loads, launches = _launched(passes, source, gathered)
            gathers: tuple[str, ...] = ()
            if number < len(groups) and not fallback_reason(groups[number][0]):
                gathers = gathered_before(passes, frame, groups[number][0])
            if gathers:
                launches = (*launches[:-1], f"{launches[-1]} and gather {' or '.join(gathers)}")
            made.append(
                Step(
                    passes,
                    frame,
                    "kernels",
                    loads,
                    (Stored(after, stored),),
                    reason,
                    "",
                    launches,
                    gathers,
                )
            )
        frame, dtype = after, torch.float32 if fallback else stored
    return tuple(made)


def _launched(passes: ir.Sequence, source: Stored, gathered: bool) -> tuple[tuple[Stored, ...], tuple[str, ...]]:
    """What the kernels of a step read, and their launches: for each statistic one that reads the images and one that
    finishes it.  gathered: the step before has gathered the first"""
    loads, launches, widest, numbers = [], [], 0, 0  # type: list[Stored], list[str], int, int
    channels = most_channels(passes, source.frame.channels)
    # a cut reads one pixel for each of its own, almost everywhere
    sides = 1 + any(isinstance(p, ir.MixUp | ir.MixInside) for p in passes)
    for mixed, stages in enumerate(split_at_mix(passes)):
        for found in kinds_by_number(stages):
            what = " or ".join(found)
            if numbers or not gathered:
                loads += [source] * (sides if mixed else 1)
                launches.append(f"gather {what}")
            launches.append(f"finish {what}")
            numbers += 1
            widest = max(widest, *(width(k, channels) for k in found))
    # few are cleared by the kernel that draws
    if widest * numbers > FEW_CELLS:
        launches.insert(0, ZEROS)
    return (*loads, *[source] * sides), (*launches, "write images")


def fallback_reason(passes: ir.Sequence) -> str:
    """Why passes run by the reference; empty where the kernels have rules for all of them."""
    return next((reason for p in passes if (reason := rules.fallback_reason(p))), "")


def grouped(passes: ir.Sequence) -> tuple[tuple[ir.Sequence, str], ...]:
    """Passes in canonical form by steps, and why each is one.

    What is expensive to compute is written once and read again where otherwise every pixel would be computed twice: for
    a statistic, and for a MixUp.  A CutMix stays in the step of the crop that it cuts, since only tiles that cross the
    edge of its box compute both sides.  Of this only a crop before a mean was ever measured, 500 instructions a pixel
    against 359, and a card has shown that such counts do not decide its time (bench/NOTES.md)."""
    out: list[tuple[ir.Sequence, str]] = []
    for part in _parts(passes):
        before = out[-1][0] if out else ()
        reason = _why_apart(before, part) if out else FIRST
        if reason:
            out.append((part, reason))
        else:
            out[-1] = ((*before, *part), out[-1][1])
    return tuple(out)


def _parts(passes: ir.Sequence) -> list[ir.Sequence]:
    """Passes cut wherever a step may begin: what reads other pixels than its own, a mix, and what follows a source that
    is expensive to recompute."""
    parts: list[list[ir.Pass]] = []
    for p in passes:
        front = parts[-1][0] if parts else None
        mixes = [q for q in parts[-1] if isinstance(q, ir.Mix)] if parts else []
        if (
            front is None
            or reads_around(p)
            or (reads_around(front) and not is_source(front))
            or (isinstance(p, ir.Mix) and (mixes or is_source(front)))
        ):
            parts.append([p])
        else:
            parts[-1].append(p)
    return [tuple(half) for part in parts for half in _source_first(part)]


def _source_first(part: list[ir.Pass]) -> tuple[list[ir.Pass], ...]:
    """A part; or its source and the rest, if the source is expensive to recompute and the rest needs a statistic."""
    return (part[:1], part[1:]) if expensive_to_recompute(part[0]) and any(map(kinds, part[1:])) else (part,)


def _why_apart(before: ir.Sequence, passes: ir.Sequence) -> str:
    """Why passes do not run in the step before them; empty where they do."""
    front, first = before[0], passes[0]
    if reads_around(first):
        return f"{short(first)} reads pixels around its own, which the step before must have written"
    if fallback_reason(before):
        return "the step before it runs by the reference"
    if fallback_reason(passes):
        return "it runs by the reference"
    asking = {type(q).__name__: q.statistic for q in ir.walk(passes) if isinstance(q, ir.Pointwise) and q.statistic}
    if expensive_to_recompute(front) and asking:
        what = " and ".join(f"{p} needs the {statistic} of the whole image" for p, statistic in asking.items())
        return f"{what} first, and to compute {short(front)} twice would cost more than to store it"
    if sum(isinstance(p, ir.Mix) for p in (*before, *passes)) > 1:
        return f"{short(first)} reads its partner as the mix before leaves it"
    if isinstance(first, ir.MixUp | ir.MixInside) and reads_around(front):
        return (
            f"{short(first)} needs every pixel of two images, "
            f"and to compute {short(front)} twice would cost more than to store it"
        )
    return ""


def reads_around(p: ir.Pass) -> bool:
    """Whether a pass reads other places than its own pixel and its partner's."""
    return (
        is_source(p)
        or isinstance(p, ir.Custom | ir.Blend | ir.Jpeg | ir.Elastic)
        or (isinstance(p, ir.Choice) and not ir.is_pointwise(p))
    )


@singledispatch
def expensive_to_recompute(p: ir.Pass) -> bool:
    """Whether a pixel of a source takes more than a hundred instructions: to compute it twice costs more than to write
    and read it (bench/NOTES.md)."""
    return False


@expensive_to_recompute.register
def _(p: BlurRows | BlurColumns | ir.Project) -> bool:
    return True


@expensive_to_recompute.register
def _(p: ir.Resample) -> bool:
    return p.kernel != "floor" and not p.integer_shift


@expensive_to_recompute.register
def _(p: ir.Warp) -> bool:
    return p.kernel == "bilinear"


def _within(images: Ragged, one: Prepared) -> Tables:
    """The tables for images of which windows are in memory: rows are those of the windows, and nothing is loaded
    outside.

    On a host more is refused in words.  A GPU is not waited for: what it drew there may differ from what a host drew by
    a rounding, and so its rectangles are cut to the windows."""
    code, border, _, first, _ = one.program.records[: codes.RECORD]
    integers = one.tables.integers
    if code not in (*codes.RESAMPLES, codes.PROJECT):
        # by the kind of pass alone, so that nothing waits for a GPU; and at every call
        windows.check(images, None)
        bind.refuse("windows are checked")
    extend = "none" if code == codes.PROJECT else ir.BORDERS[border]
    if integers.device.type == "cpu":
        window, source = integers[:, first : first + 4], integers[:, first + 4 : first + 8]
        windows.check(images, windows.within(window, source, extend))
    # the window of a resample, or the source that a border is made of
    cut, inside = (first, 1) if extend == "none" else (first + 4, 0)
    fitted = fitted_windows(integers.contiguous(), images.pitches, images.corners.contiguous(), cut, inside)
    return replace(one.tables, integers=fitted)


def _floats(images: Any) -> Any:
    return reference.floats(images) if isinstance(images, Tensor | Ragged | Gathered) else images


def _source(images: Any) -> Source:
    """Dense images by their strides, others by their addresses."""
    if isinstance(images, Gathered):
        if images.packed:
            return Source(images.addresses, images.dtype, images.shape[1], ragged=True, owner=images)
        images = images.dense()
    if isinstance(images, Tensor):
        return Source(images, images.dtype, images.shape[1], ragged=False)
    if not isinstance(images, Ragged):
        images = Ragged.of(tuple(i.permute(1, 2, 0) for i in images))
    if images.way == strides.MIXED:
        # never on a GPU, where they are arranged already: this is the interpreter on a host
        images = images.arranged()
    where = images.addresses if images.way == strides.CONTIGUOUS else images.places
    planar = images.way == strides.PLANAR
    return Source(where, images.dtype, images.channels, ragged=True, owner=images, planar=planar)
