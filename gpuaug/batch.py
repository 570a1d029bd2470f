"""What goes in and what comes out: images (dense, or of different sizes), targets, and who each sample is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from gpuaug import arguments
from gpuaug.rng import MAX_EPOCH

DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, eq=False)
class Ragged:
    """Images of different sizes, as a decoder yields them: contiguous [H, W, C] uint8, one tensor a sample, on one device."""

    images: tuple[Tensor, ...]
    _sent: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        """C, the same for all."""
        return self.images[0].shape[2]

    @property
    def device(self) -> torch.device:
        """Where the pixels are."""
        return self.images[0].device

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """(H, W, C) of every image, on the host."""
        return [i.shape for i in self.images]

    @property
    def addresses(self) -> Tensor:
        """Where every image begins: [N] int64 on the device of the pixels.  Valid while this object lives."""
        return self._known()[: len(self)]

    @property
    def size(self) -> Tensor:
        """(H, W) of every image: [N, 2] int64 on the device of the pixels."""
        return self._known()[len(self) :].view(-1, 2)

    def _known(self) -> Tensor:
        """Addresses, then sizes, in one piece, so that a GPU is sent them once for each stream that asks.

        A captured CUDA graph reads them whenever it is replayed, so that they must stand before: one call with this object does that, and
        from then on new pixels go into the images in place.  Raises RuntimeError where they do not.
        """
        if self.device.type != "cuda":
            return self._host
        if torch.cuda.is_current_stream_capturing():
            if not self._sent:
                raise RuntimeError("a capture needs a gpuaug.Ragged whose sizes are on the device already, got new images; call the policy with it once before")
            # all streams had come to an end when the capture began
            return next(iter(self._sent.values()))
        stream = torch.cuda.current_stream(self.device).cuda_stream
        if stream not in self._sent:
            self._sent[stream] = put(self._host, self.device)
        return self._sent[stream]

    @cached_property
    def _host(self) -> Tensor:
        return torch.tensor([*(i.data_ptr() for i in self.images), *(v for h, w, _ in self.shapes for v in (h, w))], dtype=torch.int64)

    def dense(self) -> Tensor:
        """[N, C, H, W] uint8 in channels_last memory, if all sizes are equal."""
        return torch.stack(self.images).permute(0, 3, 1, 2)


Images = Tensor | Ragged


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch with its targets and the numbers of its samples.

    images: [N, C, H, W], or anything a policy takes.  labels: [N] integers or [N, K] floats.  ids, occurrence: [N] int64.
    """

    images: Any
    labels: Tensor | None = None
    ids: Tensor | None = None
    epoch: int | Tensor | None = None
    occurrence: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def replace(self, **changes: Any) -> "Batch":
        """The same batch with other fields."""
        return replace(self, **changes)


class Params(Sequence[dict[str, Any]]):
    """What a policy drew: one dict per transform, and the keys and sizes that it was drawn for."""

    def __init__(self, drawn: Sequence[dict[str, Any]], *, seed: int, ids: Tensor, epoch: int | Tensor, occurrence: Tensor, size: Tensor):
        self._drawn = tuple(drawn)
        self.seed, self.ids, self.epoch, self.occurrence, self.size = seed, ids, epoch, occurrence, size

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | Sequence[dict[str, Any]]:
        return self._drawn[index]

    def __len__(self) -> int:
        return len(self._drawn)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._drawn)

    def __repr__(self) -> str:
        keys = [", ".join(d) or "-" for d in self._drawn]
        return f"Params(samples={len(self.ids)}, epoch={self.epoch}, drawn=[{'; '.join(keys)}])"

    def to(self, device: torch.device | str) -> "Params":
        """The same parameters on another device."""

        def moved(value: Any) -> Any:
            if isinstance(value, dict):
                return {k: moved(v) for k, v in value.items()}
            if isinstance(value, list):
                return [moved(v) for v in value]
            return value.to(device) if isinstance(value, Tensor) else value

        keys = {k: moved(getattr(self, k)) for k in ("ids", "epoch", "occurrence", "size")}
        return Params([moved(d) for d in self._drawn], seed=self.seed, **keys)


def as_images(images: Any) -> Images:
    """A dense tensor or a Ragged from whatever a user has; raises TypeError or ValueError for what is no batch of images."""
    if isinstance(images, Ragged):
        return images
    if isinstance(images, list | tuple):
        return _from_list(images)
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(_writable(images))
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a tensor [N, C, H, W], an array, or a list of [H, W, C] uint8 images, got {type(images).__name__}")
    if images.ndim != 4:
        raise ValueError(f"images must have 4 dimensions [N, C, H, W], got shape {tuple(images.shape)}; use images[None] for a single one")
    if images.dtype not in DTYPES:
        raise TypeError(f"images must be uint8, float16, bfloat16 or float32, got {images.dtype}; convert them first")
    if images.layout != torch.strided:
        raise TypeError(f"images must be a dense tensor, got layout {images.layout}; use images.to_dense()")
    if images.requires_grad:
        raise ValueError("images require grad, and augmentation is not differentiable here; pass images.detach()")
    if min(images.shape[1:]) < 1:
        raise ValueError(f"images must have at least one channel, row and column, got shape {tuple(images.shape)}")
    return images


def _from_list(items: Sequence[Any]) -> Images:
    if not items:
        raise ValueError("images must not be an empty list: its channels are unknown; pass an empty tensor [0, C, H, W]")
    images = tuple(i if _ready(i) else _one(i, n) for n, i in enumerate(items))
    ragged = Ragged(images)
    channels, devices = [s[2] for s in ragged.shapes], [i.device for i in images]
    if len(set(channels)) > 1:
        n = next(n for n, c in enumerate(channels) if c != channels[0])
        raise ValueError(f"images of a list must have the same channels, got {channels[0]} in image 0 and {channels[n]} in image {n}; convert them to RGB")
    if len(set(devices)) > 1:
        raise ValueError(f"images of a list must be on one device, got {devices[0]} and {next(d for d in devices if d != devices[0])}")
    # the sizes are known here, so that equal ones need no step that fixes them
    return ragged.dense() if len(set(ragged.shapes)) == 1 else ragged


def _ready(item: Any) -> bool:
    """Whether an image of a list is already what `_one` would make of it: hundreds are looked at in a call."""
    return type(item) is Tensor and item.dtype == torch.uint8 and item.ndim == 3 and item.is_contiguous() and item.numel() > 0


def _one(item: Any, n: int) -> Tensor:
    """One image of a list as contiguous [H, W, C] uint8."""
    if not isinstance(item, Tensor):
        if getattr(item, "mode", "RGB") not in ("L", "LA", "RGB", "RGBA"):
            raise TypeError(f"image {n} of the list has PIL mode {item.mode!r}, whose values are not 8-bit colours; use image.convert('RGB')")
        array = np.asarray(item)
        if array.dtype != np.uint8:
            raise TypeError(
                f"image {n} of the list must be uint8 [H, W, C] or an 8-bit PIL image, got {type(item).__name__} of {array.dtype}; convert it to RGB"
            )
        item = torch.from_numpy(_writable(array))
    if item.dtype != torch.uint8:
        raise TypeError(f"image {n} of the list must be uint8, got {item.dtype}; stack float images of one size into a tensor [N, C, H, W]")
    if item.ndim == 2:
        item = item[:, :, None]
    if item.ndim != 3 or min(item.shape) < 1:
        raise ValueError(f"image {n} of the list must have shape [H, W, C], each at least 1, got {tuple(item.shape)}")
    image: Tensor = item.contiguous()
    return image


def _writable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """torch warns of read-only memory and refuses negative strides; nothing here writes to it, so a copy is only made where torch needs one."""
    return array if array.flags.writeable and all(s >= 0 for s in array.strides) else array.copy()


def put(values: Any, device: torch.device) -> Tensor:
    """A tensor of what is on the host, on a device; from pinned memory, so that nothing waits for it."""
    host = torch.as_tensor(values)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def as_labels(labels: Any, n: int, device: torch.device) -> Tensor:
    """A tensor with a row per image on their device: a mix asks for more."""
    out: Tensor = labels if isinstance(labels, Tensor) else put(np.asarray(labels), device)
    if out.device != device:
        raise ValueError(f"labels must be on the device of the images, got {out.device} and {device}; move them with .to({str(device)!r})")
    if out.ndim < 1 or out.shape[0] != n:
        raise ValueError(f"labels must have one row per image, {n}, got shape {tuple(out.shape)}")
    return out


def as_integers(name: str, values: Any, n: int | None, device: torch.device, limit: int) -> Tensor:
    """[n] int64 in [0, limit) on the device, of any length where n is None; the range is checked where that costs no wait."""
    try:
        given: Tensor = values if isinstance(values, Tensor) else put(values, device)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be integers, got {values!r}") from None
    if given.dtype.is_floating_point or given.dtype.is_complex or given.dtype == torch.bool:
        raise TypeError(f"{name} must be integers, got {given.dtype}")
    if given.ndim != 1 or n not in (None, len(given)):
        raise ValueError(f"{name} must have shape [{'N' if n is None else n}], one per image, got {tuple(given.shape)}")
    if given.device != device:
        raise ValueError(f"{name} must be on the device of the images, got {given.device} and {device}; move them with .to({str(device)!r})")
    if device.type == "cpu" and len(given) and not 0 <= int(given.min()) <= int(given.max()) < limit:
        raise ValueError(f"{name} must be in [0, {limit}), got {int(given.min())} to {int(given.max())}")
    return given.long()


def as_epoch(epoch: Any, device: torch.device) -> int | Tensor:
    """A number in [0, 2^18), or a tensor that holds one on the device, where reading it would make the host wait."""
    if not isinstance(epoch, Tensor):
        return arguments.integer("epoch", epoch, 0, MAX_EPOCH - 1)
    if epoch.ndim or epoch.dtype != torch.int64 or epoch.device != device:
        raise ValueError(f"epoch must be a number, or an int64 tensor without dimensions on {device}, got {epoch.dtype} {list(epoch.shape)} on {epoch.device}")
    if device.type == "cpu":
        arguments.integer("epoch", int(epoch), 0, MAX_EPOCH - 1)
    return epoch


def joined(batch: Batch, given: dict[str, Any]) -> Batch:
    """A batch with what a call adds to it; nothing may come twice."""
    for name, value in given.items():
        if value is not None and getattr(batch, name) is not None:
            raise ValueError(f"{name} came in the Batch and as an argument; pass it once")
    return batch.replace(**{name: value for name, value in given.items() if value is not None})


def blank(what: Any, dtype: torch.dtype, device: torch.device | str) -> Any:
    """Black images where a shape is given, else what is given."""
    if not isinstance(what, tuple | list) or not what or not all(isinstance(v, int) for v in what):
        return what
    if len(what) != 4 or min(what) < 1:
        raise ValueError(f"a shape must be (N, C, H, W), each at least 1, got {tuple(what)}")
    return torch.zeros(tuple(what), dtype=dtype, device=device)
