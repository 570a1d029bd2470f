"""Sources that weigh neighbours, by the kernels: a Gaussian blur in two launches, and a projection in one."""

import pytest
import torch
from build import quick
from compare import changed, compare
from executed import FINISH, both, falls, plan_of, planned, reasons, watched

import gpuaug as ga
from gpuaug import ir
from gpuaug.exec.triton.canonical import gaussian

SIGMA = torch.tensor([[0.1, 2.0], [1.5, 0.6], [3.0, 3.0], [0.0, 1.0]])


BLURS = [
    (channels, kernel, dtype)
    for channels in (1, 3)
    for kernel in ((1, 1), (3, 9), (19, 5))
    for dtype in (torch.uint8, torch.bfloat16, torch.float32)
]


# of one channel every dtype and every kernel once
@pytest.mark.parametrize(("channels", "kernel", "dtype"), quick(BLURS, *BLURS[:9:4], *BLURS[9::2]))
def test_a_blur_is_the_references(channels, kernel, dtype, images, monkeypatch):
    x = images(4, 33, 12, channels, dtype)
    wide = torch.full((4, channels, 35, 16), 9).to(dtype)
    wide[:, :, 1:-1, 2:-2] = x
    made = watched(monkeypatch)
    for y in (x.contiguous(memory_format=torch.channels_last), wide[:, :, 1:-1, 2:-2]):
        got, want = planned((ir.GaussianBlur(SIGMA, kernel), ir.Solarize(SIGMA[:, 0] / 3), FINISH), y)
        compare(got, want, "jump", f"{channels} {kernel} {dtype}")
    assert made == ["images"] * 4
    plain = planned((ir.Solarize(SIGMA[:, 0] / 3), FINISH), x)[0]
    assert (changed(got, plain) > 0.5) == (kernel != (1, 1)), "vacuous"


@pytest.mark.parametrize("size", [7, 23])
def test_weights_of_a_blur_are_the_references(size):
    from kornia.filters import get_gaussian_kernel1d

    sigma = torch.tensor([0.0, 0.1, 0.9, 2.0, 40.0])
    got = gaussian(size, sigma)
    # float64 here, float32 there
    assert torch.allclose(got, get_gaussian_kernel1d(size, sigma[:, None]), rtol=1e-6, atol=1e-7)
    assert got[0].tolist() == [float(k == size // 2) for k in range(size)] and got[4].std() < 0.01


def test_a_blur_for_some_samples_is_a_choice(images, monkeypatch):
    x, index = images(4, 33, 34), torch.tensor([[0], [1], [1], [0]])
    made = watched(monkeypatch)
    passes = (
        ir.Choice(index, ((), (ir.GaussianBlur(SIGMA, (5, 7)), ir.Contrast(SIGMA[:, 0])))),
        ir.Autocontrast(),
        FINISH,
    )
    assert not any(reasons(plan_of(passes, x)))
    got, want = planned(passes, x)
    compare(got, want, "colour", "some")
    assert made == ["images", "statistic", "statistic", "images"]
    assert 0.4 < changed(got, planned((ir.Autocontrast(), FINISH), x)[0]) < 0.6


def test_a_border_that_is_nearer_than_the_blur_reaches_is_reflected_again(images):
    # the reference refuses: a row reflected to and fro is what it would have to be
    x = images(2, 4, 3)
    unrolled = [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    weights = gaussian(9, torch.tensor([4.0, 4.0]))[0]
    want = torch.stack([sum(w * x[..., unrolled[i + k]] for k, w in enumerate(weights)) for i in range(3)], -1)
    from gpuaug.exec.triton import executor

    got = executor.run(plan_of((ir.GaussianBlur(torch.tensor([[4.0, 0.0]]).expand(2, 2), (9, 1)), FINISH), x), x)
    compare(got, want, "colour", "twice reflected")


def maps() -> torch.Tensor:
    inverse = torch.eye(3, dtype=torch.float64).repeat(4, 1, 1)
    inverse[0] += torch.tensor([[0.1, 0.2, -3.0], [-0.15, 0.05, 4.0], [0.004, -0.002, 0.0]], dtype=torch.float64)
    inverse[1, 0], inverse[2, 1, 1], inverse[3, 1, 2] = torch.tensor([2.3, 0.0, -5.0]), 1.9, 40.0
    return inverse


WINDOW = torch.tensor([[0, 0, 38, 35], [4, 5, 30, 30], [0, 0, 38, 35], [1, 1, 20, 33]])
SPREAD = torch.tensor([[1.0, 1.0], [2.3, 1.0], [1.0, 1.9], [1.5, 3.2]], dtype=torch.float64)
PLACE = torch.tensor([[33, 40]]).expand(4, 2)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_projection_with_a_fill_is_the_references(channels, dtype, images):
    x, fill = images(4, 35, 38, channels, dtype), (0.2, 0.5, 0.9)[:channels]
    got, want = planned(
        (ir.Project(maps(), SPREAD, WINDOW, PLACE, (33, 40), fill), ir.Contrast(SIGMA[:, 1]), FINISH), x
    )
    compare(got, want, "resample", f"{channels} {dtype}")
    assert changed(got[:1], got[1:2]) > 0.5, "vacuous"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_projection_that_stays_inside_is_the_references(dtype, images):
    inverse = maps()
    inverse[:, :2] *= 0.3
    inverse[:, :2, 2], inverse[:, 2, :2] = 6.0, 0.0
    whole = torch.tensor([[0, 0, 38, 35]]).expand(4, 4)
    passes = (ir.Project(inverse, SPREAD, whole, PLACE, (33, 40)), FINISH)
    x = images(4, 35, 38, 3, dtype)
    got, want = planned(passes, x)
    assert not want.isnan().any(), "vacuous"
    compare(got, want, "resample", str(dtype))


@pytest.mark.parametrize("fill", [0.0, (0.9, 0.1, 0.5)])
def test_resamples_that_a_policy_composes_are_one_launch_of_ragged_images(fill, pictures, monkeypatch):
    transforms = [
        ga.RandomResizedCrop((20, 33)),
        ga.RandomRotation(30.0, "bilinear", fill=fill),
        ga.RandomHorizontalFlip(),
        ga.ColorJitter(0.4),
    ]
    policy = ga.Policy(transforms, seed=6, single_resample=True, memory_format=torch.channels_last)
    assert not falls(policy)
    made = watched(monkeypatch)
    got, want = both(policy, pictures(((40, 50), (17, 9), (50, 21), (33, 64))))
    assert made == ["images"]
    compare(got, want, "resample", str(fill))
    assert (
        changed(got, both(ga.Policy(transforms, seed=6), pictures(((40, 50), (17, 9), (50, 21), (33, 64))))[0]) > 0.45
    ), "vacuous"
