"""A call on a card never makes the host wait, runs on the current stream, can be captured and replayed, and takes no
more memory than its plan."""

import gc
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from build import build, case, quick, spec
from on_card import (
    DEVICE,
    IDS,
    MEMORY,
    SOME,
    between,
    first_cases,
    images,
    pictures,
    put,
    size_of,
    slow_unless,
)
from policies import POLICIES, WAITS, calls, mixes
from torch import Tensor

import gpuaug as ga
from gpuaug import functional as F

N = len(IDS)


@contextmanager
def watched() -> Iterator[None]:
    """Any operation that makes the host wait raises."""
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        # torch warns that it does not know of every wait
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def expect(name: str, call: Callable[[], Any]) -> None:
    """After a first call none waits, neither the one that is watched to be bound nor those that are bound; what is
    known to wait, does."""
    call()
    with watched():
        if name not in WAITS:
            for _ in range(3):
                call()
            return
        with pytest.raises(RuntimeError, match="synchronizing"):
            call()


def given(name: str, kind: str) -> tuple[Any, Tensor | None]:
    """Images that stay in place, and labels."""
    labels = put(torch.arange(N)) if mixes(name) else None
    if kind == "ragged":
        return ga.Ragged(tuple(put(pictures([(30 + 3 * k, 50 - 2 * k) for k in range(N)])))), labels
    return put(images(N, *size_of(name), dtype=torch.float32 if name.startswith("H1") else torch.uint8)), labels


def refilled(x: Any, k: int) -> None:
    """Other pixels in the same memory."""
    for i in x.images if isinstance(x, ga.Ragged) else [x]:
        i.copy_(i.roll(k + 1, 0).flip(1))


# ---- waits


@pytest.mark.parametrize(
    "wait",
    [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: torch.tensor([1, 2], device=x.device), lambda x: x.cpu()],
    ids=["item", "mask", "list", "cpu"],
)
def test_the_watch_sees_a_wait(wait):
    x = put(IDS)
    with watched(), pytest.raises(RuntimeError, match="synchronizing"):
        wait(x)


@pytest.mark.parametrize(("name", "i"), first_cases())
def test_no_transform_makes_the_host_wait(name, i):
    args = case(name, i)
    # as in test_every_transform_agrees, whose kernels these are
    policy, x, ids = ga.Policy([build(name, args)]), put(images(N, *spec(name).image)), put(IDS)
    labels = None if "Mix" not in name else put(torch.arange(N) % 5) if "num_classes" in args else put(torch.eye(N))
    expect(f"{name}-{i}", lambda: policy(x, labels, ids=ids, epoch=2))


@pytest.mark.parametrize(("name", "kind"), calls())
def test_no_policy_makes_the_host_wait(name, kind):
    policy, (x, labels) = ga.Policy(POLICIES[name], memory_format=torch.channels_last), given(name, kind)
    # a number on the card is another kernel; a captured step has one
    ids, epoch = put(IDS), torch.tensor(3, device=DEVICE) if name in SOME else 3
    expect(f"{name}, {kind}", lambda: policy(x, labels, ids=ids, epoch=epoch, occurrence=torch.zeros_like(ids)))
    # numbered on, by a counter on the host and by one on the card
    expect(f"{name}, {kind}", lambda: policy(x, labels))
    policy.to(DEVICE)
    expect(f"{name}, {kind}", lambda: policy(x, labels, epoch=1))
    if kind == "ragged":
        fresh = list(x.images)
        expect(f"{name}, {kind}", lambda: policy(fresh, labels, ids=ids))


def test_no_functional_form_makes_the_host_wait():
    x, ids, boxes = put(images(N, 35, 40)), put(IDS), put(torch.tensor([[5, 3, 33, 34]] * N))
    partner, lam = put(torch.arange(N).roll(1)), put(torch.full((N,), 0.3))

    def forms() -> None:
        F.salt_and_pepper(x, 0.1, seed=1, ids=ids)
        F.cutmix(x, partner, boxes, out=torch.empty_like(x))
        F.mixup(x, partner, lam)
        F.erase(x, boxes, (0.1, 0.2, 0.3))
        F.normalize(x, (0.4,), (0.2,), torch.bfloat16, torch.channels_last)

    expect("forms", forms)


# ---- graphs


def captured(step: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A graph of a step that ran a few times before, and what it yields."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    return graph, out


def parts(out: Any) -> list[Tensor]:
    """Images, and labels if there are any."""
    return [o.clone() for o in (out if isinstance(out, tuple) else (out,))]


@pytest.mark.parametrize(
    ("name", "kind"), [slow_unless(c[0] in SOME, *c) for c in calls() if ", ".join(c) not in WAITS]
)
def test_a_captured_step_is_replayed_with_other_ids_epoch_and_images(name, kind):
    policy, (x, labels) = ga.Policy(POLICIES[name], seed=3), given(name, kind)
    ids, epoch = put(IDS), torch.tensor(0, device=DEVICE)
    graph, out = captured(lambda: policy(x, labels, ids=ids, epoch=epoch))
    seen: list[Tensor] = []
    for k in range(3):
        ids.copy_(put(IDS + 1000 * k))
        epoch.fill_(5 * k)
        refilled(x, k)
        graph.replay()
        got = parts(out)
        want = parts(policy(x, labels, ids=ids, epoch=epoch))
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True)), f"replay {k}"
        seen.append(got[0])
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2]), "vacuous: replays are alike"


def test_a_captured_step_has_fresh_randomness_of_its_own():
    policy, x = ga.Policy([ga.SaltAndPepper(0.3), ga.RandomHorizontalFlip()], seed=3).to(DEVICE), put(images(N, 33, 20))
    graph, out = captured(lambda: policy(x))
    first = int(policy.next_id)
    for k in range(3):
        graph.replay()
        want = policy(x, ids=put(torch.arange(N) + first + k * N))
        assert torch.equal(out, want), f"replay {k}"
    assert int(policy.next_id) == first + 3 * N


def test_new_images_of_different_sizes_in_a_capture_are_refused():
    policy, x, ids = ga.Policy(POLICIES["weak"]), put(pictures()), put(IDS[:5])
    policy(x, ids=ids)
    torch.cuda.synchronize()
    refused: list[str] = []

    def step() -> Any:
        try:
            return policy(x, ids=ids)
        except RuntimeError as error:
            refused.append(str(error))

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    assert refused and "before" in refused[0]


# ---- streams, threads, torch.compile


def test_a_call_runs_on_the_current_stream():
    policy, a, b, ids = (
        ga.Policy(POLICIES["moderate and erasing"]),
        *(put(images(N, 41, 53, dtype=torch.uint8)) for _ in range(2)),
        put(IDS),
    )
    b = b.flip(0).contiguous()
    want = policy(b, ids=ids)
    x, stream = a.clone(), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        # the images come late, on this stream only
        torch.cuda._sleep(100_000_000)
        x.copy_(b)
        got = policy(x, ids=ids)
    stream.synchronize()
    assert torch.equal(got, want) and not torch.equal(got, policy(a, ids=ids))


def test_two_streams_do_not_disturb_each_other():
    policy = ga.Policy(POLICIES["moderate and erasing"])
    batches = [(put(images(n, 41, 53, dtype=torch.uint8)), put(torch.arange(n) + 50 * n)) for n in (64, 37)]
    want = [policy(x, ids=ids) for x, ids in batches]
    streams = [torch.cuda.Stream() for _ in batches]
    torch.cuda.synchronize()
    got: list[list[Tensor]] = [[], []]
    for _ in range(20):
        for k, (stream, (x, ids)) in enumerate(zip(streams, batches, strict=True)):
            with torch.cuda.stream(stream):
                got[k].append(policy(x, ids=ids))
    torch.cuda.synchronize()
    for k in range(2):
        assert all(torch.equal(g, want[k]) for g in got[k])


@pytest.mark.parametrize("name", ["moderate and erasing", "very strong"])
def test_threads_may_share_a_policy(name):
    policy, x = ga.Policy(POLICIES[name], seed=5), put(images(N, 41, 53, dtype=torch.uint8))
    labels = put(torch.arange(N)) if mixes(name) else None
    torch.cuda.synchronize()

    def work(k: int) -> list[list[Tensor]]:
        with torch.cuda.stream(torch.cuda.Stream()):
            out = [parts(policy(x, labels, ids=put(IDS + 100 * k + j))) for j in range(10)]
            torch.cuda.current_stream().synchronize()
        return out

    with ThreadPoolExecutor(4) as pool:
        # the first call of all is made by several at once
        found = list(pool.map(work, range(4)))
    alone = ga.Policy(POLICIES[name], seed=5)
    for k, row in enumerate(found):
        for j, got in enumerate(row):
            want = parts(alone(x, labels, ids=put(IDS + 100 * k + j)))
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True)), (k, j)


@pytest.mark.parametrize("name", quick(["moderate and erasing", "very strong"], "moderate and erasing"))
def test_a_compiled_step_has_no_break_and_the_same_pixels(name):
    policy, x, ids = ga.Policy(POLICIES[name], seed=2), put(images(N, 41, 53, dtype=torch.uint8)), put(IDS)
    labels = put(torch.arange(N)) if mixes(name) else None

    def step(x: Tensor, ids: Tensor, epoch: Tensor) -> list[Tensor]:
        out = policy(x, labels, ids=ids, epoch=epoch)
        return [o.float() * 2 for o in (out if labels is not None else (out,))]

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True)
    for k in range(3):
        epoch = torch.tensor(k, device=DEVICE)
        got, want = compiled(x, ids + k, epoch), step(x, ids + k, epoch)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True)), f"epoch {k}"


# ---- memory


def peak(call: Callable[[], Any]) -> int:
    """Bytes that a call holds at most, beyond what was held before it; its output is among them."""
    call()
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = call()
    torch.cuda.synchronize()
    del out
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("name", MEMORY)
def test_a_call_takes_the_memory_of_its_plan(name):
    n = 256
    policy = ga.Policy([*MEMORY[name], ga.ToDtype(torch.bfloat16, scale=True)], memory_format=torch.channels_last)
    x, ids = torch.full((n, 3, 224, 224), 7, dtype=torch.uint8, device=DEVICE), torch.arange(n, device=DEVICE)
    planned = n * (2 * 3 * 224 * 224 + between(policy, (224, 224)))
    assert planned <= peak(lambda: policy(x, ids=ids)) <= planned + 2**24
