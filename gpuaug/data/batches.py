"""One iteration over a loader: takes batches from the feed, augments them on the loop's own stream, and counts what it
has given away."""

import os
import weakref
from collections.abc import Iterator
from threading import RLock
from time import perf_counter
from typing import Any, NoReturn

import torch

from gpuaug.batch import Batch
from gpuaug.data.child import ChildFeed
from gpuaug.data.cursor import Pass
from gpuaug.data.device import handed, own, received, sent
from gpuaug.data.feed import Feed
from gpuaug.data.given import augmented
from gpuaug.data.making import Made
from gpuaug.data.meter import Meter
from gpuaug.data.progress import Line
from gpuaug.data.targets import given, refuse
from gpuaug.images import Ragged

# seconds that the end of an iteration waits for a thread that is stuck in a file system
PATIENCE = 10.0


def _marks(batch: Batch, valid: torch.Tensor) -> dict[str, torch.Tensor]:
    """Boxes and keypoints of a sample that does not count are none."""
    found = {}
    for name in ("box_valid", "visible"):
        marks = getattr(batch, name)
        if isinstance(marks, torch.Tensor):
            found[name] = marks * valid.view(-1, *[1] * (marks.ndim - 1)).to(marks.dtype)
    return found


def _left(feed: Feed | ChildFeed, meter: Meter, number: int, pid: int) -> None:
    """An iteration is over, or nobody holds it: end what runs ahead, and the time of its pass.  pid: where it ran"""
    if os.getpid() == pid:
        # in a forked child the lock may be held by a thread that is not there
        meter.paused(number)
    feed.stop(PATIENCE)


class Batches(Iterator[Any]):
    """An iteration.  It begins with the first `next`: until then it is nothing.

    An error is raised again at the next `next`: no batch is skipped."""

    def __init__(self, loader: Any):
        self._loader = loader
        self._run: Pass | None = None
        self._feed: Feed | ChildFeed | None = None
        self._line: Line | None = None
        self._number, self._pid = 0, os.getpid()
        self._over = False
        # what this iteration raises, and where it came from
        self._error: tuple[BaseException, Any] | None = None
        # threads that share an iteration take a batch each
        self._turn = RLock()

    def __next__(self) -> Batch | list[Batch]:
        self._loader.check()
        with self._turn:
            return self._next()

    def _next(self) -> Batch | list[Batch]:
        loader = self._loader
        loader.check()
        if self._over:
            raise StopIteration
        if self._feed is None:
            self._number = loader.meter.begun()
        loader.meter.asked()
        if self._feed is None or self._run is None:
            self._run, self._feed = loader.begin()
            self._line = loader.line(self._run)
            if self._line is not None:
                weakref.finalize(self, self._line.stop)
            # the feed does not know this iteration, and ends wherever that is left
            weakref.finalize(self, _left, self._feed, loader.meter, self._number, self._pid)
            if not loader.meter.batches:
                self._load(loader.policy)
        if self._error is not None:
            self._raise()
        made = self._feed.first()
        if made is None:
            self._run.end()
            self._over = True
            self.close()
            if self._line is not None:
                self._line.stop()
            raise StopIteration
        if made.error is not None:
            loader.note(made)
            # nothing that threads hold may lead to it: once raised it leads to the loop's own variables, and so a
            # loader that nobody has any more would never end
            self._error, made.error = (made.error, made.error.__traceback__), None
            self._raise()
        begin = perf_counter()
        batch = self._augmented(made)
        loader.meter.add("augmenting", perf_counter() - begin)
        if made.step.epoch != self._run.start.epoch:
            self._run = self._run.following()
        self._feed.advance(made, handed(made, loader.device))
        self._run.deliver()
        loader.note(made)
        loader.delivered(made, self._line)
        return batch

    def _raise(self) -> NoReturn:
        assert self._error is not None
        self._loader.meter.raised()
        error, where = self._error
        raise error.with_traceback(where)

    def _load(self, policy: Any) -> None:
        """Load what augments while the first batch is read and decoded."""
        assert self._feed is not None
        self._feed.start()
        load = getattr(policy, "_load_executor", None)
        if callable(load):
            load(self._loader.device)

    def _augmented(self, made: Made) -> Batch | list[Batch]:
        loader, step = self._loader, made.step
        policy, device = loader.policy, loader.device
        images, (seen, past) = received(made, device), given(made.targets)
        seen = {name: sent(value, device) for name, value in seen.items()}
        keys: dict[str, Any] = {
            name: sent(torch.from_numpy(value), device)
            for name, value in (("ids", step.ids), ("occurrence", step.occurrence), ("valid", step.valid))
        }
        if policy is None:
            return Batch(self._kept(images), epoch=step.epoch, **keys, **seen, **past)
        refuse(made.targets, lambda k: f"sample {step.ids[k]} ({loader.source.key(int(step.ids[k]))})")
        # where all are valid nobody need look, which would make the host wait for a GPU
        batch = Batch(images, epoch=step.epoch, params=made.params, **keys, **seen)
        out = augmented(policy, batch.replace(valid=None) if step.valid.all() else batch)
        more = {**keys, **past, "params": None, "epoch": step.epoch}
        if isinstance(out, Batch):
            return self._finished(out, more, bool(step.valid.all()))
        # each view has occurrences of its own
        more.pop("occurrence")
        return [self._finished(view, more, bool(step.valid.all())) for view in out]

    def _finished(self, batch: Batch, more: dict[str, Any], all_valid: bool) -> Batch:
        marks = {} if all_valid else _marks(batch, more["valid"])
        return batch.replace(images=self._kept(batch.images), **{**more, **marks})

    def _kept(self, images: Any) -> Any:
        """Images that stay as they are when the memory of decoded pixels is used again."""
        lent = self._loader.device.type == "cuda" or (self._feed is not None and self._feed.lends)
        return own(images) if lent and isinstance(images, Ragged) else images

    def depths(self) -> dict[str, int]:
        """Batches that wait, by how far they are."""
        return {} if self._feed is None or self._over else self._feed.depths()

    def held(self) -> int:
        """Bytes of what waits."""
        return 0 if self._feed is None or self._over else self._feed.held()

    def close(self) -> None:
        """End what runs ahead."""
        if self._feed is not None:
            _left(self._feed, self._loader.meter, self._number, self._pid)
