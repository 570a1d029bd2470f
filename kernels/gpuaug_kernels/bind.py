"""Launches without what Triton does at each of them: a kernel is compiled once, and then called with addresses.

`JITFunction.run` types every argument, hashes all compile-time constants and compares every global that the kernel
reads, each time.  Here that happens once for what a compiled kernel depends on: the card, the dtype and the alignment
of every tensor, and the class of every number.  What a launch then takes is the way that Triton's tutorials take, the
same from 3.6 on: `compiled[grid](*arguments)`, which reads the current stream and calls the hooks of profilers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from gpuaug_kernels import interpreted

Grid = tuple[int, int, int]
# False: every launch goes through Triton's own `run`
BOUND = True
# who is told of the launches of this context
_watcher: ContextVar["Watcher | None"] = ContextVar("gpuaug_watcher", default=None)


class Watcher(Protocol):
    """Who is told of launches, and of memory that outlives a call."""

    def launch(self, bound: "Bound", device: torch.device, grid: "Grid", arguments: tuple[Any, ...]) -> None:
        """Told instead of a launch, which `Bound.launch` makes."""

    def supplied(self, supply: Callable[[torch.device], Tensor], device: torch.device) -> Tensor:
        """What `supply` gives, at every call again."""

    def refuse(self, reason: str) -> None:
        """Told why launches of this context do not stand for the next ones of their kind."""


def complete(options: Mapping[str, object]) -> dict[str, object]:
    """How a kernel is compiled, with what Triton's versions and the environment would decide otherwise."""
    # products and sums in one operation, unless a kernel says no: values must not change with TRITON_DEFAULT_FP_FUSION,
    # nor with the default, which Triton 3.9 announces to change
    return {"enable_fp_fusion": True, **options}


class Bound:
    """A kernel with its compile-time constants and options, and what it was compiled to."""

    Job = tuple["Bound", Grid, tuple[Any, ...]]

    __slots__ = ("_alike", "_compiled", "constants", "kernel", "options", "plain", "tail")

    def __init__(self, kernel: Any, constants: Mapping[str, object], options: Mapping[str, object]):
        self.kernel, self.constants, self.options = kernel, dict(constants), complete(options)
        names = kernel.arg_names[len(kernel.arg_names) - len(constants) :]
        if not isinstance(kernel, JITFunction):
            interpreted.mend()
        # constants stand last in every kernel here; the interpreter has nothing to compile
        self.plain = not isinstance(kernel, JITFunction) or set(names) != set(constants)
        self.tail = () if self.plain else tuple(constants[name] for name in names)
        # arguments of which Triton looks at the type alone
        self._alike = frozenset(
            () if self.plain else (k for k, p in enumerate(kernel.params) if getattr(p, "do_not_specialize", False))
        )
        self._compiled: dict[tuple[Any, ...], Any] = {}

    def __call__(self, device: torch.device, grid: Grid, *arguments: Any) -> None:
        """Launch on the current stream of a device.  arguments: tensors there, and numbers, in the kernel's order"""
        watcher = _watcher.get()
        if watcher is None:
            self.launch(device, grid, arguments)
        else:
            watcher.launch(self, device, grid, arguments)

    def launch(self, device: torch.device, grid: Grid, arguments: tuple[Any, ...]) -> None:
        """The same, of which nobody is told."""
        if self.plain or not past_triton([self.kernel]):
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

    def compiled(self, kind: tuple[Any, ...]) -> Any:
        """What launches with arguments of a kind go through, as `kind_of` gives it; None where Triton's `run` makes
        them."""
        return self._compiled.get(kind)

    def kind_of(self, device: int, arguments: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[int]]:
        """What the kernel is compiled for, and the arguments as numbers."""
        kind: list[Any] = [device]
        values: list[int] = []
        for k, a in enumerate(arguments):
            if type(a) is int:
                values.append(a)
                short = -0x80000000 <= a < 0x80000000
                # as Triton tells them apart: a 1 is a constant, multiples of 16 are aligned, 32 bits or 64
                kind.append(short if k in self._alike else 1 if a == 1 else (a & 15 == 0, short))
            else:
                address = a.data_ptr()
                values.append(address)
                kind.append(a.dtype)
                kind.append(address & 15 == 0)
        return tuple(kind), values

    def _launch(self, device: int, grid: Grid, arguments: tuple[Any, ...]) -> None:
        key, values = self.kind_of(device, arguments)
        compiled = self._compiled.get(key)
        if compiled is not None:
            compiled[grid](*values, *self.tail)
            return
        made = self.kernel[grid](*arguments, **self.constants, **self.options)
        made = made.result() if hasattr(made, "result") else made
        # None: somebody who watches Triton compile took the kernel over
        if callable(getattr(type(made), "__getitem__", None)):
            self._compiled[key] = made

    def compile(self, grid: Grid, arguments: tuple[Any, ...]) -> None:
        """What the first launch with such arguments would compile, and nothing launched."""
        if not self.plain:
            self.kernel.run(*arguments, grid=grid, warmup=True, **self.constants, **self.options)


def on(device: torch.device) -> Any:
    """The device as the current one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def past_triton(kernels: Sequence[Any]) -> bool:
    """Whether launches may go past Triton's own `run`: nobody hooks into it."""
    return BOUND and not any([k.pre_run_hooks for k in kernels])


def supplied(supply: Callable[[torch.device], Tensor], device: torch.device) -> Tensor:
    """Memory that outlives a call: what `supply` gives, which whoever watches is told of."""
    watcher = _watcher.get()
    return supply(device) if watcher is None else watcher.supplied(supply, device)


def refuse(reason: str) -> None:
    """Tell whoever watches that more is done here at every call than launches."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher.refuse(reason)


def watched() -> bool:
    """Whether somebody is told of the launches of this context."""
    return _watcher.get() is not None


def current(device: torch.device) -> Any:
    """What a device stands for: itself, and where it names no card the one that is current."""
    return device if device.index is not None or device.type == "cpu" else driver.active.get_current_device()


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Within it somebody is told of launches."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


class _Collected(list["Bound.Job"]):
    """Launches that are not made."""

    def launch(self, bound: Bound, device: torch.device, grid: Grid, arguments: tuple[Any, ...]) -> None:
        self.append((bound, grid, arguments))

    def supplied(self, supply: Callable[[torch.device], Tensor], device: torch.device) -> Tensor:
        return supply(device)

    def refuse(self, reason: str) -> None:
        """They are compiled all the same."""


@contextmanager
def collecting() -> Iterator[list["Bound.Job"]]:
    """Within it nothing is launched: launches are put into a list, to be compiled."""
    found = _Collected()
    with watching(found):
        yield found
