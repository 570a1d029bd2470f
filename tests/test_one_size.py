"""Samples that differ in size for a while: rotations that make room for a range of angles, and choices among
transforms that all end in one size."""

import pytest
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from build import quick
from compare import compare

import gpuaug as ga

BACKENDS = ("reference", "cpu", "triton")
EACH = pytest.mark.parametrize("backend", BACKENDS)
N = 8
IDS = torch.arange(N)
CROP = ga.RandomResizedCrop
LIST = [torch.rand(3, 19 + 2 * i, 33 - 3 * i, generator=torch.Generator().manual_seed(i)) for i in range(N)]
DENSE = torch.rand(N, 3, 23, 31, generator=torch.Generator().manual_seed(9))


# ---- a rotation that makes room

THEN = {
    "resize": ([ga.Resize((16, 18))], lambda y: F.resize(y, [16, 18])),
    "center": ([ga.CenterCrop(20)], lambda y: F.center_crop(y, [20, 20])),
    "both": ([ga.Resize(14), ga.CenterCrop(14)], lambda y: F.center_crop(F.resize(y, [14]), [14, 14])),
    "flip": ([ga.RandomHorizontalFlip(1.0), ga.Resize((9, 11))], lambda y: F.resize(y.flip(2), [9, 11])),
}


TURNS = [(degrees, then) for degrees in ((-30.0, 75.0), 180.0) for then in THEN]


@EACH
@pytest.mark.parametrize(("degrees", "then"), quick(TURNS, *TURNS[:4], TURNS[6]))
def test_a_rotation_makes_room_for_each_angle_of_a_range_as_torchvision_does(degrees, then, backend):
    ours, theirs = THEN[then]
    policy = ga.Policy([ga.RandomRotation(degrees, "bilinear", expand=True, fill=0.3), *ours], seed=3)
    params = policy.draw(IDS, size=(23, 31), dtype=torch.float32)
    angles = params[0]["angle"].tolist()
    turned = [
        F.rotate(x, a, v2.InterpolationMode.BILINEAR, expand=True, fill=[0.3] * 3)
        for x, a in zip(DENSE, angles, strict=True)
    ]
    assert len({y.shape for y in turned}) > 4, "vacuous: one size"
    compare(policy.replay(DENSE, params, backend=backend), torch.stack(list(map(theirs, turned))), "resample", then)


def test_every_sample_of_a_range_is_what_it_is_alone():
    policy = ga.Policy([ga.RandomRotation((10.0, 80.0), expand=True), CROP(12), ga.ColorJitter(0.4)], seed=1)
    together = policy(DENSE, ids=IDS)
    alone = [policy(x[None], ids=IDS[i : i + 1]) for i, x in enumerate(DENSE)]
    assert torch.equal(together, torch.cat(alone))
    assert "recipe" in policy.describe((23, 31)) or "compiled call" in policy.describe((23, 31))


def test_targets_follow_a_rotation_that_makes_room():
    policy = ga.Policy([ga.RandomRotation((20.0, 70.0), expand=True), ga.Resize((64, 64))], seed=5)
    masks = torch.zeros(N, 40, 60, dtype=torch.uint8)
    masks[:, 10:20, 15:40] = 1
    box = torch.tensor([[[15.0, 10, 40, 20]]] * N)
    middle = torch.tensor([[[27.0, 14.5]]] * N)
    out = policy(ga.Batch(masks[:, None].float(), ids=IDS, masks=masks, boxes=box, box_format="XYXY", keypoints=middle))
    for mask, (x0, y0, x1, y1), point in zip(out.masks, out.boxes[:, 0].tolist(), out.keypoints[:, 0], strict=True):
        y, x = mask.nonzero().double().unbind(1)
        assert len(x) > 50, "vacuous"
        # the hull of a thin corner is a pixel or two beyond what is painted
        for near, far in ((x0, x.min()), (y0, y.min()), (x.max() + 1, x1), (y.max() + 1, y1)):
            assert -1.5 <= float(far) - float(near) <= 2.5
        assert (torch.stack([x.mean(), y.mean()]) - point).abs().max() < 1


def test_sizes_that_differ_must_be_made_one():
    turn = ga.RandomRotation(30, expand=True)
    with pytest.raises(ValueError, match="end in different sizes"):
        ga.Policy([turn])(DENSE)
    with pytest.raises(ValueError, match="ColorJitter needs images of one size"):
        ga.Policy([turn, ga.ColorJitter(0.5), ga.Resize((8, 8))])(DENSE)
    with pytest.raises(ValueError, match="RandomRotation needs images of one size"):
        ga.Policy([turn, ga.Resize((8, 8))])(LIST)


# ---- choices

CHOICES = {
    "interpolations": [CROP(16), CROP(16, interpolation="bicubic"), CROP(16, interpolation="nearest")],
    "pipelines": [CROP((12, 16)), ga.RandomApply([ga.Resize(18), ga.CenterCrop((12, 16))], 1.0)],
    "colours after": [CROP(16), ga.RandomApply([ga.Resize((16, 16)), ga.ColorJitter(0.5, 0.5)], 1.0)],
}


@EACH
@pytest.mark.parametrize("which", CHOICES)
@pytest.mark.parametrize("images", [DENSE, LIST], ids=["dense", "ragged"])
def test_a_choice_gives_each_sample_what_its_transform_alone_would(images, which, backend):
    children = CHOICES[which]
    then = [ga.RandomHorizontalFlip(1.0), ga.ColorJitter(contrast=(0.5, 0.5))]
    policy = ga.Policy([ga.RandomChoice(children), *then], seed=5)
    size = torch.tensor([i.shape[1:] for i in images])
    params = policy.draw(IDS, size=size, dtype=torch.float32)
    chosen = params[0]["index"].tolist()
    assert len(set(chosen)) == len(children), "vacuous: not every transform is chosen"
    got = policy.replay(images, params, backend=backend)
    for row, k in enumerate(chosen):
        alone = ga.Policy([children[k], *then])
        own = alone.draw(IDS[:1], size=tuple(images[row].shape[1:]), dtype=torch.float32)
        own[0].update({name: _row(v, row) for name, v in params[0]["transforms"][k].items()})
        want = alone.replay(images[row][None], own, backend="reference")
        compare(got[row : row + 1], want, "resample, jump", f"{which}, sample {row} by {children[k]}")


def _row(value: object, row: int) -> object:
    if isinstance(value, list):
        return [{k: _row(v, row) for k, v in inner.items()} for inner in value]
    return value[row : row + 1]


@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_a_choice_among_interpolations_is_one_step(backend):
    policy = ga.Policy([ga.RandomChoice([CROP(16), CROP(16, interpolation="bicubic")]), ga.RandomInvert(0.5)])
    said = policy.describe((23, 31), backend=backend)
    assert f"backend {backend}: 1 step" in said and "reference" not in said


def test_targets_and_their_way_back_follow_a_choice():
    policy = ga.Policy([ga.RandomChoice([CROP(16, (0.4, 1.0)), ga.Resize((16, 16), "bicubic")])], seed=2)
    masks = torch.randint(0, 5, (N, 23, 31))
    batch = ga.Batch(DENSE, ids=IDS, masks=masks, keypoints=torch.tensor([[[15.0, 11]]] * N))
    first, *others = (policy(batch, backend=b) for b in BACKENDS)
    for other in others:
        assert torch.equal(other.masks, first.masks) and torch.equal(other.keypoints, first.keypoints)
    params = policy.draw(IDS, size=(23, 31), dtype=torch.float32)
    back, seen = policy.undo(policy.replay(DENSE, params), params)
    whole = params[0]["index"] == 1
    assert back.shape == DENSE.shape and 0 < whole.sum() < N
    assert seen[whole].all() and not seen[~whole].all()


def test_choices_among_sizes_are_refused_in_words():
    for children in ([CROP(16), CROP(12)], [CROP(16), ga.RandomInvert()]):
        with pytest.raises(ValueError, match="all end in one and the same, got 16x16 of"):
            ga.Policy([ga.RandomChoice(children)])(DENSE)
    for container in (ga.RandomApply([CROP(16)], 0.5), ga.RandomOrder([CROP(16), ga.RandomInvert()])):
        with pytest.raises(ValueError, match="must hold transforms that keep size"):
            ga.Policy([container])(DENSE)
    # as many children as keep the size that there is
    assert ga.Policy([CROP(16), ga.RandomChoice([CROP(16), ga.RandomInvert()])])(DENSE).shape == (N, 3, 16, 16)


def test_a_choice_of_pipelines_comes_from_torchvision():
    pipeline = v2.RandomChoice([v2.Compose([v2.Resize(20), v2.CenterCrop(16)]), v2.RandomResizedCrop(16)])
    policy = ga.from_torchvision(pipeline)
    assert policy(DENSE).shape == (N, 3, 16, 16)
    assert ga.Policy.from_dict(policy.to_dict()) == policy
