"""Contact sheets: what they show is what the policy gives, with the draws of the whole policy, and targets in place."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import gpuaug, refused
from PIL import Image
from test_cli import folder  # noqa: F401

import gpuaug as ga
from gpuaug import pictures, variants
from gpuaug.apps import page

SIZE = (40, 48)
POLICY = ga.Policy([ga.RandomCrop(24), ga.RandomInvert(0.5), ga.RandomErasing(0.5, (0.1, 0.2))], seed=3)


def batch(images: Any, n: int = 4, **more: Any) -> ga.Batch:
    return ga.Batch(images(n, *SIZE, dtype=torch.uint8), ids=torch.arange(10, 10 + n), **more)


def holds(sheet: np.ndarray, picture: np.ndarray) -> bool:
    """Whether a picture stands somewhere in a sheet, pixel by pixel."""
    corner = (sheet == picture[0, 0]).all(2)
    h, w = picture.shape[:2]
    places = zip(*np.nonzero(corner[: len(sheet) - h + 1, : sheet.shape[1] - w + 1]), strict=True)
    return any((sheet[y : y + h, x : x + w] == picture).all() for y, x in places)


def test_a_sheet_holds_every_sample_of_every_epoch_pixel_by_pixel(images):
    given = batch(images)
    sheet = np.array(ga.show(given, POLICY, epochs=[0, 5]))
    seen = []
    for epoch in (0, 5):
        for out in POLICY(given.replace(epoch=epoch)).images:
            picture = out.permute(1, 2, 0).numpy()
            assert holds(sheet, picture)
            seen.append(picture.tobytes())
    assert len(set(seen)) == 8, "vacuous: epochs and samples look alike"
    assert not holds(sheet, POLICY(given.replace(epoch=9)).images[0].permute(1, 2, 0).numpy())


def test_each_column_of_a_transform_goes_on_from_the_one_before_with_the_draws_of_the_whole(images):
    given = batch(images, 12)
    made = dict(variants.prefixes(POLICY, given, 2))
    whole = POLICY(given.replace(epoch=2)).images
    cropped, inverted, last = (torch.cat([b.images for b in made[k]]) for k in (1, 2, 3))
    assert torch.equal(last, whole)
    turned = (inverted != cropped).flatten(1).any(1)
    assert 0 < turned.sum() < 12, "vacuous"
    assert torch.equal(inverted[turned], 255 - cropped[turned])
    sheet = np.array(ga.show(given, POLICY, epochs=[2], per_transform=True, params=True))
    assert all(holds(sheet, p.permute(1, 2, 0).numpy()) for p in (*cropped, *inverted, *last))


def test_images_of_sizes_that_nothing_fixes_yet_are_shown_one_by_one(images):
    ragged = [images(1, h, 40, dtype=torch.uint8)[0] for h in (30, 44)]
    policy = ga.Policy([ga.RandomHorizontalFlip(1.0), ga.Resize((24, 24))])
    made = dict(variants.prefixes(policy, ga.Batch(ragged, ids=torch.arange(2)), 0))
    assert [tuple(b.images.shape[2:]) for b in made[1]] == [(30, 40), (44, 40)]
    assert torch.equal(made[1][1].images[0], ragged[1].flip(2))


@pytest.mark.parametrize("name", sorted(ga.REGISTRY))
def test_leaving_a_transform_out_changes_no_draw_of_those_that_stay(name):
    cls = ga.REGISTRY[name]
    first = cls(**cls.example)
    given = ga.Batch(torch.zeros(5, 3, 32, 32, dtype=torch.uint8), torch.arange(5) % 2, ids=torch.arange(5))
    policy = ga.Policy([first, ga.RandomInvert(0.5), ga.RandomRotation(30)], seed=8)
    stand = variants.switchable(policy, given)
    if 0 not in stand:
        # it converts values or only resizes: there is nothing to leave out
        stand = {0: variants.Instead(first)}
    left = variants.without(policy, [0], stand)
    with_it, without_it = variants.draws(policy, given, 4), variants.draws(left, given, 4)
    assert torch.equal(with_it[1]["apply"], without_it[1]["apply"])
    assert torch.equal(with_it[2]["angle"], without_it[2]["angle"])
    assert len(with_it[2]["angle"].unique()) > 1, "vacuous"


def test_a_crop_that_is_left_out_leaves_the_whole_image_at_the_size_that_it_fixed(images):
    given = batch(images)
    policy = ga.Policy([ga.RandomResizedCrop(24, (0.1, 0.2)), ga.RandomInvert(1.0)])
    left = variants.without(policy, [0], variants.switchable(policy, given))
    assert torch.equal(left(given).images, ga.Policy([ga.Resize((24, 24)), ga.RandomInvert(1.0)])(given).images)


@pytest.mark.parametrize("scale", [True, False])
def test_normalize_and_a_conversion_without_scale_are_undone(images, scale):
    given, top = batch(images), 1 if scale else 255
    crop, floats = ga.RandomCrop(24), ga.ToDtype(torch.float32, scale=scale)
    normal = ga.Normalize([v * top for v in (0.5, 0.4, 0.3)], [v * top for v in (0.2, 0.25, 0.3)])
    expected = ga.Policy([crop])(given.replace(epoch=1)).images.permute(0, 2, 3, 1).numpy()
    assert expected.std() > 20, "vacuous"
    for policy in (ga.Policy([crop, floats]), ga.Policy([crop, floats, normal])):
        sheet = np.array(ga.show(given, policy, epochs=[1]))
        assert all(holds(sheet, picture) for picture in expected)
        made = policy(given.replace(epoch=1))
        assert holds(np.array(ga.show(made, policy)), expected[2])
    as_floats = given.replace(images=given.images / 255)
    assert holds(np.array(ga.show(as_floats, ga.Policy([crop, floats]), epochs=[1])), expected[0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.int16, torch.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_images_of_any_dtype_and_channels_are_shown(dtype, channels):
    top = 1.0 if dtype.is_floating_point else torch.iinfo(dtype).max
    image = torch.full((1, channels, 4, 4), 0.5 * top).to(dtype)
    (picture,) = pictures.as_bytes(image)
    assert picture.shape == (4, 4, 3) and picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - 127).max() <= 1


def test_values_beyond_one_are_stretched_only_where_no_policy_says_what_they_are():
    image = torch.linspace(-2, 2, 48).view(1, 3, 4, 4)
    clipped, stretched = pictures.as_bytes(image)[0], pictures.as_bytes(image, stretch=True)[0]
    assert (clipped == 0).sum() == 24
    assert stretched.min() == 0 and stretched.max() == 255 and len(np.unique(stretched)) == 48


def test_boxes_masks_and_keypoints_are_drawn_where_they_are_and_those_that_are_not_valid_are_not():
    black = np.zeros((60, 60, 3), np.uint8)
    mask = torch.zeros(1, 60, 60, dtype=torch.uint8)
    mask[0, 40:50, 5:15] = 2
    given = ga.Batch(
        torch.zeros(1, 3, 60, 60),
        masks=mask,
        boxes=torch.tensor([[[10.0, 5, 20, 10], [30, 30, 5, 5]]]),
        box_valid=torch.tensor([[True, False]]),
        box_format="XYWH",
        keypoints=torch.tensor([[[50.0, 20.0], [20.0, 55.0]]]),
        visible=torch.tensor([[True, False]]),
    )
    out = pictures.with_targets(black, given, 0)
    assert tuple(out[5, 20]) == tuple(out[14, 29]) == tuple(out[10, 10]) == pictures.COLOURS[0]
    assert not out[10, 20].any() and not out[10, 31].any() and not out[28:37, 28:37].any()
    assert tuple(out[20, 50]) == pictures.COLOURS[0]
    assert not out[52:58, 17:24].any()
    tinted = np.round(np.array(pictures.COLOURS[1]) * 0.45)
    assert np.array_equal(out[45, 10], tinted) and not out[39, 10].any()
    assert not black.any(), "the picture that was given was changed"


def test_labels_are_told_by_name_and_soft_ones_by_their_largest_parts():
    assert pictures.label(torch.tensor([1, 0]), 0, ("cat", "dog")) == "dog"
    assert pictures.label(torch.tensor([1, 7]), 1, ("cat", "dog")) == "7"
    assert pictures.label(torch.tensor([[0.25, 0.0, 0.75]]), 0, ("a", "b", "c")) == "c 0.75, a 0.25"
    assert pictures.label(None, 0) == ""


def test_the_numbers_that_are_written_are_those_drawn():
    policy = ga.Policy(
        [ga.RandomCrop(8), ga.RandomInvert(0.5), ga.RandomChoice([ga.RandomErasing(1.0), ga.RandomRotation(30)])]
    )
    params = policy.draw(torch.arange(20), epoch=1, size=(32, 32))
    lines = [pictures.drawn(policy.transforms, params, i) for i in range(20)]
    for i, (crop, invert, choice) in enumerate(lines):
        assert crop == f"RandomCrop top={int(params[0]['top'][i])}, left={int(params[0]['left'][i])}"
        assert invert == f"RandomInvert {'applied' if params[1]['apply'][i] else 'not applied'}"
        chosen = ("RandomErasing", "RandomRotation")[int(params[2]["index"][i])]
        assert chosen in choice and ("RandomErasing" in choice) != ("RandomRotation" in choice)
    assert len({inv for _, inv, _ in lines}) == 2, "vacuous"


def test_one_image_fixed_views_and_views_of_a_loader_are_shown(images):
    given = batch(images, 2)
    for one in (given.images[0], given[0]):
        sheet = np.array(ga.show(one, POLICY, epochs=[1]))
        ids = torch.tensor([10 if isinstance(one, ga.Batch) else 0])
        out = POLICY(ga.Batch(given.images[:1], ids=ids, epoch=1))
        assert holds(sheet, out.images[0].permute(1, 2, 0).numpy())
    five = ga.Policy([ga.FiveCrop(20)])
    views = five(given)
    for sheet in (ga.show(given, five, epochs=[0]), ga.show(views)):
        for view in views:
            assert all(holds(np.array(sheet), p.permute(1, 2, 0).numpy()) for p in view.images)
    for refuse in (lambda: ga.show(given, five, epochs=[0], per_transform=True), lambda: ga.audit(five, given)):
        with pytest.raises(ValueError, match="5 fixed ones"):
            refuse()


def test_the_draws_of_a_batch_are_those_of_its_key_and_its_occurrences(images):
    given = batch(images, 8, occurrence=torch.arange(8) % 3, key=12345, valid=torch.arange(8) < 7)
    policy = ga.Policy([ga.RandomCrop(24), ga.ColorJitter(0.5)], seed=1)
    drawn = variants.draws(policy, given, 3)
    whole = policy(given.replace(epoch=3)).images
    assert torch.equal(policy.replay(given.images, drawn), whole)
    plain = variants.draws(policy, given.replace(occurrence=None, key=None), 3)
    assert not torch.equal(plain[0]["top"], drawn[0]["top"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epochs": [0]}, "without a policy"),
        ({"policy": POLICY, "epochs": []}, "at least one"),
        ({"policy": POLICY, "epochs": [-1]}, "epochs must be"),
        ({"policy": POLICY, "params": True}, "need epochs"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_a_sentence(images, given, words):
    with pytest.raises(ValueError, match=words):
        ga.show(batch(images), **given)
    with pytest.raises(TypeError, match="policy must be"):
        ga.show(batch(images), policy="moderate")


# ---- notebooks


def test_a_description_is_a_string_that_a_notebook_shows_with_its_lines():
    text = POLICY.describe((32, 32))
    assert isinstance(text, str) and text == str(text) and "step" in text
    html = text._repr_html_()
    assert "<pre" in html and html.count("\n") >= text.count("\n") - 1
    assert "<module>" not in type(text)("a\n<module>")._repr_html_()


def test_a_batch_in_a_notebook_is_a_table_with_its_first_images(images):
    given = batch(images, 10, labels=torch.arange(10))
    html = given._repr_html_()
    assert "uint8[10, 3, 40, 48]" in html and "int64[10]" in html
    uris = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert len(uris) == 8
    with Image.open(io.BytesIO(base64.b64decode(uris[3]))) as shown:
        assert np.array_equal(np.array(shown), given.images[3].permute(1, 2, 0).numpy())
    for other in (torch.zeros(2, 4, 3, 8, 8), "nothing that can be shown", [torch.zeros(3, 8, 8)]):
        assert "<table>" in ga.Batch(other)._repr_html_()


# ---- the command


def test_the_command_shows_what_the_loader_gave_that_sample_in_that_epoch(folder: Path, tmp_path: Path):  # noqa: F811
    policy = ga.Policy([ga.RandomResizedCrop(32), ga.RandomInvert(0.5), ga.ColorJitter(0.4)], seed=5)
    policy.save(tmp_path / "p.yaml")
    loader = ga.data.Loader(folder, policy, 2, seed=1, drop_last=False, device="cpu")
    found = {}
    for _ in range(3):
        for given in loader:
            where = (given.ids == 3) & given.valid
            if where.any():
                found[int(given.epoch)] = given.images[where][0].permute(1, 2, 0).numpy()
    assert sorted(found) == [0, 1, 2]
    out = tmp_path / "s.png"
    made = gpuaug("show", "--data", folder, "--policy", tmp_path / "p.yaml", "--out", out, "--ids", 3, "--epoch", 2)
    assert made.exit_code == 0, made.output
    with Image.open(out) as sheet:
        pixels = np.array(sheet)
    assert holds(pixels, found[2])
    assert not holds(pixels, found[1]) and not holds(pixels, found[0])


def data_of(html: str) -> Any:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S).group(1))


def test_the_page_holds_every_epoch_and_every_combination_and_asks_nothing_of_the_net(folder: Path, tmp_path: Path):  # noqa: F811
    out = tmp_path / "s.html"
    made = gpuaug("show", "--data", folder, "--policy", "moderate", "--out", out, "--ids", "0,4", "--epoch", "0,7,9")
    assert made.exit_code == 0, made.output
    html = out.read_text()
    data = data_of(html)
    assert data["epochs"] == [0, 7, 9]
    # crop, flip, jitter, erasing
    assert sorted(data["shown"]) == sorted(",".join(map(str, c)) for c in page.choices([0, 1, 2, 5]))
    assert len(data["shown"]) == 16
    shown = {tuple(map(tuple, v)) for v in data["shown"].values()}
    assert len(shown) > 8, "switches change nothing"
    assert len({v for row in data["shown"][""] for v in row}) == 6
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|https?:|@import|fetch\(""", html)
    assert not re.search(r"%[A-Z]+%", html), "a hole of the template is left"


def test_a_page_of_many_transforms_turns_off_one_at_a_time():
    assert page.choices([3]) == [(), (3,)]
    assert page.choices(range(5)) == [(), (0,), (1,), (2,), (3,), (4,)]


def test_text_of_a_data_set_cannot_break_out_of_the_page(folder: Path, tmp_path: Path):  # noqa: F811
    (folder / "red").rename(folder / "<b>&")
    out = tmp_path / "s.html"
    made = gpuaug("show", "--data", folder, "--policy", "weak", "--out", out, "--epoch", 0)
    assert made.exit_code == 0, made.output
    assert "<b>" not in out.read_text() and "&lt;b&gt;&amp;" in out.read_text()


def test_boxes_of_a_file_are_drawn(folder: Path, tmp_path: Path):  # noqa: F811
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({
        "images": [{"id": 1, "file_name": "c.jpg"}],
        "annotations": [{"image_id": 1, "bbox": [5, 6, 20, 15], "category_id": 1}],
    }))  # fmt: skip
    out = tmp_path / "s.png"
    common = ("show", "--data", folder, "--policy", "none", "--out", out, "--ids", 2, "--epoch", 0)
    assert gpuaug(*common).exit_code == 0
    red = np.array(pictures.COLOURS[0])
    without = (np.array(Image.open(out)) == red).all(2).sum()
    assert gpuaug(*common, "--boxes", boxes).exit_code == 0
    assert (np.array(Image.open(out)) == red).all(2).sum() >= without + 100


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--data": "nowhere"}, "nowhere"),
        ({"--data": "empty"}, "holds neither"),
        ({"--policy": "modest"}, "moderate"),
        ({"--policy": "gone.yaml"}, "gone.yaml"),
        ({"--out": "s.gif"}, ".png or .html"),
        ({"--out": "gone/s.png"}, "is no folder"),
        ({"--ids": "99"}, "0 to 4"),
        ({"--ids": "a"}, "commas"),
        ({"--epoch": "-1"}, "commas"),
        ({"--boxes": "gone.json"}, "gone.json"),
        ({"--boxes": "bad.json"}, "no JSON"),
        ({"--boxes": "other.json"}, "COCO"),
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
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "other.json").write_text('{"images": 3}')
    before = sorted(tmp_path.rglob("*"))
    given = {"--data": str(folder), "--policy": "weak", "--out": "s.png"} | changes
    refused(gpuaug("show", *(w for pair in given.items() for w in pair)), words)
    assert sorted(tmp_path.rglob("*")) == before
