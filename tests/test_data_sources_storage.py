"""Loading: reads that stall, fail and come cut off are tried again, given up in words, and never hang; what was read is
kept."""

import errno
import os
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import children
import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from gpuaug.data import storage as module
from gpuaug.data.sources import as_source
from gpuaug.data.storage import Span, Storage, Unreadable

BYTES = {f"/troubled/{k}.jpg": bytes([k]) * (1000 + k) for k in range(40)}


class Answer(Exception):
    """An error as packages for HTTP raise it."""

    def __init__(self, status):
        super().__init__(f"the server says {status}")
        self.status = status


class Botocore(Exception):
    """An error as botocore raises it."""

    response = {"ResponseMetadata": {"HTTPStatusCode": 503}}


class Troubled(MemoryFileSystem):
    """A file system in memory that does what it is told the first times that a path is read: an exception is raised, a
    number is a pause, "short" cuts off."""

    cachable = False
    protocol = "troubled"

    def __init__(self, trouble=None):
        super().__init__()
        self.trouble, self.asked, self.ranges, self.release = trouble or {}, Counter(), [], threading.Event()
        self.lock = threading.Lock()

    def cat_file(self, path, start=None, end=None, **more):
        with self.lock:
            k = self.asked[path]
            self.asked[path] += 1
            self.ranges.append((path, start, end))
        plan = self.trouble.get(path, [])
        what = plan[min(k, len(plan) - 1)] if plan and (k < len(plan) or plan[-1] == "always") else None
        what = plan[-2] if what == "always" else what
        if isinstance(what, Exception):
            raise what
        if isinstance(what, float):
            self.release.wait(what)
        data = BYTES[path][start:end] if path in BYTES else super().cat_file(path, start, end)
        return data[: len(data) // 2] if what == "short" else data


def read(trouble, paths=tuple(BYTES), **options):
    system = Troubled(trouble)
    reading = Storage(filesystem=system, **{"timeout": 0.4, "retries": 3, "reads_in_flight": 8, **options})
    began = time.monotonic()
    try:
        results = reading.read([Span(path, 0, len(BYTES[path])) for path in paths])
    finally:
        system.release.set()
    return results, system, reading, time.monotonic() - began


def test_reads_run_side_by_side():
    results, system, reading, took = read({path: [0.2] for path in BYTES}, reads_in_flight=20)
    assert results == list(BYTES.values()) and took < 3.0, f"40 reads of 0.2 s took {took:.1f} s"
    assert (
        sum(system.asked.values()) == 40
        and reading.bytes_read == sum(map(len, BYTES.values()))
        and reading.requests == 40
    )
    reading.close()


@pytest.mark.parametrize(
    "passing",
    [
        Answer(503),
        Answer(429),
        Answer(500),
        OSError(errno.EIO, "broken"),
        TimeoutError("slow"),
        ConnectionResetError("gone"),
        Botocore(),
    ],
)
def test_an_error_that_passes_is_tried_again(passing):
    path = next(iter(BYTES))
    kind = type(passing).__name__
    if kind == "Botocore":
        assert module.answer(passing) == 503
    results, system, reading, _ = read({path: [passing, passing]})
    assert results == list(BYTES.values()) and system.asked[path] == 3 and reading.tried_again == 2


@pytest.mark.parametrize(
    "lasting",
    [
        FileNotFoundError("x"),
        PermissionError(errno.EACCES, "Permission denied"),
        Answer(404),
        Answer(403),
        ValueError("odd"),
    ],
)
def test_an_error_that_stays_is_not_tried_again(lasting):
    path = next(iter(BYTES))
    results, system, _, _ = read({path: [lasting, "always"]})
    assert isinstance(results[0], Unreadable) and results[1:] == list(BYTES.values())[1:]
    assert system.asked[path] == 1 and str(results[0])


def test_a_read_that_is_cut_off_is_tried_again_and_then_given_up_in_words():
    first, second, *_ = BYTES
    results, system, _, _ = read({first: ["short"], second: ["short", "always"]}, paths=(first, second))
    assert results[0] == BYTES[first] and system.asked[first] == 2
    assert (
        isinstance(results[1], Unreadable) and "got 500 of 1001 bytes" in str(results[1]) and system.asked[second] == 4
    )


def test_a_read_that_stalls_is_done_again_by_another_thread():
    first = next(iter(BYTES))
    results, system, _, took = read({first: [60.0]})
    assert results == list(BYTES.values()) and system.asked[first] == 2 and took < 5.0


def test_a_file_system_that_stalls_for_ever_is_given_up_in_words():
    results, _, _, took = read({path: [60.0, "always"] for path in BYTES}, reads_in_flight=4, retries=1, timeout=0.2)
    assert all("no answer within 0.2 s, 2 times" in str(r) for r in results) and took < 15.0, f"{took:.1f} s"
    results, _, _, took = read({path: [60.0, "always"] for path in list(BYTES)[:3]}, retries=1)
    assert [isinstance(r, Unreadable) for r in results] == [True] * 3 + [False] * 37, (
        "others wait for those that are stuck"
    )


@pytest.mark.parametrize(
    ("call", "what", "limit"), [("find", "/here", 20), ("glob", "/here/*.tar", 20), ("info", "/here/{a,b}.tar", 1)]
)
def test_a_file_system_that_stalls_while_a_source_is_made_is_given_up_in_words(monkeypatch, call, what, limit):
    release, before = threading.Event(), set(threading.enumerate())
    monkeypatch.setattr(Troubled, call, lambda *given, **more: release.wait(20))
    reading = Storage(filesystem=Troubled(), timeout=0.02, retries=1)
    try:
        with pytest.raises(ValueError, match=f"can't be opened: no answer within {0.02 * limit:g} s"):
            as_source(what, reading)
    finally:
        release.set()
    assert ended(before), "a thread outlives the listing"


def test_files_are_read_whole_where_a_listing_does_not_say_how_long_they_are(monkeypatch):
    """As a web server's, which is a page of links."""
    listing = {f"/here/{c}/{k}.jpg": {"size": None} for c in "ab" for k in (1, 2)}
    monkeypatch.setattr(Troubled, "find", lambda *given, **more: listing)
    monkeypatch.setattr(Troubled, "cat_file", lambda self, path, start=None, end=None: path.encode()[start:end])
    with as_source("/here", Storage(filesystem=Troubled())) as source:
        assert list(map(bytes, source.read([3, 0]))) == [b"/here/b/2.jpg", b"/here/a/1.jpg"]


def test_a_server_that_can_not_give_parts_of_files_is_said_in_words(monkeypatch):
    monkeypatch.setattr(Troubled, "info", lambda *given, **more: {"size": None})
    with pytest.raises(ValueError, match=r"/here/a\.tar can't be read in parts: its server does not say how long"):
        as_source("/here/a.tar", Storage(filesystem=Troubled()))
    path = next(iter(BYTES))
    monkeypatch.setattr(
        Troubled, "cat_file", lambda self, path, start=None, end=None: self.ranges.append(0) or b"12345"
    )
    system = Troubled()
    (result,) = Storage(filesystem=system).read([Span(path, 1, 3)])
    assert isinstance(result, Unreadable) and "5 bytes where 3 were asked for" in str(result)
    assert len(system.ranges) == 1, "tried again, to the same end"


def test_a_server_that_can_not_be_reached_is_not_called_a_missing_file(monkeypatch):
    """fsspec raises the one from the other where it asks for a file's length."""

    def info(self, path, **more):
        self.asked[path] += 1
        raise FileNotFoundError(path) from ConnectionRefusedError(errno.ECONNREFUSED, "connection refused")

    monkeypatch.setattr(Troubled, "info", info)
    system = Troubled()
    with pytest.raises(ValueError, match="can't be opened: connection refused"):
        as_source("/here/a.tar", Storage(filesystem=system, retries=1))
    assert system.asked["/here/a.tar"] == 2


def test_a_server_that_is_down_gets_pauses_that_grow(monkeypatch):
    pauses = []
    monkeypatch.setattr(
        threading.Event,
        "wait",
        lambda self, t=None, wait=threading.Event.wait: pauses.append(t) if t and t < 9 and t != 0.1 else wait(self, t),
    )
    path = next(iter(BYTES))
    results, _, _, _ = read({path: [Answer(503), "always"]}, paths=(path,), timeout=40.0)
    assert "the server says 503" in str(results[0])
    assert (
        len(pauses) == 3
        and pauses[1] == pytest.approx(2 * pauses[0])
        and pauses[2] == pytest.approx(4 * pauses[0])
        and 0.05 < pauses[0] < 0.2
    )


def begun(before: set[threading.Thread]) -> set[threading.Thread]:
    """Threads that were not there; those of other tests may end meanwhile."""
    return set(threading.enumerate()) - before


def ended(before: set[threading.Thread]) -> bool:
    deadline = time.monotonic() + 5
    while begun(before) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not begun(before)


def test_threads_end_with_the_source_and_a_stuck_one_does_not_hold_the_process():
    before = set(threading.enumerate())
    _, _, reading, _ = read({})
    assert begun(before)
    reading.close()
    assert ended(before)
    _, _, reading, _ = read({})
    del reading
    assert ended(before), "a source that nobody holds any more kept its threads"
    code = """if True:
        import time
        from gpuaug.data.storage import Span, Storage
        from fsspec.implementations.memory import MemoryFileSystem
        class Stuck(MemoryFileSystem):
            cachable = False
            def cat_file(self, path, start=None, end=None, **more):
                time.sleep(600)
        print(Storage(filesystem=Stuck(), timeout=0.2, retries=0).read([Span("/a")])[0])
    """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = children.run([sys.executable, "-c", code], timeout=60, env=env)
    assert done.returncode == 0 and "no answer within 0.2 s" in done.stdout, done.stderr


def test_a_local_disk_that_stalls_or_vanishes_is_said_in_words(tmp_path, monkeypatch):
    for k in range(40):
        (tmp_path / f"{k}.jpg").write_bytes(bytes([k]) * 100)
    # a pipe that nobody writes to is a file whose disk does not answer
    stuck = tmp_path / "7.jpg"
    stuck.unlink()
    os.mkfifo(stuck)
    paths = [str(tmp_path / f"{k}.jpg") for k in range(40)]
    source = as_source(paths, Storage(timeout=0.3))
    items = source.read(range(40))
    assert [k for k, item in enumerate(items) if isinstance(item, Unreadable)] == [
        7
    ] and "no answer within 0.3 s" in str(items[7])
    assert [bytes(item) for k, item in enumerate(items) if k != 7] == [bytes([k]) * 100 for k in range(40) if k != 7]
    # those that wait for it come back, once as part of a batch and once alone
    for _ in range(2):
        with suppress(OSError):
            os.close(os.open(stuck, os.O_WRONLY | os.O_NONBLOCK))
        time.sleep(0.05)
    source = as_source(paths)
    stuck.unlink()
    monkeypatch.setattr(module, "local", lambda span: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    items = source.read(range(40))
    assert str(items[7]) == "Input/output error" and [bytes(item) for item in items[8:]] == [
        bytes([k]) * 100 for k in range(8, 40)
    ]
    assert {str(item) for item in source.read(range(7))} == {"Input/output error"}
    monkeypatch.undo()
    for path in tmp_path.iterdir():
        path.unlink()
    assert {str(item) for item in source.read(range(40))} == {"no such file"}


def test_parts_of_local_files_are_read_by_position(tmp_path):
    (tmp_path / "x").write_bytes(bytes(range(256)))
    reading = Storage()
    parts = reading.read(
        [
            Span(str(tmp_path / "x"), 10, 5),
            Span(f"file://{tmp_path / 'x'}"),
            Span(str(tmp_path / "x"), 250, None),
            Span(str(tmp_path / "x"), 250, 20),
        ]
    )
    assert [bytes(p) for p in parts[:3]] == [bytes(range(10, 15)), bytes(range(256)), bytes(range(250, 256))]
    assert "got 6 of 20 bytes from 250 on" in str(parts[3])


# ---- kept on a local disk


def test_what_was_fetched_is_kept_and_not_asked_for_again(tmp_path):
    results, _, _, _ = read({}, cache_dir=tmp_path)
    assert results == list(BYTES.values())
    again = Storage(filesystem=(second := Troubled()), cache_dir=tmp_path)
    assert [bytes(r) for r in again.read([Span(path, 0, len(data)) for path, data in BYTES.items()])] == list(
        BYTES.values()
    )
    assert not second.asked, "a file was fetched twice"
    assert not list(tmp_path.rglob("*.part")) and f"kept in {tmp_path}" in again.describe()


def test_parts_of_a_large_file_are_kept_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 1000)
    data = bytes(k * 7 % 251 for k in range(4500))
    monkeypatch.setitem(BYTES, "/troubled/large.tar", data)
    system = Troubled()
    reading = Storage(filesystem=system, cache_dir=tmp_path)
    spans = [
        Span("/troubled/large.tar", *part) for part in ((0, 10), (990, 20), (1500, 2500), (4400, 100), (4400, 200))
    ]
    parts = reading.read(spans)
    assert [bytes(p) for p in parts[:4]] == [
        data[s.start : s.start + s.size] for s in spans[:4]
    ] and "got 100 of 200" in str(parts[4])
    assert all(start % 1000 == 0 and end - start == 1000 for _, start, end in system.ranges)
    asked = len(system.ranges)
    assert [bytes(p) for p in reading.read(spans[:4])] == [bytes(p) for p in parts[:4]] and len(system.ranges) == asked


def test_a_kept_file_that_is_damaged_is_fetched_again(tmp_path):
    path = next(iter(BYTES))
    read({}, paths=(path,), cache_dir=tmp_path)
    (kept,) = (p for p in tmp_path.rglob("*") if p.is_file())
    for damage in (b"", kept.read_bytes()[:-1], b"x" + kept.read_bytes()[1:]):
        kept.write_bytes(damage)
        results, system, _, _ = read({}, paths=(path,), cache_dir=tmp_path)
        assert bytes(results[0]) == BYTES[path] and system.asked[path] == 1, damage[:3]


def test_the_kept_files_are_bounded_and_the_description_says_so(tmp_path):
    results, _, reading, _ = read({}, cache_dir=tmp_path, cache_bytes=5000)
    assert results == list(BYTES.values())
    assert 3000 < sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) < 5100
    assert "full at" in reading.describe()


# ---- arguments


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(reads_in_flight=0), "reads_in_flight must be >= 1, got 0"),
        (dict(reads_in_flight="4"), "reads_in_flight must be an integer, got '4'"),
        (dict(timeout=0), "timeout must be above 0, got 0"),
        (dict(timeout=-1.0), "timeout must be .* got -1"),
        (dict(timeout=None), "timeout must be a number, got None"),
        (dict(retries=-1), "retries must be >= 0, got -1"),
        (dict(retries=1.5), "retries must be an integer, got 1.5"),
        (dict(cache_bytes=5), "cache_bytes=5 is for cache_dir"),
        (dict(cache_bytes=0, cache_dir="."), "cache_bytes must be >= 1, got 0"),
        (dict(cache_dir=__file__), "cache_dir must be a folder that can be made, got .*: File exists"),
        (dict(filesystem="s3"), "filesystem must be one of fsspec.* got str"),
    ],
)
def test_bad_arguments_of_a_storage_are_said_in_words(options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        Storage(**options)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ValueError, match="read through fsspec, which is not installed; pip install fsspec"):
        as_source("s3://bucket/train")


def test_what_is_not_local_is_not_read_after_a_fork():
    fsspec.filesystem("memory").pipe("/fork/1.jpg", b"x" * 10)
    source = as_source("memory://fork")
    source._storage._pid -= 1
    with pytest.raises(RuntimeError, match="after a fork"):
        source.read([0])
    near = as_source([str(Path(__file__))])
    near.read([0])
    near._storage._pid -= 1
    assert bytes(near.read([0])[0]).startswith(b'"""Loading')
