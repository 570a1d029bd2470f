"""A statistic of what a launch writes for the next one is gathered on the way, and is to the bit what a launch of its own
would have found."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from build import quick
from compare import changed, compare
from executed import FINISH, IDS, plan_of, watched

import gpuaug as ga
from gpuaug import ir
from gpuaug.exec.triton import executor

FACTOR = torch.tensor([0.3, 1.8, 0.7, 1.2])
N = 4
CROP = [ga.RandomResizedCrop((33, 40))]
MAYBE = torch.tensor([[0], [1], [2], [3]])


def shrink(n: int, size: tuple[int, int], out: tuple[int, int]) -> ir.Pass:
    """A resample of whole images by triangles, whose values are no levels of a byte."""
    (height, width), (oh, ow) = size, out
    inverse = torch.zeros(n, 3, 3, dtype=torch.float64)
    inverse[:, 0, 0], inverse[:, 1, 1], inverse[:, 2, 2] = width / ow, height / oh, 1.0
    inverse[:, 0, 2], inverse[:, 1, 2] = 0.5 * width / ow - 0.5, 0.5 * height / oh - 0.5
    whole = torch.tensor([[0, 0, width, height]]).expand(n, 4)
    return ir.Resample(
        inverse,
        torch.tensor([[max(1.0, width / ow), max(1.0, height / oh)]], dtype=torch.float64).expand(n, 2),
        whole,
        whole,
        torch.tensor([[0, 0, ow, oh]]).expand(n, 4),
        size=torch.tensor([out]).expand(n, 2),
        fixed=out,
    )


AFTER = {
    "a mean for all": lambda: (ir.Contrast(FACTOR),),
    "a range for all": lambda: (ir.Autocontrast(),),
    "a histogram for all": lambda: (ir.Equalize(),),
    "points before a mean": lambda: (ir.Solarize(FACTOR / 3), ir.Hue(FACTOR / 9), ir.Contrast(FACTOR)),
    "another statistic for each": lambda: (
        ir.Choice(MAYBE, ((), (ir.Autocontrast(),), (ir.Equalize(),), (ir.Contrast(FACTOR),))),
    ),
    "two, in orders of their own": lambda: (
        ir.Choice(torch.tensor([[0, 1], [1, 0]] * 2), ((ir.Contrast(FACTOR),), (ir.Posterize(MAYBE[:, 0] + 3),))),
        ir.Autocontrast(),
    ),
    "a mix after it": lambda: (
        ir.Contrast(FACTOR),
        ir.MixUp(torch.tensor([1, 2, 3, 0]), FACTOR / 3),
        ir.Equalize(),
    ),
}


def runs(monkeypatch, call):
    """The images and the launches, with statistics gathered on the way and without."""
    found = []
    for apart in (False, True):
        with monkeypatch.context() as patch:
            if apart:
                patch.setattr(executor, "gathered_before", lambda *_: ())
            made = watched(patch)
            found.append((call(), list(made)))
    return found


# a tile and a little more each way, and so little smaller that a pixel reads few
LARGE, SMALL = (40, 46), (33, 40)


@cache
def shrunk(images: Callable[..., torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    x = images(N, *LARGE, dtype=dtype)
    return executor.run(plan_of((shrink(N, LARGE, SMALL), FINISH), x), x)


@pytest.mark.parametrize("dtype", quick([torch.uint8, torch.float32], torch.uint8))
@pytest.mark.parametrize("name", AFTER)
def test_a_statistic_gathered_on_the_way_is_that_of_a_launch_of_its_own(name, dtype, images, monkeypatch):
    x = images(N, *LARGE, dtype=dtype)
    plan = plan_of((shrink(N, LARGE, SMALL), *AFTER[name](), FINISH), x)
    (got, made), (want, apart) = runs(monkeypatch, lambda: executor.run(plan, x))
    assert torch.equal(got, want)
    assert made.count("statistic") == apart.count("statistic") - 1 and made[:1] == ["images"] != apart[1:2]
    assert changed(got, shrunk(images, dtype)) > 0.3, "vacuous"


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_than_three_channels_have_it_too(channels, images, monkeypatch):
    x = images(N, 50, 41, channels, torch.float32)
    stages = (ir.Autocontrast(), ir.Equalize()) if channels > 1 else (ir.Contrast(FACTOR), ir.Equalize())
    plan = plan_of((shrink(N, (50, 41), (20, 35)), *stages, FINISH), x)
    (got, made), (want, apart) = runs(monkeypatch, lambda: executor.run(plan, x))
    assert torch.equal(got, want) and (made, apart) == (
        ["images", "statistic", "images"],
        ["images", "statistic", "statistic", "images"],
    )


def test_what_a_statistic_is_not_of_is_not_gathered(images):
    x, mix = images(N, 50, 41), ir.MixUp(torch.tensor([1, 2, 3, 0]), FACTOR / 3)
    first = shrink(N, (50, 41), (20, 35))
    # the pixels that it is of are others than those that are written
    for p in (mix, ir.GaussianBlur(torch.ones(N, 2), (3, 3))):
        before, *_ = made = executor.steps(plan_of((first, p, ir.Contrast(FACTOR), FINISH), x))
        assert len(made) > 1 and not before.gathers, p
    # a pixel has other channels in the step that needs it
    gray = images(N, 50, 41, 1)
    assert not any(s.gathers for s in executor.steps(plan_of((first, ir.Gray(3), ir.Equalize(), FINISH), gray)))
    assert executor.steps(plan_of((first, ir.Contrast(FACTOR), FINISH), x))[0].gathers == ("mean",)


CHAINS = {
    "moderate": [*CROP, ga.ColorJitter(0.4, 0.4, 0.4, 0.1), ga.RandomErasing()],
    "strong": [*CROP, ga.RandAugment(2, 20)],
    "cut after": [*CROP, ga.ColorJitter(0.4, 0.4), ga.CutMix(1.0, 4)],
}


@pytest.mark.parametrize("kind", quick(["ragged", "dense", "windows"], "ragged"))
@pytest.mark.parametrize("name", CHAINS)
def test_policies_gather_on_the_way(name, kind, images, pictures, monkeypatch):
    policy = ga.Policy(CHAINS[name], seed=4, memory_format=torch.channels_last)
    x = pictures(((40, 50), (45, 39), (50, 41), (33, 64))) if kind != "dense" else images(N, 50, 41)
    if kind == "windows":
        # the whole of each image, as a part of one that is larger
        x = ga.Ragged.windowed(x, [p.shape[:2] for p in x], [(0, 0, *p.shape[:2]) for p in x])
    labels = torch.arange(N) if "cut" in name else None

    def call() -> torch.Tensor:
        out = policy(x, labels, ids=IDS[:N], backend="triton")
        return out if labels is None else out[0]

    (got, made), (want, apart) = runs(monkeypatch, call)
    assert torch.equal(got, want)
    assert "statistic" not in made and apart.count("statistic") == (2 if name == "strong" else 1)


SOURCES = (ga.GaussianBlur(3), ga.RandomHorizontalFlip(1.0), ga.RandomRotation((20, 40)), ga.RandomInvert(1.0))


PAIRS = [(crop, pair) for crop in ([], CROP) for pair in ((0, 1), (0, 3), (1, 2), (2, 3))]


# each source alone or after a crop in the fast suite
@pytest.mark.parametrize(("crop", "pair"), quick(PAIRS, *PAIRS[:2], *PAIRS[6:]))
def test_a_statistic_after_a_choice_that_has_none_is_of_what_each_sample_read(pair, crop, images):
    """The step before the choice writes other pixels than those that the statistic is of."""
    chain = [*crop, ga.RandomChoice([SOURCES[k] for k in pair]), ga.RandomEqualize(0.9), ga.RandomAutocontrast(0.5)]
    policy, x = ga.Policy(chain, seed=6), images(N, 41, 41)
    got, want = (policy(x, ids=IDS[:N], backend=b) for b in ("triton", "reference"))
    compare(got, want, "resample, jump", f"{pair}")
