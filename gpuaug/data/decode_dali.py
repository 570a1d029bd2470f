"""Decoding by NVIDIA DALI: batches in its own threads, of each JPEG the window alone; on a GPU by nvJPEG and the
hardware's decoder.

One pipeline holds one batch at a time, so that a batch that fails says nothing about the next; calls from several
threads take a pipeline each.  Its outputs lie back to back in memory that is DALI's, and become tensors without a copy.
"""

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug.data.decode_batch import MAX_PIXELS, Decoder, clipped, halved
from gpuaug.data.decode_torch import CudaDecoder, proven
from gpuaug.data.headers import Encoded, Header
from gpuaug.data.heads import Heads, Ints
from gpuaug.pieces import Pieces

# the smallest batch that a pipeline is built for; a larger one builds another
CAPACITY = 256


class Memory:
    """A batch's pixels in memory that DALI owns: kept while a tensor shows any of them."""

    def __init__(self, pixels: Any, address: int, size: int, cuda: bool, encoded: Any = None):
        # a GPU may read the files of a batch until it is decoded, after the call that asked for it
        self.pixels, self.encoded = pixels, encoded
        interface = {"shape": (size,), "typestr": "|u1", "data": (address, False), "version": 3, "strides": None}
        if cuda:
            self.__cuda_array_interface__ = interface | {"stream": None}
        else:
            self.__array_interface__ = interface


class Pipe:
    """A pipeline of its own: bytes and windows in, pixels out."""

    def __init__(self, capacity: int, threads: int, device: torch.device, region: bool):
        from nvidia.dali import fn, types

        self.capacity, self._region, self._cuda = capacity, region, device.type == "cuda"
        self._device = device
        # said and not left to a default: an output type of "any" ends the process at a gray JPEG, and on a GPU chroma
        # would be repeated, not interpolated
        options = {
            "device": "mixed" if self._cuda else "cpu",
            "output_type": types.RGB,
            "adjust_orientation": True,
            "jpeg_fancy_upsampling": True,
        }
        index = device.index if self._cuda else None
        self._pipeline = _pipeline()(
            capacity, threads, index, prefetch_queue_depth=1, exec_dynamic=True, set_affinity=False
        )
        with self._pipeline:
            encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1, no_copy=True)
            if region:
                window = fn.external_source(name="window", dtype=types.INT32, ndim=1)
                pixels = fn.decoders.image_slice(encoded, window[:2], window[2:], axis_names="HW", **options)
            else:
                pixels = fn.decoders.image(encoded, **options)
            self._pipeline.set_outputs(pixels)
        self._pipeline.build()

    def run(self, data: Sequence[Any], windows: Ints, stream: Any = None) -> Pieces:
        """[h, w, 3] uint8 of each; raises RuntimeError if any can't be decoded, after which the pipeline is as good as
        before."""
        from nvidia.dali import tensors

        # one list of tensors that show the bytes: a list of arrays takes three times as long
        made: Any = tensors.TensorListCPU
        boxes = np.ascontiguousarray(windows, np.int32)
        shown = made(list(map(tensors.TensorCPU, data)), "", contiguous=False)
        self._pipeline.feed_input("encoded", shown)
        if self._region:
            # as a list too, so that it is not asked what it is
            self._pipeline.feed_input("window", made(boxes, ""))
        # the GIL is released while this waits
        self._pipeline.schedule_run()
        (pixels,) = self._pipeline.share_outputs(cuda_stream=stream) if self._cuda else self._pipeline.share_outputs()
        self._pipeline.release_outputs()
        return self._views(pixels, windows, (shown, data) if self._cuda else None)

    def _views(self, pixels: Any, windows: Ints, encoded: Any) -> Pieces:
        last = pixels[len(windows) - 1]
        begins, shapes, sizes = _in_turn(windows[:, 2:])
        try:
            # refused unless the list lies in one piece, in its order
            first = pixels.data_ptr()
        except RuntimeError:
            first = None
        # windows have the sizes that were asked for, or DALI raises; images are seen to have others by the last one
        if first is None or last.data_ptr() - first != begins[-1] or tuple(last.shape()) != tuple(shapes[-1]):
            shapes = np.array(pixels.shape(), np.int64)
            begins, sizes = np.array([pixels[i].data_ptr() for i in range(len(shapes))]), shapes.prod(1)
            first = int(begins.min())
            begins -= first
        memory = Memory(pixels, first, int((begins + sizes).max()), self._cuda, encoded)
        # said: older versions of torch copy to the host what they are not told to leave on a device
        flat = torch.as_tensor(memory, device=self._device) if self._cuda else torch.from_numpy(np.asarray(memory))
        return Pieces(flat, begins, shapes)


@cache
def _pipeline() -> Any:
    """DALI's pipeline, which a process that was forked leaves alone: its threads are not there, and its end would wait
    for them."""
    from nvidia.dali import Pipeline

    class Own(Pipeline):  # type: ignore[misc]
        def __init__(self, *given: Any, **options: Any):
            self._made_in = os.getpid()
            super().__init__(*given, **options)

        def _shutdown(self) -> None:
            # called as it is collected, and for all that are left as the process ends
            if os.getpid() != self._made_in and getattr(self, "_pipe", None) is not None:
                # held for ever, so that what is behind it does not end either
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._pipe))
                self._pipe: Any = None
            super()._shutdown()

    return Own


def _in_turn(sides: Ints) -> tuple[Ints, Ints, Ints]:
    """Where images [h, w, 3] begin that lie one after the other, their shapes and their sizes.  sides: [N, 2]"""
    shapes = np.full((len(sides), 3), 3, np.int64)
    shapes[:, :2] = sides
    sizes = 3 * shapes[:, 0] * shapes[:, 1]
    return np.cumsum(sizes) - sizes, shapes, sizes


class Pipes:
    """Pipelines alike, one for each caller at a time."""

    def __init__(self, threads: int, device: torch.device, region: bool):
        self._threads, self._device, self._region = threads, device, region
        self._free: list[Pipe] = []
        self._lock = Lock()

    def run(self, data: Sequence[Any], windows: Ints, stream: Any = None) -> Sequence[Tensor | Exception]:
        """Images, or why there is none.  A batch fails as a whole where one of it does: it is halved until the bad ones
        are alone."""
        with self._lock:
            pipe = self._free.pop() if self._free else None
        if pipe is None or pipe.capacity < len(data):
            pipe = Pipe(max(CAPACITY, 1 << (len(data) - 1).bit_length()), self._threads, self._device, self._region)
        try:
            return halved(lambda part: pipe.run(data[part], windows[part], stream), 0, len(data))
        finally:
            with self._lock:
                self._free.append(pipe)

    def close(self) -> None:
        with self._lock:
            self._free.clear()


class DaliDecoder(Decoder):
    """JPEG and PNG by DALI on the CPU, of each the window alone."""

    name = "dali"

    def __init__(self, num_threads: int | None = None, max_pixels: int = MAX_PIXELS):
        super().__init__(num_threads, max_pixels)
        self._pipes = Pipes(self.num_threads, self.device, region=True)

    def takes(self, header: Header) -> bool:
        """What DALI decodes as Pillow does, without harm from a header that can be read in two ways."""
        if header.kind == "png":
            return header.plain
        if (
            header.kind != "jpeg"
            or not header.plain
            or header.bits != 8
            or header.coding not in ("baseline", "extended", "progressive")
        ):
            return False
        # CMYK is converted with roundings of its own
        return header.channels in (1, 3)

    def _decode(self, data: Sequence[Encoded], heads: Heads, windows: Ints | None) -> Sequence[Tensor | Exception]:
        return self._pipes.run(data, clipped(None, heads.sizes) if windows is None else windows)

    def close(self) -> None:
        super().close()
        self._pipes.close()

    def _what(self) -> str:
        return (
            f"{version()} on the CPU, {self.num_threads} threads, of each JPEG the window alone; CMYK, WebP, "
            "BMP, TIFF, GIF, PNM and odd headers by Pillow"
        )


class CudaDaliDecoder(CudaDecoder):
    """JPEG by DALI on a GPU.  `region`: decode the window alone, which needs a version that can; otherwise it is cut
    out of the whole image."""

    name = "dali"

    def __init__(
        self,
        device: torch.device,
        num_threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
        *,
        region: bool = False,
        why: str = "",
    ):
        super().__init__(device, num_threads, max_pixels)
        self._region, self._why = region, why
        self._pipes = Pipes(self.num_threads, self.device, region)

    def _decode(self, data: Sequence[Encoded], heads: Heads, windows: Ints | None) -> Sequence[Tensor | Exception]:
        images = self._pipes.run(data, clipped(None, heads.sizes) if windows is None else windows, self._stream)
        return proven(images, None if self._region else windows)

    def _list(self, data: list[Tensor], heads: list[Header]) -> list[Tensor]:
        raise AssertionError("DALI is fed by its pipeline")

    def close(self) -> None:
        super().close()
        self._pipes.close()

    def _what(self) -> str:
        how = "of each JPEG the window alone" if self._region else f"whole images and then the window ({self._why})"
        return (
            f"{version()} on {self.device}, {self.num_threads} threads, {how}; CMYK, 12 bits and all else by "
            "Pillow on the CPU"
        )


# ---- what is installed


def version() -> str:
    """DALI as it is installed, under either name."""
    found = {name: metadata.version(name) for name in ("nvidia-dali-cuda120", "nvidia-dali-cuda130") if installed(name)}
    return "DALI " + ", ".join(f"{v} ({name})" for name, v in found.items())


def installed(name: str) -> bool:
    """Whether a distribution is."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
