"""Ring 4, one interpolation for several: on ramps, which bilinear reproduces, it must agree with one after the other.

A triangle of another width than 1 does not reproduce ramps, so nothing here shrinks the image.
"""

import pytest
import torch

import gpuaug as ga

IDS = torch.arange(8)
FILL = 0.3
CHAINS = {
    "two turns": [ga.RandomRotation(25, "bilinear", fill=FILL), ga.RandomHorizontalFlip(), ga.RandomAffine(20, (0.1, 0.1), (0.9, 1.2), 8, "bilinear", FILL)],
    "crop, then turn": [ga.RandomResizedCrop((90, 120), scale=(0.5, 1.0)), ga.RandomVerticalFlip(), ga.RandomRotation(10, "bilinear")],
    "turn, then crop": [ga.RandomRotation(10, "bilinear"), ga.RandomResizedCrop((90, 120), scale=(0.5, 1.0))],
    "crop of a resize": [ga.Resize((70, 90)), ga.RandomResizedCrop((80, 100), scale=(0.5, 1.0))],
}


def ramps(n: int, h: int, w: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, h), torch.linspace(0, 1, w), indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)]).expand(n, -1, -1, -1)


@pytest.mark.parametrize("name", CHAINS)
def test_one_interpolation_agrees_with_several_on_ramps(name):
    images = ramps(len(IDS), 61, 81)
    several, one = (ga.Policy(CHAINS[name], seed=4, single_resample=s)(images, ids=IDS) for s in (False, True))
    # the third channel is 1 where no border was mixed in; clipped taps bias a few pixels beside it
    inside = (several[:, 2:] > 0.9999) & (one[:, 2:] > 0.9999)
    inside = torch.nn.functional.max_pool2d(1.0 - inside.float(), 13, 1, 6) == 0
    inside[:, :, :6] = inside[:, :, -6:] = inside[..., :6] = inside[..., -6:] = False
    assert inside.float().mean() > 0.15, "vacuous: almost nothing stayed inside"
    assert ((several - one).abs() * inside).max() < 1e-4


def test_one_interpolation_is_one_pass():
    one, two = (ga.Policy(CHAINS["crop, then turn"], single_resample=s).describe((61, 81), backend="reference") for s in (True, False))
    assert "1. Project\n" in one and "2. Finish\n" in one
    assert "1. Resample\n" in two and "2. Warp\n" in two


def test_one_interpolation_keeps_the_fill():
    images = torch.zeros(8, 3, 40, 40)
    out = ga.Policy([ga.RandomRotation((45, 45), "bilinear", fill=FILL), ga.RandomRotation((-20, -20), "bilinear", fill=FILL)], single_resample=True)(
        images, ids=IDS
    )
    torch.testing.assert_close(out[:, :, 0, 0], torch.full((8, 3), FILL))
    assert out[:, :, 20, 20].abs().max() == 0


def test_other_borders_are_not_composed():
    chain = [ga.RandomRotation(45, "bilinear", fill=0.0), ga.RandomRotation(20, "bilinear", fill=1.0)]
    assert "2. Warp\n" in ga.Policy(chain, single_resample=True).describe((40, 40), backend="reference")
