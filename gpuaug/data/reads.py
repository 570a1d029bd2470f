"""Threads that read, and are replaced when a read does not come back.

A thread can't be stopped from outside.  So one that is stuck in a file system is left alone: another takes its place,
its work is given out again or given up, and a result that still comes is discarded.  All are daemons: none holds up
the end of the process."""

from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from threading import Event, Lock, Thread, current_thread
from time import monotonic
from typing import Any

# stuck threads, as a multiple of those that may read, after which a file system counts as gone
MANY = 4


class Stalled(OSError):
    """A read that had no end within its time."""


class Task:
    """Some slots in turn, by one thread."""

    def __init__(self, call: "Call", slots: Sequence[int], tries: int = 0):
        self.call, self.slots, self.tries = call, slots, tries
        # the slot that is being read, and since when; 0: none, or in a pause
        self.at, self.since, self.left = 0, 0.0, False

    def alive(self, working: bool) -> None:
        """Begin, or interrupt, the time that is measured."""
        self.since = monotonic() if working else 0.0


class Call:
    """All the slots of one call of `Reads.run`."""

    def __init__(self, work: Callable[[int, Callable[[bool], None]], Any], count: int):
        self.work, self.left, self.lock, self.done = work, count, Lock(), Event()
        self.results: list[tuple[int, Any]] = []

    def put(self, task: Task, slot: int, result: Any) -> bool:
        """Note a result; False if the thread that brings it was given up."""
        with self.lock:
            if task.left:
                return False
            task.at, task.since = task.at + 1, 0.0
            self._note(slot, result)
            return True

    def _note(self, slot: int, result: Any) -> None:
        self.results.append((slot, result))
        self.left -= 1
        if not self.left:
            self.done.set()

    def overdue(self, task: Task, timeout: float, retries: int) -> Task | None:
        """What is left of a task whose thread is stuck: to be given to another; None if it is not stuck, or nothing is
        left."""
        with self.lock:
            if task.left or not task.since or monotonic() - task.since < timeout:
                return None
            task.left = True
            if task.tries < retries:
                return Task(self, task.slots[task.at :], task.tries + 1)
            self._note(task.slots[task.at], Stalled())
            return Task(self, task.slots[task.at + 1 :])


class Reads:
    """A number of threads.  `run` may be called from several at once."""

    def __init__(self, count: int):
        self._count, self._queue, self._lock = count, SimpleQueue[Task | None](), Lock()
        # threads at work or waiting for it, and threads that are stuck
        self._started = self._lost = 0
        self._threads = set[Thread]()

    def run(
        self,
        groups: Sequence[Sequence[int]],
        work: Callable[[int, Callable[[bool], None]], Any],
        timeout: float,
        retries: int,
    ) -> Iterator[tuple[int, Any]]:
        """(slot, what `work` gave or raised) of every slot of the groups; a group's slots are done in turn by one
        thread.

        work(slot, alive) calls alive(True) when it begins to wait, and alive(False) when it pauses.  A read that takes
        longer than `timeout` seconds is done again by another thread, `retries` times, and then is `Stalled`.  Where
        four times as many threads are stuck as may read, nothing is tried again."""
        call = Call(work, sum(map(len, groups)))
        tasks = [Task(call, group) for group in groups]
        for task in tasks:
            self._give(task)
        while not call.done.wait(timeout / 4):
            for k, task in enumerate(tasks):
                rest = call.overdue(task, timeout, retries if self._lost < MANY * self._count else 0)
                if rest is not None:
                    tasks[k] = rest
                    with self._lock:
                        # its thread is lost: there is room for another
                        self._started, self._lost = self._started - 1, self._lost + 1
                    self._give(rest)
        return iter(call.results)

    def _give(self, task: Task) -> None:
        self._queue.put(task)
        with self._lock:
            if self._started < self._count:
                self._started += 1
                thread = Thread(target=self._work, name="gpuaug-read", daemon=True)
                self._threads.add(thread)
                thread.start()

    def close(self, patience: float = 0.0) -> None:
        """End the threads that are not stuck, and wait for them so many seconds at most."""
        with self._lock:
            for _ in range(self._started):
                self._queue.put(None)
            threads = [thread for thread in self._threads if thread is not current_thread()]
        until = monotonic() + patience
        for thread in threads:
            thread.join(max(0.0, until - monotonic()))

    def _work(self) -> None:
        try:
            self._all()
        finally:
            with self._lock:
                self._threads.discard(current_thread())

    def _all(self) -> None:
        while (task := self._queue.get()) is not None:
            if not _done(task):
                # given up meanwhile: another thread is in this one's place
                with self._lock:
                    self._lost -= 1
                return
            # while this waits for the next, nothing of the last is held
            del task


def _done(task: Task) -> bool:
    """Do a task's slots in turn; False if it was given up meanwhile."""
    for slot in list(task.slots):
        task.alive(True)
        try:
            result = task.call.work(slot, task.alive)
        except BaseException as error:
            result = error
        if not task.call.put(task, slot, result):
            return False
    return True
