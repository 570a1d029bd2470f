"""The loader: an epoch's samples in batches, read and decoded ahead, augmented where they are asked for, the same on
any rank and after any restart."""

import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from gpuaug import arguments
from gpuaug.batch import Batch
from gpuaug.data import decode, ordered
from gpuaug.data.batches import Batches
from gpuaug.data.child import ChildFeed, Children, Setup
from gpuaug.data.course import Course
from gpuaug.data.cursor import Cursor, Pass, compare, unpack
from gpuaug.data.decode_batch import MAX_PIXELS, Decoder, cores
from gpuaug.data.device import Carriers
from gpuaug.data.feed import Feed
from gpuaug.data.given import Whole, checked, fingerprint
from gpuaug.data.making import ON_ERROR, BadFile, Made, Maker, windows_of
from gpuaug.data.meter import Meter
from gpuaug.data.near import address, cores_near
from gpuaug.data.progress import Line
from gpuaug.data.share import Share
from gpuaug.data.source import Source
from gpuaug.data.sources import as_source
from gpuaug.data.storage import Storage

WORKERS = ("threads", "process")


class Loader(Whole):
    """Batches of a data set, decoded and augmented, for a training loop.

    Sample i of an epoch, its place in the sequence and its augmentation are functions of (seed, epoch) and of the
    policy, not of ranks, batch sizes, threads or restarts.

    source: what `gpuaug.data.as_source` takes: a folder of class folders, a table, a list, tar shards, a data set.
    policy: called with a `gpuaug.Batch`, gives one, or a list of views; a `gpuaug.Policy` has windows of large images
    decoded alone.  None: images come as they were decoded, as a `gpuaug.Ragged`.  batch_size: for each rank.  epochs:
    None: every iteration is the next epoch; a number: the next so many epochs.  seed: of the order; the policy has its
    own.
    drop_last: leave out the samples that do not fill a batch on every rank; False: fill it up with samples whose
    `valid` is False.
    weights: the share of each class, as `gpuaug.data.BatchSampler` has it.  order: "samples", or "shards" for tar
    shards: a few are read at a time.  device: "auto" is the GPU of LOCAL_RANK, or the CPU.  decoder: "auto", "dali",
    "torchcodec", "torchvision" or "pillow".
    on_error: of a sample without an image: "raise" names it; "skip" leaves its place black, and `valid` False;
    "substitute" takes another sample of the epoch, the same in every run.  max_pixels: larger images are refused by
    their header.  prefetch: batches that are on their way or ready ahead of the loop.  num_threads: that decode; the
    cores of this process, shared by the ranks of this machine, by default.  workers: "threads", or "process": reading
    and decoding in one child process.  target_transform: called with every target.  progress: show a line on stderr.
    storage: how files are read.

    Batches have images, labels, ids, valid, epoch and occurrence.  An iteration begins with its first batch: nothing
    runs before.  Raises ValueError or TypeError for arguments, `BadImage` for samples."""

    def __init__(
        self,
        source: Any,
        policy: Callable[[Batch], Batch] | None = None,
        batch_size: int = 256,
        *,
        epochs: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        weights: Any = None,
        order: str = "samples",
        device: Any = "auto",
        decoder: str = "auto",
        on_error: str = "raise",
        max_pixels: int = MAX_PIXELS,
        prefetch: int = 3,
        num_threads: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        workers: str = "threads",
        target_transform: Callable[[Any], Any] | None = None,
        progress: bool = False,
        storage: Storage | None = None,
    ):
        given = checked(policy, batch_size, epochs, drop_last, device, rank, world_size, target_transform)
        for name, value, known in (("on_error", on_error, ON_ERROR), ("workers", workers, WORKERS)):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
        self._given, self.policy, self.workers, self.on_error = given, policy, workers, on_error
        self.batch_size, self.epochs, self.drop_last = given.batch_size, given.epochs, given.drop_last
        self.progress = arguments.flag("progress", progress)
        self.prefetch = arguments.integer("prefetch", prefetch, 1)
        self.max_pixels = arguments.integer("max_pixels", max_pixels, 1)
        self.device = given.device
        # threads that decode are started by those of the feed, and stay where those do
        self._cores = cores_near(address(self.device)) if self.device.type == "cuda" else frozenset[int]()
        self.num_threads = (
            min(default_threads(), len(self._cores) or default_threads())
            if num_threads is None
            else arguments.integer("num_threads", num_threads, 1)
        )
        self._pid = os.getpid()
        mine = not isinstance(source, Source)
        self.source: Source = as_source(source, storage)
        try:
            made = ordered.order_of(self.source, shuffle=shuffle, order=order, weights=weights)
            self._cursor = Cursor(seed, made)
            self._decoder = self._choose(decoder)
        except BaseException:
            if mine:
                self.source.close()
            raise
        self._maker = Maker(self.source, self._decoder, windows_of(policy, self.device), on_error, target_transform)
        self._children = None
        if workers == "process":
            self._children = Children(
                Setup(
                    self.source,
                    decoder,
                    self.num_threads,
                    self.max_pixels,
                    # one that says no windows is called here alone, and need not be sent
                    policy if self._maker.windows is not None else None,
                    self.device,
                    on_error,
                    target_transform,
                    self._cores,
                )
            )
        self.meter = Meter()
        self._bad: dict[int, BadFile] = {}
        self._carriers = Carriers(self.device, self._decoder.device, self.prefetch)
        self._live: weakref.WeakSet[Batches] = weakref.WeakSet()
        self._closed = False
        self._finalizer = weakref.finalize(
            self, _end, self._pid, self._decoder, self.source if mine else None, self._children
        )

    def _choose(self, name: str) -> Decoder:
        device = "cpu" if self.workers == "process" else self.device
        return decode.decoder(name, device, self.num_threads, self.max_pixels)

    # ---- going through it

    def __iter__(self) -> Iterator[Batch]:
        self.check()
        batches = Batches(self)
        self._live.add(batches)
        return batches

    def begin(self) -> tuple[Pass, Feed | ChildFeed]:
        """A pass through what is left of an epoch, and what makes its batches."""
        run = self._cursor.begin(self.share())
        several = self.epochs or 1
        last = (run.start.epoch // several + 1) * several - 1
        course = Course(self._cursor.seed, self._cursor.order, run.share, run.start, last)
        if self._children is not None:
            return run, ChildFeed(course, self._children, self.prefetch, self.meter, self.device)
        return run, Feed(course, self._maker, self.prefetch, self.meter, self._carriers, self._cores)

    def __len__(self) -> int:
        """Batches of an iteration, the same on all ranks: of a whole epoch, or of all `epochs`."""
        return self.share().steps(self._cursor.order.length) * (self.epochs or 1)

    def share(self) -> Share:
        """What this rank takes."""
        return self._given.share()

    def check(self) -> None:
        """Raise RuntimeError where the loader can't be used."""
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"this loader was made in process {self._pid}, and this is {os.getpid()}, forked from it: its threads "
                "and its decoder are not here; make a loader in the process that iterates over it"
            )
        if self._closed:
            raise RuntimeError("this loader is closed; make another")

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration begin with this epoch.  The epoch of a loaded state goes on from where it stood.  With
        epochs=k an iteration ends with the epoch before the next multiple of k, wherever it begins."""
        self._cursor.set_epoch(epoch)

    # ---- going on

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Where to go on: a few numbers, the same on all ranks, which any world, batch size and device can load.

        It counts the batches that the loop has been given; batches: that many of this iteration's epoch instead, for
        a loop that takes them ahead."""
        state = self._cursor.state(self.share(), batches)
        return {**state, "source": self.source.fingerprint, "policy": fingerprint(self.policy)}

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        """Go on from a state, with its seed: the next iteration begins there.  Another data set, order, weighting or
        policy is refused by name, unless strict is False."""
        # what is no state, or one of another version, is said first
        unpack(state)
        if strict:
            here = {"source": self.source.fingerprint, "policy": fingerprint(self.policy)}
            compare({name: state[name] for name in here if name in state}, here)
        self._cursor.load(state, strict)

    # ---- looking at it

    @property
    def bad_files(self) -> list[BadFile]:
        """Samples without an image in the batches so far, each once: (id, path, reason)."""
        return list(self._bad.values())

    def note(self, made: Made) -> None:
        """Remember the bad files of a batch."""
        for file in made.bad:
            self._bad.setdefault(file.id, file)

    def line(self, run: Pass) -> Line | None:
        """The line that shows a pass, where one is asked for: of the first rank."""
        return Line(len(self), run.start.epoch) if self.progress and run.share.rank == 0 else None

    def delivered(self, made: Made, line: Line | None) -> None:
        """The loop has a batch."""
        self.meter.delivered(int(made.step.valid.sum()))
        if line is not None:
            report = self.meter.report()
            line.step(made.step.epoch, report["images_per_second"], report["bottleneck"], len(self._bad))

    def stats(self) -> dict[str, Any]:
        """What has been done since the loader was made, and where its time goes.

        images_per_second: over the time of the iterations.  bottleneck: "reading", "decoding", "augmenting" or "the
        loop".  busy: parts of the time that each stage was at work, and that the loop waited or worked.  queues:
        batches that are read, and decoded too.  memory_held: bytes of files and images in them."""
        depths, held = {"read": 0, "decoded": 0}, 0
        for batches in list(self._live):
            for name, depth in batches.depths().items():
                depths[name] += depth
            held += batches.held()
        return {
            **self.meter.report(),
            "queues": {**depths, "prefetch": self.prefetch},
            "memory_held": held,
            **{k: v + self.meter.outside.get(k, 0) for k, v in self.source.stats().items()},
            "bad_files": len(self._bad),
        }

    def describe(self) -> str:
        """What is read, what decodes it and why nothing else, the order, and where batches come out."""
        share, order = self.share(), self._cursor.order.about()
        choices = ", ".join(f"{k}={v}" for k, v in order.items() if k != "samples")
        windows = (
            "windows that the policy asks for"
            if self._maker.windows is not None
            else "whole images: the policy says no windows"
            if self.policy is not None
            else "whole images"
        )
        child = "in threads of this process"
        if self.workers == "process":
            child = (
                "in one child process, on its CPU: decoded by a GPU there, pixels could not come here without a copy"
            )
        elif self._cores:
            child += f" on the {len(self._cores)} cores near the GPU"
        return "\n".join(
            (
                f"source: {self.source.describe()}",
                f"decoder: {self._decoder.describe()}",
                f"decoded: {windows}; {child}, {self.prefetch} batches ahead",
                f"order: {choices}, seed {self._cursor.seed}",
                f"batches: {share.batch_size} for each of {share.world_size} ranks, this is rank {share.rank}; "
                f"{len(self)} in an iteration, {'the rest is left out' if self.drop_last else 'the last is filled up'}",
                f"device: {self.device}; a sample without an image: {self.on_error}",
            )
        )

    # ---- its end

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "a loader can't be copied, pickled or sent to another process: its threads and its decoder are of this one"
            "; make one where it is iterated over, and go on with load_state_dict(state_dict())"
        )

    def close(self) -> None:
        """End threads and processes; the loader can't be used afterwards."""
        if os.getpid() != self._pid:
            return
        self._closed = True
        for batches in list(self._live):
            batches.close()
        self._finalizer()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _end(pid: int, decoder: Decoder, source: Source | None, children: Children | None) -> None:
    if os.getpid() == pid:
        if children is not None:
            children.close()
        decoder.close()
        if source is not None:
            source.close()


def default_threads() -> int:
    """The cores of this process, divided by the ranks of this machine that share them."""
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, cores() // max(1, int(ranks) if ranks.isdecimal() else 1))
