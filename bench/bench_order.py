"""What the order of an epoch costs: nanoseconds an id, by kind of order, turn by turn.

python -m bench.bench_order [--out FILE].  One thread.  `torch.randperm`, which others use, is beside it: it draws and
holds a whole epoch."""

import argparse
import json
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.timing import Budget, Spread, alternate
from gpuaug.data import BatchSampler, order

# one block of the samplers
IDS = 1 << 13
IMAGENET = 1_281_167


def orders() -> dict[str, order.Order]:
    """An order of each kind."""
    labels = np.arange(IMAGENET) * 1000 // IMAGENET
    return {
        "stored permutation, 16 384": order.make(1 << 14),
        "1 281 167 samples": order.make(IMAGENET),
        "10^9 samples": order.make(10**9),
        "10^9 samples in 100 000 shards": order.make(10**9, order="shards", shards=[10_000] * 100_000),
        "1 000 balanced classes of 1 281": order.make(IMAGENET, weights="balanced", labels=labels),
        "100 000 balanced classes of 10": order.make(
            10**6, weights="balanced", labels=np.repeat(np.arange(100_000), 10)
        ),
    }


def keys(sampler: BatchSampler) -> Callable[[], None]:
    """A block of batches of one rank, as a DataLoader takes them."""
    batches: Iterator[Any] = iter(sampler)

    def take() -> None:
        nonlocal batches
        if sum(map(len, islice(batches, IDS // sampler.batch_size))) < IDS:
            batches = iter(sampler)

    return take


def measure(budget: Budget) -> list[dict[str, Any]]:
    """All of it, in turns."""
    works: dict[str, Callable[[], Any]] = {}
    for name, made in orders().items():
        epoch, positions = made.epoch(3, 5), (np.arange(IDS) + made.length // 2 - IDS // 2) % made.length
        ids, _ = epoch.at(positions)
        if not (ids >= 0).all() or len(np.unique(ids)) != IDS:
            raise AssertionError(f"{name}: ids come twice")
        works[name] = lambda epoch=epoch, positions=positions: epoch.at(positions)  # type: ignore[misc]
    works["keys of batches of 256, rank 3 of 8"] = keys(BatchSampler(10**9, 256, rank=3, world_size=8))
    long, short = order.make(10**9), order.make(1 << 14)
    works["an epoch's keys: 10^9 samples"] = lambda: long.epoch(3, 5)
    works["an epoch's keys: stored, 16 384"] = lambda: short.epoch(3, 5)
    works["torch.randperm of 1 281 167"] = lambda: torch.randperm(IMAGENET)
    seconds, rows = alternate(works, torch.device("cpu"), budget), []
    for name, taken in seconds.items():
        whole = "keys:" in name or "randperm" in name
        unit, scale = ("microseconds", 1e6) if whole else ("nanoseconds an id", 1e9 / IDS)
        rows.append({"work": name, "unit": unit, **vars(Spread.of([scale * s for s in taken]))})
    return rows


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(Budget(20, 9, 60))
    for r in rows:
        print(f"{r['work']:36s} {r['median']:9.1f} {r['unit']} ({r['low']:.1f} to {r['high']:.1f}, n = {r['n']})")
    if given.out:
        about = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "numpy": version("numpy"),
            "torch": version("torch"),
            "ids": IDS,
        }
        given.out.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
