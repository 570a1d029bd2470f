"""Reading and decoding in one child process, for a loop that suffers from threads beside it: it sends pixels through
shared memory, and all else through a pipe.

The child lives as long as the loader and makes the batches of one iteration at a time.  It is spawned, not forked, and
ends with its parent, however that ends.  Shared memory has no names: nothing is left of it when both are gone."""

import multiprocessing
import os
import pickle
import signal
import traceback
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from threading import Lock, Thread
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import torch
import torch.multiprocessing
from torch import Tensor

from gpuaug.data import decode
from gpuaug.data.course import Course
from gpuaug.data.feed import Feed
from gpuaug.data.making import Made, Maker, windows_of
from gpuaug.data.meter import Meter
from gpuaug.data.source import Source
from gpuaug.images import Ragged
from gpuaug.pieces import Pieces

# memory of a slot is made larger by this part more than is asked for
_SPARE = 0.25
# seconds between looks at whether the loader was closed meanwhile
_LOOK = 0.1


@dataclass(frozen=True)
class Setup:
    """What a child needs to make batches."""

    source: Source
    decoder: str
    num_threads: int
    max_pixels: int
    policy: Any
    device: torch.device
    on_error: str
    target_transform: Any
    # that the child's threads stay on; none: anywhere
    cores: frozenset[int] = frozenset()

    def maker(self) -> Maker:
        """Reads and decodes, in the process that calls this."""
        made = decode.decoder(self.decoder, "cpu", self.num_threads, self.max_pixels)
        windows = windows_of(self.policy, self.device)
        return Maker(self.source, made, windows, self.on_error, self.target_transform)


class Ended(RuntimeError):
    """The child is gone."""


class Child:
    """The process, from the loader's side."""

    def __init__(self, setup: Setup):
        try:
            packed = pickle.dumps(setup)
        except Exception as error:
            raise TypeError(
                f"workers='process' sends source and policy to a child, and they can't be pickled: {error}; define "
                "their classes and functions in a module, or pass workers='threads'"
            ) from error
        context = torch.multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), name="gpuaug-loader", daemon=True)
        self._process.start()
        theirs.close()
        self._heard = False
        # not as an argument: who starts a process would write that to a pipe of which it holds both ends, and wait for
        # ever if the process ends before it has read it.  Here a process that is gone is an error, which `receive` says
        with suppress(OSError):
            self.pipe.send_bytes(packed)
        # by slot: what is shared, and what of it a GPU may read by itself
        self.memory: dict[int, Tensor] = {}
        self.pinned: dict[int, Tensor] = {}

    def receive(self, timeout: float) -> Any:
        """The next message; None where none comes in time.  Raises Ended."""
        # of a loader that nobody has, process and iteration are ended in any order
        if not self.pipe.closed and not self.pipe.poll():
            wait([self.pipe, self._process.sentinel], timeout)
        try:
            if self.pipe.poll():
                message = self.pipe.recv()
                self._heard = True
                return message
        except (EOFError, OSError):
            pass
        if not self._process.is_alive() or self.pipe.closed:
            self._process.join()
            code = self._process.exitcode
            why = "was killed, as by want of memory" if code == -9 else f"ended with {code}"
            do = "make another loader, or pass workers='threads'"
            if code == 1 and not self._heard:
                # what started it was run once more in the child, which said why it can't be
                why += " before its first batch"
                do = "what it said stands above. A script that makes a loader needs `if __name__ == '__main__':` " + (
                    "around that, and must be a file; or pass workers='threads'"
                )
            raise Ended(f"the process that reads and decodes {why}; {do}")
        return None

    def send(self, *message: Any) -> None:
        """Tell the child something; if it is gone, `receive` says so."""
        with suppress(OSError):
            self.pipe.send(message)

    def end(self) -> None:
        """End the process."""
        for pinned in self.pinned.values():
            torch.cuda.cudart().cudaHostUnregister(pinned.data_ptr())  # type: ignore[no-untyped-call]
        self.pinned.clear()
        self.send("close")
        self._process.join(1.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.pipe.close()


class Children:
    """The children of one loader: one for each iteration at a time."""

    def __init__(self, setup: Setup):
        self._setup, self._pid = setup, os.getpid()
        self._free: list[Child] = []
        self._all: list[Child] = []

    def take(self) -> Child:
        """One that has nothing to do."""
        if self._free:
            return self._free.pop()
        child = Child(self._setup)
        self._all.append(child)
        return child

    def give(self, child: Child, well: bool) -> None:
        """It has done; or it can't be used again."""
        if well:
            self._free.append(child)
        elif child in self._all:
            self._all.remove(child)
            child.end()

    def close(self) -> None:
        """End them all."""
        self._free.clear()
        while self._all and os.getpid() == self._pid:
            self._all.pop().end()


class ChildFeed:
    """Batches of a course, made by a child: what `Feed` is for threads."""

    # the pixels are the child's memory, used again once the loop has done with it
    lends = True

    def __init__(self, course: Course, children: Children, prefetch: int, meter: Meter, device: torch.device):
        self._course, self._children, self._prefetch = course, children, prefetch
        self._meter, self._device = meter, device
        self._child: Child | None = None
        self._stream: Any = None
        self._made: Made | None = None
        self._last = self._stopped = False
        self._pid = os.getpid()
        self._used: deque[tuple[Any, tuple[int, Any]]] = deque()
        self._turn = Lock()
        self._depths: dict[str, int] = {"read": 0, "decoded": 0}
        self._held = 0

    def start(self) -> None:
        """As `Feed.start`."""
        if self._child is None and not self._stopped:
            self._child = self._children.take()
            self._child.send("begin", self._course, self._prefetch)

    def first(self) -> Made | None:
        """As `Feed.first`."""
        begin = perf_counter()
        self.start()
        while self._made is None and not self._last:
            if self._stopped or self._child is None:
                raise RuntimeError("this loader is closed; make another")
            self._retire()
            with self._turn:
                message = None if self._stopped else self._child.receive(_LOOK)
            if message is not None:
                self._taken(message)
        self._meter.add("waiting", perf_counter() - begin)
        return self._made

    def _taken(self, message: Any) -> None:
        if message[0] == "last":
            self._last = True
            return
        _, packed, seconds, counts, self._depths, self._held = message
        for stage, value in seconds.items():
            # the child waits for its threads, and not the loop for a batch
            if stage != "waiting":
                self._meter.add(stage, value)
        self._meter.outside = counts
        assert self._child is not None
        self._made = unpacked(packed, self._child.memory)
        if self._device.type == "cuda" and self._made.images is not None:
            self._carry(self._made, packed["slot"])

    def _carry(self, made: Made, slot: int) -> None:
        """Send pixels on their way to the GPU, from shared memory that is pinned once."""
        assert self._child is not None and made.images is not None
        shared = self._child.memory[slot]
        with torch.cuda.device(self._device):
            if self._stream is None:
                self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            pinned = self._child.pinned.get(slot)
            if pinned is not shared:
                cuda = torch.cuda.cudart()  # type: ignore[no-untyped-call]
                if pinned is not None:
                    cuda.cudaHostUnregister(pinned.data_ptr())
                cuda.cudaHostRegister(shared.data_ptr(), shared.numel(), 0)
                self._child.pinned[slot] = shared
            size = made.images.elements
            with torch.cuda.stream(self._stream):
                there = shared[:size].to(self._device, non_blocking=True)
                ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
                ready.record(self._stream)
            made.images, made.ready, made.kept = made.images.laid_out(there), ready, (slot, there)

    def advance(self, made: Made, done: Any = None) -> None:
        """As `Feed.advance`."""
        if self._made is made and made.kept is not None:
            self._used.append((done, made.kept))
        self._made = None
        self._retire()

    def _retire(self) -> None:
        """Tell the child which memory it may use again, because all reads of it are done."""
        while self._used and self._child is not None:
            done, kept = self._used[0]
            if done is not None and not done.query():
                if len(self._used) <= self._prefetch:
                    return
                done.synchronize()
            self._used.popleft()
            self._child.send("free", kept[0])

    def depths(self) -> dict[str, int]:
        """As `Feed.depths`, when the last batch came."""
        return self._depths

    def held(self) -> int:
        """As `Feed.held`, when the last batch came."""
        return self._held

    def stop(self, patience: float = 0.0) -> None:
        """As `Feed.stop`: the child makes no more of these batches, or is ended if it does not answer."""
        if os.getpid() != self._pid:
            return
        self._stopped = True
        with self._turn:
            child, self._child = self._child, None
            if child is None:
                return
            for done, _ in self._used:
                if done is not None:
                    done.synchronize()
            if self._made is not None and self._made.ready is not None:
                # a batch that nobody took: the child writes there next, or the memory is given back
                self._made.ready.synchronize()
            child.send("end")
            well, until = False, monotonic() + patience
            with suppress(Ended):
                while not well and monotonic() < until:
                    message = child.receive(_LOOK)
                    if message is not None and message[0] == "batch":
                        remember(message[1], child.memory)
                    well = message is not None and message[0] == "ended"
        self._children.give(child, well)


# ---- what goes through the pipe


def packed(made: Made, slot: int, memory: dict[int, Tensor]) -> dict[str, Any]:
    """A batch as a message; its pixels go into the slot's memory, which is sent when it is new."""
    message: dict[str, Any] = {
        "step": made.step,
        "targets": made.targets,
        "params": made.params,
        "bad": made.bad,
        "error": None if made.error is None else sendable(made.error),
        "slot": slot,
    }
    if made.images is None:
        return message
    images, size = made.images, made.images.elements
    if slot not in memory or memory[slot].numel() < size:
        memory[slot] = shared(int(size * (1 + _SPARE)))
        message["memory"] = memory[slot]
    images.copied(memory[slot][:size])
    message["shapes"] = images.held
    if images.windows is not None:
        message["full"] = np.array([s[:2] for s in images.shapes], np.int64)
        message["windows"] = images.windows
    return message


def shared(size: int) -> Tensor:
    """Memory that two processes have."""
    memory: Any = torch.empty(size, dtype=torch.uint8, device="cpu")
    return memory.share_memory_()  # type: ignore[no-any-return]


def remember(message: dict[str, Any], memory: dict[int, Tensor]) -> None:
    """Keep a slot's memory, if it is new."""
    if "memory" in message:
        memory[message["slot"]] = message["memory"]


def unpacked(message: dict[str, Any], memory: dict[int, Tensor]) -> Made:
    """The batch of a message, its pixels where the child has put them."""
    remember(message, memory)
    made = Made(message["step"], None, message["targets"], message["params"], message["bad"], message["error"])
    if "shapes" in message:
        images = Pieces.in_turn(memory[message["slot"]], message["shapes"])
        made.images = Ragged.of(images, message.get("full"), message.get("windows"))
        made.kept = (message["slot"], None)
    return made


def sendable(error: BaseException) -> BaseException:
    """An error that arrives as it is, with where it came from; one that can't be pickled as its words."""
    where = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.__cause__ = None
    error.add_note(f"in the process that reads and decodes:\n{where}")
    return error


# ---- the child's side


def serve(pipe: Connection) -> None:
    """What the child does with the setup that comes first: the batches of one course after another, until it is told to
    end."""
    # Ctrl-C goes to all processes of a terminal, and is the loop's to deal with
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_with_parent, daemon=True).start()
    # torch's threads are for the loop
    torch.set_num_threads(1)
    given, maker, memory = None, None, dict[int, Tensor]()
    with suppress(EOFError, ConnectionError):
        setup = pipe.recv_bytes()
        while (message := pipe.recv())[0] != "close":
            if message[0] == "begin":
                try:
                    given = given or pickle.loads(setup)
                    maker = maker or given.maker()
                    _course(pipe, maker, message[1], message[2], memory, given.cores)
                except (EOFError, ConnectionError):
                    raise
                except Exception as error:
                    made = Made(None, error=error)  # type: ignore[arg-type]
                    pipe.send(("batch", packed(made, -1, {}), {}, {}, {}, 0))
            elif message[0] == "end":
                pipe.send(("ended",))
    os._exit(0)


def _with_parent() -> None:
    """End when the parent does, whatever else is going on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _course(
    pipe: Connection,
    maker: Maker,
    course: Course,
    prefetch: int,
    memory: dict[int, Tensor],
    cores: frozenset[int] = frozenset(),
) -> None:
    """Send the batches of a course; what is made ahead waits in the pipe."""
    meter, free = Meter(), deque(range(prefetch + 1))
    feed = Feed(course, maker, 1, meter, cores=cores)
    try:
        while True:
            made = feed.first()
            if made is None:
                pipe.send(("last",))
            while made is None or not free or pipe.poll():
                message = pipe.recv()
                if message[0] == "close":
                    os._exit(0)
                if message[0] != "free":
                    return
                free.append(message[1])
            slot = free.popleft()
            message = packed(made, slot, memory)
            waiting = prefetch + 1 - len(free)
            depths = {**feed.depths(), "decoded": waiting}
            pipe.send(("batch", message, meter.taken(), maker.source.stats(), depths, feed.held()))
            if made.error is not None:
                # no batch is skipped, so that only the end can come now
                while pipe.recv()[0] == "free":
                    pass
                return
            feed.advance(made)
    finally:
        feed.stop(_LOOK)
        with suppress(OSError):
            pipe.send(("ended",))
