"""Threads that work on one batch together."""

import os
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from queue import SimpleQueue
from typing import Any

Part = Callable[[], Any]


def together(parts: Sequence[Part]) -> None:
    """Call all of these at once, the first on this thread; raises what one of them raises, when all are done."""
    if len(parts) == 1:
        parts[0]()
        return
    done: SimpleQueue[BaseException | None] = SimpleQueue()
    _team(os.getpid()).take(parts[1:], done)
    try:
        parts[0]()
    finally:
        errors = [done.get() for _ in parts[1:]]
    for error in filter(None, errors):
        raise error


class _Team:
    """Threads kept between calls.  They are woken by a queue alone: futures cost three times as much, with the
    interpreter's lock held."""

    def __init__(self) -> None:
        self._parts: SimpleQueue[tuple[Part, SimpleQueue[BaseException | None]]] = SimpleQueue()
        self._threads, self._lock = 0, threading.Lock()

    def take(self, parts: Sequence[Part], done: "SimpleQueue[BaseException | None]") -> None:
        """Have every part called by a thread, which then puts into `done` what was raised, or None."""
        with self._lock:
            while self._threads < len(parts):
                threading.Thread(target=self._work, name=f"gpuaug-{self._threads}", daemon=True).start()
                self._threads += 1
        for part in parts:
            self._parts.put((part, done))

    def _work(self) -> None:
        while True:
            part, done = self._parts.get()
            raised = None
            try:
                part()
            except BaseException as error:
                raised = error
            # nothing of a call is held while the next one is waited for: its memory is to be used again
            del part
            done.put(raised)
            del done, raised


@lru_cache(maxsize=1)
def _team(process: int) -> _Team:
    """The threads of this process: a forked one has none of its parent's."""
    return _Team()
