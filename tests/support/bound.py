"""What the host does at calls on a card, tried on a machine without one: prints its findings as JSON.

A program of its own, since the kernels of the tests are interpreted and nothing is compiled for those."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from gpuaug_kernels import bind, calls, chain
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.jit import JITFunction

import gpuaug as ga
from bench import bench_host
from bench.bench_host import ERASE, FLIP, FLOAT, HALF, JITTER, NORMAL
from bench.no_card import META, Counter, no_card

FLAT = (FLIP, FLOAT, NORMAL, HALF)
SMALL = (ga.RandomCrop(24), FLIP, JITTER, FLOAT, NORMAL, ERASE, HALF)
SIZES = ((64, 72), (70, 90), (50, 77), (66, 82))
# multiples of 16 and not, odd and even, and one as high as another is wide
TEN = (*SIZES, (64, 80), (48, 96), (33, 64), (51, 61), (80, 36), (72, 64))


def batch(n: int, size: tuple[int, int]) -> torch.Tensor:
    """Images that are not there."""
    return torch.empty(n, 3, *size, dtype=torch.uint8, device=META)


def call(policy: ga.Policy, n: int = 8, size: tuple[int, int] = (33, 37)) -> Any:
    """A call on them."""
    return policy(batch(n, size), ids=torch.empty(n, dtype=torch.int64, device=META), epoch=1, backend="triton")


def through_triton(work: Any) -> tuple[list[str], list[str]]:
    """The kernels that went through Triton's own `run`, and those that it compiled."""
    ran, compiled = [], []  # type: list[str], list[str]
    run, compile_ = JITFunction.run, JITFunction._do_compile

    def running(self: Any, *arguments: Any, **named: Any) -> Any:
        ran.append(self.fn.__name__)
        return run(self, *arguments, **named)

    def compiling(self: Any, *arguments: Any, **named: Any) -> Any:
        compiled.append(self.fn.__name__)
        return compile_(self, *arguments, **named)

    with mock.patch.object(JITFunction, "run", running), mock.patch.object(JITFunction, "_do_compile", compiling):
        work()
    return ran, compiled


def plain(value: Any) -> Any:
    """An argument as a launcher takes it."""
    return value.data_ptr() if isinstance(value, torch.Tensor) else value


# where the memory of a tensor that has none would begin: far apart, by storage, all of which are kept
SPACE = 2**40
# of the arguments of Triton's launcher the first that is the kernel's
FIRST = 9


class Memory:
    """Addresses of tensors that have none."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[int, Any]] = {}
        self.lock = threading.Lock()

    def address(self, x: torch.Tensor) -> int:
        storage = x.untyped_storage()
        with self.lock:
            place, _ = self.kept.setdefault(storage._cdata, (len(self.kept) + 1, storage))
        return place * SPACE + x.storage_offset() * x.element_size()


@contextmanager
def addressed() -> Iterator[None]:
    """Within it every storage has an address of its own."""
    memory, real = Memory(), torch.Tensor.data_ptr
    with mock.patch.object(torch.Tensor, "data_ptr", lambda x: memory.address(x) if x.is_meta else real(x)):
        yield


def launched(counter: Any, policy: ga.Policy) -> list[Any]:
    """What the launches of a call hand to Triton's launcher, names first; addresses by the order in which they come."""
    counter.launched.clear()
    places: dict[int, str] = {}

    def known(value: Any) -> str:
        value = plain(value)
        if type(value) is int and value >= SPACE:
            return places.setdefault(value, f"address {len(places)}")
        return str(value)

    with addressed():
        call(policy)
        # what Triton says to those who watch launches is an object of each
        return [[known(v) for v in one if type(v).__name__ != "LazyDict"] for one in counter.launched]


def findings() -> dict[str, Any]:
    """All of it."""
    found: dict[str, Any] = {}
    policy = ga.Policy(SMALL, seed=1, memory_format=torch.channels_last)
    with no_card(keep=True) as (card, counter):
        first = through_triton(lambda: call(policy))
        again = through_triton(lambda: call(policy))
        found["first"], found["again"] = len(first[0]), len(again[0])
        # another number of samples changes the grid and nothing else, but for one
        found["other batch"] = len(through_triton(lambda: call(policy, 5))[0])
        again = launched(counter, policy)
        with mock.patch.object(calls.BoundCall, "may_run", False):
            bound = launched(counter, policy)
        with mock.patch.object(bind, "BOUND", False):
            through = launched(counter, policy)
        found["alike"], found["launches"] = bound == through, len(bound)
        found["a call alike"] = again == bound
        found["bound calls"] = sum(type(v) is calls.BoundCall for v in policy._recipes.calls.values())
        card.stream = 99
        found["streams"] = sorted({row[4] for row in launched(counter, policy)})
        card.device = 1
        found["another card"] = len(through_triton(lambda: call(policy))[0])
        card.device = 0
        found["back"] = len(through_triton(lambda: call(policy))[0])

        flat = ga.Policy(FLAT, seed=1)
        call(flat)
        floats = torch.empty(8, 3, 33, 37, device=META)
        ids = torch.empty(8, dtype=torch.int64, device=META)
        found["dtype"] = through_triton(lambda: flat(floats, ids=ids, epoch=1, backend="triton"))[0].count("chain")
        last = batch(8, (33, 37)).contiguous(memory_format=torch.channels_last)
        found["layout"] = through_triton(lambda: flat(last, ids=ids, epoch=1, backend="triton"))[0].count("chain")
        offset = torch.empty(8 * 3 * 33 * 37 + 1, dtype=torch.uint8, device=META)[1:].view(8, 3, 33, 37)
        with mock.patch.object(torch.Tensor, "data_ptr", lambda x: 4096 + x.storage_offset() * x.element_size()):
            call(flat)
            found["alignment"] = through_triton(lambda: flat(offset, ids=ids, epoch=1, backend="triton"))[0]
        found["sizes"] = []
        for transforms in (FLAT, SMALL):
            several = ga.Policy(transforms, seed=2)
            for size in SIZES:
                found["sizes"].append(through_triton(lambda p=several, s=size: call(p, size=s))[1])
        several = ga.Policy((*FLAT, ga.RandomInvert()), seed=3)
        found["ten sizes"] = [name for size in TEN for name in through_triton(lambda s=size: call(several, size=s))[1]]
        found["seeds"] = seeds()
        hooks: list[Any] = []
        chain.chain.pre_run_hooks.append(lambda *a, **k: hooks.append(1))
        call(policy)
        chain.chain.pre_run_hooks.clear()
        found["hooks"] = len(hooks)
        found["threads"] = threads([lambda: call(policy)] * 2)
        loaded = bench_host.Loaded(policy, 8)
        for _ in range(4):
            loaded()
        found["threads of loaders"] = threads([loaded, bench_host.Loaded(policy, 8)])
        with bind.collecting() as jobs:
            call(policy)
        found["collected"] = len(jobs)
        before = counter.count
        for job, grid, arguments in jobs:
            job.compile(grid, arguments)
        found["launched while compiling"] = counter.count - before
        found["warmed"] = warmed(counter)
        # strong takes long to compile where nothing is cached
        rows = [row for row in bench_host.ROWS if row != "strong"]
        found["operations"] = {row: operations(counter, row) for row in rows}
    return found


class Operations(TorchDispatchMode):
    """The operations of torch, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def operations(counter: Any, row: str) -> dict[str, Any]:
    """What a call does beside Python, from the fourth of its kind on."""
    work = bench_host.calls(row)
    for _ in range(4):
        work()
    bench_host.prepare(work, 1)
    before = counter.count
    with Operations() as done:
        work()
    return {"torch": done.names, "launches": counter.count - before}


def seeds() -> list[str]:
    """What is compiled for a policy with seeds and epochs of every width, one after the other."""
    transforms = (ga.RandomCrop(24), FLIP, JITTER, ga.CutMix(1.0, 7), *FLAT[1:])
    images, labels = batch(8, (33, 37)), torch.empty(8, 7, device=META)
    ids = torch.empty(8, dtype=torch.int64, device=META)
    compiled: list[str] = []
    for seed in (0, 1, 2**31, 2**40, 2**63 + 5):
        policy = ga.Policy(transforms, seed=seed)
        for epoch in (0, 1, 16, 200_001):
            compiled += through_triton(lambda p=policy, e=epoch: p(images, labels, ids=ids, epoch=e, backend="triton"))[
                1
            ]
    return compiled


def warmed(counter: Any) -> dict[str, Any]:
    """What a warmup compiles, in which threads, and what is left to the calls after it."""
    transforms = (ga.RandomResizedCrop(21), FLIP, JITTER, FLOAT, NORMAL, HALF)
    made: dict[str, Any] = {}
    for kind, what in {
        "dense": (8, 3, 50, 53),
        "targets": ga.Batch(
            batch(8, (50, 53)),
            boxes=torch.empty(8, 5, 4, device=META),
            box_format="XYXY",
            masks=torch.empty(8, 50, 53, dtype=torch.int64, device=META),
        ),
        "ragged": ga.Ragged.of(tuple(torch.empty(30 + k, 41, 3, dtype=torch.uint8, device=META) for k in range(8))),
    }.items():
        policy, who, said = ga.Policy(transforms, seed=4), set(), []  # type: ga.Policy, set[int], list[tuple[int, int]]
        compile_ = JITFunction._do_compile

        def compiling(self: Any, *arguments: Any, who: Any = who, compile_: Any = compile_, **named: Any) -> Any:
            who.add(threading.get_ident())
            return compile_(self, *arguments, **named)

        before = counter.count
        with mock.patch.object(JITFunction, "_do_compile", compiling):
            policy.warmup(what, backend="triton", device=META, progress=lambda *now, said=said: said.append(now))
        launches = counter.count - before
        images = torch.empty(what, dtype=torch.uint8, device=META) if isinstance(what, tuple) else what
        left = through_triton(
            lambda p=policy, i=images: p(i, ids=torch.empty(8, dtype=torch.int64, device=META), backend="triton")
        )
        made[kind] = {
            "by this thread": threading.get_ident() in who,
            "threads": len(who),
            "said": said,
            "left": [len(part) for part in left],
            "launches": launches,
        }
    return made


def threads(calls: list[Callable[[], Any]]) -> dict[str, Any]:
    """Two threads with a stream each on one policy: which call wrote what, on which stream."""
    wrote: list[tuple[int, int]] = []
    turn = threading.Barrier(2)

    def watched(self: Any, *arguments: Any) -> None:
        # outputs, tables, statistics and cells: all that is no image
        for place, a in enumerate(arguments[FIRST:]):
            # images are read, and so are occurrences and the constants of the draws, which calls share
            read = place in ((1, 5) if self.name == "draw_parameters" else (0,))
            if type(a) is int and a >= SPACE and not read:
                wrote.append((threading.get_ident(), a // SPACE))

    def work(once: Callable[[], Any]) -> None:
        for _ in range(20):
            turn.wait()
            once()

    with addressed(), mock.patch.object(Counter, "__call__", watched):
        for once in calls:
            bench_host.prepare(once, 20)
        both = [threading.Thread(target=work, args=(once,)) for once in calls]
        for t in both:
            t.start()
        for t in both:
            t.join()
    owners: dict[int, set[int]] = {}
    for who, storage in wrote:
        owners.setdefault(storage, set()).add(who)
    return {
        "memory": len(owners),
        "shared": sum(len(who) > 1 for who in owners.values()),
        "by": len({who for who, _ in wrote}),
    }


if __name__ == "__main__":
    print(json.dumps(findings()))
