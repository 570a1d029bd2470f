"""Resizes by the nearest pixel, by cubics and by Lanczos: what integers keep, what is clamped, and what is one step."""

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from compare import changed, compare
from oracles import resize

import gpuaug as ga

BACKENDS = ("reference", "cpu", "triton")
EACH = pytest.mark.parametrize("backend", BACKENDS)
# (interpolation, antialias)
SMOOTH = [("bicubic", True), ("bicubic", False), ("lanczos", True)]
SHARP = pytest.mark.parametrize(("mode", "antialias"), SMOOTH, ids=lambda v: str(v))


def stripes(n: int = 3) -> torch.Tensor:
    """Bytes next to which a kernel with negative weights leaves the range."""
    x = torch.randint(0, 256, (n, 3, 23, 31), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    x[:, :, ::3], x[:, :, 1::3, ::2] = 255, 0
    return x


def resized(x: torch.Tensor, size: list[int], mode: str, antialias: bool) -> torch.Tensor:
    return resize(x, size, v2.InterpolationMode(mode), antialias=antialias)


@EACH
@pytest.mark.parametrize("exact", [False, True], ids=["nearest", "nearest-exact"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16])
def test_integers_that_are_resized_to_the_nearest_keep_every_bit(dtype, exact, backend):
    # every value of a byte, and as many of 16 bits, at the ends too
    values = np.arange(256) if dtype == torch.uint8 else np.arange(0, 65536, 257) - 32768 * (dtype == torch.int16)
    x = torch.from_numpy(values.reshape(1, 1, 16, 16).repeat(2, 0)).to(dtype)
    for size in ((16, 29), (37, 16), (40, 40)):
        policy = ga.Policy([ga.Resize(size, "nearest-exact" if exact else "nearest")])
        # in integers: floor((2 i + 1) in / (2 out)), or floor(i in / out)
        rows, columns = ([((2 * i + 1) * 16) // (2 * s) if exact else (i * 16) // s for i in range(s)] for s in size)
        want = x.numpy()[:, :, rows][:, :, :, columns]
        got = policy(x, backend=backend)
        assert got.dtype == dtype and np.array_equal(got.numpy(), want)
    assert len(np.unique(got.numpy())) == 256, "vacuous: not all values are there"


@EACH
@SHARP
def test_what_leaves_the_range_of_bytes_is_clamped_once(mode, antialias, backend):
    x = stripes()
    over = resized(x.float() / 255, [40, 19], mode, antialias)
    assert (over < 0).double().mean() > 0.004 and (over > 1).double().mean() > 0.004, "vacuous"
    policy = ga.Policy([ga.Resize((40, 19), mode, antialias=antialias)])
    compare(policy(x, backend=backend), (over.clamp(0, 1) * 255.999).to(torch.uint8), "resample", mode)
    # what comes next sees the range, whichever dtype leaves at the end
    then = ga.Policy([policy.transforms[0], ga.ToDtype(torch.float32, scale=True), ga.ColorJitter(brightness=(2, 2))])
    compare(then(x, backend=backend), (2 * over.clamp(0, 1)).clamp(0, 1), "resample", mode)
    # floats keep what is beyond it, as in torchvision
    compare(policy(x.float() / 255, backend=backend), over, "resample", mode)


@EACH
@SHARP
def test_a_clamped_resize_joins_the_moves_around_it(mode, antialias, backend):
    steps = [ga.RandomHorizontalFlip(1.0), ga.Resize((40, 19), mode, antialias=antialias), ga.RandomVerticalFlip(1.0)]
    policy = ga.Policy([*steps, ga.CenterCrop((30, 19))])
    want = F.center_crop(resized(stripes().flip(3).float() / 255, [40, 19], mode, antialias).flip(2), [30, 19])
    compare(policy(stripes(), backend=backend), (want.clamp(0, 1) * 255.999).to(torch.uint8), "resample", mode)
    if backend != "reference" and mode != "bicubic":
        assert f"backend {backend}: 1 step" in policy.describe((23, 31), backend=backend)


@EACH
def test_a_border_after_a_clamped_resize_is_painted_and_not_clamped(backend):
    policy = ga.Policy([ga.Resize((10, 10), "bicubic"), ga.ToDtype(torch.float32, scale=True), ga.Pad(2, fill=3.0)])
    out = policy(stripes(), backend=backend)
    assert (out[:, :, :2] == 3).all() and (out[:, :, :, -2:] == 3).all() and out[:, :, 2:-2, 2:-2].max() <= 1


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@SHARP
def test_what_is_not_finite_reaches_as_far_as_its_weights(mode, antialias):
    x = stripes().float() / 255
    x[:, 0, 11, 17], x[:, 1, 5, 5], x[:, 2, 9, 9] = torch.nan, torch.inf, -torch.inf
    policy = ga.Policy([ga.Resize((14, 40), mode, antialias=antialias)])
    first, *others = (policy(x, ids=torch.arange(3), backend=b) for b in BACKENDS)
    assert 0.001 < (~first.isfinite()).double().mean() < 0.1, "vacuous"
    # a negative weight turns an infinity around
    assert (first[:, 1] == -torch.inf).any() and (first[:, 2] == torch.inf).any()
    for other in others:
        for kind in (torch.isnan, torch.isposinf, torch.isneginf):
            assert torch.equal(kind(other), kind(first))
    constant = torch.full((2, 3, 30, 30), 0.37)
    for backend in BACKENDS:
        assert (policy(constant, backend=backend) == constant[0, 0, 0, 0]).all()


@SHARP
def test_masks_boxes_and_points_follow_any_interpolation_alike(mode, antialias):
    n, ids = 5, torch.arange(5)
    masks = torch.randint(0, 9, (n, 23, 31), generator=torch.Generator().manual_seed(4))
    given = ga.Batch(
        stripes(n),
        ids=ids,
        masks=masks,
        boxes=torch.tensor([[[3.0, 4, 20, 17]]] * n),
        box_format="XYXY",
        keypoints=torch.tensor([[[7.0, 9]]] * n),
    )
    crop = lambda *how: ga.Policy([ga.RandomResizedCrop(16, (0.3, 1.0), (0.75, 1.3), *how)], seed=3)(given)  # noqa: E731
    one, other = crop(mode, antialias), crop("bilinear", True)
    assert torch.equal(one.masks, other.masks) and changed(one.masks.float()[:, :, :8], masks.float()[:, :16, :8]) > 0.1
    assert torch.equal(one.boxes, other.boxes) and torch.equal(one.keypoints, other.keypoints)


@pytest.mark.parametrize("given", ["bicubic", 3, v2.InterpolationMode.BICUBIC])
def test_interpolations_go_by_torchvisions_names_and_pillows_numbers(given):
    assert ga.Resize(8, given) == ga.Resize(8, "bicubic")
    with pytest.raises(ValueError, match="nearest, bilinear"):
        ga.RandomRotation(10, given)


def test_lanczos_is_antialiased_as_everywhere():
    with pytest.raises(ValueError, match="antialias must be True with interpolation 'lanczos'"):
        ga.RandomResizedCrop(8, interpolation="lanczos", antialias=False)
    made = ga.from_torchvision([v2.Resize(8, v2.InterpolationMode.LANCZOS, antialias=False)])
    assert made.transforms == (ga.Resize(8, "lanczos"),)


@EACH
def test_a_crop_of_the_border_alone_can_be_resized(backend):
    policy = ga.Policy([ga.RandomCrop((4, 15), 6, fill=0.25), ga.Resize((15, 16))])
    params = policy.draw(torch.arange(2), size=(5, 16), dtype=torch.float32)
    # below the image, and within it
    params[0]["top"][:] = torch.tensor([12, 5])
    out = policy.replay(torch.rand(2, 3, 5, 16), params, backend=backend)
    assert (out[0] == 0.25).all() and not (out[1] == 0.25).all()
