"""Random compositions of the whole catalogue, with the arguments of the Specs, on small images: all executors give the
same."""

from typing import Any

import numpy as np
import pytest
import torch
from build import build
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from specs import SPECS
from test_fuzz import LOOSE, outcome
from test_triton_fuzz import Labelled, fitting, shape_of
from unsteady import compare_where_steady

import gpuaug as ga

# every transform of the registry with every set of arguments of its Spec
CATALOGUE = [(name, args) for name in sorted(ga.REGISTRY) for args in SPECS[name].arguments]
SIDES = st.integers(1, 16)
LARGEST = 16


def level(fill: Any) -> Any:
    """A fill as a level of bytes: 16 bits between two launches hold it exactly, and 0.7 is a threshold of RandAugment's
    solarize."""
    return tuple(map(level, fill)) if isinstance(fill, tuple) else round(fill * 255) / 255 if fill else fill


def small(name: str, args: dict[str, Any]) -> ga.Transform:
    """A transform whose sizes are at most 16, so that the interpreter is quick."""
    changed = dict(args)
    for key in ("size", "target_size", "min_size", "max_size"):
        value = changed.get(key)
        if isinstance(value, tuple):
            changed[key] = tuple(1 + (v - 1) % LARGEST for v in value)
        elif isinstance(value, int) and name not in ("RandomResize", "RandomErasing"):
            changed[key] = 1 + (value - 1) % LARGEST
    if name == "RandomResize":
        changed |= {"min_size": 7, "max_size": 8}
    if isinstance(changed.get("size"), int) and isinstance(changed.get("max_size"), int):
        changed["max_size"] = changed["size"] + 1
    if "side_range" in changed:
        changed["side_range"] = (1.5, 1.5)
    if changed.get("distortion_scale") == 1.0:
        # two corners that meet divide by what rounding leaves of nothing
        changed["distortion_scale"] = 0.9
    if "fill" in changed:
        changed["fill"] = level(changed["fill"])
    try:
        return build(name, changed)
    except (ValueError, TypeError):
        return build(name, args)


@st.composite
def images(draw) -> torch.Tensor | list[np.ndarray]:
    """Noise of a few pixels, or a list of arrays of different sizes."""
    n, c = draw(st.integers(1, 3)), draw(st.sampled_from([1, 3, 3, 3]))
    numbers = np.random.default_rng(draw(st.integers(0, 2**16)))
    if draw(st.integers(0, 4)) == 0:
        return [numbers.integers(0, 256, (draw(SIDES), draw(SIDES), c), np.uint8) for _ in range(n)]
    x = torch.from_numpy(numbers.integers(0, 256, (n, c, draw(SIDES), draw(SIDES)), np.uint8))
    x = x.contiguous(memory_format=torch.channels_last) if draw(st.booleans()) else x
    return x if draw(st.booleans()) else x.float() / 255


COMPOSITIONS = st.tuples(
    st.lists(st.sampled_from(CATALOGUE), min_size=1, max_size=4),
    # as they are, or one of them per sample
    st.booleans(),
    st.integers(0, 2**64 - 1),
    st.booleans(),
)


def composed(x: torch.Tensor | list[np.ndarray], drawn: tuple[list[Any], bool, int, bool]) -> ga.Policy | None:
    """The policy of those that take what comes to them; None where none is left."""
    chosen, together, seed, floats = drawn
    transforms: list[ga.Transform] = [ga.ToDtype(torch.float32, scale=True)] if floats else []
    transforms += [small(*one) for one in chosen]
    if together and len(chosen) > 1:
        transforms = [*transforms[: -len(chosen)], ga.RandomChoice(transforms[-2:]), *transforms[-len(chosen) : -2]]
    try:
        kept = fitting(transforms, shape_of(x))
        return ga.Policy(kept, seed)
    except (ValueError, TypeError):
        return None


def jumps(policy: ga.Policy) -> bool:
    """Whether a last bit of one pixel decides about many: of few pixels, that is more than a thousandth."""
    said = repr(policy)
    return any(word in said for word in ("Solarize", "Posterize", "Equalize", "Augment", "JPEG", "nearest", "AugMix"))


def check(x: torch.Tensor | list[np.ndarray], drawn: tuple[list[Any], bool, int, bool]) -> bool:
    """Whether there was something to look at; raises where executors differ."""
    policy = composed(x, drawn)
    if policy is None:
        return False
    ids = torch.arange(len(x)) * 2**33 + drawn[2] % 1000

    def run(images: Any) -> torch.Tensor:
        return Labelled(policy)(images, ids=ids, epoch=5, backend="reference").nan_to_num()

    want, *others = (outcome(Labelled(policy), x, ids, b) for b in ("reference", "cpu", "triton"))
    for backend, got in zip(("cpu", "triton"), others, strict=True):
        if isinstance(want, Exception):
            assert type(got) is type(want) and str(got) == str(want), f"{backend} gives {got!r} instead of {want!r}"
            continue
        assert not isinstance(got, Exception), f"{backend}: {got!r}"
        assert got.shape == want.shape and got.dtype == want.dtype
        assert torch.equal(got.isnan(), want.isnan())
        scale = 5.0 ** sum(isinstance(t, ga.Normalize) for t in policy.transforms)
        what = f"{policy!r} on {backend}"
        try:
            sides = (got.nan_to_num(), want.nan_to_num())
            compare_where_steady(*sides, "resample, jump", run, x, what, scale, backend)
        except AssertionError:
            apart = (got.double() - want.double()).abs() > 2e-4 * scale
            if not (jumps(policy) and apart.double().mean() < 0.05):
                raise
    return isinstance(want, torch.Tensor) and want.numel() > 0


# a policy that fails is said whole; to look for a shorter one takes minutes
FAST = (Phase.explicit, Phase.generate)


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=LOOSE, phases=FAST)
@given(images(), COMPOSITIONS)
def test_compositions_of_the_catalogue_agree(x, drawn):
    check(x, drawn)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_two_thousand_compositions_of_the_catalogue_agree(part):
    seen: list[bool] = []

    @settings(max_examples=100, deadline=None, suppress_health_check=LOOSE, database=None, phases=FAST)
    @given(images(), COMPOSITIONS)
    def look(x, drawn):
        seen.append(check(x, drawn))

    look()
    assert np.mean(seen) > 0.5, "vacuous"


def test_every_transform_of_the_registry_is_composed():
    assert {name for name, _ in CATALOGUE} == ga.REGISTRY.keys()
    taken: set[str] = set()
    x = torch.zeros(2, 3, 16, 13, dtype=torch.uint8)
    for one in CATALOGUE:
        for floats in (False, True):
            policy = composed(x, ([one], False, 1, floats))
            taken |= {type(t).__name__ for t in policy.transforms} if policy else set()
    assert taken == ga.REGISTRY.keys(), f"never taken: {ga.REGISTRY.keys() - taken}"
