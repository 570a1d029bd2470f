"""The seam of tracing: what code on symbols may do, what it is told, and that nothing else in the package looks for
symbols by itself."""

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gpuaug as ga
from gpuaug import ir, rng
from gpuaug.symbolic import is_symbolic, require, smooth
from gpuaug.trace.cache import find
from gpuaug.trace.recipe import Recipe, trace_build
from gpuaug.trace.tensor import SYMBOLIC_BATCH
from gpuaug.transforms import base

N = 8
IDS = torch.arange(N) * 2**33 + 3
SIZES = torch.stack([torch.arange(N) + 60, torch.arange(N) % 5 + 61], 1)
FRAME = ir.Frame(SIZES, None, 3, torch.uint8)
KEYS = rng.Keys(5, 7, IDS, torch.zeros_like(IDS))


@dataclass(frozen=True)
class Drawn(ga.Transform):
    """Multiplies by what a function of the draw and the frame gives, [N]."""

    function: Callable[[rng.Draw, ir.Frame], Any]

    def sample(self, draw, frame):
        return {"gain": self.function(draw, frame)}

    def lower(self, params, frame, slot):
        gain = params["gain"].float().view(-1, 1)
        return (ir.Affine(gain, torch.zeros_like(gain)),)


class Changing(Drawn):
    """Has an attribute beside its fields."""

    def __init__(self, function):
        super().__init__(function)
        object.__setattr__(self, "strength", 0.5)


class Holding(Drawn):
    """Hides what it drew in a function."""

    def lower(self, params, frame, slot):
        gain = params["gain"].float().view(-1, 1, 1, 1)
        return (ir.Custom(lambda images: images * gain, "gain"),)


def written(draw: rng.Draw, frame: ir.Frame) -> Tensor:
    out = torch.zeros(len(frame.size), dtype=torch.float64)
    out[:] = draw.uniform()
    return out


def checked(draw: rng.Draw, frame: ir.Frame) -> Tensor:
    u = draw.uniform()
    require(u < 2, lambda: ValueError("a uniform number is below 1"))
    return torch.where(u < 0.5, u, 1 - u)


# the first words of each rule in transforms/base.py -> code that breaks it, and code that does the like and keeps it
RULES: dict[str, tuple[list[Any], list[Any]]] = {
    "Values are not looked at": (
        [
            lambda d, f: d.uniform() if (d.uniform() > 0).all() else 1 - d.uniform(),
            lambda d, f: d.uniform() * float(d.uniform().sum()),
            lambda d, f: d.uniform() + torch.tensor(d.uniform().tolist()),
            lambda d, f: d.uniform() + torch.from_numpy(d.uniform().numpy()),
            lambda d, f: d.uniform(count=3)[:, torch.tensor([2, 0])][:, 0],
            lambda d, f: d.uniform()[d.uniform() >= 0],
        ],
        [checked, lambda d, f: d.uniform(count=3).gather(1, d.integer(0, 3)[:, None])],
    ),
    "Samples are apart": (
        [
            lambda d, f: d.uniform() / d.uniform().sum(),
            lambda d, f: d.uniform().roll(1),
            lambda d, f: torch.cat([d.uniform()[1:], d.uniform()[:1]]),
            lambda d, f: d.uniform() / len(f.size),
            lambda d, f: d.uniform() + torch.arange(len(f.size)),
        ],
        [lambda d, f: d.uniform(count=2).sum(1), lambda d, f: d.integer(0, f.size[:, 0]).double() / f.size[:, 1]],
    ),
    "Randomness is of `draw` alone": (
        [
            lambda d, f: d.uniform() * torch.rand(()),
            lambda d, f: d.uniform() * (1 + d.keys.epoch),
            lambda d, f: d.uniform() * (1 + d.keys.seed),
        ],
        [lambda d, f: d.normal(), lambda d, f: d.beta(0.4), lambda d, f: d.permutation(4)[:, 2].double()],
    ),
    "Types are float64, float32, int64, int32 and bool": (
        [
            lambda d, f: d.uniform().half(),
            lambda d, f: d.words(1)[:, 0].to(torch.uint8).double(),
            lambda d, f: d.uniform().float().exp(),
        ],
        [
            lambda d, f: smooth("exp", d.uniform()),
            lambda d, f: d.uniform().float() * d.words(1)[:, 0].int(),
            lambda d, f: smooth("round", 9 * d.uniform()) + smooth("sin", d.uniform()),
        ],
    ),
    "Rounding is settled": (
        [
            lambda d, f: d.uniform(count=3).sum(1),
            lambda d, f: torch.einsum("ni,ni->n", d.uniform(count=3), d.uniform(count=3)),
            lambda d, f: d.uniform(count=3).sort(1).values[:, 0],
            lambda d, f: d.uniform(count=3).argmax(1).double(),
            lambda d, f: d.uniform() % 0.3,
        ],
        [lambda d, f: d.words(3).argmax(1).double(), lambda d, f: (d.words(3) % 7).sort(1).values[:, 1].double()],
    ),
    "Operations have a rule in `gpuaug.trace.aten` or `gpuaug.trace.axes`": (
        [lambda d, f: torch.erf(d.uniform()), lambda d, f: d.uniform(count=3).cumsum(1)[:, 2], written],
        [lambda d, f: torch.stack([d.uniform(), d.uniform().new_zeros(len(f.size))], 1).amax(1)],
    ),
    "Nothing changes between calls": ([(Changing, lambda d, f: d.uniform())], [lambda d, f: d.uniform()]),
    "Tensors lie in the open": ([(Holding, lambda d, f: d.uniform())], [lambda d, f: d.uniform()]),
}


def cases(kept: int) -> list[Any]:
    found = [(rule, code) for rule, codes in RULES.items() for code in codes[kept]]
    return [pytest.param(rule, code, id=f"{rule.split(' ')[0]}-{i}") for i, (rule, code) in enumerate(found)]


def called(code: Any) -> tuple[ga.Policy, list[Tensor]]:
    """A policy of one such transform, and what three calls gave: without a recipe, finding one, and with it."""
    kind, function = code if isinstance(code, tuple) else (Drawn, code)
    policy, x = (
        ga.Policy([ga.RandomCrop(4), kind(function)], seed=3),
        [torch.full((9, 7, 3), 90, dtype=torch.uint8)] * N,
    )
    x[0] = x[0][:8]
    return policy, [policy(x, ids=IDS, epoch=2) for _ in range(3)]


def test_every_rule_for_traceable_code_is_written_where_transforms_are_and_tried_here():
    rules = re.findall(r"^- (.+?)(?:: |, and |, or |$)", base.__doc__ or "", re.M)
    assert len(rules) >= 8, "vacuous: the rules were not found"
    assert [next(k for k in RULES if r.startswith(k) or k.startswith(r)) for r in rules] == list(RULES)
    assert all(broken and kept for broken, kept in RULES.values())


@pytest.mark.parametrize(("rule", "code"), cases(0))
def test_code_that_breaks_a_rule_is_drawn_step_by_step(rule, code):
    policy, _ = called(code)
    (found,) = policy._recipes._known.values()
    assert isinstance(found, str) and len(found) > 20, f"{rule}: {found}"


@pytest.mark.parametrize(("rule", "code"), cases(1))
def test_code_that_keeps_the_rules_has_a_recipe_and_the_same_pixels(rule, code):
    policy, outs = called(code)
    (found,) = policy._recipes._known.values()
    assert isinstance(found, Recipe), f"{rule}: {found}"
    assert torch.equal(outs[0], outs[1]) and torch.equal(outs[0], outs[2]) and outs[0].unique().numel() > 1


# ---- what the user is told


@pytest.mark.parametrize(
    ("why", "code"),
    [
        ("read on the host", lambda d, f: d.uniform() + torch.tensor(d.uniform().tolist())),
        ("sample to sample", lambda d, f: d.uniform() / d.uniform().sum(0)),
        ("sum of more than two floats", lambda d, f: d.uniform(count=3).sum(1)),
        ("no rule for aten.erf", lambda d, f: torch.erf(d.uniform())),
        ("read on the host, as by if", lambda d, f: d.uniform() if d.uniform().sum() else 1 - d.uniform()),
        # an error of torch or of Python, which is no Untraceable
        ("IndexError", lambda d, f: d.uniform(count=3)[:, 7] if is_symbolic(d.keys) else d.uniform()),
        ("KeyError", lambda d, f: {}["gain"] if is_symbolic(d.keys) else d.uniform()),
    ],
)
def test_the_reason_names_the_line_of_the_users_transform(why, code):
    line = inspect.getsourcelines(code)[1]
    text = ga.Policy([Drawn(code)]).describe((9, 7), dtype=torch.float32)
    (said,) = [t for t in text.splitlines() if "draws step by step" in t]
    assert why in said and f"at {__file__}:{line}: " in said, said


class Reading(ga.RandomHorizontalFlip):
    """Calls code of ours that looks at values on its behalf."""

    def sample(self, draw, frame):
        ir.verify((ir.Solarize(draw.uniform()),), Short(frame.size, (1, 1), 3, torch.float32))
        return super().sample(draw, frame)


class Short(ir.Frame):
    def __len__(self):
        return 0


def held() -> list[Callable[[Tensor], Any]]:
    """Functions that hold a tensor, each in another way."""
    return [
        lambda x: lambda images: images * x,
        lambda x: lambda images, gain=x: images * gain,
        lambda x: partial(torch.mul, x),
        lambda x: partial(torch.mul, other=x),
        lambda x: (lambda params: lambda images: images * params["gain"][0])({"gain": (x,)}),
        lambda x: (lambda inner: lambda images: inner(images))(lambda images: images * x),
        lambda x: Holder(x).times,
    ]


class Holder:
    def __init__(self, tensor):
        self.tensor = tensor

    def times(self, images):
        return images * self.tensor


@pytest.mark.parametrize("hide", held())
def test_a_function_that_holds_what_was_drawn_is_refused_before_any_batch_is_compared(hide):
    """As on a card, where the first batch has a recipe."""
    found = find(FRAME, lambda k, f: (ir.Custom(hide(rng.Draw(k, 3).uniform()), "mine"),))
    assert isinstance(found, str) and "holds tensors" in found, found
    assert isinstance(find(FRAME, lambda k, f: (ir.Custom(hide(torch.ones(3)), "mine"), k.ids)), Recipe)


# ---- the seam itself


def test_symbols_are_symbolic_and_nothing_else_is():
    seen: list[Any] = []
    trace_build(FRAME, lambda k, f: seen.extend([k, k.ids, f.size, rng.Draw(k, 3).uniform()]) or f.size)
    assert len(seen) == 4 and all(map(is_symbolic, seen))
    assert not any(map(is_symbolic, (KEYS, IDS, FRAME.size, torch.nn.Parameter(torch.ones(2)), 3, None, np.ones(2))))


def test_require_raises_for_a_tensor_and_is_remembered_for_a_symbol():
    def build(keys: rng.Keys, frame: ir.Frame) -> Tensor:
        require(frame.size[:, 0] > 50, lambda: ValueError("too small"))
        return frame.size

    recipe = trace_build(FRAME, build)
    assert recipe.required and torch.equal(recipe.fill(KEYS, SIZES), SIZES)
    assert recipe.fill(KEYS, SIZES - 20) is None
    with pytest.raises(ValueError, match="too small"):
        build(KEYS, ir.Frame(SIZES - 20, None, 3, torch.uint8))
    # a card is not waited for
    require(torch.zeros(3, dtype=torch.bool, device="meta"), lambda: ValueError("looked at"))


@pytest.mark.parametrize("function", ["sqrt", "round", "exp", "log", "sin", "cos"])
def test_smooth_gives_the_same_bits_for_a_value_wherever_it_stands_and_whoever_computes_it(function):
    x = rng.Draw(KEYS, 3).uniform(0.1, 7.0, count=9)
    want = torch.tensor([[smooth(function, v[None])[0] for v in row] for row in x], dtype=torch.float64)
    assert torch.equal(smooth(function, x), want) and torch.equal(smooth(function, x.t().contiguous()).t(), want)
    recipe = trace_build(FRAME, lambda k, f: smooth(function, rng.Draw(k, 3).uniform(0.1, 7.0, count=9)))
    assert torch.equal(recipe.fill(KEYS, SIZES), want)
    assert torch.allclose(want, getattr(torch, function)(x), rtol=1e-15, atol=0)


def asked(tree: ast.AST) -> Iterator[int]:
    """Lines that find out by themselves whether a value is a symbol."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("hasattr", "getattr"):
            if any(
                isinstance(a, ast.Constant) and a.value in ("require", "numbers", "in_trace") for a in node.args[1:]
            ):
                yield node.lineno
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Call) and ast.unparse(node.left.func) == "type":
            # images come as subclasses of a tensor, which has nothing to do with tracing
            if re.search(r"\bKeys\b|\bTensor\b", ast.unparse(node.comparators[0])):
                yield node.lineno
        if isinstance(node, ast.Constant) and node.value == SYMBOLIC_BATCH:
            yield node.lineno


def test_only_the_seam_knows_how_a_symbol_is_told():
    folder = Path(ga.__file__).parent
    found = {p.relative_to(folder).as_posix(): list(asked(ast.parse(p.read_text()))) for p in folder.rglob("*.py")}
    found = {name: lines for name, lines in found.items() if lines}
    assert found.pop("trace/tensor.py"), "vacuous: the length of a symbolic batch was not found"
    # whether what a call was given is one of torch's own tensors, or of a subclass such as torchvision's
    door = dict.fromkeys(("arrays.py", "batch.py", "exec/triton/calls.py", "images.py", "policy.py"), 1)
    door |= {"listed.py": 2, "strides.py": 1}
    assert {name: len(lines) for name, lines in found.items()} == door, "use gpuaug.symbolic.is_symbolic"
