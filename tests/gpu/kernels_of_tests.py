"""Which kernels the tests for a card compile, found without one: a plugin of pytest, for the interpreter.

    GPUAUG_DEVICE=cpu GPUAUG_KERNELS=FILE python -m pytest tests/gpu -p kernels_of_tests

writes FILE: a list of {"test": name, "kernels": [number, ...]} and one of what each kernel is compiled for, pickled.
What a card does otherwise than a host is taken as a card does it: the draws are kernels, found at the first call of a
kind, and 16 bits are written as such.  Kernels are not run, and no values are compared: what counts is what is
launched."""

import os
import pickle
import sys
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

FILE = "GPUAUG_KERNELS"
# as Triton names what pointers point to
POINTS = {
    torch.uint8: "*u8",
    torch.bool: "*i1",
    torch.uint16: "*u16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
}


class Kernel(NamedTuple):
    """What one kernel is compiled for."""

    module: str
    name: str
    constants: tuple[tuple[str, Any], ...]
    options: tuple[tuple[str, Any], ...]
    types: tuple[tuple[str, str], ...]  # of the other arguments; "constexpr" for a 1
    aligned: tuple[str, ...]


class Recorder:
    """The kernels of each test."""

    def __init__(self) -> None:
        self.known: dict[Kernel, int] = {}
        self.tests: list[dict[str, Any]] = []
        self._drawn: dict[tuple[int, Hashable], tuple[Any, Any]] = {}

    def begin(self, name: str, group: str) -> None:
        """Another test, whose policies are its own.  group: of tests that one process runs"""
        self.tests.append({"test": name, "group": group, "kernels": []})
        self._drawn = {}

    def add(self, bound: Any, arguments: tuple[Any, ...], **other: Any) -> None:
        """A launch.  other: constants that are otherwise on a card"""
        kernel = bound.kernel
        types, aligned = [], []
        for name, a in zip(kernel.arg_names, arguments, strict=False):
            if isinstance(a, Tensor):
                types.append((name, POINTS[a.dtype]))
                if a.data_ptr() % 16 == 0:
                    aligned.append(name)
                continue
            kept = name in _UNSPECIALISED.get(_name(kernel), ())
            wide = "i32" if -(2**31) <= a < 2**31 else "i64" if a < 2**63 else "u64"
            types.append((name, "constexpr" if a == 1 and not kept else wide))
            if a % 16 == 0 and not kept:
                aligned.append(name)
        constants = tuple((bound.constants | other).items())
        made = Kernel(
            kernel.fn.__module__, _name(kernel), constants, tuple(bound.options.items()), tuple(types), tuple(aligned)
        )
        number = self.known.setdefault(made, len(self.known))
        if self.tests and number not in self.tests[-1]["kernels"]:
            self.tests[-1]["kernels"].append(number)

    def draws(self, kind: tuple[int, Hashable], keys: Any, frame: Any, build: Any) -> None:
        """The kernels that draw a kind of batch."""
        from gpuaug_kernels import draws
        from gpuaug_kernels.bind import Bound

        from gpuaug.rng import MIX, counter_1
        from gpuaug.trace import device, inputs
        from gpuaug.trace.recipe import trace_build

        if kind not in self._drawn:
            program = slots = None
            with suppress(Exception):
                recipe = trace_build(frame(), build)
                if not recipe.obstacle:
                    program, slots = device.assemble(recipe.trace, recipe.tables, recipe.slots), recipe.slots
            self._drawn[kind] = program, slots
        program, slots = self._drawn[kind]
        if program is None or not len(keys.ids):
            return
        longs, epoch, seed = keys.ids.new_zeros(16), keys.epoch, keys.seed
        who = (longs, longs, longs.new_zeros(()) if isinstance(epoch, Tensor) else epoch)
        words = draws.words(seed)
        buffers = tuple(torch.empty(16, dtype=d) for d in draws.BUFFERS.values())
        self.add(program.bound, (*who, longs, longs, longs, *words, *buffers, len(keys.ids)))
        for slot in range(64):
            if inputs.partner(slot) in slots:
                constants = draws.partner_constants(counter_1(MIX, slot), False)
                bound = Bound(draws.find_partners, constants, {"num_warps": draws.WARPS})
                self.add(bound, (*who, *words, longs, longs, len(keys.ids)))

        for leader, shared in inputs.shared(slots).items():
            constants = draws.share_constants(counter_1(MIX, leader), shared, False)
            bound = Bound(draws.share_words, constants, {"num_warps": draws.WARPS})
            self.add(bound, (*who, *words, longs, longs, len(keys.ids)))

    def write(self, path: Path) -> None:
        """All of it."""
        path.write_bytes(pickle.dumps((self.tests, list(self.known))))


_UNSPECIALISED = {
    "chain": ("height",),
    "finish": ("total",),
    **dict.fromkeys(("draw_parameters", "find_partners", "share_words"), ("low", "high", "epoch", "n")),
}
RECORDER = Recorder()


def _name(kernel: Any) -> str:
    name: str = kernel.fn.__name__
    return name


def pytest_configure(config: Any) -> None:
    """Watch every launch."""
    if FILE not in os.environ:
        return
    import compare
    from gpuaug_kernels import bind, launch
    from triton.runtime.interpreter import InterpretedFunction

    import gpuaug  # noqa: F401
    from gpuaug import exec
    from gpuaug.trace import cache

    images, prepare = launch.images, cache.Recipes.prepare
    # of the images that are being made: what a card would write
    asked: list[tuple[Any, ...]] = []

    def launched(self: Any, device: Any, grid: Any, arguments: Any) -> None:
        other, given = {}, arguments
        if asked and _name(self.kernel) == "chain" and self.constants["REDUCE"] == -1:
            source, program, size, channels_last = asked[-1]
            layout = launch.output_layout(source, program, channels_last, size[1], torch.bfloat16)
            other = {"LAYOUT": layout}
            given = (*arguments[:5], torch.empty(16, dtype=torch.bfloat16), *arguments[6:])
        RECORDER.add(self, given, **other)

    def of(
        source: Any,
        program: Any,
        tables: Any,
        statistics: Any,
        size: Any,
        dtype: Any,
        last: Any,
        *more: Any,
        **named: Any,
    ) -> Any:
        half = dtype == torch.bfloat16
        if half:
            asked.append((source, program, size, last))
        try:
            return images(source, program, tables, statistics, size, dtype, last, *more, **named)
        finally:
            if half:
                asked.pop()

    def prepared(self: Any, kind: Any, keys: Any, size: Any, frame: Any, build: Any) -> Any:
        RECORDER.draws((id(self), kind), keys, frame, build)
        return prepare(self, kind, keys, size, frame, build)

    no_card()
    chosen = exec.choose
    for module in list(sys.modules.values()):
        if getattr(module, "choose", None) is chosen:
            module.choose = lambda backend, device: chosen("triton" if backend == "auto" else backend, device)  # type: ignore[attr-defined]
    # what comes out means nothing
    torch.equal = torch.allclose = lambda *_, **__: True  # type: ignore[assignment]
    compare.compare, compare.changed = lambda *_, **__: None, lambda *_: 0.35  # type: ignore[assignment]
    InterpretedFunction.run = lambda *_, **__: None
    bind.Bound.launch = launched  # type: ignore[method-assign]
    launch.images = of
    cache.Recipes.prepare = prepared  # type: ignore[method-assign]


def no_card() -> None:
    """Streams, graphs and memory of a card, of which there is none, do nothing."""
    for name in ("synchronize", "set_sync_debug_mode", "_sleep", "reset_peak_memory_stats"):
        setattr(torch.cuda, name, lambda *_: None)
    for name in ("Stream", "stream", "current_stream", "CUDAGraph", "graph"):
        setattr(torch.cuda, name, mock.MagicMock())
    torch.cuda.memory_allocated = torch.cuda.max_memory_allocated = lambda *_: 0  # type: ignore[assignment]
    torch.compile = lambda step, **_: step  # type: ignore[assignment]


def pytest_runtest_setup(item: Any) -> None:
    """Another test."""
    group = item.get_closest_marker("xdist_group")
    RECORDER.begin(item.nodeid, group.args[0] if group else item.nodeid)


def pytest_sessionfinish(session: Any) -> None:
    """Write what was found."""
    if FILE in os.environ:
        RECORDER.write(Path(os.environ[FILE]))
