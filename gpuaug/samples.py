"""Samples as torchvision's transforms take them: an image with its masks, boxes and keypoints, in dicts and tuples as
one likes."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as tree

from gpuaug.arrays import is_pil, is_tv
from gpuaug.batch import Batch
from gpuaug.images import single
from gpuaug.videos import is_clip

# names of a dict under which plain tensors are what they are called
_NAMES = {"mask": "masks", "masks": "masks", "boxes": "boxes", "keypoints": "keypoints"}
_KINDS = {"Mask": "masks", "BoundingBoxes": "boxes", "KeyPoints": "keypoints"}
# the last axes of each
_WIDTH: dict[str, tuple[Any, ...]] = {"masks": (None, None), "boxes": (4,), "keypoints": (2,)}
_SHAPES = {"masks": "[H, W] or [M, H, W]", "boxes": "[K, 4]", "keypoints": "[K, 2]"}


class _Leaf(NamedTuple):
    value: Any
    # "image", a field of a Batch, or "" for what stays as it is
    kind: str


def of(images: Any, labels: Any) -> Any:
    """The sample that a policy is called with, in one argument or, as an image and a dict of its targets, in two; None
    for other calls."""
    if _is_sample(images):
        if labels is not None:
            raise TypeError(
                f"labels came beside a sample, got {type(labels).__name__}; put them into it, where they stay as they "
                "are"
            )
        return images
    return (images, labels) if isinstance(labels, dict) and single(images) is not None else None


def _is_sample(given: Any) -> bool:
    """Whether this is a dict, or a tuple that holds more than images: a dict, or a tv_tensor that is none."""
    if isinstance(given, dict):
        return True
    return isinstance(given, tuple) and any(isinstance(v, dict) or _kind(v) in _KINDS.values() for v in given)


def _kind(value: Any, name: Any = None) -> str:
    """What a value of a sample is.  name: under which it stands in a dict"""
    if is_tv(value):
        return _KINDS.get(type(value).__name__, "image")
    if isinstance(name, str) and name in _NAMES and (is_pil(value) or hasattr(value, "shape")):
        return _NAMES[name]
    return "image" if is_pil(value) else ""


def augment(call: Callable[[Batch], Batch], sample: Any, **given: Any) -> Any:
    """The sample with its image augmented and its targets moved with it; the rest as it is.

    call: a policy's, of a Batch.  given: ids, epoch and occurrence.  Boxes that left the image stay in their places,
    without area, so that labels still belong to them.  A video's targets, [T, ...] too, are those of one image, for all
    frames move alike.  Raises TypeError for a sample without an image, or with two"""
    pairs, structure = tree.tree_flatten_with_path(sample)
    leaves = _with_image([_Leaf(v, _kind(v, getattr(path[-1], "key", None) if path else None)) for path, v in pairs])
    place = next(i for i, leaf in enumerate(leaves) if leaf.kind == "image")
    image = leaves[place].value
    frame = _first(image) if is_clip(image) else image
    size = tuple(single(frame).shape[2:])  # type: ignore[union-attr]
    rows = {kind: [i for i, leaf in enumerate(leaves) if leaf.kind == kind] for kind in _WIDTH}
    fields: dict[str, Any] = {}
    for kind, places in rows.items():
        if places:
            fields |= _joined(kind, [leaves[i].value for i in places], size)
    made = call(Batch(frame, **given, **fields))
    out: list[Any] = [leaf.value for leaf in leaves]
    canvas = tuple(made.images.shape[1:])
    pixels = made.images
    if frame is not image:
        pixels = call(Batch(image, ids=made.ids, epoch=made.epoch, occurrence=made.occurrence, key=made.key)).images
    out[place] = _as(pixels, image, canvas)
    for kind, places in rows.items():
        first = 0
        for i in places:
            value = torch.as_tensor(leaves[i].value)
            shape = (*value.shape[:-2], *canvas) if kind == "masks" else tuple(value.shape)
            count = math.prod(value.shape[: -len(_WIDTH[kind])])
            moved = getattr(made, kind)[first : first + count].reshape(shape)
            first += count
            out[i] = _as(moved.to(value.dtype) if kind == "masks" else moved, leaves[i].value, canvas)
    return tree.tree_unflatten(out, structure)


def _first(clip: Any) -> Any:
    """The first frame of a tv_tensors.Video, as an image."""
    image: Any = sys.modules["torchvision.tv_tensors"].Image
    return image(clip.as_subclass(Tensor)[0])


def _joined(kind: str, values: Sequence[Any], size: tuple[int, ...]) -> dict[str, Any]:
    """Fields of a Batch for what stands in several places of a sample."""
    width, plain = len(_WIDTH[kind]), []
    for value in values:
        got = torch.as_tensor(value).as_subclass(Tensor)
        if got.ndim < width or (kind != "masks" and tuple(got.shape[-1:]) != _WIDTH[kind]):
            raise ValueError(f"{kind} of a sample must be {_SHAPES[kind]}, got shape {tuple(got.shape)}")
        canvas = getattr(value, "canvas_size", None)
        if canvas is not None and tuple(canvas) != size:
            raise ValueError(f"{kind} must have the size of the image as canvas_size, got {tuple(canvas)} for {size}")
        plain.append(got.reshape(-1, *got.shape[-width:]))
    dtype = plain[0].dtype
    for got in plain[1:]:
        dtype = torch.promote_types(dtype, got.dtype)
    if kind == "masks":
        for got in plain:
            if tuple(got.shape[1:]) != size:
                raise ValueError(f"masks must have the size of their image, got {tuple(got.shape[1:])} for {size}")
    fields: dict[str, Any] = {kind: torch.cat([got.to(dtype) for got in plain])}
    formats = {str(getattr(v.format, "value", v.format)) for v in values if kind == "boxes" and is_tv(v)}
    if len(formats) > 1:
        raise ValueError(f"boxes of a sample must have one format, got {', '.join(sorted(formats))}")
    return fields | ({"box_format": formats.pop()} if formats else {})


def _as(value: Tensor, like: Any, canvas: tuple[int, ...]) -> Tensor:
    """A tensor of the class that it had."""
    if not is_tv(like):
        return value
    kind: Any = type(like)
    more = {"format": like.format} if hasattr(like, "format") else {}
    return kind(value, **more, **({"canvas_size": canvas} if hasattr(like, "canvas_size") else {}))  # type: ignore[no-any-return]


def _with_image(leaves: list[_Leaf]) -> list[_Leaf]:
    """The leaves with the one that is the image named so."""
    if not any(leaf.kind == "image" for leaf in leaves):
        # a plain tensor or an array is the image where nothing else can be
        leaves = [
            leaf._replace(kind="image") if not leaf.kind and single(leaf.value) is not None else leaf for leaf in leaves
        ]
    found = [leaf for leaf in leaves if leaf.kind == "image"]
    if len(found) != 1 or (single(found[0].value) is None and not is_clip(found[0].value)):
        shown = [tuple(v.value.shape) if hasattr(v.value, "shape") else type(v.value).__name__ for v in found]
        raise TypeError(
            f"images must be a batch, or a dict or tuple with one image [C, H, W], got one with {shown or 'none'}; "
            "wrap the image as tv_tensors.Image, and pass batches as a gpuaug.Batch"
        )
    return leaves
