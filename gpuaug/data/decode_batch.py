"""The one interface of all decoders: encoded files in, images of different sizes or reasons out, slot by slot.

A `Decoder` says which images it takes and decodes those together; all others, and those that it fails at, go to Pillow
one by one.  So every bad file of a batch is found at once, each with a reason, and nothing depends on who else is in
the batch.  Damage inside a scan is no error to every decoder."""

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug.data import decode_pillow, headers
from gpuaug.data.headers import Encoded, Header, Undecodable
from gpuaug.data.heads import Heads, Ints
from gpuaug.data.scan import HEIGHT, WIDTH, table
from gpuaug.pieces import Pieces

# 0.27 GB as RGB, and where Pillow begins to warn of a decompression bomb
MAX_PIXELS = 89_478_485

# a file's bytes, an image decoded already ([H, W, C] uint8), or the reason why there is neither
Item = Encoded | Tensor | Exception


@dataclass(frozen=True, eq=False)
class Decoded:
    """What became of a batch, slot by slot.

    images: [H, W, 3] uint8 tensors, of the window alone where one was asked for, contiguous on the CPU and of any
    strides (planar, say) on a GPU; an exception, never raised, where there is no image. full: [N, 2] height and width
    of the whole upright images, 0 where there is none. windows: [N, 4] top, left, height and width of what `images`
    shows of them: what was asked for, clipped. ready: the CUDA event after which the pixels are there; None on the CPU,
    where they are.  Keep this object until the kernels that read it are done. DALI's images share one piece of memory:
    one that is kept keeps its whole batch."""

    images: Sequence[Tensor | Exception]
    full: Ints
    windows: Ints
    ready: Any = None

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def bad(self) -> dict[int, Exception]:
        """Slot -> why it has no image."""
        if isinstance(self.images, Pieces):
            return {}
        return {i: image for i, image in enumerate(self.images) if isinstance(image, Exception)}

    @cached_property
    def addresses(self) -> Ints:
        """Where every image begins in memory: [N], 0 where there is none."""
        if isinstance(self.images, Pieces):
            return self.images.addresses
        return np.array([0 if isinstance(image, Exception) else image.data_ptr() for image in self.images], np.int64)


class Decoder(ABC):
    """Decodes batches.  May be called from several threads at once.

    num_threads: how many images are decoded side by side.  max_pixels: larger images are refused by their header,
    before memory is asked for."""

    name: str
    # what else was thought of, and why it was not taken
    others: Mapping[str, str] = MappingProxyType({})

    def __init__(self, num_threads: int | None = None, max_pixels: int = MAX_PIXELS):
        if num_threads is not None and num_threads < 1:
            raise ValueError(
                f"num_threads must be at least 1, got {num_threads}; None takes one for each core of this process"
            )
        if max_pixels < 1:
            raise ValueError(f"max_pixels must be at least 1, got {max_pixels}; the default is {MAX_PIXELS}")
        self.num_threads, self.max_pixels = num_threads or cores(), max_pixels
        self.device = torch.device("cpu")
        self._pool: ThreadPoolExecutor | None = None
        self._pid, self._lock = os.getpid(), Lock()

    # ---- what a decoder is

    @abstractmethod
    def takes(self, header: Header) -> bool:
        """Whether images of such a header are decoded here; all others are Pillow's.  Of plain and upright JPEGs it is
        by channels, bits and coding alone."""

    @abstractmethod
    def _decode(self, data: Sequence[Encoded], heads: Heads, windows: Ints | None) -> Sequence[Tensor | Exception]:
        """Upright [h, w, 3] uint8 images of the windows (within the images), or what went wrong, without raising."""

    @abstractmethod
    def _what(self) -> str:
        """One sentence: what decodes what, on which device, with how many threads."""

    def describe(self) -> str:
        """What decodes, where, and why the other decoders don't."""
        return "\n".join((self._what(), *(f"not {name}: {why}" for name, why in self.others.items())))

    def close(self) -> None:
        """End the threads; the decoder can't be used afterwards."""
        with self._lock:
            self._pid = 0
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)

    # ---- what all do alike

    def inspect(self, items: Sequence[Item]) -> Heads:
        """Header by header, or why a slot has no image.  Cheap: nothing is decoded; `sizes` is what windows are drawn
        for."""
        found = table(items)
        large = found[:, HEIGHT] * found[:, WIDTH] > self.max_pixels
        others: dict[int, Header | Exception] = {
            i: self._inspect(items[i]) for i in np.flatnonzero(large | (found[:, HEIGHT] == 0)).tolist()
        }
        found[large] = 0
        return Heads(found, others)

    def _inspect(self, item: Item) -> Header | Exception:
        if isinstance(item, Exception):
            return item
        if isinstance(item, Tensor):
            return Header("pixels", item.shape[0], item.shape[1], channels=item.shape[2])
        try:
            header = headers.read(item)
        except Undecodable as error:
            return error
        return self._bounded(header)

    def _bounded(self, header: Header) -> Header | Exception:
        if header.height * header.width > self.max_pixels:
            size = f"{header.height} x {header.width} pixels"
            return Undecodable(
                f"its header says {size}, more than max_pixels={self.max_pixels}; raise that if the image is genuine"
            )
        return header

    def decode(
        self, items: Sequence[Item], windows: Any = None, heads: Sequence[Header | Exception] | None = None
    ) -> Decoded:
        """Decode a batch.

        items: files' bytes; images that are decoded already pass through, and so do exceptions. windows: [N, 4]
        integers, the top, left, height and width that is wanted of each upright image, clipped to it, of one pixel at
        least; None: all. heads: what `inspect` said of the same items, where it has been called."""
        if os.getpid() != self._pid:
            raise RuntimeError(
                "this decoder is closed, or belongs to another process; make one in the process that uses it, "
                "after forking"
            )
        heads = self.inspect(items) if heads is None else Heads.of(heads)
        full = heads.sizes.copy()
        boxes = clipped(windows, full)
        mine, others = heads.which(self.takes)
        if 0 < len(mine) == len(items):
            made = self._decode(items, heads, None if windows is None else boxes)  # type: ignore[arg-type]
            if isinstance(made, Pieces) and _promised(made, boxes):
                return Decoded(made, full, boxes, self.mark())
            images: list[Any] = list(made)
        else:
            images = [heads.others.get(i) for i in range(len(heads))]

        def each(i: int) -> None:
            images[i] = self._one(items[i], heads[i], boxes[i])

        started = self._start(each, others)
        try:
            if 0 < len(mine) < len(items):
                some: Any = [items[i] for i in mine]
                made = self._decode(some, heads.some(mine), None if windows is None else boxes[mine])
                for i, image in zip(mine.tolist(), made, strict=True):
                    images[i] = image
        finally:
            _finish(started)
        for i in mine.tolist():
            images[i] = self._checked(images[i], tuple(boxes[i, 2:].tolist()))
        failed = [i for i, image in enumerate(images) if isinstance(image, Exception)]
        if failed:
            # what this decoder failed at is tried once more, alone: Pillow has the last word, and the better reasons
            known = set(mine.tolist())
            _finish(self._start(each, [i for i in failed if i in known]))
            for i in failed:
                if isinstance(images[i], Exception):
                    full[i], boxes[i] = 0, 0
        return Decoded(images, full, boxes, self.mark())

    def _one(self, item: Any, header: Any, box: Ints) -> Tensor | Exception:
        """An image that is not this decoder's: decoded already, or Pillow's."""
        try:
            image = colours(item) if isinstance(item, Tensor) else decode_pillow.decode(item, header)
        except Undecodable as error:
            return error
        return self._checked(self._place(cropped(image, box).contiguous()), tuple(box[2:].tolist()))

    def _place(self, image: Tensor) -> Tensor:
        """An image of the host's memory on this decoder's device."""
        return image

    def here(self) -> AbstractContextManager[Any]:
        """Where this decoder's images may be worked on by the thread that has decoded them: device and stream."""
        return nullcontext()

    def mark(self) -> Any:
        """The event after which all is done that this thread asked for `here`; None on the CPU, where it is."""
        return None

    def _checked(self, image: Tensor | Exception, size: tuple[int, ...]) -> Tensor | Exception:
        """Nothing but what the header promised: a decoder that finds another size has read another image than the
        window was drawn for."""
        if isinstance(image, Exception) or image.shape == (*size, 3):
            return image
        return Undecodable(f"{self.name} made {tuple(image.shape)} of it, where its header promises {(*size, 3)}")

    def _start(self, work: Callable[[int], None], slots: Sequence[int]) -> list[Future[None]]:
        """Have the threads do some slots; each takes the next that is left."""
        if not slots:
            return []
        left = deque(slots)

        def worker() -> None:
            while True:
                try:
                    i = left.popleft()
                except IndexError:
                    return
                work(i)

        return [self._threads().submit(worker) for _ in range(min(self.num_threads, len(slots)))]

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.num_threads, thread_name_prefix=f"gpuaug-{self.name}")
            return self._pool


class EachDecoder(Decoder):
    """A decoder of single images, which runs in threads."""

    @abstractmethod
    def _decode_one(self, data: Encoded, header: Header) -> Tensor:
        """One whole image as upright [H, W, 3] uint8; whatever it raises is why there is none."""

    def _decode(self, data: Sequence[Encoded], heads: Heads, windows: Ints | None) -> Sequence[Tensor | Exception]:
        images: list[Any] = [None] * len(data)

        def each(i: int) -> None:
            try:
                image = self._decode_one(data[i], heads[i])
                images[i] = (image if windows is None else cropped(image, windows[i])).contiguous()
            except Exception as error:
                images[i] = Undecodable(str(error))

        _finish(self._start(each, range(len(data))))
        return images


def _promised(made: Pieces, boxes: Ints) -> bool:
    """Whether all images of a batch are what their headers promise."""
    return np.array_equal(made.shapes[:, :2], boxes[:, 2:]) and bool((made.shapes[:, 2] == 3).all())


def halved(decode: Callable[[slice], Sequence[Tensor]], begin: int, end: int) -> Sequence[Tensor | Exception]:
    """A list of which one bad image fails all: decoded together, or else by halves, until the bad ones are alone."""
    try:
        return decode(slice(begin, end))
    except RuntimeError as error:
        if end - begin == 1:
            return [Undecodable(" ".join(str(error).split()))]
        half = (begin + end) // 2
        return [*halved(decode, begin, half), *halved(decode, half, end)]


def _finish(started: list[Future[None]]) -> None:
    for future in started:
        future.result()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def clipped(windows: Any, full: Ints) -> Ints:
    """[N, 4] windows within images of [N, 2]; whole images where windows are None.  At least one pixel: the nearest,
    where a window lies outside."""
    if windows is None:
        return np.concatenate([np.zeros_like(full), full], 1)
    given = np.asarray(windows)
    if given.shape != (len(full), 4) or given.dtype.kind not in "iu":
        raise ValueError(
            f"windows must be [{len(full)}, 4] integers, top left height width, got {given.dtype} {list(given.shape)}"
        )
    given = given.astype(np.int64)
    start = np.clip(given[:, :2], 0, np.maximum(full - 1, 0))
    end = np.clip(given[:, :2] + given[:, 2:], np.minimum(start + 1, full), full)
    return np.concatenate([start, end - start], 1)


def cropped(image: Tensor, box: Ints) -> Tensor:
    """A window of [H, W, C]: the image itself where that is the window, else a copy, so that the rest's memory is not
    kept."""
    top, left, height, width = box.tolist()
    if (height, width) == tuple(image.shape[:2]):
        return image
    return image[top : top + height, left : left + width].contiguous()


def colours(image: Tensor) -> Tensor:
    """[H, W, C] of 1, 3 or 4 channels as [H, W, 3]: gray three times, alpha dropped."""
    channels = image.shape[2]
    return image[..., :3] if channels >= 3 else image[..., :1].expand(-1, -1, 3)
