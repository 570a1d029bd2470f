"""Videos: clips [N, T, C, H, W], whose frames share what was drawn for their clip.

Frames go through as images, each under the key of its clip, so that a clip comes out as its draw applied to every
frame, the noise of its pixels included.  Where a policy mixes, a frame's partner is the frame at its place in another
clip: frames then go through one place after the other."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug.arrays import from_array, is_tv
from gpuaug.batch import Batch, joined
from gpuaug.call import batch_of_one
from gpuaug.follow import TARGETS

_TARGETS = tuple(name for pair in TARGETS.items() for name in pair if name is not None)


def is_video(images: Any) -> bool:
    """Whether these are clips: five axes, or one clip [T, C, H, W] as a tv_tensors.Video."""
    return (isinstance(images, Tensor | np.ndarray) and images.ndim == 5) or is_clip(images)


def is_clip(images: Any) -> bool:
    """Whether this is one clip [T, C, H, W]: a tv_tensors.Video of four axes."""
    return is_tv(images) and type(images).__name__ == "Video" and images.ndim == 4


def as_clips(images: Any) -> Tensor:
    """[N, T, C, H, W] of what `is_video`."""
    if is_tv(images) and type(images).__name__ not in ("Image", "Video"):
        raise TypeError(f"images must be pixels, got tv_tensors.{type(images).__name__}; pass the images it belongs to")
    clips = from_array("images", images) if isinstance(images, np.ndarray) else images.as_subclass(Tensor)
    clips = clips[None] if is_clip(images) else clips
    if not clips.shape[1]:
        raise ValueError(f"images of videos must have at least one frame, got shape {tuple(clips.shape)}")
    return clips


def augment(policy: Any, images: Any, given: dict[str, Any], backend: str, per_frame: bool) -> Any:
    """`Policy.forward` of videos.  given: labels, ids, epoch and occurrence.  per_frame: a draw for each frame, under
    an occurrence of its own, occurrence * T + t"""
    batch = joined(images, given) if isinstance(images, Batch) else Batch(images, **given)
    alone = is_clip(batch.images)
    clips = as_clips(batch.images)
    batch = batch_of_one(batch, clips) if alone else batch
    n, t = clips.shape[:2]
    if batch.params is not None:
        raise ValueError("params of a Batch are of images, got them for videos; leave them out")
    if per_frame and policy._mixes:
        name = type(policy._mixes[0]).__name__
        raise ValueError(
            f"per_frame=True would give the frames of a clip labels of their own by {name}; mix in a policy of its "
            "own, with one draw a clip"
        )
    before = standing(policy)
    keys, key = policy._keys(batch.ids, batch.epoch, batch.occurrence, n, clips.device, policy.next_id, batch.key)
    targets = {name: _framed(name, getattr(batch, name), n, t, clips.device) for name in _TARGETS}
    who = {"epoch": keys.epoch, "key": key}
    whole = batch.replace(images=clips, ids=keys.ids, occurrence=keys.occurrence, **targets, **who)
    run: Callable[[Batch], Batch] = lambda b: policy._call(b, {}, backend)  # noqa: E731
    with numbered(policy, before):
        out = by_place(run, whole, t) if policy._mixes else _at_once(run, whole, t, per_frame)
    if isinstance(images, Batch):
        return out[0] if alone else out
    pixels, soft = (out.images[0], None if out.labels is None else out.labels[0]) if alone else (out.images, out.labels)
    return pixels if given.get("labels") is None else (pixels, soft)


def standing(policy: Any) -> tuple[Tensor, tuple[int, int]]:
    """How far a policy has counted samples."""
    return policy.next_id.clone(), policy._counted


@contextmanager
def numbered(policy: Any, before: tuple[Tensor, tuple[int, int]]) -> Iterator[None]:
    """What runs for samples that were numbered: where it is refused, their numbers are free again."""
    try:
        yield
    except (TypeError, ValueError):
        with torch.inference_mode(policy.next_id.is_inference()):
            policy.next_id.copy_(before[0])
        policy._counted = before[1]
        raise


def _at_once(run: Callable[[Batch], Batch], batch: Batch, t: int, per_frame: bool) -> Batch:
    """All frames as one batch of images."""
    ids, occurrence = batch.ids, batch.occurrence
    assert ids is not None and occurrence is not None
    places = torch.arange(t, device=ids.device).repeat(len(ids))
    each = _each_frame(occurrence, t)
    frames = batch.replace(
        **{name: _flat(getattr(batch, name)) for name in ("images", *_TARGETS)},
        ids=_each_frame(ids, t),
        occurrence=each * t + places if per_frame else each,
        **{name: _each_frame(getattr(batch, name), t) for name in ("labels", "valid")},
    )
    out = run(frames)
    back = {name: _unflat(getattr(out, name), t) for name in ("images", *_TARGETS)}
    labels = None if out.labels is None else out.labels[::t]
    return out.replace(**back, labels=labels, ids=ids, occurrence=occurrence, valid=batch.valid)


def by_place(run: Callable[[Batch], Batch], batch: Batch, t: int) -> Batch:
    """The first frames of all clips, then the second, and so on."""
    made = []
    for place in range(t):
        there = {name: _at(getattr(batch, name), place) for name in ("images", *_TARGETS)}
        made.append(run(batch.replace(**there)))
    stacked = {
        name: None if getattr(made[0], name) is None else torch.stack([getattr(m, name) for m in made], 1)
        for name in ("images", *_TARGETS)
    }
    return made[0].replace(**stacked)


def frame_by_frame(call: Callable[[Any], Any], images: Any) -> Any:
    """What a call gives for the frames of clips, one place after the other, put together along the second axis."""
    clips = as_clips(images)
    made = [call(frame) for frame in clips.unbind(1)]
    if isinstance(made[0], tuple):
        return tuple(torch.stack(parts, 1) for parts in zip(*made, strict=True))
    out = torch.stack(made, 1)
    return out[0] if is_clip(images) else out


def _framed(name: str, value: Any, n: int, t: int, device: torch.device) -> Any:
    """A target of clips, [N, T, ...]."""
    if value is None:
        return None
    given = from_array(name, value) if isinstance(value, np.ndarray) else value
    if not isinstance(given, Tensor):
        raise TypeError(f"{name} of videos must be a tensor or an array [{n}, {t}, ...], got {type(value).__name__}")
    if tuple(given.shape[:2]) != (n, t):
        raise ValueError(
            f"{name} of videos must have a row for each frame, [{n}, {t}, ...], got shape {tuple(given.shape)}"
        )
    return given


def _flat(value: Any) -> Any:
    """[N, T, ...] as [N * T, ...], without a copy where clips lie one after the other."""
    return None if value is None else value.flatten(0, 1)


def _unflat(value: Any, t: int) -> Any:
    return (
        None
        if value is None
        else value.unflatten(0, (-1, t))
        if len(value)
        else value[:, None].expand(-1, t, *value.shape[1:])
    )


def _at(value: Any, place: int) -> Any:
    return None if value is None else value[:, place]


def _each_frame(value: Any, t: int) -> Any:
    """What belongs to clips, for each of their frames."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        # not by torch.repeat_interleave, some versions of which wait for the device
        return value[:, None].expand(-1, t, *value.shape[1:]).flatten(0, 1)
    if isinstance(value, np.ndarray):
        return np.repeat(value, t, 0)
    return [v for v in value for _ in range(t)]
