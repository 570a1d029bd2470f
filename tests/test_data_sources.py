"""Loading: sources hand out the samples that people have, in an order that nothing but the data decides."""

import csv
import os
import pickle
from importlib.util import find_spec
from pathlib import Path

import encoded
import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from gpuaug.data.source import Names
from gpuaug.data.sources import as_source
from gpuaug.data.storage import Storage, Unreadable

JPEG = encoded.readable()["JPEG 4:2:0"]


def write(path: Path, data: bytes = JPEG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Class folders with all that decides an order: nesting, names around a slash, capitals, links, hidden and other
    files."""
    names = [
        "b/2.jpg",
        "b/10.jpg",
        "b/a.PNG",
        "a/z.jpg",
        "a/sub/1.webp",
        "a/sub/deep/0.tiff",
        "a/sub-x/1.bmp",
        "a/sub0/1.ppm",
        "a-b/1.jpeg",
        "A/1.pgm",
    ]
    for k, name in enumerate([*names, "b/.jpg", "b/.hidden.jpg", "b/ü ñ.jpg"]):
        write(tmp_path / "data" / name, JPEG + bytes([k]))
    for other in ("b/readme.txt", "b/1.gif", "stray.jpg", "a/sub/note.json"):
        write(tmp_path / "data" / other)
    write(tmp_path / "elsewhere/linked.jpg")
    os.symlink(tmp_path / "elsewhere", tmp_path / "data/a/link")
    os.symlink(tmp_path / "elsewhere", tmp_path / "data/linked class")
    return tmp_path / "data"


def test_class_folders_have_the_order_and_labels_of_torchvision(tree):
    theirs, ours = ImageFolder(str(tree)), as_source(tree)
    assert [(ours.path(i), int(label)) for i, label in enumerate(ours.labels)] == theirs.samples
    assert list(ours.classes) == theirs.classes and ours.labels.dtype == np.int64 and len(ours) == 15
    assert [bytes(data) for data in ours.read(range(len(ours)))] == [
        Path(path).read_bytes() for path, _ in theirs.samples
    ]


def test_torchvisions_folder_is_read_by_its_files(tree):
    ours = as_source(ImageFolder(str(tree)))
    assert isinstance(ours.read([0])[0], memoryview) and ours.fingerprint == as_source(tree).fingerprint
    changed = as_source(ImageFolder(str(tree), target_transform=lambda label: label + 1))
    assert isinstance(changed.read([0])[0], torch.Tensor), "its own code is not passed by"


def test_class_folders_elsewhere_have_the_same_order(tree):
    memory = fsspec.filesystem("memory")
    for path in tree.rglob("*"):
        if path.is_file() and "link" not in str(path.relative_to(tree)):
            memory.pipe(f"/order/{path.relative_to(tree)}", path.read_bytes())
    far = as_source("memory://order")
    near = [n for n in (as_source(tree).key(i) for i in range(15)) if "link" not in n]
    assert [far.key(i) for i in range(len(far))] == near and len(near) == 13
    assert bytes(far.read([3])[0]) == (tree / near[3]).read_bytes()
    assert "one object an image over a network" in far.describe() and "network" not in as_source(tree).describe()
    only = fsspec.filesystem("memory")
    only.pipe("/flat/b.jpg", JPEG)
    assert as_source("memory://flat").labels is None


def test_an_empty_class_folder_is_an_error_unless_allowed(tree):
    (tree / "empty").mkdir()
    write(tree / "texts/1.txt")
    with pytest.raises(FileNotFoundError, match="empty, texts"):
        ImageFolder(str(tree))
    with pytest.raises(ValueError, match=r"no image in the class folders empty, texts of .*allow_empty=True"):
        as_source(tree)
    theirs, ours = ImageFolder(str(tree), allow_empty=True), as_source(tree, allow_empty=True)
    assert list(ours.classes) == theirs.classes and ours.labels.tolist() == theirs.targets


def test_images_without_class_folders_have_no_labels(tmp_path):
    for name in ("b.jpg", "a.png"):
        write(tmp_path / "flat" / name)
    source = as_source(str(tmp_path / "flat"))
    assert (
        [source.key(0), source.key(1)] == ["a.png", "b.jpg"]
        and source.labels is None
        and source.samples([0])[1] is None
    )


def test_what_cannot_be_read_is_an_exception_in_its_place(tree):
    source = as_source(tree)
    gone = source.path(3)
    os.remove(gone)
    os.remove(source.path(5))
    os.mkdir(source.path(5))
    items = source.read([2, 3, 4, 5])
    assert [isinstance(item, Unreadable) for item in items] == [False, True, False, True]
    assert str(items[1]) == "no such file" and str(items[3])
    with pytest.raises(IndexError, match="id 15 is not in this source of 15 samples"):
        source.read([15])
    with pytest.raises(IndexError, match="id -1"):
        source.read([-1])
    source.close()
    with pytest.raises(RuntimeError, match="closed"):
        source.read([0])


# ---- lists and tables


def test_a_list_of_paths_and_labels_is_a_source(tree):
    rows = [(tree / "b/2.jpg", 7), (str(tree / "a/z.jpg"), 3)]
    source = as_source(rows)
    assert (
        source.labels.tolist() == [7, 3]
        and source.classes is None
        and bytes(source.read([1])[0]) == (tree / "a/z.jpg").read_bytes()
    )
    named = as_source([("b/2.jpg", "dog"), ("a/z.jpg", "cat")], root=str(tree))
    assert (
        named.labels.tolist() == [1, 0]
        and named.classes == ("cat", "dog")
        and bytes(named.read([1])[0]) == (tree / "a/z.jpg").read_bytes()
    )
    soft = as_source([("b/2.jpg", [0.25, 0.75]), ("a/z.jpg", [1.0, 0.0])], root=str(tree))
    assert soft.labels.dtype == np.float32 and soft.samples([1, 0])[1].tolist() == [[1.0, 0.0], [0.25, 0.75]]
    assert as_source(["b/2.jpg"], root=str(tree)).labels is None
    assert as_source(rows, root=str(tree)).read([0])[0] is not None


def test_a_table_in_csv_is_a_source(tree, tmp_path):
    table = tmp_path / "data" / "list.csv"
    with open(table, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerows(
            [
                ["label", "path", "more"],
                [2, "b/2.jpg", "x, y"],
                [0, "a/z.jpg", "two\nlines"],
                [1, str(tree / "b/10.jpg"), ""],
            ]
        )
    source = as_source(table)
    assert source.labels.tolist() == [2, 0, 1] and [bytes(d) for d in source.read([0, 2])] == [
        (tree / n).read_bytes() for n in ("b/2.jpg", "b/10.jpg")
    ]
    table.write_text("file\tkind\nb/2.jpg\tdog\na/z.jpg\t12\n")
    tsv = table.rename(tmp_path / "data" / "list.tsv")
    assert as_source(tsv, columns=("file", "kind")).classes == ("12", "dog"), (
        "one name among the labels, and all are names"
    )
    with pytest.raises(ValueError, match="no column 'path', only file, kind; name the columns"):
        as_source(tsv)
    tsv.write_text("path\tlabel\nb/2.jpg\n")
    with pytest.raises(ValueError, match="row 2 has 1 fields, its head has 2"):
        as_source(tsv)
    fsspec.filesystem("memory").pipe("/table/list.csv", b"path,label\nimages/1.jpg,4\n")
    fsspec.filesystem("memory").pipe("/table/images/1.jpg", JPEG)
    far = as_source("memory://table/list.csv")
    assert far.labels.tolist() == [4] and bytes(far.read([0])[0]) == JPEG


def test_a_table_in_parquet_is_a_source_or_pyarrow_is_asked_for(tree, tmp_path):
    place = tree / "list.parquet"
    if find_spec("pyarrow") is None:
        place.write_bytes(b"PAR1")
        with pytest.raises(ValueError, match="pip install pyarrow"):
            as_source(place)
        return
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(
        pyarrow.table({"path": ["b/2.jpg", "a/z.jpg"], "label": [4, 2], "more": [0.5, 1.5]}), place
    )
    source = as_source(place)
    assert source.labels.tolist() == [4, 2] and bytes(source.read([1])[0]) == (tree / "a/z.jpg").read_bytes()
    with pytest.raises(ValueError, match="no column 'image', only path, label, more"):
        as_source(place, columns=("image", "label"))
    place.write_bytes(b"PAR1 and nothing")
    with pytest.raises(ValueError, match="no Parquet file"):
        as_source(place)


# ---- data sets


class Plain:
    """A map-style data set."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        sample = self.samples[i]
        if isinstance(sample, Exception):
            raise sample
        return sample


def test_a_data_set_of_bytes_or_of_decoded_images_is_a_source():
    picture = encoded.photograph(12, 10)
    array = np.array(picture)
    planar = torch.from_numpy(array).permute(2, 0, 1).contiguous()
    samples = [
        (JPEG, 3),
        (picture, 1),
        (array, 2),
        (planar, 4),
        (picture.convert("L"), 5),
        (array[..., 0], 6),
        (planar[0], 7),
    ]
    items, targets = as_source(Plain(samples)).samples(range(7))
    assert bytes(items[0]) == JPEG and targets == [3, 1, 2, 4, 5, 6, 7]
    for item in items[1:4]:
        assert torch.equal(item, torch.from_numpy(array))
    assert [tuple(item.shape) for item in items[4:]] == [(10, 12, 3), (10, 12, 1), (10, 12, 1)]
    told = as_source(Plain(samples))
    told.read(range(7))
    assert told.stats()["bytes_read"] == len(JPEG) and told.stats()["reads"] == 7
    boxes = {"boxes": torch.zeros(2, 4)}
    assert as_source(Plain([(JPEG, boxes)])).samples([0])[1][0] is boxes, "targets of any kind come with their sample"
    assert as_source(Plain([JPEG])).samples([0])[1] is None


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ((np.zeros((4, 5, 3), np.float32), 0), "must be uint8"),
        ((torch.zeros(5, 4, 4, dtype=torch.uint8), 0), "1, 3 or 4 channels"),
        (("a path", 0), "must be bytes, a PIL image, an array or a tensor, got str"),
        (RuntimeError("the file is locked"), "RuntimeError: the file is locked"),
    ],
)
def test_a_sample_that_a_data_set_cannot_give_is_an_exception_in_its_place(sample, words):
    items = as_source(Plain([(JPEG, 0), sample, (JPEG, 0)])).read([0, 1, 2])
    assert [isinstance(item, Exception) for item in items] == [False, True, False]
    assert words in str(items[1])


def test_a_mapping_is_read_in_the_order_of_its_keys():
    one, other = {"b": (JPEG, 1), "a": (b"a", 0)}, {"a": (b"a", 0), "b": (JPEG, 1)}
    source = as_source(one)
    assert [source.key(i) for i in (0, 1)] == ["a", "b"] and source.find("b") == 1 and source.read([0]) == [b"a"]
    assert source.fingerprint == as_source(other).fingerprint
    with pytest.raises(KeyError, match="no sample is called 'c'"):
        source.find("c")


class Feature:
    """As of the `datasets` package, which calls them by their classes' names."""

    def __init__(self, decode=True, names=None):
        self.decode = decode
        if names:
            self.names = names


class HuggingFace:
    """What is used of a data set of the `datasets` package."""

    def __init__(self, columns, features, formatted="torch"):
        self.columns, self.features, self.formatted = columns, features, formatted

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def with_format(self, kind):
        return HuggingFace(self.columns, self.features, kind)

    def cast_column(self, name, feature):
        return HuggingFace(self.columns, {**self.features, name: feature}, self.formatted)

    def select_columns(self, names):
        return HuggingFace({n: self.columns[n] for n in names}, {n: self.features[n] for n in names}, self.formatted)

    def __getitem__(self, at):
        assert self.formatted is None, "the user's format was kept"
        for feature in self.features.values():
            assert type(feature).__name__ != "Image" or not feature.decode, "an image was decoded"
        rows = range(len(self))[at] if isinstance(at, slice) else at
        return {name: [column[i] for i in rows] for name, column in self.columns.items()}


def hugging(tree: Path, **more) -> HuggingFace:
    kinds = {
        "image": type("Image", (Feature,), {})(),
        "label": type("ClassLabel", (Feature,), {})(names=["cat", "dog"]),
    }
    cells = [
        {"bytes": JPEG, "path": None},
        {"bytes": None, "path": str(tree / "b/2.jpg")},
        {"bytes": None, "path": None},
        None,
    ]
    return HuggingFace(
        {"image": cells, "label": [1, 0, 1, 1], **{k: v[0] for k, v in more.items()}},
        kinds | {k: v[1] for k, v in more.items()},
    )


def test_a_hugging_face_data_set_is_read_without_decoding(tree):
    source = as_source(hugging(tree))
    assert source.labels.tolist() == [1, 0, 1, 1] and source.classes == ("cat", "dog") and len(source) == 4
    items = source.read([1, 0, 2, 3])
    assert bytes(items[0]) == (tree / "b/2.jpg").read_bytes() and bytes(items[1]) == JPEG
    assert all("neither bytes nor a path" in str(item) for item in items[2:])
    assert source.key(1) == f"1: {tree / 'b/2.jpg'}" and source.find(source.key(1)) == 1
    more = (hugging(tree).columns["image"], type("Image", (Feature,), {})())
    with pytest.raises(ValueError, match=r"2 columns that may be the image \(image, depth\); name both with"):
        as_source(hugging(tree, depth=more))
    assert as_source(hugging(tree, depth=more), columns=("depth", "label")).describe().count("'depth'") == 1
    with pytest.raises(ValueError, match=r"holds 2 data sets, train, test; pass one of them, such as what\['train'\]"):
        as_source({"train": hugging(tree), "test": hugging(tree)})
    moved = hugging(tree)
    moved.columns["image"][1] = {"bytes": None, "path": "/elsewhere/2.jpg"}
    assert as_source(moved).fingerprint == source.fingerprint, "where files lie is no matter"
    with pytest.raises(ValueError, match="no column 'picture', only image, label"):
        as_source(hugging(tree), columns=("picture", "label"))


# ---- all kinds


def test_the_fingerprint_changes_with_the_samples_and_not_with_their_place(tree, tmp_path):
    before = as_source(tree).fingerprint
    moved = tree.rename(tmp_path / "moved")
    assert as_source(moved).fingerprint == before and len(before) == 16
    seen = {before}
    (moved / "b/2.jpg").rename(moved / "b/3.jpg")
    seen.add(as_source(moved).fingerprint)
    (moved / "b").rename(moved / "c")
    seen.add(as_source(moved).fingerprint)
    write(moved / "c/new.jpg")
    seen.add(as_source(moved).fingerprint)
    assert len(seen) == 4
    rows = [("x.jpg", 0), ("y.jpg", 1)]
    assert len({as_source(r).fingerprint for r in (rows, rows[::-1], [("x.jpg", 0), ("y.jpg", 0)], rows[:1])}) == 4
    assert as_source(Plain([(JPEG, 0)])).fingerprint != as_source(Plain([(JPEG, 0)] * 2)).fingerprint


def test_a_source_can_be_sent_to_another_process(tree):
    sources = [
        as_source(tree, Storage(reads_in_flight=2)),
        as_source([(str(tree / "b/2.jpg"), "dog")]),
        as_source(Plain([(JPEG, 3)])),
        as_source({"a": (JPEG, 1)}),
    ]
    for source in sources:
        source.read([0])
        sent = pickle.loads(pickle.dumps(source))
        assert len(sent) == len(source) and sent.fingerprint == source.fingerprint and sent.key(0) == source.key(0)
        assert bytes(sent.read([0])[0]) == bytes(source.read([0])[0]) and sent.classes == source.classes
        assert sent.describe() == source.describe()


def test_a_source_stays_as_it_is():
    source = as_source([("x.jpg", 0)])
    assert as_source(source) is source
    with as_source([("x.jpg", 0)], Storage()) as other:
        assert len(other) == 1


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("/no/such/folder", "is not a folder; pass a folder of class folders, a table"),
        ([], "the list of samples is empty"),
        (iter([(JPEG, 0)]), "can only be run through"),
        (7, "samples can't be read from a int"),
        ([("a.jpg", 0), ("b.jpg",)], r"must be \(path, label\), got \('b.jpg',\) at 1"),
        ([("a.jpg", 0), ("b.jpg", "dog")], "labels must all be integers, all strings"),
        ([("a.jpg", None), ("b.jpg", None)], "labels must all be integers, all strings"),
        ([("a.jpg", [0.5]), ("b.jpg", [0.5, 0.5])], "rows of numbers of one length"),
        ({1: (JPEG, 0)}, "the keys of a mapping must be strings"),
        (Plain([]), "the Plain is empty"),
        ("shards.tar.gz", "is compressed"),
        ("pipe:cat x.tar", "is a command"),
        ("/no/such/*.tar", "no tar shards are found"),
        ("nosuchprotocol://x/y.tar", "can't be opened"),
    ],
)
def test_what_is_no_source_is_said_in_words(what, words):
    with pytest.raises((ValueError, TypeError), match=words):
        as_source(what)


def test_a_million_names_are_one_piece_of_memory():
    names = Names(f"n{k:07d}/ä{k}.jpg" for k in range(1000))
    assert (
        len(names) == 1000
        and names[0] == "n0000000/ä0.jpg"
        and names[999] == "n0000999/ä999.jpg"
        and list(names)[500] == "n0000500/ä500.jpg"
    )
    odd = os.fsdecode(b"caf\xe9.jpg")
    assert Names([odd])[0] == odd and len(Names([])) == 0


def test_pixels_of_a_data_set_are_those_of_its_file():
    image = Image.open(__import__("io").BytesIO(JPEG))
    (item,) = as_source(Plain([(image, 0)])).read([0])
    assert item.shape == (67, 101, 3)
