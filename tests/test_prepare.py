"""`gpuaug prepare`: what is written is what was decoded, whatever stopped it on the way, and what is no result is never
taken for one."""

import errno
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import children
import numpy as np
import pyarrow.parquet
import pytest
import torch
from commands import gpuaug, refused, write_gradient
from PIL import Image

import gpuaug as ga
from gpuaug.apps import prepare
from gpuaug.data import as_source, decoding
from gpuaug.data.sources_prepared import PreparedSource

COUNT = 11


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch) -> Path:
    """Eleven pictures of many sizes in two classes; pieces of four, so that there are several."""
    monkeypatch.setattr(decoding, "CHUNK", 4)
    for k in range(COUNT):
        write_gradient(tmp_path / "src" / ("one" if k < 6 else "two") / f"{k:02d}.png", 20 + 3 * k, 41 - 2 * k, 20 * k)
    return tmp_path / "src"


def pixels(source: Path) -> np.ndarray[Any, Any]:
    """What a run without stops makes."""
    out = source.parent / "untouched"
    assert gpuaug("prepare", source, out, "--size", 16, "--on-error", "skip").exit_code == 0
    return np.load(out / "images.npy")


# ---- what is written


@pytest.mark.parametrize("name", ["out", "out.npy"])
def test_images_and_index_are_plain_files(photographs, tmp_path, name):
    result = gpuaug("prepare", photographs, tmp_path / name, "--size", "16x24")
    assert result.exit_code == 0, result.output
    folder = name == "out"
    images = np.load(tmp_path / "out" / "images.npy" if folder else tmp_path / "out.npy")
    table = pyarrow.parquet.read_table(tmp_path / "out" / "index.parquet" if folder else tmp_path / "out.parquet")
    assert images.shape == (COUNT, 16, 24, 3) and images.dtype == np.uint8
    rows = table.to_pylist()
    assert [r["id"] for r in rows] == [r["source_id"] for r in rows] == list(range(COUNT))
    assert [r["path"] for r in rows] == [f"{'one' if k < 6 else 'two'}/{k:02d}.png" for k in range(COUNT)]
    assert [r["label"] for r in rows] == [0] * 6 + [1] * 5
    assert [r["class"] for r in rows] == ["one"] * 6 + ["two"] * 5
    assert [(r["height"], r["width"]) for r in rows] == [(20 + 3 * k, 41 - 2 * k) for k in range(COUNT)]
    # the third channel of each picture is one colour
    assert (images[..., 2] == 20 * np.arange(COUNT)[:, None, None]).all()
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".png", ".npy", ".parquet"}


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_resizing_is_torchvisions(photographs, tmp_path, fit):
    from torchvision.transforms.v2 import functional as F

    assert gpuaug("prepare", photographs, tmp_path / "out", "--size", "16x16", "--fit", fit).exit_code == 0
    images = np.load(tmp_path / "out" / "images.npy")
    for k, path in enumerate(sorted(photographs.rglob("*.png"))):
        with Image.open(path) as image:
            whole = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        if fit == "crop":
            side = min(whole.shape[1:])
            top, left = ((s - side) // 2 for s in whole.shape[1:])
            whole = whole[:, top : top + side, left : left + side]
        wanted = F.resize(whole, [16, 16], antialias=True).permute(1, 2, 0).numpy()
        assert np.abs(images[k].astype(int) - wanted).max() <= 1


def test_what_was_prepared_is_a_source_that_reads_the_same_pixels(photographs, tmp_path):
    gpuaug("prepare", photographs, tmp_path / "out", "--size", 16)
    images = np.load(tmp_path / "out" / "images.npy")
    for path in (tmp_path / "out", tmp_path / "out" / "images.npy"):
        source = as_source(path)
        assert isinstance(source, PreparedSource) and source.classes == ("one", "two") and len(source) == COUNT
        assert (
            source.labels.tolist() == [0] * 6 + [1] * 5
            and source.key(7) == "two/07.png"
            and source.find("one/03.png") == 3
        )
        ids = [3, 4, 5, 0, 10, 10]
        assert all(np.array_equal(item, images[i]) for i, item in zip(ids, source.read(ids), strict=True))
        # neighbours are one read
        assert source.stats()["reads"] == 4 and source.stats()["bytes_read"] == 6 * 16 * 16 * 3
        assert np.array_equal(source.pixels().permute(0, 2, 3, 1), images)
        with pytest.raises(IndexError, match="id 11"):
            source.read([11])
        source.close()
    resident = ga.data.ResidentLoader(tmp_path / "out", None, 4, shuffle=False, device="cpu")
    assert np.array_equal(torch.cat([b.images for b in resident]).permute(0, 2, 3, 1), images[:8])


def test_a_file_that_loses_its_end_while_it_is_read_is_bad_samples(photographs, tmp_path):
    gpuaug("prepare", photographs, tmp_path / "out.npy", "--size", 16)
    source = as_source(tmp_path / "out.npy")
    os.truncate(tmp_path / "out.npy", (tmp_path / "out.npy").stat().st_size - 10)
    first, last = source.read([0, 10])
    assert isinstance(first, torch.Tensor) and isinstance(last, OSError) and "out.npy" in str(last)
    with pytest.raises(ValueError, match="prepare it again"):
        as_source(tmp_path / "out.npy")


def test_it_says_the_disk_it_takes_before_it_starts(photographs, tmp_path):
    out = gpuaug("prepare", photographs, tmp_path / "out", "--size", 100).output
    assert "11 images of 30 kB: 330.0 kB of disk" in out and out.index("of disk") < out.index("decoding")


def test_a_second_run_finds_all_done_and_another_size_is_refused(photographs, tmp_path):
    assert gpuaug("prepare", photographs, tmp_path / "out", "--size", 16).exit_code == 0
    before = (tmp_path / "out" / "images.npy").stat().st_mtime_ns
    again = gpuaug("prepare", photographs, tmp_path / "out", "--size", 16)
    assert again.exit_code == 0 and "prepared already: 11 images" in again.output
    assert (tmp_path / "out" / "images.npy").stat().st_mtime_ns == before
    refused(gpuaug("prepare", photographs, tmp_path / "out", "--size", 17), "another size")
    write_gradient(photographs / "two" / "new.png", 9, 9, 9)
    refused(gpuaug("prepare", photographs, tmp_path / "out", "--size", 16), "other samples")


# ---- bad files


def spoil(source: Path) -> None:
    (source / "one" / "02.png").write_bytes(b"")
    (source / "two" / "07.png").write_bytes((source / "two" / "07.png").read_bytes()[:60])


def test_a_bad_file_stops_it_by_name_and_nothing_is_left_that_looks_whole(photographs, tmp_path):
    whole = pixels(photographs)
    good = (photographs / "two" / "07.png").read_bytes()
    (photographs / "two" / "07.png").write_bytes(b"no image")
    refused(gpuaug("prepare", photographs, tmp_path / "out", "--size", 16), "two/07.png", "--on-error skip")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"images.npy.part", "images.npy.journal"}
    with pytest.raises(ValueError, match="run the same command again"):
        as_source(tmp_path / "out")
    (photographs / "two" / "07.png").write_bytes(good)
    assert gpuaug("prepare", photographs, tmp_path / "out", "--size", 16).exit_code == 0
    assert np.array_equal(np.load(tmp_path / "out" / "images.npy"), whole)


def test_bad_files_are_left_out_named_and_counted_where_that_is_asked(photographs, tmp_path):
    whole = pixels(photographs)
    spoil(photographs)
    result = gpuaug("prepare", photographs, tmp_path / "out", "--size", 16, "--on-error", "skip")
    assert result.exit_code == 0 and "2 left out" in result.output
    assert "one/02.png" in result.output and "two/07.png" in result.output
    images, source = np.load(tmp_path / "out" / "images.npy"), as_source(tmp_path / "out")
    kept = [k for k in range(COUNT) if k not in (2, 7)]
    assert np.array_equal(images, whole[kept]) and source.source_ids.tolist() == kept
    assert source.labels.tolist() == [int(k > 5) for k in kept] and source.key(2) == "one/03.png"


def test_a_folder_without_one_good_image_leaves_nothing(photographs, tmp_path):
    for path in photographs.rglob("*.png"):
        path.write_bytes(b"no image")
    refused(gpuaug("prepare", photographs, tmp_path / "out", "--on-error", "skip"), "not one of 11", "one/00.png")
    assert not (tmp_path / "out").exists()


# ---- stops


class Stopped(Exception):
    pass


@pytest.mark.parametrize("at", range(8))
@pytest.mark.parametrize("torn", [False, True], ids=["between writes", "within a write"])
def test_a_stop_at_any_write_loses_and_doubles_nothing(photographs, tmp_path, monkeypatch, at, torn):
    spoil(photographs)
    whole, out = pixels(photographs), tmp_path / "out"
    sync, left = os.fsync, [at]

    def fsync(number: int) -> None:
        if not left[0]:
            if torn and at < 7:
                # as if the last bytes had not come to the disk; the last write of all is the head of the file
                os.ftruncate(number, max(0, os.fstat(number).st_size - 5))
            raise Stopped
        left[0] -= 1
        sync(number)

    monkeypatch.setattr(os, "fsync", fsync)
    result = gpuaug("prepare", photographs, out, "--size", 16, "--on-error", "skip")
    assert isinstance(result.exception, Stopped), "vacuous: it was not stopped"
    assert not (out / "images.npy").exists()
    monkeypatch.setattr(os, "fsync", sync)
    assert gpuaug("prepare", photographs, out, "--size", 16, "--on-error", "skip").exit_code == 0
    assert np.array_equal(np.load(out / "images.npy"), whole)
    assert as_source(out).source_ids.tolist() == [k for k in range(COUNT) if k not in (2, 7)]
    assert {p.name for p in out.iterdir()} == {"images.npy", "index.parquet"}


def test_a_killed_run_goes_on(photographs, tmp_path):
    whole, out = pixels(photographs), tmp_path / "out"
    slow = (
        "import os, time; sync = os.fsync; os.fsync = lambda n: (sync(n), time.sleep(0.4))\n"
        "from gpuaug.data import decoding; decoding.CHUNK = 4\n"
        "from gpuaug.apps.cli import main; main()"
    )
    process = children.Child(
        [sys.executable, "-c", slow, "prepare", photographs, out, "--size", "16"],
        os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        journal, end = out / "images.npy.journal", time.monotonic() + 60
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
            assert process.poll() is None and time.monotonic() < end, "it ended before it could be killed"
            time.sleep(0.02)
        other = gpuaug("prepare", photographs, out, "--size", 16)
        refused(other, "being written by another process")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (out / "images.npy").exists()
    result = gpuaug("prepare", photographs, out, "--size", 16)
    assert result.exit_code == 0 and "of them done" in result.output
    assert np.array_equal(np.load(out / "images.npy"), whole)


def test_what_was_begun_for_other_samples_is_not_gone_on_with(photographs, tmp_path):
    (photographs / "two" / "07.png").write_bytes(b"")
    refused(gpuaug("prepare", photographs, tmp_path / "out", "--size", 16), "two/07.png")
    refused(gpuaug("prepare", photographs, tmp_path / "out", "--size", 18), "begun with other samples or another size")


# ---- the disk


def test_a_disk_without_room_is_refused_before_anything_is_written(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: Usage(1000, 900, 100))
    refused(gpuaug("prepare", photographs, tmp_path / "out"), "0.1 kB left", "--size")
    assert not (tmp_path / "out").exists()


class Usage(tuple):
    def __new__(cls, *values):
        return super().__new__(cls, values)

    free = property(lambda self: self[2])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_is_a_sentence_and_the_run_goes_on_later(photographs, tmp_path, monkeypatch, code):
    whole, sync, left = pixels(photographs), os.fsync, [4]

    def full(number: int) -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError(code, os.strerror(code))
        sync(number)

    monkeypatch.setattr(os, "fsync", full)
    refused(gpuaug("prepare", photographs, tmp_path / "out.npy", "--size", 16), "is full", "goes on from there")
    assert not (tmp_path / "out.npy").exists()
    monkeypatch.setattr(os, "fsync", sync)
    assert gpuaug("prepare", photographs, tmp_path / "out.npy", "--size", 16).exit_code == 0
    assert np.array_equal(np.load(tmp_path / "out.npy"), whole)


# ---- bad input


@pytest.mark.parametrize(
    ("source", "target", "options", "words"),
    [
        ("nowhere", "out", (), ("nowhere is not a folder",)),
        ("empty", "out", (), ("holds neither class folders nor images",)),
        ("src", "src/out", (), ("lies inside", "outside")),
        ("src", "src", (), ("lies inside",)),
        ("src/one", "src", (), ("lies inside",)),
        ("src", "full", (), ("holds other files",)),
        ("src", "file", (), ("is a file",)),
        ("src", "other.npy", (), ("was not written by gpuaug prepare",)),
        ("src", "out", ("--size", "0"), ("size",)),
        ("src", "out", ("--size", "axb"), ("size must be",)),
        ("src", "out", ("--fit", "pad"), ("fit must be one of",)),
        ("src", "out", ("--on-error", "ignore"), ("on-error must be one of",)),
        ("src", "out", ("--decoder", "none"), ("decoder must be",)),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(photographs, tmp_path, source, target, options, words):
    for folder in ("empty", "full"):
        (tmp_path / folder).mkdir()
    for name in ("full/notes.txt", "file", "other.npy"):
        (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    refused(gpuaug("prepare", tmp_path / source, tmp_path / target, *options), *words)
    assert sorted(tmp_path.rglob("*")) == before
    assert all((tmp_path / n).read_text() == "mine" for n in ("full/notes.txt", "file", "other.npy"))


@pytest.mark.parametrize("spoilt", ["images", "floats", "index", "rows"])
def test_files_that_are_no_result_are_refused_as_a_source(photographs, tmp_path, spoilt):
    gpuaug("prepare", photographs, tmp_path / "out", "--size", 16)
    out = tmp_path / "out"
    if spoilt == "images":
        (out / "images.npy").write_bytes(b"\x93NUMPY nothing")
    elif spoilt == "floats":
        np.save(out / "images.npy", np.zeros((COUNT, 16, 16, 3), np.float32))
    elif spoilt == "index":
        (out / "index.parquet").write_bytes(b"nothing")
    else:
        np.save(out / "images.npy", np.zeros((COUNT - 1, 16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match=r"no file that|prepare|no index"):
        as_source(out)
