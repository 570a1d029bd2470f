"""The clock.  The only place where a device is waited for, where contenders take turns, and where ratios are formed."""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Work = Callable[[], Any]
SHORTEST = 0.01  # seconds: shorter work is repeated within a round


@dataclass(frozen=True)
class Budget:
    """How long one workload is timed, all contenders together."""

    seconds: float = 4.0
    least: int = 5
    most: int = 25


@dataclass(frozen=True)
class Spread:
    """A median and its quartiles."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Any) -> "Spread":
        """Of a row of numbers."""
        low, middle, high = np.percentile(np.asarray(values, float), (25, 50, 75))
        return cls(float(middle), float(low), float(high), len(values))


def wait(device: torch.device) -> None:
    """Until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def once(work: Work, device: torch.device, repeat: int = 1) -> float:
    """Seconds of one call, to its end on the device."""
    wait(device)
    start = time.perf_counter()
    for _ in range(repeat):
        work()
    wait(device)
    return (time.perf_counter() - start) / repeat


def alternate(works: Mapping[str, Work], device: torch.device, budget: Budget) -> dict[str, list[float]]:
    """Seconds per call of every contender, round by round.  Who goes first changes, so that a machine that drifts hits
    all alike."""
    names = list(works)
    first = {name: once(works[name], device) for name in names}
    repeat = {name: max(1, min(1000, int(SHORTEST / max(seconds, 1e-7)))) for name, seconds in first.items()}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        end, turn = time.perf_counter() + budget.seconds, 0
        while turn < budget.least or (turn < budget.most and time.perf_counter() < end):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                seconds[name].append(once(works[name], device, repeat[name]))
            turn += 1
    finally:
        if collecting:
            gc.enable()
    return seconds


def ratio(theirs: list[float], ours: list[float]) -> Spread:
    """How many times as long they take, each round against ours of that round."""
    return Spread.of([a / b for a, b in zip(theirs, ours, strict=True)])


def copy_of(moved: int, device: torch.device) -> Work:
    """A copy that reads and writes `moved` bytes in all: what no program on this machine can do the same work faster
    than."""
    source = torch.zeros(max(1, moved // 2), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)
