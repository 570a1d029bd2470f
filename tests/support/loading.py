"""What the tests of the loader share: a small data set in files, a policy, a limit on every wait, and what may not be left
behind."""

import faulthandler
import gc
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import encoded
import numpy as np
import torch

import gpuaug as ga

N, CLASSES = 37, 4


@cache
def files(count: int = N) -> list[bytes]:
    """Encoded photographs of different sizes; those next to each other differ."""
    out = []
    for i in range(count):
        picture = encoded.photograph(40 + i % 7 * 3, 30 + i % 5 * 4).rotate(7 * i)
        form = "PNG" if i % 11 == 5 else "JPEG"
        out.append(encoded.encode(picture, form, **({"quality": 90} if form == "JPEG" else {})))
    return out


def samples(count: int = N) -> list[tuple[bytes, int]]:
    """A data set in memory: (encoded bytes, class)."""
    return [(data, i % CLASSES) for i, data in enumerate(files(count))]


def folder(root: Path, count: int = N, bad: dict[int, bytes | None] | None = None) -> Path:
    """Class folders, in the order of ids; bad: what stands in a file instead, None for no file at all."""
    per_class = -(-count // CLASSES)
    for i, data in enumerate(files(count)):
        place = root / f"class_{i // per_class}" / f"{i:04d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return root


def policy(seed: int = 5) -> ga.Policy:
    """Draws places, colours and noise; no mix."""
    return ga.Policy(
        [ga.RandomResizedCrop(9), ga.RandomHorizontalFlip(), ga.ColorJitter(0.3, 0.3), ga.SaltAndPepper(0.1)], seed=seed
    )


def loader(source: Any = None, its_policy: Any = "usual", batch_size: int = 4, **options: Any) -> ga.data.Loader:
    """A loader of the small data set that decodes by Pillow, unless options say otherwise."""
    options = {"decoder": "pillow", "device": "cpu", "num_threads": 1, "seed": 3, **options}
    return ga.data.Loader(
        samples() if source is None else source,
        policy() if its_policy == "usual" else its_policy,
        batch_size,
        **options,
    )


Row = tuple[int, int, int, bytes]


def rows(batches: Any, padding: bool = False) -> list[Row]:
    """(epoch, id, occurrence, pixels) of every valid sample, in order."""
    out = []
    for b in batches:
        for i, valid in enumerate(b.valid.tolist()):
            if valid or padding:
                pixels = b.images[i].contiguous().numpy().tobytes()
                out.append((b.epoch, int(b.ids[i]), int(b.occurrence[i]), pixels))
    return out


def steps(loaders: list[ga.data.Loader]) -> list[Row]:
    """What all ranks together get, step by step: the global sequence."""
    out: list[Row] = []
    taken = [list(each) for each in loaders]
    assert len({len(t) for t in taken}) == 1, "ranks take different numbers of batches"
    for batches in zip(*taken, strict=True):
        out += rows(batches)
    return out


@cache
def whole(epoch: int = 0, seed: int = 3) -> tuple[Row, ...]:
    """An epoch of the usual loader, sample by sample."""
    with loader(batch_size=1, seed=seed) as one:
        one.set_epoch(epoch)
        return tuple(rows(one))


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """End the tests, with every thread's stack, where something hangs."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def left_behind(before: set[threading.Thread], patience: float = 5.0) -> list[str]:
    """Threads that were not there before, once they had time to end; the CPU executor's own stay for all."""
    until = time.monotonic() + patience
    while True:
        gc.collect()
        left = [t.name for t in set(threading.enumerate()) - before if not t.name.startswith("gpuaug_")]
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.02)


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """The same numbers, to the bit."""
    return a.dtype == b.dtype and bool(np.array_equal(a.numpy(), b.numpy()))
