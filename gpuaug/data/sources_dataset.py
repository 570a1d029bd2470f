"""Data sets as sources: Hugging Face's with their encoded images, and anything that yields (encoded bytes or image,
target) by number or by key."""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gpuaug.data import decode_pillow
from gpuaug.data.annotated import kind_of, known, named, numbered, told
from gpuaug.data.source import Item, Source, as_labels, checked, digest
from gpuaug.data.storage import Span, Storage, Unreadable, reason


class Locked(Source):
    """A source that is read by one thread at a time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._read_bytes = self._reads = 0

    def _counted(self, items: Sequence[Item]) -> None:
        """Samples were read: encoded ones count with their bytes."""
        sizes = [len(i) for i in items if not isinstance(i, Tensor | Exception)]
        with self._lock:
            self._read_bytes, self._reads = self._read_bytes + sum(sizes), self._reads + len(items)

    def stats(self) -> dict[str, int]:
        return {"bytes_read": self._read_bytes, "reads": self._reads, "tried_again": 0}

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=Lock())


class DatasetSource(Locked):
    """A map-style data set: dataset[i] is (image, target), (image,) or an image; a mapping is read by its keys, sorted,
    so that its order is no matter.  Names among the labels of boxes are numbered by their places in dataset.classes.

    An image is the file's bytes, a PIL image, an [H, W] or [H, W, C] uint8 array, or a [C, H, W] uint8 tensor.  Data
    sets know nothing of threads: they are read by one at a time."""

    def __init__(self, dataset: Any):
        super().__init__()
        self._dataset = dataset
        self._names = sorted(dataset) if isinstance(dataset, Mapping) else None
        if self._names is not None and not all(isinstance(name, str) for name in self._names):
            raise ValueError("the keys of a mapping must be strings; for numbers pass a list")
        if not len(dataset):
            raise ValueError(f"the {type(dataset).__name__} is empty")
        classes, targets = getattr(dataset, "classes", None), getattr(dataset, "targets", None)
        if targets is not None and len(targets) == len(dataset) and getattr(dataset, "target_transform", None) is None:
            try:
                self.labels, self.classes = as_labels(
                    targets.tolist() if isinstance(targets, (Tensor, np.ndarray)) else list(targets)
                )
            except ValueError:
                # targets that are no labels come with the samples
                self.labels = None

        if isinstance(classes, (list, tuple)):
            self.classes = tuple(map(str, classes))
        self._numbers = {name: k for k, name in enumerate(self.classes or ())}

    def __len__(self) -> int:
        return len(self._dataset)

    def key(self, id: int) -> str:
        (i,) = checked([id], len(self))
        return str(i) if self._names is None else self._names[i]

    def read(self, ids: Sequence[int]) -> list[Item]:
        return self.samples(ids)[0]

    def samples(self, ids: Sequence[int]) -> tuple[list[Item], Any]:
        items: list[Item] = []
        targets: list[Any] = []
        for i in checked(ids, len(self)):
            try:
                with self._lock:
                    sample = self._dataset[i if self._names is None else self._names[i]]
                parts = sample if isinstance(sample, (tuple, list)) and len(sample) in (1, 2) else (sample,)
                items.append(image(parts[0]))
                targets.append(parts[1] if len(parts) == 2 else None)
            except Exception as error:
                items.append(Unreadable(f"{type(error).__name__}: {reason(error)}"))
                targets.append(None)
        self._counted(items)
        if self._numbers and any(map(named, targets)):
            targets = [numbered(t, self._numbers, f"sample {i}") for i, t in zip(ids, targets, strict=True)]
        return items, None if all(target is None for target in targets) else targets

    @cached_property
    def fingerprint(self) -> str:
        own = getattr(self._dataset, "fingerprint", None)
        return digest(
            "dataset",
            type(self._dataset).__qualname__,
            len(self),
            own or "",
            b"" if self.labels is None else self.labels,
            *(self._names or ()),
        )

    def describe(self) -> str:
        return (
            f"{len(self)} samples of {type(self._dataset).__name__}, read one at a time by its own code; its "
            "fingerprint is its length and labels"
        )


def image(value: Any) -> Item:
    """An image as a data set gives it: bytes stay, what is decoded becomes [H, W, C] uint8."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return value
    if isinstance(value, Image.Image):
        value = decode_pillow.as_rgb(value)
    if isinstance(value, np.ndarray):
        value = value[..., None] if value.ndim == 2 else value
        pixels, shape = torch.from_numpy(np.ascontiguousarray(value)) if value.dtype == np.uint8 else None, value.shape
    elif isinstance(value, Tensor):
        value = value[None] if value.ndim == 2 else value
        pixels = value.permute(1, 2, 0) if value.dtype == torch.uint8 and value.ndim == 3 else None
        shape = tuple(pixels.shape) if pixels is not None else tuple(value.shape)
    else:
        raise TypeError(
            f"an image must be bytes, a PIL image, an array or a tensor, got {type(value).__name__}; return "
            "(image, target) from the data set"
        )
    if pixels is None or len(shape) != 3 or shape[2] not in (1, 3, 4) or 0 in shape:
        raise TypeError(
            "a decoded image must be uint8, [H, W, C] as an array or [C, H, W] as a tensor, of 1, 3 or 4 "
            f"channels, got {value.dtype} {list(value.shape)}; "
            "leave conversions to the policy"
        )
    return pixels


class HuggingFaceSource(Locked):
    """A data set of the `datasets` package, by its column of images; they come encoded, whatever the column says about
    decoding.

    image, label: names of the columns; None takes the only column of images, and of class labels.
    """

    def __init__(self, dataset: Any, storage: Storage, image: str | None = None, label: str | None = None):
        super().__init__()
        features = dict(dataset.features)
        images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
        labels = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
        self._column = _one(image, images, features, "image")
        column = (
            _one(label, labels, features, "label")
            if label is not None or labels
            else "label"
            if "label" in features
            else None
        )
        kind = type(features[self._column])
        self._dataset = (
            dataset.with_format(None).cast_column(self._column, kind(decode=False)).select_columns([self._column])
        )
        self._storage = storage
        if not len(dataset):
            raise ValueError("the data set is empty")
        if column is not None:
            values = list(dataset.with_format(None).select_columns([column])[:][column])
            self.labels, self.targets, names = known(values)
            self.classes = names or _names(features[column])

    def __len__(self) -> int:
        return len(self._dataset)

    def key(self, id: int) -> str:
        (i,) = checked([id], len(self))
        path = self._cells([i])[0].get("path")
        return f"{i}: {path}" if path else str(i)

    def find(self, key: str) -> int:
        return checked([int(key.partition(":")[0])], len(self))[0]

    def _cells(self, ids: list[int]) -> list[Any]:
        with self._lock:
            return list(self._dataset[ids][self._column])

    def read(self, ids: Sequence[int]) -> list[Item]:
        cells = self._cells(checked(ids, len(self)))
        items: list[Any] = [None if cell is None else cell.get("bytes") for cell in cells]
        far = [k for k, cell in enumerate(cells) if items[k] is None and cell is not None and cell.get("path")]
        for k, data in zip(far, self._storage.read([Span(cells[k]["path"]) for k in far]), strict=True):
            items[k] = data
        items = [Unreadable("the data set holds neither bytes nor a path") if item is None else item for item in items]
        self._counted(items)
        return items

    def stats(self) -> dict[str, int]:
        return {**super().stats(), "tried_again": self._storage.tried_again}

    @cached_property
    def fingerprint(self) -> str:
        # the package's own fingerprint changes with the time at which a cache was written, and so from machine to
        # machine
        some = sorted({k * (len(self) - 1) // 15 for k in range(16)})
        # of a file that lies elsewhere its name: where it lies is no matter
        cells = [
            os.path.basename(part) if isinstance(part, str) else part
            for cell in self._cells(some)
            for part in (cell or {}).values()
        ]
        return digest(
            "huggingface",
            len(self),
            self._column,
            *cells,
            b"" if self.labels is None else self.labels,
            *(self.classes or ()),
            *told(self.targets),
        )

    def describe(self) -> str:
        kind = kind_of(self)
        return (
            f"{len(self)} rows of a Hugging Face data set, {kind}, encoded images from {self._column!r}; "
            f"{self._storage.describe()}"
        )

    def close(self) -> None:
        self._storage.close()


def _names(feature: Any) -> tuple[str, ...] | None:
    """The names of a column of class labels, or of the labels of boxes in a column of dicts."""
    if isinstance(feature, Mapping) and "labels" in feature:
        feature = feature["labels"]
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return None if names is None else tuple(names)


def _one(asked: str | None, found: list[str], features: Mapping[str, Any], what: str) -> str:
    if asked is not None:
        if asked not in features:
            raise ValueError(f"the data set has no column {asked!r}, only {', '.join(features)}")
        return asked
    if len(found) != 1:
        raise ValueError(
            f"the data set has {len(found)} columns that may be the {what} "
            f"({', '.join(found) or ', '.join(features)}); name both with "
            "gpuaug.data.as_source(..., columns=(..., ...))"
        )
    return found[0]
