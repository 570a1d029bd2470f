"""WebDataset's tar shards as a source: indexed once, then read by ranges in any order.

A sample is the members of a tar that follow one another and share a name up to its first dot.  Ids go shard by shard,
as they are given, and in a shard from its beginning to its end."""

import glob
import io
import json
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpuaug.data.annotated import kind_of, known
from gpuaug.data.source import Item, Names, Source, as_labels, as_numbers, checked, digest
from gpuaug.data.storage import Span, Storage, plain

IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm")
# a range holds samples that lie near each other: it ends at 16 MB, or where the next sample is farther than a request
# costs
RANGE, NEAR, FAR = 16 << 20, 64 << 10, 1 << 20
# shards that lie elsewhere are read through once, in pieces of this size, to index them
PIECE = 8 << 20
VERSION = 3

Get = Callable[[int, int], bytes]


class Parsed(Names):
    """Strings in one piece of memory, each of which is JSON."""

    def __getitem__(self, i: Any) -> Any:
        return json.loads(super().__getitem__(i))


class TarSource(Source):
    """Samples of tar shards.

    shards: paths of uncompressed tars.  label: the member that holds a sample's label ("cls"), "json" for all of its
    JSON, such as a dict with boxes, or "json:NAME" for an entry; None: "cls" if there is one, else "label" of the JSON,
    else no labels.  starts: [shards + 1] the first id of each shard, for orders that read shard by shard."""

    def __init__(self, shards: Sequence[str], storage: Storage, label: str | None = None):
        self._shards, self._storage = list(shards), storage
        if not self._shards:
            raise ValueError("there are no shards")
        index = indexed(self._shards, storage, label)
        self._shard, self._offset, self._size = index["shard"], index["offset"], index["size"]
        self._names = Names.of(index["names"].tobytes(), index["ends"])
        self.labels = index.get("labels")
        self.targets = Parsed.of(index["targets"].tobytes(), index["target_ends"]) if "targets" in index else None
        self.classes = tuple(Names.of(index["classes"].tobytes(), index["class_ends"])) if "classes" in index else None
        self.skipped = int(index["skipped"])
        self._shown = _shown(self._shards)
        self.starts = np.searchsorted(self._shard, np.arange(len(self._shards) + 1)).astype(np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def key(self, id: int) -> str:
        (i,) = checked([id], len(self))
        return f"{self._shown[self._shard[i]]}/{self._names[i]}"

    def read(self, ids: Sequence[int]) -> list[Item]:
        wanted = checked(ids, len(self))
        results: list[Any] = [None] * len(wanted)
        ranges = list(self._ranges(wanted))
        alone = []
        for (slots, span), data in zip(ranges, self._storage.read([span for _, span in ranges]), strict=True):
            if isinstance(data, Exception):
                # one bad place in a shard costs the samples that lie there, not all of the range
                alone += slots if len(slots) > 1 else []
                results[slots[0]] = data
                continue
            view = memoryview(data)
            for slot in slots:
                begin = int(self._offset[wanted[slot]]) - span.start
                results[slot] = view[begin : begin + int(self._size[wanted[slot]])]
        if alone:
            for slot, data in zip(alone, self._storage.read([self._span(wanted[slot]) for slot in alone]), strict=True):
                results[slot] = data
        return results

    def _span(self, id: int) -> Span:
        return Span(self._shards[self._shard[id]], int(self._offset[id]), int(self._size[id]))

    def _ranges(self, ids: list[int]) -> Iterator[tuple[list[int], Span]]:
        """Slots that are read together, and where."""
        slots: list[int] = []
        shard, start, end = -1, 0, 0
        for slot in sorted(range(len(ids)), key=lambda s: ids[s]):
            path, offset, size = self._span(ids[slot])
            gap = NEAR if self._storage.is_local(path) else FAR
            near = slots and self._shard[ids[slot]] == shard and offset - end <= gap
            if near and max(offset + size, end) - start <= RANGE:  # type: ignore[operator]
                slots.append(slot)
                end = max(end, offset + size)  # type: ignore[operator]
                continue
            if slots:
                yield slots, Span(self._shards[shard], start, end - start)
            slots, shard, start, end = [slot], int(self._shard[ids[slot]]), offset, offset + size  # type: ignore[operator]
        if slots:
            yield slots, Span(self._shards[shard], start, end - start)

    @cached_property
    def fingerprint(self) -> str:
        return digest(
            "tar",
            self._names.data,
            self._names.ends,
            self._size,
            b"" if self.labels is None else self.labels,
            *(self.classes or ()),
            *((self.targets.data, self.targets.ends) if isinstance(self.targets, Parsed) else ()),
        )

    def describe(self) -> str:
        kind = kind_of(self)
        skipped = f", left out for want of an image: {self.skipped}" if self.skipped else ""
        how = f"neighbours are read in ranges of up to {RANGE >> 20} MB; {self._storage.describe()}"
        return f"{len(self)} samples in {len(self._shards)} tar shards, {kind}{skipped}; {how}"

    def stats(self) -> dict[str, int]:
        return {
            "bytes_read": self._storage.bytes_read,
            "reads": self._storage.requests,
            "tried_again": self._storage.tried_again,
        }

    def close(self) -> None:
        self._storage.close()


# ---- which shards


def _shown(paths: Sequence[str]) -> list[str]:
    """What shards are called: their files' names, with as many folders as it takes for no two to be called the same."""
    parts = [plain(path).split("/") for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        shown = ["/".join(p[-depth:]) for p in parts]
        if len(set(shown)) == len(set(paths)):
            return shown
    return list(paths)


def shards(what: str | Sequence[str], storage: Storage) -> list[str]:
    """Paths of shards: of a list, of braces as in data-{000..127}.tar, of a pattern with *, or of a folder."""
    if not isinstance(what, str):
        return [path for one in what for path in shards(os.fspath(one), storage)]
    if what.startswith("pipe:"):
        raise ValueError(
            f"{what!r} is a command; pass the shards' paths, local or s3://, gs:// and the like, which are read "
            "in any order"
        )
    if re.search(r"\.(tar\.\w+|tgz)$", what):
        raise ValueError(
            f"{what} is compressed, and can't be read in any order; unpack it to a plain .tar: images are "
            "compressed already"
        )
    near, base, rest, found = storage.is_local(what), "", what, list[str]()
    if near:
        # a process that goes to another folder later finds them still
        what = rest = os.path.abspath(os.path.expanduser(plain(what)))
        if os.path.isfile(what):
            return [what]
        # signs in the name of a folder that is there are no pattern
        base, rest = (what, "*.tar") if os.path.isdir(what) else os.path.split(what)
        if not os.path.isdir(base):
            base, rest = "", what
    for path in braces(rest):
        if not path.endswith(".tar"):
            path = f"{path.rstrip('/')}/*.tar"
        if not set("*?[") & set(path):
            found.append(os.path.join(base, path))
        else:
            found += sorted(glob.glob(os.path.join(glob.escape(base), path))) if near else storage.glob(path)
    if not found:
        raise ValueError(f"no tar shards are found at {what}")
    return found


def braces(text: str) -> list[str]:
    """What a shell makes of {a,b} and {000..127}."""
    match = re.search(r"\{([^{}]*)\}", text)
    if match is None:
        return [text]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    if numbers:
        first, last = numbers.groups()
        parts = [str(k).zfill(len(first)) for k in range(int(first), int(last) + 1)]
    else:
        parts = match[1].split(",")
    return [text[: match.start()] + part + rest for part in parts for rest in braces(text[match.end() :])]


# ---- the index


def indexed(paths: Sequence[str], storage: Storage, label: str | None) -> dict[str, np.ndarray[Any, Any]]:
    """The index of shards: as it was kept, or made and kept.  Processes wait for the one that makes it."""
    stats = []
    for path in paths:
        try:
            stats.append(storage.stat(path))
        except OSError as error:
            raise ValueError(f"{path} can't be opened: {error.strerror}") from None
    # a local index lies beside its shards, and moves with them; elsewhere only the whole path says which they are
    names = [os.path.basename(p) if storage.is_local(p) else (p.split("://")[0], storage.system(p)[1]) for p in paths]
    name = f"index-{digest(VERSION, label, *((n, *s) for n, s in zip(names, stats, strict=True)))}.npz"
    for place in _places(paths[0], storage, name):
        found = _kept(place)
        if found is not None:
            return found
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with _alone(place):
                found = _kept(place)
                if found is None:
                    # an unwritable place is found out before the shards are read
                    part = place.with_name(f"{place.name}.{os.getpid()}.part")
                    try:
                        with open(part, "wb") as file:
                            found = _made(paths, [size for size, _ in stats], storage, label)
                            np.savez(file, **found)  # type: ignore[arg-type]
                        os.replace(part, place)
                    finally:
                        part.unlink(missing_ok=True)
            return found
        except PermissionError:
            # a data set that may be read only; the next place is the user's own
            continue
        except OSError as error:
            if error.errno not in (30, 28):
                raise
    # nothing may be written anywhere
    return _made(paths, [size for size, _ in stats], storage, label)


def _kept(place: Path) -> dict[str, np.ndarray[Any, Any]] | None:
    """An index as it was kept; None where there is none, or a damaged one, which a machine may leave that stops."""
    try:
        with place.open("rb") as file, np.load(file) as kept:
            return {k: kept[k] for k in kept.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error):
        return None


def _places(first: str, storage: Storage, name: str) -> Iterator[Path]:
    if storage.is_local(first):
        yield Path(plain(first)).absolute().parent / f".gpuaug-{name}"
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpuaug" / name


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """One process at a time; whoever comes later waits and then finds what the first has made.  A process that dies
    leaves no lock behind."""
    try:
        import fcntl
    except ImportError:
        # without locks two may make the same index, and the later one stays
        yield
        return
    with open(place.with_suffix(".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            # a file system without locks: as above
            pass
        yield


class Sample(NamedTuple):
    """A sample with an image, while the index is made."""

    name: str
    offset: int
    size: int
    label: Any


def _made(
    paths: Sequence[str], totals: Sequence[int], storage: Storage, label: str | None
) -> dict[str, np.ndarray[Any, Any]]:
    with ThreadPoolExecutor(min(8, len(paths)), thread_name_prefix="gpuaug-index") as pool:
        made = list(pool.map(lambda path, total: _shard(path, total, storage, label), paths, totals))
    samples = [s for found, _ in made for s in found]
    if not samples:
        raise ValueError(
            f"no member of {paths[0]} is an image; names ending in {', '.join(IMAGES)} count, after the first dot"
        )
    names = Names([s.name for s in samples])
    index: dict[str, Any] = {
        "shard": np.repeat(np.arange(len(paths), dtype=np.int32), [len(found) for found, _ in made]),
        "offset": np.array([s.offset for s in samples], np.int64),
        "size": np.array([s.size for s in samples], np.int64),
        "names": np.frombuffer(names.data, np.uint8),
        "ends": names.ends,
        "skipped": np.int64(sum(skipped for _, skipped in made)),
    }
    labelled = [s.label is not None for s in samples]
    if any(isinstance(s.label, dict) for s in samples):
        _, targets, classes = known([s.label for s in samples])
        texts = Names(json.dumps(target) for target in targets or ())
        index["targets"], index["target_ends"] = np.frombuffer(texts.data, np.uint8), texts.ends
        _keep(index, classes)
    elif any(labelled):
        if not all(labelled):
            raise ValueError(
                f"{samples[labelled.index(False)].name} has no label, others of {paths[0]} and its like have "
                "one; label= names the member that holds it"
            )
        index["labels"], classes = as_labels([s.label for s in samples])
        _keep(index, classes)
    elif label is not None:
        raise ValueError(f"no sample of {paths[0]} and its like has the label {label!r}")
    return index


def _keep(index: dict[str, Any], classes: tuple[str, ...] | None) -> None:
    if classes:
        packed = Names(classes)
        index["classes"], index["class_ends"] = np.frombuffer(packed.data, np.uint8), packed.ends


def _shard(path: str, total: int, storage: Storage, label: str | None) -> tuple[list[Sample], int]:
    """The samples of one shard, and how many have no image."""
    samples: list[Sample] = []
    found: dict[str, bytes] = {}
    skipped, current, image = 0, None, None
    with _reader(path, total, storage) as get:

        def finish() -> None:
            nonlocal skipped
            if image is not None:
                samples.append(Sample(str(current), *image, _label(found, label, f"{path}: {current}")))
            elif current is not None:
                skipped += 1

        seen = set[str]()
        for name, offset, size in members(get, total, path):
            folder, _, base = name.rpartition("/")
            stem, _, ending = base.partition(".")
            if not ending or base.startswith("._") or re.fullmatch("__.*__", stem):
                # no part of a sample, wherever it stands: a name without an ending, what macOS adds to each file, a
                # note about the shard
                continue
            key, ending = f"{folder}/{stem}" if folder else stem, ending.lower()
            if key != current:
                finish()
                current, image, found, seen = key, None, {}, set()
            if ending in seen:
                raise ValueError(
                    f"{path} holds {name} twice in one sample, so that two samples may have one name; write the shard "
                    "with a name of its own for each"
                )
            seen.add(ending)
            if ending in IMAGES and image is None:
                image = (offset, size)
            elif ending == "json" or ending == (label or "cls"):
                found[ending] = get(offset, size)
        finish()
    return samples, skipped


def _label(found: dict[str, bytes], label: str | None, where: str) -> Any:
    if label is not None and label != "json" and not label.startswith("json:"):
        return _text(found[label]) if label in found else None
    if label is None and "cls" in found:
        return _text(found["cls"])
    if "json" not in found:
        return None
    try:
        value = json.loads(found["json"])
    except ValueError:
        raise ValueError(f"{where}: its JSON can't be read") from None
    if label == "json":
        return value
    return value.get(label.removeprefix("json:") if label else "label") if isinstance(value, dict) else None


def _text(data: bytes) -> Any:
    """What a member says: a number, or a name."""
    return as_numbers([data.decode("utf-8", "replace").strip()])[0]


# ---- tar


@contextmanager
def _reader(path: str, total: int, storage: Storage) -> Iterator[Get]:
    """get(offset, size): small parts of a file, mostly from its beginning to its end."""
    if storage.is_local(path):
        with open(plain(path), "rb", buffering=4096) as file:

            def get(offset: int, size: int) -> bytes:
                file.seek(offset)
                return file.read(size)

            yield get
        return
    held = {"at": 0, "data": b""}

    def far(offset: int, size: int) -> bytes:
        begin = offset - held["at"]  # type: ignore[operator]
        if begin < 0 or begin + size > len(held["data"]):  # type: ignore[arg-type]
            (data,) = storage.read([Span(path, offset, min(max(PIECE, size), total - offset))])
            if isinstance(data, Exception):
                raise ValueError(f"{path} can't be read: {data}")
            held.update(at=offset, data=data)
            begin = 0
        return bytes(held["data"][begin : begin + size])  # type: ignore[index]

    yield far


def members(get: Get, total: int, path: str) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each file in a tar: ustar, with the long names of GNU and of pax."""
    at, name, pax = 0, None, dict[str, str]()
    while at < total:
        head = get(at, min(512, total - at))
        if not any(head):
            break
        if len(head) < 512:
            what = f"is cut off in the middle of a header at {at}" if at else "is not a plain tar: it is too short"
            raise ValueError(f"{path} {what}")
        if _octal(head[148:156]) != sum(head[:148]) + 8 * 0x20 + sum(head[156:]):
            raise ValueError(
                f"{path} is not a plain tar: no header at {at}"
                + ("; it is compressed, unpack it first" if head[:2] == b"\x1f\x8b" else "")
            )
        kind, begin = head[156:157], at + 512
        size = int(pax["size"]) if "size" in pax and kind not in b"xgLK" else _octal(head[124:136])
        if begin + size > total:
            raise ValueError(f"{path} is cut off: its member at {at} ends at {begin + size}, the file at {total}")
        if kind == b"L":
            name = get(begin, size).rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif kind == b"x":
            pax = _pax(get(begin, size))
        elif kind not in (b"g", b"K"):
            if kind in (b"0", b"\0", b"7"):
                prefix = head[345:500] if head[257:262] == b"ustar" and head[257:265] != b"ustar  \0" else b""
                parts = [p.partition(b"\0")[0].decode("utf-8", "surrogateescape") for p in (prefix, head[:100])]
                yield pax.get("path") or name or "/".join(p for p in parts if p), begin, size
            name, pax = None, {}
        at = begin + (size + 511) // 512 * 512


def _octal(field: bytes) -> int:
    """A number of a header: octal digits, or 256 to the power of its place where the first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.split(b"\0")[0].strip()
    return int(digits, 8) if re.fullmatch(rb"[0-7]+", digits) else 0


def _pax(data: bytes) -> dict[str, str]:
    """Records of a pax header: "LENGTH NAME=VALUE" and a line's end, each."""
    records, file = {}, io.BytesIO(data)
    while word := b"".join(iter(lambda: file.read(1).strip(b" ") or b"", b"")):
        if not word.isdigit():
            break
        body = file.read(int(word) - len(word) - 1)
        name, _, value = body.rstrip(b"\n").partition(b"=")
        records[name.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
    return records
