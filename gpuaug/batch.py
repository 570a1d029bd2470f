"""What goes in and comes out beside the pixels: a batch with its targets, what was drawn, and who each sample is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from gpuaug import arguments
from gpuaug.arrays import chosen, from_array, is_tv, put, resolved, short
from gpuaug.displayed import batch_html
from gpuaug.drawn import DrawnAhead
from gpuaug.gathered import Gathered
from gpuaug.images import Ragged, as_images, single
from gpuaug.rng import MAX_EPOCH

_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch with its targets and the numbers of its samples.

    images: [N, C, H, W], or anything a policy takes.  labels: [N] integers or [N, K] floats.  ids, occurrence: [N]
    integers. key: of the process that numbered the samples, where that was a loader's worker or a child; draws are
    keyed by it and the policy's seed.  valid: [N] bool; a sample that is not takes no part: it is nobody's partner in a
    mix (who would get it is its own), and its row of soft labels is zeros; None: all are.  params: what
    `Policy.windows` drew for these samples, so that it is not drawn again.  Of videos, images [N, T, C, H, W], targets
    have T after N.

    Targets follow their images.  masks: [N, H, W] or [N, M, H, W] of any dtype, or a list where sizes differ; the
    nearest pixel, or of floats a mean where mask_interpolation is "bilinear"; mask_fill: where the image has no pixel.
    boxes: [N, K, 4], or a list of [K, 4], which is padded, in box_format "XYXY", "XYWH" or "CXCYWH", where the image is
    (0, 0) to (W, H); what comes out is the upright rectangle around what of a box is still in the image.  box_valid:
    [N, K] bool; false for boxes without area, of less than min_area pixels, or of which a share below min_visibility is
    left.  keypoints: [N, K, 2], or a list, where (0, 0) is the centre of the first pixel.  visible: [N, K] bool or
    integers; false or 0 for those outside the image, or NaN.

    batch[2] is one sample without its first axis, which a policy takes too; a slice, numbers or a mask, on the host,
    give a Batch, and a loop runs over the samples."""

    images: Any
    labels: Tensor | None = None
    ids: Tensor | None = None
    epoch: int | Tensor | None = None
    occurrence: Tensor | None = None
    key: int | None = None
    valid: Tensor | None = None
    params: DrawnAhead | None = None
    masks: Any = None
    boxes: Any = None
    box_valid: Any = None
    box_format: str | None = None
    keypoints: Any = None
    visible: Any = None
    min_area: float = 0.0
    min_visibility: float = 0.0
    mask_interpolation: str = "nearest"
    mask_fill: float = 0.0

    def __len__(self) -> int:
        if not isinstance(self.images, Ragged | Sequence) and getattr(self.images, "ndim", 0) not in (4, 5):
            raise TypeError("one sample of a Batch has no length")
        return len(self.images)

    # no __iter__, because Lightning finds the size of a batch in its fields only if the batch is no iterable; for loops
    # work by __getitem__
    def __getitem__(self, index: Any) -> "Batch":
        n = len(self)
        if isinstance(index, int | np.integer) and not -n <= index < n:
            raise IndexError(f"a Batch of {n} samples has no sample {index}")
        if not isinstance(index, int | np.integer | slice) and (not isinstance(index, Tensor) or index.ndim > 1):
            index = chosen(index, n)
        return Batch(**{f.name: _taken(f.name, getattr(self, f.name), index, n) for f in fields(self)})

    def __repr__(self) -> str:
        return f"Batch({', '.join(f'{name}={value}' for name, value in self._told())})"

    def _repr_html_(self) -> str:
        return batch_html(self.images, self._told())

    def _told(self) -> list[tuple[str, str]]:
        """What each field holds that is not as usual."""
        shown = ((f.name, getattr(self, f.name), f.default) for f in fields(self))
        return [
            (name, _shown(value))
            for name, value, usual in shown
            if value is not None and not (isinstance(value, Real | str) and value == usual)
        ]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """All of it on another device, lists and arrays as tensors."""
        return self._mapped(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """All of it in memory that a GPU reads by itself, lists and arrays as tensors; where there is no GPU in memory
        as it is."""
        return self._mapped(_pinned)

    def _mapped(self, do: Callable[[Any], Any]) -> "Batch":
        images = self.images
        if not isinstance(images, Tensor | Ragged | Gathered):
            one = single(images)
            # clips in an array are no images, and stay clips
            clips = isinstance(images, np.ndarray) and images.ndim == 5
            images = from_array("images", images) if clips else as_images(images) if one is None else one[0]
        changed: dict[str, Any] = {"images": images}
        if self.params is not None and self.valid is not None:
            # while both are on the host
            changed["params"] = self.params.among(self.valid)
        return Batch(**{f.name: _each(changed.get(f.name, getattr(self, f.name)), do) for f in fields(self)})

    def replace(self, **changes: Any) -> "Batch":
        """The same batch with other fields."""
        if not changes.keys() <= self.__dict__.keys():
            # it says which is none
            return replace(self, **changes)
        # what its __init__ would do: a frozen dataclass sets every field by a call of its own
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__ | changes)
        return made


def _taken(name: str, value: Any, index: Any, n: int) -> Any:
    """What belongs to the samples of an index; what belongs to all of them stays."""
    if value is None or isinstance(value, Real | str) or (isinstance(value, Tensor | np.ndarray) and not value.ndim):
        return value
    if isinstance(value, DrawnAhead):
        return value[index]
    # a tensor [C, H, W] is an image, an array is not
    value = from_array(name, value) if isinstance(value, np.ndarray) else value
    if isinstance(value, Tensor) and value.dtype in _SIGNED and not isinstance(index, int | np.integer | slice):
        # torch cannot index a tensor of unsigned integers
        return value.view(_SIGNED[value.dtype])[index].view(value.dtype)
    if isinstance(value, Tensor | Ragged | Gathered):
        return value[index]
    if not isinstance(value, list | tuple):
        raise TypeError(
            f"{name} of a Batch must be a tensor, an array or a list to take samples of it, got {type(value).__name__}"
        )
    if isinstance(index, int | np.integer | slice) or (isinstance(index, Tensor | np.ndarray) and not index.ndim):
        return value[index if isinstance(index, slice) else int(index)]
    return [value[i] for i in chosen(index, n)]


def _each(value: Any, do: Callable[[Any], Any]) -> Any:
    """`do` to every tensor of a value, and to whatever else knows the way to a device."""
    if isinstance(value, np.ndarray):
        value = from_array("an array of a Batch", value)
    if hasattr(value, "to"):
        return do(value)
    if isinstance(value, list | tuple):
        return type(value)([_each(v, do) for v in value])
    return {k: _each(v, do) for k, v in value.items()} if isinstance(value, dict) else value


def _pinned(value: Any) -> Any:
    if isinstance(value, Tensor) and (value.device.type != "cpu" or not torch.cuda.is_available()):
        return value
    return value.pin_memory() if hasattr(value, "pin_memory") else value


def _shown(value: Any) -> str:
    """Shape, dtype and device of what holds many numbers."""
    if isinstance(value, Tensor | np.ndarray):
        place = f" on {value.device}" if isinstance(value, Tensor) and value.device.type != "cpu" else ""
        return f"{short(value.dtype) if isinstance(value, Tensor) else value.dtype}{list(value.shape)}{place}"
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, list | tuple) else repr(value)


class Params(Sequence[dict[str, Any]]):
    """What a policy drew: one dict per transform, and the keys and sizes that it was drawn for.  params[:k] are the
    Params of the first k transforms."""

    def __init__(
        self,
        drawn: Sequence[dict[str, Any]],
        *,
        seed: int,
        ids: Tensor,
        epoch: int | Tensor,
        occurrence: Tensor,
        size: Tensor,
        fixed: tuple[int, int] | None = None,
    ):
        """fixed: (H, W) where all images are known to share it"""
        self.fixed = fixed
        self._drawn = tuple(drawn)
        self.seed, self.ids, self.epoch, self.occurrence, self.size = seed, ids, epoch, occurrence, size

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | Sequence[dict[str, Any]]:
        if isinstance(index, slice) and index.start in (None, 0) and index.step in (None, 1):
            # what the first transforms drew is what a policy of them would have drawn
            return self._of(self._drawn[index], {k: getattr(self, k) for k in self._KEYS})
        return self._drawn[index]

    _KEYS = ("ids", "epoch", "occurrence", "size")

    def _of(self, drawn: Sequence[dict[str, Any]], keys: dict[str, Any]) -> "Params":
        return Params(drawn, seed=self.seed, fixed=self.fixed, **keys)

    def __len__(self) -> int:
        return len(self._drawn)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._drawn)

    def __repr__(self) -> str:
        keys = [", ".join(d) or "-" for d in self._drawn]
        return f"Params(samples={len(self.ids)}, epoch={self.epoch}, drawn=[{'; '.join(keys)}])"

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Params":
        """The same parameters on another device."""

        def moved(value: Any) -> Any:
            if isinstance(value, dict):
                return {k: moved(v) for k, v in value.items()}
            if isinstance(value, list):
                return [moved(v) for v in value]
            return value.to(device, non_blocking=non_blocking) if isinstance(value, Tensor) else value

        return self._of([moved(d) for d in self._drawn], {k: moved(getattr(self, k)) for k in self._KEYS})


def as_labels(labels: Any, n: int, device: torch.device, moves: Callable[[], bool]) -> Tensor:
    """A tensor with a row per image on their device: a mix asks for more.

    moves: whether the pixels change their places.  What lies among them, such as boxes and masks, is then refused by
    its type and rank alone."""
    refuse = (
        "would stay where they are while the pixels move; labels are [N] class numbers or [N, K] rows: "
        "pass gpuaug.Batch(images, masks=..., boxes=..., keypoints=...), whose targets follow"
    )
    within = next((type(v).__name__ for v in _parts(labels) if is_tv(v)), "")
    if within and moves():
        raise TypeError(f"labels must not be tv_tensors, got {within}, which {refuse}")
    out = labels if isinstance(labels, Tensor) else put(from_array("labels", arguments.array("labels", labels)), device)
    out = resolved(out.as_subclass(Tensor))
    if out.device != device:
        raise ValueError(
            f"labels must be on the device of the images, got {out.device} and {device}; "
            f"move them with .to({str(device)!r})"
        )
    if out.ndim < 1 or out.shape[0] != n:
        raise ValueError(f"labels must have one row per image, {n}, got shape {tuple(out.shape)}")
    if out.ndim > 2 and moves():
        raise ValueError(
            f"labels must have at most 2 dimensions, got shape {tuple(out.shape)}: masks or boxes {refuse}"
        )
    return out


# what to do about numbers out of range
_RANGES = {
    "ids": "pass a sample's number in its data set, and of a hash its remainder: ids % 2**46",
    "occurrence": "it tells up to 4096 copies of one id apart; number the samples themselves by ids",
}


def _parts(labels: Any) -> Sequence[Any]:
    """The values of a dict or the items of a list of labels; anything else as the only item."""
    return (
        list(labels.values()) if isinstance(labels, dict) else labels if isinstance(labels, list | tuple) else [labels]
    )


def as_integers(name: str, values: Any, n: int | None, device: torch.device, limit: int) -> Tensor:
    """[n] int64 in [0, limit) on the device, of any length where n is None; the range is checked where that costs no
    wait."""
    given = values if isinstance(values, Tensor) else put(_integers(name, values, limit), device)
    if type(given) is Tensor and given.dtype == torch.int64 and given.ndim == 1 and device.type != "cpu":
        # as it must be: nothing is converted, and its range is not looked at
        if given.device == device and n in (None, given.shape[0]):
            return given
    if given.dtype.is_floating_point or given.dtype.is_complex or given.dtype == torch.bool:
        raise TypeError(f"{name} must be integers, got {given.dtype}")
    if given.ndim != 1 or n not in (None, len(given)):
        raise ValueError(f"{name} must have shape [{'N' if n is None else n}], one per image, got {tuple(given.shape)}")
    if given.device != device:
        raise ValueError(
            f"{name} must be on the device of the images, got {given.device} and {device}; "
            f"move them with .to({str(device)!r})"
        )
    # torch cannot compare unsigned integers; a uint64 beyond int64 becomes negative here
    whole = given.as_subclass(Tensor).long()
    if device.type == "cpu" and whole.numel():
        low, high = bounds(whole)
        if 0 <= low <= high < limit:
            return whole
        low, high = bounds(given)
        raise ValueError(f"{name} must be in [0, {limit}), got {low} to {high}; {_RANGES[name]}")
    return whole


def _integers(name: str, values: Any, limit: int) -> Tensor:
    """Integers as a tensor, of anything that NumPy makes an array of."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be integers, got {values!r}") from None
    if array.dtype.kind == "O" and array.size and all(isinstance(v, Integral) for v in array.flat):
        raise ValueError(f"{name} must be in [0, {limit}), got {min(array.flat)} to {max(array.flat)}; {_RANGES[name]}")
    if array.dtype.kind in "OSUV":
        raise TypeError(f"{name} must be integers, got {values!r}")
    # an empty list has no dtype of its own
    return from_array(name, array if array.size or isinstance(values, np.ndarray) else array.astype(np.int64))


def bounds(values: Tensor) -> tuple[int, int]:
    """The least and the greatest of integers on the host, of any dtype."""
    array = values.numpy()
    return int(array.min()), int(array.max())


def as_valid(valid: Any, n: int, device: torch.device) -> Tensor:
    """[n] bool on the device."""
    given = valid if isinstance(valid, Tensor) else put(from_array("valid", arguments.array("valid", valid)), device)
    if given.dtype != torch.bool or given.shape != (n,):
        raise ValueError(f"valid must be [{n}] bool, one per image, got {given.dtype} {list(given.shape)}")
    if given.device != device:
        raise ValueError(
            f"valid must be on the device of the images, got {given.device} and {device}; "
            f"move it with .to({str(device)!r})"
        )
    return given.as_subclass(Tensor)


def as_epoch(epoch: Any, device: torch.device) -> int | Tensor:
    """A number in [0, 2^18), or an int64 tensor that holds one on the device, where reading it would make the host
    wait."""
    if type(epoch) is int and 0 <= epoch < MAX_EPOCH:
        return epoch
    if isinstance(epoch, np.ndarray) and not epoch.ndim:
        epoch = epoch.item()
    if not isinstance(epoch, Tensor):
        return arguments.integer("epoch", epoch, 0, MAX_EPOCH - 1)
    if (
        epoch.ndim
        or epoch.dtype.is_floating_point
        or epoch.dtype.is_complex
        or epoch.dtype == torch.bool
        or epoch.device != device
    ):
        raise ValueError(
            f"epoch must be a number, or an integer tensor without dimensions on {device}, "
            f"got {epoch.dtype} {list(epoch.shape)} on {epoch.device}"
        )
    if device.type == "cpu":
        arguments.integer("epoch", bounds(epoch)[0], 0, MAX_EPOCH - 1)
    return epoch.long()


def joined(batch: Batch, given: dict[str, Any]) -> Batch:
    """A batch with what a call adds to it; nothing may come twice."""
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if getattr(batch, name) is not None:
            raise ValueError(f"{name} came in the Batch and as an argument; pass it once")
    return batch.replace(**given) if given else batch


def blank(what: Any, dtype: torch.dtype, device: torch.device | str) -> Any:
    """Black images where a shape is given, else what is given."""
    if not isinstance(what, tuple | list) or not what or not all(isinstance(v, int) for v in what):
        return what
    if len(what) not in (4, 5) or min(what) < 1:
        raise ValueError(f"a shape must be (N, C, H, W), or (N, T, C, H, W), each at least 1, got {tuple(what)}")
    # frames of videos are images
    images = torch.zeros(tuple(what), dtype=dtype, device=device)
    return images.flatten(0, 1) if len(what) == 5 else images
