"""Random policies on random images: the kernels on a card give the pixels of the reference on the host."""

import pytest
import torch
from compare import compare
from hypothesis import Phase, given, seed, settings
from on_card import put
from test_fuzz import LOOSE, POLICIES, images, outcome

import gpuaug as ga

# each policy has kernels of its own, and compiling them is what takes time: nothing is made smaller where one fails
FEW = settings(max_examples=6, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=LOOSE)


def check(x, drawn) -> bool:
    """Whether there was an image to look at; raises where card and host differ."""
    transforms, floats, number, last = drawn
    layout = torch.channels_last if last else torch.contiguous_format
    try:
        policy = ga.Policy(
            [*([ga.ToDtype(torch.float32, scale=True)] if floats else []), *transforms], number, memory_format=layout
        )
    except (ValueError, TypeError):
        return False
    ids = torch.arange(len(x)) * 2**33 + number % 1000
    want = outcome(policy, x, ids, "reference")
    if isinstance(want, Exception):
        # sizes that lie on a card are not looked at, so that it need not refuse the same
        return False
    there = [torch.from_numpy(i) for i in x] if isinstance(x, list) else x
    got = policy(put(there), ids=put(ids), epoch=5, backend="triton").cpu()
    assert got.is_contiguous(memory_format=layout) and got.dtype == want.dtype
    assert torch.equal(got.isnan(), want.isnan())
    scale = 5.0 ** sum(isinstance(t, ga.Normalize) for t in transforms)
    compare(got.nan_to_num(), want.nan_to_num(), "resample, jump", repr(policy), scale)
    return got.numel() > 0


@pytest.mark.parametrize("start", range(8))
def test_random_policies_agree(start):
    seen: list[bool] = []

    @seed(start)
    @FEW
    @given(images(), POLICIES)
    def look(x, drawn):
        seen.append(check(x, drawn))

    look()
    assert any(seen), "vacuous: every policy was refused"
