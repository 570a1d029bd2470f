"""Drawing is small work: it must not wake a team of threads, which wait for each other where the cores are taken."""

import math

import pytest
import torch

import gpuaug as ga

# MKL gives these to all threads from a few hundred numbers on
BY_MKL = {f"aten::{f}" for f in ("sin", "cos", "tan", "atan", "exp", "expm1", "log", "log1p")}
# torch gives these to all threads from 2048 numbers on
BY_TORCH = {f"aten::{f}" for f in ("sqrt", "round", "floor", "ceil", "trunc", "rsqrt")}


@pytest.mark.parametrize("name", sorted(ga.REGISTRY))
def test_drawing_wakes_no_team_of_threads(name):
    transform = ga.REGISTRY[name](**ga.REGISTRY[name].example)
    policy = ga.Policy([transform])
    policy.draw(torch.arange(256), size=(28, 28))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as seen:
        policy.draw(torch.arange(256), size=(28, 28))
    events = [(e.name, max((math.prod(s) for s in e.input_shapes if s), default=0)) for e in seen.events()]
    assert any(n.startswith("aten::") for n, _ in events), "vacuous: nothing was recorded"
    assert not [(n, k) for n, k in events if (n in BY_MKL and k > 64) or (n in BY_TORCH and k >= 2048)]
