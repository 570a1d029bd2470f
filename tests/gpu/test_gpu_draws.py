"""On a card the tables of a recipe are those that a host fills, and nothing but one kernel and the partners' fills
them."""

import pytest
import torch
from on_card import DEVICE, MANY, SOME, put, size_of, slow_unless
from policies import POLICIES, mixes, takes_many

import gpuaug as ga
from gpuaug import ir, rng
from gpuaug.trace import device, host, inputs
from gpuaug.trace.recipe import trace_build

# that a kernel takes as any other; beyond 2**31 its halves are wider, and the kernel another one
SEED, LARGE = 77, 2**63 + 2**31 + 77
IDS = torch.arange(MANY) // 2 * 2**36 + 5
SIZES = torch.stack([torch.arange(MANY) % 37 + 60, torch.arange(MANY) % 53 + 61], 1)
# the kernels of a small seed are those of calls
CASES = [
    slow_unless(backend == "triton" and (seed == SEED or name == "moderate and erasing"), name, kind, backend, seed)
    for name in POLICIES
    for kind in ("dense", "ragged")
    if kind == "dense" or takes_many(name)
    for backend in ("reference", "triton")
    for seed in (SEED, LARGE)
]


@pytest.mark.parametrize(("name", "kind", "backend", "seed"), CASES)
def test_tables_are_those_of_a_host(name, kind, backend, seed):
    host_keys = rng.Keys(seed, 3, IDS, torch.arange(MANY) % 2)
    fixed = size_of(name) if kind == "dense" else None
    frame = ir.Frame(
        torch.tensor([size_of(name)]).expand(MANY, 2) if fixed else SIZES,
        fixed,
        3,
        torch.float32 if name.startswith("H1") else torch.uint8,
    )
    # a quarter turn of images of different sizes comes before a crop here
    recipe = trace_build(frame, ga.Policy(POLICIES[name], seed=seed)._builder(backend))
    mates = host.partners(host_keys, recipe.slots)
    want = host.fill_tables(recipe.program, recipe.tables, host_keys, frame.size, mates)
    program = device.assemble(recipe.trace, recipe.tables, recipe.slots)
    # a number on the card is another kernel
    for epoch in (3, torch.tensor(3)) if name in SOME and seed == SEED else (3,):
        there = put(epoch) if isinstance(epoch, torch.Tensor) else epoch
        keys = rng.Keys(seed, there, put(IDS), put(host_keys.occurrence))
        mates = device.partners(keys, recipe.slots)
        assert not mixes(name) or torch.equal(mates.cpu(), host.partners(host_keys, recipe.slots))
        got = device.fill_tables(program, recipe.tables, keys, put(frame.size.contiguous()), mates)
        assert len(got) == len(want) > 0
        for g, w in zip(got, want, strict=True):
            assert g.device.type == DEVICE.type and g.shape == w.shape and g.dtype == w.dtype
            if w.dtype == torch.float64:
                # sines and roots of two libraries differ in the last bits; what is made of them is rounded once
                assert torch.allclose(g.cpu(), w, rtol=1e-13, atol=1e-12), f"{(g.cpu() - w).abs().max()}"
            else:
                assert torch.equal(torch.nan_to_num(g.cpu(), 7.5), torch.nan_to_num(w, 7.5))


@pytest.mark.parametrize("n", [1, 2, 31, 33, 300])
def test_partners_are_those_of_the_definition(n):
    half = max(1, n // 2)
    # every id twice, over all that an id may be
    ids = torch.arange(n) % half * (rng.MAX_ID // half)
    there = rng.Keys(SEED, 9, put(ids), put(torch.zeros_like(ids)))
    assert torch.equal(
        device.partners(there, (inputs.partner(4),))[0].cpu(), rng.Keys(SEED, 9, ids, torch.zeros_like(ids)).partners(4)
    )
