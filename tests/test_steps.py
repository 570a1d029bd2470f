"""What an executor says that it runs is what it runs: steps, kernels, compiled calls and bytes are counted while a call
is made."""

import re
from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from typing import Any
from unittest import mock

import pytest
import torch
from build import spec
from executed import FINISH, IDS, plan_of
from gpuaug_kernels import codes, launch
from waits import CARD, card

import gpuaug as ga
from bench.scenarios import POLICIES as STRENGTHS
from gpuaug import fuse, ir, rng
from gpuaug.exec import load, reference
from gpuaug.exec.cpu import entry, layout
from gpuaug.exec.cpu import executor as cpu
from gpuaug.exec.triton import executor as kernels
from gpuaug.exec.triton.canonical import canonical_form
from gpuaug.trace import recipe

N = 3
SIZE = (41, 41)
SIZES = [(40, 53), (31, 60), (52, 37)]
BACKENDS = ("reference", "cpu", "triton")
HALF = ga.ToDtype(torch.bfloat16, scale=True)
POLICIES: dict[str, tuple[ga.Transform, ...]] = {
    # of what runs by the reference there is nothing to count
    **{n: (cls(**cls.example),) for n, cls in sorted(ga.REGISTRY.items()) if not spec(n).falls_back},
    **STRENGTHS,
    # what follows a step, and other types than float32 at both ends
    "two contrasts in 16 bits": (
        *STRENGTHS["moderate"],
        ga.ColorJitter(contrast=0.4),
        ga.RandomRotation(9, "bilinear"),
        ga.ColorJitter(contrast=0.4),
        HALF,
    ),
    "cut and turned": (ga.CutMix(1.0, 4), ga.RandomRotation(9), ga.CutMix(1.0, 4), ga.ToDtype(torch.uint8, scale=True)),
}
assert {"none", "weak", "moderate", "strong", "very strong"} <= POLICIES.keys()


def kinds() -> list[Any]:
    """Every policy with kinds of batches that it takes: a dtype, or None for images of different sizes."""
    takes = dict.fromkeys(STRENGTHS, (torch.uint8, torch.float16, None))
    for name, cls in ga.REGISTRY.items():
        takes[name] = (torch.uint8,) if spec(name).dtype(cls.example, torch.uint8) else (torch.float16,)
    return [pytest.param(n, d, id=f"{n}-{d}") for n in POLICIES for d in takes.get(n, (torch.uint8,))]


def batch(dtype: torch.dtype | None, device: torch.device | str = "cpu") -> Any:
    if dtype is None:
        return [torch.full((h, w, 3), 7, dtype=torch.uint8, device=device) for h, w in SIZES]
    return torch.ones(N, 3, *SIZE, dtype=dtype, device=device)


def plan_for(policy: ga.Policy, dtype: torch.dtype | None) -> fuse.Plan:
    keys = rng.Keys(policy.seed, 2, IDS[:N], torch.zeros_like(IDS[:N]))
    size = torch.tensor(SIZES) if dtype is None else torch.tensor([SIZE]).expand(N, 2)
    frame = ir.Frame(size, None if dtype is None else SIZE, 3, dtype or torch.uint8)
    return policy._plan(keys, frame, policy._draw(keys, frame))


def called(policy: ga.Policy, images: Any, backend: str, device: torch.device | str = "cpu") -> Any:
    labels = torch.zeros(N, dtype=torch.int64, device=device) if policy._mixes else None
    return policy(
        images,
        labels,
        ids=torch.arange(N, device=device),
        epoch=2,
        occurrence=torch.zeros(N, dtype=torch.int64, device=device),
        backend=backend,
    )


def held(images: Any) -> int:
    """Bytes of images in memory; of 16 bits between two kernels a pixel has a fourth value that nobody reads."""
    parts = images.images if isinstance(images, ga.Ragged) else images if isinstance(images, list | tuple) else [images]
    return sum(i.numel() * i.element_size() * (4 if i.dtype == torch.uint16 else 3) // 3 for i in parts)


def near(said: int, counted: int) -> None:
    """Bytes of an image, of which ragged ones are the mean."""
    assert abs(said * N - counted) <= 8 * N, (said * N, counted)


# ---- the executors, counted


@pytest.mark.parametrize(("name", "dtype"), kinds())
def test_on_a_card_the_kernels_launched_are_those_of_the_steps(name, dtype):
    policy = ga.Policy(POLICIES[name])
    steps = kernels.steps(plan_for(policy, dtype))
    assert not any(step.fallback for step in steps)
    whole, moved = launch._launch, []  # type: Any, list[tuple[int, int]]

    gathering: list[bool] = []

    def watched(
        source: Any, program: Any, tables: Any, known: Any, size: Any, out: torch.Tensor, layout: Any, *more: Any
    ) -> None:
        one, following = (*more, None, None)[:2]
        sides = 2 if program.records[codes.RECORD] in (codes.MIXUP, codes.MIX_INSIDE) else 1
        moved.append((sides * held(source.owner or source.data), 0 if one else held(out)))
        gathering.append(bool(one or following))
        whole(source, program, tables, known, size, out, layout, *more)

    with card() as on, mock.patch.object(launch, "interpreted", return_value=False):
        images = batch(dtype, CARD)
        called(policy, images, "triton", CARD)
        on.work.clear()
        with mock.patch.object(launch, "_launch", watched):
            called(policy, images, "triton", CARD)
    text = policy.describe(SIZE if dtype else None, dtype=dtype or torch.uint8, backend="triton")
    total, drawing = map(int, re.search(r"(\d+) kernels?, (\d+) of them to draw", text).groups())
    # torch's kernels beside ours: zeros to gather statistics in; and those of this test's arguments and of labels
    made = [what for step in steps for what in step.launches]
    zeros = made.count(kernels.ZEROS)
    labels = int(bool(plan_for(policy, dtype).mixes))
    assert (f", {labels} for labels" in text) == bool(labels)
    assert on.work.count("kernel") == drawing + len(made) + labels - zeros == total - zeros
    assert on.work.count("zeros") == zeros + 1 + bool(policy._mixes)
    assert (
        sum("gather" in what for what in made)
        == sum(what.startswith("finish") for what in made)
        == sum(gathering)
        == sum(not wrote for _, wrote in moved) + sum(bool(step.gathers) for step in steps)
    )
    near(sum(step.reads for step in steps), sum(read for read, _ in moved))
    near(sum(step.writes for step in steps), sum(wrote for _, wrote in moved))


@pytest.mark.parametrize(("name", "dtype"), kinds())
def test_on_a_host_the_compiled_calls_are_those_of_the_steps(name, dtype, monkeypatch):
    policy = ga.Policy(POLICIES[name])
    steps = cpu.steps(plan_for(policy, dtype))
    moved, entered = [], []  # type: list[tuple[int, int]], list[int]
    native, in_place, lay_out, output = cpu._native, cpu._in_place, entry.lay_out, cpu._output
    asked: list[torch.Tensor] = []

    def watched(step: Any, images: Any, threads: int) -> Any:
        out = native(step, images, threads)
        # what the rows wrote, and torch has made another type of where that is not what is asked for
        made = asked[-1]
        cast = int(out.dtype != made.dtype)
        # a MixUp reads its partner's pixels beside its own
        sides = 1 + any(row[layout.OP] in (layout.MIXUP, layout.MIX_INSIDE) for row in step.code)
        moved.append((sides * held(images) + cast * held(made), held(made) + cast * held(out)))
        return out

    def mix(step: Any, images: Any, threads: int) -> Any:
        # at most: of rectangles that are whole images
        sides = 1 + (step.code[0][layout.OP] != layout.CUTMIX)
        moved.append((sides * held(images), held(images)))
        entered.append(1)
        return in_place(step, images, threads)

    monkeypatch.setattr(cpu, "_native", watched)
    monkeypatch.setattr(cpu, "_in_place", mix)
    monkeypatch.setattr(cpu, "_output", lambda *what: asked.append(output(*what)) or asked[-1])
    monkeypatch.setattr(entry, "lay_out", lambda *a: entered.append(1) or lay_out(*a))
    images = batch(dtype)
    called(policy, images, "cpu")
    assert len(entered) == len(steps) and {step.kind for step in steps} == {"rows"}
    # what the rows do not read is made float32 first
    first = (held(images), 2 * held(images)) if dtype == torch.float16 else (0, 0)
    near(sum(step.reads for step in steps), sum(read for read, _ in moved) + first[0])
    near(sum(step.writes for step in steps), sum(wrote for _, wrote in moved) + first[1])


@pytest.mark.parametrize(("name", "dtype"), kinds())
def test_the_reference_applies_the_passes_of_its_steps_one_by_one(name, dtype, monkeypatch):
    policy = ga.Policy(POLICIES[name])
    steps = reference.steps(plan_for(policy, dtype))
    apply, found, inside = reference.apply, [], []  # type: Any, list[str], list[int]

    def watched(p: ir.Pass, images: Any, keys: rng.Keys) -> Any:
        if not inside:
            found.append(type(p).__name__)
        inside.append(1)
        out = apply(p, images, keys)
        inside.pop()
        return out

    monkeypatch.setattr(reference, "apply", watched)
    images = batch(dtype)
    out = called(policy, images, "reference")
    assert found == [type(p).__name__ for step in steps for p in step.passes] and all(
        len(step.passes) == 1 for step in steps
    )
    near(steps[0].loads[0].bytes, held(images))
    near(steps[-1].stores[-1].bytes, held(out[0] if policy._mixes else out))


# ---- what holds for all of them


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "dtype"), kinds())
def test_steps_hold_every_pass_once_hand_on_what_they_store_and_are_what_is_prepared(name, dtype, backend):
    plan, executor = plan_for(ga.Policy(POLICIES[name]), dtype), load(backend)
    steps = executor.steps(plan)
    passes = canonical_form(plan.passes) if backend == "triton" else plan.passes
    assert [type(p) for step in steps for p in step.passes] == [type(p) for p in passes]
    for a, b in pairwise(steps):
        assert a.stores[-1].bytes == b.loads[0].bytes and a.stores[-1].dtype == b.loads[0].dtype
        # kernels keep values of [0, 1] in 16 bits between them
        assert a.stores[-1].dtype in ({torch.float32, torch.uint16} if backend == "triton" else {torch.float32})
    assert (
        steps[0].loads[0] == (plan.frame, plan.frame.dtype)
        and steps[-1].stores[-1].dtype == ir.after(plan.passes, plan.frame).dtype
    )
    assert all(step.reason and bool(step.launches) == (step.kind == "kernels") for step in steps)
    assert backend == "reference" or len(executor.prepare(plan)) == len(steps)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", STRENGTHS)
def test_describe_prints_the_steps_of_the_backend_asked(name, backend):
    policy = ga.Policy(STRENGTHS[name])
    plan = plan_for(policy, torch.uint8)
    steps, text = load(backend).steps(plan), policy.describe(SIZE, backend=backend)
    assert f"backend {backend}: {len(steps)} step" in text
    lines = text.splitlines()
    for number, step in enumerate(steps, 1):
        at = next(k for k, line in enumerate(lines) if line.startswith(f"  {number}. "))
        own = "\n".join(lines[at : at + 4])
        assert all(type(p).__name__ in lines[at] or isinstance(p, ir.Choice) for p in step.passes)
        assert f"{step.reads / 1e3:.0f} kB, writes" in own and f"{step.writes / 1e3:.0f} kB an image" in own
        assert backend != "triton" or f": {', '.join(step.launches)}" in own
        assert number == 1 or backend == "reference" or step.reason in own
    assert f"  {sum(s.reads + s.writes for s in steps) / 1e3:.0f} kB an image in all" in text
    assert "launch" not in text, "only the kernels of a card are launched"


def test_what_falls_back_is_told_with_its_reason():
    x, f = torch.rand(N, 3, 9, 9), torch.linspace(0.2, 1.8, N)
    mixed = ir.Choice(torch.zeros(N, 1, dtype=torch.int64), ((ir.Hue(f), ir.MixUp(torch.arange(N), f)),))
    for passes, reasons in (
        (
            (ir.Hue(f), ir.Custom(torch.flip, "mine"), ir.Hue(f), FINISH),
            {"cpu": "no compiled rule", "triton": "no rule for Custom"},
        ),
        ((ir.Hue(f), mixed, ir.Hue(f), FINISH), {"cpu": "a mix inside a choice", "triton": "MixUp after another pass"}),
    ):
        for backend, reason in reasons.items():
            first, second, third = load(backend).steps(plan_of(passes, x))
            assert reason in second.fallback and second.kind == "torch" and not second.launches
            assert not first.fallback and not third.fallback and "before it" in third.reason


class Mine(ga.RandomInvert):
    """A user's function on images."""

    def lower(self, params: Any, frame: ir.Frame, slot: int) -> ir.Sequence:
        return (ir.Custom(lambda images: images.flip(2), "upside down"),)


@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_describe_names_a_users_function_and_says_that_the_reference_runs_it(backend):
    text = ga.Policy([ga.RandomResizedCrop(9), Mine(), ga.RandomInvert()]).describe((20, 30), backend=backend)
    assert "3 steps" in text and "  2. Custom(upside down)\n" in text
    assert text.count("runs by the reference, by torch operations") == 1


def test_describe_counts_no_kernel_that_draws_where_torch_does(monkeypatch):
    """A program of too many values is not compiled for a card; hosts run it."""
    monkeypatch.setattr(recipe, "_LONGEST", 40)
    policy = ga.Policy([ga.RandomResizedCrop(9)])
    text = policy.describe((20, 30), backend="triton")
    assert "1 step, 1 kernel\n" in text and "draws step by step: more than 40 values" in text
    assert "draws in one compiled call" in policy.describe((20, 30), backend="cpu")


# ---- grouping where it is made


def groups(backend: str, transforms: Any, size: tuple[int, int] = (31, 41)) -> list[list[str]]:
    policy = ga.Policy(transforms)
    keys, frame = rng.Keys(0, 0, IDS[:2], IDS[:2] * 0), ir.Frame(torch.tensor([size, size]), size, 3, torch.float32)
    return [
        [type(p).__name__ for p in step.passes]
        for step in load(backend).steps(policy._plan(keys, frame, policy._draw(keys, frame)))
    ]


CROP, JITTER = ga.RandomResizedCrop(16), ga.ColorJitter(0.4, 0.4, 0.4, 0.1)
GROUPS: dict[str, tuple[list[ga.Transform], list[list[str]], list[list[str]]]] = {
    # transforms; on a host; on a card
    "points after a crop": (
        [CROP, ga.RandomInvert(), ga.SaltAndPepper(), ga.RandomErasing()],
        *[[["Resample", "Choice", "SaltPepper", "Erase", "Finish"]]] * 2,
    ),
    "a mean of a crop": ([CROP, JITTER], [["Resample", "Choice", "Finish"]], [["Resample"], ["Choice", "Finish"]]),
    "a mean of what only moves": ([ga.RandomCrop(16), JITTER], *[[["Resample", "Choice", "Finish"]]] * 2),
    "a cut of a crop": (
        [CROP, ga.CutMix(num_classes=3)],
        [["Resample"], ["CutMix", "Finish"]],
        [["Resample", "CutMix", "Finish"]],
    ),
    "a cut of a crop, then a mean": (
        [CROP, ga.CutMix(num_classes=3), JITTER],
        *[[["Resample"], ["CutMix", "Choice", "Finish"]]] * 2,
    ),
    "a cut of points": (
        [ga.RandomInvert(), ga.CutMix(num_classes=3)],
        [["Choice"], ["CutMix", "Finish"]],
        [["Choice", "CutMix", "Finish"]],
    ),
    "a second cut": (
        [ga.CutMix(), ga.RandomInvert(), ga.CutMix()],
        *[[["CutMix", "Choice"], ["CutMix", "Finish"]]] * 2,
    ),
    "a turn of a crop": (
        [CROP, ga.RandomInvert(), ga.RandomRotation(9)],
        [["Resample", "Choice", "Warp", "Finish"]],
        [["Resample", "Choice"], ["Warp", "Finish"]],
    ),
}


@pytest.mark.parametrize("name", GROUPS)
def test_passes_share_a_step_where_they_must_and_not_where_they_must_not(name):
    transforms, host, on_card = GROUPS[name]
    assert (groups("cpu", transforms), groups("triton", transforms)) == (host, on_card)


def test_a_mixup_of_what_is_expensive_to_recompute_is_a_step_of_its_own_on_a_card():
    x, f = torch.rand(N, 3, 9, 9), torch.linspace(0.2, 0.8, N)
    mix = ir.MixUp(torch.arange(N), f)
    pair: Callable[[ir.Pass], Any] = lambda p: kernels.steps(plan_of((p, mix, FINISH), x))  # noqa: E731
    assert [len(pair(p)) for p in (ir.Sharpness(f), ir.Solarize(f))] == [2, 1]
    assert "MixUp needs every pixel of two images" in pair(ir.Sharpness(f))[1].reason
    # both sides are read
    assert pair(ir.Solarize(f))[0].reads == 2 * pair(ir.Solarize(f))[0].writes == 2 * 3 * 9 * 9 * 4


@pytest.mark.parametrize(("name", "dtype"), kinds())
def test_on_a_card_only_the_first_pass_of_a_step_reads_around_its_pixel(name, dtype):
    for step in kernels.steps(plan_for(ga.Policy(POLICIES[name]), dtype)):
        assert not any(kernels.reads_around(p) for p in step.passes[1:])


def test_a_plan_says_nothing_of_steps():
    assert [f.name for f in fields(fuse.Plan)] == ["passes", "keys", "frame", "through", "mixes"]
