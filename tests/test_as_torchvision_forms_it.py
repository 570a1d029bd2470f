"""Integers that come of a product or a hull are torchvision's, for every size: formed in another order they are one
pixel off."""

import random

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F

import gpuaug as ga
from gpuaug.transforms.auto import spaced
from gpuaug.transforms.warps import _expanded

BINS = (2, 3, 5, 8, 9, 10, 11, 16, 31, 32, 57, 101)


@pytest.mark.parametrize("bins", BINS)
def test_magnitudes_are_torchvisions_to_the_bit(bins):
    table = v2.RandAugment._AUGMENTATION_SPACE
    widths = [*range(1, 2001, 7), *range(331, 2001, 331)]
    for width in widths:
        want = table["TranslateX"][0](bins, 1, width).tolist()
        assert [spaced(0.0, 150.0 / 331.0 * width, bins, m) for m in range(bins)] == want, width
    for name in ("ShearX", "Rotate", "Brightness", "Color", "Contrast", "Sharpness", "Solarize", "Posterize"):
        want = table[name][0](bins, 1, 1).tolist()
        got = [
            ga.RandAugment(magnitude=m, num_magnitude_bins=bins)._strength(name, _frame(1, 1))[1] for m in range(bins)
        ]
        # a shear is given by its angle
        assert [np.float32(np.tan(v)) if name == "ShearX" else v for v in got] == pytest.approx(
            want, rel=1e-7 if name == "ShearX" else 0, abs=0
        ), name


@pytest.mark.parametrize(("magnitude", "pixels"), [(11, 55), (30, 150), (1, 5)])
def test_a_translation_of_an_image_331_wide_is_whole(magnitude, pixels):
    x = torch.arange(331.0).expand(1, 3, 4, 331) / 331
    policy = ga.Policy([ga.RandAugment(1, magnitude)])
    params = policy.draw(torch.arange(1), size=(4, 331), dtype=torch.float32)
    params[0]["op"][:], params[0]["sign"][:] = 3, 1
    for backend in ("reference", "cpu", "triton"):
        got = policy.replay(x, params, backend=backend)
        assert torch.equal(got[..., pixels:], x[..., :-pixels]) and not got[..., :pixels].any()


def test_an_expanded_image_has_torchvisions_size():
    rng = random.Random(0)
    angles = (
        0,
        90,
        180,
        270,
        -90,
        -180,
        -270,
        360,
        450,
        89.99999,
        90.00001,
        90.0000001,
        45,
        30,
        -117.5,
        1e-5,
        179.9999,
        33.3,
    )
    for _ in range(6000):
        h, w = rng.randint(1, 40), rng.randint(1, 40)
        angle = float(rng.choice(angles)) if rng.random() < 0.8 else rng.uniform(-720, 720)
        center = rng.choice(
            [None, (w / 2, h / 2), (5.5, 8.5), (0.0, 0.0), (rng.randint(-5, 50) / 2, rng.randint(-5, 50) / 2)]
        )
        # a draw is float32
        drawn = float(np.float32(angle))
        try:
            want = tuple(
                F.rotate(
                    torch.zeros(1, h, w), drawn, expand=True, center=None if center is None else list(center)
                ).shape[1:]
            )
        except RuntimeError:
            continue
        made = _expanded(torch.tensor([[h, w]]), torch.tensor([angle], dtype=torch.float32).double(), center)
        assert tuple(made[0].tolist()) == want, (h, w, angle, center)


@pytest.mark.parametrize("center", [None, (5.5, 8.5), (4.0, 3.0)])
@pytest.mark.parametrize("degrees", [90, -90, 180, 270, 360])
def test_an_expanded_quarter_turn_has_torchvisions_pixels(degrees, center):
    x = torch.rand(1, 3, 17, 11, generator=torch.Generator().manual_seed(0))
    policy = ga.Policy([ga.RandomRotation((degrees, degrees), "bilinear", expand=True, center=center)])
    want = F.rotate(
        x, degrees, v2.InterpolationMode.BILINEAR, expand=True, center=None if center is None else list(center), fill=0
    )
    for backend in ("reference", "cpu", "triton"):
        got = policy(x, ids=torch.arange(1), backend=backend)
        assert got.shape == want.shape and torch.allclose(got, want, atol=1e-4)


def _frame(height: int, width: int) -> ga.ir.Frame:
    return ga.ir.Frame(torch.tensor([[height, width]]), (height, width), 3, torch.float32)
