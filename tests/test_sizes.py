"""Transforms that give each sample a size of its own, followed by a step that makes the sizes one."""

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from compare import compare
from oracles import only
from scipy import stats

import gpuaug as ga

IDS = torch.arange(12)
SIZES = [(31, 44), (40, 22), (25, 25), (19, 60)]
RANGES = [
    (ga.RandomResize(9, 40), v2.RandomResize(9, 40)),
    (ga.RandomResize(12, 30, "nearest"), v2.RandomResize(12, 30, "nearest")),
    (ga.RandomShortestSize((8, 16, 33), 48), v2.RandomShortestSize([8, 16, 33], 48)),
    (ga.ScaleJitter((30, 24)), v2.ScaleJitter((30, 24))),
    (ga.RandomZoomOut(0.25, (1.0, 3.0)), v2.RandomZoomOut(0.25, (1.0, 3.0))),
]
EACH = pytest.mark.parametrize(("ours", "theirs"), RANGES, ids=lambda t: type(t).__name__)
THEN = ga.CenterCrop((24, 30))


def meant(ours: ga.Transform, theirs: v2.Transform, x: torch.Tensor, p: dict) -> torch.Tensor:
    """What torchvision makes of one image with the parameters that were drawn here."""
    if isinstance(theirs, v2.RandomZoomOut):
        out = F.pad(x, p["padding"].tolist(), fill=0.25) if p["apply"] else x
    else:
        out = F.resize(x, p["size"].tolist(), interpolation=v2.InterpolationMode(ours.interpolation), antialias=True)
    return F.center_crop(out, [24, 30])


@EACH
@pytest.mark.parametrize("backend", ["reference", "cpu", "triton"])
def test_ranges_of_sizes_mean_what_torchvision_says(ours, theirs, backend):
    policy = ga.Policy([ours, THEN], seed=3)
    generator = torch.Generator().manual_seed(1)
    for ragged in (False, True):
        shapes = [SIZES[i % 4 if ragged else 0] for i in range(len(IDS))]
        images = [torch.rand(3, *s, generator=generator) for s in shapes]
        params = policy.draw(IDS, size=torch.tensor(shapes), dtype=torch.float32)[0]
        got = policy(images if ragged else torch.stack(images), ids=IDS, backend=backend)
        want = [meant(ours, theirs, x, only(params, i)) for i, x in enumerate(images)]
        kind = "resample, jump" if getattr(ours, "interpolation", "") == "nearest" else "resample"
        compare(got, torch.stack(want), kind, f"{ours} on {backend}")
        if not isinstance(theirs, v2.RandomZoomOut):
            assert len({tuple(s) for s in params["size"].tolist()}) > 2, "vacuous: one size"


@EACH
def test_sizes_are_drawn_as_torchvision_draws_them(ours, theirs):
    n, size = 4000, (41, 53)
    drawn = ga.Policy([ours, THEN], seed=9).draw(torch.arange(n), size=size)[0]
    image = torch.zeros(1, *size)
    torch.manual_seed(5)
    asked = [theirs.make_params([image]) for _ in range(n)]
    if "padding" in drawn:
        a, b = drawn["padding"].numpy(), np.array([p["padding"] for p in asked])
    else:
        a = drawn["size"].numpy()
        b = np.array([F.resize(image, p["size"]).shape[-2:] if len(p["size"]) == 1 else p["size"] for p in asked])
    for k in range(a.shape[1]):
        assert stats.ks_2samp(a[:, k], b[:, k]).pvalue > 1e-4, f"column {k} of {ours}"
        assert (a[:, k].min(), a[:, k].max()) == pytest.approx((b[:, k].min(), b[:, k].max()), abs=6)


@EACH
def test_without_a_step_that_fixes_the_size_a_batch_is_refused(ours, theirs):
    with pytest.raises(ValueError, match="different sizes"):
        ga.Policy([ours])(torch.rand(3, 3, 20, 20))
