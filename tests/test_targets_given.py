"""Targets of a Batch as users have them: every dtype, device of work, list and single sample, and what is refused."""

import math

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision.transforms.v2 as v2
from torch import Tensor
from torchvision import tv_tensors

import gpuaug as ga

N, H, W = 4, 12, 17
IDS = torch.arange(N)
X = torch.randint(0, 256, (N, 3, H, W), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
FLIP = ga.Policy([ga.RandomHorizontalFlip(p=1.0)])
CROP = ga.Policy([ga.RandomResizedCrop((9, 8)), ga.RandomHorizontalFlip(), ga.ColorJitter(0.4, 0.4, 0.4)], seed=3)
BOXES = torch.tensor([[[2.0, 3.0, 10.0, 11.0], [0.0, 0.0, 17.0, 12.0]]]).repeat(N, 1, 1)
POINTS = torch.tensor([[[3.0, 4.0], [16.0, 11.0]]]).repeat(N, 1, 1)
DTYPES = (
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
)


def extremes(dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """Values to both ends of a dtype."""
    if dtype == torch.bool:
        return torch.rand(shape) > 0.5
    if dtype.is_floating_point:
        return torch.randn(shape, dtype=torch.float64).mul(1e4).to(dtype)
    info = torch.iinfo(dtype)
    return torch.from_numpy(np.random.default_rng(0).integers(info.min, info.max, shape, endpoint=True)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("several", "backend"),
    [
        pytest.param(several, backend, marks=[pytest.mark.slow] if several and backend == "triton" else [])
        for several in ((), (3,))
        for backend in ("reference", "cpu", "triton")
    ],
)
def test_masks_of_any_dtype_keep_their_values_to_the_bit(dtype, several, backend):
    masks = extremes(dtype, (N, *several, H, W))
    out = FLIP(ga.Batch(X, masks=masks), backend=backend)
    assert out.masks.dtype == dtype and torch.equal(out.masks, masks.flip(-1))
    # the values of a resized mask are among those of the mask
    got = CROP(ga.Batch(X, masks=masks, ids=IDS), backend=backend).masks
    want = CROP(ga.Batch(X, masks=masks.double(), ids=IDS), backend="reference").masks
    assert got.shape == (N, *several, 9, 8) and torch.equal(got.double(), want)


def test_a_border_is_zero_or_the_value_that_is_asked_for():
    pad = ga.Policy([ga.Pad(2, fill=0.5)])
    for fill in (0, 255, -1):
        for dtype in (torch.int64, torch.int16, torch.float32):
            out = pad(ga.Batch(X, masks=torch.ones(N, H, W, dtype=dtype), mask_fill=fill)).masks
            assert (out[:, 2:-2, 2:-2] == 1).all() and (out[:, :2] == fill).all() and (out[:, :, -2:] == fill).all()
    turn = ga.Policy([ga.RandomRotation((45, 45), fill=0.5)])
    assert (turn(ga.Batch(X, masks=torch.ones(N, H, W, dtype=torch.uint8), mask_fill=255)).masks[:, 0, 0] == 255).all()


def test_float_masks_are_interpolated_on_request_as_an_image_without_fill_is():
    depth = torch.rand(N, 1, H, W)
    moves = ga.Policy(
        [ga.RandomResizedCrop((9, 8)), ga.RandomRotation(30, interpolation="bilinear", fill=None)], seed=3
    )
    colours = ga.Policy([*moves.transforms, ga.ColorJitter(0.4)], seed=3)
    out = colours(ga.Batch(X, masks=depth, mask_interpolation="bilinear", ids=IDS))
    assert torch.allclose(out.masks, moves(depth, ids=IDS), atol=1e-6)
    nearest = colours(ga.Batch(X, masks=depth, ids=IDS)).masks
    assert not torch.allclose(out.masks, nearest, atol=1e-2), "vacuous"


def test_targets_are_what_they_are_alone_in_another_order_and_by_a_recipe():
    masks = torch.randint(0, 9, (N, H, W))
    first, again = (
        CROP(ga.Batch(X, ids=IDS, masks=masks, boxes=BOXES, box_format="XYXY", keypoints=POINTS), epoch=1)
        for _ in range(2)
    )
    plain = CROP(X, ids=IDS, epoch=1)
    for out in (first, again):
        assert torch.equal(out.images, plain), "targets change nothing of the images"
    for name in ("masks", "boxes", "box_valid", "keypoints", "visible"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    order = torch.tensor([2, 0, 3, 1])
    batch = ga.Batch(X, ids=IDS, masks=masks, boxes=BOXES, box_format="XYXY", keypoints=POINTS)
    mixed = CROP(batch[order], epoch=1)
    one = CROP(batch[2], epoch=1)
    for name in ("images", "masks", "boxes", "box_valid", "keypoints", "visible"):
        assert torch.equal(getattr(mixed, name), getattr(first, name)[order]), name
        assert torch.equal(getattr(one, name), getattr(first, name)[2]), name


def test_images_of_different_sizes_have_masks_and_boxes_of_their_own():
    images = [torch.randint(0, 256, (10 + i, 20 - i, 3), dtype=torch.uint8) for i in range(N)]
    masks = [torch.randint(0, 5, i.shape[:2]) for i in images]
    boxes = [torch.tensor([[1.0, 2, 8, 9]] * i).reshape(-1, 4) for i in range(N)]
    out = CROP(ga.Batch(images, masks=masks, boxes=boxes, box_format="XYXY", ids=IDS))
    assert out.masks.shape == (N, 9, 8) and out.boxes.shape == (N, 3, 4)
    assert not out.box_valid[0].any() and out.box_valid.any()
    assert all(not out.box_valid[i, i:].any() and not out.boxes[i, i:].any() for i in range(N))
    for i in range(N):
        alone = CROP(ga.Batch(images[i].permute(2, 0, 1), masks=masks[i], boxes=boxes[i], box_format="XYXY", ids=i))
        assert torch.equal(alone.masks, out.masks[i])
        assert torch.equal(alone.boxes, out.boxes[i, :i]) and torch.equal(alone.box_valid, out.box_valid[i, :i])


def test_what_is_read_by_windows_gives_the_targets_of_whole_images():
    images = [torch.randint(0, 256, (20 + i, 24, 3), dtype=torch.uint8) for i in range(N)]
    given = {"masks": [torch.randint(0, 5, i.shape[:2]) for i in images], "keypoints": [POINTS[0]] * N, "ids": IDS}
    ahead = CROP.windows(IDS, [i.shape[:2] for i in images], epoch=0)
    parts = [i[t : t + h, x : x + w] for i, (t, x, h, w) in zip(images, ahead.windows.tolist(), strict=True)]
    read = ga.Ragged.windowed(parts, [i.shape[:2] for i in images], ahead.windows)
    got = CROP(ga.Batch(read, params=ahead.params, **given))
    want = CROP(ga.Batch(images, epoch=0, **given))
    for name in ("images", "masks", "keypoints", "visible"):
        assert torch.equal(getattr(got, name), getattr(want, name)), name


def test_colours_and_erasing_leave_targets_as_they_are():
    still = ga.Policy(
        [ga.ToDtype(torch.float32, scale=True), ga.ColorJitter(0.5), ga.RandomErasing(p=1.0), ga.GaussianNoise()]
    )
    masks = torch.randint(0, 9, (N, H, W))
    out = still(ga.Batch(X, masks=masks, boxes=BOXES, box_format="XYXY", keypoints=POINTS))
    assert torch.equal(out.masks, masks) and torch.equal(out.boxes, BOXES) and torch.equal(out.keypoints, POINTS)
    assert out.box_valid.all() and out.visible.all()


def test_a_choice_moves_the_targets_of_those_samples_whose_images_it_moves():
    ids = torch.arange(32)
    images = torch.zeros(32, 1, H, W)
    images[:, :, 3, 4] = 1
    points = torch.tensor([[[4.0, 3.0]]]).repeat(32, 1, 1)
    policy = ga.Policy(
        [
            ga.RandomApply([ga.RandomHorizontalFlip(p=1.0), ga.RandomVerticalFlip(p=1.0)], p=0.5),
            ga.RandomChoice([ga.RandomHorizontalFlip(p=1.0), ga.RandomInvert(p=0.0), ga.RandomVerticalFlip(p=1.0)]),
            ga.RandomOrder([ga.RandomHorizontalFlip(), ga.RandomAffine(0, translate=(0.1, 0.1))]),
        ]
    )
    out = policy(ga.Batch(images, keypoints=points, masks=images[:, 0] > 0, ids=ids))
    assert torch.equal(out.masks, out.images[:, 0] > 0)
    shown = out.masks.flatten(1).any(1)
    at = out.masks.flatten(1).long().argmax(1)
    assert torch.equal(out.keypoints[shown, 0], torch.stack([at % W, at // W], 1)[shown].float())
    assert shown.float().mean() > 0.8 and len(at.unique()) > 4, "vacuous"
    assert torch.equal(out.visible[:, 0], shown)


def test_cutmix_pastes_the_mask_of_the_partner_and_refuses_boxes():
    policy = ga.Policy([ga.CutMix(num_classes=3), ga.RandomHorizontalFlip()], seed=2)
    masks = torch.arange(N)[:, None, None].expand(N, H, W)
    images = masks[:, None].float() / 8
    labels = torch.arange(N) % 3
    out = policy(ga.Batch(images, labels, ids=IDS, masks=masks))
    assert torch.equal(out.masks.float() / 8, out.images[:, 0]) and len(out.masks[0].unique()) == 2
    for given in ({"boxes": BOXES, "box_format": "XYXY"}, {"keypoints": POINTS}):
        with pytest.raises(ValueError, match="boxes and keypoints cannot follow a CutMix"):
            policy(ga.Batch(images, labels, **given))
    with pytest.raises(ValueError, match="masks cannot follow a MixUp"):
        ga.Policy([ga.MixUp(num_classes=3)])(ga.Batch(images, labels, masks=masks))
    soft = ga.Policy([ga.MixUp(num_classes=3)], seed=1)(
        ga.Batch(images, labels, masks=images[:, 0], mask_interpolation="bilinear")
    )
    assert torch.allclose(soft.masks, soft.images[:, 0])


def test_small_boxes_and_those_of_which_little_is_left_are_no_longer_valid():
    boxes = torch.tensor([[[0.0, 0, 17, 12], [0, 0, 2, 2], [3, 3, 3, 5]]]).repeat(N, 1, 1)
    crop = ga.Policy([ga.CenterCrop((12, 9))])
    given = {"boxes": boxes, "box_format": "XYXY"}
    assert crop(ga.Batch(X, **given)).box_valid[0].tolist() == [True, False, False]
    assert crop(ga.Batch(X, min_visibility=9 / 17 - 1e-9, **given)).box_valid[0, 0]
    assert not crop(ga.Batch(X, min_visibility=9 / 17 + 1e-9, **given)).box_valid[0, 0]
    assert not crop(ga.Batch(X, min_area=109, **given)).box_valid[0, 0]
    assert crop(ga.Batch(X, min_area=108, **given)).box_valid[0, 0]
    assert not crop(ga.Batch(X, box_valid=torch.zeros(N, 3, dtype=torch.bool), **given)).box_valid.any()


def test_what_a_crop_takes_away_does_not_come_back_by_a_padding():
    policy = ga.Policy([ga.CenterCrop((6, 7)), ga.Pad(5)])
    out = policy(ga.Batch(X, boxes=BOXES[:, 1:], box_format="XYXY", keypoints=torch.zeros(N, 1, 2)))
    assert out.boxes[0, 0].tolist() == [5, 5, 12, 11] and not out.visible.any()
    assert out.keypoints[0, 0].tolist() == [0, 2], "where it would be"


def test_nan_points_stay_and_are_not_visible_and_marks_of_three_values_are_kept():
    points = torch.tensor([[[math.nan, 2.0], [1.0, 1.0], [5.0, 5.0], [40.0, 3.0]]])
    out = FLIP(ga.Batch(X[:1], keypoints=points, visible=torch.tensor([[2, 1, 2, 2]])))
    assert out.visible.tolist() == [[0, 1, 2, 0]] and out.keypoints[0, 0].isnan().any()


def test_boxes_outside_the_image_are_not_valid_and_those_upside_down_are_refused():
    out = FLIP(ga.Batch(X[:1], boxes=torch.tensor([[[20.0, 3, 30, 9], [-5, -5, 4, 6]]]), box_format="XYXY"))
    assert out.box_valid.tolist() == [[False, True]] and out.boxes[0, 1].tolist() == [13, 0, 17, 6]
    for bad in ([9.0, 3, 2, 9], [0.0, math.nan, 3, 4]):
        with pytest.raises(ValueError, match=r"boxes must not be upside down or NaN.* box 0 of image 0"):
            FLIP(ga.Batch(X[:1], boxes=torch.tensor([[bad]]), box_format="XYXY"))
        gone = torch.zeros(1, 1, dtype=torch.bool)
        assert not FLIP(ga.Batch(X[:1], boxes=torch.tensor([[bad]]), box_format="XYXY", box_valid=gone)).box_valid.any()


REFUSED = [
    ({"boxes": BOXES}, "boxes came without a format"),
    ({"boxes": BOXES, "box_format": "xyzw"}, "box_format must be one of XYXY, XYWH, CXCYWH"),
    ({"boxes": BOXES[:2], "box_format": "XYXY"}, "boxes must have one row per image, 4, got 2"),
    ({"boxes": BOXES[..., :3], "box_format": "XYXY"}, r"boxes must be \[4, K, 4\]"),
    ({"boxes": BOXES > 1, "box_format": "XYXY"}, "boxes must be numbers"),
    ({"boxes": BOXES, "box_format": "XYXY", "box_valid": torch.ones(N, 3, dtype=torch.bool)}, r"box_valid must be \[4, 2\]"),
    ({"boxes": BOXES, "box_format": "XYXY", "box_valid": torch.ones(N, 2)}, "box_valid must be bool"),
    ({"box_valid": torch.ones(N, 2, dtype=torch.bool)}, "box_valid came without boxes"),
    ({"boxes": BOXES, "box_format": "XYXY", "min_area": -1}, "min_area must be"),
    ({"boxes": BOXES, "box_format": "XYXY", "min_visibility": 2}, "min_visibility must be"),
    ({"keypoints": POINTS[:3]}, "keypoints must have one row per image, 4, got 3"),
    ({"keypoints": torch.zeros(N, 2, 3)}, r"keypoints must be \[4, K, 2\]"),
    ({"keypoints": POINTS, "visible": torch.ones(N, 2)}, "visible must be bool or integers"),
    ({"visible": torch.ones(N, 2, dtype=torch.bool)}, "visible came without keypoints"),
    ({"masks": torch.zeros(N, H, W + 1)}, r"masks must have the size of their images, got \(12, 18\)"),
    ({"masks": torch.zeros(N + 1, H, W)}, "masks must have one row per image, 4, got 5"),
    ({"masks": [torch.zeros(H, W)] * 3}, "masks must have one row per image, 4, got 3"),
    ({"masks": torch.zeros(N, H, W, dtype=torch.complex64)}, "masks must be of one dtype"),
    ({"masks": torch.zeros(N, H)}, "masks must be"),
    ({"masks": torch.zeros(N, H, W, dtype=torch.int64), "mask_interpolation": "bilinear"}, "needs float masks"),
    ({"masks": torch.zeros(N, H, W), "mask_interpolation": "cubic"}, "mask_interpolation must be"),
    ({"masks": 3}, "masks must be a tensor"),
    ({"masks": torch.zeros(N, H, W, dtype=torch.uint8), "mask_fill": -1}, "mask_fill must be a value of the masks' uint8, 0 to 255"),
    ({"masks": torch.zeros(N, H, W, dtype=torch.bool), "mask_fill": 0.5}, "mask_fill must be"),
    ({"masks": torch.zeros(N, H, W, device="meta")}, "masks must be on the device of the images"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "words"), REFUSED)
def test_bad_targets_are_refused_in_words_and_take_no_numbers(given, words):
    policy = ga.Policy([ga.RandomHorizontalFlip()])
    before = policy.next_id.clone()
    with pytest.raises((TypeError, ValueError), match=words):
        policy(ga.Batch(X, **given))
    assert torch.equal(policy.next_id, before)


def test_what_moves_pixels_in_a_way_that_nobody_knows_is_refused_by_name():
    for steps, words in (([ga.Lambda(lambda x: x.flip(-1))], "lambda"), ([ga.AugMix()], "AugMix")):
        with pytest.raises(ValueError, match=f"masks, boxes and keypoints cannot follow .*{words}"):
            ga.Policy(steps)(ga.Batch(X, keypoints=POINTS))


def test_a_batch_without_samples_or_without_boxes_stays_one():
    out = CROP(ga.Batch(X[:0], masks=torch.zeros(0, H, W), boxes=BOXES[:0], box_format="XYXY", keypoints=POINTS[:0]))
    assert out.masks.shape == (0, 9, 8) and out.boxes.shape == (0, 2, 4) and out.visible.shape == (0, 2)
    out = CROP(ga.Batch(X, masks=torch.zeros(N, 0, H, W), boxes=[[]] * N, box_format="XYXY", keypoints=[[]] * N))
    assert out.masks.shape == (N, 0, 9, 8) and out.boxes.shape == (N, 0, 4) and out.keypoints.shape == (N, 0, 2)


def test_replay_moves_targets_as_the_call_did():
    batch = ga.Batch(X, ids=IDS, masks=torch.randint(0, 9, (N, H, W)), boxes=BOXES, box_format="XYXY", keypoints=POINTS)
    want, got = CROP(batch, epoch=2), CROP.replay(batch, CROP.draw(IDS, size=(H, W), epoch=2))
    for name in ("images", "masks", "boxes", "box_valid", "keypoints", "visible"):
        assert torch.equal(getattr(got, name), getattr(want, name)), name


def test_a_batch_with_targets_moves_prints_and_goes_through_a_compiled_function():
    batch = ga.Batch(X, ids=IDS, masks=torch.zeros(N, H, W), boxes=[[[1, 2, 3, 4]]] * N, box_format="XYXY", min_area=2)
    moved = batch.to("cpu")
    assert moved.box_format == "XYXY" and moved.min_area == 2 and "min_area=2" in repr(batch)
    assert "mask_fill" not in repr(batch), "what is as usual is not told"
    want = FLIP(batch)
    got = torch.compile(lambda b: FLIP(b), backend="eager")(moved)
    for name in ("images", "masks", "boxes", "box_valid"):
        assert torch.equal(getattr(got, name), getattr(want, name))
    assert torch.equal(want[1:3].box_valid, want.box_valid[1:3]) and batch[[0, 2]].boxes == [batch.boxes[0]] * 2


# ---- torchvision's samples


def sample() -> dict[str, object]:
    return {
        "image": tv_tensors.Image(X[0]),
        "boxes": tv_tensors.BoundingBoxes(BOXES[0], format="XYXY", canvas_size=(H, W)),
        "masks": tv_tensors.Mask(torch.randint(0, 2, (2, H, W), dtype=torch.bool)),
        "labels": torch.tensor([3, 4]),
        "file": "a.jpg",
    }


def test_a_sample_of_torchvision_comes_back_as_its_own_transforms_give_it():
    steps = [("RandomHorizontalFlip", {"p": 1.0}), ("Resize", {"size": (24, 20)}), ("CenterCrop", {"size": (16, 10)})]
    given = sample()
    want = v2.Compose([getattr(v2, name)(**a) for name, a in steps])(given)
    policy = ga.Policy([getattr(ga, name)(**a) for name, a in steps])
    for form in (lambda s: s, lambda s: (s["image"], {k: v for k, v in s.items() if k != "image"})):
        got, wanted = policy(form(given)), form(want)
        assert type(got) is type(wanted)
        got, wanted = ({"image": v[0], **v[1]} if isinstance(v, tuple) else v for v in (got, wanted))
        assert list(got) == list(wanted)
        for name in ("boxes", "masks", "image"):
            assert type(got[name]) is type(wanted[name]) and got[name].shape == wanted[name].shape
        assert torch.equal(got["masks"], wanted["masks"]) and torch.allclose(got["boxes"], wanted["boxes"])
        assert got["boxes"].canvas_size == (16, 10) and got["boxes"].format == given["boxes"].format
        assert got["file"] == "a.jpg" and got["labels"] is given["labels"]
    image, target = policy(given["image"], {"boxes": given["boxes"]})
    assert torch.allclose(target["boxes"], want["boxes"]) and isinstance(image, tv_tensors.Image)


def test_pil_images_and_plain_masks_are_taken_by_their_names():
    mask = np.random.default_rng(0).integers(0, 5, (H, W), np.uint8)
    out = FLIP({"image": PIL.Image.fromarray(X[0].permute(1, 2, 0).numpy()), "mask": torch.from_numpy(mask)})
    assert torch.equal(out["image"], X[0].flip(-1)) and torch.equal(out["mask"], torch.from_numpy(mask).flip(-1))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"boxes": sample()["boxes"]}, "got one with none"),
        ({"image": X}, "got one with none"),
        ({"a": tv_tensors.Image(X[0]), "b": tv_tensors.Image(X[1])}, "one image"),
        ({"image": X[0], "boxes": BOXES[0]}, "without a format"),
        ({"image": X[0], "masks": tv_tensors.Mask(torch.zeros(3, 3))}, "size of their image"),
        ({"image": X[0], "b": tv_tensors.BoundingBoxes(BOXES[0], format="XYXY", canvas_size=(3, 3))}, "canvas_size"),
    ],
)
def test_bad_samples_are_refused_in_words(given, words):
    with pytest.raises((TypeError, ValueError), match=words):
        FLIP(given)


def test_masks_follow_an_elastic_field_and_jpeg_leaves_targets_alone():
    mask = (torch.arange(30)[:, None] + torch.arange(40) > 30).long()
    policy = ga.Policy([ga.JPEG(50), ga.ElasticTransform(30.0, 2.0)], seed=3)
    images = mask[None, None].float().expand(2, 3, 30, 40).contiguous()
    given = ga.Batch(images, masks=mask.expand(2, 30, 40).contiguous(), ids=torch.arange(2))
    out = policy(given)
    # where the image is bright the mask is too, but for the pixels that lie on its edge
    agree = ((out.images[:, 0] > 0.5) == (out.masks == 1)).double().mean()
    assert agree > 0.97 and not torch.equal(out.masks, given.masks)
    boxed = given.replace(masks=None, boxes=torch.tensor([[[1.0, 2.0, 9.0, 9.0]]] * 2), box_format="XYXY")
    with pytest.raises(ValueError, match="boxes and keypoints cannot follow ElasticTransform"):
        policy(boxed)
    assert torch.equal(ga.Policy([ga.JPEG(50)])(boxed).boxes, boxed.boxes)
    with pytest.raises(ValueError, match="ElasticTransform cannot be undone"):
        policy.undo(out.images, policy.draw(torch.arange(2), size=(30, 40)))
