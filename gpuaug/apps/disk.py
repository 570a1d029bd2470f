"""What commands that write for a long time have in common: a journal that outlives a kill, a disk that may fill up, and
a progress bar."""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def alone(journal: Path, target: Path) -> Iterator[FileIO]:
    """The journal of a target, which one process at a time writes."""
    # without a buffer: what a full disk refused would be tried again, and refused, when the file is closed
    with open(journal, "ab", buffering=0) as book:
        try:
            fcntl.flock(book, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{target} is being written by another process; wait for it") from None
        yield book


def note(book: FileIO, at: int, told: dict[str, Any]) -> int:
    """Add a line and see it to the disk."""
    book.truncate(at)
    line = json.dumps(told).encode() + b"\n"
    left = memoryview(line)
    while left:
        left = left[book.write(left) :]
    os.fsync(book.fileno())
    return at + len(line)


def lines(journal: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """What a journal says, with the bytes of each line; a last line that was cut off counts for nothing."""
    with open(journal, "rb") as book:
        for line in book:
            if not line.endswith(b"\n"):
                return
            yield json.loads(line), len(line)


@contextmanager
def full(target: Path) -> Iterator[None]:
    """A disk that fills up, or a quota that ends, in a sentence that says how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise ValueError(
            f"the disk of {target} is full ({error.strerror}); free some and run the same command again: it goes on "
            "from there"
        ) from error


def size(count: float) -> str:
    """Bytes for people."""
    return next(
        f"{count / 10**power:.1f} {unit}"
        for power, unit in ((9, "GB"), (6, "MB"), (3, "kB"))
        if count >= 10**power or power == 3
    )


def bar(console: Console) -> Progress:
    """A progress bar that counts."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    )
