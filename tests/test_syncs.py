"""A call on CUDA images never makes the host wait for the card: audited without a card, on tensors that have a device
and no values.

What a policy does once, in its first call, may wait; the second call is the one that is watched.
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from build import build, case, cases, quick, spec
from policies import FLIP, MEAN, POLICIES, STD, WAITS, calls, mixes
from waits import CARD, Card, Wait, card

import gpuaug as ga
import gpuaug.images
from gpuaug import functional as F

N = 5


def watched(call: Callable[[], Any], on: Card) -> None:
    """Call twice, the second time with an eye on it."""
    on.refuses = False
    call()
    before, on.refuses = on.seen, True
    call()
    assert on.seen > before, "vacuous: the card had nothing to do"


def expect(name: str, call: Callable[[], Any], on: Card) -> None:
    """No wait; or, of what is known to wait, a wait."""
    if name not in WAITS:
        return watched(call, on)
    with pytest.raises(Wait, match=WAITS[name]):
        watched(call, on)


def dense(height: int = 41, width: int = 53, channels: int = 3, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(N, channels, height, width, dtype=dtype, device=CARD)


def ragged() -> list[torch.Tensor]:
    return [torch.zeros(40 + n, 60 - 2 * n, 3, dtype=torch.uint8, device=CARD) for n in range(N)]


def whole(fill: int = 0) -> torch.Tensor:
    return torch.full((N,), fill, dtype=torch.int64, device=CARD)


# ---- the watch itself

WAITING: dict[str, Callable[[torch.Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "a number of it": lambda x: int(x[0]),
    "a truth of it": lambda x: bool((x > 0).any()),
    "a list": lambda x: x.tolist(),
    "a mask": lambda x: x[x > 0],
    "writing by a mask": lambda x: x.index_put_((x > 0,), x[0]),
    "nonzero": lambda x: x.nonzero(),
    "one argument of where": lambda x: torch.where(x > 0),
    "unique": lambda x: x.unique(),
    "repeats": lambda x: torch.repeat_interleave(x),
    "equal": lambda x: torch.equal(x, x + 1),
    "an inverse, which is checked": lambda x: torch.linalg.inv(torch.eye(2, device=x.device)),
    "to the host": lambda x: x.cpu(),
    "a tensor of a list": lambda x: torch.tensor([1, 2], device=x.device),
    "to the card": lambda x: torch.tensor([1, 2]).to(x.device),
    "to the card, as if pinned": lambda x: torch.tensor([1, 2]).to(x.device, non_blocking=True),
    "pinned, but blocking": lambda x: torch.tensor([1, 2]).pin_memory().to(x.device),
    "into the card's memory": lambda x: x.copy_(torch.arange(N)),
}


@pytest.mark.parametrize("name", WAITING)
def test_a_wait_is_seen(name):
    with card(), pytest.raises(Wait):
        WAITING[name](whole())


@pytest.mark.parametrize("name", ["item", "a mask", "a tensor of a list"])
def test_a_wait_is_seen_inside_a_policy(name, monkeypatch):
    policy = ga.Policy([FLIP])
    sample = ga.RandomHorizontalFlip.sample
    monkeypatch.setattr(
        ga.RandomHorizontalFlip,
        "sample",
        lambda self, draw, frame: (WAITING[name](draw.keys.ids), sample(self, draw, frame))[1],
    )
    with card() as on, pytest.raises(Wait):
        watched(lambda: policy.draw(whole(), size=(9, 9)), on)


def test_what_does_not_wait_is_let_through():
    with card() as on:
        x = whole()
        for fine in (
            x + 1,
            x[x.argsort()],
            torch.tensor([1, 2]).pin_memory().to(CARD, non_blocking=True),
            torch.where(x > 0, x, 3),
            x * torch.tensor(2),
        ):
            assert fine.device == CARD
        assert torch.tensor([4, 2]).tolist() == [4, 2] and int(torch.arange(5).sum()) == 10
        # a first call may wait
        on.refuses = False
        assert torch.tensor([1, 2]).to(CARD).device == CARD


# ---- a call


# of each transform one set of arguments in the fast suite, and of a third of them step by step, which draws and lowers by
# the code that is traced: a trace refuses what reads a value
WAYS = [
    pytest.param(
        name,
        i,
        traced,
        id=f"{name}-{i}-{way}",
        marks=[pytest.mark.slow] if i or (not traced and sorted(ga.REGISTRY).index(name) % 3) else [],
    )
    for traced, way in ((True, "traced"), (False, "step by step"))
    for name, i in (p.values for p in cases())
]


@pytest.mark.parametrize(("name", "i", "recipes"), WAYS)
def test_no_transform_makes_the_host_wait(name, i, recipes):
    args = case(name, i)
    policy = ga.Policy([build(name, args)])
    with card(recipes) as on:
        x = dense(*((41, 41) if spec(name).square else (41, 53)))
        labels = None if not spec(name).mixes else whole() if "num_classes" in args else torch.zeros(N, 4, device=CARD)
        expect(f"{name}-{i}", lambda: policy(x, labels, ids=whole(), epoch=2), on)


LAYOUTS = [(layout, recipes) for layout in (torch.contiguous_format, torch.channels_last) for recipes in (True, False)]


# how parameters are drawn and how images lie are apart
@pytest.mark.parametrize(("layout", "recipes"), quick(LAYOUTS, LAYOUTS[1], LAYOUTS[2]))
@pytest.mark.parametrize(("name", "kind"), calls())
def test_no_policy_makes_the_host_wait(name, kind, layout, recipes):
    policy = ga.Policy(POLICIES[name], memory_format=layout)
    with card(recipes) as on:
        images = ragged() if kind == "ragged" else dense(dtype=torch.float32 if name.startswith("H1") else torch.uint8)
        expect(f"{name}, {kind}", lambda: policy(images, whole() if mixes(name) else None, ids=whole(), epoch=1), on)


@pytest.mark.parametrize(
    ("name", "most"),
    # a kernel for all parameters, one for the pixels; two more for a mean that is asked for: where what is expensive to
    # recompute is written before it is read again, one, since the mean is gathered on the way; and two of each operation
    [
        ("flip and normalise", 2),
        ("weak", 2),
        ("moderate and erasing", 4),
        ("H1 of triton-augment", 4),
        ("quarter turns", 2),
        ("strong", 6),
    ],
)
def test_a_call_is_few_kernels(name, most):
    policy = ga.Policy(POLICIES[name], memory_format=torch.channels_last)
    with card() as on:
        x = dense(dtype=torch.float32 if name.startswith("H1") else torch.uint8)

        def call() -> None:
            policy(x, ids=whole(), occurrence=whole())

        call()
        on.work.clear()
        call()
    # the interpreter cannot round to bfloat16, so that torch does there; and ids and occurrences are made here
    other = [w for w in on.work if w not in ("kernel", "_to_copy", "full")]
    assert on.work.count("kernel") == most and set(other) <= {"zeros"} and len(other) <= 3, on.work


def test_ids_epoch_and_occurrence_may_lie_on_the_card():
    policy = ga.Policy(POLICIES["moderate and erasing"])
    with card() as on:
        epoch, occurrence = torch.zeros((), dtype=torch.int64, device=CARD), whole(1)
        watched(lambda: policy(ga.Batch(ragged(), ids=whole(), epoch=epoch, occurrence=occurrence)), on)


def test_what_comes_from_the_host_is_copied_without_a_wait():
    policy = ga.Policy(POLICIES["very strong"])
    with card() as on:
        watched(lambda: policy(dense(dtype=torch.uint8), list(range(N)), ids=list(range(N)), occurrence=[0] * N), on)
        watched(lambda: F.cutmix(dense(), [1, 2, 3, 4, 0], [[0, 0, 9, 9]] * N), on)


def test_the_sizes_of_a_batch_are_sent_once():
    policy = ga.Policy(POLICIES["weak"])
    with card() as on:
        batch = ga.Ragged(tuple(ragged()))
        with mock.patch.object(gpuaug.images, "put", wraps=gpuaug.images.put) as sent:
            watched(lambda: policy(batch, ids=whole()), on)
            assert batch.size.shape == (N, 2) and batch.addresses.shape == (N,)
            assert sent.call_count == 1
        with mock.patch.object(torch.cuda, "is_current_stream_capturing", return_value=True):
            policy(batch, ids=whole())
            with pytest.raises(RuntimeError, match="before"):
                policy(ragged(), ids=whole())


@pytest.mark.parametrize("place", ["host", "card"])
def test_a_policy_numbers_on_without_a_wait(place):
    policy = ga.Policy(POLICIES["weak"])
    with card() as on:
        if place == "card":
            policy.next_id = torch.zeros((), dtype=torch.int64, device=CARD)
        watched(lambda: policy(dense(dtype=torch.uint8)), on)
    assert place == "card" or int(policy.next_id) == 2 * N


def test_drawing_and_replaying_make_nobody_wait():
    policy = ga.Policy(POLICIES["moderate and erasing"])
    with card() as on:
        sizes = torch.zeros(N, 2, dtype=torch.int64, device=CARD)
        watched(lambda: policy.draw(whole(), size=sizes), on)
        params = policy.draw(whole(), size=(41, 53))
        watched(lambda: policy.replay(dense(dtype=torch.uint8), params), on)


@pytest.mark.parametrize("backend", ["triton", "reference"])
def test_both_engines_of_the_card_make_nobody_wait(backend):
    policy = ga.Policy(POLICIES["moderate and erasing"])
    with card() as on:
        expect(f"moderate, {backend}", lambda: policy(dense(dtype=torch.uint8), ids=whole(), backend=backend), on)


FORMS: dict[str, Callable[[torch.Tensor], Any]] = {
    "salt_and_pepper": lambda x: F.salt_and_pepper(x, 0.1, seed=1, ids=whole(), epoch=3),
    "cutmix": lambda x: F.cutmix(x, whole(), torch.zeros(N, 4, dtype=torch.int32, device=CARD)),
    "cutmix, out": lambda x: F.cutmix(
        x, whole(), torch.zeros(N, 4, dtype=torch.int32, device=CARD), out=torch.empty_like(x)
    ),
    "mixup": lambda x: F.mixup(x, whole(), torch.zeros(N, device=CARD)),
    "erase": lambda x: F.erase(x, torch.zeros(N, 4, dtype=torch.int64, device=CARD), (0.1, 0.2, 0.3)),
    "erase, a value each": lambda x: F.erase(
        x, torch.zeros(N, 4, dtype=torch.int64, device=CARD), torch.zeros(N, 3, device=CARD)
    ),
    "normalize": lambda x: F.normalize(x, MEAN, STD, torch.bfloat16, torch.channels_last),
}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("name", FORMS)
def test_no_functional_form_makes_the_host_wait(name, dtype):
    with card() as on:
        x = dense(dtype=dtype)
        expect(name, lambda: FORMS[name](x), on)


def test_every_known_wait_is_one():
    names = (
        {f"{c.values[0]}-{c.values[1]}" for c in cases()}
        | {", ".join(c) for c in calls()}
        | set(FORMS)
        | {"moderate, triton", "moderate, reference"}
    )
    assert set(WAITS) <= names, "WAITS names what no test looks at"
