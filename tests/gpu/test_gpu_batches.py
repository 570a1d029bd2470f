"""On a card, who else is in a batch, where its memory lies and which call came before cannot be seen: bit for bit."""

from typing import Any

import numpy as np
import pytest
import torch
from build import build, case, quick
from compare import changed
from on_card import DEVICE, DTYPES, IDS, MANY, SOME, first_cases, images, pictures, put, run, size_of, slow_unless
from policies import POLICIES, mixes, takes_many
from specs import SPECS
from torch import Tensor

import gpuaug as ga

ORDERS = ([4, 0, 6, 2, 1, 5, 3], [2], [6, 1])
SEVEN = ((40, 50), (17, 9), (50, 21), (33, 64), (41, 30), (12, 60), (29, 29))


def moved(x: Tensor, offset: int) -> Tensor:
    """The same values in memory that begins `offset` values further on than the allocator would have it."""
    room = torch.empty(x.numel() + offset, dtype=x.dtype, device=DEVICE)
    out = room[offset:].view(x.shape)
    return out.copy_(x)


@pytest.mark.parametrize(("name", "i"), [c for c in first_cases() if not SPECS[c.values[0]].mixes])
def test_no_transform_sees_the_batch(name, i):
    # as in test_every_transform_agrees, whose kernels these are
    x, policy = images(7, *SPECS[name].image), ga.Policy([build(name, case(name, i))], seed=4)
    whole = run(policy, x, ids=IDS, epoch=2)[0]
    for rows in ORDERS:
        assert torch.equal(run(policy, x[rows], ids=IDS[rows], epoch=2)[0], whole[rows]), rows


# bytes for all, other types for one policy with all that may be misaligned: a source, a crop, a statistic, the rest
ADDRESSED = [
    slow_unless(dtype == torch.uint8 or name == "moderate and erasing", name, dtype)
    for name in POLICIES
    for dtype in DTYPES
    if not mixes(name)
]


@pytest.mark.parametrize(("name", "dtype"), ADDRESSED)
def test_no_policy_sees_the_batch_or_its_addresses(name, dtype):
    policy = ga.Policy(POLICIES[name], seed=8)
    x, ids = images(MANY, *size_of(name), dtype=dtype), torch.arange(MANY) * 17
    if dtype == torch.uint8 and name.startswith("H1"):
        x = x.float() / 255
    whole = run(policy, x, ids=ids)[0]
    assert changed(whole, run(policy, x, ids=ids + 1)[0]) > 0.02, "vacuous"
    order = torch.from_numpy(np.random.default_rng(1).permutation(MANY))
    assert torch.equal(run(policy, x[order], ids=ids[order])[0], whole[order]), "permuted"
    for n, count, offset in ((0, 1, 1), (3, 2, 3), (MANY // 2, 1, 2), (MANY - 5, 5, 7), (0, MANY, 1)):
        part = slice(n, n + count)
        assert torch.equal(run(policy, moved(put(x[part]), offset), ids=ids[part])[0], whole[part]), (
            f"{count} from {n}, {offset} values on"
        )
        last = moved(put(x[part].permute(0, 2, 3, 1).contiguous()), offset).permute(0, 3, 1, 2)
        assert torch.equal(run(policy, last, ids=ids[part])[0], whole[part]), (
            f"channels_last, {count} from {n}, {offset} values on"
        )


@pytest.mark.parametrize("name", [n for n in POLICIES if takes_many(n) and not mixes(n) and n != "quarter turns"])
def test_images_of_different_sizes_do_not_see_each_other_or_their_addresses(name):
    policy, x = ga.Policy(POLICIES[name], seed=3), pictures(SEVEN)
    whole = run(policy, x, ids=IDS)[0]
    assert changed(whole, run(policy, x, ids=IDS + 1)[0]) > 0.05, "vacuous"
    for offset, rows in enumerate((*ORDERS, [4, 3], [0, 5])):
        batch = [moved(put(x[n]), offset) for n in rows]
        assert torch.equal(run(policy, batch, ids=IDS[rows])[0], whole[rows]), (offset, rows)


@pytest.mark.parametrize("name", quick(["weak", "moderate and erasing"], "moderate and erasing"))
def test_images_in_planes_give_what_those_of_pixels_give(name):
    policy, x = ga.Policy(POLICIES[name], seed=3), pictures(SEVEN)
    whole = run(policy, x, ids=IDS)[0]
    for offset in range(4):
        planes = [moved(put(i.permute(2, 0, 1).contiguous()), offset) for i in x]
        assert torch.equal(run(policy, planes, ids=IDS)[0], whole), offset


@pytest.mark.parametrize("name", [n for n in POLICIES if mixes(n)])
def test_a_permuted_batch_is_mixed_alike(name):
    policy, x, labels = (
        ga.Policy(POLICIES[name], seed=8),
        images(MANY, *size_of(name), dtype=torch.uint8),
        torch.arange(MANY) % 7,
    )
    ids = torch.arange(MANY) + 100
    whole, soft = run(policy, x, labels, ids=ids)
    order = torch.from_numpy(np.random.default_rng(2).permutation(MANY))
    other, rows = run(policy, x[order], labels[order], ids=ids[order])
    assert torch.equal(other, whole[order]) and torch.equal(rows, soft[order])
    assert ((soft > 0) & (soft < 1)).any(), "vacuous: nothing was mixed"


@pytest.mark.parametrize("name", POLICIES)
def test_a_call_again_is_the_same_bits(name):
    policy, labels = ga.Policy(POLICIES[name]), put(torch.arange(7)) if mixes(name) else None
    x: Any = put(images(7, *size_of(name), dtype=torch.float32 if name.startswith("H1") else torch.uint8))
    kept = x.clone()
    first = run(policy, x, labels, ids=IDS)[0]
    # memory that was used, and poisoned, in between
    del_me = [torch.full((7, 3, 64, 64), float("nan"), device=DEVICE) for _ in range(4)]
    del del_me
    assert torch.equal(run(policy, x, labels, ids=IDS)[0], first)
    assert torch.equal(x, kept), "the input was written to"
    # a number on the card is another kernel
    number, none = put(torch.tensor(0)) if name in SOME else 0, torch.zeros(7, dtype=torch.int64)
    assert torch.equal(run(policy, x, labels, ids=IDS, epoch=number, occurrence=none)[0], first)
    params = policy.draw(put(IDS), size=size_of(name), dtype=x.dtype)
    again = policy.replay(x, params, labels, backend="triton")
    assert torch.equal((again[0] if labels is not None else again).cpu(), first)
