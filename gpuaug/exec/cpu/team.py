"""Threads that work on one batch together."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any


def together(parts: Sequence[Callable[[], Any]]) -> None:
    """Call all of these at once, the first on this thread; raises what one of them raises, when all are done."""
    if len(parts) == 1:
        parts[0]()
        return
    pool = _pool(os.getpid(), len(parts) - 1)
    helpers = [pool.submit(p) for p in parts[1:]]
    try:
        parts[0]()
    finally:
        for h in helpers:
            h.result()


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads kept between calls.  A forked process, which has none of its parent's, makes its own."""
    return ThreadPoolExecutor(threads, "gpuaug")
