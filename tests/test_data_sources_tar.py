"""Loading: tar shards are indexed once, by one process, and read by ranges in any order."""

import io
import json
import os
import sys
import tarfile
from pathlib import Path

import children
import fsspec
import numpy as np
import pytest

from gpuaug.data import sources_tar
from gpuaug.data.sources import as_source
from gpuaug.data.sources_tar import braces
from gpuaug.data.storage import Storage, Unreadable


def shard(path: Path, members, form=tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if data is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def picture(k: int) -> bytes:
    return b"\xff\xd8" + bytes([k % 256]) * (600 + 37 * k)


def usual(first: int, count: int):
    for k in range(first, first + count):
        yield f"{k:05d}.cls", str(k % 5).encode()
        yield f"{k:05d}.jpg", picture(k)
        yield f"{k:05d}.json", json.dumps({"label": f"class {k % 3}", "place": {"x": k}}).encode()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for s in range(3):
        shard(tmp_path / "shards" / f"train-{s:04d}.tar", usual(10 * s, 10))
    return tmp_path / "shards"


def test_ids_go_shard_by_shard_and_in_a_shard_from_its_beginning(folder):
    source = as_source(str(folder))
    assert (
        len(source) == 30
        and source.labels.tolist() == [k % 5 for k in range(30)]
        and source.starts.tolist() == [0, 10, 20, 30]
    )
    order = [29, 0, 11, 11, 5, 6, 7, 20]
    assert [bytes(d) for d in source.read(order)] == [picture(k) for k in order] and source.samples(order)[
        1
    ].tolist() == [k % 5 for k in order]
    assert source.key(11) == "train-0001.tar/00011" and source.find("train-0001.tar/00011") == 11
    assert "30 samples in 3 tar shards" in source.describe()


@pytest.mark.parametrize(
    "what", ["{}/train-{{0000..0002}}.tar", "{}/train-*.tar", "{}", "{}/train-000{{0,1,2}}.tar", "list", "file"]
)
def test_shards_are_named_as_people_name_them(folder, what):
    names = [folder / f"train-{s:04d}.tar" for s in range(3)]
    asked = names if what == "list" else f"file://{folder}/train-*.tar" if what == "file" else what.format(folder)
    assert (
        as_source(asked).fingerprint == as_source([str(n) for n in names]).fingerprint
        and len(as_source(names[1])) == 10
    )


def test_braces_are_what_a_shell_makes_of_them():
    assert braces("a{08..11}b{x,yz}") == [f"a{k:02d}b{c}" for k in range(8, 12) for c in ("x", "yz")] and braces(
        "plain"
    ) == ["plain"]


def test_neighbours_are_read_together_and_strangers_are_not(folder, monkeypatch):
    source = as_source(str(folder))
    asked = []
    read = source._storage.read
    monkeypatch.setattr(source._storage, "read", lambda spans: asked.append(list(spans)) or read(spans))
    source.read(range(30))
    assert [len(a) for a in asked] == [3], "one range for each shard"
    monkeypatch.setattr(sources_tar, "NEAR", 100)
    asked.clear()
    source.read([3, 0, 25])
    assert [len(a) for a in asked] == [3]
    monkeypatch.setattr(sources_tar, "NEAR", 1 << 20)
    monkeypatch.setattr(sources_tar, "RANGE", 8000)
    asked.clear()
    assert [bytes(d) for d in source.read(range(30))] == [picture(k) for k in range(30)]
    assert all(span.size <= 8000 for span in asked[0]) and 10 < len(asked[0]) < 30


def test_names_and_members_of_all_formats_of_tar_are_read(folder, tmp_path):
    long = "a/" + "very-long-name-" * 12
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        names = ["d.x/1.jpg", "ü.jpg", "b/c.seg.png", "b/c.PNG", "b/.jpg"] + (
            [f"{long}.jpg"] if form != tarfile.USTAR_FORMAT else []
        )
        names += ["/".join(["sub"] * 35) + "/far.jpg"]
        path = shard(
            tmp_path / f"odd{form}" / "x.tar",
            [("d.x", None), *((n, picture(k)) for k, n in enumerate(names)), ("only.txt", b"text")],
            form,
        )
        source = as_source(path)
        with tarfile.open(path) as tar:
            wanted = [
                tar.extractfile(m).read()
                for m in tar
                if m.isfile() and m.name.lower().rpartition("/")[2].partition(".")[2] in ("jpg", "png")
            ]
        assert [bytes(d) for d in source.read(range(len(source)))] == wanted and len(wanted) == len(names) - 1
        assert source.labels is None and source.key(0) == "x.tar/d.x/1"
        assert source.skipped == 1 and "left out for want of an image: 1" in source.describe()


def test_labels_come_from_the_member_that_is_named(folder):
    named = as_source(str(folder), label="json:label")
    assert named.classes == ("class 0", "class 1", "class 2") and named.labels.tolist() == [k % 3 for k in range(30)]
    assert as_source(str(folder), label="cls").labels.tolist() == [k % 5 for k in range(30)]
    shard(folder.parent / "json/a.tar", [("1.jpg", picture(1)), ("1.json", b'{"label": 7}')])
    assert as_source(folder.parent / "json").labels.tolist() == [7], "without a cls, the JSON's label"
    with pytest.raises(ValueError, match="has the label 'json:nothing'"):
        as_source(str(folder), label="json:nothing")
    shard(folder.parent / "some/a.tar", [("1.jpg", picture(1)), ("1.cls", b"3"), ("2.jpg", picture(2))])
    with pytest.raises(ValueError, match="2 has no label"):
        as_source(folder.parent / "some")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:3000]), "is cut off: its member at"),
        (lambda p: p.write_bytes(b"x" * 5000), "is not a plain tar: no header at 0"),
        (lambda p: p.write_bytes(b"\x1f\x8b" + b"x" * 5000), "it is compressed, unpack it first"),
        (lambda p: p.write_bytes(b""), "no member of .* is an image"),
        (lambda p: shard(p, [("1.txt", b"x")]), "no member of .* is an image"),
        (lambda p: p.unlink(), "can't be opened: No such file"),
        (lambda p: shard(p, [("1.jpg", b"x"), ("1.json", b"{")]), "its JSON can't be read"),
    ],
)
def test_a_shard_that_is_none_is_named(tmp_path, monkeypatch, spoil, words):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = shard(tmp_path / "x.tar", [("1.jpg", picture(90))])
    spoil(path)
    with pytest.raises(ValueError, match=words) as raised:
        as_source(path)
    assert "x.tar" in str(raised.value)


def test_a_shard_that_loses_its_end_later_costs_the_samples_that_were_there(folder):
    source = as_source(str(folder))
    path = folder / "train-0001.tar"
    os.truncate(path, int(source._offset[15]) + 10)
    items = source.read([3, *range(10, 20)])
    assert [isinstance(item, Unreadable) for item in items] == [False] * 6 + [True] * 5
    assert [bytes(item) for item in items[:6]] == [picture(k) for k in (3, 10, 11, 12, 13, 14)]


# ---- the index


def test_the_index_is_made_once_and_again_when_a_shard_changes(folder, monkeypatch):
    made = []
    shard_ = sources_tar._shard
    monkeypatch.setattr(sources_tar, "_shard", lambda *a: made.append(a[0]) or shard_(*a))
    first = as_source(str(folder))
    assert len(made) == 3 and [p.suffix for p in sorted(folder.glob(".gpuaug-*"))] == [".lock", ".npz"]
    again = as_source(str(folder))
    assert len(made) == 3 and again.fingerprint == first.fingerprint and again.labels.tolist() == first.labels.tolist()
    assert as_source(str(folder), label="json:label").fingerprint != first.fingerprint and len(made) == 6
    shard(folder / "train-0002.tar", usual(50, 10))
    changed = as_source(str(folder))
    assert len(made) == 9 and changed.fingerprint != first.fingerprint and bytes(changed.read([20])[0]) == picture(50)


@pytest.mark.parametrize("left", [b"", b"PK", "part"])
def test_a_damaged_index_is_made_again(folder, left):
    first = as_source(str(folder))
    (index,) = folder.glob(".gpuaug-*.npz")
    index.write_bytes(index.read_bytes()[:500] if left == "part" else left)
    assert as_source(str(folder)).fingerprint == first.fingerprint
    assert as_source(str(folder)).labels.tolist() == first.labels.tolist() and index.stat().st_size > 500


def test_an_index_beside_the_shards_is_read_where_nothing_may_be_written(folder, monkeypatch):
    first = as_source(str(folder))

    def readonly(path, mode="r", *rest, **more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sources_tar, "open", readonly, raising=False)
    monkeypatch.setattr(sources_tar, "_shard", None)
    assert as_source(str(folder)).fingerprint == first.fingerprint


def test_the_index_is_in_the_users_cache_where_the_shards_may_only_be_read(folder, tmp_path, monkeypatch):
    opened = open

    def readonly(path, mode="r", *rest, **more):
        if "w" in mode and Path(path).parent == folder:
            raise PermissionError(13, "Permission denied")
        return opened(path, mode, *rest, **more)

    monkeypatch.setattr(sources_tar, "open", readonly, raising=False)
    first = as_source(str(folder))
    assert not list(folder.glob(".gpuaug-*")) and len(list((tmp_path / "cache" / "gpuaug").glob("index-*.npz"))) == 1
    monkeypatch.setattr(sources_tar, "_shard", None)
    assert as_source(str(folder)).fingerprint == first.fingerprint


def test_one_process_makes_the_index_and_the_others_wait_for_it(folder):
    code = """if True:
        import sys, time
        from gpuaug.data import sources_tar
        made = sources_tar._made
        def slow(*a):
            time.sleep(1.0)
            print("made", flush=True)
            return made(*a)
        sources_tar._made = slow
        from gpuaug.data.sources import as_source
        print(as_source(sys.argv[1]).fingerprint)
    """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    running = [children.Child([sys.executable, "-c", code, folder], env) for _ in range(3)]
    words = [process.communicate(timeout=120)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sum(w.count("made") for w in words) == 1 and len({w[-1] for w in words}) == 1


def test_a_process_that_dies_while_it_makes_the_index_leaves_nothing_behind(folder, monkeypatch):
    code = """if True:
        import os, sys
        from gpuaug.data import sources_tar
        savez = sources_tar.np.savez
        def dies(file, **arrays):
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), 9)
        sources_tar.np.savez = dies
        from gpuaug.data.sources import as_source
        as_source(sys.argv[1])
    """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    assert children.run([sys.executable, "-c", code, folder], env=env, timeout=60).returncode == -9
    assert not list(folder.glob("*.npz")) and len(as_source(str(folder))) == 30


def test_shards_elsewhere_are_indexed_and_read_in_large_ranges(folder, tmp_path, monkeypatch):
    memory = fsspec.filesystem("memory")
    for path in folder.glob("*.tar"):
        memory.pipe(f"/tars/{path.name}", path.read_bytes())
    asked = []
    cat = type(memory).cat_file
    monkeypatch.setattr(
        type(memory),
        "cat_file",
        lambda self, path, start=None, end=None, **m: asked.append((start, end)) or cat(self, path, start, end, **m),
    )
    near = as_source(str(folder))
    for what in ("memory://tars", "memory://tars/train-*.tar", [f"memory://tars/train-{s:04d}.tar" for s in range(3)]):
        far = as_source(what)
        assert far.fingerprint == near.fingerprint and far.key(12) == near.key(12)
    indexing = len(asked)
    assert indexing == 3, "one piece for each small shard, for the first source alone"
    assert [bytes(d) for d in far.read(range(30))] == [picture(k) for k in range(30)] and len(asked) - indexing == 3
    kept = as_source("memory://tars", Storage(cache_dir=tmp_path / "kept"))
    kept.read(range(30))
    before = len(asked)
    assert [bytes(d) for d in kept.read([29, 0])] == [picture(29), picture(0)] and len(asked) == before
    assert "one object" not in far.describe()


def test_large_sizes_are_read_from_their_fields():
    big = (1 << 33) + 5
    info = tarfile.TarInfo("big.jpg")
    info.size = big
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        head = info.tobuf(form)

        def get(offset: int, size: int, head: bytes = head) -> bytes:
            return head[offset : offset + size].ljust(min(size, 512), b"\0")

        found = list(sources_tar.members(get, big + 5000, "big.tar"))
        assert [(name, size) for name, _, size in found] == [("big.jpg", big)] and found[0][1] == len(head)
    assert np.int64(big) > 1 << 32


# ---- shards as they are found


def test_members_that_are_no_part_of_a_sample_leave_it_whole(tmp_path):
    members = [("._1.jpg", b"x"), ("1.jpg", picture(1)), ("README", b"x"), ("__index__.json", b"{}"), ("1.cls", b"4")]
    source = as_source(shard(tmp_path / "x.tar", members))
    assert len(source) == 1 and source.labels.tolist() == [4] and source.skipped == 0


def test_two_samples_of_one_name_are_not_made_one(tmp_path):
    path = shard(tmp_path / "x.tar", [("0.jpg", picture(1)), ("0.cls", b"1"), ("0.jpg", picture(2)), ("0.cls", b"2")])
    with pytest.raises(ValueError, match=r"x.tar holds 0.jpg twice in one sample"):
        as_source(path)
    assert not list(tmp_path.glob(".*.part")), "an index that can't be made leaves something behind"


def test_shards_of_one_name_have_samples_of_different_names(tmp_path):
    paths = [shard(tmp_path / part / "0.tar", usual(0, 2)) for part in "xy"]
    source = as_source(paths)
    assert [source.key(i) for i in range(4)] == [f"{part}/0.tar/0000{k}" for part in "xy" for k in range(2)]
    assert [source.find(source.key(i)) for i in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize("left", [1, 300, 511])
def test_a_shard_that_is_cut_off_within_a_header_is_refused(tmp_path, left):
    path = shard(tmp_path / "x.tar", usual(0, 3))
    second = path.read_bytes().index(b"00000.jpg")
    os.truncate(path, second + left)
    with pytest.raises(ValueError, match=f"is cut off in the middle of a header at {second}"):
        as_source(path)


def test_shards_elsewhere_of_equal_names_and_sizes_are_not_mistaken(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Storage, "stat", lambda self, path: (len(fsspec.filesystem("memory").cat(path)), ""))
    for k in range(2):
        data = shard(tmp_path / f"{k}.tar", [("1.jpg", picture(1)), ("1.cls", b"%d" % k)]).read_bytes()
        fsspec.filesystem("memory").pipe(f"/odd{k}/x.tar", data)
    assert [as_source(f"memory://odd{k}/x.tar").labels.tolist() for k in range(2)] == [[0], [1]]
