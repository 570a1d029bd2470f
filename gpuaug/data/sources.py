"""Where samples come from: `as_source` takes what people have, a folder, a table, a list, tar shards or a data set, and
nothing is converted first."""

import os
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

from gpuaug.data.source import Source
from gpuaug.data.sources_dataset import DatasetSource, HuggingFaceSource
from gpuaug.data.sources_files import FileSource, folder, pairs, table
from gpuaug.data.sources_prepared import PreparedSource, begun, is_prepared
from gpuaug.data.sources_tar import TarSource, shards
from gpuaug.data.storage import Storage, plain

TAKEN = (
    "a folder of class folders, a .csv or .parquet table, a list of (path, label), tar shards, a Hugging "
    "Face data set, or a map-style data set"
)


def as_source(
    what: Any,
    storage: Storage | None = None,
    *,
    columns: tuple[str, str | None] | None = None,
    label: str | None = None,
    root: str = "",
    allow_empty: bool = False,
) -> Source:
    """The source that something is.

    | `what` | is read as |
    |---|---|
    | a folder, local or s3://, gs://, memory:// | class folders, in the order of torchvision's ImageFolder |
    | a folder of images alone | images without labels |
    | a folder of tars alone | shards |
    | what `gpuaug prepare` wrote: a folder, or a .npy | images decoded before |
    | a path ending in .csv, .tsv or .parquet | a column of paths and one of labels, `columns` |
    | a list of (path, label), or of paths | files, relative to `root`; a label may be a dict with boxes |
    | a path with .tar, {000..127} or *, or a list of such | WebDataset shards; `label`: a member, or "json[:NAME]" |
    | a Hugging Face data set | its column of images, encoded, and of class labels, `columns` |
    | torchvision's ImageFolder without transforms | its files |
    | anything with `len` and `[i]`, a mapping too | samples (encoded bytes or decoded image, target) |

    columns: names of images and labels, ("path", "label") of a table by default; (name, None): a table without
    labels, or the only column of class labels of a Hugging Face data set.
    storage: how files are read; `Storage()` by default.  allow_empty: class folders without an image are no error.  All
    else raises ValueError or TypeError."""
    if not isinstance(storage, Storage | None):
        raise TypeError(f"storage must be a gpuaug.data.Storage, or None, got {type(storage).__name__}")
    if columns is not None and not (
        isinstance(columns, (tuple, list))
        and len(columns) == 2
        and isinstance(columns[0], str)
        and isinstance(columns[1], str | None)
    ):
        raise ValueError(f"columns must be two names, of the images and of the labels (or None), got {columns!r}")
    if isinstance(what, Source):
        return what
    storage = Storage() if storage is None else storage
    given = {"columns": columns, "label": label, "root": root or None, "allow_empty": allow_empty or None}
    if isinstance(what, (str, PurePath)):
        return _path(os.fspath(what), storage, columns, label, allow_empty, given)
    if isinstance(what, np.ndarray) and what.dtype.kind in "UO" and what.ndim in (1, 2):
        # paths, or rows of (path, label)
        what = what.tolist()
    if isinstance(what, (list, tuple)):
        if what and all(isinstance(w, (str, PurePath)) and ".tar" in os.fspath(w) for w in what):
            _used("tar shards", given, "label")
            return TarSource(shards([os.fspath(w) for w in what], storage), storage, label)
        if (
            not what
            or isinstance(what[0], (str, PurePath))
            or (isinstance(what[0], (tuple, list)) and isinstance(next(iter(what[0]), ""), (str, PurePath)))
        ):
            _used("a list", given, "root")
            return pairs(what, storage, root)
        _used("a list of samples", given)
        return DatasetSource(what)
    if isinstance(what, Mapping) and any(hasattr(part, "cast_column") for part in what.values()):
        raise ValueError(
            f"this holds {len(what)} data sets, {', '.join(map(str, what))}; pass one of them, such as "
            f"what[{next(iter(what))!r}]"
        )
    # a streamed data set of the same package has no length
    if all(hasattr(what, name) for name in ("features", "cast_column", "__getitem__", "__len__")):
        _used("a Hugging Face data set", given, *(("columns",) if columns else ("label",)))
        return HuggingFaceSource(what, storage, *(columns or (None, label)))
    if _plain_folder(what):
        _used("an ImageFolder", given)
        names = [os.path.relpath(path, what.root).replace(os.sep, "/") for path, _ in what.samples]
        return FileSource(
            names, np.array(what.targets, np.int64), tuple(what.classes), storage, os.path.abspath(what.root)
        )
    if hasattr(what, "iloc"):
        raise TypeError(
            f"samples are not read from a {type(what).__name__}; pass list(zip(table['path'], table['label'])), or "
            "write it as .csv or .parquet"
        )
    # torch's IterableDataset inherits a __getitem__ that only raises
    by_number = hasattr(what, "__getitem__") and not isinstance(what, torch.utils.data.IterableDataset | bytes)
    if isinstance(what, Mapping) or (by_number and hasattr(what, "__len__")):
        _used(f"a {type(what).__name__}", given)
        return DatasetSource(what)
    if hasattr(what, "__iter__") and not isinstance(what, bytes):
        raise TypeError(
            f"samples are read by their number, and a {type(what).__name__} can only be run through; pass {TAKEN}"
        )
    raise TypeError(f"samples can't be read from a {type(what).__name__}; pass {TAKEN}")


# what takes the options of `as_source`
_FOR = {
    "columns": "tables and Hugging Face data sets",
    "label": "tar shards, and Hugging Face data sets without columns=",
    "root": "lists of paths",
    "allow_empty": "class folders",
}


def _used(what: str, given: Mapping[str, Any], *names: str) -> None:
    """Refuse options that would be used by nothing."""
    for name, value in given.items():
        if value is not None and name not in names:
            raise ValueError(f"{name}={value!r} is for {_FOR[name]}, and this is {what}; leave it out")


def _path(
    path: str,
    storage: Storage,
    columns: tuple[str, str | None] | None,
    label: str | None,
    allow_empty: bool,
    given: Mapping[str, Any],
) -> Source:
    if path and storage.is_local(path) and not path.startswith("pipe:"):
        # a process that goes to another folder later finds it still
        path = os.path.abspath(os.path.expanduser(plain(path)))
    lower = path.lower()
    if storage.is_local(path) and (lower.endswith(".npy") or is_prepared(plain(path))):
        _used("prepared already", given)
        return PreparedSource(plain(path))
    if storage.is_local(path) and begun(plain(path)):
        raise ValueError(f"{path} was begun by gpuaug prepare and is not whole; run the same command again: it goes on")
    if lower.endswith((".csv", ".tsv", ".parquet")):
        _used("a table", given, "columns")
        return table(path, storage, columns)
    if ".tar" in lower or lower.endswith(".tgz") or path.startswith("pipe:") or _only_tars(path, storage):
        _used("tar shards", given, "label")
        return TarSource(shards(path, storage), storage, label)
    _used("a folder of images", given, "allow_empty")
    return folder(path, storage, allow_empty)


def _only_tars(path: str, storage: Storage) -> bool:
    """Whether a folder holds tar shards and no folders."""
    if not storage.is_local(path):
        inside = storage.system(path)[1]
        names = [name.removeprefix(inside).lstrip("/") for name in storage.find(path)]
        return any(n.endswith(".tar") for n in names) and not any("/" in n for n in names)
    place = os.path.expanduser(plain(path))
    if not os.path.isdir(place):
        return False
    entries = list(os.scandir(place))
    return any(e.name.endswith(".tar") for e in entries) and not any(e.is_dir() for e in entries)


def _plain_folder(what: Any) -> bool:
    """Whether something is torchvision's ImageFolder and would hand out its files unchanged."""
    kind = type(what)
    if kind.__name__ != "ImageFolder" or not kind.__module__.startswith("torchvision."):
        return False
    return (
        what.transform is None
        and what.target_transform is None
        and getattr(what.loader, "__name__", "") == "default_loader"
    )
