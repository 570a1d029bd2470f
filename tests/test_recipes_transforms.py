"""Transforms that users write, on recipes: the numbers of the steps or the steps themselves, never something else."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

import gpuaug as ga
from gpuaug import ir, rng
from gpuaug.trace.cache import agree, find
from gpuaug.trace.recipe import Recipe

N = 70
SEED = 2**63 + 5
IDS, OCCURRENCE = torch.arange(N) // 2 * 2**33 + 5, torch.arange(N) % 2 * 4095
SIZES = torch.stack([torch.arange(N) % 37 + 60, torch.arange(N) % 53 + 61], 1)
KEYS = rng.Keys(SEED, 7, IDS, OCCURRENCE)
FRAME = ir.Frame(SIZES, None, 3, torch.uint8)


def words(keys: rng.Keys) -> Tensor:
    """[N, 4] int64 in [0, 2^32)"""
    return rng.Draw(keys, 3).words(4) + 0


def floats(keys: rng.Keys) -> Tensor:
    """[N, 4] float64 in [-1, 1)"""
    return rng.Draw(keys, 3).uniform(-1.0, 1.0, count=4)


def wiped(x: Tensor, function: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """A tensor and what a function makes of it, into which zeros are written."""
    made = function(x)
    made[:, 0] = 0
    return [x, made.clone()]


# what can be traced: it must give the bits of the steps
TRACED = {
    "round gives a copy of integers": lambda k: wiped(words(k), torch.round),
    "contiguous gives a copy of a part": lambda k: wiped(words(k), lambda x: x[:, :2].contiguous()),
    "contiguous gives itself of the whole": lambda k: wiped(words(k), torch.Tensor.contiguous),
    "reshape gives a view where it can": lambda k: wiped(words(k), lambda x: x.reshape(-1, 2, 2)),
    "reshape gives a copy where it must": lambda k: wiped(
        words(k), lambda x: x.view(-1, 2, 2).transpose(1, 2).reshape(-1, 4)
    ),
    "a view of a view": lambda k: wiped(words(k), lambda x: x.view(-1, 2, 2)[:, 1]),
    "a turned view": lambda k: wiped(words(k), lambda x: x.t()[1:].t()),
    "true and true is true": lambda k: ((floats(k) > -0.5) + (floats(k) > 0)).long(),
    "logic of numbers": lambda k: torch.logical_and(words(k) % 4, torch.tensor(2)).long(),
    "logic of floats": lambda k: torch.logical_and(floats(k), floats(k) > 0).long(),
    "int32 wraps in a product": lambda k: (words(k).int() * 65537).long(),
    "int32 wraps in a sum": lambda k: (words(k).int() + 2**30).long(),
    "int32 wraps in a shift": lambda k: ((words(k).int() << 5) >> 2).long(),
    "int64 wraps": lambda k: words(k) * 2**31 * 7,
    "float32 of a fill": lambda k: torch.full_like(floats(k).float(), 0.1).double() * floats(k),
    "float32 after each operation": lambda k: ((floats(k).float() * 3.7 + 0.1) / 1.3 - floats(k).float()).double(),
    "float32 of integers": lambda k: (words(k) * 0.1 + words(k) / 7).double(),
    "float32 is compared with a number": lambda k: (floats(k).float() < 0.1).long(),
    "a tensor without dimensions": lambda k: floats(k) * torch.tensor(0.1),
    "NaN in a clamp": lambda k: torch.where(floats(k) < 0, torch.nan, floats(k)).clamp(0.2, 0.5),
    "NaN in a minimum": lambda k: [
        f(torch.where(floats(k) < 0, torch.nan, 0.3), floats(k)) for f in (torch.minimum, torch.maximum)
    ],
    "NaN in the other place": lambda k: [
        f(floats(k), torch.where(floats(k) < 0, torch.nan, 0.3)) for f in (torch.minimum, torch.maximum)
    ],
    "NaN among extremes": lambda k: [
        f(torch.where(floats(k) < 0, torch.nan, floats(k)), 1) for f in (torch.amin, torch.amax)
    ],
    "NaN is not equal to itself": lambda k: [(x != x).long() for x in (torch.where(floats(k) < 0, torch.nan, 0.3),)],
    "division by zero": lambda k: 1 / (floats(k) * 0),
    "division of what is negative": lambda k: [(words(k) - 2**31) // -7, (words(k) - 2**31) % -7],
    "division by what differs": lambda k: words(k) // (words(k) % 7 + 1),
    "an order": lambda k: [*words(k).sort(1), words(k).argmax(1)],
    "an order of equals": lambda k: [*(words(k) % 2).sort(dim=1, stable=True), (words(k) % 2).argmax(1)],
    "a place": lambda k: floats(k).gather(1, words(k) % 4),
    "a new tensor": lambda k: floats(k) + floats(k).new_zeros(len(k), 1),
    "stacks": lambda k: [torch.stack([floats(k)] * 2, -1), torch.stack([floats(k)] * 2, 0).permute(1, 0, 2)],
    "differences": lambda k: floats(k).diff(dim=1),
    "unflatten": lambda k: floats(k).unflatten(1, (2, 2)),
    "where of numbers": lambda k: [torch.where(floats(k) > 0, 0.1, 0.7), torch.where(floats(k) > 0, 1, 0.7)],
    "float64 written into float32": lambda k: (lambda x: (x[:, 0].copy_(floats(k)[:, 1]), x)[1])(
        floats(k).float()
    ).double(),
    "normal and beta": lambda k: [rng.Draw(k, 3).normal(), rng.Draw(k, 3).beta(0.3), rng.Draw(k, 3).permutation(9)],
}


@pytest.mark.parametrize("name", TRACED)
def test_what_is_traced_gives_the_bits_of_its_steps(name):
    recipe = find(FRAME, lambda k, f: TRACED[name](k))
    assert isinstance(recipe, Recipe), recipe
    got, want = (v if isinstance(v, list | tuple) else [v] for v in (recipe.fill(KEYS, SIZES), TRACED[name](KEYS)))
    for g, w in zip(got, want, strict=True):
        assert g.dtype == w.dtype and torch.equal(g.double().nan_to_num(7.5), w.double().nan_to_num(7.5))
        assert len(w) == N
    assert any(w.double().nan_to_num(7.5).unique().numel() > 1 for w in want), "vacuous"


REFUSED = {
    "samples in another axis": lambda k: words(k).reshape(4, -1).t().contiguous(),
    "samples among others": lambda k: words(k).view(2, -1, 2).permute(1, 0, 2),
    "the first sample for all": lambda k: floats(k) + floats(k).gather(1, torch.zeros(1, 1, dtype=torch.int64)),
    "some samples of many": lambda k: floats(k)[:10000],
    "the epoch": lambda k: floats(k)[:, 0] * (k.epoch / 10),
    "the kind of the epoch": lambda k: floats(k) * (2 if isinstance(k.epoch, int) else 3),
    "a shift by what differs": lambda k: words(k) << (words(k) % 70),
    "a shift by too much": lambda k: words(k) >> 64,
    "NaN in an order": lambda k: torch.where(floats(k) < 0, torch.nan, floats(k)).sort(1).values,
    "NaN is the largest": lambda k: torch.where(floats(k) < 0, torch.nan, floats(k)).argmax(1),
    "a root of float32": lambda k: floats(k).abs().float().sqrt(),
    "functions of float32": lambda k: floats(k).float().exp(),
    "a sum in int32": lambda k: words(k).sum(1, dtype=torch.int32).long(),
    "16 bits": lambda k: (floats(k).bfloat16() * 3).double(),
    "8 bits": lambda k: words(k).to(torch.uint8).long(),
    "a write into what is expanded": lambda k: words(k)[:, :1].expand(-1, 3).fill_(0),
    "a branch": lambda k: floats(k) if (floats(k) > 0).any() else words(k),
    "an item": lambda k: floats(k) * float(floats(k)[0, 0]),
    "running sums": lambda k: floats(k).cumsum(1),
    "products of matrices": lambda k: torch.einsum("ni,ni->n", floats(k), floats(k)),
    "places by a tensor": lambda k: floats(k)[:, torch.tensor([0, 2])],
    "a mask": lambda k: (lambda x: (x.__setitem__(x > 0, 0.5), x)[1])(floats(k)),
    "in place": lambda k: floats(k).add_(1),
    "the remainder of floats": lambda k: floats(k) % 0.3,
    "rounding towards zero": lambda k: torch.div(words(k) - 2**31, 7, rounding_mode="trunc"),
    "parts": lambda k: list(floats(k).chunk(2, 1)),
    "the largest and where": lambda k: list(floats(k).max(1)),
    "something scaled": lambda k: torch.add(floats(k), floats(k), alpha=3),
    "something given to write to": lambda k: torch.add(floats(k), 1, out=torch.empty(len(k), 4, dtype=torch.float64)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_trace_cannot_hold_is_refused(name):
    reason = find(FRAME, lambda k, f: REFUSED[name](k))
    assert isinstance(reason, str) and len(reason) > 20, reason


class Holder:
    """Something with a tensor in it."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


def test_tensors_are_found_in_what_is_prepared_or_it_is_refused():
    recipe = find(FRAME, lambda k, f: {"a": (words(k), {"b": [floats(k)]}), "c": 3})
    got, want = recipe.fill(KEYS, SIZES), {"a": (words(KEYS), {"b": [floats(KEYS)]}), "c": 3}
    assert agree(got, want) and not agree(got, {**want, "a": (words(KEYS) + 1, {"b": [floats(KEYS)]})})
    assert "Holder holds tensors" in find(FRAME, lambda k, f: [Holder(words(k))])


def test_a_kernel_that_would_compile_for_minutes_is_refused():
    far = replace(FRAME, size=torch.zeros(2, 2, dtype=torch.int64, device="meta"))

    def build(count: int) -> Callable[..., Tensor]:
        return lambda k, f: rng.Draw(k, 3).uniform(count=count).amax(1)

    assert isinstance(find(far, build(64)), Recipe) and isinstance(find(FRAME, build(2000)), Recipe)
    assert "minutes to compile" in find(far, build(2000))


@dataclass(frozen=True)
class Gain(ga.Transform):
    """Multiply by what a function of the source of randomness gives, [N] or [N, 1]."""

    function: Callable[[rng.Draw], Tensor]

    def sample(self, draw, frame):
        return {"gain": self.function(draw).float().view(len(frame.size), 1)}

    def lower(self, params, frame, slot):
        return (ir.Affine(params["gain"], torch.zeros_like(params["gain"])),)


def thrice(policy: ga.Policy, x: Tensor, **options: object) -> list[Tensor]:
    """Three calls: step by step, with a recipe that is found, with one that is known."""
    return [policy(x, **options) for _ in range(3)]


def recipe_of(policy: ga.Policy) -> object:
    (found,) = policy._recipes._known.values()
    return found


COUNTED = {
    "their count": lambda draw: draw.uniform() * 8 / len(draw.keys.ids),
    "a sum over them": lambda draw: draw.uniform() * 8 / torch.ones(len(draw.keys)).sum(),
    "a generator of torch": lambda draw: draw.uniform() * torch.rand(()),
    "a generator of python": lambda draw: draw.uniform() * random.random(),
}


@pytest.mark.parametrize("name", COUNTED)
def test_what_depends_on_more_than_a_sample_is_drawn_step_by_step(name, images):
    policy, x = ga.Policy([Gain(COUNTED[name])], seed=3), images(8, 6, 5)
    for _ in range(2):
        policy(x, ids=IDS[:8])
    assert "more than the keys" in recipe_of(policy)
    torch.manual_seed(2)
    random.seed(2)
    got = policy(x, ids=IDS[:8])
    fresh = ga.Policy(policy.transforms, seed=3)
    torch.manual_seed(2)
    random.seed(2)
    assert torch.equal(got, fresh(x, ids=IDS[:8]))


def test_a_curriculum_by_the_epoch_is_drawn_step_by_step(images):
    policy, x = ga.Policy([Gain(lambda draw: draw.uniform() * (draw.keys.epoch / 10))], seed=3), images(4, 6, 5)
    for epoch in (0, 0, 0, 1, 7, torch.tensor(7)):
        fresh = ga.Policy(policy.transforms, seed=3)
        assert torch.equal(policy(x, ids=IDS[:4], epoch=epoch), fresh(x, ids=IDS[:4], epoch=epoch))
    assert "epoch" in recipe_of(policy)


def test_a_place_or_a_divisor_that_torch_refuses_is_refused_with_a_recipe_too(images):
    x = images(4, 6, 5)
    for function, message in (
        (lambda draw: draw.uniform(count=3).gather(1, (draw.keys.ids // 1000)[:, None])[:, 0], "out of bounds"),
        (lambda draw: draw.uniform() * (7 // (draw.keys.ids - 2000)), "Zero"),
        (lambda draw: draw.uniform() * (draw.keys.ids % (draw.keys.ids - 2000)), "Zero"),
    ):
        policy = ga.Policy([Gain(function)])
        for _ in range(3):
            policy(x, ids=torch.arange(4) * 500) if message == "out of bounds" else policy(x, ids=torch.arange(4))
        assert isinstance(recipe_of(policy), Recipe), recipe_of(policy)
        with pytest.raises(RuntimeError, match=message):
            policy(x, ids=torch.arange(4) * 1000)
        with pytest.raises(RuntimeError, match=message):
            policy(x, ids=torch.arange(4) + 6000 if message == "out of bounds" else torch.full((4,), 2000))


def test_the_default_dtype_is_part_of_the_kind(images):
    policy, x = ga.Policy([Gain(lambda draw: draw.keys.ids * 0.1 + draw.uniform())], seed=3), images(5, 6, 5)
    singles = thrice(policy, x, ids=torch.arange(5))
    torch.set_default_dtype(torch.float64)
    try:
        doubles = thrice(policy, x, ids=torch.arange(5))
        fresh = ga.Policy(policy.transforms, seed=3)(x, ids=torch.arange(5))
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(s, singles[0]) for s in singles) and all(torch.equal(d, fresh) for d in doubles)
    assert len(policy._recipes._known) == 2


# ---- policies and transforms that are changed


def test_a_policy_that_has_recipes_cannot_be_given_other_transforms(images):
    policy, x = ga.Policy([ga.RandomInvert(1.0)]), images(3, 6, 5)
    inverted = thrice(policy, x, ids=IDS[:3])[2]
    with pytest.raises(AttributeError, match="make a new Policy"):
        policy.transforms = (ga.RandomInvert(0.0),)
    assert torch.equal(policy(x, ids=IDS[:3]), inverted) and not torch.equal(inverted, x)


class Wide(Gain):
    """A transform with something of its own that may change."""

    def sample(self, draw, frame):
        return {"gain": (draw.uniform() * self.strength).float()[:, None]}


@pytest.mark.parametrize("nested", [False, True])
def test_a_transform_that_can_change_is_drawn_step_by_step(images, nested):
    x, transform = images(4, 6, 5), Wide(len)
    transform.strength = 0.5
    policy = ga.Policy([ga.RandomApply([transform], 1.0) if nested else transform], seed=3)
    weak = thrice(policy, x, ids=IDS[:4])
    assert "strength of Wide may change" in recipe_of(policy)
    transform.strength = 1.0
    strong = thrice(policy, x, ids=IDS[:4])
    assert not torch.equal(weak[2], strong[0]) and torch.equal(
        strong[0], ga.Policy(policy.transforms, seed=3)(x, ids=IDS[:4])
    )


def test_agreement_looks_at_every_number():
    frame = replace(FRAME)
    same = {"a": [torch.tensor([1.0, torch.nan]), (frame, None)], "b": torch.ones(2, dtype=torch.float64)}
    assert agree(
        same, {"a": [torch.tensor([1.0, torch.nan]), (frame, None)], "b": torch.ones(2, dtype=torch.float64) + 2.0**-52}
    )
    for other in (
        {**same, "b": torch.ones(2, dtype=torch.float64) + 2.0**-40},
        {**same, "b": torch.ones(2)},
        {**same, "b": torch.ones(3, dtype=torch.float64)},
        {**same, "a": [torch.tensor([1.0, 2.0]), (frame, None)]},
        {**same, "a": [torch.tensor([1.0, torch.nan]), (replace(frame, channels=4), None)]},
        {**same, "a": [torch.tensor([1.0, torch.nan]), (replace(frame, size=SIZES + 1), None)]},
        {"a": same["a"]},
    ):
        assert not agree(same, other)
