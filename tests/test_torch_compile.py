"""A policy of a tensor inside torch.compile is one operator, without a graph break; everything else runs eagerly in
one; the pixels are the same."""

import copy
import pickle
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from build import build, quick
from PIL import Image
from specs import SPECS
from torch._subclasses import FakeTensorMode

import gpuaug as ga
from gpuaug import functional as F
from gpuaug import torch_compile

IMAGES = torch.randint(0, 256, (4, 3, 16, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([4, 8, 15, 16])
STEPS = [
    ga.RandomResizedCrop((9, 11)),
    ga.ColorJitter(0.4, 0.4, 0.4, 0.1),
    ga.ToDtype(torch.float32, scale=True),
    ga.SaltAndPepper(0.1),
]


def compiled(policy: ga.Policy, **given: object) -> object:
    """fullgraph raises at any break of the graph."""
    return torch.compile(
        lambda images, labels, ids: policy(images * 1, labels, ids=ids, backend="reference", **given),
        backend="aot_eager",
        fullgraph=True,
    )


@pytest.mark.parametrize("epoch", [0, 3, torch.tensor(5)])
def test_a_compiled_step_has_the_pixels_of_a_plain_one(epoch):
    policy = ga.Policy(STEPS, seed=2)
    got = compiled(policy, epoch=epoch)(IMAGES, None, IDS)
    assert torch.equal(got, policy(IMAGES, ids=IDS, epoch=epoch, backend="reference"))
    assert not torch.equal(got, policy(IMAGES, ids=IDS, epoch=7, backend="reference"))


def test_labels_go_through_a_compiled_mix():
    policy = ga.Policy([*STEPS, ga.CutMix(num_classes=6)], memory_format=torch.channels_last)
    out, soft = compiled(policy)(IMAGES, torch.tensor([0, 1, 2, 5]), IDS)
    want, rows = policy(IMAGES, torch.tensor([0, 1, 2, 5]), ids=IDS, backend="reference")
    assert torch.equal(out, want) and torch.equal(soft, rows) and out.stride() == want.stride()


def test_a_compiled_policy_numbers_on():
    policy = ga.Policy([ga.SaltAndPepper(0.5)])
    step = compiled(policy)
    first, second = step(IMAGES, None, None), step(IMAGES, None, None)
    assert int(policy.next_id) == 8 and not torch.equal(first, second)
    assert torch.equal(second, policy(IMAGES, ids=torch.arange(4, 8), backend="reference"))


def test_labels_that_stay_are_given_back():
    policy = ga.Policy([ga.RandomHorizontalFlip()])
    labels = torch.tensor([3, 1, 2, 0])
    assert torch.equal(compiled(policy)(IMAGES, labels, IDS)[1], labels)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_a_copy_is_a_policy_of_its_own(again):
    policy = ga.Policy([ga.SaltAndPepper(0.5)], seed=3)
    other = again(policy)
    assert other == policy and int(other.outline.handle) != int(policy.outline.handle)
    compiled(other)(IMAGES, None, None)
    assert (int(policy.next_id), int(other.next_id)) == (0, 4)


# ---- what a tensor comes with


def step(policy: ga.Policy) -> Callable[..., Any]:
    return lambda images, labels, **given: policy(images * 1, labels, backend="reference", **given)


def same(a: Any, b: Any) -> bool:
    """Whether two results hold the same values of the same dtypes."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, ga.Batch):
        return all(same(getattr(a, k), getattr(b, k)) for k in ("images", "labels", "ids", "occurrence"))
    return (
        same(list(a), list(b))
        if isinstance(a, tuple)
        else len(a) == len(b) and all(map(same, a, b))
        if isinstance(a, list)
        else a == b
    )


ROWS = {
    "lists": ([0, 1, 2, 5], [4, 8, 15, 16]),
    "tuples": ((0, 1, 2, 5), (4, 8, 15, 16)),
    "arrays": (np.array([0, 1, 2, 5], dtype=np.int32), np.array([4, 8, 15, 16])),
    "soft arrays": (np.eye(6, dtype=np.float32)[:4], np.array([4, 8, 15, 16], dtype=np.int32)),
    "soft lists": (np.eye(6)[:4].tolist(), [4, 8, 15, 16]),
    **{
        str(d): (torch.tensor([0, 1, 2, 5], dtype=d), IDS.to(d))
        for d in (torch.uint8, torch.int16, torch.int32, torch.int64)
    },
    **{f"soft {d}": (torch.eye(6, dtype=d)[:4], IDS) for d in (torch.float16, torch.float32, torch.float64)},
}


@pytest.mark.parametrize("mix", [(), (ga.CutMix(num_classes=6),)], ids=["kept", "mixed"])
@pytest.mark.parametrize(
    "name", quick(ROWS, "lists", "soft arrays", "torch.uint8", "torch.int64", "soft torch.float16")
)
def test_labels_and_ids_of_any_kind_go_through_a_compiled_call(name, mix):
    policy, (labels, ids) = ga.Policy([*STEPS, *mix], seed=2), ROWS[name]
    torch._dynamo.reset()
    got = torch.compile(step(policy), backend="aot_eager", fullgraph=True)(
        IMAGES, labels, ids=ids, occurrence=[0, 1, 0, 2], epoch=4
    )
    assert same(got, step(policy)(IMAGES, labels, ids=ids, occurrence=[0, 1, 0, 2], epoch=4))


def test_lists_of_other_numbers_need_no_other_graph():
    policy, graphs = ga.Policy([*STEPS, ga.CutMix(num_classes=6)]), []
    torch._dynamo.reset()
    compiled = torch.compile(step(policy), backend=counting(graphs), fullgraph=True)
    for k in range(12):
        given = {"ids": [7 + k, 5 * k + 3, 2, 1000 - k], "epoch": 2 + k}
        assert same(
            compiled(IMAGES, [2, 3, 5, 2 + k % 4], **given), step(policy)(IMAGES, [2, 3, 5, 2 + k % 4], **given)
        )
    assert len(graphs) <= 3


def test_a_compiled_training_step_learns_from_what_it_augments():
    policy = ga.Policy([ga.RandomCrop(8), ga.ToDtype(torch.float32, scale=True), ga.CutMix(num_classes=6)], seed=2)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 6))

    def loss(images, labels, ids):
        x, soft = policy(images, labels, ids=ids, backend="reference")
        return torch.nn.functional.cross_entropy(net(x), soft)

    def train(step):
        net.zero_grad()
        value = step(IMAGES, torch.tensor([0, 1, 2, 5]), IDS)
        value.backward()
        return value.detach(), [p.grad.clone() for p in net.parameters()]

    torch._dynamo.reset()
    (got, here), (want, there) = train(torch.compile(loss, backend="aot_eager", fullgraph=True)), train(loss)
    assert torch.allclose(got, want) and all(
        torch.allclose(a, b, atol=1e-6) and a.abs().max() > 0 for a, b in zip(here, there, strict=True)
    )


# ---- many policies


def counting(graphs: list[Any], run: Callable[..., Any] = lambda graph, inputs: graph.forward) -> Callable[..., Any]:
    """A backend of torch.compile that keeps every graph it is given.  run: the backend that compiles it."""

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return run(graph, inputs)

    return backend


class Net(torch.nn.Module):
    def __init__(self, policy: ga.Policy):
        super().__init__()
        self.policy = policy

    def forward(self, images, labels, ids):
        return self.policy(images * 1, labels, ids=ids, backend="reference")


def as_argument() -> Callable[..., Any]:
    compiled = {}
    return lambda policy, **how: compiled.setdefault(
        0, torch.compile(lambda p, x, labels, ids: p(x * 1, labels, ids=ids, backend="reference"), **how)
    ).__get__(policy)


WAYS = {
    "argument": as_argument,
    "closure": lambda: (
        lambda policy, **how: torch.compile(
            lambda x, labels, ids: policy(x * 1, labels, ids=ids, backend="reference"), **how
        )
    ),
    "module": lambda: lambda policy, **how: partial(torch.compile(policy, **how), backend="reference"),
    "part of a model": lambda: lambda policy, **how: torch.compile(Net(policy), **how),
}
MANY = {
    "seeds": lambda k: ga.Policy(STEPS, seed=k),
    "sizes": lambda k: ga.Policy(
        [ga.RandomResizedCrop((9 + k, 40 - 3 * k)), ga.ColorJitter(0.1 * k), ga.ToTensor()], seed=k
    ),
    "sizes of two steps": lambda k: ga.Policy([ga.Pad(k), ga.Resize(30 + k), ga.CenterCrop((5 + k, 7))], seed=k),
    "classes": lambda k: ga.Policy([ga.CutMix(num_classes=6 + k)]),
    "colours": lambda k: ga.Policy([ga.RandomPosterize(k % 8), *[ga.RandomInvert(k / 12)] * k]),
}


@pytest.mark.parametrize("way", quick(WAYS, "argument", "module"))
@pytest.mark.parametrize("name", MANY)
def test_any_number_of_policies_are_compiled_into_few_graphs(name, way):
    """torch allows eight graphs a function, and under fullgraph=True raises at the ninth."""
    graphs, labels, compiled = [], torch.tensor([0, 1, 2, 5]), WAYS[way]()
    torch._dynamo.reset()
    backend = counting(graphs)
    for k in range(10):
        policy = MANY[name](k)
        got = compiled(policy, backend=backend, fullgraph=True)(IMAGES, labels, ids=IDS)
        assert same(got, policy(IMAGES, labels, ids=IDS, backend="reference")), k
    assert 1 <= len(graphs) <= 3


def changes(name: str) -> bool:
    cls = ga.REGISTRY[name]
    return cls.after is not ga.Transform.after or SPECS[name].mixes


# each set of arguments compiles anew: in the fast suite the first of every transform that changes size, channels or
# dtype, or mixes; of every other the operator alone is asked, below
SHAPES = [
    pytest.param(name, args, id=f"{name}-{k}", marks=[pytest.mark.slow] if k or not changes(name) else [])
    for name in sorted(SPECS)
    for k, args in enumerate(SPECS[name].arguments)
]


@pytest.mark.parametrize(("name", "args"), [p.values for p in SHAPES if p.id.endswith("-0")])
def test_the_operator_foresees_the_shape_of_every_transform(name, args):
    """On tensors without values, as torch traces with them, and on real ones."""
    labels = None if "Mix" not in name else torch.arange(4) if "num_classes" in args else torch.eye(4)
    policy = ga.Policy([build(name, args)], memory_format=torch.channels_last)
    images = torch.full((4, 3, 48, 48), 0.5)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        blank, rows, ids = (v if v is None else mode.from_tensor(v) for v in (images, labels, IDS))
        foreseen = torch_compile.call(policy, blank, rows, ids, 0, None, "reference")
    real = torch_compile.call(policy, images, labels, IDS, 0, None, "reference")
    pairs = zip(*(v if isinstance(v, tuple) else (v,) for v in (foreseen, real)), strict=True)
    for seen, made in pairs:
        assert (seen.shape, seen.dtype, seen.stride()) == (made.shape, made.dtype, made.stride()), f"{name}({args})"


@pytest.mark.parametrize(("name", "args"), SHAPES)
def test_the_shape_of_every_transform_is_foreseen(name, args):
    """A graph is made for what is foreseen: another shape, dtype or stride of the pixels would break what follows."""
    labels = None if "Mix" not in name else torch.arange(4) if "num_classes" in args else torch.eye(4)
    policy, images, seen = (
        ga.Policy([build(name, args)], memory_format=torch.channels_last),
        torch.full((4, 3, 48, 48), 0.5),
        [],
    )

    def watch(images, labels, policy=policy, seen=seen):
        out = policy(images * 1, labels, ids=IDS, backend="reference")
        seen.append([(tuple(o.shape), o.dtype, o.stride()) for o in (out if labels is not None else (out,))])
        return out

    torch._dynamo.reset()
    got = torch.compile(watch, backend="eager", fullgraph=True)(images, labels)
    real = got if labels is not None else (got,)
    assert seen == [[(tuple(o.shape), o.dtype, o.stride()) for o in real]], f"{name}({args})"
    assert same(got, policy(images, labels, ids=IDS, backend="reference"))


def test_a_size_that_was_not_foreseen_is_said():
    from dataclasses import dataclass

    from gpuaug import ir

    @dataclass(frozen=True)
    class Odd(ga.Transform):
        def lower(self, params, frame, slot):
            return (
                (ir.Resample.resize(frame, (8, 8)),)
                if hasattr(ir.Resample, "resize")
                else ga.Resize((8, 8)).lower({}, frame, slot)
            )

        def after(self, frame, params):
            # by the first image, where there is one
            return frame.resized((9, 9) if not len(frame.size) else (8, 8))

    policy = ga.Policy([Odd()])
    torch._dynamo.reset()
    with pytest.raises(RuntimeError, match=re.escape("foreseen [9, 9]")):
        torch.compile(step(policy), backend="eager", fullgraph=True)(IMAGES, None, ids=IDS)


# ---- what is no tensor

ARRAYS = [np.arange(h * w * 3, dtype=np.uint8).reshape(h, w, 3) for h, w in ((12, 13), (14, 13), (12, 9), (30, 11))]
PICTURES = [Image.fromarray(a) for a in ARRAYS]
PARTNER, BOXES, LAM = (
    torch.tensor([1, 2, 3, 0]),
    torch.tensor([[0, 0, 5, 6], [3, 2, 9, 9], [0, 1, 20, 16], [4, 4, 5, 5]]),
    torch.tensor([0.1, 0.2, 0.3, 0.4]),
)
POLICY, MIXING = ga.Policy(STEPS, seed=2), ga.Policy([*STEPS, ga.CutMix(num_classes=6)], seed=2)
EAGER = {
    "a Batch": lambda x: MIXING(ga.Batch(x * 1, labels=torch.tensor([0, 1, 2, 5]), ids=IDS)),
    "a Batch's images": lambda x: POLICY(ga.Batch(x * 1, ids=IDS)).images * 2,
    "a Batch's length": lambda x: x * len(POLICY(ga.Batch(x * 1, ids=IDS)).replace(labels=IDS)),
    "a list of tensors": lambda x: POLICY([i.permute(1, 2, 0).contiguous() for i in x], ids=IDS) * 2,
    "a list of arrays": lambda x: POLICY(ARRAYS, ids=IDS) * x.shape[0],
    "a list of PIL images": lambda x: POLICY(PICTURES, ids=IDS) * x.shape[0],
    "a Ragged": lambda x: POLICY(ga.Ragged(tuple(map(torch.from_numpy, ARRAYS))), ids=IDS) * x.shape[0],
    "an array": lambda x: POLICY(x.numpy(), ids=IDS) * 2,
    "draw": lambda x: POLICY.draw(IDS, size=(16, 20))[0]["height"] * x.shape[0],
    "replay": lambda x: POLICY.replay(x * 1, POLICY.draw(IDS, size=(16, 20))) * 2,
    "replay with labels": lambda x: MIXING.replay(x * 1, MIXING.draw(IDS, size=(16, 20)), torch.eye(6)[:4]),
    "describe": lambda x: (POLICY.describe((16, 20)), x * 2),
    "salt_and_pepper": lambda x: F.salt_and_pepper(x * 1, 0.3, seed=2**63 + 1, ids=IDS, epoch=3) * 1,
    "cutmix": lambda x: F.cutmix(x * 1, PARTNER, BOXES) * 1,
    "cutmix into out": lambda x: F.cutmix(x * 1, PARTNER, BOXES, out=torch.empty_like(x)) * 1,
    "mixup": lambda x: F.mixup(x * 1, PARTNER, LAM) * 1,
    "erase": lambda x: F.erase(x * 1, BOXES, (0.1, 0.2, 0.3)) * 1,
    "normalize": lambda x: (
        F.normalize(x * 1, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), torch.bfloat16, torch.channels_last) * 1
    ),
}


# each compiles anew: one of every kind stands for the others in the fast suite
QUICK = {"a Batch", "a list of arrays", "draw", "cutmix"}


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in EAGER])
def test_what_is_no_tensor_runs_in_a_break_of_the_graph(name):
    graphs: list[Any] = []
    torch._dynamo.reset()
    compiled = torch.compile(EAGER[name], backend=counting(graphs, torch._dynamo.lookup_backend("aot_eager")))
    assert same(compiled(IMAGES), EAGER[name](IMAGES))
    assert same(compiled(IMAGES.flip(0)), EAGER[name](IMAGES.flip(0))), "the second call"
    assert graphs, "vacuous: nothing around it was compiled"


def test_every_functional_form_is_tried_under_the_compiler():
    assert set(F.__all__) <= set(EAGER)


@pytest.mark.parametrize("name", ["a Batch", "replay", "mixup", "a list of arrays"])
def test_under_fullgraph_what_is_no_tensor_is_said(name):
    torch._dynamo.reset()
    with pytest.raises(
        torch._dynamo.exc.Unsupported,
        match="gpuaug runs lists, arrays, Batch, draw, replay and the functional forms eagerly",
    ):
        torch.compile(EAGER[name], backend="eager", fullgraph=True)(IMAGES)


def test_a_refusal_is_the_same_in_a_compiled_call():
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, ids: POLICY(ga.Batch(x * 1, ids=ids)), backend="eager")
    with pytest.raises(ValueError, match=re.escape("ids must have shape [4]")):
        compiled(IMAGES, IDS[:3])


def test_a_door_is_the_function_itself_where_nothing_is_compiled():
    assert torch_compile.eagerly(F.mixup).__name__ == "mixup" and F.mixup.__doc__.startswith("lam x")
