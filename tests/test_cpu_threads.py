"""The CPU executor's threads and memory: the same bits from any number of threads, and no result is written over."""

import math
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from compare import compare

import gpuaug as ga
from gpuaug import fuse, ir, rng
from gpuaug.exec.cpu import blocks, entry, memory, team
from gpuaug.exec.cpu import executor as cpu


def noise(n: int, c: int, h: int, w: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    x = torch.from_numpy(np.random.default_rng(c * h + w).random((n, c, h, w), dtype=np.float32))
    return (x * 255.999).floor().to(torch.uint8) if dtype == torch.uint8 else x


# ---- threads


STEPS = (ga.RandomResizedCrop(40), ga.ColorJitter(0.4, 0.4, 0.4, 0.1), ga.RandAugment(), ga.SaltAndPepper(0.1))


def test_the_number_of_threads_is_invisible():
    plan, x = planned()
    want = cpu.run(plan, x, threads=1)
    for threads in (2, 3, 8):
        compare(cpu.run(plan, x, threads=threads), want, "exact", f"{threads} threads")


def test_many_threads_may_call_one_policy():
    x = noise(24, 3, 50, 60, torch.uint8)
    policy, gate = ga.Policy(STEPS, seed=2), threading.Barrier(4)
    ids = [torch.arange(24) + 1000 * k for k in range(4)]
    want = [policy(x, ids=i, backend="cpu") for i in ids]

    def call(k: int) -> list[torch.Tensor]:
        gate.wait()
        return [policy(x, ids=ids[k], backend="cpu") for _ in range(10)]

    torch.set_num_threads(3)
    try:
        with ThreadPoolExecutor(4) as pool:
            for k, outs in enumerate(pool.map(call, range(4))):
                for out in outs:
                    compare(out, want[k], "exact", f"thread {k}")
    finally:
        torch.set_num_threads(1)


def planned() -> tuple[fuse.Plan, torch.Tensor]:
    """A plan worth several threads, and its images."""
    x, policy, ids = noise(16, 3, 90, 80, torch.uint8), ga.Policy(STEPS, seed=2), torch.arange(16)
    frame = ir.Frame(torch.tensor([[90, 80]]).expand(16, 2), (90, 80), 3, torch.uint8)
    keys = rng.Keys(2, 0, ids, torch.zeros_like(ids))
    return policy._plan(keys, frame, policy._draw(keys, frame)), x


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_worker_has_threads_of_its_own():
    """A pool that was inherited would wait for threads that the child does not have."""
    plan, x = planned()
    want = cpu.run(plan, x, threads=2)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=lambda: queue.put(torch.equal(cpu.run(plan, x, threads=2), want)), daemon=True)
    child.start()
    try:
        assert queue.get(timeout=30)
        child.join(10)
        assert child.exitcode == 0
    finally:
        child.kill()


def test_an_error_on_another_thread_is_raised_here_when_all_have_ended():
    ended = []

    def fails() -> None:
        raise RuntimeError("a part failed")

    def ends() -> None:
        time.sleep(0.05)
        ended.append(1)

    for parts in ([ends, fails, ends], [fails, ends, ends]):
        ended.clear()
        with pytest.raises(RuntimeError, match="a part failed"):
            team.together(parts)
        assert len(ended) == 2


@pytest.mark.parametrize(("n", "threads"), [(1, 1), (7, 2), (100, 3), (5, 9)])
def test_every_sample_is_taken_exactly_once(n, threads, monkeypatch):
    tables, lay_out = [], entry.lay_out
    monkeypatch.setattr(entry, "lay_out", lambda inputs, samples: tables.append(inputs) or lay_out(inputs, samples))
    # what nobody writes is NaN
    monkeypatch.setattr(cpu, "_output", lambda shape, dtype, memory_format: torch.full(shape, math.nan))
    passes = (ir.Affine(torch.full((n, 1), 0.5), torch.zeros(n, 1)), ir.Finish(torch.float32, torch.contiguous_format))
    x = noise(n, 1, 200, 200)
    frame = ir.Frame(torch.tensor([[200, 200]]).expand(n, 2), (200, 200), 1, torch.float32)
    keys = rng.Keys(0, 0, torch.arange(n), torch.zeros(n, dtype=torch.int64))
    got = cpu.run(fuse.Plan(passes, keys, frame), x, threads)
    assert torch.equal(got, x * 0.5), "a sample was not taken"
    # every thread asks once more when none are left
    assert tables[0][memory.NEXT_SAMPLE] == n + min(threads, n)


# ---- memory that is used again


def test_memory_is_used_again_only_once_nobody_holds_what_lay_in_it():
    shape, pool = (3, 1 << 20), blocks.Blocks()
    first = pool.empty(shape, torch.float32)
    view, place = first[1:, ::2], first.data_ptr()
    del first
    view.fill_(7.0)
    second = pool.empty(shape, torch.float32)
    second.fill_(1.0)
    assert second.data_ptr() != place and (view == 7).all(), "memory that a view holds was used again"
    array = view.numpy()
    del view
    assert pool.empty(shape, torch.float32).data_ptr() not in (place, second.data_ptr()), "an array holds it"
    del array
    assert pool.empty(shape, torch.float32).data_ptr() == place, "free memory was not used again"


def test_results_that_are_kept_never_change():
    """A loop that keeps some results, as a training loop keeps the last one, while others make room."""
    policy, x = ga.Policy([ga.RandomHorizontalFlip(), ga.ToDtype(torch.float32, scale=True)]), noise(8, 3, 224, 224)
    kept = []
    for step in range(6):
        out = policy(x, ids=torch.arange(8) + 8 * step, backend="cpu")
        if step % 2:
            kept.append((step, out[::3, 1]))
    assert out.numel() * 4 >= blocks.LARGE, "too small to be kept"
    for step, part in kept:
        assert torch.equal(part, policy(x, ids=torch.arange(8) + 8 * step, backend="cpu")[::3, 1]), step


def test_the_memory_that_is_kept_is_bounded():
    pool, size = blocks.Blocks(), 1 << 26
    held = [pool.empty((size,), torch.uint8) for _ in range(12)]
    assert len({t.data_ptr() for t in held}) == 12
    assert 0 < sum(map(len, pool._blocks)) <= 1 << 29
    large = pool.empty((1 << 29,), torch.uint8)
    assert large.shape == (1 << 29,) and sum(map(len, pool._blocks)) <= 1 << 29


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_is_forked_while_memory_is_handed_out_does_not_wait_for_it():
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with blocks._blocks._lock:
        child = context.Process(target=lambda: queue.put(len(blocks.empty((1 << 23,), torch.uint8))), daemon=True)
        child.start()
    try:
        assert queue.get(timeout=30) == 1 << 23
        child.join(10)
        assert child.exitcode == 0
    finally:
        child.kill()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_large_outputs_are_as_torch_makes_them(dtype, memory_format):
    for n in (1, 40):
        shape = (n, 3, 224, 224)
        got, want = (
            cpu._output(shape, dtype, memory_format),
            torch.empty(shape, dtype=dtype, memory_format=memory_format),
        )
        assert (got.shape, got.dtype, got.stride()) == (want.shape, want.dtype, want.stride())
        assert got.untyped_storage().nbytes() == want.untyped_storage().nbytes()
