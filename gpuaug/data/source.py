"""What a source of samples is: so many of them, numbered from 0, each with bytes, and with a label where the source
knows one."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
from torch import Tensor

from gpuaug.data.headers import Encoded

# a sample's encoded bytes, its image if the source has it decoded ([H, W, C] uint8), or the reason why there is neither
Item = Encoded | Tensor | Exception
Labels = np.ndarray[Any, Any]


class Source(ABC):
    """Samples by id: 0 to len(source) - 1, the same ones in every process and at every start.

    labels: [N] int64 class numbers, [N] float32 numbers or [N, K] float32 rows; None where labels come with the samples
    or there are none.
    targets: what is beside each image where that is more than a label, dicts with fields of a `gpuaug.Batch`, or None.
    classes: names of the class numbers, of samples or of their boxes; None where they have none.
    """

    labels: Labels | None = None
    targets: Sequence[Any] | None = None
    classes: tuple[str, ...] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def key(self, id: int) -> str:
        """What people call a sample: its path, or its shard and key."""

    @abstractmethod
    def read(self, ids: Sequence[int]) -> list[Item]:
        """Samples, in the order of their ids.  One that can't be read is an exception in its place: nothing is raised
        for a single sample."""

    def samples(self, ids: Sequence[int]) -> tuple[Sequence[Item], Any]:
        """What `read` gives, and the targets: rows of `labels`, or a list of what the source has beside each image, or
        None."""
        return self.read(ids), self.beside(ids)

    def beside(self, ids: Sequence[int]) -> Any:
        """The targets of samples, as far as they are known without reading them."""
        if self.targets is not None:
            return [self.targets[i] for i in ids]
        return None if self.labels is None else self.labels[np.asarray(ids, np.int64)]

    def find(self, key: str) -> int:
        """The id of a key; raises KeyError."""
        found = self._keys.get(key)
        if found is None:
            raise KeyError(f"no sample is called {key!r}")
        return found

    @cached_property
    def _keys(self) -> dict[str, int]:
        return {self.key(i): i for i in range(len(self))}

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with the samples, their order or their labels, and not with the place
        where they are."""

    @abstractmethod
    def describe(self) -> str:
        """What it holds and how it is read."""

    def stats(self) -> dict[str, int]:
        """Bytes read, reads, and reads that were tried again, so far."""
        return {"bytes_read": 0, "reads": 0, "tried_again": 0}

    def close(self) -> None:  # noqa: B027
        """End its threads, if it has any."""

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Names(Sequence[str]):
    """Strings in one piece of memory: a million paths as Python's strings take 100 MB, and are copied bit by bit in
    every forked process."""

    def __init__(self, names: Iterable[str]):
        encoded = [n.encode("utf-8", "surrogateescape") for n in names]
        self.data = b"".join(encoded)
        self.ends = np.cumsum([len(e) for e in encoded], dtype=np.int64) if encoded else np.zeros(0, np.int64)

    @classmethod
    def of(cls, data: bytes, ends: np.ndarray[Any, np.dtype[np.int64]]) -> "Names":
        """From what an index holds."""
        names = cls(())
        names.data, names.ends = data, ends
        return names

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: Any) -> Any:
        return self.data[self.ends[i - 1] if i else 0 : self.ends[i]].decode("utf-8", "surrogateescape")


def checked(ids: Sequence[int], count: int) -> list[int]:
    """Ids as integers of Python, all of them there."""
    given = list(map(int, ids))
    if given and min(given) >= 0 and max(given) < count:
        return given
    for i in given:
        if not 0 <= i < count:
            raise IndexError(f"id {i} is not in this source of {count} samples")
    return given


def digest(*parts: Any) -> str:
    """A fingerprint of strings, bytes and arrays."""
    h = blake2b(digest_size=8)
    for part in parts:
        data = (
            part.tobytes()
            if isinstance(part, np.ndarray)
            else part
            if isinstance(part, bytes)
            else str(part).encode("utf-8", "surrogateescape")
        )
        # lengths, so that what stands in one part can't stand in the next
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()


def as_labels(labels: Sequence[Any]) -> tuple[Labels, tuple[str, ...] | None]:
    """Labels as they are given: class numbers, names (numbered as they sort), floats, or rows of numbers."""
    if labels and all(isinstance(label, str) for label in labels):
        classes = tuple(sorted(set(labels)))
        number = {c: i for i, c in enumerate(classes)}
        return np.array([number[label] for label in labels], np.int64), classes
    try:
        array = np.asarray(labels)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype.kind in "iub" and array.ndim == 1:
        return array.astype(np.int64), None
    if (array.dtype.kind == "f" and array.ndim == 1) or (array.dtype.kind in "iubf" and array.ndim == 2):
        return array.astype(np.float32), None
    raise ValueError(
        "labels must all be integers, all strings, all floats, or rows of numbers of one length, got "
        f"{[type(label).__name__ for label in labels[:3]]}; "
        "for other targets pass a data set that yields (encoded bytes, target)"
    )


_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def as_numbers(texts: Sequence[str]) -> list[Any]:
    """Labels that were written down: integers if all are, floats if all are numbers; one name among them, and all are
    names."""
    for form, kind in ((_INTEGER, int), (_NUMBER, float)):
        if all(form.fullmatch(text) for text in texts):
            return [kind(text) for text in texts]
    return list(texts)
