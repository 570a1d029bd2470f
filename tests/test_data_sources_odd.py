"""Loading: tables, lists and data sets as people really have them are read, or refused in words that say what to do;
none is read as something else."""

import io
import tarfile
from importlib.util import find_spec
from pathlib import Path

import encoded
import numpy as np
import pytest
import torch
from loading import files, loader
from PIL import Image
from torch.utils.data import IterableDataset, TensorDataset

from gpuaug.data import Loader
from gpuaug.data.sources import as_source

JPEG = encoded.readable()["JPEG 4:2:0"]


# ---- tables


@pytest.mark.parametrize(
    ("text", "labels", "classes"),
    [
        ("path,label\na,0.5\nb,2\n", [0.5, 2.0], None),
        ("path,label\na,-1\nb,+2\n", [-1, 2], None),
        ("path,label\na,1e3x\nb,2\n", [0, 1], ("1e3x", "2")),
        ("path, label\na, cat\nb, dog\n", [0, 1], ("cat", "dog")),
        ("Label,PATH\n3,a\n4,b\n", [3, 4], None),
        ("LABEL,label,path\n3,1,a\n4,2,b\n", [1, 2], None),
    ],
)
def test_labels_of_a_table_are_what_they_say(tmp_path, text, labels, classes):
    (tmp_path / "list.csv").write_text(text)
    source = as_source(tmp_path / "list.csv")
    assert source.labels.tolist() == labels and source.classes == classes
    assert [source.key(i) for i in range(2)] == ["a", "b"]
    path = next(name for name in text.splitlines()[0].split(",") if name.lower() == "path")
    assert as_source(tmp_path / "list.csv", columns=(path, None)).labels is None


@pytest.mark.parametrize(
    ("data", "columns", "words"),
    [
        (b"path,label\na,1\nb,\n", None, "no label in sample 1"),
        (b"path,label\n,1\nb,1\n", None, "no path in sample 0"),
        ("path,label\nä,1\n".encode("latin-1"), None, "is not UTF-8"),
        (b"path,kind\na,1\n", ("path", "label"), r"no column 'label', only path, kind; .*as_source\(..., columns="),
        (b"Path,PATH,label\na,b,1\n", None, "2 columns 'path'"),
        (b"path,label\na,1\n", "path", "columns must be two names"),
    ],
)
def test_a_table_that_lacks_something_is_refused_in_words(tmp_path, data, columns, words):
    (tmp_path / "list.csv").write_bytes(data)
    with pytest.raises(ValueError, match=words):
        as_source(tmp_path / "list.csv", columns=columns)


def test_a_null_in_parquet_is_refused_in_words(tmp_path):
    if find_spec("pyarrow") is None:
        (tmp_path / "list.parquet").write_bytes(b"PAR1")
        with pytest.raises(ValueError, match="pip install pyarrow"):
            as_source(tmp_path / "list.parquet")
        return
    import pyarrow
    import pyarrow.parquet

    for columns, words in (
        ({"path": ["a", None], "label": [1, 2]}, "no path in sample 1"),
        ({"path": ["a", "b"], "label": [1, None]}, "no label in sample 1"),
        ({"path": [1, 2], "label": [1, 2]}, "paths must be strings, got int"),
    ):
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "list.parquet")
        with pytest.raises(ValueError, match=words):
            as_source(tmp_path / "list.parquet")


# ---- lists and arrays


def test_labels_of_a_list_may_be_any_numbers():
    paths = ["a", "b"]
    for labels, kind in (
        ([0.5, 1.5], np.float32),
        (np.array([0.5, 1.5]), np.float32),
        ([[0, 1], [1, 1]], np.float32),
        (np.array([3, 4], np.uint8), np.int64),
    ):
        source = as_source(list(zip(paths, labels, strict=True)))
        assert source.labels.dtype == kind and source.labels.tolist() == np.asarray(labels).tolist()
    with pytest.raises(ValueError, match="weights need the class of every sample"):
        Loader([("a", 0.5), ("b", 1.5)], weights="balanced", device="cpu")


def test_an_array_of_paths_is_a_list_of_them():
    assert as_source(np.array(["a", "b"])).key(1) == "b"
    source = as_source(np.array([["a", "cat"], ["b", "dog"]]))
    assert source.key(1) == "b" and source.classes == ("cat", "dog")


class Endless(IterableDataset):
    def __iter__(self):
        return iter([JPEG])

    def __len__(self):
        return 1


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ([()], r"must be \(path, label\), got \(\) at 0"),
        (["a", 3], "must all be paths"),
        (Endless(), "can only be run through"),
        (JPEG, "can't be read from a bytes"),
        (type("DataFrame", (), {"iloc": None, "__getitem__": None, "__len__": len})(), r"pass list\(zip\("),
    ],
)
def test_what_only_looks_like_a_source_is_refused_in_words(what, words):
    with pytest.raises((ValueError, TypeError), match=words):
        as_source(what)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("list.csv", {"label": "kind"}),
        ("list.csv", {"root": "/elsewhere"}),
        ("x.tar", {"columns": ("path", "label")}),
        (".", {"label": "cls"}),
        (["a"], {"allow_empty": True}),
        ([(JPEG, 0)], {"columns": ("path", "label")}),
        ({"a": JPEG}, {"root": "/elsewhere"}),
    ],
)
def test_an_option_that_nothing_would_use_is_refused(tmp_path, name, option):
    (tmp_path / "list.csv").write_text("path,label\na,1\n")
    what = tmp_path / name if isinstance(name, str) else name
    with pytest.raises(ValueError, match=f"{next(iter(option))}=.* is for .*, and this is .*; leave it out"):
        as_source(what, **option)


def test_a_storage_is_a_storage():
    with pytest.raises(TypeError, match="storage must be a"):
        Loader(["a"], storage="cache")


# ---- data sets


def test_a_sample_may_be_a_tuple_of_the_image_alone():
    images = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 3, 4, 5)
    items, targets = as_source(TensorDataset(images)).samples([0, 1])
    assert targets is None and torch.equal(torch.stack(items), images.permute(0, 2, 3, 1))


def test_an_image_of_pillow_has_the_pixels_of_its_file():
    gray = np.random.default_rng(0).integers(0, 1 << 16, (9, 8), np.uint16)
    palette = Image.fromarray((gray >> 8).astype(np.uint8)).convert("P")
    palette.info["transparency"] = 3
    for image in (Image.fromarray(gray), palette):
        file = io.BytesIO()
        image.save(file, "PNG")
        with loader([(file.getvalue(), 0), (image, 0)], None, 2, shuffle=False) as one:
            of_file, of_image = next(iter(one)).images.images
        assert torch.equal(of_file, of_image)
    assert "transparency" in palette.info, "the user's image was changed"
    (item,) = as_source([Image.new("F", (3, 3))]).read([0])
    assert "its pixels are F numbers" in str(item)


def test_a_sample_that_stands_twice_in_a_batch_is_bad_once():
    with loader([(b"no image", 0), (files()[0], 0)], None, 4, shuffle=False, drop_last=False) as one:
        with pytest.raises(ValueError, match=r"^1 sample has no image: sample 0") as error:
            next(iter(one))
    assert [file.id for file in error.value.files] == [0]


# ---- where they are


def tar(path: Path, count: int = 2) -> None:
    with tarfile.open(path, "w") as file:
        for k in range(count):
            member = tarfile.TarInfo(f"{path.stem}{k}.jpg")
            member.size = len(JPEG)
            file.addfile(member, io.BytesIO(JPEG))


@pytest.mark.parametrize("what", ["train", "list", "root", "list.csv", "shards", "shards/{a,b}.tar"])
def test_a_relative_source_is_found_from_another_folder_too(tmp_path, monkeypatch, what):
    (tmp_path / "train" / "cats").mkdir(parents=True)
    (tmp_path / "shards").mkdir()
    for k in range(2):
        (tmp_path / "train" / "cats" / f"{k}.jpg").write_bytes(JPEG)
        tar(tmp_path / "shards" / f"{'ab'[k]}.tar", 1)
    (tmp_path / "list.csv").write_text("path\ntrain/cats/0.jpg\ntrain/cats/1.jpg\n")
    monkeypatch.chdir(tmp_path)
    lists = {"list": ["train/cats/0.jpg", "train/cats/1.jpg"], "root": ["cats/0.jpg", "cats/1.jpg"]}
    with as_source(lists.get(what, what), **({"root": "train"} if what == "root" else {})) as source:
        monkeypatch.chdir(tmp_path / "shards")
        assert len(source) == 2 and not any(isinstance(item, Exception) for item in source.read([0, 1]))


def test_signs_in_the_name_of_a_folder_that_is_there_are_no_pattern(tmp_path):
    folder = tmp_path / "a[1]{x,y}*"
    folder.mkdir()
    tar(folder / "b-0.tar")
    tar(folder / "b-1.tar")
    assert [len(as_source(f"{folder}{end}")) for end in ("", "/b-0.tar", "/b-{0..1}.tar", "/b-*.tar")] == [4, 2, 4, 4]
