"""Sources with a file for each sample: class folders, lists, and tables in CSV or Parquet."""

import csv
import io
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import PurePath
from typing import Any

import numpy as np

from gpuaug.data.annotated import kind_of, known, told
from gpuaug.data.files import HERE, Paths
from gpuaug.data.source import Item, Labels, Names, Source, as_numbers, checked, digest
from gpuaug.data.storage import Span, Storage, plain

# torchvision.datasets.folder.IMG_EXTENSIONS: which files of a folder count decides every id
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

_DRIVES = os.name == "nt"
# files that are worth more than a read each
MANY = 8


class FileSource(Source):
    """A file for each sample.

    names: paths below `root`, or whole ones where that is empty.  sizes: of the files, where a listing has told them; a
    read that gives less is tried again."""

    def __init__(
        self,
        names: Sequence[str],
        labels: Labels | None,
        classes: tuple[str, ...] | None,
        storage: Storage,
        root: str = "",
        sizes: Sequence[int | None] | None = None,
    ):
        if not names:
            raise ValueError("there are no samples")
        self._names = names if isinstance(names, Names) else Names(names)
        self.labels, self.classes, self._storage, self._root = labels, classes, storage, root
        # a table of integers: -1 where the listing has not told it
        self._sizes = None if sizes is None else np.array([-1 if s is None else s for s in sizes], np.int64)
        self._below = f"{root.rstrip('/')}/"

    def __len__(self) -> int:
        return len(self._names)

    def key(self, id: int) -> str:
        return str(self._names[checked([id], len(self))[0]])

    def path(self, id: int) -> str:
        """Where a sample's file is."""
        return self._placed(self.key(id))

    def _placed(self, name: str) -> str:
        # a path of Windows begins with its drive
        if not self._root or name.startswith("/") or "://" in name or (_DRIVES and os.path.isabs(name)):
            return name
        return f"{self._below}{name}"

    def read(self, ids: Sequence[int]) -> list[Item]:
        return list(self._items(ids))

    def samples(self, ids: Sequence[int]) -> tuple[Sequence[Item], Any]:
        return self._items(ids), self.beside(ids)

    def _items(self, ids: Sequence[int]) -> Sequence[Item]:
        wanted = checked(ids, len(self))
        if len(wanted) >= MANY and self._paths is not None:
            return self._storage.read_all(self._paths, np.array(wanted, np.int64), self.path)
        sizes = [-1] * len(wanted) if self._sizes is None else self._sizes[wanted].tolist()
        names = [self._names[i] for i in wanted]
        return self._storage.read(
            [Span(self._placed(name), 0, None if size < 0 else size) for name, size in zip(names, sizes, strict=True)]
        )

    @cached_property
    def _paths(self) -> Paths | None:
        """Where the files are, if compiled code can read them: whole files of this machine."""
        root = self._below if self._root else ""
        if not HERE or b"://" in self._names.data or self._sizes is not None or not self._storage.is_local(root):
            return None
        return Paths.of(os.fsencode(plain(root)), self._names.data, self._names.ends)

    @cached_property
    def fingerprint(self) -> str:
        return digest(
            "files",
            self._names.data,
            self._names.ends,
            b"" if self.labels is None else self.labels,
            *(self.classes or ()),
            *told(self.targets),
        )

    def describe(self) -> str:
        kind = kind_of(self)
        note = ""
        if not self._storage.is_local(self.path(0)):
            note = (
                "\none object an image over a network: every image costs a request of its own; WebDataset shards "
                "are read in ranges of megabytes, "
                "and cache_dir= keeps what was read on a local disk"
            )
        return f"{len(self)} files, {kind}; {self._storage.describe()}{note}"

    def stats(self) -> dict[str, int]:
        return {
            "bytes_read": self._storage.bytes_read,
            "reads": self._storage.requests,
            "tried_again": self._storage.tried_again,
        }

    def close(self) -> None:
        self._storage.close()


# ---- class folders


def folder(root: str, storage: Storage, allow_empty: bool = False, without: str = "") -> FileSource:
    """A folder of class folders, in the order and with the labels of torchvision's ImageFolder; one that holds images
    and no folders has no labels.  without: the real path of a folder in it that does not count."""
    if not storage.is_local(root):
        return _remote_folder(root, storage, allow_empty)
    root = os.path.expanduser(plain(root))
    if not os.path.isdir(root):
        raise ValueError(
            f"{root} is not a folder; pass a folder of class folders, a table, a list of (path, label) or tar shards"
        )
    classes = sorted(
        entry.name for entry in os.scandir(root) if entry.is_dir() and os.path.realpath(entry.path) != without
    )
    if not classes:
        names = sorted(
            entry.name for entry in os.scandir(root) if entry.is_file() and entry.name.lower().endswith(EXTENSIONS)
        )
        if not names:
            raise ValueError(
                f"{root} holds neither class folders nor images; files ending in {', '.join(EXTENSIONS)} count"
            )
        return FileSource(names, None, None, storage, root)
    names, counts = [], []
    for name in classes:
        before = len(names)
        for place, _, files in sorted(os.walk(os.path.join(root, name), followlinks=True)):
            if without and f"{os.path.realpath(place)}{os.sep}".startswith(f"{without}{os.sep}"):
                continue
            below = os.path.relpath(place, root).replace(os.sep, "/")
            names += [f"{below}/{file}" for file in sorted(files) if file.lower().endswith(EXTENSIONS)]
        counts.append(len(names) - before)
    return _labelled(root, names, classes, counts, storage, allow_empty)


def _remote_folder(root: str, storage: Storage, allow_empty: bool) -> FileSource:
    _, inside = storage.system(root)
    found = {path.removeprefix(inside).lstrip("/"): size for path, size in storage.find(root).items()}
    images = {name: size for name, size in found.items() if name.lower().endswith(EXTENSIONS)}
    # a folder's files come before those of the folders in it, and folders sort by their whole path: so does os.walk,
    # sorted
    names = sorted((n for n in images if "/" in n), key=lambda n: (n.split("/")[0], *n.rpartition("/")[::2]))
    if not names:
        names = sorted(images)
        if not names:
            raise ValueError(
                f"{root} holds neither class folders nor images; files ending in {', '.join(EXTENSIONS)} count"
            )
        return FileSource(names, None, None, storage, root, [images[n] for n in names])
    classes = sorted({n.split("/")[0] for n in found if "/" in n})
    held = [n.split("/")[0] for n in names]
    return _labelled(
        root, names, classes, [held.count(c) for c in classes], storage, allow_empty, [images[n] for n in names]
    )


def _labelled(
    root: str,
    names: list[str],
    classes: list[str],
    counts: list[int],
    storage: Storage,
    allow_empty: bool,
    sizes: Sequence[int | None] | None = None,
) -> FileSource:
    empty = [c for c, count in zip(classes, counts, strict=True) if not count]
    if empty and not allow_empty:
        raise ValueError(
            f"no image in the class folders {', '.join(empty[:10])}{' ...' if len(empty) > 10 else ''} of {root}; "
            f"files ending in {', '.join(EXTENSIONS)} count. Remove the folders, or pass "
            "gpuaug.data.as_source(..., allow_empty=True)"
        )
    if not names:
        raise ValueError(f"{root} holds no images; files ending in {', '.join(EXTENSIONS)} count")
    return FileSource(
        names, np.repeat(np.arange(len(classes), dtype=np.int64), counts), tuple(classes), storage, root, sizes
    )


# ---- lists and tables


def pairs(rows: Sequence[Any], storage: Storage, root: str = "") -> FileSource:
    """A list of paths, or of (path, label): labels are integers, names, floats, rows of numbers, or dicts with boxes.
    Relative paths are below `root`."""
    if not rows:
        raise ValueError("the list of samples is empty")
    if storage.is_local(root):
        # a process that goes to another folder later finds them still
        root = os.path.abspath(os.path.expanduser(plain(root)))
    if isinstance(rows[0], (str, PurePath)):
        for k, row in enumerate(rows):
            if not isinstance(row, (str, PurePath)):
                raise ValueError(f"samples must all be paths, or all (path, label), got {row!r} at {k}")
        return FileSource([os.fspath(row) for row in rows], None, None, storage, root)
    for k, row in enumerate(rows):
        if not isinstance(row, (tuple, list)) or len(row) != 2 or not isinstance(row[0], (str, PurePath)):
            raise ValueError(f"samples must be (path, label), got {row!r} at {k}")
    return _known([os.fspath(row[0]) for row in rows], [row[1] for row in rows], storage, root)


def table(path: str, storage: Storage, columns: tuple[str, str | None] | None = None) -> FileSource:
    """A CSV file with a head line, or a Parquet file: one column of paths, relative to the table's folder, and one of
    labels, or none; None: "path", and "label" if it is there."""
    read = _parquet if path.lower().endswith(".parquet") else _csv
    names, labels = read(path, storage, columns or ("path", "label"), columns is not None)
    if not names:
        raise ValueError(f"{path} has no rows")
    for what, values in (("path", names), ("label", labels or ())):
        empty = next((k for k, value in enumerate(values) if value is None or value == ""), None)
        if empty is not None:
            raise ValueError(f"{path} has no {what} in sample {empty}, counted from 0; give it one, or leave it out")
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: paths must be strings, got {type(names[0]).__name__} such as {names[0]!r:.60}")
    root = (
        path.rpartition("/")[0]
        if not storage.is_local(path)
        else os.path.dirname(os.path.abspath(os.path.expanduser(plain(path))))
    )
    if labels is None:
        return FileSource(names, None, None, storage, root)
    return _known(names, labels, storage, root)


def _known(names: Sequence[str], values: Sequence[Any], storage: Storage, root: str) -> FileSource:
    labels, targets, classes = known(values)
    source = FileSource(names, labels, classes, storage, root)
    source.targets = targets
    return source


def _bytes(path: str, storage: Storage) -> bytes:
    if storage.is_local(path):
        path = os.path.expanduser(path)
    (data,) = storage.read([Span(path)])
    if isinstance(data, Exception):
        raise ValueError(f"{path} can't be read: {data}")
    return bytes(data)


def _found(path: str, columns: tuple[str, str | None], there: Sequence[str], both: bool) -> tuple[int, int | None]:
    """Which columns hold paths and labels; a name in other cases will do where none has it as it is."""
    found: list[int | None] = []
    for column in columns:
        if column is None:
            found.append(None)
            continue
        alike = [k for k, name in enumerate(there) if name == column]
        alike = alike or [k for k, name in enumerate(there) if name.casefold() == column.casefold()]
        if len(alike) > 1:
            raise ValueError(f"{path} has {len(alike)} columns {column!r} among {', '.join(there)}; rename the others")
        if not alike and (both or not found):
            raise ValueError(
                f"{path} has no column {column!r}, only {', '.join(there)}; name the columns of paths and labels with "
                "gpuaug.data.as_source(..., columns=(..., ...))"
            )
        found.append(alike[0] if alike else None)
    assert found[0] is not None
    return found[0], found[1]


def _csv(
    path: str, storage: Storage, columns: tuple[str, str | None], both: bool
) -> tuple[list[str], list[Any] | None]:
    """both: a column of labels must be there too."""
    try:
        text = io.StringIO(_bytes(path, storage).decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); write it in that encoding") from None
    reader = csv.reader(text, delimiter="\t" if path.lower().endswith(".tsv") else ",")
    # a name is the same with a blank after the comma
    head = [name.strip() for name in next(reader, [])]
    at = _found(path, columns, head, both)
    rows = [row for row in reader if row]
    for k, row in enumerate(rows):
        if len(row) != len(head):
            raise ValueError(f"{path}: row {k + 2} has {len(row)} fields, its head has {len(head)}")
    names = [row[at[0]] for row in rows]
    return names, None if at[1] is None else as_numbers([row[at[1]].strip() for row in rows])


def _parquet(
    path: str, storage: Storage, columns: tuple[str, str | None], both: bool
) -> tuple[list[str], list[Any] | None]:
    """As `_csv`."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            f"{path} is read by pyarrow, which is not installed; pip install pyarrow, or pass the table as CSV"
        ) from None
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(_bytes(path, storage)))
        there = file.schema_arrow.names
        at = _found(path, columns, there, both)
        names = [there[k] for k in at if k is not None]
        found = file.read(columns=names).to_pydict()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet file: {error}") from None
    return found[names[0]], None if at[1] is None else found[names[1]]
