"""What a process and its children cost: seconds of CPU, and memory.  Linux only, from /proc."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """A process and all below it that live."""
    found, left = [], [pid]
    while left:
        one = left.pop()
        found.append(one)
        for task in _names(f"/proc/{one}/task"):
            left += [int(child) for child in _text(f"/proc/{one}/task/{task}/children").split()]
    return found


def cpu_seconds(pid: int) -> float:
    """Of a process, of its living children, and of those that it has waited for."""
    total = 0
    for one in tree(pid):
        # the name of a program may hold spaces and brackets
        fields = _text(f"/proc/{one}/stat").rpartition(")")[2].split()
        total += sum(map(int, fields[11:15])) if fields else 0
    return total / _TICK


def memory(pid: int) -> int:
    """Bytes of a process and its children: PSS, which counts a page that several share in parts, so that their sum is
    what they hold together."""
    total = 0
    for one in tree(pid):
        line = next((row for row in _text(f"/proc/{one}/smaps_rollup").splitlines() if row.startswith("Pss:")), None)
        total += int(line.split()[1]) * 1024 if line else 0
    return total


class Peak:
    """The most memory that was seen."""

    bytes = 0


@contextmanager
def peak_memory(pid: int, every: float = 0.05) -> Iterator[Peak]:
    """Look at a process and its children while something runs."""
    peak, over = Peak(), threading.Event()

    def look() -> None:
        while True:
            peak.bytes = max(peak.bytes, memory(pid))
            if over.wait(every):
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _text(path: str) -> str:
    """Of a process that may end meanwhile."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def settled(pid: int, seconds: float = 20.0) -> None:
    """Wait until a process and its children have nothing to do."""
    end = time.monotonic() + seconds
    before = cpu_seconds(pid)
    while time.monotonic() < end:
        time.sleep(0.25)
        now = cpu_seconds(pid)
        if now - before < 0.02:
            return
        before = now
