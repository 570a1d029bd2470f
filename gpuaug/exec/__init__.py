"""Executors: what runs a plan.  Chosen by name, imported when chosen.

Each is a module with `steps(plan)`: which passes run together, what each step reads and writes, and what the reference
runs instead; `prepare(plan)`, all of those steps that needs no image, by operations of torch alone; `execute(prepared,
source)`; `run(plan, source)`, the two together; `accounted`, as `mixing.accounted`, and `follow_labels`, as
`targets.follow`, of what that gives.  That of triton has `again` too: a call of a kind that came before, by its
launches alone; and `moved_boxes` and `moved_points`, which targets follow by."""

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

from gpuaug import ir
from gpuaug.exec.steps import Step, Stored
from gpuaug.exec.steps import name as words
from gpuaug.fuse import Plan

BACKENDS = ("auto", "reference", "cpu", "triton")


def check(backend: str) -> None:
    """Raise ValueError unless it is the name of a backend."""
    if backend not in BACKENDS:
        do = ' "triton" runs on CUDA, and "auto" takes it for images there' if backend in ("cuda", "gpu") else ""
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}{do and ';' + do}")


def choose(backend: str, device: torch.device) -> str:
    """The executor that "auto" stands for on a device; any other name stands for itself."""
    if backend != "auto":
        return backend
    if device.type == "cuda" and _has_triton():
        return "triton"
    return "cpu" if device.type == "cpu" else "reference"


def load(name: str) -> ModuleType:
    """An executor by name; raises RuntimeError naming what is not installed."""
    if name == "triton" and not _has_triton():
        raise RuntimeError(
            'backend "triton" needs the package triton, which is not installed (it has wheels for Linux); '
            'use backend="auto"'
        )
    return _imported(name)


@cache
def _imported(name: str) -> ModuleType:
    """import_module looks for more at every call.  Not sys.modules, which has a module that another thread is still
    importing."""
    return import_module(f"gpuaug.exec.{name}")


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def describe(plan: Plan, name: str, recipe: Any) -> str:
    """What an executor really runs of a plan, as text.  recipe: by which it draws, or why there is none"""
    made = load(name).steps(plan)
    lines = [f"backend {name}: {_count(len(made), 'step')}{_head(name, made, recipe, plan)}"]
    for number, step in enumerate(made, 1):
        lines.append(f"  {number}. {' -> '.join(map(words, step.passes))}")
        lines += [f"     {line}" for line in _about(step, name, number)]
    total, (height, width) = sum(step.reads + step.writes for step in made), made[0].loads[0].size
    about = f" (images differ in size: figures for {height}x{width})" if plan.frame.fixed is None else ""
    return "\n".join([*lines, f"  {_kilobytes(total)} an image in all{about}", f"  {_drawn(name, recipe)}"])


def _head(name: str, made: tuple[Step, ...], recipe: Any, plan: Plan) -> str:
    """What the steps come to."""
    if name == "triton":
        drawing = 0 if isinstance(recipe, str) else recipe.kernels
        labels = load(name).label_launches(plan.mixes)
        total = drawing + labels + sum(len(step.launches) for step in made)
        return (
            f", {_count(total, 'kernel')}"
            + (f", {drawing} of them to draw" if drawing else "")
            + (f", {labels} for labels" if labels else "")
        )
    return ", one pass after the other by torch operations" if name == "reference" else ""


def _about(step: Step, name: str, number: int) -> Iterator[str]:
    """A step, line by line."""
    # a crop reads its window, and not every sample asks for a statistic; within a pass torch moves more
    read, wrote = ("about ", "about ") if step.kind == "torch" else ("up to ", "")
    moved = f"reads {read}{_kilobytes(step.reads)}, writes {wrote}{_kilobytes(step.writes)} an image"
    yield f"{_shape(step.loads[0])} -> {_shape(step.stores[-1])}: {moved}"
    if step.kind == "kernels":
        yield f"{_count(len(step.launches), 'kernel')}: {', '.join(step.launches)}"
    if step.kind == "rows":
        yield "one compiled call, each sample from its source to its output"
    if step.fallback:
        yield f"runs by the reference, by torch operations: {step.fallback}"
    if step.kind == "torch" and any(isinstance(p, ir.Choice) for p in step.passes):
        yield "every branch runs for every sample"
    if number > 1 and name != "reference":
        yield f"a step of its own: {step.reason}"


def _drawn(name: str, recipe: Any) -> str:
    """How parameters come about."""
    if isinstance(recipe, str):
        return f"draws step by step: {recipe}"
    if name == "triton":
        return f"draws in {_count(recipe.kernels, 'kernel')}, {recipe.instructions} instructions a sample"
    return (
        f"draws in one compiled call, {recipe.instructions} instructions a sample; "
        "the first batch of a kind is drawn step by step"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _kilobytes(number: int) -> str:
    return f"{number / 1e3:.0f} kB"


def _shape(stored: Stored) -> str:
    height, width = stored.size
    return f"{stored.frame.channels}x{height}x{width} {str(stored.dtype).removeprefix('torch.')}"
