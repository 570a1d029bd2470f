"""`gpuaug expand`: every copy is what training would have seen, has a row from which it is made again, and is whole."""

import io
import json
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from commands import gpuaug, refused, write_gradient
from PIL import Image

import gpuaug as ga
from gpuaug.apps import expand as command
from gpuaug.data import as_source, decoding
from gpuaug.expand import remake, writable

COUNT, FACTOR = 11, 3


@pytest.fixture
def source(tmp_path: Path, monkeypatch) -> Path:
    """Eleven pictures of several sizes in two classes; pieces of four, so that there are several."""
    monkeypatch.setattr(decoding, "CHUNK", 4)
    for k in range(COUNT):
        write_gradient(tmp_path / "src" / ("one" if k < 6 else "two") / f"{k:02d}.png", 20 + 3 * (k // 2), 40, 20 * k)
    return tmp_path / "src"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    transforms = [
        ga.RandomResizedCrop(16),
        ga.RandomHorizontalFlip(),
        ga.ColorJitter(0.3, 0.3),
        ga.ToDtype(torch.float32, scale=True),
        ga.Normalize((0.5,), (0.5,)),
        ga.RandomErasing(0.5),
        ga.MixUp(num_classes=2),
    ]
    ga.Policy(transforms, seed=5).save(tmp_path / "policy.yaml")
    return tmp_path / "policy.yaml"


def rows(target: Path) -> list[dict[str, Any]]:
    return pyarrow.parquet.read_table(target / "manifest.parquet").to_pylist()


def tree(target: Path) -> dict[str, bytes]:
    return {str(p.relative_to(target)): p.read_bytes() for p in sorted(target.rglob("*")) if p.is_file()}


def expanded(source: Path, target: Path, policy: Path, *options: object) -> Any:
    result = gpuaug("expand", source, target, "--policy", policy, "--factor", FACTOR, *options)
    assert result.exit_code == 0, result.output
    return result


# ---- what is written


def test_every_copy_is_what_the_policy_gives_for_its_id_and_epoch(source, policy, tmp_path):
    expanded(source, tmp_path / "out", policy, "--format", "png")
    found = rows(tmp_path / "out")
    assert [(r["id"], r["epoch"]) for r in found] == [(k, e) for k in range(COUNT) for e in range(FACTOR)]
    # what draws keeps its place, although Normalize is gone
    made = ga.Policy(
        [*ga.Policy.load(policy).transforms[:3], ga.Identity(), ga.Identity(), ga.RandomErasing(0.5)], seed=5
    )
    for r in found:
        with Image.open(tmp_path / "out" / r["file"]) as image:
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        with Image.open(source / r["source"]) as image:
            wanted = made(image, ids=r["id"], epoch=r["epoch"])
        assert torch.equal(pixels, wanted)
        assert (r["height"], r["width"]) == (16, 16) and r["label"] == int(r["id"] > 5)
        assert r["class"] == r["file"].split("/")[0] == r["source"].split("/")[0]
        assert sha256((tmp_path / "out" / r["file"]).read_bytes()).hexdigest() == r["hash"]
        drawn = json.loads(r["parameters"])
        params = made.draw(torch.tensor([r["id"]]), epoch=r["epoch"], size=(20 + 3 * (r["id"] // 2), 40))
        for k in (0, 1, 5):
            assert drawn[k] == {name: value[0].tolist() for name, value in params[k].items()} != {}
    assert len({r["hash"] for r in found}) == len(found) == len({r["file"] for r in found})


def test_the_result_is_a_source_with_the_same_classes(source, policy, tmp_path):
    expanded(source, tmp_path / "out", policy)
    again = as_source(tmp_path / "out")
    assert again.classes == ("one", "two") and np.bincount(again.labels).tolist() == [6 * FACTOR, 5 * FACTOR]
    by_table = as_source(tmp_path / "out" / "manifest.parquet", columns=("file", "label"))
    assert len(by_table) == COUNT * FACTOR and by_table.labels.sum() == 5 * FACTOR
    assert {p.suffix for p in (tmp_path / "out").rglob("*") if p.is_file()} == {".jpg", ".parquet"}


def test_webdataset_shards_hold_image_label_and_row(source, policy, tmp_path):
    expanded(source, tmp_path / "out", policy, "--format", "webdataset")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "manifest.parquet",
        *(f"shard-{k:06d}.tar" for k in range(3)),
    ]
    for r in rows(tmp_path / "out"):
        shard, name = r["file"].split("/")
        with tarfile.open(tmp_path / "out" / shard) as tar:
            data = tar.extractfile(name).read()
            assert sha256(data).hexdigest() == r["hash"] and Image.open(io.BytesIO(data)).size == (16, 16)
            assert tar.extractfile(name.replace(".jpg", ".cls")).read() == str(r["label"]).encode()
            assert json.load(tar.extractfile(name.replace(".jpg", ".json")))["source"] == r["source"]
    found = as_source(str(tmp_path / "out" / "shard-{000000..000002}.tar"))
    assert len(found) == COUNT * FACTOR and found.labels.sum() == 5 * FACTOR


@pytest.mark.parametrize("form", ["jpeg", "png", "webdataset"])
def test_each_file_is_made_again_bit_for_bit_from_the_manifest(source, policy, tmp_path, form):
    out = tmp_path / "out"
    expanded(source, out, policy, "--format", form)
    found = rows(out)
    one = remake(out, [found[13]["file"]], into=tmp_path / "one")
    assert [sha256(p.read_bytes()).hexdigest() for p in one] == [found[13]["hash"]]
    for p in remake(out / "manifest.parquet", into=tmp_path / "again"):
        name = str(p.relative_to(tmp_path / "again"))
        assert sha256(p.read_bytes()).hexdigest() == next(r["hash"] for r in found if r["file"] == name)
        assert form == "webdataset" or p.read_bytes() == (out / name).read_bytes()
    source.rename(tmp_path / "moved")
    assert remake(out, [found[0]["file"]], into=tmp_path / "third", source=tmp_path / "moved")


def test_making_again_refuses_what_it_cannot(source, policy, tmp_path):
    expanded(source, tmp_path / "out", policy)
    name = rows(tmp_path / "out")[0]["file"]
    with pytest.raises(ValueError, match=r"names no file 'x\.jpg'"):
        remake(tmp_path / "out", ["x.jpg"], into=tmp_path / "again")
    with pytest.raises(ValueError, match=r"there is no .*manifest\.parquet"):
        remake(tmp_path / "nowhere", into=tmp_path / "again")
    write_gradient(source / "one" / "00.png", 20, 40, 255)
    with pytest.raises(ValueError, match="other bytes: its source has changed"):
        remake(tmp_path / "out", [name], into=tmp_path / "again")
    (source / "one" / "00.png").unlink()
    with pytest.raises(ValueError, match=r"not in .* any more"):
        remake(tmp_path / "out", [name], into=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_policy_by_class_gets_the_labels(source, tmp_path):
    by_class = ga.Policy([ga.Resize((16, 16)), ga.ByClass({1: ga.RandomInvert(1.0)}, default=ga.Identity())])
    by_class.save(tmp_path / "policy.yaml")
    expanded(source, tmp_path / "out", tmp_path / "policy.yaml", "--format", "png")
    for r in rows(tmp_path / "out"):
        with Image.open(tmp_path / "out" / r["file"]) as image:
            colour = 20 * r["id"]
            assert np.array(image)[..., 2].mean() == (255 - colour if r["label"] else colour)
    assert remake(tmp_path / "out", [r["file"]], into=tmp_path / "again")


def test_a_flat_folder_and_names_that_differ_in_their_ending_alone_lose_nothing(policy, tmp_path):
    for name in ("a.png", "a.jpg", "a_1.png"):
        write_gradient(tmp_path / "src" / name, 20, 24, 9)
    expanded(tmp_path / "src", tmp_path / "out", policy)
    found = rows(tmp_path / "out")
    assert len({r["file"] for r in found}) == 9 == len(list((tmp_path / "out").glob("*.jpg")))
    assert {r["label"] for r in found} == {None}


@pytest.mark.parametrize("place", ["src/expanded", "src/one/deep/expanded"])
@pytest.mark.parametrize("flat", [False, True])
def test_a_target_inside_the_source_is_left_out_of_reading(source, policy, tmp_path, place, flat):
    if flat:
        for p in list(source.rglob("*.png")):
            p.rename(source / p.name)
        for p in ("one", "two"):
            (source / p).rmdir()
        place = "src/expanded"
    for _ in range(2):
        expanded(source, tmp_path / place, policy)
    found = rows(tmp_path / place)
    assert len(found) == COUNT * FACTOR and not any("expanded" in r["source"] for r in found)
    assert {r["class"] for r in found} == ({None} if flat else {"one", "two"})
    assert remake(tmp_path / place, [found[-1]["file"]], into=tmp_path / "again")


def test_tar_shards_are_a_source_whose_classes_become_folders(source, policy, tmp_path):
    expanded(source, tmp_path / "shards", policy, "--format", "webdataset")
    expanded(str(tmp_path / "shards" / "shard-{000000..000002}.tar"), tmp_path / "out", policy)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0", "1", "manifest.parquet"]
    assert len(rows(tmp_path / "out")) == COUNT * FACTOR**2


# ---- what is said


def test_it_says_disk_steps_and_what_is_left_out_before_it_starts(source, policy, tmp_path):
    said = expanded(source, tmp_path / "out", policy).output
    start = said.index("writing copies")
    for words in (
        "11 images x 3 = 33 copies",
        "of disk",
        "training must grow with the factor",
        "Normalize is left out",
        "ToDtype is left out",
        "MixUp is left out",
        "RandomErasing came after Normalize",
    ):
        assert said.index(words) < start, words
    assert "33 copies in" in said


def test_the_size_that_is_foreseen_is_the_size_that_comes(source, policy, tmp_path, monkeypatch):
    foreseen = []
    monkeypatch.setattr(
        command, "_foreseen", lambda maker, of=command._foreseen: foreseen.append(of(maker)) or foreseen[0]
    )
    expanded(source, tmp_path / "out", policy)
    sizes = [p.stat().st_size for p in (tmp_path / "out").rglob("*.jpg")]
    assert foreseen[0] == pytest.approx(np.mean(sizes), rel=0.3)


def test_copies_that_are_the_same_are_counted(source, tmp_path):
    ga.Policy([ga.RandomHorizontalFlip()]).save(tmp_path / "flip.yaml")
    said = expanded(source, tmp_path / "out", tmp_path / "flip.yaml").output
    same = len(rows(tmp_path / "out")) - len({(r["id"], r["hash"]) for r in rows(tmp_path / "out")})
    assert same >= COUNT and f"{same} are the same as another copy" in said


def test_the_help_has_the_factor_of_each_method():
    said = " ".join(gpuaug("expand", "--help").output.split())
    for words in ("a flip: 2", "ten crops: 5 or 10", "rotation, affine", "any"):
        assert words in said, words


def test_a_second_run_finds_all_done_and_another_order_is_refused(source, policy, tmp_path):
    expanded(source, tmp_path / "out", policy)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    assert "expanded already: 33 copies" in expanded(source, tmp_path / "out", policy).output
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before
    refused(gpuaug("expand", source, tmp_path / "out", "--policy", policy, "--factor", 4), "another policy")
    refused(gpuaug("expand", source, tmp_path / "out", "--preset", "weak", "--factor", 3), "another policy")


def test_what_cannot_be_left_out_is_refused():
    normalize = ga.Normalize((0.5,), (0.5,))
    with pytest.raises(ValueError, match="Normalize inside RandomApply"):
        writable(ga.Policy([ga.RandomApply([normalize])]))
    with pytest.raises(ValueError, match="fixed views"):
        writable(ga.Policy([ga.FiveCrop(8)]))
    kept, notes = writable(ga.Policy([ga.RandomHorizontalFlip(), ga.ToDtype(torch.uint8)]))
    assert notes == [] and kept.transforms == (ga.RandomHorizontalFlip(), ga.ToDtype(torch.uint8))
