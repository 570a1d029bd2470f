"""`gpuaug expand`: whatever stops it, a kill, a full disk, a bad file, no copy is lost, doubled or half-written."""

import errno
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import children
import pyarrow.parquet
import pytest
from build import quick
from commands import gpuaug, refused, write_gradient
from test_expand import COUNT, FACTOR, expanded, policy, rows, source, tree

from gpuaug.apps import expand as command
from gpuaug.expand import remake
from gpuaug.expand import write as write_whole

__all__ = ["policy", "source"]
JOURNAL = "manifest.parquet.journal"


class Stopped(Exception):
    pass


@pytest.mark.parametrize("form", ["png", pytest.param("webdataset", marks=pytest.mark.slow)])
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_files(source, policy, tmp_path, form):
    whole, out = tmp_path / "whole", tmp_path / "out"
    expanded(source, whole, policy, "--format", form)
    slow = (
        "import os, time; sync = os.fsync; os.fsync = lambda n: (sync(n), time.sleep(0.05))\n"
        "from gpuaug.data import decoding; decoding.CHUNK = 4\n"
        "from gpuaug.apps.cli import main; main()"
    )
    arguments = ["expand", source, out, "--policy", policy, "--factor", FACTOR, "--format", form]
    kills = 0
    for wait in [random.Random(form).uniform(0, 0.5) for _ in range(2)]:
        process = children.Child(
            [sys.executable, "-c", slow, *arguments], os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        )
        try:
            end, before = time.monotonic() + 90, len(tree(out)) if out.exists() else 0
            # from the first sign of work on, at a random moment
            while process.poll() is None and len(tree_names(out)) <= before and time.monotonic() < end:
                time.sleep(0.005)
            time.sleep(wait)
            kills += process.poll() is None
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert kills, "vacuous: it was never killed while it ran"
    result = gpuaug(*arguments)
    assert result.exit_code == 0, result.output
    assert_same(out, whole)


def tree_names(place: Path) -> list[str]:
    return [p.name for p in place.rglob("*") if p.is_file()] if place.exists() else []


def assert_same(out: Path, whole: Path) -> None:
    """The same files with the same bytes, and manifests that say the same of them."""
    found, wanted = tree(out), tree(whole)
    assert found.keys() == wanted.keys() and len(wanted) > 3, "vacuous"
    assert all(found[name] == wanted[name] for name in wanted if name != "manifest.parquet")
    assert rows(out) == rows(whole) and len(rows(out)) == COUNT * FACTOR


@pytest.mark.parametrize("at", quick([0, 1, 2, 8, 13, 14, 15, 30], 0, 2, 13, 30))
def test_a_stop_at_any_write_loses_and_doubles_nothing(source, policy, tmp_path, monkeypatch, at):
    expanded(source, tmp_path / "whole", policy)
    sync, left = os.fsync, [at]

    def fsync(number: int) -> None:
        if not left[0]:
            # as if the last bytes had not come to the disk
            os.ftruncate(number, max(0, os.fstat(number).st_size - 5))
            raise Stopped
        left[0] -= 1
        sync(number)

    monkeypatch.setattr(os, "fsync", fsync)
    result = gpuaug("expand", source, tmp_path / "out", "--policy", policy, "--factor", FACTOR)
    assert isinstance(result.exception, Stopped), "vacuous: it was not stopped"
    assert not (tmp_path / "out" / "manifest.parquet").exists()
    assert not list(tmp_path.rglob("*.part"))
    monkeypatch.setattr(os, "fsync", sync)
    expanded(source, tmp_path / "out", policy)
    assert_same(tmp_path / "out", tmp_path / "whole")


def test_files_that_went_missing_meanwhile_are_made_again(source, policy, tmp_path, monkeypatch):
    expanded(source, tmp_path / "whole", policy)
    monkeypatch.setattr(command, "_finish", stop)
    gpuaug("expand", source, tmp_path / "out", "--policy", policy, "--factor", FACTOR)
    assert (tmp_path / "out" / JOURNAL).exists(), "vacuous"
    next((tmp_path / "out").rglob("*.jpg")).unlink()
    (tmp_path / "out" / "one" / "x.jpg.part").write_bytes(b"half")
    monkeypatch.undo()
    monkeypatch.setattr("gpuaug.data.decoding.CHUNK", 4)
    expanded(source, tmp_path / "out", policy)
    assert_same(tmp_path / "out", tmp_path / "whole")


def stop(*_: object) -> None:
    raise Stopped


def test_two_runs_at_once_are_refused(source, policy, tmp_path):
    from gpuaug.apps.disk import alone

    (tmp_path / "out").mkdir()
    with alone(tmp_path / "out" / JOURNAL, tmp_path / "out") as book:
        book.write(b"{}\n")
        book.flush()
        refused(gpuaug("expand", source, tmp_path / "out", "--policy", policy), "being written by another process")


def test_what_was_begun_with_another_policy_is_not_gone_on_with(source, policy, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "_finish", stop)
    gpuaug("expand", source, tmp_path / "out", "--policy", policy)
    before = tree(tmp_path / "out")
    refused(gpuaug("expand", source, tmp_path / "out", "--preset", "weak"), "begun with other samples")
    assert tree(tmp_path / "out") == before


# ---- the disk


@pytest.mark.parametrize("code", quick([errno.ENOSPC, errno.EDQUOT], errno.ENOSPC))
@pytest.mark.parametrize("at", [1, 2, 6, 20])
def test_a_disk_that_fills_up_is_a_sentence_and_nothing_is_half_written(
    source, policy, tmp_path, monkeypatch, code, at
):
    expanded(source, tmp_path / "whole", policy)
    sync, left = os.fsync, [at]

    def full(number: int) -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(code, os.strerror(code))
        sync(number)

    monkeypatch.setattr(os, "fsync", full)
    refused(
        gpuaug("expand", source, tmp_path / "out", "--policy", policy, "--factor", FACTOR),
        "is full",
        "goes on from there",
    )
    # whole pieces alone are left, with the journal that names them; of none nothing
    left_over = tree(tmp_path / "out") if (tmp_path / "out").exists() else {}
    names = {name for name in left_over if name != JOURNAL}
    assert len(names) in (0, 4 * FACTOR) and (at < 20 or names)
    assert (tmp_path / "out").exists() == bool(names)
    wanted = tree(tmp_path / "whole")
    assert all(left_over[name] == wanted[name] for name in names)
    monkeypatch.setattr(os, "fsync", sync)
    expanded(source, tmp_path / "out", policy)
    assert_same(tmp_path / "out", tmp_path / "whole")


def test_a_real_disk_that_is_full_is_a_sentence(source, policy, tmp_path):
    """A limit on the size of a file stands for a disk of that size."""
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\nimport signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nfrom gpuaug.apps.cli import main; main()"
    run = children.run(
        [sys.executable, "-c", code, "expand", source, tmp_path / "out", "--policy", policy],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.returncode == 1 and run.stderr.startswith("gpuaug: the disk of") and run.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


class Usage(tuple):
    free = property(lambda self: self[2])


def test_a_disk_without_room_is_refused_before_anything_is_written(source, policy, tmp_path, monkeypatch):
    monkeypatch.setattr(command.shutil, "disk_usage", lambda path: Usage((1000, 900, 100)))
    refused(gpuaug("expand", source, tmp_path / "out", "--policy", policy), "0.1 kB left", "--factor")
    assert not (tmp_path / "out").exists()


# ---- bad input


def test_a_bad_file_stops_it_by_name_and_is_left_out_where_that_is_asked(source, policy, tmp_path):
    (source / "two" / "07.png").write_bytes(b"no image")
    refused(gpuaug("expand", source, tmp_path / "out", "--policy", policy), "two/07.png", "--on-error skip")
    assert not list(tmp_path.rglob("*.part")) and not (tmp_path / "out" / "manifest.parquet").exists()
    said = expanded(source, tmp_path / "skipped", policy, "--on-error", "skip").output
    assert "1 left out" in said and "two/07.png" in said
    assert {r["id"] for r in rows(tmp_path / "skipped")} == set(range(COUNT)) - {7}


def test_a_folder_without_one_good_image_leaves_nothing(source, policy, tmp_path):
    for path in source.rglob("*.png"):
        path.write_bytes(b"no image")
    refused(
        gpuaug("expand", source, tmp_path / "out", "--policy", policy, "--on-error", "skip"), "not one of 11", "00.png"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("place", "target", "options", "words"),
    [
        ("nowhere", "out", (), ("nowhere is not a folder",)),
        ("empty", "out", (), ("holds neither class folders nor images",)),
        ("src", "src", (), ("is the source itself",)),
        ("src/one", "src", (), ("lies inside",)),
        ("src", "full", (), ("holds other files",)),
        ("src", "file", (), ("is a file",)),
        ("src", "out", ("--factor", "0"), ("--factor must be",)),
        ("src", "out", ("--quality", "101"), ("--quality must be",)),
        ("src", "out", ("--format", "gif"), ("--format must be one of",)),
        ("src", "out", ("--engine", "spark"), ("--engine must be one of",)),
        ("src", "out", ("--on-error", "ignore"), ("--on-error must be one of",)),
        ("src", "out", ("--device", "tpu"), ("--device must be one of",)),
        ("src", "out", ("--backend", "jax"), ("backend must be",)),
        ("src", "out", ("--decoder", "none"), ("decoder must be",)),
        ("src", "out", ("--preset", "weak"), ("one place",)),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(source, policy, tmp_path, place, target, options, words):
    for folder in ("empty", "full"):
        (tmp_path / folder).mkdir()
    for name in ("full/notes.txt", "file"):
        (tmp_path / name).write_text("mine")
    before = tree(tmp_path)
    refused(gpuaug("expand", tmp_path / place, tmp_path / target, "--policy", policy, *options), *words)
    assert tree(tmp_path) == before and not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["transforms: [", "version: 1\nseed: 0\ntransforms: [{name: Nothing}]\n", None])
def test_a_policy_that_is_none_is_one_sentence(source, tmp_path, text):
    if text is not None:
        (tmp_path / "bad.yaml").write_text(text)
    result = gpuaug("expand", source, tmp_path / "out", "--policy", tmp_path / "bad.yaml")
    assert result.exit_code == 1 and result.stderr.startswith("gpuaug: ") and not (tmp_path / "out").exists()


def test_a_policy_that_refuses_the_images_is_one_sentence(source, tmp_path):
    import gpuaug as ga

    ga.Policy([ga.RandomCrop(500)]).save(tmp_path / "large.yaml")
    refused(gpuaug("expand", source, tmp_path / "out", "--policy", tmp_path / "large.yaml"), "RandomCrop")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spoilt", ["no table", "another table"])
def test_a_manifest_that_is_none_is_refused(tmp_path, spoilt):
    place: Any = tmp_path / "manifest.parquet"
    if spoilt == "no table":
        place.write_bytes(b"nothing")
    else:
        pyarrow.parquet.write_table(pyarrow.table({"file": ["a"]}), place)
    with pytest.raises(ValueError, match="no manifest that gpuaug expand wrote"):
        remake(tmp_path, into=tmp_path / "again")


def test_a_file_gets_its_name_when_it_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", stop)
    write_gradient(tmp_path / "a.png", 4, 4, 0)
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(Stopped):
        write_whole(tmp_path / "a.png", b"new")
    assert (tmp_path / "a.png").read_bytes() == before and len(tree(tmp_path)) == 1
