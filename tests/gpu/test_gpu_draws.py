"""On a card the tables of a recipe are those that a host fills, and nothing but one kernel and the partners' fills
them."""

import pytest
import torch
from on_card import DEVICE, MANY, put
from policies import POLICIES, mixes, takes_many

import gpuaug as ga
from gpuaug import ir, rng
from gpuaug.trace import device, host, inputs
from gpuaug.trace.recipe import trace_build

SEED = 2**63 + 77
IDS = torch.arange(MANY) // 2 * 2**36 + 5
KEYS = rng.Keys(SEED, 3, IDS, torch.arange(MANY) % 2)
SIZES = torch.stack([torch.arange(MANY) % 37 + 60, torch.arange(MANY) % 53 + 61], 1)
CASES = [(name, kind) for name in POLICIES for kind in ("dense", "ragged") if kind == "dense" or takes_many(name)]


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_tables_are_those_of_a_host(name, kind, backend):
    fixed = (41, 41) if kind == "dense" else None
    frame = ir.Frame(
        torch.tensor([[41, 41]]).expand(MANY, 2) if fixed else SIZES,
        fixed,
        3,
        torch.float32 if name.startswith("H1") else torch.uint8,
    )
    # a quarter turn of images of different sizes comes before a crop here
    recipe = trace_build(frame, ga.Policy(POLICIES[name], seed=SEED)._builder(backend))
    want = host.fill_tables(recipe.program, recipe.tables, KEYS, frame.size, host.partners(KEYS, recipe.slots))
    program = device.assemble(recipe.trace, recipe.tables, recipe.slots)
    for epoch in (3, torch.tensor(3)):
        keys = rng.Keys(SEED, put(epoch) if isinstance(epoch, torch.Tensor) else epoch, put(IDS), put(KEYS.occurrence))
        mates = device.partners(keys, recipe.slots)
        assert not mixes(name) or torch.equal(mates.cpu(), host.partners(KEYS, recipe.slots))
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
