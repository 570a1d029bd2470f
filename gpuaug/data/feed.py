"""The threads of one pass through the data: one reads, one decodes, both ahead of the loop that takes the batches,
which stay in order.

At most `prefetch` batches are on their way or ready beside the one in the loop's hands, whatever is slow.  On a host
the last of them is read and not decoded yet: pixels take several times the memory of files.  The threads know the feed,
and not who takes from it: an iterator that nobody holds any more ends them."""

import os
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext, suppress
from threading import Condition, RLock, Thread, current_thread, main_thread
from time import monotonic, perf_counter
from typing import Any

from gpuaug.data.course import Course
from gpuaug.data.device import Carrier, Carriers
from gpuaug.data.making import Made, Maker, Read
from gpuaug.data.meter import Meter
from gpuaug.data.near import staying

# seconds that the end of the process waits for the batch that is being made
_LAST_BATCH = 60.0


class Feed:
    """Batches of a course, made in two threads."""

    # a batch's pixels are its own
    lends = False

    def __init__(
        self,
        course: Course,
        maker: Maker,
        prefetch: int,
        meter: Meter,
        carriers: Carriers | None = None,
        cores: frozenset[int] = frozenset(),
    ):
        """cores: that the threads stay on; none: anywhere"""
        self._course, self._maker, self._meter, self._carriers = course, maker, meter, carriers
        self._cores = cores
        # the one in the loop's hands comes on top
        self._room = prefetch + 1
        on_host = carriers is None or not carriers.on_device
        self._decoded = min(self._room, max(2, prefetch - 1)) if on_host else self._room
        # what each side waits for: room to read, something to decode and room for it, a batch
        # whoever holds the lock may collect the iteration, and so stop this
        self._lock = RLock()
        self._may_read, self._may_decode, self._ready = (Condition(self._lock) for _ in range(3))
        self._read: deque[Read | Made | None] = deque()
        self._made: deque[Made | None] = deque()
        self._begun = 0
        # until the loader's first batch is in the loop's hands, whose call loads what later ones have: a draw of
        # another batch at the same time would take the interpreter from it
        self._alone = not meter.batches
        self._stopped, self._pid = False, os.getpid()
        # what the loop has done with, while a device may still read it
        self._used: deque[tuple[Any, Made]] = deque()
        self._threads = [
            Thread(target=self._run, args=(work,), name=f"gpuaug-loader-{name}", daemon=True)
            for name, work in (("read", self._reading), ("decode", self._decoding))
        ]

    # ---- the loop's side

    def start(self) -> None:
        """Begin to read and to decode."""
        for thread in self._threads:
            # one that an interrupt has kept from starting is started when the loop comes again
            if thread.ident is None:
                thread.start()

    def first(self) -> Made | None:
        """The next batch, which stays in the feed until `advance`; None after the last.  Waits for it."""
        self.start()
        begin = perf_counter()
        with self._lock:
            while not self._made and not self._stopped:
                self._ready.wait()
            if self._stopped:
                raise RuntimeError("this loader is closed; make another")
            made = self._made[0]
        self._meter.add("waiting", perf_counter() - begin)
        return made

    def advance(self, made: Made, done: Any = None) -> None:
        """The loop has this batch.  done: the CUDA event after which nobody reads its pixels"""
        with self._lock:
            if self._made and self._made[0] is made:
                self._alone = False
                self._made.popleft()
                self._begun -= 1
                if done is not None:
                    self._used.append((done, made))
                self._may_read.notify()
                self._may_decode.notify()

    def depths(self) -> dict[str, int]:
        """Batches that are read, and those that are decoded too."""
        with self._lock:
            return {
                "read": sum(x is not None for x in self._read),
                "decoded": sum(x is not None for x in self._made),
            }

    def held(self) -> int:
        """Bytes of the batches that wait."""
        with self._lock:
            waiting = [x for x in (*self._read, *self._made) if x is not None]
        return sum(x.bytes for x in waiting)

    def stop(self, wait: float = 0.0) -> None:
        """End the threads, and wait for them as many seconds at most: one may be stuck in a file system.  Where the
        process ends, what decodes is waited for until its batch is made, a minute at most."""
        if os.getpid() != self._pid:
            # the threads are the parent's, and so may be whoever holds the lock
            return
        with self._lock:
            self._stopped = True
            self._read.clear()
            self._made.clear()
            for waiting in (self._may_read, self._may_decode, self._ready):
                waiting.notify_all()
        until = monotonic() + wait
        # a process whose interpreter ends while a thread is in compiled code is aborted
        ends = not main_thread().is_alive()
        for thread in self._threads:
            # one whose start was interrupted has no end to wait for
            if thread.ident is not None and thread is not current_thread():
                more = _LAST_BATCH if ends and thread is self._threads[1] else 0.0
                with suppress(RuntimeError):
                    thread.join(max(more, until - monotonic()))
        self._retire(all_of_them=True)

    @property
    def alive(self) -> bool:
        """Whether a thread still runs."""
        return any(thread.is_alive() for thread in self._threads)

    # ---- the threads

    def _run(self, work: Callable[[], None]) -> None:
        try:
            with staying(self._cores), nullcontext() if self._carriers is None else self._carriers.here():
                work()
        except BaseException as error:
            # a fault of the threads themselves: what belongs to a batch is raised in its place
            with self._lock:
                self._made.append(Made(None, error=error))  # type: ignore[arg-type]
                self._ready.notify_all()

    def _reading(self) -> None:
        for step in self._course.steps():
            with self._lock:
                while self._begun >= self._room and not self._stopped:
                    self._may_read.wait()
                if self._stopped:
                    return
                self._begun += 1
            begin = perf_counter()
            read: Read | Made
            try:
                read = self._maker.read(step)
            except Exception as error:
                read = Made(step, error=error)
            self._meter.add("reading", perf_counter() - begin)
            if not self._put(self._read, read, self._may_decode):
                return
            # while this waits for room, nothing of the last is held
            del read
        self._put(self._read, None, self._may_decode)

    def _decoding(self) -> None:
        with nullcontext() if self._carriers is None else self._carriers.lent() as carrier:
            self._decode_all(carrier)

    def _decode_all(self, carrier: Carrier | None) -> None:
        while True:
            with self._lock:
                while len(self._made) >= (1 if self._alone else self._decoded) and not self._stopped:
                    self._may_decode.wait()
                begin = perf_counter()
                while not self._read and not self._stopped:
                    self._may_decode.wait()
                if self._stopped:
                    return
                read = self._read.popleft()
            self._meter.add("starving", perf_counter() - begin)
            if read is None:
                break
            self._retire()
            begin = perf_counter()
            made = self._make(read, carrier) if isinstance(read, Read) else read
            self._meter.add("decoding", perf_counter() - begin)
            if not self._put(self._made, made, self._ready):
                return
            del read, made
        self._put(self._made, None, self._ready)

    def _make(self, read: Read, carrier: Carrier | None) -> Made:
        try:
            made = self._maker.make(read, self._course)
            if carrier is not None and made.images is not None:
                carrier(made)
            return made
        except Exception as error:
            return Made(read.step, error=error)

    def _put(self, queue: deque[Any], value: Any, waiting: Condition) -> bool:
        with self._lock:
            if self._stopped:
                return False
            queue.append(value)
            waiting.notify_all()
            return True

    def _retire(self, all_of_them: bool = False) -> None:
        """Let go of what a device has read to the end.  Newer batches than those ahead are waited for, so that no more
        memory is held than the ring has places."""
        while self._used and (all_of_them or len(self._used) > self._room or self._used[0][0].query()):
            done, _ = self._used[0]
            done.synchronize()
            self._used.popleft()
