"""Bytes from where they are: local files by positioned reads, all else through fsspec; many at a time, with time
limits, new tries, and copies on a disk.

Nothing here raises for a file: what can't be read is an `Unreadable` in its place, so that one file does not fail the
batch around it."""

import errno
import os
import weakref
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from threading import Event, Lock
from typing import Any, NamedTuple

import numpy as np

from gpuaug import arguments
from gpuaug.data import files
from gpuaug.data.files import Ints
from gpuaug.data.headers import Encoded
from gpuaug.data.reads import Reads, Stalled

# with cache_dir, ranges of a large file are fetched and kept in pieces of this size, which begin at its multiples
BLOCK = 8 << 20
# reads side by side where nothing is said: a local disk is slowed by more, an object store answers one in 80 ms
LOCAL, REMOTE = 4, 32
# a listing is many requests, which may take as many times the time of one
LISTING = 20
# seconds that closing waits for threads that may be stuck
_PATIENCE = 1.0
# local files that a thread reads in turn before it takes the next
CHUNK = 16
# answers of a server that another try may change
PASSING = {408, 425, 429, 500, 502, 503, 504}
PACKAGES = ("aiohttp", "botocore", "urllib3", "requests", "httpx", "google", "azure", "gcsfs", "s3fs")
GONE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


class Unreadable(OSError):
    """Why a sample's bytes are not there.  A value in a list rather than raised."""


class Span(NamedTuple):
    """Part of a file: `size` bytes from `start` on; None: all that there are."""

    path: str
    start: int = 0
    size: int | None = None


class Storage:
    """Where files are read from.  May be used from several threads at once.

    reads_in_flight: how many reads run side by side; 4 on a local disk, 32 elsewhere.  timeout: seconds until a read
    that has not answered is given up and tried again.  retries: further tries after a time-out or an error that may
    pass, such as 503, with pauses of 0.1 s, 0.2 s, 0.4 s and so on. cache_dir: a folder on a local disk where
    everything that was fetched is kept, up to `cache_bytes` of it (as one process counts). filesystem: an fsspec file
    system for all paths; without it a path says its own (s3://, gs://, memory://), or is local."""

    def __init__(
        self,
        *,
        reads_in_flight: int | None = None,
        timeout: float = 30.0,
        retries: int = 5,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_bytes: int | None = None,
        filesystem: Any = None,
    ):
        if reads_in_flight is not None:
            reads_in_flight = arguments.integer("reads_in_flight", reads_in_flight, 1)
        timeout = arguments.number("timeout", timeout, 0.0)
        if not timeout:
            raise ValueError("timeout must be above 0, got 0; reads need some seconds")
        retries = arguments.integer("retries", retries, 0)
        if cache_bytes is not None:
            cache_bytes = arguments.integer("cache_bytes", cache_bytes, 1)
            if cache_dir is None:
                raise ValueError(f"cache_bytes={cache_bytes} is for cache_dir, which is None; pass both, or neither")
        if filesystem is not None and not hasattr(filesystem, "cat_file"):
            raise TypeError(
                f"filesystem must be one of fsspec, such as fsspec.filesystem('s3'), got {type(filesystem).__name__}"
            )
        self.timeout, self.retries, self._count = timeout, retries, reads_in_flight
        self._options = dict(
            reads_in_flight=reads_in_flight,
            timeout=timeout,
            retries=retries,
            cache_dir=cache_dir,
            cache_bytes=cache_bytes,
            filesystem=filesystem,
        )
        self._filesystem, self._systems = filesystem, dict[str, Any]()
        self._cache = None if cache_dir is None else Cache(Path(cache_dir).expanduser().absolute(), cache_bytes)
        self._pools, self._lock, self._pid, self._closed = dict[bool, Reads](), Lock(), os.getpid(), Event()
        # the threads of a source that nobody holds any more end as if it had been closed
        weakref.finalize(self, _end, self._pools)
        self.bytes_read = self.requests = self.tried_again = 0

    def __reduce__(self) -> Any:
        # another process gets one of its own: threads, connections and counts are not sent
        return _storage, (self._options,)

    # ---- which file system

    def is_local(self, path: str) -> bool:
        """Whether a path is a plain file of this machine."""
        return self._filesystem is None and ("://" not in path or path.startswith(("file://", "local://")))

    def system(self, path: str) -> tuple[Any, str]:
        """fsspec's file system for a path, and the path in it."""
        if self._filesystem is not None:
            return self._filesystem, self._filesystem._strip_protocol(path)
        try:
            import fsspec
        except ImportError:
            raise ValueError(
                f"{path} is read through fsspec, which is not installed; pip install fsspec, and the package of "
                "its kind, such as s3fs"
            ) from None
        protocol = path.split("://")[0]
        if protocol not in self._systems:
            try:
                self._systems[protocol] = fsspec.core.url_to_fs(path)[0]
            except (ImportError, ValueError) as error:
                raise ValueError(f"{path} can't be opened: {error}") from None
        return self._systems[protocol], self._systems[protocol]._strip_protocol(path)

    # ---- looking

    def find(self, root: str) -> dict[str, int | None]:
        """Every file under a folder that is not local: path -> size, None where the listing does not say it.  In no
        order."""
        system, inside = self.system(root)
        found = self._again(lambda: system.find(inside, detail=True), root, LISTING)
        return {path: None if info.get("size") is None else int(info["size"]) for path, info in found.items()}

    def stat(self, path: str) -> tuple[int, str]:
        """Size, and a mark that changes when the file does."""
        if self.is_local(path):
            info = os.stat(plain(path))
            return info.st_size, str(info.st_mtime_ns)
        system, inside = self.system(path)
        info = self._again(lambda: system.info(inside), path)
        if info.get("size") is None:
            raise ValueError(f"{path} can't be read in parts: its server does not say how long it is")
        return int(info["size"]), str(
            info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("created") or ""
        )

    def glob(self, pattern: str) -> list[str]:
        """Files that a pattern means, sorted, as paths that `read` takes."""
        system, inside = self.system(pattern)
        found = self._again(lambda: system.glob(inside), pattern, LISTING)
        return sorted(found if self._filesystem is not None else (system.unstrip_protocol(p) for p in found))

    def _again(self, work: Callable[[], Any], path: str, requests: int = 1) -> Any:
        """Something asked once and not by the thousand: tried again until it comes or an error says that it won't.
        requests: that it may take, each of which has its time"""

        def tried(slot: int, alive: Callable[[bool], None]) -> Any:
            return self._tried(work, path, alive)

        # of its own, so that no thread of it is left
        reads = Reads(1)
        try:
            # a listing that has taken so long is not begun anew
            ((_, found),) = reads.run([[0]], tried, self.timeout * requests, self.retries if requests == 1 else 0)
        finally:
            reads.close()
        if isinstance(found, Stalled):
            raise ValueError(f"{path} can't be opened: no answer within {self.timeout * requests:g} s")
        if isinstance(found, Exception):
            raise ValueError(f"{path} can't be opened: {reason(found)}") from found
        return found

    def _tried(self, work: Callable[[], Any], path: str, alive: Callable[[bool], None], near: bool = False) -> Any:
        for attempt in range(self.retries + 1):
            alive(True)
            try:
                return work()
            except Exception as error:
                if attempt == self.retries or not passing(error, near):
                    raise
                # a pause is no stall
                alive(False)
                self._pause(attempt, path)
        raise AssertionError

    # ---- reading

    def read(self, spans: Sequence[Span]) -> list[Encoded | Unreadable]:
        """Bytes of each, or why there are none.  Local ones are read in turn by a few threads, others each for
        themselves."""
        if self._closed.is_set():
            raise RuntimeError("this source is closed; open another")
        if self._pid != os.getpid() and not all(self.is_local(s.path) for s in spans):
            raise RuntimeError(
                "fsspec's file systems can't be used after a fork; open the source in the process that reads it"
            )
        results: list[Any] = [None] * len(spans)
        local = [i for i, s in enumerate(spans) if self.is_local(s.path)]
        here = set(local)
        if len(local) > 2 * (self._count or LOCAL):
            local = self._in_turn(spans, local, results)
        groups = [[i] for i in local]
        for near, lists in ((True, groups), (False, [[i] for i in range(len(spans)) if i not in here])):
            if lists:
                work = partial(self._one, spans, near)
                for i, result in self._pool(near).run(lists, work, self.timeout, 0 if near else self.retries):
                    results[i] = self._words(spans[i], result)
        read = [len(r) for r in results if not isinstance(r, Exception)]
        with self._lock:
            self.bytes_read, self.requests = self.bytes_read + sum(read), self.requests + len(read)
        return results

    def read_all(self, paths: files.Paths, ids: Ints, path: Callable[[int], str]) -> files.Files:
        """Whole local files.  path: of an id, which is asked where a file is not read at the first try"""
        if self._closed.is_set():
            raise RuntimeError("this source is closed; open another")
        files.load()
        share = max(CHUNK, -(-len(ids) // (self._count or LOCAL)))
        chunks = [ids[k : k + share] for k in range(0, len(ids), share)]
        addresses, sizes = np.zeros(len(ids), np.int64), np.full(len(ids), -1, np.int64)
        parts: list[tuple[int, Any]] = [(c * share, files.NOTHING) for c in range(len(chunks))]

        def work(c: int, alive: Callable[[bool], None]) -> files.Part:
            return files.read(paths, chunks[c], alive)

        for c, found in self._pool(True).run([[c] for c in range(len(chunks))], work, self.timeout, 0):
            if isinstance(found, Exception) and not isinstance(found, OSError | MemoryError):
                raise found
            if isinstance(found, files.Part):
                here = slice(c * share, c * share + len(chunks[c]))
                parts[c] = here.start, found.memory
                addresses[here], sizes[here] = found.memory.ctypes.data + found.begins, found.sizes
        odd = np.flatnonzero(sizes < 0)
        addresses[odd], sizes[odd] = 0, 0
        with self._lock:
            self.bytes_read, self.requests = self.bytes_read + int(sizes.sum()), self.requests + len(ids) - len(odd)
        # once more, each for itself, which finds the words
        again = self.read([Span(path(int(ids[i]))) for i in odd]) if odd.size else []
        return files.Files(addresses, sizes, parts, dict(zip(odd.tolist(), again, strict=True)))

    def _in_turn(self, spans: Sequence[Span], slots: list[int], results: list[Any]) -> list[int]:
        """Read local files some at a time, which costs Python less; gives those that are to be read each for
        itself, because something was wrong."""
        chunks = [slots[k : k + CHUNK] for k in range(0, len(slots), CHUNK)]

        def work(c: int, alive: Callable[[bool], None]) -> list[Encoded | None]:
            found: list[Encoded | None] = []
            for i in chunks[c]:
                # the time that is measured is that of one file
                alive(True)
                try:
                    found.append(local(spans[i]))
                except Exception:
                    found.append(None)
            return found

        for c, found in self._pool(True).run([[c] for c in range(len(chunks))], work, self.timeout, 0):
            if isinstance(found, list):
                for i, data in zip(chunks[c], found, strict=True):
                    results[i] = data
        return [i for i in slots if results[i] is None]

    def _words(self, span: Span, result: Any) -> Encoded | Unreadable:
        if not isinstance(result, BaseException):
            return result  # type: ignore[no-any-return]
        if isinstance(result, Stalled):
            tries = "" if self.is_local(span.path) else f", {self.retries + 1} times"
            return Unreadable(f"no answer within {self.timeout:g} s{tries}")
        return Unreadable(reason(result))

    def _pool(self, near: bool) -> Reads:
        with self._lock:
            if self._pid != os.getpid():
                # threads do not survive a fork
                self._pools.clear()
                self._pid = os.getpid()
            if near not in self._pools:
                self._pools[near] = Reads(self._count or (LOCAL if near else REMOTE))
            return self._pools[near]

    def _one(self, spans: Sequence[Span], near: bool, i: int, alive: Callable[[bool], None]) -> Encoded:
        """One span, tried until it comes or an error says that it won't."""
        span = spans[i]
        found: Encoded = self._tried(lambda: local(span) if near else self._fetch(span), span.path, alive, near)
        return found

    def _pause(self, attempt: int, path: str) -> None:
        self.tried_again += 1
        # a little different for every file, so that those that failed together don't come back together
        self._closed.wait(min(0.1 * 2**attempt, 10.0) * (0.75 + zlib.crc32(path.encode()) % 512 / 1024))
        if self._closed.is_set():
            raise Unreadable("the source was closed")

    def _fetch(self, span: Span) -> Encoded:
        if self._cache is None:
            return self._remote(span)
        if span.size is None:
            return self._kept(span)
        end, pieces = span.start + span.size, []
        for at in range(span.start - span.start % BLOCK, end, BLOCK):
            block = memoryview(self._kept(Span(span.path, at, BLOCK)))
            pieces.append(block[max(span.start - at, 0) : end - at])
        return complete(pieces[0] if len(pieces) == 1 else b"".join(pieces), span)

    def _kept(self, span: Span) -> Encoded:
        """A whole file, or a block, from the cache or into it."""
        assert self._cache is not None
        data = self._cache.get(span)
        if data is None:
            data = self._remote(span, short=span.size is not None)
            self._cache.put(span, data)
        return data

    def _remote(self, span: Span, short: bool = False) -> Encoded:
        system, inside = self.system(span.path)
        if span.size is None:
            return system.cat_file(inside)  # type: ignore[no-any-return]
        data = system.cat_file(inside, start=span.start, end=span.start + span.size)
        return data if short else complete(data, span)

    def close(self) -> None:
        """End the threads.  One that is stalled in a read ends when that does."""
        self._closed.set()
        with self._lock:
            _end(self._pools, _PATIENCE)

    def describe(self) -> str:
        """How reads are made, in one line."""
        kept = "" if self._cache is None else f", {self._cache.describe()}"
        count = str(self._count) if self._count else f"{LOCAL} on a local disk, {REMOTE} elsewhere"
        return f"reads in flight: {count}; given up after {self.timeout:g} s, {self.retries} further tries{kept}"


def _storage(options: dict[str, Any]) -> Storage:
    return Storage(**options)


def _end(pools: dict[bool, Reads], patience: float = 0.0) -> None:
    while pools:
        pools.popitem()[1].close(patience)


class Truncated(OSError):
    """A read that gave less than was asked for."""


def complete(data: Encoded, span: Span) -> Encoded:
    """The bytes, if all are there and no more."""
    if span.size is not None and len(data) > span.size:
        raise ValueError(
            f"got {len(data)} bytes where {span.size} were asked for, from {span.start} on: the file has changed, or "
            "its server can't give parts of files"
        )
    if span.size is not None and len(data) != span.size:
        raise Truncated(f"got {len(data)} of {span.size} bytes from {span.start} on")
    return data


def plain(path: str) -> str:
    """A local path without its protocol."""
    return path.split("://", 1)[1] if path.startswith(("file://", "local://")) else path


def local(span: Span) -> memoryview:
    """Part of a local file, by positioned reads, so that nothing is shared between threads."""
    # the system's calls themselves: a file object takes longer than they do
    file = os.open(plain(span.path), os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    try:
        size = os.fstat(file).st_size - span.start if span.size is None else span.size
        data = np.empty(max(size, 0), np.uint8)
        got = read_at(file, data, span.start)
    finally:
        os.close(file)
    if got < size:
        raise Truncated(f"got {got} of {size} bytes from {span.start} on")
    return data.data


def read_at(file: int, data: np.ndarray[Any, Any], start: int) -> int:
    """Fill an array from a place of a file on; gives the bytes that there were."""
    got = 0
    while got < len(data):
        more = _preadv(file, data[got:] if got else data, start + got)
        if not more:
            break
        got += more
    return got


def _preadv(file: int, data: np.ndarray[Any, Any], at: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(file, [data.data], at)
    # Windows has no positioned read; the file is this call's alone
    os.lseek(file, at, os.SEEK_SET)
    found = os.read(file, len(data))
    data[: len(found)] = np.frombuffer(found, np.uint8)
    return len(found)


def passing(error: BaseException, near: bool = False) -> bool:
    """Whether another try may do better."""
    if isinstance(error, GONE):
        # some say so of a server that can't be reached
        return error.__cause__ is not None and passing(error.__cause__, near)
    if near:
        return isinstance(error, OSError) and error.errno in (errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT, errno.EINTR)
    status = answer(error)
    if status is not None:
        return status in PASSING
    return isinstance(error, (OSError, EOFError)) or type(error).__module__.split(".")[0] in PACKAGES


def answer(error: BaseException) -> int | None:
    """The status of HTTP in an error of one of the many packages."""
    for value in (getattr(error, name, None) for name in ("status", "status_code", "code")):
        if isinstance(value, int) and 100 <= value < 600:
            return value
    response = getattr(error, "response", None)
    status = (
        response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if isinstance(response, dict)
        else getattr(response, "status_code", None)
    )
    return status if isinstance(status, int) else None


def reason(error: BaseException) -> str:
    """In words, in one line."""
    if isinstance(error, FileNotFoundError):
        return "no such file" if error.__cause__ is None else reason(error.__cause__)
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:300] or type(error).__name__


class Cache:
    """Fetched files and blocks in a folder, each with its length and a checksum at its end; a file appears whole or not
    at all."""

    def __init__(self, folder: Path, limit: int | None):
        self.folder, self.limit, self.full, self._lock = folder, limit, "", Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"cache_dir must be a folder that can be made, got {folder}: {error.strerror}") from None
        self.held = sum(entry.stat().st_size for entry in folder.glob("??/*")) if limit is not None else 0

    def _place(self, span: Span) -> Path:
        name = blake2b(f"{span.path}\0{span.start}\0{span.size}".encode(), digest_size=16).hexdigest()
        return self.folder / name[:2] / name[2:]

    def get(self, span: Span) -> Encoded | None:
        """What is kept of it; None if nothing is, or what is kept is damaged."""
        try:
            data = memoryview(self._place(span).read_bytes())
        except OSError:
            return None
        body = data[:-4]
        return body if len(data) >= 4 and zlib.crc32(body) == int.from_bytes(data[-4:], "little") else None

    def put(self, span: Span, data: Encoded) -> None:
        """Keep it, if there is room."""
        with self._lock:
            if not self.full and self.limit is not None and self.held + len(data) > self.limit:
                self.full = f"full at {self.held / 1e9:.2f} GB, the rest is read anew"
            if self.full:
                return
            self.held += len(data)
        place = self._place(span)
        part = place.with_name(f"{place.name}.{os.getpid()}.{id(data):x}.part")
        try:
            place.parent.mkdir(exist_ok=True)
            with open(part, "wb") as file:
                file.write(data)
                file.write(zlib.crc32(data).to_bytes(4, "little"))
            os.replace(part, place)
        except OSError as error:
            self.full = f"not written any more: {reason(error)}"
            part.unlink(missing_ok=True)

    def describe(self) -> str:
        """Where it is, and whether it still grows."""
        return f"kept in {self.folder}" + (f" ({self.full})" if self.full else "")
