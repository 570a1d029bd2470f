"""What `gpuaug prepare` wrote: images of one size in a plain .npy file, read by positioned reads, and their names and
labels in a Parquet file beside it."""

import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from gpuaug.data.source import Item, Names, Source, as_labels, checked, digest
from gpuaug.data.storage import Unreadable

IMAGES, INDEX = "images.npy", "index.parquet"
# in the metadata of the Parquet file's schema
ABOUT = b"gpuaug"


class Places(NamedTuple):
    """Where the two files are."""

    images: Path
    table: Path

    @property
    def part(self) -> Path:
        """The images while they are written."""
        return self.images.with_name(self.images.name + ".part")

    @property
    def journal(self) -> Path:
        """What has been written so far, while it is written."""
        return self.images.with_name(self.images.name + ".journal")


def places(path: str | os.PathLike[str]) -> Places:
    """FOLDER/images.npy and FOLDER/index.parquet; or NAME.npy and NAME.parquet, where the path ends in .npy."""
    where = Path(os.path.expanduser(os.fspath(path)))
    if where.suffix == ".npy":
        folder = where.parent if where.name == IMAGES and not where.with_suffix(".parquet").exists() else None
        return Places(where, where.with_suffix(".parquet") if folder is None else folder / INDEX)
    return Places(where / IMAGES, where / INDEX)


def begun(path: str | os.PathLike[str]) -> bool:
    """Whether `gpuaug prepare` has begun here and has not finished."""
    return places(path).journal.exists()


def is_prepared(path: str | os.PathLike[str]) -> bool:
    """Whether both files are there."""
    found = places(path)
    return found.images.is_file() and found.table.is_file()


def header(file: BinaryIO) -> tuple[tuple[int, ...], int]:
    """Shape of the uint8 array in a .npy file, and where its pixels begin.  Raises ValueError for another."""
    version = npy.read_magic(file)  # type: ignore[no-untyped-call]
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"its .npy version is {version}")
    shape, fortran, dtype = read(file)  # type: ignore[no-untyped-call]
    if len(shape) != 4 or dtype != np.uint8 or fortran or shape[3] not in (1, 3, 4):
        raise ValueError(f"it holds {dtype} {list(shape)}, not uint8 [N, H, W, C]")
    return tuple(map(int, shape)), file.tell()


class PreparedSource(Source):
    """Images of one size, decoded already.

    They are read by positioned reads: what is read lies in the system's cache of files and is no memory of this
    process, as the pages of a memory map would be."""

    def __init__(self, path: str | os.PathLike[str]):
        self._at = places(path)
        try:
            with open(self._at.images, "rb") as file:
                self.shape, self._begin = header(file)
                size = os.fstat(file.fileno()).st_size
        except (OSError, ValueError) as error:
            raise ValueError(f"{self._at.images} is no file that gpuaug prepare wrote: {error}") from None
        self._each = int(np.prod(self.shape[1:]))
        wanted = self._begin + self.shape[0] * self._each
        if size != wanted:
            raise ValueError(f"{self._at.images} must have {wanted} bytes, got {size}; prepare it again")
        columns, about = _index(self._at.table)
        if len(columns["path"]) != self.shape[0]:
            raise ValueError(
                f"{self._at.table} has {len(columns['path'])} rows for {self.shape[0]} images; prepare them again"
            )
        self._names = Names(columns["path"])
        self._about = about
        if all(label is not None for label in columns["label"]):
            self.labels, self.classes = as_labels(columns["label"])
        if about.get("classes"):
            self.classes = tuple(about["classes"])
        self.source_ids = np.array(columns["source_id"], np.int64)
        self._lock, self._file, self._read_bytes, self._reads = Lock(), -1, 0, 0

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_lock", "_file")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=Lock(), _file=-1)

    def __len__(self) -> int:
        return self.shape[0]

    def key(self, id: int) -> str:
        return str(self._names[checked([id], len(self))[0]])

    def read(self, ids: Sequence[int]) -> list[Item]:
        given = checked(ids, len(self))
        out = torch.empty((len(given), *self.shape[1:]), dtype=torch.uint8, device="cpu")
        items: list[Item] = list(out)
        pixels: Any = out.numpy().reshape(len(given), self._each)
        rows = memoryview(pixels)
        first = 0
        while first < len(given):
            last = first + 1
            # neighbours in one read
            while last < len(given) and given[last] == given[last - 1] + 1:
                last += 1
            try:
                self._into(rows[first:last].cast("B"), given[first])
            except OSError as error:
                items[first:last] = [Unreadable(f"{self._at.images}: {error}") for _ in range(first, last)]
            first = last
        return items

    def _into(self, view: Any, row: int) -> None:
        """Fill a piece of memory with the pixels from a row on."""
        at, done = self._begin + row * self._each, 0
        while done < len(view):
            got = os.preadv(self._descriptor(), [view[done:]], at + done)
            if not got:
                raise OSError(f"ends {len(view) - done} bytes before row {row} does")
            done += got
        with self._lock:
            self._read_bytes, self._reads = self._read_bytes + done, self._reads + 1

    def _descriptor(self) -> int:
        with self._lock:
            if self._file < 0:
                self._file = os.open(self._at.images, os.O_RDONLY)
            return self._file

    @property
    def job(self) -> dict[str, Any]:
        """What was prepared, and how."""
        return self._about

    def pixels(self) -> Tensor:
        """All of them, [N, C, H, W], in this process's memory."""
        out = torch.empty(self.shape, dtype=torch.uint8, device="cpu")
        rows = max(1, (1 << 26) // self._each)
        flat: Any = out.numpy().reshape(len(self), self._each)
        view = memoryview(flat)
        for first in range(0, len(self), rows):
            self._into(view[first : first + rows].cast("B"), first)
        return out.permute(0, 3, 1, 2)

    @cached_property
    def fingerprint(self) -> str:
        return digest(
            "prepared",
            self.shape,
            json.dumps(self._about, sort_keys=True),
            self._names.data,
            self._names.ends,
            b"" if self.labels is None else self.labels,
        )

    def describe(self) -> str:
        n, height, width, channels = self.shape
        labels = "no labels" if self.labels is None else f"{len(self.classes)} classes" if self.classes else "labels"
        return f"{n} images {height} x {width} x {channels}, decoded before, {labels}; reads of {self._at.images}"

    def stats(self) -> dict[str, int]:
        return {"bytes_read": self._read_bytes, "reads": self._reads, "tried_again": 0}

    def close(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
            self._file = -1


def _index(path: Path) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """The columns of a Parquet index, and what it says about all of them."""
    arrow = pyarrow(path)
    try:
        table = arrow.parquet.read_table(path)
    except (OSError, arrow.ArrowInvalid) as error:
        raise ValueError(f"{path} is no index that gpuaug prepare wrote: {error}") from None
    about = (table.schema.metadata or {}).get(ABOUT)
    missing = {"path", "label", "source_id"} - set(table.column_names)
    if about is None or missing:
        raise ValueError(f"{path} is no index that gpuaug prepare wrote; prepare the images again")
    return table.to_pydict(), json.loads(about)


def pyarrow(path: Path) -> Any:
    """The package, or a sentence that says how to get it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            f"{path} takes pyarrow, which is not installed; pip install pyarrow, or 'gpuaug[sources]'"
        ) from None
    return pyarrow
