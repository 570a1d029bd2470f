"""The geometry of a call on data that comes later, and predictions brought back onto the originals."""

import math

import pytest
import torch
from build import build, case, cases, spec
from torch import Tensor

import gpuaug as ga

N, H, W = 4, 24, 30
IDS = torch.arange(N)
BACKENDS = ("reference", "cpu", "triton")
STEPS = [ga.RandomResizedCrop((20, 18), scale=(0.4, 1.0)), ga.RandomHorizontalFlip(), ga.RandomRotation(25)]
POLICY = ga.Policy([*STEPS, ga.ColorJitter(0.4, 0.4), ga.RandomErasing(p=1.0)], seed=4)
# what is neither mixed, nor blended of several, nor a function
UNDONE = [
    p
    for p in cases()
    if spec(p.values[0]).moves and not spec(p.values[0]).mixes and p.values[0] not in ("AugMix", "ElasticTransform")
]


def smooth(size: tuple[int, int], n: int = N) -> Tensor:
    """[n, 2, H, W]: waves of 40 pixels and more, whose second derivative is below (2 pi / 40)^2."""
    y, x = torch.meshgrid(*(torch.arange(v, dtype=torch.float32) for v in size), indexing="ij")
    return torch.stack([torch.sin(2 * math.pi * x / 40), torch.cos(2 * math.pi * (x + y) / 60)]).expand(n, -1, -1, -1)


def drawn(policy: ga.Policy, size: tuple[int, int] = (H, W)) -> ga.Params:
    return policy.draw(IDS, size=size, dtype=torch.float32, epoch=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_replay_of_other_data_is_what_the_batch_would_have_given(backend):
    masks, points = torch.randint(0, 300, (N, H, W)), torch.rand(N, 3, 2) * 20
    boxes = torch.tensor([[[2.0, 3, 12, 9]]]).repeat(N, 1, 1)
    given = {"masks": masks, "keypoints": points, "boxes": boxes, "box_format": "XYWH"}
    want = POLICY(ga.Batch(torch.rand(N, 3, H, W), ids=IDS, **given), epoch=0, backend=backend)
    params = drawn(POLICY)
    assert torch.equal(POLICY.replay(masks, params, like="mask", backend=backend), want.masks)
    moved, visible = POLICY.replay(points, params, like="points")
    assert torch.equal(moved, want.keypoints) and torch.equal(visible, want.visible)
    moved, valid = POLICY.replay(boxes, params, like="boxes", box_format="XYWH")
    assert torch.equal(moved, want.boxes) and torch.equal(valid, want.box_valid)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.int16])
def test_replay_like_an_image_is_the_policy_without_its_colours(dtype, backend):
    depth = (torch.rand(N, 1, H, W) * 100).to(dtype)
    got = POLICY.replay(depth, drawn(POLICY), like="image", backend=backend)
    want = ga.Policy(STEPS, seed=4)(depth, ids=IDS, epoch=0, backend=backend)
    assert got.dtype == dtype and torch.equal(got, want)


def test_a_prefix_of_the_parameters_is_the_prefix_of_the_policy():
    params = drawn(POLICY)
    for k in range(1, 5):
        part = ga.Policy(POLICY.transforms[:k], seed=4)
        masks = torch.randint(0, 300, (N, H, W))
        want = part(ga.Batch(torch.rand(N, 3, H, W), ids=IDS, masks=masks), epoch=0).masks
        assert isinstance(params[:k], ga.Params) and torch.equal(POLICY.replay(masks, params[:k], like="mask"), want)
    assert len(params[1:]) == 4 and not isinstance(params[1:], ga.Params)


@pytest.mark.parametrize("backend", BACKENDS)
def test_moves_of_whole_pixels_are_undone_exactly(backend):
    moves = ga.Policy(
        [ga.RandomCrop((18, 18)), ga.RandomRot90(), ga.RandomHorizontalFlip(), ga.RandomVerticalFlip(), ga.Pad(3)],
        seed=2,
    )
    x = torch.randn(N, 5, H, W)
    params = drawn(moves)
    out, seen = moves.undo(moves.replay(x, params, like="image"), params, backend=backend)
    assert out.shape == x.shape and torch.equal(out, torch.where(seen[:, None], x, 0.0))
    assert (seen.flatten(1).sum(1) == 18 * 18).all()
    classes = torch.randint(0, 2**40, (N, H, W))
    out, seen = moves.undo(moves.replay(classes, params, like="mask"), params, backend=backend)
    assert torch.equal(out, torch.where(seen, classes, 0)) and out.dtype == torch.int64


@pytest.mark.parametrize(("name", "i"), UNDONE)
def test_what_was_augmented_comes_back_within_the_bound_of_bilinear_interpolation(name, i):
    """Two interpolations of a wave: the first of them, on a grid that is s times as coarse, misses by at most s^2 / 8 of
    the second derivatives, for each axis; a mean over s pixels, of antialias, by as much again."""
    size = spec(name).image
    policy, x = ga.Policy([build(name, case(name, i))], seed=5), smooth(size)
    params = drawn(policy, size)
    if any(isinstance(f, tuple) and len(f) > 2 for f in (case(name, i).get("fill"),)):
        x = torch.cat([x, x[:, :1]], 1)
    there = policy.replay(x, params, like="image")
    out, seen = policy.undo(there, params)
    assert out.shape == x.shape and seen.shape == (N, *size)
    # away from the border, where a fill was mixed into what is predicted
    inner = ~torch.nn.functional.max_pool2d((~seen)[:, None].float(), 7, 1, 3)[:, 0].bool()
    inner[:, :3], inner[:, -3:], inner[:, :, :3], inner[:, :, -3:] = False, False, False, False
    assert inner.any(), "vacuous"
    coarse = max(1.0, size[0] / there.shape[2], size[1] / there.shape[3])
    nearest = case(name, i).get("interpolation", "nearest" if "Augment" in name else "") != "bilinear"
    bound = 2 * 2 * coarse**2 / 8 * (2 * math.pi / 40) ** 2 + (1.2 * coarse * 2 * math.pi / 40 if nearest else 0)
    off = ((out - x).abs().amax(1) * inner).amax((1, 2))
    assert (off <= 1.5 * bound).float().mean() >= (1.0 if name != "RandomPerspective" else 0.5), (off, bound)


def test_originals_of_different_sizes_come_back_each_in_its_own():
    images = [torch.randint(0, 256, (20 + 3 * i, 30 - i, 3), dtype=torch.uint8) for i in range(N)]
    sizes = torch.tensor([i.shape[:2] for i in images])
    policy = ga.Policy([ga.Resize((40, 50)), ga.RandomHorizontalFlip()], seed=1)
    params = policy.draw(IDS, size=sizes, epoch=0)
    out, seen = policy.undo(policy(images, ids=IDS, epoch=0).float(), params)
    for o, s, i in zip(out, seen, images, strict=True):
        assert o.shape[1:] == s.shape == i.shape[:2] and s.all()
        # noise was interpolated twice; its mean over a few pixels was not lost
        pooled = [torch.nn.functional.avg_pool2d(v[None], 5) for v in (o, i.permute(2, 0, 1).float())]
        assert (pooled[0] - pooled[1]).abs().mean() < 4
    points = [torch.rand(i, 2) * 20 for i in range(N)]
    assert policy.replay(points, params, like="points")[0].shape == (N, 3, 2)
    boxes = [torch.tensor([[1.0, 1, 5, 5]])] * N
    assert policy.replay(boxes, params, like="boxes", box_format="XYXY")[1].all()
    assert policy.replay([i[..., 0].long() for i in images], params, like="mask").shape == (N, 40, 50)


def test_what_cannot_be_undone_or_replayed_is_named():
    x = torch.rand(N, 3, H, W)
    for steps, words in (
        ([ga.CutMix(num_classes=3)], "CutMix cannot be undone"),
        ([ga.RandomApply([ga.MixUp(num_classes=3)])], "RandomApply cannot be undone"),
        ([ga.AugMix()], "AugMix moves pixels as nothing else can follow"),
        ([ga.Lambda(lambda v: v)], "Lambda moves pixels as nothing else can follow"),
    ):
        policy = ga.Policy([ga.RandomHorizontalFlip(), *steps])
        params = drawn(policy)
        with pytest.raises(ValueError, match=words):
            policy.undo(x, params)
        out, _ = policy.undo(policy.replay(x, params[:1], like="image"), params[:1])
        assert torch.equal(out, x)
    params = drawn(POLICY)
    for call, words in (
        (lambda: POLICY.undo(x, params), r"predictions must be \[4, C, 20, 18\]"),
        (lambda: POLICY.undo(x[:2, :, :20, :18], params), "predictions must be"),
        (lambda: POLICY.undo(x, params[1:]), "params must be a gpuaug.Params"),
        (lambda: POLICY.replay(x, params, like="depth"), "like must be"),
        (lambda: POLICY.replay(x[..., :9], params, like="image"), "images must have the size that params"),
        (lambda: POLICY.replay(x[:, 0, :9], params, like="mask"), "masks must have the size of their images"),
        (lambda: POLICY.replay(torch.zeros(N, 1, 4), params, like="boxes"), "boxes came without a format"),
        (lambda: POLICY.replay(x, params[:2]), "params must hold one entry per transform"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            call()
