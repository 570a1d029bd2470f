"""A card's streams and events, without a card: what is asked of a stream happens later, at any moment until somebody
waits for it, and the memory of the device is the host's.

Values show what went wrong: a copy reads its source when it runs, and so does a kernel."""

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

# in memory that nobody has written to
POISON = 0xAA


class Task:
    """Something that a stream does, after all that it was asked before."""

    def __init__(self, stream: "Stream", work: Callable[[], Any] | None, after: "Task | None" = None):
        self.stream, self.work, self.after, self.done = stream, work, after, False


class Stream:
    """A queue of tasks."""

    def __init__(self, card: "Card", index: int):
        self.card, self.index, self.tasks = card, index, deque[Task]()

    def ask(self, work: Callable[[], Any] | None, after: Task | None = None) -> Task:
        """Put a task into the queue."""
        with self.card.lock:
            self.tasks.append(Task(self, work, after))
            self.card.go_on()
            return self.tasks[-1] if self.tasks else Task(self, None)

    def wait_event(self, event: "Event") -> None:
        """What is asked later happens after the event."""
        # one that nobody has recorded is waited for by nobody, as on a card
        if event.task is not None:
            self.ask(None, event.task)

    def synchronize(self) -> None:
        """The host waits for all of it."""
        with self.card.lock:
            while self.tasks:
                self.card.run(self.tasks[-1])


class Event:
    """A moment of a stream."""

    def __init__(self, card: "Card"):
        self.card, self.task = card, None  # type: Card, Task | None

    def record(self, stream: Stream) -> None:
        """The moment when a stream has done what it was asked so far."""
        self.card.asks(stream.index)
        with self.card.lock:
            self.task = Task(stream, None)
            stream.tasks.append(self.task)

    def query(self) -> bool:
        """Whether it has come."""
        assert self.task is not None, "asks for what was never recorded"
        self.card.asks(self.task.stream.index)
        with self.card.lock:
            self.card.go_on()
            return self.task.done

    def synchronize(self) -> None:
        """The host waits for it."""
        assert self.task is not None, "waits for what was never recorded"
        self.card.asks(self.task.stream.index)
        with self.card.lock:
            self.card.run(self.task)


class There(Tensor):
    """Memory of the device: to copy to it is asked of the current stream."""

    card: "Card"

    def copy_(self, source: Tensor, non_blocking: bool = False) -> "There":  # type: ignore[override]
        """As torch's."""
        target, given = self.as_subclass(Tensor), source.as_subclass(Tensor)
        task = There.card.current().ask(lambda: target.copy_(given))
        if not non_blocking:
            There.card.run(task)
        return self


class Host(Tensor):
    """Memory of the host that a device may read by itself."""

    def to(self, device: Any, non_blocking: bool = False) -> Any:  # type: ignore[override]
        """A copy there, asked of the current stream."""
        made = There.card.empty(self.numel(), dtype=self.dtype, device=device)
        return made.copy_(self, non_blocking=non_blocking)


class Card:
    """Stands for torch in modules that speak to streams.

    index: of the card that the loop's stream is on.  late: the part of moments at which nothing runs by itself; 1:
    nothing before somebody waits for it"""

    def __init__(self, index: int, seed: int, late: float):
        self.lock, self._random, self._late = threading.RLock(), random.Random(seed), late
        self._streams: list[Stream] = []
        self._here = threading.local()
        self._loop = self._stream(index)
        # threads that spoke to a card that was not their current one
        self.strays: set[str] = set()
        self.registered: dict[int, int] = {}
        There.card = self
        self.cuda = SimpleNamespace(
            Stream=lambda device: self._stream(device.index),
            Event=lambda: Event(self),
            stream=self._within,
            device=self._on,
            current_stream=lambda device=None: self.current(),
            current_device=lambda: self._device,
            is_available=lambda: True,
            device_count=lambda: 2,
            cudart=lambda: SimpleNamespace(cudaHostRegister=self._register, cudaHostUnregister=self._unregister),
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def empty(self, size: int, *, dtype: Any = torch.uint8, device: Any = "cpu", pin_memory: bool = False) -> Any:
        """Poisoned memory, of the device or of the host."""
        made = torch.full((size,), POISON, dtype=dtype)
        return made.as_subclass(There) if torch.device(device).type == "cuda" else made

    def current(self) -> Stream:
        """The stream of this thread."""
        return getattr(self._here, "stream", self._loop)

    def asks(self, index: int) -> None:
        """A thread speaks to a card."""
        if threading.current_thread() is not threading.main_thread() and self._device != index:
            self.strays.add(threading.current_thread().name)

    def run(self, task: Task) -> None:
        """All up to a task of a stream, in its order."""
        with self.lock:
            while not task.done:
                first = task.stream.tasks[0]
                if first.after is not None:
                    self.run(first.after)
                if first.work is not None:
                    first.work()
                first.done = True
                task.stream.tasks.popleft()

    def go_on(self) -> None:
        """Time passes: a stream may do what is next."""
        while self._random.random() >= self._late and (busy := [s for s in self._streams if s.tasks]):
            self.run(self._random.choice(busy).tasks[0])

    def synchronize(self) -> None:
        """The host waits for all streams."""
        for stream in self._streams:
            stream.synchronize()

    @property
    def _device(self) -> int:
        return getattr(self._here, "device", 0)

    def _stream(self, index: int) -> Stream:
        self._streams.append(Stream(self, index))
        return self._streams[-1]

    @contextmanager
    def _within(self, stream: Stream) -> Iterator[None]:
        before, self._here.stream = self.current(), stream
        try:
            yield
        finally:
            self._here.stream = before

    @contextmanager
    def _on(self, device: Any) -> Iterator[None]:
        before, self._here.device = self._device, device.index
        try:
            yield
        finally:
            self._here.device = before

    def _register(self, address: int, size: int, flags: int) -> int:
        assert address not in self.registered, "memory is pinned twice"
        self.registered[address] = size
        return 0

    def _unregister(self, address: int) -> int:
        del self.registered[address]
        return 0
