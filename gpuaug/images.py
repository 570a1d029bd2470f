"""What a user has as images: a tensor, an array, a list of images of different sizes, or one image, with channels first
or last."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpuaug.arguments import named
from gpuaug.arrays import Rows, chosen, from_array, from_pil, integer_rows, is_pil, is_tv, put, resolved, short
from gpuaug.gathered import Gathered
from gpuaug.listed import check_pixels, plain, planar, together
from gpuaug.pieces import Pieces
from gpuaug.strides import CHANNELS, CONTIGUOUS, arranged, rows_of_three, strides_of, way

_LAYOUTS = ("chw", "hwc")
_NONE = np.empty((0, 4), np.int64)


class Ragged:
    """Images of different sizes, as a decoder yields them: uint8 of the same channels, one tensor [H, W, C] a sample,
    on one device.

    images: a sequence of tensors, arrays or PIL images.  layout: "chw" or "hwc" for its tensors and arrays; None as in
    a list that a policy is given: an array is [H, W, C]; a tensor is [C, H, W] where its first axis is 1, 3 or 4 and
    its last is not, or where it is a tv_tensor. On a host every image is read by its strides, and nothing is copied; on
    a GPU all are where rows of pixels are whole, [H, W, C], or rows of planes, [C, H, W], and one that lies otherwise
    than most is copied once, here. Raises TypeError or ValueError that name the image which does not fit."""

    def __init__(self, images: Sequence[Any], layout: str | None = None):
        if layout not in (None, *_LAYOUTS):
            raise ValueError(f'layout must be "chw", "hwc" or None, got {layout!r}')
        if isinstance(images, str) or not isinstance(images, Sequence | Tensor | np.ndarray):
            raise TypeError(f"images must be a sequence of images, got {type(images).__name__}; pass a list")
        for n, image in enumerate(images):
            if isinstance(image, Tensor | np.ndarray) and image.ndim != 3:
                raise ValueError(
                    f"image {n} of the list must have 3 dimensions, got shape {tuple(image.shape)}; "
                    "pass image[:, :, None] for a grey one"
                )
        self._set(*together(images, layout))
        if self.dtype != torch.uint8:
            raise TypeError(
                f"images of a gpuaug.Ragged must be uint8, got {self.dtype}; give the policy the list itself"
            )

    @classmethod
    def windowed(cls, images: Sequence[Any], full: Any, windows: Any) -> "Ragged":
        """Images of which a window each was decoded: a policy computes as if the whole images were here, and refuses
        them where it would read beyond a window.

        images: the pixels of the windows, each [h, w, C] uint8.  full: (H, W) of every image, [N, 2] integers on the
        host.  windows: (top, left, height, width) in its image, [N, 4], as `Policy.windows` gives them."""
        made = cls(images, "hwc")
        sizes, places = (integer_rows(*v, len(made)) for v in (("full", full, 2), ("windows", windows, 4)))
        for n, (image, (height, width), (top, left, high, wide)) in enumerate(
            zip(made.images, sizes.tolist(), places.tolist(), strict=True)
        ):
            if image.shape[:2] != (high, wide):
                raise ValueError(
                    f"image {n} must have the pixels of its window, {high} x {wide}, got {tuple(image.shape)}; "
                    "pass what was decoded of it as [h, w, C]"
                )
            if not (0 <= top <= height - high and 0 <= left <= width - wide):
                raise ValueError(
                    f"window {n} must lie in its image of {height} x {width}, got (top, left, height, width) = "
                    f"{(top, left, high, wide)}"
                )
        return cls.of(made.images, sizes, places)

    @classmethod
    def of(cls, images: Sequence[Tensor], full: Rows | None = None, windows: Rows | None = None) -> "Ragged":
        """From images [H, W, C] that are known to belong together; of other dtypes than uint8 too.  full, windows: as
        `windowed` takes them, where images are windows"""
        made = cls.__new__(cls)
        made._set(images)
        if windows is not None and full is not None and not np.array_equal(windows[:, 2:], full):
            made._full, made.windows = full, windows
        return made

    def _set(self, images: Sequence[Tensor], shapes: Rows | None = None) -> None:
        """shapes: of all, where that is known"""
        if not len(images):
            raise IndexError("a gpuaug.Ragged must hold at least one image: without any its channels are unknown")
        self._sent: dict[int, Tensor] = {}
        self._pieces = images if isinstance(images, Pieces) else None
        one = images[0] if self._pieces is None else self._pieces.memory
        self._device, self._dtype = one.device, one.dtype
        if self._pieces is None:
            self.images = arranged(images) if one.device.type == "cuda" else tuple(images)
        if shapes is not None:
            self.held = shapes
        self._full: Rows | None = None
        # (top, left, height, width) of what is in memory, [N, 4] int64; None where all of every image is
        self.windows: Rows | None = None

    @cached_property
    def images(self) -> tuple[Tensor, ...]:
        """The pixels that are here, [H, W, C] each."""
        assert self._pieces is not None
        return tuple(self._pieces)

    def __reduce__(self) -> tuple[Any, ...]:
        # what was sent to a device stays there
        return Ragged.of, (self.images, self._full, self.windows)

    def __len__(self) -> int:
        return len(self.images if self._pieces is None else self._pieces)

    def __getitem__(self, index: Any) -> Any:
        """One image [C, H, W]; or by a slice, numbers or a mask, on the host, a Ragged."""
        if isinstance(index, int | np.integer) or (isinstance(index, Tensor) and index.ndim == 0):
            image = self.images[int(index)]
            if self.windows is not None and image.shape[:2] != self.shapes[int(index)][:2]:
                raise ValueError(
                    f"image {int(index)} is a window of {image.shape[0]} x {image.shape[1]} pixels of an image of "
                    f"{self.shapes[int(index)][0]} x {self.shapes[int(index)][1]}; take a slice, which keeps it one, "
                    "or its pixels by .images"
                )
            return image.permute(2, 0, 1)
        rows = range(len(self))[index] if isinstance(index, slice) else chosen(index, len(self))
        kept = (None if v is None else v[list(rows)] for v in (self._full, self.windows))
        return Ragged.of(tuple(self.images[i] for i in rows), *kept)

    def __repr__(self) -> str:
        sides = sorted({s[:2] for s in self.shapes})
        span = " to ".join("x".join(map(str, s)) for s in dict.fromkeys((sides[0], sides[-1])))
        of = "" if self.windows is None else "windows of "
        return f"Ragged({len(self)} images, {short(self.dtype)}, {self.channels} channels, {of}{span}, {self.device})"

    def mapped(self, do: Callable[[Tensor], Tensor]) -> "Ragged":
        """`do` to the pixels of every image, which keep their places."""
        return Ragged.of(tuple(map(do, self.images)), self._full, self.windows)

    @property
    def channels(self) -> int:
        """C, the same for all."""
        return int(self.held[0, 2])

    @property
    def dtype(self) -> torch.dtype:
        """Of the pixels."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """Where the pixels are."""
        return self._device

    @property
    def elements(self) -> int:
        """Of all images together, as they are here."""
        return int(self.held.prod(1).sum())

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """(H, W, C) of every image, on the host; of the whole image, where a window of it is here."""
        if self._full is not None:
            channels = self.channels
            return [(h, w, channels) for h, w in self._full.tolist()]
        return list(map(tuple, self.held.tolist()))

    @property
    def sides(self) -> Rows:
        """(H, W) of every whole image: [N, 2] int64, on the host."""
        return self.held[:, :2] if self._full is None else self._full

    @property
    def alike(self) -> bool:
        """Whether all whole images are of one size."""
        sides = self.sides
        # most are not, and the first and the last of them show it
        return sides[0].tolist() == sides[-1].tolist() and bool((sides == sides[0]).all())

    @cached_property
    def held(self) -> Rows:
        """(H, W, C) of what is in memory of every image: [N, 3] int64, on the host."""
        return rows_of_three([i.shape for i in self.images]) if self._pieces is None else self._pieces.shapes

    @property
    def addresses(self) -> Tensor:
        """Where every image begins: [N] int64 on the device of the pixels.  Valid while this object lives.  Of a window
        it is where the first pixel of the whole image would be, which nobody may read."""
        return self.known()[: len(self)]

    @property
    def size(self) -> Tensor:
        """(H, W) of every image, the whole one: [N, 2] int64 on the device of the pixels."""
        return self.known()[self._slots : self._slots + 2 * len(self)].view(-1, 2)

    @property
    def pitches(self) -> Tensor:
        """From row to row of every image, in elements: [N] int64 on the device of the pixels."""
        return self.known()[3 * self._slots : 3 * self._slots + len(self)]

    @property
    def corners(self) -> Tensor:
        """What is in memory of every image as a rectangle (x0, y0, x1, y1): [N, 4] int64 on the device of the
        pixels."""
        return self.known()[4 * self._slots : 4 * self._slots + 4 * len(self)].view(-1, 4)

    @property
    def places(self) -> Tensor:
        """Where every image begins, as `addresses`, and its strides of rows and of channels, in elements: [N, 3] int64
        on the device of the pixels."""
        return self.known()[4 * self._slots + 4 * len(self) :].view(-1, 3)

    @cached_property
    def way(self) -> str:
        """How all images lie in memory, as `strides.way` says."""
        return way(self.images) if self._pieces is None else CONTIGUOUS

    def arranged(self) -> "Ragged":
        """The same images, all lying in one way."""
        return self if self._pieces is not None else Ragged.of(arranged(self.images), self._full, self.windows)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Ragged":
        """The same images on another device.  Pinned ones travel in one piece, and with `non_blocking` nothing waits
        for them."""
        if torch.device(device) == self.device:
            return self
        piece = None if self._pieces is None else self._pieces.whole
        if piece is None:
            return self.mapped(lambda image: image.to(device, non_blocking=non_blocking))
        return self.laid_out(piece.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Ragged":
        """The same images in one piece of memory that a GPU can read; as they are where there is no GPU."""
        piece = None if self._pieces is None else self._pieces.whole
        if self.device.type != "cpu" or not torch.cuda.is_available() or (piece is not None and piece.is_pinned()):
            return self
        return self.copied(torch.empty(self.elements, dtype=self.dtype, device="cpu", pin_memory=True))

    def laid_out(self, piece: Tensor) -> "Ragged":
        """Images of these sizes one after the other in a piece of memory.  piece: [pixels of all]"""
        return Ragged.of(Pieces.in_turn(piece, self.held), self._full, self.windows)

    def copied(self, piece: Tensor) -> "Ragged":
        """These images there, with their pixels.  piece: as `laid_out` takes it"""
        made, whole = self.laid_out(piece), None if self._pieces is None else self._pieces.whole
        if whole is not None:
            piece.copy_(whole, non_blocking=True)
        elif piece.device.type == "cuda":
            torch._foreach_copy_(list(made.images), list(self.images))
        else:
            for to, image in zip(made.images, self.images, strict=True):
                to.copy_(image)
        return made

    @property
    def _slots(self) -> int:
        """Images rounded up, so that each part of what is known begins at a multiple of 16 bytes: a batch of an odd
        number of images then needs no kernels of its own."""
        return len(self) + len(self) % 2

    @property
    def words(self) -> int:
        """Numbers in `known`."""
        return 4 * self._slots + 7 * len(self)

    def known(self) -> Tensor:
        """Addresses, sizes, pitches, corners and places in one piece, so that a GPU is sent them once for each stream
        that asks.

        A captured CUDA graph reads them whenever it is replayed, so that they must stand before: one call with this
        object does that, and from then on new pixels go into the images in place.  Raises RuntimeError where they do
        not."""
        cuda = self.device.type == "cuda"
        if cuda and torch.cuda.is_current_stream_capturing():
            if not self._sent:
                raise RuntimeError(
                    "a capture needs a gpuaug.Ragged whose sizes are on the device already, got new images; "
                    "call the policy with it once before"
                )
            # all streams had come to an end when the capture began
            return next(iter(self._sent.values()))
        stream = self._stream()
        if stream not in self._sent:
            self._sent[stream] = put(self._host, self.device)
        return self._sent[stream]

    def tell(self, known: Tensor) -> None:
        """Take over what `known` would send to the device, sent on the current stream with other numbers."""
        self._sent.setdefault(self._stream(), known)

    def _stream(self) -> int:
        return torch.cuda.current_stream(self.device).cuda_stream if self.device.type == "cuda" else 0

    @cached_property
    def _host(self) -> Tensor:
        # written in place: small arrays cost by the operation
        n, slots, begin, strides, sides = len(self), self._slots, self.begins, self.strides, self.sides
        known = np.zeros(self.words, np.int64)
        known[:n] = begin
        known[slots : slots + 2 * n].reshape(n, 2)[:] = sides
        known[3 * slots : 3 * slots + n] = strides[:, 0]
        self._write_rectangles(known[4 * slots : 4 * slots + 4 * n].reshape(n, 4))
        places = known[4 * slots + 4 * n :].reshape(n, 3)
        places[:, 0] = begin
        places[:, 1:] = strides[:, ::2]
        return torch.from_numpy(known)

    def lie(self) -> tuple[int, Rows, Rows, Rows, Rows, Rows]:
        """All that `known` is computed from: an address, and where images begin from there, in bytes, [N]; (H, W, C) of
        what is here, [N, 3]; strides, [N, 3], none where they are contiguous; (H, W) of the whole images, [N, 2], and
        their windows, [N, 4], none where all is here."""
        strides = _NONE if self.way == CONTIGUOUS else self.strides
        full, windows = (_NONE, _NONE) if self.windows is None or self._full is None else (self._full, self.windows)
        pieces, size = self._pieces, self.dtype.itemsize
        if pieces is None:
            return 0, np.array([i.data_ptr() for i in self.images]), self.held, strides, full, windows
        begins = pieces.begins if size == 1 else pieces.begins * size
        return pieces.memory.data_ptr(), begins, pieces.shapes, strides, full, windows

    @cached_property
    def begins(self) -> np.ndarray[Any, Any]:
        """As `addresses`, on the host."""
        begins = np.array([i.data_ptr() for i in self.images]) if self._pieces is None else self._pieces.addresses
        if self.windows is None:
            return begins
        (top, left), (row, column) = self.windows.T[:2], self.strides.T[:2]
        return begins - (top * row + left * column) * self.dtype.itemsize  # type: ignore[no-any-return]

    @property
    def rectangles(self) -> Rows:
        """As `corners`, on the host."""
        out = np.zeros((len(self), 4), np.int64)
        self._write_rectangles(out)
        return out

    def _write_rectangles(self, out: Rows) -> None:
        if self.windows is None:
            out[:, 2:] = self.sides[:, ::-1]
            return
        out[:, :2] = self.windows[:, 1::-1]
        np.add(out[:, :2], self.windows[:, :1:-1], out=out[:, 2:])

    @cached_property
    def strides(self) -> Rows:
        """Of row, column and channel of every image, in elements: [N, 3] on the host."""
        return strides_of(self.images, self.held, self.way) if self._pieces is None else self._pieces.strides

    def dense(self) -> Tensor:
        """[N, C, H, W] in channels_last memory, if all sizes are equal.  Raises ValueError for windows."""
        if self.windows is not None:
            raise ValueError(
                f"images must be whole where they are taken together, got windows of them in {self!r}; "
                "decode whole images, as `Policy.windows` asks for such a policy"
            )
        return torch.stack(self.images).permute(0, 3, 1, 2)


Images = Tensor | Ragged | Gathered


def as_images(images: Any) -> Images:
    """A dense tensor or a Ragged from whatever a user has; raises TypeError or ValueError for what is no batch of
    images."""
    if type(images) is Tensor:
        return _batch(resolved(images))
    if isinstance(images, Ragged | Gathered):
        return images
    if isinstance(images, Planar):
        return _batch(images.pixels, known=True)
    if isinstance(images, list | tuple):
        ragged = Ragged.__new__(Ragged)
        ragged._set(*together(images, None))
        # the sizes are known here, so that equal ones need no step that fixes them
        return ragged.dense() if ragged.alike else ragged
    if isinstance(images, np.ndarray):
        return _batch(from_array("images", images), array=True)
    if not isinstance(images, Tensor):
        raise TypeError(
            f"images must be a tensor [N, C, H, W], an array, or a list of [H, W, C] images, got {named(images)}"
        )
    # a tv_tensor is [N, C, H, W] by definition
    return _batch(plain("images", images), known=is_tv(images))


def _batch(images: Tensor, array: bool = False, known: bool = False) -> Tensor:
    """A dense batch, checked.  array: whether it came as one; known: whether its axes need no check"""
    shape = tuple(images.shape)
    if images.ndim != 4:
        raise ValueError(f"images must have 4 dimensions [N, C, H, W], got shape {shape}; {_advice(shape, array)}")
    check_pixels("images", images)
    if min(shape[1:]) < 1:
        raise ValueError(f"images must have at least one channel, row and column, got shape {shape}")
    if not known and _reversed(shape):
        raise ValueError(
            f"images must be [N, C, H, W], got shape {shape}, whose last axis looks like channels; "
            "pass x.permute(0, 3, 1, 2), or, where it is a width, "
            'gpuaug.Ragged(x, layout="chw")'
        )
    return images


class Planar(NamedTuple):
    """Images known to be [N, C, H, W], whatever their shape looks like."""

    pixels: Tensor


def as_one(image: Any) -> Tensor | Planar | None:
    """One image as a batch of one, [1, C, H, W]; None for what is no single image: a PIL image, a tensor [C, H, W] or
    an array [H, W, C]."""
    one = single(image)
    return one if one is None or not _reversed(one.shape) else Planar(one)


def single(image: Any) -> Tensor | None:
    """The pixels of one image, [1, C, H, W]; None for what is none."""
    if isinstance(image, Tensor):
        if image.ndim != 3 or not (planar(image.shape) or is_tv(image)):
            return None
        return plain("image", image)[None]
    if isinstance(image, np.ndarray):
        return (
            from_array("image", image).permute(2, 0, 1)[None]
            if image.ndim == 3 and image.shape[2] in CHANNELS
            else None
        )
    return from_pil("the image", image).permute(2, 0, 1)[None] if is_pil(image) else None


def _reversed(shape: Sequence[int]) -> bool:
    """Whether four axes are taken for [N, H, W, C]."""
    return shape[3] in CHANNELS and shape[1] not in CHANNELS


def _advice(shape: tuple[int, ...], array: bool) -> str:
    """What to do about a shape that is neither a batch nor one image."""
    if len(shape) == 2:
        return "use x[None, None] for one grey image"
    if len(shape) == 5:
        return "use x.flatten(0, 1) to join the first two; a policy takes videos [N, T, C, H, W] as they are"
    if len(shape) != 3:
        return "stack images of one size, or pass a list"
    first, last = shape[0] in CHANNELS, shape[2] in CHANNELS
    if array:
        return (
            "use x[None] for one image [C, H, W], as one array is [H, W, C]"
            if first
            else "use x[:, None] for a batch [N, H, W] without a channel axis"
        )
    if first and last:
        return "use x[None] for one image [C, H, W], x.permute(2, 0, 1)[None] for one [H, W, C]"
    if last:
        return "use x.permute(2, 0, 1) for one image [H, W, C]"
    return "use x[:, None] for a batch [N, H, W] without a channel axis, x[None] for one image [C, H, W]"
