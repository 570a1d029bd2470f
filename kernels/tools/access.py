"""What the memory accesses of a kernel that is compiled ahead come to on a card, counted from layouts and addresses.

A few programs of the grid are run from the kernel's TTGIR (dry_run.py), with the parameters of a few samples that
workloads.json keeps; sums are scaled to the batch."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from arrays import Memory
from dry_run import Counts, Program
from gpuaug_kernels import aot
from lanes import SECTOR, Access

FILE = Path(__file__).with_name("workloads.json")
BATCH = 256
# programs that are run, each of another sample and tile
PROGRAMS = 16
IMAGES = ("source", "out")
# the share of neighbouring lanes that may lie in different rows, and how many times the sectors of its bytes a store
# may touch
LEAVING, WHOLE = 0.35, 1.3
SUMS = ("requests", "sectors", "lines", "wavefronts", "bytes", "least", "far", "steps")


@cache
def workloads() -> dict[str, list[list[list[float]]]]:
    """Of every kernel the rows of a few samples: floats, integers, doubles."""
    found: dict[str, list[list[list[float]]]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


@dataclass
class Totals:
    """Of one launch for a batch."""

    programs: int
    accesses: list[Access]  # scaled to the batch
    threads: dict[str, float]
    shared: float
    barriers: float  # of one program
    rounds: float  # of one program
    read_sectors: float  # sectors that a program reads at least once, summed over programs
    written_sectors: float
    footprint: float = 0.0  # bytes of the images that the batch reads and writes at least once
    extra: dict[str, float] = field(default_factory=dict)

    def total(self, name: str, kind: str | None = None) -> float:
        """A sum over accesses.  kind: only these"""
        return float(sum(getattr(a, name) for a in self.accesses if kind in (None, a.kind)))


def arguments(
    entry: dict[str, Any], memory: Memory, rows: list[list[list[float]]]
) -> tuple[dict[str, Any], tuple[int, int]]:
    """The arguments of a launch on the samples that are kept, and where the source lies, [first, last)."""
    samples = len(rows[0])
    given, (height, width) = entry["source"], entry["size"]
    tables = [np.array(v, dtype) for v, dtype in zip(rows, (np.float32, np.int32, np.float64), strict=True)]
    _, channels, in_height, in_width = given["shape"]
    size = {"uint8": 1, "bfloat16": 2, "float16": 2, "uint16": 2}.get(given["dtype"], 4)
    ragged, strides = given["strides"] is None, given["strides"]
    step = channels * in_height * in_width if ragged else strides[0]
    images = memory.place(np.zeros(samples * step * size + 64, np.uint8), "source")
    source = images
    if ragged:
        places = images + size * step * np.arange(samples, dtype=np.int64)
        if given.get("planar"):
            strides = np.array([in_width, in_height * in_width], np.int64)
            places = np.concatenate([places[:, None], np.broadcast_to(strides, (samples, 2))], 1)
        source = memory.place(places, "addresses")
    written = entry["program"]["written"]
    cells = memory.place(np.zeros(samples * max(entry["cells"], 1), np.int64), "cells")
    if entry["reduction"]:
        out = cells
    else:
        bytes_ = {"uint8": 1, "bfloat16": 2, "float16": 2, "uint16": 2}.get(entry["out"]["dtype"], 4)
        out = memory.place(np.zeros(samples * 4 * max(written, 1) * height * width * bytes_, np.uint8), "out")
    statistics = np.full((samples, entry["widths"][3]), 0.5, np.float32)
    n, c, y, x = aot.source_of(entry).strides()
    found = {
        "source": source,
        "floats": memory.place(tables[0], "floats"),
        "integers": memory.place(tables[1], "integers"),
        "doubles": memory.place(tables[2], "doubles"),
        "statistics": memory.place(statistics, "statistics"),
        "out": out,
        "cells": cells,
        "stride_n": n,
        "stride_c": c,
        "stride_y": y,
        "stride_x": x,
        "height": height,
        "width": width,
    }
    pointers = ("source", "floats", "integers", "doubles", "statistics", "out", "cells")
    return {k: np.int64(v) if k in pointers else int(v) for k, v in found.items()}, (
        images,
        images + samples * step * size,
    )


def count(entry: dict[str, Any], kernel: Any, programs: int = PROGRAMS) -> Totals:
    """What one launch of a batch does.  kernel: what aot.compiled gives"""
    from gpuaug_kernels.chain import TILE

    program = Program(kernel.asm["ttgir"], kernel.asm["ptx"])
    rows = workloads()[entry["name"]]
    memory = Memory()
    given, source = arguments(entry, memory, rows)
    groups = entry["program"]["groups"]
    grid = (len(rows[0]) * groups, -(-entry["size"][1] // TILE), -(-entry["size"][0] // TILE))
    each = []
    for k in range(programs):
        # steps without a common divisor meet samples, rows and columns in all combinations
        at = ((k * groups) % grid[0] + k % groups, (5 * k + k // 7) % grid[1], (3 * k + 1) % grid[2])
        each.append(program.run(memory, given, grid, at))
    launched = BATCH * grid[0] // len(rows[0]) * grid[1] * grid[2]
    return _scaled(each, launched, source, memory)


def _scaled(each: list[Counts], launched: int, source: tuple[int, int], memory: Memory) -> Totals:
    factor = launched / len(each)
    accesses: dict[int, Access] = {}
    for counts in each:
        for key, a in counts.accesses.items():
            before = accesses.get(key)
            if before is None:
                accesses[key] = replace(a)
            else:
                for name in SUMS:
                    setattr(before, name, getattr(before, name) + getattr(a, name))
    for a in accesses.values():
        for name in SUMS:
            setattr(a, name, getattr(a, name) * factor)
    threads: dict[str, float] = {}
    for counts in each:
        for name, value in counts.threads.items():
            threads[name] = threads.get(name, 0.0) + value * factor
    touched = [{k: len(v) for k, v in c.global_sectors.items()} for c in each]
    return Totals(
        launched,
        list(accesses.values()),
        threads,
        sum(c.shared for c in each) * factor,
        sum(c.barriers for c in each) / len(each),
        sum(c.rounds for c in each) / len(each),
        sum(t.get("load", 0) for t in touched) * factor,
        sum(t.get("store", 0) for t in touched) * factor,
    )


def pixel_accesses(accesses: Iterable[Access]) -> list[Access]:
    """Those that lanes make to images, each its own."""
    return [a for a in accesses if not a.scalar and a.buffer in IMAGES]


def ratio(accesses: Iterable[Access]) -> float:
    """Sectors that requests touch, over those that would hold their bytes; 0 where there are none."""
    found = list(accesses)
    least = sum(a.least for a in found)
    return sum(a.sectors for a in found) / least if least else 0.0


def faults(accesses: Iterable[Access]) -> list[str]:
    """What must not be: lanes of a warp that leave a row of an image before it ends, and stores of parts of sectors.

    A warp that walks along rows of 32 pixels changes its row at most with every fourth lane, a rotated one oftener."""
    found = []
    for a in pixel_accesses(accesses):
        where = f"{a.kind} at {a.place[0]}:{a.place[1]}"
        if a.steps and a.far > LEAVING * a.steps:
            found.append(f"{where}: {a.far / a.steps:.0%} of neighbouring lanes lie in different rows")
        if a.kind == "store" and a.sectors > WHOLE * a.least:
            found.append(f"{where}: {a.sectors / a.least:.2f} times the sectors of its bytes")
    return found


__all__ = [
    "BATCH",
    "FILE",
    "SECTOR",
    "Totals",
    "arguments",
    "count",
    "faults",
    "pixel_accesses",
    "ratio",
    "workloads",
]
