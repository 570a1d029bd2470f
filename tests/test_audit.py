"""The audit: its figures are scikit-image's, its strengths move arguments from where they do nothing, and what it says
of objects and of a model is so."""

import io
import json
import math
import pickle
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import gpuaug, refused
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from test_cli import folder  # noqa: F401

import gpuaug as ga
from gpuaug import variants
from gpuaug.audit import scaled

SIDE = 32


@pytest.fixture
def photographs(images: Any) -> torch.Tensor:
    # every third of the fixture's is noise
    return images(6, SIDE, SIDE, dtype=torch.uint8)[[0, 1, 3, 4]]


def only(rows: list[Any], name: str, strength: float = 1.0) -> Any:
    (row,) = [r for r in rows if r.name == name and r.strength == strength]
    return row


def test_psnr_and_ssim_are_those_of_scikit_image(photographs):
    policy = ga.Policy([ga.RandomInvert(1.0), ga.RandomHorizontalFlip(1.0)])
    rows = ga.audit(policy, photographs, strengths=[1.0], draws=1)
    plain = photographs.permute(0, 2, 3, 1).numpy()
    for name, changed in (("RandomInvert", 255 - plain), ("RandomHorizontalFlip", plain[:, :, ::-1])):
        row, pairs = only(rows, name), list(zip(plain, changed, strict=True))
        assert row.changed == 1
        assert row.psnr == pytest.approx(np.mean([peak_signal_noise_ratio(a, b) for a, b in pairs]))
        assert row.ssim == pytest.approx(np.mean([structural_similarity(a, b, channel_axis=2) for a, b in pairs]))
        assert row.in_view is None and row.agreement is None


def test_figures_are_of_the_samples_that_a_transform_changed(photographs):
    many = photographs.repeat(8, 1, 1, 1)
    half = ga.audit(ga.Policy([ga.RandomInvert(0.5)]), many, strengths=[1.0])[0]
    drawn = torch.cat([ga.Policy([ga.RandomInvert(0.5)]).draw(torch.arange(32), epoch=e, size=(SIDE, SIDE))[0]["apply"]
                       for e in (0, 1)])  # fmt: skip
    assert 0.2 < half.changed < 0.8, "vacuous"
    assert half.changed == float(drawn.double().mean())
    assert half.psnr < 20
    never = ga.audit(ga.Policy([ga.RandomInvert(0.0)]), many, strengths=[1.0])[0]
    assert (never.changed, never.psnr, never.ssim) == (0, math.inf, 1)


def test_a_transform_is_compared_with_the_whole_image_at_the_size_that_the_policy_gives(photographs):
    policy = ga.Policy(
        [ga.RandomResizedCrop(16, (0.2, 0.3)), ga.ToDtype(torch.float32, scale=True), ga.Normalize((0.5,), (0.2,))]
    )
    row = ga.audit(policy, photographs, strengths=[1.0], draws=1)[0]
    given = ga.Batch(photographs, ids=torch.arange(4), epoch=0)
    crops = ga.Policy([ga.RandomResizedCrop(16, (0.2, 0.3))])(given).images.permute(0, 2, 3, 1).numpy()
    whole = ga.Policy([ga.Resize((16, 16))])(given).images.permute(0, 2, 3, 1).numpy()
    expected = np.mean([peak_signal_noise_ratio(a, b) for a, b in zip(whole, crops, strict=True)])
    # values of bytes are rounded once more on their way through Normalize
    assert row.psnr == pytest.approx(expected, abs=0.05)


# ---- strengths


@pytest.mark.parametrize("name", sorted(ga.REGISTRY))
def test_a_transform_of_no_strength_moves_images_less_or_is_refused(name, photographs):
    cls = ga.REGISTRY[name]
    whole = cls(**cls.example)
    assert scaled(whole, 1.0) == whole
    try:
        none = scaled(whole, 0.0)
    except (ValueError, TypeError):
        return
    if none == whole:
        # it has no argument of strength
        return
    given = ga.Batch(photographs, torch.arange(4) % 2, ids=torch.arange(4))
    policy = ga.Policy([none])
    stand = variants.switchable(policy, given)
    plain = variants.without(policy, list(stand), stand)
    off = (policy(given).images.double() - plain(given).images.double()).abs()
    moved = (ga.Policy([whole])(given).images.double() - plain(given).images.double()).abs()
    # children without strength do what they did
    children = sum(t == s for t, s in zip(none.children, whole.children, strict=True))
    if not children:
        assert off.mean() < 0.9 * moved.mean(), (none, float(off.mean()), float(moved.mean()))


def test_strengths_go_from_where_a_transform_does_nothing():
    assert scaled(ga.ColorJitter(0.4, hue=0.1), 0.5) == ga.ColorJitter(0.2, hue=0.05)
    assert scaled(ga.RandomRotation(20), 2) == ga.RandomRotation(40)
    assert scaled(ga.RandomResizedCrop(8, (0.6, 1.0)), 0.5) == ga.RandomResizedCrop(8, (0.8, 1.0))
    assert scaled(ga.RandomResizedCrop(8, (0.2, 1.0)), 2).scale == (0, 1)
    inside = scaled(ga.RandomApply([ga.RandomRotation(10), ga.RandomInvert(0.2)], p=0.3), 3)
    assert inside == ga.RandomApply([ga.RandomRotation(30), ga.RandomInvert(0.2)], p=0.3)
    with pytest.raises(ValueError, match="factor must be"):
        scaled(ga.RandomRotation(20), -1)


def test_more_strength_moves_images_further_and_rows_go_from_harmless_to_harmful(photographs):
    policy = ga.Policy([ga.ColorJitter(0.3), ga.RandomInvert(1.0)])
    rows = ga.audit(policy, photographs)
    assert [r.ssim for r in rows] == sorted((r.ssim for r in rows), reverse=True)
    assert [r.strength for r in rows if r.name == "ColorJitter"] == [0.5, 1.0, 2.0]
    assert [r.strength for r in rows if r.name == "RandomInvert"] == [1.0], "it has no strength"
    jitter = [only(rows, "ColorJitter", s).psnr for s in (0.5, 1.0, 2.0)]
    assert jitter == sorted(jitter, reverse=True) and jitter[0] > jitter[2] + 3


# ---- objects


def test_the_share_in_view_is_that_of_the_box_or_mask_that_a_crop_leaves(photographs):
    policy = ga.Policy([ga.CenterCrop(16), ga.RandomHorizontalFlip(1.0)])
    boxes = torch.tensor([[[0.0, 0, 16, 16]]]).repeat(4, 1, 1)
    masks = torch.zeros(4, SIDE, SIDE, dtype=torch.uint8)
    masks[:, :16, :16] = 1
    for targets in ({"boxes": boxes, "box_format": "XYXY"}, {"masks": masks}):
        rows = ga.audit(policy, ga.Batch(photographs, **targets), strengths=[1.0], draws=1)
        assert only(rows, "CenterCrop").in_view == 0.25
        assert only(rows, "RandomHorizontalFlip").in_view == 1
    none = ga.Batch(photographs, boxes=boxes, box_valid=torch.zeros(4, 1, dtype=torch.bool), box_format="XYXY")
    assert {r.in_view for r in ga.audit(policy, none, strengths=[1.0], draws=1)} == {None}


def test_what_is_erased_is_out_of_view(photographs):
    policy = ga.Policy([ga.RandomErasing(1.0, (0.2, 0.4))], seed=2)
    whole = torch.tensor([[[0.0, 0, SIDE, SIDE]]]).repeat(4, 1, 1)
    row = ga.audit(policy, ga.Batch(photographs, boxes=whole, box_format="XYXY"), strengths=[1.0], draws=1)[0]
    (drawn,) = policy.draw(torch.arange(4), epoch=0, size=(SIDE, SIDE))
    left = 1 - (drawn["h"] * drawn["w"]).double() / SIDE**2
    assert left.max() < 0.9, "vacuous"
    # 64 points stand for the box
    assert row.in_view == pytest.approx(float(left.mean()), abs=0.06)


@pytest.mark.parametrize("name", ["RandomSolarize", "RandomInvert", "RandomPosterize", "RandomEqualize", "ColorJitter", "GaussianBlur", "RandomGrayscale"])  # fmt: skip
def test_what_changes_colours_leaves_objects_in_view(name, photographs):
    cls = ga.REGISTRY[name]
    changes = {"p": 1.0} if "p" in cls.__dataclass_fields__ else {}
    policy = ga.Policy([replace(cls(**cls.example), **changes)])
    whole = torch.tensor([[[4.0, 4, 20, 20]]]).repeat(4, 1, 1)
    rows = ga.audit(policy, ga.Batch(photographs, boxes=whole, box_format="XYXY"), strengths=[1.0], draws=1)
    assert [r.in_view for r in rows] == [1.0]


# ---- models


def bright(images: torch.Tensor) -> torch.Tensor:
    """Two classes: images that are brighter than the middle, and others."""
    mean = images.float().mean((1, 2, 3)) / 255 - 0.5
    return torch.stack([mean, -mean], 1)


def test_agreement_is_the_share_of_predictions_that_stay(photographs):
    policy = ga.Policy([ga.RandomInvert(1.0), ga.RandomHorizontalFlip(1.0)])
    rows = ga.audit(policy, photographs, model=bright, strengths=[1.0])
    assert [(r.name, r.agreement) for r in rows] == [("RandomHorizontalFlip", 1.0), ("RandomInvert", 0.0)]


def failing(images: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("conv2d got 5 channels\nand much more")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda x: x, r"got shape \[4, 3, 32, 32\]"),
        (lambda x: x.float().mean((1, 2, 3)), r"got shape \[4\]"),
        (lambda x: x[:2, :, 0, 0], r"got shape \[2, 3\]"),
        (lambda x: {"logits": x}, "got dict"),
        (failing, "can't take images .* conv2d got 5 channels; give it"),
    ],
)
def test_a_model_of_the_wrong_shape_is_refused(photographs, model, words):
    with pytest.raises(ValueError, match=words):
        ga.audit(ga.Policy([ga.RandomInvert(1.0)]), photographs, model=model)


def test_bad_arguments_are_refused_and_progress_is_told(photographs):
    policy = ga.Policy([ga.RandomInvert(1.0), ga.ColorJitter(0.2)])
    with pytest.raises(TypeError, match="policy must be"):
        ga.audit("moderate", photographs)
    with pytest.raises(ValueError, match="draws"):
        ga.audit(policy, photographs, draws=0)
    with pytest.raises(ValueError, match="strengths"):
        ga.audit(policy, photographs, strengths=[-1.0])
    with pytest.raises(ValueError, match="at least 7 x 7"):
        ga.audit(policy, photographs[:, :, :5, :5])
    told: list[tuple[int, int]] = []
    ga.audit(policy, photographs, draws=1, progress=lambda *at: told.append(at))
    assert told == [(k, 4) for k in range(5)]


@pytest.mark.parametrize("mix", ["MixUp", "CutMix"])
def test_mixes_are_audited_with_and_without_labels(photographs, mix):
    policy = ga.Policy([ga.REGISTRY[mix](num_classes=3)])
    for given in (photographs, ga.Batch(photographs, torch.arange(4) % 3)):
        (row,) = ga.audit(policy, given, strengths=[1.0])
        assert row.changed > 0 and row.psnr < 60


# ---- the command


NET = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        mean = x.mean((1, 2, 3))
        return torch.stack([mean, -mean], 1)

def good():
    return Net()

def wrong():
    return torch.nn.Flatten(0)

NUMBER = 3
"""


def test_the_command_prints_the_table_and_draws_the_picture(folder: Path, tmp_path: Path):  # noqa: F811
    (tmp_path / "net.py").write_text(NET)
    boxes = [{"image_id": 1, "bbox": [5, 6, 20, 15]}]
    (tmp_path / "b.json").write_text(json.dumps({"images": [{"id": 1, "file_name": "c.jpg"}], "annotations": boxes}))
    out = tmp_path / "audit.png"
    made = gpuaug("audit", "--data", folder, "--policy", "moderate", "--model", f"{tmp_path / 'net.py'}:good",
                  "--boxes", tmp_path / "b.json", "--out", out, "--images", 5, "--draws", 1)  # fmt: skip
    assert made.exit_code == 0, made.output
    rows = re.findall(r"│ ?(\w+) +│ +([\d.]+) x │ +\d+% │ +[\d.same]+ │ +-?[\d.]+ │ +\d+% │ +\d+%", made.output)
    assert {name for name, _ in rows} == {"RandomResizedCrop", "RandomHorizontalFlip", "ColorJitter", "RandomErasing"}
    assert ("ColorJitter", "0.5") in rows and ("ColorJitter", "2") in rows
    with Image.open(out) as picture:
        assert picture.format == "PNG" and np.ptp(np.array(picture.convert("L"))) > 100


def test_an_exported_program_is_taken_and_nothing_is_unpickled(folder: Path, tmp_path: Path):  # noqa: F811
    (tmp_path / "net.py").write_text(NET)
    names: dict[str, Any] = {}
    exec(NET, names)
    size = {0: torch.export.Dim("n", min=1, max=64)}
    program = torch.export.export(names["Net"](), (torch.rand(2, 3, 224, 224),), dynamic_shapes=(size,))
    torch.export.save(program, tmp_path / "net.pt2")
    common = ("audit", "--data", folder, "--policy", "weak", "--images", 5, "--draws", 1)
    made = gpuaug(*common, "--out", tmp_path / "a.png", "--model", tmp_path / "net.pt2")
    assert made.exit_code == 0 and "agrees" in made.output, made.output

    class Touch:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    buffer = io.BytesIO()
    torch.save(Touch(), buffer)
    (tmp_path / "pickle.pt2").write_bytes(pickle.dumps(Touch()))
    (tmp_path / "saved.pt2").write_bytes(buffer.getvalue())
    config = json.dumps({"config": {"w": {"path_name": "weight_0", "use_pickle": True}}}).encode()
    for name, place in (("inputs", "data/sample_inputs/model.pt"), ("opaque", "data/constants/opaque_obj_0"),
                        ("weights", "data/weights/model_weights_config.json"), ("old", "data/weights/model.pt"),
                        ("compiled", "data/aotinductor/model/x.so")):  # fmt: skip
        with zipfile.ZipFile(tmp_path / "net.pt2") as old, zipfile.ZipFile(tmp_path / f"{name}.pt2", "w") as new:
            for item in old.namelist():
                if not item.endswith(place):
                    new.writestr(item, old.read(item))
            new.writestr(f"net/{place}", config if name == "weights" else buffer.getvalue())
    for name in ("pickle", "saved", "inputs", "opaque", "weights", "old", "compiled"):
        made = gpuaug(*common, "--out", tmp_path / "b.png", "--model", tmp_path / f"{name}.pt2")
        refused(made, f"{name}.pt2 is no exported program")
        assert not (tmp_path / "ran").exists() and not (tmp_path / "b.png").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--data": "nowhere"}, "nowhere"),
        ({"--data": "empty"}, "holds neither"),
        ({"--policy": "modest"}, "moderate"),
        ({"--model": "gone.pt2"}, "is no file"),
        ({"--model": "net"}, "module:factory"),
        ({"--model": "no_such_module:make"}, "no_such_module"),
        ({"--model": "net.py:none"}, "no function none"),
        ({"--model": "net.py:NUMBER"}, "no function NUMBER"),
        ({"--model": "net.py:wrong"}, "a score a class"),
        ({"--out": "a.gif"}, ".png"),
        ({"--out": "gone/a.png"}, "is no folder"),
        ({"--boxes": "gone.json"}, "gone.json"),
    ],
    ids=lambda v: "".join(v.values()) if isinstance(v, dict) else None,
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    folder: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    words: str,
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "net.py").write_text(NET)
    before = {p for p in tmp_path.rglob("*") if "__pycache__" not in p.parts}
    given = {"--data": str(folder), "--policy": "weak", "--out": "a.png", "--images": "3", "--draws": "1"} | changes
    refused(gpuaug("audit", *(w for pair in given.items() for w in pair)), words)
    assert {p for p in tmp_path.rglob("*") if "__pycache__" not in p.parts} == before
