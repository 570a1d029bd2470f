"""Ring 4, one interpolation for several: on ramps, which bilinear reproduces, it must agree with one after the other.

A triangle of another width than 1 does not reproduce ramps, so nothing here shrinks the image.
"""

import pytest
import torch
from compare import changed, compare

import gpuaug as ga

IDS = torch.arange(8)
FILL = 0.3
CHAINS = {
    "two turns": [
        ga.RandomRotation(25, "bilinear", fill=FILL),
        ga.RandomHorizontalFlip(),
        ga.RandomAffine(20, (0.1, 0.1), (0.9, 1.2), 8, "bilinear", FILL),
    ],
    "crop, then turn": [
        ga.RandomResizedCrop((90, 120), scale=(0.5, 1.0)),
        ga.RandomVerticalFlip(),
        ga.RandomRotation(10, "bilinear"),
    ],
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
    one, two = (
        ga.Policy(CHAINS["crop, then turn"], single_resample=s).describe((61, 81), backend="reference")
        for s in (True, False)
    )
    assert "1. Project\n" in one and "2. Finish\n" in one
    assert "1. Resample\n" in two and "2. Warp\n" in two


def test_one_interpolation_keeps_the_fill():
    images = torch.zeros(8, 3, 40, 40)
    out = ga.Policy(
        [ga.RandomRotation((45, 45), "bilinear", fill=FILL), ga.RandomRotation((-20, -20), "bilinear", fill=FILL)],
        single_resample=True,
    )(images, ids=IDS)
    torch.testing.assert_close(out[:, :, 0, 0], torch.full((8, 3), FILL))
    assert out[:, :, 20, 20].abs().max() == 0


def test_other_borders_are_not_composed():
    chain = [ga.RandomRotation(45, "bilinear", fill=0.0), ga.RandomRotation(20, "bilinear", fill=1.0)]
    assert "2. Warp\n" in ga.Policy(chain, single_resample=True).describe((40, 40), backend="reference")


LAYOUTS = {
    "planes": lambda x: x,
    "pixels": lambda x: x.to(memory_format=torch.channels_last),
    "a window": lambda x: torch.nn.functional.pad(x, (3, 2, 1, 4))[:, :, 1:-4, 3:-2],
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("name", CHAINS)
def test_executors_agree_on_one_interpolation_in_any_layout(name, dtype, channels, images):
    policy = ga.Policy([*CHAINS[name], ga.ToDtype(torch.float32, scale=True)], seed=7, single_resample=True)
    assert "Project" in policy.describe((61, 81), channels=channels, backend="cpu"), "vacuous"
    x = images(len(IDS), 61, 81, channels, dtype)
    want = policy(x, ids=IDS, backend="reference")
    assert changed(want[1:], want[:-1]) > 0.3, "vacuous"
    for layout, laid in LAYOUTS.items():
        compare(policy(laid(x), ids=IDS, backend="cpu"), want, "resample", layout)


@pytest.mark.parametrize("name", ["crop, then turn", "crop of a resize"])
def test_executors_agree_on_one_interpolation_of_images_of_different_sizes(name, pictures):
    policy = ga.Policy([*CHAINS[name], ga.ToDtype(torch.float32, scale=True)], seed=8, single_resample=True)
    x = pictures([(61, 81), (90, 40), (33, 120)])
    want, got = (policy(x, ids=IDS[:3], backend=b) for b in ("reference", "cpu"))
    compare(got, want, "resample", name)


@pytest.mark.parametrize("name", CHAINS)
def test_the_cpu_has_a_rule_for_one_interpolation(name):
    assert "reference" not in ga.Policy(CHAINS[name], single_resample=True).describe((61, 81), backend="cpu").lower()


@pytest.mark.parametrize("fill", [None, 0.0, (0.1, 0.9, 0.4)], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 40)], ids=str)
def test_executors_agree_on_one_interpolation_far_beside_small_images(fill, size, images):
    far = [
        ga.RandomAffine(180, (1.0, 1.0), (0.1, 3.0), 60, "bilinear", fill),
        ga.RandomAffine(180, (1.0, 1.0), (0.1, 3.0), 60, "bilinear", fill),
    ]
    policy, x = ga.Policy(far, seed=9, single_resample=True), images(len(IDS), *size)
    want, got = (policy(x, ids=IDS, backend=b) for b in ("reference", "cpu"))
    assert "Project" in policy.describe(size), "vacuous"
    compare(got, want, "resample")
