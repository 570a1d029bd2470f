"""Recipes where torch, threads and processes do something else around a call: the same pixels, and a recipe where there
can be one."""

import contextlib
import copy
import gc
import os
import pickle
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import children
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

import gpuaug as ga
from gpuaug.trace import cache
from gpuaug.trace.recipe import Recipe

N = 6
IDS = torch.arange(N) * 2**33 + 1
STEPS = [
    ga.RandomResizedCrop(12),
    ga.RandomHorizontalFlip(),
    ga.ColorJitter(0.4, 0.4, 0.4, 0.1),
    ga.RandAugment(2, 9),
    ga.RandomErasing(1.0),
]


def policy() -> ga.Policy:
    return ga.Policy(STEPS, seed=4)


def found(policy: ga.Policy) -> list[object]:
    return list(policy._recipes._known.values())


class Dispatched(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class Called(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


MODES = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu"),
    "deterministic": deterministic,
    "a dispatch mode": Dispatched,
    "a function mode": Called,
}


@pytest.mark.parametrize("name", MODES)
def test_a_mode_of_torch_changes_no_pixel_and_costs_no_recipe(name, images):
    x, inside = images(N, 20, 24), policy()
    want = policy()(x, ids=IDS)
    with MODES[name]():
        got = [inside(x, ids=IDS) for _ in range(3)]
    got += [inside(x, ids=IDS) for _ in range(2)]
    assert all(torch.equal(g, want) for g in got) and not torch.equal(want, x[:, :, :12, :12])
    assert isinstance(found(inside)[0], Recipe), found(inside)


def test_a_compiled_step_has_a_recipe(images):
    x, inside = images(N, 20, 24), policy()
    step = torch.compile(lambda v, i: inside(v, ids=i) * 2, fullgraph=True, backend="eager")
    want = policy()(x, ids=IDS) * 2
    assert all(torch.equal(step(x, IDS), want) for _ in range(3))
    assert isinstance(found(inside)[0], Recipe), found(inside)


def test_fake_tensors_leave_nothing_behind(images):
    from torch._subclasses.fake_tensor import FakeTensorMode

    x, inside = images(N, 20, 24), policy()
    with FakeTensorMode(), pytest.raises(RuntimeError):
        inside(torch.zeros(N, 3, 20, 24), ids=torch.arange(N))
    want = policy()(x, ids=IDS)
    assert all(torch.equal(inside(x, ids=IDS), want) for _ in range(3)) and isinstance(found(inside)[0], Recipe)


def test_threads_share_a_policy(images):
    one, sizes = policy(), [(20, 24), (21, 24), (22, 25), (23, 26)]
    batches = [images(N, *s) for s in sizes]
    wants = [policy()(x, ids=IDS) for x in batches]
    wrong: list[object] = []

    def work(first: int) -> None:
        try:
            wrong.extend(
                k for i in range(12) for k in [(first + i) % 4] if not torch.equal(one(batches[k], ids=IDS), wants[k])
            )
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong and len(found(one)) == 4 and all(isinstance(r, Recipe) for r in found(one))


def test_the_ids_of_the_first_batch_may_be_counted_on_in_place(images):
    one, x, ids, epoch = policy(), images(N, 20, 24), IDS.clone(), torch.tensor(0)
    for k in range(4):
        assert torch.equal(one(x, ids=ids, epoch=epoch), policy()(x, ids=IDS + k, epoch=k))
        ids += 1
        epoch += 1
    assert isinstance(found(one)[0], Recipe), found(one)


@dataclass(frozen=True)
class Fragile(ga.RandomHorizontalFlip):
    """Refuses some ids: an error of the user's own."""

    def sample(self, draw, frame):
        if type(draw.keys.ids) is torch.Tensor and bool((draw.keys.ids == 13).any()):
            raise LookupError("13")
        return super().sample(draw, frame)


def test_an_error_in_sample_reaches_the_caller_and_spoils_nothing(images):
    x, one = images(2, 8, 9), ga.Policy([Fragile(0.5), ga.RandomInvert()], seed=3)
    usual = ga.Policy([ga.RandomHorizontalFlip(0.5), ga.RandomInvert()], seed=3)
    for _ in range(2):
        with pytest.raises(LookupError, match="13"):
            one(x, ids=torch.tensor([13, 2]))
    for _ in range(3):
        assert torch.equal(one(x, ids=IDS[:2]), usual(x, ids=IDS[:2]))


def test_many_sizes_are_not_traced_over_and_over(images, monkeypatch):
    traced: list[int] = []
    find = cache.find
    monkeypatch.setattr(cache, "find", lambda *a: traced.append(1) or find(*a))
    monkeypatch.setattr(cache, "_MOST", 4)
    monkeypatch.setattr(cache, "_RECENT", 50)
    one, batches = ga.Policy([ga.RandomInvert()]), [images(1, h, 5) for h in range(1, 8)]
    numbers = torch.arange(140) * 5 % 7
    for k in numbers.tolist():
        one(batches[k], ids=IDS[:1])
    assert len(traced) == 4 == len(found(one)) and all(isinstance(r, Recipe) for r in found(one))
    # those that come no more make room
    for _ in range(60):
        one(batches[0], ids=IDS[:1])
    for _ in range(3):
        assert torch.equal(
            one(images(1, 30, 5), ids=IDS[:1]), ga.Policy([ga.RandomInvert()])(images(1, 30, 5), ids=IDS[:1])
        )
    high = [r for kind, r in one._recipes._known.items() if torch.Size([3, 30, 5]) in kind[-1]]
    assert len(traced) >= 5 and len(high) == 1 and isinstance(high[0], Recipe)


def test_memory_does_not_grow_with_calls(images):
    one, batches = ga.Policy([ga.RandomResizedCrop(4), ga.RandomInvert()]), [images(2, 10 + h, 9) for h in range(80)]

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    counts = []
    for _ in range(4):
        for x in batches:
            one(x, ids=IDS[:2])
        counts.append(tensors())
    assert counts[3] <= counts[1], counts


class Augmented(torch.utils.data.Dataset):
    """One augmented image each, three times over."""

    def __init__(self, policy: ga.Policy, x: torch.Tensor):
        self.policy, self.x = policy, x

    def __len__(self) -> int:
        return 3 * N

    def __getitem__(self, k: int) -> torch.Tensor:
        k %= N
        return self.policy(self.x[k : k + 1], ids=IDS[k : k + 1])[0]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_of_a_loader_take_a_policy_that_has_recipes(context, images):
    x, one = images(N, 20, 24), policy()
    want = torch.cat([one(x[k : k + 1], ids=IDS[k : k + 1]) for k in range(N)])
    assert isinstance(found(one)[0], Recipe)
    loader = DataLoader(Augmented(one, x), batch_size=N, num_workers=1, multiprocessing_context=context)
    batches = list(loader)
    assert len(batches) == 3 and all(torch.equal(b, want) for b in batches)


def test_copies_find_recipes_of_their_own(images):
    x, one = images(N, 20, 24), policy()
    want, _, _ = (one(x, ids=IDS) for _ in range(3))
    for twin in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one), ga.Policy.from_dict(one.to_dict())):
        assert (
            not found(twin)
            and all(torch.equal(twin(x, ids=IDS), want) for _ in range(3))
            and isinstance(found(twin)[0], Recipe)
        )
        assert twin._recipes is not one._recipes
    assert list(one.state_dict()) == ["next_id", "epoch", "draws"]


def test_a_recipe_runs_with_warnings_as_errors_where_nothing_can_be_kept(tmp_path):
    """In a process of its own, without a folder that Numba could write to."""
    code = """
import torch, gpuaug as ga
policy = ga.Policy([ga.RandomResizedCrop(6), ga.RandomApply([ga.RandomInvert(1.0)], 0.5), ga.RandomErasing(0.5)], seed=2)
x, ids = torch.arange(2 * 3 * 8 * 9).view(2, 3, 8, 9).float() / 432, torch.tensor([3, 2**46 - 1])
outs = [policy(x, ids=ids) for _ in range(3)]
assert all(torch.equal(o, outs[0]) for o in outs)
assert [type(r).__name__ for r in policy._recipes._known.values()] == ["Recipe"], policy._recipes._known
"""
    locked = tmp_path / "locked"
    locked.write_text("a file, where a folder is looked for")
    root = str(Path(ga.__file__).parent.parent)
    path = os.pathsep.join([root, str(Path(root) / "kernels"), *sys.path])
    env = {**os.environ, "PYTHONPATH": path, "NUMBA_CACHE_DIR": str(locked / "numba"), "HOME": str(locked)}
    done = children.run([sys.executable, "-W", "error", "-c", code], env=env, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
