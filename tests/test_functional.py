"""Functional forms say what the transforms say."""

import pytest
import torch

import gpuaug as ga
from gpuaug import functional as F

G = torch.Generator().manual_seed(0)
IMAGES = torch.rand(5, 3, 11, 14, generator=G)
IDS = torch.tensor([3, 9, 2**40, 5, 3])
BOXES = torch.tensor([[0, 0, 14, 11], [3, 2, 8, 9], [5, 5, 5, 5], [-2, -3, 4, 4], [13, 10, 20, 20]])


@pytest.mark.parametrize("per_channel", [False, True])
def test_salt_and_pepper_is_the_transform_in_first_place(per_channel):
    images = (IMAGES * 255).byte()
    got = F.salt_and_pepper(images, 0.3, 0.7, per_channel, seed=11, ids=IDS, epoch=4)
    want = ga.Policy([ga.SaltAndPepper(0.3, 0.7, per_channel)], seed=11)(images, ids=IDS, epoch=4)
    assert (got != images).float().mean() > 0.1, "vacuous: nothing was replaced"
    assert torch.equal(got, want)


def inside(box: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros(11, 14, dtype=torch.bool)
    x1, y1, x2, y2 = box.clamp(min=0).tolist()
    mask[y1:y2, x1:x2] = True
    return mask


def test_cutmix_pastes_the_partner_and_writes_out():
    partner = torch.tensor([1, 2, 3, 4, 0])
    out = torch.full_like(IMAGES, 7.0)
    got = F.cutmix(IMAGES, partner, BOXES, out=out)
    want = torch.stack([torch.where(inside(b), IMAGES[p], i) for i, p, b in zip(IMAGES, partner, BOXES, strict=True)])
    assert (
        got.data_ptr() == out.data_ptr()
        and torch.equal(got, want)
        and torch.equal(F.cutmix(IMAGES, partner, BOXES), want)
    )


def test_mixup_weighs_the_sample_itself_by_lam():
    lam, partner = torch.tensor([0.0, 1.0, 0.25, 0.5, 0.9]), torch.tensor([1, 2, 3, 4, 0])
    got = F.mixup(IMAGES, partner, lam)
    want = torch.stack([l * i + (1 - l) * IMAGES[p] for i, p, l in zip(IMAGES, partner, lam, strict=True)])
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
    assert torch.equal(got[1], IMAGES[1])


@pytest.mark.parametrize("value", [0.5, [0.1, 0.2, 0.3], torch.arange(15.0).view(5, 3) / 15])
def test_erase_paints_a_rectangle(value):
    got = F.erase(IMAGES, BOXES, value)
    paint = torch.as_tensor(value).expand(5, 3)
    want = torch.stack(
        [torch.where(inside(b), v[:, None, None], i) for i, v, b in zip(IMAGES, paint, BOXES, strict=True)]
    )
    assert torch.equal(got, want)


def test_normalize_casts_and_lays_out():
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    got = F.normalize((IMAGES * 255).byte(), mean, std, dtype=torch.bfloat16, memory_format=torch.channels_last)
    assert got.dtype == torch.bfloat16 and got.is_contiguous(memory_format=torch.channels_last)
    want = ((IMAGES * 255).byte().float() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(got.float(), want, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.salt_and_pepper(IMAGES, 2.0, seed=0, ids=IDS), "amount must be in"),
        (lambda: F.salt_and_pepper(IMAGES, 0.1, seed=0, ids=IDS[:2]), "ids must have shape"),
        (lambda: F.cutmix(IMAGES, torch.tensor([9, 0, 0, 0, 0]), BOXES), "partner must be a row of this batch"),
        (lambda: F.cutmix(IMAGES, IDS.float(), BOXES), "partner must be integers"),
        (lambda: F.cutmix(IMAGES, torch.zeros(5).long(), BOXES, out=IMAGES.byte()), "out must be"),
        (lambda: F.cutmix(IMAGES, torch.zeros(5).long(), BOXES, out=IMAGES), "out must not share memory"),
        (lambda: F.mixup(IMAGES, torch.zeros(5).long(), torch.zeros(4)), "lam must have shape"),
        (lambda: F.erase(IMAGES, BOXES[:, :3]), "boxes must have shape"),
        (lambda: F.normalize(IMAGES, [0.5], [0.0]), "std no 0"),
        (lambda: F.normalize(IMAGES, [0.5], [0.5], dtype=torch.uint8), "dtype must be"),
        (lambda: F.erase([IMAGES], BOXES), "must have shape"),
        (lambda: F.erase(IMAGES[0], BOXES), "4 dimensions"),
        (lambda: F.erase(IMAGES.permute(0, 2, 3, 1), BOXES), "permute"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
