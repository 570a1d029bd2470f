"""How long a kernel takes on an H200, predicted from what its compiled code does: `python kernels/tools/model.py` says
how far that is from what was measured.

A time is a norm of the times that the parts of a card would need alone: a small exponent stands for parts that wait for
each other, a large one for parts that work side by side.  Four numbers are fitted to nine kernels that were measured
(h200.json, the group "fitted"); the rest are the card's.  The other groups of that file were not used for it: what the
model says of them is its error."""

import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from access import Totals

FILE = Path(__file__).with_name("h200.json")
MULTIPROCESSORS, CLOCK, BYTES = 132, 1.98e9, 4.25e12
# a multiprocessor's registers, warps, blocks and bytes of shared memory
REGISTERS, WARPS, BLOCKS, SHARED = 65536, 64, 32, 228 * 1024
# operations that the unit for conversions and transcendental functions runs, 16 lanes a cycle
CONVERSIONS = ("sitofp", "uitofp", "fptosi", "fptoui", "divf", "sqrt", "log", "exp", "floor", "ceil")


@dataclass(frozen=True)
class Rates:
    """What is fitted."""

    lines: float  # of the first cache that loads look up in a cycle
    sectors: float  # that stores send to the second cache, of all multiprocessors in a nanosecond
    wait: float  # nanoseconds of a load that another one waits for
    exponent: float


FITTED = Rates(lines=2.729, sectors=67.5, wait=547.6, exponent=2.535)


def resident(registers: int, warps: int, shared: int) -> int:
    """Programs of the grid that run on a multiprocessor at once."""
    of_registers = REGISTERS // (-(-registers // 8) * 8 * 32 * warps)
    return max(1, min(of_registers, WARPS // warps, BLOCKS, SHARED // (shared + 1024)))


def counts(totals: Totals, registers: int, warps: int, shared: int) -> dict[str, float]:
    """What decides, of a launch."""
    stores = [a for a in totals.accesses if a.kind != "load"]
    together = MULTIPROCESSORS * resident(registers, warps, shared)
    return {
        "issue slots": sum(totals.threads.values()) / 32,
        "conversions": sum(totals.threads.get(k, 0.0) for k in CONVERSIONS) / 32,
        "wavefronts": totals.total("wavefronts") + totals.shared,
        "load lines": totals.total("lines", "load"),
        "store sectors": float(sum(a.sectors for a in stores)),
        "bytes": 32 * (totals.read_sectors + totals.written_sectors),
        "waits": totals.programs * totals.rounds / together,
    }


def times(row: Mapping[str, Any], rates: Rates = FITTED) -> dict[str, float]:
    """Microseconds of each part of the card."""
    cycles = MULTIPROCESSORS * CLOCK / 1e6
    return {
        "issue": row["issue slots"] / 4 / cycles,
        "conversions": row["conversions"] * 2 / cycles,
        "first cache, data": row["wavefronts"] / cycles,
        "first cache, lines": row["load lines"] / rates.lines / cycles,
        "stores": row["store sectors"] / rates.sectors / 1e3,
        "memory": row["bytes"] / BYTES * 1e6,
        "waiting": row["waits"] * rates.wait / 1e3,
    }


def predict(row: Mapping[str, Any], rates: Rates = FITTED) -> float:
    """Microseconds of a launch."""
    total: float = sum(t**rates.exponent for t in times(row, rates).values()) ** (1 / rates.exponent)
    return total


@cache
def measured() -> tuple[dict[str, Any], ...]:
    """What was measured, with what was counted of it."""
    return tuple(json.loads(FILE.read_text(encoding="utf-8"))["rows"])


def error(rows: Sequence[Mapping[str, Any]], rates: Rates = FITTED) -> dict[str, float]:
    """How far predictions are off: root mean square and median of |log|, the worst ratio, and the mean one."""
    logs = sorted((math.log(predict(r, rates) / r["us"]) for r in rows), key=abs)
    return {
        "rms": math.sqrt(sum(v * v for v in logs) / len(logs)),
        "median": abs(logs[len(logs) // 2]),
        "worst": math.exp(logs[-1]),
        "mean": math.exp(sum(logs) / len(logs)),
    }


def fit(rows: Sequence[Mapping[str, Any]]) -> Rates:
    """The rates that are wrong by the least: a search from a coarse grid on, a coordinate at a time."""

    def loss(values: Sequence[float]) -> float:
        return error(rows, Rates(*values))["rms"]

    best = min(itertools.product((2.0, 4.0), (60.0, 100.0), (300.0, 900.0), (1.5, 2.5)), key=loss)
    step = 1.3
    while step > 1.0005:
        tried = [(*best[:k], best[k] * s, *best[k + 1 :]) for k in range(4) for s in (step, 1 / step)]
        found = min(tried, key=loss)
        if loss(found) < loss(best):
            best = found
        else:
            step = math.sqrt(step)
    return Rates(*best)


def main() -> int:
    """The command; returns its exit status."""
    print(f"rates: {FITTED}; refitted: {fit([r for r in measured() if r['group'] == 'fitted'])}")
    for group in dict.fromkeys(r["group"] for r in measured()):
        rows = [r for r in measured() if r["group"] == group]
        e = error(rows)
        print(
            f"\n{group}: {len(rows)} kernels, off by {100 * e['rms']:.0f} % (root mean square), "
            f"{100 * e['median']:.0f} % (median), at worst {e['worst']:.2f} times, on average {e['mean']:.2f} times"
        )
        for r in rows:
            parts = ", ".join(f"{k} {v:.0f}" for k, v in times(r).items())
            print(f"  {r['name']:44s} {r['us']:7.1f} us, predicted {predict(r):7.1f}: {parts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
