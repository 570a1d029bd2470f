"""Loading: a batch's local files read by compiled code are what Python reads, whatever they are called and however they
end."""

import os
import resource
import threading
from contextlib import suppress

import numpy as np
import pytest

from gpuaug.data import file_kernels, files
from gpuaug.data.files import Files
from gpuaug.data.sources import as_source
from gpuaug.data.sources_files import MANY
from gpuaug.data.storage import Storage, Unreadable

NAMES = ["a.jpg", "b c.jpg", "ä€😀.jpg", os.fsdecode(b"\xff\xfe.jpg"), "x" * 200 + ".jpg", "-.jpg", "%s.jpg", "\n.jpg"]


def contents(k):
    return np.random.default_rng(k).bytes([0, 1, 63, 64, 65, 4096, 70_001, 3_000_000][k % 8])


@pytest.fixture
def folder(tmp_path):
    for k, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(contents(k))
    return tmp_path


def source_of(folder, names=NAMES, **options):
    return as_source([str(folder / name) for name in names], Storage(**options))


def test_files_of_any_name_and_length_are_read_in_their_order(folder):
    assert len(NAMES) >= MANY, "too few for compiled code"
    source, order = source_of(folder), [5, 0, 7, 7, 1, 2, 3, 4, 6, 0, 5]
    items, targets = source.samples(order)
    assert isinstance(items, Files) and targets is None and not items.others
    assert [bytes(item) for item in items] == [contents(k) for k in order]
    assert items.sizes.tolist() == [len(contents(k)) for k in order] and items.bytes == sum(items.sizes)
    assert [bytes(i) for i in items[2:4]] == [contents(7)] * 2 and bytes(items[-1]) == contents(5)
    read = source.read(order)
    assert isinstance(read, list) and [bytes(item) for item in read] == [contents(k) for k in order]
    assert source.stats()["bytes_read"] == 2 * items.bytes and source.stats()["reads"] == 2 * len(order)


def test_names_below_a_folder_and_paths_of_their_own_are_read_together(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "y.jpg"
    other.write_bytes(b"elsewhere")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "z.jpg").write_bytes(b"deeper")
    rows = [*NAMES, str(other), "deep/er/z.jpg"]
    items, _ = as_source(rows, root=str(folder)).samples(range(len(rows)))
    assert isinstance(items, Files) and not items.others
    assert [bytes(item) for item in items] == [*map(contents, range(len(NAMES))), b"elsewhere", b"deeper"]


def test_files_that_cannot_be_read_are_told_apart_in_words(folder):
    (folder / "folder.jpg").mkdir()
    (folder / "loop.jpg").symlink_to("loop.jpg")
    bad = {
        "gone.jpg": "no such file",
        "folder.jpg": "Is a directory",
        "loop.jpg": "Too many levels of symbolic links",
        "n" * 300 + ".jpg": "File name too long",
        "m/" * 2500 + ".jpg": "File name too long",
        "a.jpg/b.jpg": "Not a directory",
        # Python 3.13 says character where those before it say byte
        "nul\0.jpg": "embedded null",
    }
    items = source_of(folder, [*NAMES, *bad]).read(range(len(NAMES) + len(bad)))
    assert [bytes(item) for item in items[: len(NAMES)]] == [contents(k) for k in range(len(NAMES))]
    for item, words in zip(items[len(NAMES) :], bad.values(), strict=True):
        assert isinstance(item, Unreadable) and words in str(item)


def test_a_process_without_files_left_to_open_says_so_and_goes_on_afterwards(folder):
    source = source_of(folder)
    source.read(range(len(NAMES)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with suppress(OSError):
            while True:
                held.append(os.open(folder, os.O_RDONLY))
        items = source.read(range(len(NAMES)))
    finally:
        for file in held:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert {str(item) for item in items} == {"Too many open files"}
    open_before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert [bytes(item) for item in source.read(range(len(NAMES)))] == [contents(k) for k in range(len(NAMES))]
    assert len(os.listdir("/proc/self/fd")) == open_before, "files stay open"


def test_slow_files_have_a_time_of_their_own_each(folder, monkeypatch):
    """A call of compiled code comes back after a while, so that many slow files are no stall."""
    begun = []
    monkeypatch.setattr(file_kernels, "opened", in_steps(file_kernels.opened))
    monkeypatch.setattr(file_kernels, "filled", in_steps(file_kernels.filled))
    source = source_of(folder)
    part = files.read(source._paths, np.arange(len(NAMES)), begun.append)
    assert begun == [True] * (2 * len(NAMES)), "files are measured together"
    sizes, begins = part.sizes.tolist(), part.begins.tolist()
    assert [bytes(part.memory[b : b + n]) for b, n in zip(begins, sizes, strict=True)] == [
        contents(k) for k in range(len(NAMES))
    ]


def in_steps(kernel):
    """A kernel that stops after each file, as after a slow one."""

    def one(*arguments):
        *first, begin = arguments
        if kernel is file_kernels_opened:
            roots, names, ends, ids, path, opened, sizes = first
            return kernel(roots, names, ends, ids[: begin + 1], path, opened[: begin + 1], sizes[: begin + 1], begin)
        opened, sizes, begins, memory = first
        return kernel(opened[: begin + 1], sizes, begins, memory, begin)

    return one


file_kernels_opened = file_kernels.opened


def test_a_call_of_compiled_code_comes_back_when_its_time_is_over(folder):
    """A pipe takes longer to open than a call may take: the file after it is left to the next call."""
    os.mkfifo(folder / "pipe")
    source = source_of(folder, ["pipe", *NAMES])
    opened, sizes = np.full(len(NAMES) + 1, -1, np.int32), np.zeros(len(NAMES) + 1, np.int64)
    paths, path = source._paths, np.empty(5000, np.uint8)
    files.load()
    late = threading.Timer(1.5 * file_kernels.TURN, lambda: os.close(os.open(folder / "pipe", os.O_WRONLY)))
    late.start()
    try:
        ids = np.arange(len(NAMES) + 1)
        done = file_kernels.opened(paths.root, paths.names, paths.ends, ids, path, opened, sizes, 0)
        assert done == 1 and sizes[0] == -1, "a pipe has no size, and took the time of this call"
        done = file_kernels.opened(paths.root, paths.names, paths.ends, ids, path, opened, sizes, done)
        assert done == len(ids) and sizes[1:].tolist() == [len(contents(k)) for k in range(len(NAMES))]
    finally:
        file_kernels.closed(opened)
        late.join()


def test_a_file_that_shrinks_while_it_is_read_is_read_once_more(folder, monkeypatch):
    source, filled = source_of(folder), file_kernels.filled

    def shrunk(*arguments):
        os.truncate(folder / NAMES[6], 10)
        return filled(*arguments)

    monkeypatch.setattr(file_kernels, "filled", shrunk)
    items = source.read(range(len(NAMES)))
    assert bytes(items[6]) == contents(6)[:10] and bytes(items[7]) == contents(7)


def test_what_is_not_a_fault_of_a_file_is_not_hidden(folder, monkeypatch):
    monkeypatch.setattr(files, "read", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        source_of(folder).read(range(len(NAMES)))
