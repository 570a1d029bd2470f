"""Data sets of one size that are decoded already, in the memory of this machine: what people have as such, as images
[N, C, H, W] with labels."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug.arrays import from_array, short
from gpuaug.data.decode_batch import cores
from gpuaug.data.decoding import Fit, every
from gpuaug.data.making import BadFile, BadImage
from gpuaug.data.source import Item, Source, as_labels, checked
from gpuaug.data.sources import as_source
from gpuaug.data.sources_prepared import PreparedSource
from gpuaug.strides import CHANNELS

# more bytes than this are known by rows that are spread over all of them
_WHOLE = 256_000_000


class HeldSource(Source):
    """Images in memory.

    images: [N, C, H, W] uint8 of any strides.  labels: [N] class numbers or [N, K] rows of floats, or None."""

    def __init__(self, images: Tensor, labels: Any, classes: Any = None):
        self.images = images
        if labels is not None:
            given = labels.tolist() if isinstance(labels, Tensor | np.ndarray) else list(labels)
            self.labels, names = as_labels(given)
            self.classes = names or (tuple(map(str, classes)) if isinstance(classes, (list, tuple)) else None)
            if len(self.labels) != len(images):
                raise ValueError(f"labels must be one for each of {len(images)} images, got {len(self.labels)}")
        self._digest = _digest(images, self.labels)

    def __len__(self) -> int:
        return len(self.images)

    def key(self, id: int) -> str:
        return str(checked([id], len(self))[0])

    def read(self, ids: Sequence[int]) -> list[Item]:
        return [self.images[i].permute(1, 2, 0).cpu() for i in checked(ids, len(self))]

    @property
    def fingerprint(self) -> str:
        return self._digest

    def describe(self) -> str:
        return f"{len(self)} images {list(self.images.shape[1:])} in memory"


def held(what: Any, layout: str | None = None, size: int | tuple[int, int] | None = None) -> HeldSource:
    """A data set as images in memory: as they are where they are an array, else read and decoded once.

    layout: "hwc" or "chw", for arrays whose shape leaves it open.  size: that images of a source are brought to."""
    if layout not in (None, "hwc", "chw"):
        raise ValueError(f"layout must be 'hwc', 'chw' or None, got {layout!r}")
    found = _arrays(what)
    if found is None:
        if layout is not None:
            raise ValueError(f"layout={layout!r} is for images in one array, got {type(what).__name__}; leave it out")
        return _decoded(as_source(what), size)
    if size is not None:
        raise ValueError(f"size={size!r} is for images that are decoded here, and these are; resize them in the policy")
    images, labels, classes = found
    return HeldSource(_batch(images, layout), labels, classes)


def _arrays(what: Any) -> tuple[Any, Any, Any] | None:
    """(images, labels, class names) of what has its images in one array; None of all else."""
    if _array(what):
        return what, None, None
    if isinstance(what, (tuple, list)) and len(what) == 2 and _array(what[0]):
        return what[0], what[1], None
    if isinstance(what, torch.utils.data.TensorDataset):
        if len(what.tensors) > 2:
            raise ValueError(f"a TensorDataset must hold images, or images and labels, got {len(what.tensors)} tensors")
        return what.tensors[0], what.tensors[1] if len(what.tensors) == 2 else None, None
    data: Any = getattr(what, "data", None)
    if not _array(data) or not hasattr(what, "__getitem__") or not hasattr(what, "__len__") or len(what) != len(data):
        return None
    for name in ("transform", "target_transform"):
        if getattr(what, name, None) is not None:
            raise ValueError(
                f"the {type(what).__name__} has a {name}, which would run on no batch here; make it without one, and "
                "let the policy do that"
            )
    labels = next((v for v in (getattr(what, n, None) for n in ("targets", "labels")) if v is not None), None)
    return data, labels, getattr(what, "classes", None)


def _array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray) and value.ndim >= 3


def _batch(images: Any, layout: str | None) -> Tensor:
    """[N, C, H, W] uint8 in the same memory."""
    pixels = from_array("images", images) if isinstance(images, np.ndarray) else images.detach()
    shape = tuple(pixels.shape)
    if pixels.dtype != torch.uint8:
        raise TypeError(
            f"images must be uint8, got {short(pixels.dtype)}; a policy makes floats of them, by ToDtype or Normalize"
        )
    if not shape[0] or min(shape) < 1 or pixels.ndim > 4:
        raise ValueError(f"images must be [N, H, W, C], [N, C, H, W] or [N, H, W] with at least one pixel, got {shape}")
    if pixels.ndim == 3:
        return pixels[:, None]
    first, last = shape[1] in CHANNELS, shape[3] in CHANNELS
    if layout is None and first == last:
        raise ValueError(
            f"images of shape {shape} may be [N, H, W, C] or [N, C, H, W]; pass layout='hwc' or layout='chw'"
            if first
            else f"images must be [N, H, W, C] or [N, C, H, W] of 1, 3 or 4 channels, got shape {shape}"
        )
    planar = layout == "chw" or (layout is None and first)
    channels = shape[1] if planar else shape[3]
    if channels not in CHANNELS:
        raise ValueError(f"images must have 1, 3 or 4 channels, got {channels} in shape {shape}")
    return pixels if planar else pixels.permute(0, 3, 1, 2)


def _decoded(source: Source, size: Any) -> HeldSource:
    """A whole source, read and decoded once.  Raises BadImage for the first bad ones, and ValueError where sizes
    differ."""
    fit = None if size is None else Fit.of(size)
    if isinstance(source, PreparedSource) and fit is None:
        return _as_held(source, source.pixels(), source.labels)
    made: Tensor | None = None
    targets: list[Any] = []
    for part in every(source, fit, num_threads=cores()):
        if part.bad:
            files = [BadFile(i, source.key(i), str(reason)) for i, reason in part.bad.items()]
            one, more = files[0], f", and {len(files) - 1} more" if files[1:] else ""
            raise BadImage(
                f"sample {one.id}, {one.path}, has no image: {one.reason}{more}; "
                "mend or remove it, or use gpuaug.data.Loader, which can leave it out",
                files,
            )
        for i, image in zip(part.ids, part.images, strict=True):
            if made is None:
                made = torch.empty((len(source), *image.shape), dtype=torch.uint8, device="cpu")
                first = source.key(i)
            if image.shape != made.shape[1:]:
                raise ValueError(
                    f"images must be of one size, got {tuple(made.shape[1:])} of {first} and {tuple(image.shape)} of "
                    f"{source.key(i)}; pass size=(H, W), or use gpuaug.data.Loader"
                )
            made[i] = image
        targets.extend([None] * len(part.ids) if part.targets is None else part.targets)
    assert made is not None
    labels: Any = source.labels
    if labels is None and any(t is not None for t in targets):
        lacking = next((i for i, t in enumerate(targets) if t is None), None)
        if lacking is not None:
            raise ValueError(
                f"labels must be there for all images or for none, and sample {lacking}, {source.key(lacking)}, has "
                "none; give it one, or use gpuaug.data.Loader"
            )
        other = next((i for i, t in enumerate(targets) if isinstance(t, dict)), None)
        if other is not None:
            raise ValueError(
                f"a ResidentLoader has labels, and sample {other}, {source.key(other)}, has a dict; use "
                "gpuaug.data.Loader, where boxes and masks follow their images"
            )
        labels = targets
    return _as_held(source, made.permute(0, 3, 1, 2), labels)


def _as_held(source: Source, images: Tensor, labels: Any) -> HeldSource:
    return HeldSource(images, labels, source.classes)


def _digest(images: Tensor, labels: Any) -> str:
    """Of pixels and labels; of many pixels, of rows that are spread evenly."""
    each = max(1, images[0].numel())
    rows = min(len(images), max(1, _WHOLE // each))
    picked = np.unique(np.linspace(0, len(images) - 1, rows).round().astype(np.int64))
    h = blake2b(repr(("resident", tuple(images.shape))).encode(), digest_size=8)
    step = max(1, 16_000_000 // each)
    for first in range(0, len(picked), step):
        some = torch.from_numpy(picked[first : first + step]).to(images.device)
        h.update(images[some].permute(0, 2, 3, 1).contiguous().cpu().numpy().data)
    if labels is not None:
        h.update(np.ascontiguousarray(labels).tobytes())
    return h.hexdigest()
