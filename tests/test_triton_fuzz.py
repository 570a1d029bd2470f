"""Random policies on random images: the kernels give the reference's pixels, or both refuse with an error of ours."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fuzz import LOOSE, POOL, images, outcome
from unsteady import compare_where_steady

import gpuaug as ga

# mixes too, here and there in choices: they ask for labels
MIXING = [
    ga.CutMix(1.0),
    ga.CutMix(0.3),
    ga.RandomApply([ga.CutMix(1.0), ga.RandomInvert(0.5)], 0.6),
    ga.RandomChoice([ga.CutMix(0.5), ga.RandomHorizontalFlip(), ga.CutMix(2.0)]),
    ga.RandomOrder([ga.RandomVerticalFlip(), ga.CutMix(1.0)]),
]
POLICIES = st.tuples(
    st.lists(st.sampled_from(POOL + MIXING), min_size=1, max_size=8),
    st.booleans(),
    st.integers(0, 2**64 - 1),
    st.booleans(),
)


END = ga.Resize((12, 35))


class Labelled:
    """A policy with the labels that its mixes ask for; only images come out."""

    def __init__(self, policy: ga.Policy):
        self.policy = policy

    def __call__(self, x: torch.Tensor | list[np.ndarray], **more) -> torch.Tensor:
        return self.policy(x, torch.eye(max(len(x), 5))[: len(x), :5].contiguous(), **more)[0]


def shape_of(x: torch.Tensor | list[np.ndarray]) -> dict[str, Any]:
    """What `describe` is to know of images."""
    if isinstance(x, list):
        return {"size": None, "channels": x[0].shape[2]}
    return {"size": tuple(x.shape[2:]), "channels": x.shape[1], "dtype": x.dtype}


def accepts(transforms: list[ga.Transform], shape: dict[str, Any]) -> bool:
    """Whether a policy takes such images."""
    try:
        ga.Policy(transforms).describe(**shape, backend="reference")
    except (ValueError, TypeError):
        return False
    return True


def fitting(transforms: list[ga.Transform], shape: dict[str, Any]) -> list[ga.Transform]:
    """The transforms without those that refuse what comes to them, ended by one size where there is none yet."""
    kept: list[ga.Transform] = []
    for t in transforms:
        if accepts([*kept, t, END], shape):
            kept.append(t)
    return kept if accepts(kept, shape) else [*kept, END]


def check(x: torch.Tensor | list[np.ndarray], drawn: tuple[list[ga.Transform], bool, int, bool]) -> bool:
    """Whether there was an image to look at; raises where the executors differ."""
    transforms, floats, seed, last = drawn
    layout = torch.channels_last if last else torch.contiguous_format
    transforms = fitting([*([ga.ToDtype(torch.float32, scale=True)] if floats else []), *transforms], shape_of(x))
    policy = ga.Policy(transforms, seed, memory_format=layout)
    ids = torch.arange(len(x)) * 2**33 + seed % 1000
    want, got = (outcome(Labelled(policy), x, ids, b) for b in ("reference", "triton"))
    if isinstance(want, Exception):
        assert type(got) is type(want) and str(got) == str(want), (
            f"the reference refuses ({want}), triton gives {got!r}"
        )
        return False
    assert not isinstance(got, Exception), got
    assert got.is_contiguous(memory_format=layout) and got.dtype == want.dtype
    assert torch.equal(got.isnan(), want.isnan())
    # what is normalised is divided by a standard deviation, each time that it is
    scale = 5.0 ** sum(isinstance(t, ga.Normalize) for t in transforms)

    def run(images: Any) -> torch.Tensor:
        return Labelled(policy)(images, ids=ids, epoch=5, backend="reference").nan_to_num()

    sides = (got.nan_to_num(), want.nan_to_num())
    compare_where_steady(*sides, "resample, jump", run, x, repr(policy), scale, "triton")
    return got.numel() > 0


@settings(max_examples=18, deadline=None, derandomize=True, suppress_health_check=LOOSE)
@given(images(), POLICIES)
def test_random_policies_agree(x, drawn):
    check(x, drawn)


@pytest.mark.slow
@settings(max_examples=350, deadline=None, suppress_health_check=LOOSE)
@given(images(), POLICIES)
def test_six_hundred_random_policies_agree(x, drawn):
    check(x, drawn)


def test_random_policies_are_run_and_by_the_kernels():
    """The fuzzing is neither of errors alone, nor of the reference against itself."""
    seen: list[bool] = []
    lengths: list[int] = []
    kernels: list[bool] = []

    @settings(max_examples=35, deadline=None, derandomize=True, suppress_health_check=LOOSE, database=None)
    @given(images(), POLICIES)
    def look(x, drawn):
        transforms, floats, seed, _ = drawn
        shape = shape_of(x)
        transforms = fitting([*([ga.ToDtype(torch.float32, scale=True)] if floats else []), *transforms], shape)
        seen.append(
            isinstance(outcome(Labelled(ga.Policy(transforms, seed)), x, torch.arange(len(x)), "cpu"), torch.Tensor)
            and len(x) > 0
        )
        lengths.append(len(transforms))
        kernels.append("runs by the reference" not in ga.Policy(transforms, seed).describe(**shape, backend="triton"))

    look()
    said = f"vacuous: {np.mean(seen)} run, {np.mean(kernels)} by kernels alone, {np.mean(lengths)} transforms each"
    assert np.mean(seen) > 0.5 and np.mean(kernels) > 0.7 and np.mean(lengths) > 2, said
