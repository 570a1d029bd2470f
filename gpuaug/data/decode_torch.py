"""Decoding by torchcodec and by torchvision.io: single images in threads on the CPU, lists in one call of nvJPEG on a
GPU.

The CPU's pixels are Pillow's, bit for bit.  A GPU's differ by a few levels, and windows are cut out of whole images
there."""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from threading import Lock
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gpuaug.arrays import put
from gpuaug.data.decode_batch import MAX_PIXELS, Decoded, Decoder, EachDecoder, cropped, halved
from gpuaug.data.decode_pillow import turn
from gpuaug.data.headers import Encoded, Header, Undecodable
from gpuaug.data.heads import Heads, Ints
from gpuaug.pieces import Pieces

# codings of a JPEG that nvJPEG knows
SEQUENTIAL = ("baseline", "extended", "progressive")
# places of an image that are looked at to see whether a GPU has written it
PROBES = 64
REST = "CMYK, 12 bits and all else by Pillow on the CPU"


class PillowDecoder(Decoder):
    """Everything by Pillow."""

    name = "pillow"

    def takes(self, header: Header) -> bool:
        # all that a decoder does not take is Pillow's
        return False

    def _decode(self, data: Sequence[Encoded], heads: Heads, windows: Ints | None) -> Sequence[Tensor | Exception]:
        raise AssertionError("nothing is taken")

    def _what(self) -> str:
        import PIL

        return f"Pillow {PIL.__version__} on the CPU, {self.num_threads} threads, whole images and then the window"


class TorchvisionDecoder(EachDecoder):
    """JPEG by torchvision.io, and nothing else: its reader of PNG ends the process at a damaged file."""

    name = "torchvision"

    def __init__(self, num_threads: int | None = None, max_pixels: int = MAX_PIXELS):
        super().__init__(num_threads, max_pixels)
        self._ops = _torchvision()

    def takes(self, header: Header) -> bool:
        return header.kind == "jpeg" and header.plain and header.bits == 8

    def _decode_one(self, data: Encoded, header: Header) -> Tensor:
        # the operators themselves: their wrappers in Python warn at every call that they are deprecated.  3 is RGB;
        # EXIF is ours to apply
        image = self._ops.decode_jpeg(tensor(data), 3, False).permute(1, 2, 0)
        return image if header.orientation == 1 else torch.from_numpy(turn(image.numpy(), header.orientation))

    def _what(self) -> str:
        return (
            f"{_torchvision_version()} on the CPU, {self.num_threads} threads, whole JPEG images and then the "
            "window; all else by Pillow"
        )


class TorchcodecDecoder(EachDecoder):
    """JPEG, PNG and WebP by torchcodec."""

    name = "torchcodec"

    def __init__(self, num_threads: int | None = None, max_pixels: int = MAX_PIXELS):
        super().__init__(num_threads, max_pixels)
        from torchcodec.decoders import decode_image

        self._image = decode_image

    def takes(self, header: Header) -> bool:
        if header.kind == "jpeg":
            return header.plain and header.bits == 8
        # it looks for a PNG's orientation before the pixels alone, and makes all frames of an animation
        return header.kind in ("png", "webp") and header.orientation == 1 and header.coding != "animated"

    def _decode_one(self, data: Encoded, header: Header) -> Tensor:
        image: Tensor = self._image(tensor(data), mode="RGB")
        return image.permute(1, 2, 0)

    def _what(self) -> str:
        return (
            f"{_torchcodec_version()} on the CPU, {self.num_threads} threads, whole images and then the "
            "window; BMP, TIFF, GIF and PNM by Pillow"
        )


class CudaDecoder(Decoder):
    """A decoder of lists on a GPU: one stream for its whole life, and events instead of waiting.

    Its images are memory of that stream.  Whoever reads them on another waits for `Decoded.ready`, and keeps the
    `Decoded` until its kernels are done."""

    def __init__(self, device: torch.device, num_threads: int | None = None, max_pixels: int = MAX_PIXELS):
        super().__init__(num_threads, max_pixels)
        self.device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        # one list at a time: nvJPEG's state and the stream are one
        self._turn = Lock()

    def takes(self, header: Header) -> bool:
        return (
            header.kind == "jpeg"
            and header.plain
            and header.bits == 8
            and header.channels in (1, 3)
            and header.coding in SEQUENTIAL
        )

    def here(self) -> ExitStack:
        """Device and stream, which every thread must set for itself."""
        stack = ExitStack()
        stack.enter_context(torch.cuda.device(self.device))
        stack.enter_context(torch.cuda.stream(self._stream))
        return stack

    def decode(self, items: Any, windows: Any = None, heads: Any = None) -> Decoded:
        with self._turn, self.here():
            return super().decode(items, windows, heads)

    def _place(self, image: Tensor) -> Tensor:
        with self.here():
            return image.to(self.device)

    def mark(self) -> Any:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event

    def _decode(self, data: Sequence[Encoded], heads: Heads, windows: Ints | None) -> Sequence[Tensor | Exception]:
        bytes_of = [tensor(d) for d in data]
        return proven(halved(lambda part: self._list(bytes_of[part], heads[part]), 0, len(data)), windows)

    @abstractmethod
    def _list(self, data: list[Tensor], heads: list[Header]) -> list[Tensor]:
        """Whole upright images [H, W, 3], of any strides; raises RuntimeError if any is bad."""


class CudaTorchcodecDecoder(CudaDecoder):
    """torchcodec's nvJPEG, which turns images upright itself."""

    name = "torchcodec"

    def __init__(self, device: torch.device, num_threads: int | None = None, max_pixels: int = MAX_PIXELS):
        super().__init__(device, num_threads, max_pixels)
        from torchcodec.decoders import decode_jpeg

        self._jpeg = decode_jpeg

    def _list(self, data: list[Tensor], heads: list[Header]) -> list[Tensor]:
        return [image.permute(1, 2, 0) for image in self._jpeg(data, mode="RGB", device=self.device)]

    def _what(self) -> str:
        return (
            f"{_torchcodec_version()} on {self.device}: JPEG as lists by nvJPEG, whole images and then the "
            f"window; {REST}"
        )


class CudaTorchvisionDecoder(CudaDecoder):
    """torchvision's nvJPEG: one device a process, and a stream without work in it, since it writes before the stream
    allows that."""

    name = "torchvision"
    # the device of this process, for as long as it lives: torchvision's decoder is one of a process too
    _owner: ClassVar[torch.device | None] = None

    def __init__(self, device: torch.device, num_threads: int | None = None, max_pixels: int = MAX_PIXELS):
        super().__init__(device, num_threads, max_pixels)
        owner = CudaTorchvisionDecoder._owner
        if owner not in (None, self.device):
            raise ValueError(
                f"torchvision decodes on one GPU of a process, {owner} already, got {self.device}; pass "
                "decoder='torchcodec', or start a process for each"
            )
        CudaTorchvisionDecoder._owner = self.device
        self._ops = _torchvision()

    def _list(self, data: list[Tensor], heads: list[Header]) -> list[Tensor]:
        self._stream.synchronize()
        images = self._ops.decode_jpegs_cuda(data, 3, self.device)
        self._stream.synchronize()
        return [upright(image.permute(1, 2, 0), head.orientation) for image, head in zip(images, heads, strict=True)]

    def _what(self) -> str:
        return (
            f"{_torchvision_version()} on {self.device}: JPEG as lists by nvJPEG, the stream drained before "
            f"and after, whole images and then the window; {REST}"
        )


def upright(image: Tensor, orientation: int) -> Tensor:
    """[H, W, C] turned as EXIF says."""
    if orientation > 4:
        image = image.transpose(0, 1)
    flips = ([0] if orientation in (3, 4, 7, 8) else []) + ([1] if orientation in (2, 3, 6, 7) else [])
    return image.flip(flips) if flips else image


def proven(images: Sequence[Tensor | Exception], windows: Ints | None) -> Sequence[Tensor | Exception]:
    """Images that were written, of each the window that is still to be cut out, and why there is none."""
    left = unwritten(images)
    if not left and windows is None:
        return images
    made = list(images)
    for i in left:
        made[i] = Undecodable("the GPU left its memory as it was, or the image is of one colour")
    if windows is None:
        return made
    return [
        image if isinstance(image, Exception) else cropped(image, window)
        for image, window in zip(made, windows, strict=True)
    ]


def unwritten(images: Sequence[Tensor | Exception]) -> list[int]:
    """Slots whose images have one value wherever one looks.

    A GPU decoder may call an image decoded that it has skipped: its memory is then what it was, zeros as a rule.  An
    honest image of one colour is found too, which costs no more than its second decoding.  Waits for the images."""
    if isinstance(images, Pieces):
        large = np.flatnonzero((sizes := images.shapes.prod(1)) >= PROBES)
        at = images.begins[large, None] + (sizes[large, None] - 1) // (PROBES - 1) * np.arange(PROBES)
        seen = images.memory[put(torch.from_numpy(at), images.memory.device)]
        return large[(seen == seen[:, :1]).all(1).cpu().numpy()].tolist()  # type: ignore[no-any-return]
    slots, rows = [], []
    for i, image in enumerate(images):
        if isinstance(image, Tensor) and image.numel() >= PROBES:
            flat = image.permute(2, 0, 1).reshape(-1) if image.permute(2, 0, 1).is_contiguous() else image.reshape(-1)
            rows.append(flat[:: (flat.numel() - 1) // (PROBES - 1)][:PROBES])
            slots.append(i)
    if not rows:
        return []
    seen = torch.stack(rows)
    return [slots[k] for k in (seen == seen[:, :1]).all(1).nonzero()[:, 0].tolist()]


def tensor(data: Encoded) -> Tensor:
    """Bytes as a tensor; what may not be written to is copied, since torch warns of it once for every process."""
    if isinstance(data, bytes) or (isinstance(data, memoryview) and data.readonly):
        return torch.from_numpy(np.frombuffer(data, np.uint8).copy())
    return torch.frombuffer(data, dtype=torch.uint8)


def _torchvision() -> Any:
    # importing it loads its operators
    import torchvision.io  # noqa: F401

    return torch.ops.image


def _torchvision_version() -> str:
    import torchvision

    return f"torchvision {torchvision.__version__}"


def _torchcodec_version() -> str:
    import torchcodec

    return f"torchcodec {torchcodec.__version__}"
