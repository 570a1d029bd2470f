"""Recipes: what a traced program fills in is what drawing, lowering and marshalling step by step give, to the last bit,
by the interpreter of a host and by the kernel of a GPU."""

import copy
import math
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
import torch
from build import build, case, cases, spec
from gpuaug_kernels import codes, draws

import gpuaug as ga
from bench.bench_draws import POLICIES, measure
from bench.timing import Budget
from gpuaug import ir, rng
from gpuaug.exec import load
from gpuaug.trace import device, host, inputs
from gpuaug.trace.cache import find
from gpuaug.trace.recipe import Untraceable, trace_build
from gpuaug.trace.record import KINDS, REFERS, Table, Trace, needed

SEED = 2**63 + 2**31 + 12345
N = 70
IDS = torch.arange(N) // 2 * 2**33 + 5
OCCURRENCE = torch.arange(N) % 2 * 4095
SIZES = torch.stack([torch.arange(N) % 37 + 60, torch.arange(N) % 53 + 61], 1)
FLOAT = ga.ToDtype(torch.float32, scale=True)
FRAMES = {"dense": ((62, 74), torch.float32), "ragged": (None, torch.uint8)}


def keys(epoch: int | torch.Tensor = 7) -> rng.Keys:
    return rng.Keys(SEED, epoch, IDS, OCCURRENCE)


def frame(kind: str) -> ir.Frame:
    fixed, dtype = FRAMES[kind]
    return ir.Frame(SIZES if fixed is None else torch.tensor([fixed]).expand(N, 2), fixed, 3, dtype)


def same(a, b, path: str = "") -> int:
    """Raise unless two structures are the same, bit for bit; gives how many numbers were compared."""
    assert type(a) is type(b), f"{path}: {type(a)} and {type(b)}"
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), f"{path}: {a.dtype} {a.shape} and {b.dtype} {b.shape}"
        assert torch.equal(torch.nan_to_num(a, 7.5), torch.nan_to_num(b, 7.5)), (
            f"{path}: {(a != b).sum()} of {a.numel()} numbers differ"
        )
        return a.numel()
    if isinstance(a, np.ndarray):
        assert np.array_equal(a, b), path
        return a.size
    if isinstance(a, tuple | list):
        assert len(a) == len(b), path
        return sum(same(x, y, f"{path}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True)))
    if is_dataclass(a) and not isinstance(a, rng.Keys):
        return sum(same(getattr(a, f.name), getattr(b, f.name), f"{path}.{f.name}") for f in fields(a))
    assert isinstance(a, rng.Keys) or a == b, f"{path}: {a} and {b}"
    return 0


def policies(name: str, i: int):
    """A policy for either kind of frame."""
    transform = build(name, case(name, i))
    for kind in FRAMES:
        first = [ga.RandomResizedCrop(32)] if kind == "ragged" else []
        if spec(name).dtype(case(name, i), torch.uint8) is None:
            first.append(FLOAT)
        # a quarter turn of what is not square leaves a batch of different sizes
        last = [ga.Resize((32, 32))] if spec(name).square else []
        policy = ga.Policy([*first, transform, *last], seed=SEED)
        try:
            policy._builder("cpu")(keys(), frame(kind))
        except ValueError as error:
            # a crop that is too large for 32 pixels, or padding that reaches further
            if kind == "ragged" and ("larger" in str(error) or "further" in str(error)):
                continue
            raise
        yield kind, policy


@pytest.mark.parametrize(("name", "i"), cases(quick=1))
def test_a_recipe_gives_what_its_steps_give(name, i):
    compared = 0
    for kind, policy in policies(name, i):
        for backend in ("reference", "cpu", "triton"):
            make = policy._builder(backend)
            recipe = trace_build(frame(kind), make)
            want = make(keys(), frame(kind))
            compared += same(recipe.fill(keys(), frame(kind).size), want)
    assert compared >= 6 * N, "vacuous"


TRANSFORMS = [
    ga.RandomResizedCrop(24),
    ga.RandomHorizontalFlip(),
    ga.RandAugment(2, 9),
    ga.ColorJitter(0.4, 0.4, 0.4, 0.1),
    FLOAT,
    ga.RandomErasing(),
    ga.CutMix(0.3, 5),
]


@pytest.mark.parametrize("epoch", [7, torch.tensor(7)])
@pytest.mark.parametrize("kind", FRAMES)
def test_the_kernel_of_a_gpu_gives_the_same_bits(kind, epoch):
    policy = ga.Policy([*TRANSFORMS, ga.RandomCrop(20), ga.CutMix(1.0, 5)], seed=SEED)
    recipe = trace_build(frame(kind), lambda k, f: (policy._lower(f, policy._draw(k, f)), torch.zeros_like(k.ids)))
    program, mates = (
        device.assemble(recipe.trace, recipe.tables, recipe.slots),
        device.partners(keys(epoch), recipe.slots),
    )
    assert (
        len(recipe.slots) == 2
        and torch.equal(mates, host.partners(keys(), recipe.slots))
        and not torch.equal(mates[0], mates[1])
    )
    got = device.fill_tables(program, recipe.tables, keys(epoch), frame(kind).size, mates)
    want = host.fill_tables(recipe.program, recipe.tables, keys(), frame(kind).size, mates)
    assert same(got, want) > 50 * N and {t.dtype for t in recipe.tables} == {"float32", "float64", "int64"}


def test_a_batch_of_any_size_fills_its_tables():
    policy = ga.Policy(TRANSFORMS, seed=SEED)
    make = policy._builder("cpu")
    recipe = trace_build(frame("ragged"), make)
    program = device.assemble(recipe.trace, recipe.tables, recipe.slots)
    for n in (0, 1, 31, 64, 65):
        few = rng.Keys(SEED, 7, IDS[:n], OCCURRENCE[:n])
        assert same(recipe.fill(few, SIZES[:n]), make(few, ir.Frame(SIZES[:n], None, 3, torch.uint8))) >= n
        if n in (0, 1, 31):
            rows = device.fill_tables(program, recipe.tables, few, SIZES[:n], device.partners(few, recipe.slots))
            assert (
                same(
                    rows,
                    host.fill_tables(recipe.program, recipe.tables, few, SIZES[:n], host.partners(few, recipe.slots)),
                )
                >= n
            )


def test_the_interpreter_and_the_kernel_know_every_instruction():
    assert set(KINDS) == set(codes.OPERATIONS) and len(KINDS) > 40, "a trace has instructions without a number"
    numbers = [*codes.OPERATIONS.values(), *codes.DTYPES.values()]
    assert numbers == list(range(len(numbers))), "two instructions have one number"
    assert tuple(draws.BUFFERS.items()) == tuple(host.DTYPES.items())


def test_every_instruction_gives_the_same_in_the_interpreter_and_the_kernel():
    """Each on numbers that are hard for it: negative, zero, halves, far ends."""
    trace = Trace()
    whole, small = trace.add("id"), trace.add("occurrence")
    signed = trace.add("isub", whole, trace.constant(2**40))
    real = trace.add("ddiv", trace.add("to_float", signed), trace.constant(8.0))
    halves = trace.add("dmul", trace.add("to_float", trace.add("isub", small, trace.constant(10))), trace.constant(0.5))
    above = trace.add("dadd", trace.add("dabs", halves), trace.constant(2.0**-20))
    given = {"i": [signed, small, whole], "d": [real, halves, above]}
    made = {}
    for op, places in REFERS.items():
        arguments = {"iwhere": "iii", "dwhere": "idd", "to_float": "i", "to_integer": "d"}.get(
            op, ("d" if op[0] in "ds" else "i") * len(places)
        )
        # constants have no arguments, and neither have the inputs of a batch, which other tests compare
        if not arguments or op in ("word", "partner"):
            continue
        rows = [given[k] for k in arguments]
        if op in ("ishl", "ishr"):
            rows = [given["i"], [trace.constant(3), trace.constant(32), trace.constant(0)]]
        if op in ("ieq", "ile", "ilt"):
            rows = [[trace.add("iand", small, trace.constant(7))] * 3, [trace.constant(5)] * 3]
        if op in ("deq", "dle", "dlt"):
            rows = [[halves] * 3, [trace.constant(2.0)] * 3]
        if op == "ddiv":
            rows = [given["d"], [above] * 3]
        if op in ("dsqrt", "dlog"):
            rows = [[above] * 3]
        if op in ("dexp", "dsin", "dcos"):
            rows = [[halves, above, trace.constant(0.25)]]
        if op == "to_integer":
            rows = [[trace.add("dtrunc", real), trace.add("dround", halves), trace.add("dfloor", above)]]
        made[op] = [trace.add(op, *(r[(j + k) % 3] for k, r in enumerate(rows))) for j in range(3)]
    assert made.keys() == {op for op, number in codes.OPERATIONS.items() if number >= codes.IADD}, "some were left out"
    tables = tuple(Table("float64" if KINDS[op] == "d" else "int64", (3,), tuple(v)) for op, v in made.items())
    few = rng.Keys(SEED, 0, torch.arange(N) * 7919 * 2**20 + 2**40 - 35 * 7919 * 2**20, torch.arange(N) % 23)
    mates = torch.empty((0, N), dtype=torch.int64)
    got = device.fill_tables(device.assemble(trace, tables, ()), tables, few, None, few.ids[None])
    want = host.fill_tables(host.assemble(trace, tables, ()), tables, few, None, mates)
    for op, g, w in zip(made, got, want, strict=True):
        # the libraries of two devices may differ in the last bit
        close = torch.isclose(
            g.double(),
            w.double(),
            rtol=1e-15 if op in ("dexp", "dlog", "dsin", "dcos") else 0.0,
            atol=0.0,
            equal_nan=True,
        )
        assert close.all(), f"{op}: {g[~close][:3]} and {w[~close][:3]}"
        assert w.unique().numel() > 1, f"{op}: vacuous"


def test_nan_stays_nan_in_the_interpreter_and_the_kernel():
    trace = Trace()
    real = trace.add("to_float", trace.add("id"))
    nan, found = trace.constant(math.nan), []
    for op in ("dmin", "dmax", "dadd"):
        found += [trace.add(op, nan, real), trace.add(op, real, nan)]
    tables = (Table("float64", (len(found) + 1,), (*found, real)),)
    few = rng.Keys(SEED, 0, torch.arange(5), torch.zeros(5, dtype=torch.int64))
    here = host.fill_tables(host.assemble(trace, tables, ()), tables, few, None, torch.empty((0, 5), dtype=torch.int64))
    there = device.fill_tables(device.assemble(trace, tables, ()), tables, few, None, few.ids[None])
    for made in (here[0], there[0]):
        assert made[:, :-1].isnan().all() and torch.equal(made[:, -1], few.ids.double())


def test_constants_are_folded_and_numbers_made_once():
    trace = Trace()
    a, b = trace.add("id"), trace.constant(3)
    assert trace.add("iadd", a, b) == trace.add("iadd", a, b)
    assert trace.constants[trace.add("imul", b, trace.constant(2**62))] == -(2**62), "as int64 wraps"
    assert trace.constants[trace.add("single", trace.constant(0.1))] == float(np.float32(0.1))
    assert (
        trace.add("imul", a, trace.constant(1)) == a and trace.constants[trace.add("imul", a, trace.constant(0))] == 0
    )
    nan = trace.constant(math.nan)
    assert (
        trace.constant(math.nan) == nan
        and trace.constant(-0.0) != trace.constant(0.0)
        and trace.constant(1.0) != trace.constant(1)
    )
    unused = trace.add("isub", a, b)
    assert unused not in needed(trace, (Table("int64", (), (trace.add("iadd", a, b),)),))


# ---- what cannot be traced


@pytest.mark.parametrize(
    ("reason", "function"),
    [
        ("read on the host", lambda x: x.tolist()),
        ("read on the host", lambda x: x.numpy()),
        ("read on the host, as by if", lambda x: x if (x > 0).all() else -x),
        ("sample to sample", lambda x: x.sum(0)),
        ("sample to sample", lambda x: x[0]),
        ("slice of samples", lambda x: x[1:]),
        ("side by side", lambda x: torch.cat([x, x])),
        ("no rule", lambda x: x.roll(1, 0)),
        ("no rule", lambda x: x[x > 3]),
        ("two axes are of samples", lambda x: x[:, 0][:, None] < x[:, 0]),
        ("float32; take float64", lambda x: x.float().exp()),
        ("more than two floats", lambda x: torch.stack([x[:, 0].double()] * 3, 1).sum(1)),
        ("plain tensor", lambda x: torch.zeros(len(x), 2, dtype=torch.int64).copy_(x)),
        ("place in the batch", lambda x: x + torch.arange(len(x))[:, None]),
    ],
)
def test_what_looks_at_numbers_or_other_samples_is_refused(reason, function):
    with pytest.raises(Untraceable, match=reason):
        trace_build(frame("ragged"), lambda k, f: function(f.size))


class Unusual(ga.RandomHorizontalFlip):
    """A transform that looks at what it drew."""

    def sample(self, draw, frame):
        drawn = super().sample(draw, frame)
        assert len(drawn["apply"].tolist()) == len(drawn["apply"])
        return drawn


def test_a_transform_that_cannot_be_traced_still_runs_and_describe_says_why(images):
    odd, usual = (ga.Policy([kind(0.5), ga.RandomInvert()], seed=3) for kind in (Unusual, ga.RandomHorizontalFlip))
    x, ids = images(4, 12, 10), IDS[:4]
    for _ in range(3):
        assert torch.equal(odd(x, ids=ids), usual(x, ids=ids))
    assert "draws step by step: Untraceable: values are read on the host, in sample at" in odd.describe(
        (12, 10), dtype=torch.float32
    )
    assert "draws step by step" not in usual.describe((12, 10), dtype=torch.float32)


# ---- in a policy


@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_calls_of_a_kind_use_its_recipe_and_give_the_same_pixels(backend, pictures, monkeypatch):
    policy = ga.Policy(TRANSFORMS, seed=4)
    sizes = ((40, 50), (33, 41), (50, 61))
    labels = torch.arange(3)
    first = policy(pictures(sizes), labels, ids=IDS[:3], epoch=2, backend=backend)
    drawn: list[int] = []
    whole = ga.Policy._draw
    monkeypatch.setattr(ga.Policy, "_draw", lambda *a: drawn.append(1) or whole(*a))
    for epoch in (2, torch.tensor(2)):
        again = policy(pictures(sizes), labels, ids=IDS[:3], epoch=epoch, backend=backend)
        assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    # the second call traced, the third drew nothing step by step
    assert len(drawn) == 1
    other = policy(pictures(sizes), labels, ids=IDS[:3], epoch=3, backend=backend)
    assert not torch.equal(first[0], other[0]) and len(drawn) == 1, "vacuous"


def test_replay_and_the_call_agree_when_a_recipe_drew(images):
    policy, x, ids = ga.Policy(TRANSFORMS[1:], seed=4), images(5, 30, 40), IDS[::3][:5]
    labels = torch.arange(5)
    for _ in range(3):
        called = policy(x, labels, ids=ids, epoch=1)
    params = policy.draw(ids, epoch=1, size=(30, 40), dtype=torch.float32)
    replayed = policy.replay(x, params, labels)
    assert torch.equal(called[0], replayed[0]) and torch.equal(called[1], replayed[1])


def test_what_is_required_of_a_batch_is_asked_of_every_batch(pictures):
    policy = ga.Policy([ga.RandomCrop(30)])
    big, small = pictures(((40, 50), (33, 41))), pictures(((40, 50), (29, 60)))
    for _ in range(3):
        policy(big)
    with pytest.raises(ValueError, match=r"size \(30, 30\) of RandomCrop is larger than the padded image \(29, 60\)"):
        policy(small)
    assert policy(big).shape == (2, 3, 30, 30)


@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_a_copy_and_a_policy_of_another_seed_use_no_recipe_of_the_first(backend, images):
    policy, x, ids = ga.Policy([*TRANSFORMS[1:4], ga.SaltAndPepper(0.3)], seed=4), images(3, 20, 20), IDS[:3]
    for _ in range(3):
        want = policy(x, ids=ids, backend=backend)
    twin = copy.deepcopy(policy)
    for _ in range(3):
        assert torch.equal(twin(x, ids=ids, backend=backend), want)
    assert not torch.equal(ga.Policy(policy.transforms, seed=5)(x, ids=ids, backend=backend), want), "vacuous"
    other = ga.Policy(policy.transforms, seed=5)
    wants = other(x, ids=ids, backend=backend)
    assert all(torch.equal(other(x, ids=ids, backend=backend), wants) for _ in range(2))
    with pytest.raises(AttributeError, match="make a new Policy"):
        twin.seed = 5


def test_a_recipe_that_is_found_in_inference_mode_serves_outside_it(images):
    policy, x = ga.Policy(TRANSFORMS[1:5], seed=4), images(3, 20, 20)
    with torch.inference_mode():
        inside = [policy(x, ids=IDS[:3]) for _ in range(3)]
    assert torch.equal(policy(x, ids=IDS[:3]), inside[0]) and torch.equal(inside[2], inside[0])


def test_the_reference_takes_no_recipe(images):
    policy, x = ga.Policy(TRANSFORMS[1:5], seed=4), images(3, 20, 20)
    for _ in range(3):
        policy(x, ids=IDS[:3], backend="reference")
    assert not policy._recipes._known
    assert isinstance(find(frame("dense"), policy._builder("cpu")), str) is False and load("reference").prepare


@pytest.mark.parametrize("name", POLICIES)
def test_the_bench_of_draws_measures_every_policy(name):
    row = measure(name, 5, Budget(0.01, 2, 2))
    assert row["instructions"] > 100 and row["times as fast as step by step"]["n"] == 2 and row["policy"] == name


def test_a_policy_that_is_given_many_kinds_of_batches_remembers_some(images):
    policy = ga.Policy([ga.RandomInvert()])
    for height in range(1, 140):
        policy(images(1, height, 3))
    assert len(policy._recipes._known) <= 64


@pytest.mark.parametrize(
    "steps", [(ga.RandomResizedCrop(24), ga.ColorJitter(0.2)), (ga.RandomCrop(20), ga.CutMix(1.0, 5))]
)
def test_two_sizes_of_images_have_one_kernel_and_numbers_of_their_own(steps):
    make = ga.Policy(steps, seed=SEED)._builder("triton")
    made = []
    for size in ((75, 90), (66, 81), None):
        recipe = trace_build(ir.Frame(torch.tensor([size or (75, 90)] * N), size, 3, torch.uint8), make)
        made.append(device.assemble(recipe.trace, recipe.tables, recipe.slots))
    first, second, ragged = made
    assert first.code == second.code and first.columns == second.columns
    assert len(first.numbers) == len(second.numbers) > 0 and first.numbers != second.numbers
    # sizes that are given for each sample leave nothing to tell apart
    assert not ragged.numbers and ragged.code != first.code


@pytest.mark.parametrize("some", [None, 0.5, 0.0])
def test_a_kernel_finds_the_inputs_of_a_batch_that_a_host_finds(some):
    """Partners among those that are valid, and words of the sample that leads: the first of those, or of all where
    there is none."""
    n = 70
    made = torch.Generator().manual_seed(4)
    ids = torch.randint(0, 12, (n,), generator=made) << 40
    occurrence = torch.randint(0, 3, (n,), generator=made)
    valid = None if some is None else torch.rand(n, generator=made) < some
    who = rng.Keys(2**63 + 2**31 + 5, 77, ids, occurrence, valid)
    words = [inputs.Word(5, rng.PARAMETERS, 5, number, lane) for number in (0, 3) for lane in range(4)]
    slots = (
        inputs.partner(2),
        *(inputs.word(w) for w in words),
        inputs.first(2),
        inputs.partner(9),
        inputs.word(inputs.Word(6, rng.MIX, 65_000, 0, 2)),
    )
    want = torch.stack(inputs.find(who, slots, who.partners))
    assert torch.equal(device.partners(who, slots), want)
    # the same samples in another order, under an epoch in memory
    turned = rng.Keys(
        who.seed, torch.tensor(77), ids.flip(0), occurrence.flip(0), None if some is None else valid.flip(0)
    )
    assert torch.equal(device.partners(turned, slots[1:9]), want[1:9])
