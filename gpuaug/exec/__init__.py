"""Executors: what runs a plan.  Chosen by name, imported when chosen.

Each is a module with `prepare(plan)`, all that needs no image, by operations of torch alone; `execute(prepared, source)`; `run(plan, source)`, the
two together; and `lacks(launch, frame)`: why it cannot run a launch itself, so that the reference does.  It has `regroup(launches)` where it makes
other launches of a plan's passes than the plan says.
"""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch

from gpuaug import ir
from gpuaug.fuse import Plan

BACKENDS = ("auto", "reference", "cpu", "triton")


def check(backend: str) -> None:
    """Raise ValueError for what is no backend."""
    if backend not in BACKENDS:
        do = ' "triton" runs on CUDA, and "auto" takes it for images there' if backend in ("cuda", "gpu") else ""
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}{do and ';' + do}")


def choose(backend: str, device: torch.device) -> str:
    """The executor that "auto" stands for on a device; any other name stands for itself."""
    if backend != "auto":
        return backend
    if device.type == "cuda" and find_spec("triton"):
        return "triton"
    return "cpu" if device.type == "cpu" else "reference"


def load(name: str) -> ModuleType:
    """An executor by name; raises RuntimeError naming what is not installed."""
    if name == "triton" and not find_spec("triton"):
        raise RuntimeError('backend "triton" needs the package triton, which is not installed (it has wheels for Linux); use backend="auto"')
    return import_module(f"gpuaug.exec.{name}")


def describe(plan: Plan, name: str) -> str:
    """A plan as text: launches with the bytes that each must move per image, why the chain broke, and what falls back."""
    executor, frame = load(name), plan.frame
    launches = getattr(executor, "regroup", tuple)(plan.launches)
    lines = [f"backend {name}: {len(launches)} launch{'es' if len(launches) != 1 else ''}"]
    read, total, ragged = frame.dtype.itemsize, 0, frame.fixed is None
    for number, launch in enumerate(launches, 1):
        before, frame = frame, ir.after(launch.passes, frame)
        written = 4 if number < len(launches) else frame.dtype.itemsize
        moved = _values(before) * read + _values(frame) * written
        total += moved
        lines.append(f"  {number}. {' -> '.join(map(_name, launch.passes))}")
        lines.append(f"     {_shape(before)} -> {_shape(frame)}: {moved / 1e3:.0f} kB an image; new launch: {launch.reason}")
        fallback = executor.lacks(launch, before)
        if fallback:
            lines.append(f"     runs by the reference: {fallback}")
        demands = {type(p).__name__: p.statistic for p in ir.walk(launch.passes) if isinstance(p, ir.Pointwise) and p.statistic}
        lines += [f"     {stage} reads a statistic of the whole image ({statistic}) first" for stage, statistic in demands.items()]
        read = written
    about = " (images differ in size: figures for the first)" if ragged else ""
    return "\n".join([*lines, f"  {total / 1e3:.0f} kB an image in all{about}"])


def _values(frame: ir.Frame) -> int:
    height, width = frame.size[0].tolist()
    return int(height * width * frame.channels)


def _shape(frame: ir.Frame) -> str:
    height, width = frame.size[0].tolist()
    return f"{frame.channels}x{height}x{width} {str(frame.dtype).removeprefix('torch.')}"


def _name(p: ir.Pass) -> str:
    if not isinstance(p, ir.Choice):
        return type(p).__name__
    branches = ["+".join(map(_name, b)) or "nothing" for b in p.branches]
    return f"{p.index.shape[1]} of ({' | '.join(branches)})" if p.index.shape[1] > 1 else f"one of ({' | '.join(branches)})"
