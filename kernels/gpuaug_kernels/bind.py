"""Launches without what Triton does at each of them: a kernel is compiled once, and then called with addresses.

`JITFunction.run` types every argument, hashes all compile-time constants and compares every global that the kernel
reads, each time.  Here that happens once for what a compiled kernel depends on: the card, the dtype and the alignment
of every tensor, and the class of every number.  What a launch then takes is the way that Triton's tutorials take, the
same from 3.6 on: `compiled[grid](*arguments)`, which reads the current stream and calls the hooks of profilers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from triton.runtime import driver
from triton.runtime.jit import JITFunction

# False: every launch goes through Triton's own `run`
BOUND = True
# what a launch of this context becomes instead: something to compile
_collected: ContextVar["list[Bound.Job] | None"] = ContextVar("gpuaug_collected", default=None)


class Bound:
    """A kernel with its compile-time constants and options, and what it was compiled to."""

    Job = tuple["Bound", tuple[int, int, int], tuple[Any, ...]]

    __slots__ = ("_compiled", "constants", "kernel", "options", "plain", "tail")

    def __init__(self, kernel: Any, constants: Mapping[str, object], options: Mapping[str, object]):
        self.kernel, self.constants, self.options = kernel, dict(constants), dict(options)
        names = kernel.arg_names[len(kernel.arg_names) - len(constants) :]
        # constants stand last in every kernel here; the interpreter has nothing to compile
        self.plain = not isinstance(kernel, JITFunction) or set(names) != set(constants)
        self.tail = () if self.plain else tuple(constants[name] for name in names)
        self._compiled: dict[tuple[Any, ...], Any] = {}

    def __call__(self, device: torch.device, grid: tuple[int, int, int], *arguments: Any) -> None:
        """Launch on the current stream of a device.  arguments: tensors there, and numbers, in the kernel's order"""
        collected = _collected.get()
        if collected is not None:
            collected.append((self, grid, arguments))
            return
        if self.plain or not BOUND or self.kernel.pre_run_hooks:
            # triton launches on the current device, which need not be that of the images
            with nullcontext() if self.plain else on(device):
                self.kernel[grid](*arguments, **self.constants, **self.options)
            return
        here = driver.active.get_current_device()
        if device.index is not None and device.index != here:
            with torch.cuda.device(device):
                self._launch(device.index, grid, arguments)
        else:
            self._launch(here, grid, arguments)

    def _launch(self, device: int, grid: tuple[int, int, int], arguments: tuple[Any, ...]) -> None:
        kind: list[Any] = [device]
        values: list[int] = []
        for a in arguments:
            if type(a) is int:
                values.append(a)
                # as Triton tells them apart: a 1 is a constant, multiples of 16 are aligned, 32 bits or 64
                kind.append(1 if a == 1 else (a & 15 == 0, -0x80000000 <= a < 0x80000000))
            else:
                address = a.data_ptr()
                values.append(address)
                kind.append(a.dtype)
                kind.append(address & 15 == 0)
        key = tuple(kind)
        compiled = self._compiled.get(key)
        if compiled is not None:
            compiled[grid](*values, *self.tail)
            return
        made = self.kernel[grid](*arguments, **self.constants, **self.options)
        made = made.result() if hasattr(made, "result") else made
        # None: somebody who watches Triton compile took the kernel over
        if callable(getattr(type(made), "__getitem__", None)):
            self._compiled[key] = made

    def compile(self, grid: tuple[int, int, int], arguments: tuple[Any, ...]) -> None:
        """What the first launch with such arguments would compile, and nothing launched."""
        if not self.plain:
            self.kernel.run(*arguments, grid=grid, warmup=True, **self.constants, **self.options)


def on(device: torch.device) -> Any:
    """The device as the current one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def collecting() -> Iterator[list["Bound.Job"]]:
    """Within it nothing is launched: launches are put into a list, to be compiled."""
    found: list[Bound.Job] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)
