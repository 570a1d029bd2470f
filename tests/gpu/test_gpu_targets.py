"""On a card, boxes, keypoints and masks go where the definition puts them, call after call, and mixes take the same
partners and draws: by launches that are bound too."""

from typing import Any

import pytest
import torch
from gpuaug_kernels.calls import BoundCall
from on_card import DEVICE, images, put
from torch import Tensor

import gpuaug as ga

N, SIZE, PLACES = 7, (41, 53), 5
POLICIES = {
    # by whole pixels, where nothing is rounded
    "moves": (ga.RandomCrop(32), ga.RandomHorizontalFlip(), ga.RandomVerticalFlip()),
    "maps": (ga.RandomResizedCrop(32), ga.RandomHorizontalFlip(), ga.RandomPerspective(0.4), ga.RandAugment(2, 9)),
}


def targets(turn: int) -> dict[str, Any]:
    made = torch.Generator().manual_seed(turn)
    near = torch.rand(N, PLACES, 2, generator=made) * 30
    return {
        "boxes": torch.cat([near, 2 + torch.rand(N, PLACES, 2, generator=made) * 20], 2),
        "box_format": "XYWH",
        "box_valid": torch.rand(N, PLACES, generator=made) > 0.2,
        "keypoints": torch.rand(N, PLACES, 2, generator=made) * 50 - 2,
        "masks": torch.randint(0, 2**40, (N, *SIZE), generator=made),
        "min_area": 4.0,
    }


@pytest.mark.parametrize("name", POLICIES)
def test_targets_follow_as_on_a_host_call_after_call(name):
    policy = ga.Policy(POLICIES[name], seed=2**63 + 5)
    for turn in range(5):
        x, ids = images(N, *SIZE, dtype=torch.uint8), torch.arange(N) + 10 * turn
        given = {k: put(v) if isinstance(v, Tensor) else v for k, v in targets(turn).items()}
        got = policy(ga.Batch(put(x), ids=put(ids), epoch=turn, **given), backend="triton")
        want = policy(ga.Batch(x, ids=ids, epoch=turn, **targets(turn)), backend="reference")
        exact = name == "moves"
        for kind in ("boxes", "keypoints"):
            a, b = getattr(got, kind).cpu(), getattr(want, kind)
            assert torch.equal(a, b) if exact else torch.allclose(a, b, rtol=1e-4, atol=1e-3), (kind, turn)
        for kind in ("box_valid", "visible", "masks"):
            a, b = getattr(got, kind).cpu(), getattr(want, kind)
            # on a threshold the last bit of a draw decides
            assert torch.equal(a, b) if exact else (a != b).double().mean() < 0.01, (kind, turn)
        assert got.box_valid.any() and got.visible.any() and not got.visible.all(), "vacuous"
    if DEVICE.type == "cuda":
        assert [type(v) for v in policy._recipes.calls.values()] == [BoundCall]


@pytest.mark.parametrize("per", ["sample", "batch"])
def test_mixes_among_valid_samples_have_the_partners_and_draws_of_a_host(per):
    mix = ga.RandomMix([ga.MixUp(0.4, N), ga.CutMix(1.0, N)], per=per)
    policy, x = ga.Policy([ga.RandomHorizontalFlip(), mix], seed=3), images(N, *SIZE)
    for turn in range(5):
        valid = torch.rand(N, generator=torch.Generator().manual_seed(turn)) > 0.3
        given = {"ids": torch.arange(N) * 2**20 + turn, "epoch": turn}
        batch = ga.Batch(x, torch.arange(N), valid=valid, **given)
        got, want = policy(batch.to(DEVICE), backend="triton"), policy(batch, backend="reference")
        assert torch.equal(got.labels.cpu(), want.labels), turn
    if DEVICE.type == "cuda":
        assert [type(v) for v in policy._recipes.calls.values()] == [BoundCall]
