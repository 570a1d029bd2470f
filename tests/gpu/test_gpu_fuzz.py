"""Random policies on random images: the kernels on a card give the pixels of the reference on the host."""

from typing import Any

import pytest
import torch
from build import quick
from hypothesis import Phase, given, seed, settings
from on_card import put
from test_fuzz import LOOSE, images, outcome
from test_triton_fuzz import POLICIES, Labelled, fitting, shape_of
from unsteady import compare_where_steady

import gpuaug as ga

# each policy has kernels of its own, and compiling them is what takes time: nothing is made smaller where one fails
FEW = settings(max_examples=3, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=LOOSE)


def check(x, drawn) -> bool:
    """Whether there was an image to look at; raises where card and host differ."""
    transforms, floats, number, last = drawn
    layout = torch.channels_last if last else torch.contiguous_format
    transforms = fitting([*([ga.ToDtype(torch.float32, scale=True)] if floats else []), *transforms], shape_of(x))
    policy = ga.Policy(transforms, number, memory_format=layout)
    ids = torch.arange(len(x)) * 2**33 + number % 1000
    want = outcome(Labelled(policy), x, ids, "reference")
    if isinstance(want, Exception):
        # sizes that lie on a card are not looked at, so that it need not refuse the same
        return False
    there = put(x if isinstance(x, torch.Tensor) else [torch.from_numpy(i) for i in x])
    there = ga.Ragged(there, "hwc") if isinstance(there, list) and there else there
    labels = torch.eye(max(len(x), 5))[: len(x), :5].contiguous()
    got = policy(there, put(labels), ids=put(ids), epoch=5, backend="triton")[0].cpu()
    assert got.is_contiguous(memory_format=layout) and got.dtype == want.dtype
    assert torch.equal(got.isnan(), want.isnan())
    scale = 5.0 ** sum(isinstance(t, ga.Normalize) for t in transforms)

    def run(images: Any) -> torch.Tensor:
        return Labelled(policy)(images, ids=ids, epoch=5, backend="reference").nan_to_num()

    sides = (got.nan_to_num(), want.nan_to_num())
    compare_where_steady(*sides, "resample, jump", run, x, repr(policy), scale, "triton")
    return got.numel() > 0


@pytest.mark.parametrize("start", quick(range(16), 0, 1, 2, 3))
def test_random_policies_agree(start):
    seen: list[bool] = []

    @seed(start)
    @FEW
    @given(images(), POLICIES)
    def look(x, drawn):
        seen.append(check(x, drawn))

    look()
    assert any(seen), "vacuous: every policy was refused"
