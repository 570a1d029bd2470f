"""The clock of a card: events on its stream, turns that alternate, graphs, and what the host spends.  On a CPU, for
trying the bench, its own clock."""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from bench.timing import Spread, Work, wait

BIG = 2**31  # bytes of the copy that gives the bandwidth: far more than any cache


@dataclass(frozen=True)
class Pace:
    """How long a set of contenders is timed together, and for how many rounds.  shortest: seconds of a turn; shorter
    work is repeated."""

    seconds: float
    least: int = 5
    most: int = 100
    shortest: float = 0.004


def turn(work: Work, device: torch.device, repeat: int) -> float:
    """Seconds of a call between two events on the current stream, the card idle before it."""
    wait(device)
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(repeat):
            work()
        return (time.perf_counter() - start) / repeat
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(repeat):
        work()
    last.record()
    wait(device)
    return float(first.elapsed_time(last)) / 1e3 / repeat


def alternate(works: Mapping[str, Work], device: torch.device, pace: Pace) -> dict[str, list[float]]:
    """Seconds per call of every contender, round by round; who goes first changes, so that a card that drifts hits all
    alike."""
    names = list(works)
    for name in names:
        turn(works[name], device, 1)
    first = {name: turn(works[name], device, 1) for name in names}
    repeat = {name: max(1, min(200, int(pace.shortest / max(s, 1e-7)))) for name, s in first.items()}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        end, done = time.perf_counter() + pace.seconds, 0
        while done < pace.least or (done < pace.most and time.perf_counter() < end):
            shift = done % len(names)
            for name in names[shift:] + names[:shift]:
                seconds[name].append(turn(works[name], device, repeat[name]))
            done += 1
    finally:
        gc.enable()
    return seconds


def host(work: Work, device: torch.device, times: int) -> list[float]:
    """Seconds until a call returns to the host, which does not wait; the queue is empty before each, and the first
    quarter is left out."""
    found = []
    for _ in range(times):
        wait(device)
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    wait(device)
    return found[len(found) // 4 :]


def captured(work: Work, device: torch.device, times: int) -> Work:
    """A graph of so many calls, to be replayed; on a CPU the calls themselves."""

    def several() -> None:
        for _ in range(times):
            work()

    if device.type != "cuda":
        return several
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        several()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        several()
    return graph.replay


def bandwidth(device: torch.device, pace: Pace, size: int = BIG) -> Spread:
    """Bytes a second, read and written, of a copy on the device."""
    source = torch.empty(size, dtype=torch.uint8, device=device).fill_(3)
    target = torch.empty_like(source)
    seconds = alternate({"copy": lambda: target.copy_(source)}, device, pace)["copy"]
    return Spread.of([2 * size / s for s in seconds])


def peak(work: Work, device: torch.device) -> int | None:
    """Bytes that a call holds at most beyond what was held before, its output among them; None on a CPU."""
    if device.type != "cuda":
        work()
        return None
    work()
    wait(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    out = work()
    wait(device)
    del out
    return int(torch.cuda.max_memory_allocated(device) - before)


@dataclass(frozen=True)
class Launched:
    """One launch of a Triton kernel, to be made again with the very same memory."""

    kernel: Any
    arguments: tuple[Any, ...]
    named: dict[str, Any]

    @property
    def name(self) -> str:
        """Module and name of the kernel."""
        function = getattr(self.kernel, "fn", self.kernel)
        return f"{getattr(function, '__module__', '')}.{getattr(function, '__name__', '')}".rsplit(
            "gpuaug_kernels.", 1
        )[-1]

    def again(self) -> None:
        """Launch it once more."""
        self.kernel.run(*self.arguments, **self.named)


def launches(work: Callable[[], Any]) -> list[Launched]:
    """The launches of Triton kernels that a call makes; what they read and write is kept alive by them."""
    from gpuaug_kernels import bind
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    found: list[Launched] = []

    def recorded(whole: Any) -> Any:
        def run(self: Any, *arguments: Any, **named: Any) -> Any:
            found.append(Launched(self, arguments, named))
            return whole(self, *arguments, **named)

        return run

    with (
        # through Triton's own launcher, each of them
        mock.patch.object(bind, "BOUND", False),
        mock.patch.object(JITFunction, "run", recorded(JITFunction.run)),
        mock.patch.object(InterpretedFunction, "run", recorded(InterpretedFunction.run)),
    ):
        work()
    return found
