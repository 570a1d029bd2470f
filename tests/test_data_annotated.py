"""Boxes, their labels and whatever else stands beside an image come from every kind of source, and names of classes
become numbers."""

import io
import json
import tarfile
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

import gpuaug as ga

N = 7
NAMES = ("cat", "dog", "owl")
COUNTS = [i % 3 for i in range(N)]
FLIP = ga.Policy([ga.Resize((24, 32)), ga.RandomHorizontalFlip(1.0)])


def picture(i: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((24, 32, 3), 30 * i, np.uint8)).save(file, "JPEG")
    return file.getvalue()


def target(i: int) -> dict:
    return {
        "boxes": [[1, 2 + k, 11, 12] for k in range(COUNTS[i])],
        "labels": [NAMES[(i + k) % 3] for k in range(COUNTS[i])],
        "box_format": "XYXY",
    }


def paths(folder) -> list[str]:
    for i in range(N):
        (folder / f"{i}.jpg").write_bytes(picture(i))
    return [str(folder / f"{i}.jpg") for i in range(N)]


def listed(folder):
    paths(folder)
    return ga.data.as_source([(f"{i}.jpg", target(i)) for i in range(N)], root=str(folder))


def parquet(folder):
    import pyarrow as arrow
    from pyarrow import parquet

    rows = {"path": paths(folder), "target": [target(i) for i in range(N)]}
    parquet.write_table(arrow.table(rows), folder / "t.parquet")
    return ga.data.as_source(str(folder / "t.parquet"), columns=("path", "target"))


def tar(folder):
    with tarfile.open(folder / "t.tar", "w") as shard:
        for i in range(N):
            for name, data in ((f"{i}.jpg", picture(i)), (f"{i}.json", json.dumps(target(i)).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))
    return ga.data.as_source(str(folder / "t.tar"), label="json")


class Named(list):
    classes = NAMES


def data_set(folder):
    return Named((picture(i), target(i)) for i in range(N))


# a table needs a package that the product does not
@pytest.mark.parametrize("kind", [listed, tar, data_set, *([parquet] if find_spec("pyarrow") else [])])
def test_boxes_and_the_names_of_their_classes_come_from_every_source(kind, tmp_path):
    with ga.data.Loader(kind(tmp_path), FLIP, N, shuffle=False, device="cpu") as loader:
        (batch,) = loader
        assert loader.source.classes == NAMES
    assert batch.boxes.dtype == torch.float32 and batch.labels.dtype == torch.int64
    assert batch.boxes.shape == (N, 2, 4) and batch.labels.shape == (N, 2)
    for i, count in enumerate(COUNTS):
        assert batch.box_valid[i].tolist() == [k < count for k in range(2)]
        assert batch.labels[i, :count].tolist() == [(i + k) % 3 for k in range(count)]
        assert batch.boxes[i, :count].tolist() == [[21, 2 + k, 31, 12] for k in range(count)], "they follow the flip"


@pytest.mark.parametrize("kind", [listed, tar])
def test_other_boxes_or_names_are_another_data_set(kind, tmp_path, monkeypatch):
    before = ga.data.as_source(kind(tmp_path)).fingerprint
    (tmp_path / "again").mkdir()
    assert ga.data.as_source(kind(tmp_path / "again")).fingerprint == before
    monkeypatch.setitem(globals(), "target", lambda i: {"boxes": [[0, 0, 9, 9]], "labels": ["cat"]})
    (tmp_path / "other").mkdir()
    assert ga.data.as_source(kind(tmp_path / "other")).fingerprint != before


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ([(picture(0), {"boxes": [], "image_id": 3})], r"sample 0 \(0\) has 'image_id', which is no field of a Batch"),
        ([(picture(0), [{"bbox": [1, 2, 3, 4]}])], r"sample 0 \(0\) is \[\{'bbox'.*target_transform"),
        ([(picture(0), target(1))], r"labels of sample 0 \(0\) are names, such as 'dog'.*classes"),
        (Named([(picture(0), {**target(1), "labels": ["eel"]})]), "has the label 'eel', and the classes are cat, dog"),
    ],
)
def test_a_target_that_a_policy_cannot_take_is_named(made, words):
    with (
        ga.data.Loader(made, FLIP, 1, device="cpu") as loader,
        pytest.raises((TypeError, ValueError, RuntimeError), match=words),
    ):
        next(iter(loader))


@pytest.mark.parametrize("other", [3, "cat"])
def test_labels_and_dicts_are_not_mixed(other):
    with pytest.raises(ValueError, match=r"all be labels, or all dicts, got a (int|str) in sample 1"):
        ga.data.as_source([("a.jpg", target(0)), ("b.jpg", other)])


def test_numbers_and_names_are_not_mixed():
    with pytest.raises(ValueError, match=r"labels of sample 0.* are numbers and names"):
        ga.data.as_source([("a.jpg", {"labels": ["cat", 3]})])


def test_rows_of_pythons_numbers_are_what_torch_makes_of_them():
    with ga.data.Loader([(picture(0), [0.25, 0.75]), (picture(1), [1, 0])], FLIP, 2, shuffle=False) as loader:
        (batch,) = loader
    assert batch.labels.dtype == torch.float32 and batch.labels.tolist() == [[0.25, 0.75], [1, 0]]


def test_a_resident_loader_says_that_boxes_would_not_follow(tmp_path):
    with pytest.raises(ValueError, match=r"sample 0, 0\.jpg, has a dict; use gpuaug.data.Loader"):
        ga.data.ResidentLoader(listed(tmp_path), FLIP, 2, size=16)
