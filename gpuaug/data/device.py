"""Where a loader's batches end up, and how they get there without anybody waiting for a GPU but the thread that
decodes.

Pixels cross threads by events in both directions: the loop's stream waits until they are there (`Made.ready`), and the
decoding thread waits, before it uses their memory again, until the kernels that the loop has launched on them are
done."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from gpuaug.arrays import put
from gpuaug.data.making import Made
from gpuaug.images import Ragged

# a buffer is made larger by this part more than is asked for: pinning memory holds up kernels that run
_SPARE = 0.25


def place(device: Any) -> torch.device:
    """The device that is meant: "auto" is the GPU of this process's LOCAL_RANK, or the CPU where there is none."""
    if isinstance(device, str) and device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    try:
        made = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be 'auto', 'cpu' or a CUDA device, got {device!r}") from None
    if made.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be 'auto', 'cpu' or a CUDA device, got {str(device)!r}")
    if made.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device={str(device)!r} needs a CUDA GPU, and torch finds none; pass device='cpu'")
        index = torch.cuda.current_device() if made.index is None else made.index
        if index >= torch.cuda.device_count():
            raise ValueError(f"device={str(device)!r} is not there: this process sees {torch.cuda.device_count()} GPUs")
        made = torch.device("cuda", index)
    return made


class Slot:
    """A place of the ring: pinned memory of the host, as much of the device, and when the device has done with it."""

    def __init__(self) -> None:
        self.host: Tensor | None = None
        self.there: Tensor | None = None
        self.done: Any = None


class Carrier:
    """Takes images that a CPU has decoded to a GPU, through a fixed ring of buffers, on one stream for its whole life.

    places: more than there are batches ahead of the loop, so that the one whose turn it is has been delivered."""

    def __init__(self, device: torch.device, places: int):
        self.device, self._slots, self._next = device, [Slot() for _ in range(places)], 0
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, made: Made) -> None:
        """Send a batch's images on their way; called by the thread that decodes."""
        images = made.images
        assert images is not None
        slot = self._slots[self._next]
        self._next = (self._next + 1) % len(self._slots)
        if slot.done is not None:
            # of a batch that the loop had long ago
            slot.done.synchronize()
        size = images.elements
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            if slot.host is None or slot.there is None or slot.host.numel() < size:
                room = int(size * (1 + _SPARE))
                slot.host = torch.empty(room, dtype=torch.uint8, device="cpu", pin_memory=True)
                slot.there = torch.empty(room, dtype=torch.uint8, device=self.device)
            images.copied(slot.host[:size])
            slot.there[:size].copy_(slot.host[:size], non_blocking=True)
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record(self._stream)
            made.images, made.ready, made.kept = images.laid_out(slot.there[:size]), ready, slot


class Carriers:
    """Rings for images that a CPU decodes for a GPU: one for each iteration at a time, all kept for the loader's life.
    None are needed where images are decoded where they shall be."""

    def __init__(self, device: torch.device, decoded_on: torch.device, prefetch: int):
        self.on_device = device.type == "cuda"
        self._needed = self.on_device and decoded_on.type == "cpu"
        self._device, self._places, self._free = device, prefetch + 3, list[Carrier]()

    def here(self) -> AbstractContextManager[Any]:
        """The GPU as the current device of a thread that looks at events: from another one it would make a context
        there."""
        return torch.cuda.device(self._device) if self.on_device else nullcontext()

    @contextmanager
    def lent(self) -> Iterator[Carrier | None]:
        """One for the thread that decodes."""
        carrier = None
        if self._needed:
            carrier = self._free.pop() if self._free else Carrier(self._device, self._places)
        try:
            yield carrier
        finally:
            if carrier is not None:
                self._free.append(carrier)


def received(made: Made, device: torch.device) -> Ragged:
    """A batch's images, ordered after their decoding on the stream of the loop."""
    images = made.images
    assert images is not None
    if made.ready is not None:
        torch.cuda.current_stream(device).wait_event(made.ready)
    return images


def own(images: Ragged) -> Ragged:
    """Images in memory of their own, of the loop's stream."""
    with torch.cuda.device(images.device) if images.device.type == "cuda" else nullcontext():
        return images.copied(torch.empty(images.elements, dtype=images.dtype, device=images.device))


def handed(made: Made, device: torch.device) -> Any:
    """Mark, on the loop's stream, the end of what reads a batch's pixels: an event, None on the CPU."""
    if device.type != "cuda":
        return None
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record(torch.cuda.current_stream(device))
    if isinstance(made.kept, Slot):
        made.kept.done = done
    return done


def sent(values: Any, device: torch.device) -> Any:
    """Begin to copy a tensor to the device, from pinned memory; anything else is returned as it is."""
    return put(values, device) if isinstance(values, Tensor) else values
