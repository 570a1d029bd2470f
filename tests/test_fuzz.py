"""Random policies on random images: the CPU executor gives the reference's pixels, or both refuse with an error of
ours."""

from typing import Any

import numpy as np
import pytest
import torch
from compare import compare
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from specs import SPECS
from unsteady import compare_where_steady

import gpuaug as ga

# one more transform each: variations on the examples, where an argument takes another path through the executor
MORE = [
    ga.RandomHorizontalFlip(1.0),
    ga.RandomVerticalFlip(1.0),
    ga.RandomCrop(9, 5, True, 0.25, "reflect"),
    ga.RandomCrop(9, 3, True, 0.25, "edge"),
    ga.Pad((0, 4), 0.5, "symmetric"),
    ga.Resize(13, "nearest"),
    ga.Resize((21, 6), "nearest-exact"),
    ga.Resize((4, 33), antialias=False),
    ga.RandomRotation(90.0, "bilinear", fill=0.75),
    ga.RandomAffine(20.0, (0.2, 0.2), (0.5, 2.0), 20.0, "bilinear", fill=None),
    ga.RandomErasing(1.0, value="random"),
    ga.SaltAndPepper(0.2, per_channel=True),
    ga.GaussianNoise(0.1, 0.2, False),
    ga.RandomInvert(1.0),
    ga.RandomApply([ga.ColorJitter(0.4, 0.4, 0.4, 0.2), ga.RandomRotation(20.0)], 0.7),
    ga.RandomOrder([ga.RandAugment(2, 20), ga.RandomErasing(1.0), ga.RandomHorizontalFlip()]),
    ga.ToDtype(torch.float32, scale=True),
    ga.ToDtype(torch.uint8, scale=True),
]
POOL = [cls(**cls.example) for name, cls in sorted(ga.REGISTRY.items()) if not SPECS[name].mixes] + MORE
SIDES = st.integers(1, 40)


@st.composite
def images(draw) -> torch.Tensor | list[np.ndarray]:
    """Noise of any shape, dtype and strides, or a list of arrays of different sizes."""
    n, c = draw(st.integers(0, 4)), draw(st.sampled_from([1, 3, 3, 3, 4, 5]))
    numbers = np.random.default_rng(draw(st.integers(0, 2**16)))
    if n and draw(st.integers(0, 4)) == 0:
        return [numbers.integers(0, 256, (draw(SIDES), draw(SIDES), c), np.uint8) for _ in range(n)]
    h, w = draw(SIDES), draw(SIDES)
    dtype = draw(st.sampled_from([torch.uint8, torch.float32, torch.float16, torch.bfloat16]))
    shape = (n, c, h, w)
    order = draw(st.permutations(range(4)))
    step = draw(st.sampled_from([1, 1, 2, 3]))
    memory = torch.from_numpy(numbers.integers(0, 256, [shape[i] * (step if i == 3 else 1) for i in order], np.uint8))
    x = memory.permute([order.index(i) for i in range(4)])[..., ::step]
    return x if dtype == torch.uint8 else (x.float() / 255).to(dtype)


POLICIES = st.tuples(
    st.lists(st.sampled_from(POOL), min_size=1, max_size=8),
    st.booleans(),
    st.integers(0, 2**64 - 1),
    st.booleans(),
    st.booleans(),
)


def outcome(
    policy: ga.Policy, x: torch.Tensor | list[np.ndarray], ids: torch.Tensor, backend: str
) -> torch.Tensor | Exception:
    """The images, or the error that we raise."""
    try:
        return policy(x, ids=ids, epoch=5, backend=backend)
    except (ValueError, TypeError) as error:
        return error


def check(x: torch.Tensor | list[np.ndarray], drawn: tuple[list[ga.Transform], bool, int, bool, bool]) -> bool:
    """Whether there was an image to look at; raises where the executors differ."""
    transforms, floats, seed, last, single = drawn
    layout = torch.channels_last if last else torch.contiguous_format
    try:
        steps = [*([ga.ToDtype(torch.float32, scale=True)] if floats else []), *transforms]
        policy = ga.Policy(steps, seed, memory_format=layout, single_resample=single)
    except (ValueError, TypeError):
        return False
    ids = torch.arange(len(x)) * 2**33 + seed % 1000
    want, got = (outcome(policy, x, ids, b) for b in ("reference", "cpu"))
    if isinstance(want, Exception):
        assert type(got) is type(want) and str(got) == str(want), f"the reference refuses ({want}), cpu gives {got!r}"
        return False
    assert not isinstance(got, Exception), got
    assert got.is_contiguous(memory_format=layout) and got.dtype == want.dtype
    assert torch.equal(got.isnan(), want.isnan())
    # what is normalised is divided by a standard deviation, each time that it is
    scale = 5.0 ** sum(isinstance(t, ga.Normalize) for t in transforms)

    def run(images: Any) -> torch.Tensor:
        return policy(images, ids=ids, epoch=5, backend="reference").nan_to_num()

    sides = (got.nan_to_num(), want.nan_to_num())
    compare_where_steady(*sides, "resample, jump", run, x, repr(policy), scale)
    return got.numel() > 0


LOOSE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=LOOSE)
@given(images(), POLICIES)
def test_random_policies_agree(x, drawn):
    check(x, drawn)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=LOOSE)
@given(images(), POLICIES)
def test_two_thousand_random_policies_agree(x, drawn):
    check(x, drawn)


def test_most_random_policies_give_images():
    """The fuzzing is not of errors alone."""
    seen = []

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=LOOSE, database=None)
    @given(images(), POLICIES)
    def look(x, drawn):
        seen.append(check(x, drawn))

    look()
    assert np.mean(seen) > 0.3, "vacuous"


@pytest.mark.parametrize(
    ("seed", "sample", "floats"), [(0, 3, True), (45, 0, True), (57, 0, True), (16, 2, False), (118, 3, False)]
)
def test_where_interpolations_differ_in_a_last_bit_the_reference_jumps_as_far_as_another_executor(seed, sample, floats):
    """These seeds solarize, posterize or equalize 132 interpolated pixels, of which one bit moves up to a third."""
    x = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (4, 3, 2, 22), np.uint8))
    x, ids = (x.float() / 255 if floats else x)[sample][None], torch.tensor([sample])
    resize = ga.Resize((4, 33), antialias=False)
    policy = ga.Policy([resize, ga.AugMix(5, 2)], seed)

    def run(images: Any) -> torch.Tensor:
        return policy(images, ids=ids, backend="reference")

    want, got = run(x), policy(x, ids=ids, backend="cpu")
    with pytest.raises(AssertionError, match="differ by more than"):
        compare(got, want, "resample, jump")
    compare_where_steady(got, want, "resample, jump", run, x, repr(policy), 1.0)


def test_a_difference_that_no_last_bit_explains_is_found():
    x = torch.rand(2, 3, 5, 6)
    policy = ga.Policy([ga.Resize((4, 33), antialias=False), ga.RandomEqualize(1.0)], 1)

    def run(images: Any) -> torch.Tensor:
        return policy(images, ids=torch.arange(2), backend="reference")

    want = run(x)
    wrong = want.clone()
    wrong[0, 0, :2] += 0.01
    with pytest.raises(AssertionError, match="differ by more than"):
        compare_where_steady(wrong, want, "resample, jump", run, x, "", 1.0)
