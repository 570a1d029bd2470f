"""Several views of each sample, each with draws of its own: a batch in which every sample stands once for each view,
its occurrence telling them apart, augmented in one call."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpuaug import arguments, rng, samples, videos
from gpuaug.batch import Batch, joined
from gpuaug.call import batch_of_one, one_of
from gpuaug.gathered import Gathered
from gpuaug.images import Ragged, as_images

# fields of a Batch that hold for all of its samples
_OPTIONS = ("box_format", "min_area", "min_visibility", "mask_interpolation", "mask_fill")
_COMMON = ("images", "epoch", "key", "params", *_OPTIONS)
_EACH = tuple(f.name for f in fields(Batch) if f.name not in _COMMON)
_HALF = MOST = rng.MAX_OCCURRENCE // 2


class Part(NamedTuple):
    """Views that one policy makes."""

    policy: Any
    numbers: range


def views(policy: Any, images: Any, n: Any, given: dict[str, Any], backend: str, per_frame: bool = False) -> Any:
    """`Policy.views`.  given: labels, ids, epoch and occurrence"""
    count = policy.fixed_views
    n = arguments.integer("n", (count or 2) if n is None else n, 1, _HALF)
    if count and n % count:
        raise ValueError(f"n must be a multiple of {count}, the fixed views of this policy, got {n}; leave it out")
    return each([Part(policy, range(n))], n, images, given, backend, per_frame)


def each(
    parts: Sequence[Part], n: int, images: Any, given: dict[str, Any], backend: str, per_frame: bool = False
) -> Any:
    """Views of some samples by several policies, in one call of each.  n: of all views"""
    sample = samples.of(images, given["labels"])
    if sample is not None:
        return _of_sample(parts, n, sample, given, backend)
    batch = joined(images, given) if isinstance(images, Batch) else Batch(images, **given)
    one = one_of(batch)
    one = videos.as_clips(batch.images) if videos.is_clip(batch.images) else one
    whole = batch if one is None else batch_of_one(batch, one)
    made = [v[0] if whole is not batch else v for v in _batched(parts, n, whole, backend, per_frame)]
    if isinstance(images, Batch):
        return made
    pixels = [v.images for v in made]
    return pixels if given["labels"] is None else (pixels, [v.labels for v in made])


def _batched(parts: Sequence[Part], n: int, batch: Batch, backend: str, per_frame: bool) -> Iterator[Batch]:
    """The views of a batch, in the order of their numbers."""
    if batch.params is not None:
        raise ValueError("params of a Batch are drawn for one view, and others read other windows; decode whole images")
    first = parts[0].policy
    source = videos.as_clips(batch.images) if videos.is_video(batch.images) else as_images(batch.images)
    count = len(source)
    keys, key = first._keys(batch.ids, batch.epoch, batch.occurrence, count, source.device, first.next_id, batch.key)
    for policy, numbers in parts:
        times = len(numbers)
        repeated = {name: _tiled(getattr(batch, name), times) for name in _EACH}
        repeated["ids"] = keys.ids.repeat(times)
        repeated["occurrence"] = torch.cat([occurrence_of(keys.occurrence, n, v) for v in numbers])
        stacked = batch.replace(images=_stacked(source, times), epoch=keys.epoch, key=key, **repeated)
        out = policy._call(stacked, {}, backend, per_frame)
        for k in range(times):
            yield out[k * count : (k + 1) * count]


def occurrence_of(occurrence: Tensor, n: int, view: int) -> Tensor:
    """The occurrence of view `view` of n: occurrence * n + view; in the upper half of their range, which the loader
    gives to substitutes, it stays there.  occurrence: [N] int64"""
    high = _HALF + ((occurrence - _HALF) * n + view) % _HALF
    return torch.where(occurrence < _HALF, occurrence * n + view, high)


def _stacked(source: Any, times: int) -> Any:
    """Images that stand `times` times one after the other: uint8 images and those of different sizes without a copy."""
    if times == 1:
        return source
    if isinstance(source, Ragged):
        full, windows = (None if v is None else np.tile(v, (times, 1)) for v in (source._full, source.windows))
        return Ragged.of(source.images * times, full, windows)
    if isinstance(source, Gathered):
        return Gathered(source.store, source.index.repeat(times))
    if isinstance(source, Tensor) and source.dtype == torch.uint8 and source.ndim == 4 and len(source):
        return Gathered(source, torch.arange(len(source), device=source.device).repeat(times))
    return _tiled(source, times)


def _tiled(value: Any, times: int) -> Any:
    """What belongs to the samples, `times` times one after the other."""
    if isinstance(value, Tensor):
        return value if times == 1 else torch.cat([value] * times)
    if isinstance(value, np.ndarray):
        return np.concatenate([value] * times)
    return value * times if isinstance(value, list | tuple) else value


def _of_sample(parts: Sequence[Part], n: int, sample: Any, given: dict[str, Any], backend: str) -> list[Any]:
    """The views of one of torchvision's samples, one after the other."""
    first, who = parts[0].policy, [given[name] for name in ("ids", "occurrence")]
    ids, occurrence = (None if v is None else torch.as_tensor(v).reshape(-1) for v in who)
    keys, key = first._keys(ids, given["epoch"], occurrence, 1, torch.device("cpu"), first.next_id)
    made = []
    for policy, numbers in parts:
        for v in numbers:
            one = {"ids": keys.ids, "epoch": keys.epoch, "occurrence": occurrence_of(keys.occurrence, n, v)}
            call = partial(_called, policy, key, backend)
            made.append(samples.augment(call, sample, **one))
    return made


def _called(policy: Any, key: int | None, backend: str, batch: Batch) -> Batch:
    out: Batch = policy._call(batch.replace(key=key), {}, backend)
    return out
