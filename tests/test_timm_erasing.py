"""RandomErasing in timm's modes erases as timm's RandomErasing does."""

import numpy as np
import pytest
import torch
from scipy import stats
from timm.data.random_erasing import RandomErasing as Theirs

import gpuaug as ga

N, SIZE, P = 3000, (24, 32), 1e-4
IDS = torch.arange(N)
# a value that no normal number is
GIVEN = {"probability": 0.8, "min_area": 0.05, "max_area": 0.4, "min_aspect": 0.4}
CASES = [{"mode": m, **c} for m in ("const", "rand", "pixel") for c in ({}, {"max_count": 3}, {"min_count": 2})]


def erased(given: dict, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Ours and timm's, of images whose every value is 100."""
    images = torch.full((N, 3, *SIZE), 100.0)
    ours = ga.Policy([ga.RandomErasing.from_timm(**given)], seed=seed)(images, ids=IDS)
    import random

    random.seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        theirs = Theirs(**given, device="cpu")(images.clone())
    return ours, theirs


@pytest.mark.parametrize("case", CASES, ids=str)
def test_as_many_pixels_are_erased_to_the_same_values(case):
    ours, theirs = erased({**GIVEN, **case})
    shares = [(x[:, 0] != 100).double().mean((1, 2)).numpy() for x in (ours, theirs)]
    assert stats.ks_2samp(*shares).pvalue > P and 0.05 < shares[1].mean() < 0.4
    # how often each pixel is: where rectangles lie
    where = [(x[:, 0] != 100).double().mean(0) for x in (ours, theirs)]
    assert (where[0] - where[1]).abs().max() < 0.06
    colours = [x[x != 100] for x in (ours, theirs)]
    if case["mode"] == "const":
        assert not colours[0].any() and not colours[1].any()
    else:
        assert abs(colours[0].mean()) < 0.1 and abs(colours[0].std() - 1) < 0.05
        # of how many values an image holds: one a rectangle and channel, or one a pixel
        counts = [[len(image[0].unique()) for image in x[:200]] for x in (ours, theirs)]
        assert stats.ks_2samp(*counts).pvalue > P


@pytest.mark.parametrize("splits", [0, 1, 2, 3])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_first_split_stays_clean(splits, backend):
    policy = ga.Policy([ga.RandomErasing(1.0, num_splits=splits)], seed=3)
    images = torch.rand(12, 3, *SIZE) + 1
    # step by step, then by the recipe
    for epoch in range(3):
        out = policy(images, ids=torch.arange(12) + 7, epoch=epoch, backend=backend)
        clean = 12 // splits if splits > 1 else 0
        assert torch.equal((out == images).flatten(1).all(1), torch.arange(12) < clean)
    assert "draws in one compiled call" in policy.describe(SIZE, dtype=torch.float32, backend="cpu")


def test_rectangles_are_within_the_number_that_a_sample_drew():
    p = ga.Policy([ga.RandomErasing(1.0, min_count=2, max_count=4)], seed=3).draw(IDS, size=SIZE)[0]
    counts = np.bincount((p["h"] > 0).sum(1).numpy(), minlength=5)
    assert p["i"].shape == p["j"].shape == p["w"].shape == (N, 4) and p["v"].shape == (N, 4, 3)
    assert stats.chisquare(counts[2:], [N / 3] * 3).pvalue > P and not counts[:2].any()
    assert (p["i"] + p["h"] <= SIZE[0]).all() and (p["j"] + p["w"] <= SIZE[1]).all()
    area = (p["h"] * p["w"])[:, 0].double()
    two, four = (area[(p["h"] > 0).sum(1) == k].mean() for k in (2, 4))
    assert 1.8 < two / four < 2.2, "each rectangle has its part of the area"


def test_what_torchvision_draws_stays_under_its_names():
    drawn = ga.Policy([ga.RandomErasing(0.5)], seed=3).draw(IDS, size=SIZE)[0]
    assert list(drawn) == ["apply", "i", "j", "h", "w", "v"] and all(drawn[k].shape == (N,) for k in "ijhw")
    same = ga.Policy([ga.RandomErasing(0.5, mode="pixel")], seed=3).draw(IDS, size=SIZE)[0]
    assert all(torch.equal(drawn[k], same[k]) for k in ("apply", *"ijhw"))
    x = torch.rand(8, 3, *SIZE)
    random, pixel = (
        ga.Policy([t], 3) for t in (ga.RandomErasing(1.0, value="random"), ga.RandomErasing(1.0, mode="pixel"))
    )
    assert torch.equal(random(x, ids=IDS[:8]), pixel(x, ids=IDS[:8]))


def test_the_arguments_and_the_object_of_timm_make_the_same():
    given = {**GIVEN, "mode": "rand", "max_count": 3, "num_splits": 2}
    a, b = ga.RandomErasing.from_timm(**given), ga.RandomErasing.from_timm(Theirs(**given, device="cpu"))
    assert a.ratio == (0.4, 2.5) and np.allclose(a.ratio, b.ratio)
    assert (a.p, a.scale, a.mode, a.min_count, a.max_count, a.num_splits) == (0.8, (0.05, 0.4), "rand", 1, 3, 2)
    assert (b.p, b.scale, b.mode, b.min_count, b.max_count, b.num_splits) == (0.8, (0.05, 0.4), "rand", 1, 3, 2)
    assert ga.RandomErasing.from_timm() == ga.RandomErasing(0.5, (0.02, 1 / 3), (0.3, 1 / 0.3))
    policy = ga.Policy([a])
    assert ga.Policy.from_dict(policy.to_dict()) == policy


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mode": "rand", "value": 0.5}, "value"),
        ({"mode": "pixel", "value": "random"}, "value"),
        ({"min_count": 3, "max_count": 2}, "max_count"),
        ({"mode": "noise"}, "mode"),
    ],
)
def test_what_contradicts_itself_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        ga.RandomErasing(**given)
