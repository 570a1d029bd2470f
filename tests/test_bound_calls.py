"""Calls of a kind that came before are made again by their launches alone: to the same bits, and only where that is all
that a call does."""

import copy
import importlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from build import quick
from gpuaug_kernels import draws
from gpuaug_kernels.calls import BoundCall
from policies import ENDS, FLIP, HALF, POLICIES, calls, mixes
from torch import Tensor
from waits import CARD, card

import gpuaug as ga
import gpuaug.trace.recipe
from gpuaug.exec.triton import calls as kinds

N, CLASSES = 3, 7
# drawn step by step, then by a recipe that is found, then watched: the next one is bound
BEFORE = 3


@pytest.fixture(autouse=True)
def drawn_by_kernels(monkeypatch):
    """Draws by the kernel that draws on a card, so that a call on a host is launches alone too."""
    found = importlib.import_module

    def on_a_card(name: str) -> Any:
        return found("gpuaug.trace.device" if name == "gpuaug.trace.host" else name)

    monkeypatch.setattr(gpuaug.trace.recipe, "import_module", on_a_card)


def photographs(turn: int, kind: str = "dense", n: int = N, dtype: torch.dtype = torch.uint8) -> Any:
    made = torch.Generator().manual_seed(turn)
    if kind == "ragged":
        # another turn, other sizes
        sizes = [(30 + k + turn, 40 - 2 * k) for k in range(n)]
        return [torch.randint(0, 256, (*s, 3), dtype=torch.uint8, generator=made) for s in sizes]
    whole = torch.randint(0, 256, (n, 3, 26, 35), dtype=torch.uint8, generator=made)
    return whole if dtype == torch.uint8 else (whole / 255).to(dtype)


def rows(turn: int, n: int = N) -> Tensor:
    """Soft labels: class numbers of a host are looked at, which is no launch."""
    return torch.rand(n, CLASSES, generator=torch.Generator().manual_seed(turn))


def bound(policy: ga.Policy) -> int:
    return sum(isinstance(v, BoundCall) for v in policy._recipes.calls.values())


def both(transforms: Any, given: Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]], **options: Any) -> ga.Policy:
    """A policy whose last calls are compared with what they give unbound, bit by bit."""
    policy = ga.Policy(transforms, seed=2**63 + 5, **options)
    for turn in range(BEFORE + 2):
        images, named = given(turn)
        got = policy(*images, backend="triton", **named)
        if turn >= BEFORE:
            alike(got, unbound(policy, images, named))
    return policy


def unbound(policy: ga.Policy, images: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The same call as if it were the first of its kind."""
    known = dict(policy._recipes.calls)
    policy._recipes.calls.clear()
    try:
        return policy(*images, backend="triton", **named)
    finally:
        policy._recipes.calls.clear()
        policy._recipes.calls.update(known)


def alike(got: Any, want: Any) -> None:
    if isinstance(got, ga.Batch):
        got, want = (got.images, got.labels), (want.images, want.labels)
    got, want = (v if isinstance(v, tuple) else (v,) for v in (got, want))
    for a, b in zip(got, want, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype and a.stride() == b.stride()
            assert torch.equal(a, b)


@pytest.mark.parametrize(("name", "kind"), quick(calls(), ("moderate and erasing", "ragged"), ("very strong", "dense")))
def test_a_bound_call_gives_the_bits_of_one_that_is_not(name, kind):
    # torch rounds to bfloat16 where kernels are interpreted
    transforms = tuple(t for t in POLICIES[name] if t is not HALF)
    dtype = torch.float32 if name.startswith("H1") else torch.uint8

    def given(turn: int) -> Any:
        images = (photographs(turn, kind, dtype=dtype), *([rows(turn)] if mixes(name) else []))
        return images, {"ids": torch.arange(N) + 7 * turn, "epoch": turn}

    policy = both(transforms, given)
    # what the reference runs is made by torch
    fallback = (name, kind) == ("many sizes", "ragged")
    assert bound(policy) == (not fallback)


def other_seeds(turn: int) -> Any:
    """By the key of a worker, which is mixed with the seed: of any 64 bits."""
    return (ga.Batch(photographs(turn), ids=torch.arange(N), key=turn % 2 + 11),), {}


def epochs_in_memory(turn: int) -> Any:
    return (photographs(turn),), {"ids": torch.arange(N), "epoch": torch.tensor(turn)}


def occurrences(turn: int) -> Any:
    return (photographs(turn),), {"ids": torch.arange(N), "occurrence": torch.arange(N) + turn, "epoch": 2}


def part_of_more(turn: int) -> Any:
    """Images in other places of a larger store, ids of a longer list."""
    store = photographs(3, n=N + 20)
    return (store[4 * turn : 4 * turn + N],), {"ids": torch.arange(60)[2 * turn : 2 * turn + N], "epoch": 2}


@pytest.mark.parametrize("given", [other_seeds, epochs_in_memory, occurrences, part_of_more])
def test_what_differs_between_two_calls_is_read_at_each(given):
    policy = both((FLIP, ga.ColorJitter(contrast=0.4), *ENDS), given)
    assert bound(policy) >= 1


def kinds_of_calls() -> list[tuple[str, Callable[[int], Any]]]:
    ids = torch.arange(8)
    wide = torch.arange(16)

    def of(images: Any, **named: Any) -> Any:
        return (images,), {"ids": ids[: len(images)], "epoch": 3, **named}

    return [
        ("a batch", lambda turn: of(photographs(turn))),
        ("channels last", lambda turn: of(photographs(turn).contiguous(memory_format=torch.channels_last))),
        ("floats", lambda turn: of(photographs(turn, dtype=torch.float32))),
        ("fewer", lambda turn: of(photographs(turn, n=2))),
        ("a list", lambda turn: of(photographs(turn, "ragged"))),
        (
            "another alignment",
            lambda turn: of(
                torch.cat([torch.zeros(1, dtype=torch.uint8), photographs(turn).flatten()])[1:].view(N, 3, 26, 35)
            ),
        ),
        ("other strides", lambda turn: of(photographs(turn).transpose(2, 3).contiguous().transpose(2, 3))),
        ("ids that lie apart", lambda turn: ((photographs(turn),), {"ids": wide[::2][:N], "epoch": 3})),
        ("an epoch in memory", lambda turn: of(photographs(turn), epoch=torch.tensor(3))),
        ("occurrences", lambda turn: of(photographs(turn), occurrence=wide[:N])),
        ("a larger epoch", lambda turn: of(photographs(turn), epoch=200_000)),
    ]


def test_calls_of_many_kinds_take_turns():
    # a statistic, and no crop, which takes the interpreter long; a list needs one
    policy = ga.Policy((ga.CenterCrop(16), FLIP, ga.ColorJitter(contrast=0.4), *ENDS), seed=4)
    for turn in range(BEFORE + 1):
        for _, given in kinds_of_calls():
            images, named = given(turn)
            got = policy(*images, backend="triton", **named)
            if turn == BEFORE:
                alike(got, unbound(policy, images, named))
    # ids that lie apart are copied, which is no launch; another epoch and given occurrences are of the first kind
    assert bound(policy) == len(kinds_of_calls()) - 3


def test_labels_that_no_mix_changes_come_out_as_they_are():
    policy = ga.Policy((FLIP, *ENDS))
    for turn in range(BEFORE + 1):
        labels = torch.arange(N)
        _, out = policy(photographs(turn), labels, ids=torch.arange(N) + 1, backend="triton")
        assert out.data_ptr() == labels.data_ptr()
    assert bound(policy) == 1


def test_a_call_with_several_mixes_is_bound():
    """The partners of each are found by a kernel of their own, and written where the draws read them all."""

    def given(turn: int) -> Any:
        return (photographs(turn), rows(turn)), {"ids": torch.arange(N) + turn, "epoch": 1}

    cut, mean = ga.CutMix(1.0, CLASSES), ga.MixUp(0.7, CLASSES)
    assert bound(both((FLIP, *ENDS, ga.RandomChoice([cut, ga.Identity()]), mean), given)) == 1


@pytest.mark.parametrize("apart", [True, False])
def test_tensors_of_a_call_may_share_memory(apart):
    """Where one of them lies says nothing of where the other does in the next call."""

    def given(turn: int) -> Any:
        every = torch.arange(40)
        ids, occurrence = every[2 * turn : 2 * turn + N], every[4 * turn + 8 : 4 * turn + 8 + N]
        return (photographs(turn),), {"ids": ids, "occurrence": occurrence if apart else ids, "epoch": 1}

    # which of the two is meant, nobody can tell where they begin together
    assert bound(both((FLIP, *ENDS), given)) == apart


def test_rows_of_a_store_are_bound_by_their_addresses():
    store = photographs(1, n=9).contiguous(memory_format=torch.channels_last)

    def given(turn: int) -> Any:
        images = ga.gathered.Gathered(store, torch.tensor([turn, 8 - turn, 3]))
        return (images,), {"ids": torch.arange(N) + turn, "epoch": 1}

    assert bound(both((FLIP, ga.ColorJitter(contrast=0.4), *ENDS), given)) == 1


class Turned(ga.RandomInvert):
    """A transform with something of its own that may change."""

    def __init__(self) -> None:
        super().__init__(p=1.0)
        object.__setattr__(self, "light", False)

    def lower(self, params: Any, frame: Any, slot: int) -> Any:
        return () if self.light else super().lower(params, frame, slot)


def test_a_transform_that_may_change_is_asked_at_every_call():
    turned = Turned()
    policy, x = ga.Policy([turned]), photographs(1)
    for _ in range(BEFORE + 2):
        assert torch.equal(policy(x, ids=torch.arange(N), backend="triton"), 255 - x)
    object.__setattr__(turned, "light", True)
    assert torch.equal(policy(x, ids=torch.arange(N), backend="triton"), x)
    assert bound(policy) == 0


def test_two_calls_write_no_memory_in_common():
    policy = ga.Policy((FLIP, ga.ColorJitter(contrast=0.4), *ENDS))
    made = [policy(photographs(1), ids=torch.arange(N), backend="triton") for _ in range(BEFORE + 3)]
    assert bound(policy) == 1
    for one in made:
        assert torch.equal(one, made[0])
    assert len({one.untyped_storage().data_ptr() for one in made}) == len(made)


def test_nobody_else_is_given_the_occurrence_of_a_batch(monkeypatch):
    monkeypatch.setattr(ga.Policy, "nothing", lambda self, n, device: pytest.fail("the zeros that calls share"))
    out = ga.Policy([FLIP])(ga.Batch(photographs(1), ids=torch.arange(N)), backend="triton")
    assert out.occurrence.tolist() == [0] * N


def test_zeros_are_made_once_for_each_number_of_samples_but_by_a_capture():
    policy = ga.Policy([FLIP])
    with card() as on:
        kept = {n: policy.nothing(n, CARD) for n in (N, N + 1)}
        assert all(policy.nothing(n, CARD) is zeros and len(zeros) == n for n, zeros in kept.items())
        with mock.patch.object(torch.cuda, "is_current_stream_capturing", return_value=True):
            on.work.clear()
            # what another call made might be gone when the graph is replayed
            assert policy.nothing(N, CARD) is not kept[N] and on.work == ["zeros"]
        for n in range(50):
            policy.nothing(n, CARD)
        assert len(policy._nothing) <= 16
    assert not copy.deepcopy(policy)._nothing


def test_kinds_that_came_first_make_room(monkeypatch):
    monkeypatch.setattr(kinds, "_MOST", 2)
    policy = ga.Policy((FLIP, *ENDS))
    for n in (1, 2, 3, 4):
        for turn in range(BEFORE):
            policy(photographs(turn, n=n), ids=torch.arange(n), backend="triton")
        assert bound(policy) >= 1 and len(policy._recipes.calls) <= 2


def test_a_kernel_that_fails_leaves_nobody_watched(monkeypatch):
    policy = ga.Policy((FLIP, *ENDS))
    given = {"ids": torch.arange(N), "backend": "triton"}
    policy(photographs(0), **given)
    policy(photographs(0), **given)
    with monkeypatch.context() as within:
        within.setattr(draws, "draw_tables", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            policy(photographs(0), **given)
    alike(policy(photographs(0), **given), ga.Policy((FLIP, *ENDS))(photographs(0), **given))


def some_valid(turn: int) -> Tensor:
    return torch.tensor([True, turn % 2 == 0, turn % 3 == 0])


EITHER = (ga.MixUp(0.4, CLASSES), ga.CutMix(1.0, CLASSES))
MIXES = {
    "CutMix": ga.CutMix(1.0, CLASSES),
    "RandomMix of a batch": ga.RandomMix(EITHER, per="batch"),
    "RandomMix": ga.RandomMix(EITHER),
}


@pytest.mark.parametrize(
    ("name", "valid"),
    quick([(m, v) for m in MIXES for v in (False, True)], ("CutMix", True), ("RandomMix of a batch", True)),
)
def test_a_mix_among_valid_samples_and_one_draw_for_a_batch_are_bound(name, valid):
    policy = ga.Policy((FLIP, *ENDS, MIXES[name]), seed=2**63 + 5)
    for turn in range(BEFORE + 3):
        marks = {"valid": some_valid(turn)} if valid else {}
        batch = ga.Batch(photographs(turn), rows(turn), torch.arange(N) + 7 * turn, turn, **marks)
        got = policy(batch, backend="triton")
        if turn >= BEFORE:
            alike(got, unbound(policy, (batch,), {}))
            want = policy(batch, backend="cpu")
            assert torch.equal(got.labels, want.labels)
            assert torch.allclose(got.images, want.images, atol=1e-5)
    assert bound(policy) == 1
