"""What a source knows beside its images before it reads them: labels, or dicts with boxes, masks or points, whose names
of classes become numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from gpuaug.data.source import Labels, Source, as_labels


class Known(NamedTuple):
    """`labels`, `targets` and `classes` of a `Source`."""

    labels: Labels | None = None
    targets: Sequence[Any] | None = None
    classes: tuple[str, ...] | None = None


def known(values: Sequence[Any]) -> Known:
    """What values of all samples are: labels as `as_labels` takes them, or dicts, and None for samples without."""
    if not any(isinstance(v, dict) for v in values):
        labels, classes = as_labels(values)
        return Known(labels, None, classes)
    for k, value in enumerate(values):
        if not isinstance(value, dict | None):
            raise ValueError(
                f"targets must all be labels, or all dicts, got a {type(value).__name__} in sample {k}, counted from "
                f"0, among dicts: {value!r:.60}"
            )
    names = [n for n in (named(v) for v in values) if n is not None]
    if not any(names):
        return Known(None, values, None)
    classes = tuple(sorted({name for some in names for name in some}))
    numbers = {name: k for k, name in enumerate(classes)}
    return Known(None, [numbered(v, numbers, f"sample {k}, counted from 0,") for k, v in enumerate(values)], classes)


def named(target: Any) -> list[str] | None:
    """The names among a dict's labels; None where it has none, or numbers.  An empty list may be either."""
    labels = target.get("labels") if isinstance(target, dict) else None
    if isinstance(labels, str):
        return [labels]
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "UO":
        labels = labels.tolist()
    if isinstance(labels, list | tuple):
        names = [str(v) for v in labels if isinstance(v, str)]
        return names if names or not labels else None
    return None


def numbered(target: Any, numbers: Mapping[str, int], what: str) -> Any:
    """The target with numbers for the names among its labels.  Raises ValueError for a name that has none."""
    names = named(target)
    if not names:
        return target
    labels = target["labels"]
    if not isinstance(labels, str) and len(names) < len(labels):
        raise ValueError(f"the labels of {what} are numbers and names, {list(labels)!r:.80}; make them one of the two")
    unknown = next((name for name in names if name not in numbers), None)
    if unknown is not None:
        raise ValueError(f"{what} has the label {unknown!r}, and the classes are {', '.join(list(numbers)[:20])}")
    found = [numbers[name] for name in names]
    return {**target, "labels": found[0] if isinstance(labels, str) else found}


def kind_of(source: Source) -> str:
    """What a source has beside its images, in words."""
    named = f"{len(source.classes)} classes" if source.classes else ""
    if source.targets is not None:
        return f"targets of {named}" if named else "targets"
    return "no labels" if source.labels is None else named or "labels"


def told(targets: Sequence[Any] | None) -> list[Any]:
    """Parts of a fingerprint that change with what targets say."""
    return [] if targets is None else [part for target in targets for part in _told(target)]


def _told(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [part for name in sorted(value, key=str) for part in (name, *_told(value[name]))]
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return [value.dtype.str, str(value.shape), np.ascontiguousarray(value)]
    if isinstance(value, list | tuple | np.ndarray):
        return [part for v in value for part in _told(v)] if any(map(_deep, value)) else [str(list(value))]
    # what an object shows may be the place where it lies
    return [str(value) if isinstance(value, str | int | float | None) else type(value).__qualname__]


def _deep(value: Any) -> bool:
    return not isinstance(value, str | int | float | None)
