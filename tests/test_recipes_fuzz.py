"""Random policies called again and again: with a recipe they give what a policy without one gives, bit for bit."""

import numpy as np
import pytest
import torch
from compare import compare
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_fuzz import POOL, SIDES

import gpuaug as ga

MIXES = [
    ga.CutMix(0.4, 5),
    ga.CutMix(1.0, 5),
    ga.RandomMix([ga.CutMix(1.0), ga.MixUp(0.4)], num_classes=5, prob=0.8),
    ga.RandomMix([ga.CutMix(1.0), ga.MixUp(0.4)], per="batch", num_classes=5),
]
NESTED = [
    ga.RandomOrder(
        [
            ga.RandomApply([ga.ColorJitter(0.4, 0.4, 0.4, 0.2)], 0.5),
            ga.RandomChoice([ga.RandomInvert(0.5), ga.RandomRotation(30.0)]),
        ]
    ),
    ga.RandomChoice(
        [ga.RandomApply([ga.RandomErasing(1.0)], 0.5), ga.RandomOrder([ga.RandomPosterize(3), ga.RandomSolarize(0.3)])],
        [0.2, 0.8],
    ),
    # neither fits every image: the size decides what is drawn
    ga.RandomResizedCrop((7, 9), (0.9, 1.4), (2.0, 3.0)),
    ga.RandomResizedCrop((7, 9), (0.5, 1.0), (0.1, 0.2)),
    ga.RandomCrop(17),
    ga.CenterCrop(19),
    ga.Resize(11, max_size=12),
]
STEPS = st.lists(st.sampled_from([*POOL, *NESTED, *MIXES]), min_size=1, max_size=7)
LOOSE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
COUNTS = [0, 1, 2, 3, 63, 64, 65, 200]


@st.composite
def kinds(draw):
    """What batches of one kind share: sizes (None: images differ), channels, dtype."""
    fixed = None if draw(st.integers(0, 2)) == 0 else (draw(SIDES), draw(SIDES))
    dtype = (
        torch.uint8
        if fixed is None
        else draw(st.sampled_from([torch.uint8, torch.float32, torch.float16, torch.bfloat16]))
    )
    return fixed, draw(st.sampled_from([1, 3, 3, 3, 4])), dtype


@st.composite
def cases(draw):
    """Steps, options, a kind, and who is in each of a few batches of it."""
    options = {"seed": draw(st.integers(0, 2**64 - 1)), "single_resample": draw(st.booleans())}
    epochs = st.sampled_from([0, 1, 2**18 - 1]).flatmap(lambda e: st.sampled_from([e, torch.tensor(e)]))
    few = st.sampled_from(COUNTS[:4] if draw(st.booleans()) else COUNTS)
    batches = st.lists(st.tuples(few, epochs, st.integers(0, 2**16)), min_size=4, max_size=5)
    return draw(STEPS), options, draw(kinds()), draw(batches), draw(st.booleans())


def batch(kind, n: int, numbers: np.random.Generator):
    """Noise, ids up to the largest there is, occurrences."""
    fixed, channels, dtype = kind
    if fixed is None:
        # the largest differ in number, so that every list has its own sizes
        sizes = numbers.integers(1, 30, (max(n, 1), 2))
        images = [numbers.integers(0, 256, (*s, channels), np.uint8) for s in sizes]
    else:
        x = torch.from_numpy(numbers.integers(0, 256, (n, channels, *fixed), np.uint8))
        images = x if dtype == torch.uint8 else (x / 255).to(dtype)
    count = len(images)
    ids = torch.from_numpy(numbers.choice([0, 5, 2**31, 2**32 - 1, 2**46 - 1 - count], 1) + np.arange(count))
    return (
        images,
        ids,
        torch.from_numpy(numbers.integers(0, 2**12, count)),
        torch.from_numpy(numbers.integers(0, 5, count)),
    )


def outcome(policy: ga.Policy, given, epoch, labels: bool, backend: str):
    """Images and labels, or the error that we raise."""
    images, ids, occurrence, classes = given
    try:
        out = policy(images, classes if labels else None, ids=ids, epoch=epoch, occurrence=occurrence, backend=backend)
        return out if labels else (out,)
    except (ValueError, TypeError, RuntimeError) as error:
        return error


def check(case, backend: str = "cpu", most: int = 200) -> int:
    """How many batches a recipe served; raises where one of them differs from what a policy gives that has none."""
    steps, options, kind, batches, floats = case
    mixes = any(t in MIXES for t in steps)
    try:
        policy = ga.Policy(
            [*([ga.ToDtype(torch.float32, scale=True)] if floats and kind[0] else []), *steps], **options
        )
    except (ValueError, TypeError):
        return 0
    served = 0
    for n, epoch, noise in batches:
        given = batch(kind, min(n, most), np.random.default_rng(noise))
        # a policy that is called once draws step by step
        want = outcome(ga.Policy(policy.transforms, **options), given, epoch, mixes, backend)
        known = [r for r in policy._recipes._known.values() if hasattr(r, "fill")]
        got = outcome(policy, given, epoch, mixes, backend)
        if isinstance(want, Exception):
            assert type(got) is type(want) and str(got) == str(want), (
                f"{policy}: the steps refuse ({want}), a recipe gives {got!r}"
            )
            continue
        assert not isinstance(got, Exception), f"{policy}: {got!r}"
        for g, w in zip(got, want, strict=True):
            assert torch.equal(g.isnan(), w.isnan())
            compare(g.nan_to_num(), w.nan_to_num(), "exact", repr(policy))
        served += bool(known) and len(got[0]) > 0
    return served


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=LOOSE)
@given(cases())
def test_batches_of_a_kind_get_what_their_steps_give(case):
    check(case, most=65)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=LOOSE)
@given(cases())
def test_many_batches_of_a_kind_get_what_their_steps_give(case):
    check(case)


def test_most_random_batches_are_served_by_recipes():
    """The fuzzing is not of errors alone."""
    served = []

    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=LOOSE, database=None)
    @given(cases())
    def look(case):
        served.append(check(case, most=3))

    look()
    assert np.mean(np.array(served) > 0) > 0.3 and sum(served) >= 20, "vacuous"


@pytest.mark.slow
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=LOOSE)
@given(cases())
def test_batches_of_a_kind_get_what_their_steps_give_from_the_kernels(case):
    check(case, "triton", 2)
