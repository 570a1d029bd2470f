"""What a source has beside each image, as a batch has it."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug.arrays import is_tv
from gpuaug.batch import Batch

# what of a Batch is no target
_OWN = {"images", "ids", "epoch", "occurrence", "key", "valid", "params"}
FIELDS = frozenset(f.name for f in fields(Batch)) - _OWN
# what a batch has one of, and numbers of what a sample without a target has none of
_SETTINGS = {"box_format", "min_area", "min_visibility", "mask_interpolation", "mask_fill"}
_NONE = {"boxes": (0, 4), "keypoints": (0, 2), "box_valid": (0,), "visible": (0,)}


def as_targets(
    targets: Any, transform: Callable[[Any], Any] | None = None, named: Callable[[int], str] = "sample {}".format
) -> Any:
    """Class numbers and rows of numbers as one tensor, None as it is, and all else as a list, one for each sample; of
    dicts by the names of a Batch's fields, such as "labels" or "boxes", each field so; what holds for a whole batch,
    such as "box_format", must be the same in all.  Labels for each box are padded with zeros as boxes are.

    transform: called with every target that there is.  A sample without one has the class 0, or a row of zeros, where
    others have numbers: it is no sample that counts.  named: what a sample is called, by its place.  Raises
    RuntimeError for what transform raises."""
    if targets is None:
        return None
    if transform is not None:
        targets = [None if t is None else _transformed(transform, t, k, named) for k, t in enumerate(targets)]
    if isinstance(targets, np.ndarray):
        # of its own: rows that a source holds are not given away
        return torch.from_numpy(np.array(targets))
    there = [t for t in targets if t is not None]
    if not there:
        return None
    if all(isinstance(t, dict) and t and t.keys() <= FIELDS for t in there):
        names = dict.fromkeys(name for t in there for name in t)
        given = {name: [None if t is None else t.get(name) for t in targets] for name in names}
        found = {name: _field(name, values) for name, values in given.items()}
        if "labels" in given and "boxes" in given and _for_each(given["labels"], given["boxes"]):
            found["labels"] = _padded(given["labels"])
        return found
    if all(isinstance(t, Integral) for t in there):
        return torch.tensor([0 if t is None else int(t) for t in targets], dtype=torch.int64)
    if all(isinstance(t, Real) for t in there):
        return torch.tensor([0.0 if t is None else float(t) for t in targets], dtype=torch.float32)
    if all(isinstance(t, list | tuple) and t and _flat(t) for t in there) and len(set(map(len, there))) == 1:
        kind = torch.int64 if all(isinstance(v, Integral) for t in there for v in t) else torch.float32
        blank = [0] * len(there[0])
        return torch.tensor([blank if t is None else t for t in targets], dtype=kind)
    return _rows(targets, there)


def _transformed(transform: Callable[[Any], Any], target: Any, place: int, named: Callable[[int], str]) -> Any:
    try:
        return transform(target)
    except Exception as error:
        what = f"the target of {named(place)}, {target!r:.100}"
        raise RuntimeError(f"target_transform fails at {what}: {type(error).__name__}: {error}") from error


def _for_each(labels: Sequence[Any], boxes: Sequence[Any]) -> bool:
    """Whether labels are those of boxes, as many of each sample."""
    pairs = [(a, b) for a, b in zip(labels, boxes, strict=True) if a is not None]
    return all(
        (a.ndim == 1 if isinstance(a, Tensor | np.ndarray) else isinstance(a, list | tuple) and _flat(a))
        and len(a) == (0 if b is None else len(b))
        for a, b in pairs
    )


def _flat(values: Sequence[Any]) -> bool:
    return all(isinstance(v, Real) for v in values)


def _padded(labels: Sequence[Any]) -> Tensor:
    """[N, K] from the labels of boxes, zeros where boxes are padded."""
    rows = [torch.as_tensor([] if row is None else row) for row in labels]
    # an empty list says nothing about the kind of its numbers
    kinds = {row.dtype for row in rows if len(row)} or {torch.int64}
    kind = torch.float32 if any(k.is_floating_point for k in kinds) else torch.int64
    return torch.nn.utils.rnn.pad_sequence([row.to(kind) for row in rows], batch_first=True)


def _field(name: str, values: list[Any]) -> Any:
    """A Batch's field from those of its samples."""
    if name in _SETTINGS:
        found = {v for v in values if v is not None}
        if len(found) > 1:
            raise ValueError(
                f"{name} holds for a whole batch, and its targets have {sorted(map(str, found))}; bring them to one"
            )
        return next(iter(found), None)
    if name in _NONE:
        return [_rows_of(name, v) for v in values]
    return as_targets(values)


def _rows_of(name: str, value: Any) -> Any:
    """Boxes, points or marks of a sample; lists of Python's numbers as torch makes tensors of them."""
    if value is None or (isinstance(value, list | tuple) and not len(value)):
        return torch.zeros(_NONE[name])
    if isinstance(value, list | tuple):
        try:
            return torch.tensor(value, dtype=torch.float32 if name in ("boxes", "keypoints") else None)
        except (ValueError, TypeError, RuntimeError):
            # which the policy refuses in words
            return value
    return value


def refuse(targets: Any, named: Callable[[int], str]) -> None:
    """Raise for targets that a policy can't take, and would not say whose: dicts that are no fields of a Batch, names
    among numbers, names of boxes.  named: what a sample is called, by its place"""
    for k, target in enumerate(targets if isinstance(targets, list) else ()):
        if isinstance(target, list | tuple) and any(isinstance(v, dict | str) for v in target):
            raise TypeError(
                f"the target of {named(k)} is {target!r:.80}, neither a label nor a dict with fields of a Batch; make "
                "it one with target_transform=, or pass policy=None"
            )
        if isinstance(target, dict):
            other = next((name for name in target if name not in FIELDS), None)
            what = "is empty" if other is None else f"has {other!r}, which is no field of a Batch"
            raise TypeError(
                f"the target of {named(k)} {what}; there are {', '.join(sorted(FIELDS))}: make a dict of those with "
                "target_transform=, or pass policy=None"
            )
    labels = targets.get("labels") if isinstance(targets, dict) else None
    for k, own in enumerate(labels if isinstance(labels, list) else ()):
        if isinstance(own, list | tuple) and any(isinstance(v, str) for v in own):
            raise ValueError(
                f"the labels of {named(k)} are names, such as {own[0]!r}, and nothing says how they are numbered: give "
                "the data set `classes`, a list of all names, or number them with target_transform="
            )


def without_images(targets: Any, slots: Sequence[int], sizes: Any) -> Any:
    """Targets where some samples have got images of other sizes, which show nothing: their masks become empty ones.

    sizes: [N, 2] of all images"""
    if not isinstance(targets, dict) or not isinstance(targets.get("masks"), list):
        return targets
    masks = list(targets["masks"])
    like = next((m for m in masks if m is not None), None)
    for i in slots:
        given = like if masks[i] is None else masks[i]
        if given is not None:
            plain = torch.as_tensor(given)
            masks[i] = torch.zeros((*plain.shape[:-2], *map(int, sizes[i])), dtype=plain.dtype)
    return {**targets, "masks": masks}


def _rows(targets: Sequence[Any], there: Sequence[Any]) -> Any:
    """Tensors and arrays of one shape of at most one axis in one tensor; else the list."""
    if not all((isinstance(t, Tensor) and not is_tv(t)) or isinstance(t, np.ndarray) for t in there):
        return list(targets)
    tensors = [t if isinstance(t, Tensor) else torch.from_numpy(np.array(t)) for t in there]
    kinds = {(tuple(t.shape), t.dtype) for t in tensors}
    if len(kinds) > 1 or tensors[0].ndim > 1:
        return list(targets)
    rows, blank = iter(tensors), torch.zeros_like(tensors[0])
    return torch.stack([blank if t is None else next(rows) for t in targets])


def given(targets: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a Batch that targets become: those that a policy must see, and those that go past it.

    It sees numbers, which a mix mixes, and whatever may lie among the pixels; not names and captions."""
    named = targets if isinstance(targets, dict) else {} if targets is None else {"labels": targets}
    past = {
        name: value
        for name, value in named.items()
        if isinstance(value, list) and all(isinstance(v, str | None) for v in value)
    }
    return {name: value for name, value in named.items() if name not in past}, past
