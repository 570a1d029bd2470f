"""Calls without ids in processes that share a policy: fresh in every epoch, alike in no two, and the same again from
torch's seed."""

import copy
import multiprocessing
import os
import pickle
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace

import children
import loaded
import pytest
import torch
from compare import changed
from loaded import SAMPLES, SIZE, WORKERS
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.data._utils import worker as workers

import gpuaug as ga
from gpuaug import numbering

EPOCHS = 3
EVERYWHERE = [
    (place, "fork", persistent) for place in ("data set", "stream", "collate") for persistent in (False, True)
]
# spawned anew for every epoch: seconds for each process; of the others one kind lives on
SPAWNED_ANEW = pytest.param("collate", "spawn", False, marks=pytest.mark.slow)
FROM_A_SERVER = pytest.param("collate", "forkserver", False, marks=pytest.mark.slow)
SPAWNED = [SPAWNED_ANEW, ("data set", "spawn", True), FROM_A_SERVER]


def epochs(
    place: str,
    method: str,
    persistent: bool,
    seed: int = 1,
    p: ga.Policy | None = None,
    count: int = EPOCHS,
    workers: int = WORKERS,
) -> list[list[loaded.Row]]:
    """What a loader gives, epoch by epoch."""
    if method == "forkserver":
        # otherwise every worker of every epoch imports torch anew
        multiprocessing.set_forkserver_preload(["loaded"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = loaded.loader(place, p or loaded.policy(), method, persistent, workers)
        return [list(made) for _ in range(count)]


def pixels(rows: list[loaded.Row]) -> set[bytes]:
    """Every augmented image."""
    return {image.numpy().tobytes() for _, batch in rows for image in batch.images}


@pytest.mark.parametrize(("place", "method", "persistent"), [*EVERYWHERE, *SPAWNED])
def test_workers_draw_afresh_in_every_epoch_and_apart(place, method, persistent):
    policy = loaded.policy()
    policy.next_id += 1000
    made = epochs(place, method, persistent, p=policy)
    every = [row for rows in made for row in rows]
    assert len(every) == EPOCHS * SAMPLES and {w for w, _ in every} == set(range(WORKERS)), (
        "vacuous: not every worker worked"
    )
    assert len(pixels(every)) == len(every) * SIZE, "two images were augmented alike"
    assert len({(b.key, i) for _, b in every for i in b.ids.tolist()}) == len(every) * SIZE, "a number was given twice"
    assert len({b.key for _, b in every}) == WORKERS * (1 if persistent else EPOCHS)
    for key in {b.key for _, b in every}:
        assert key != policy.seed
        ids = [i for _, b in every if b.key == key for i in b.ids.tolist()]
        assert ids == list(range(len(ids))), "a worker counts from 0, and on across the epochs that it lives"
    assert int(policy.next_id) == 1000, "the counter is the main process's alone"
    for _, batch in every[:: SAMPLES - 1]:
        again = policy(ga.Batch(loaded.GREY, ids=batch.ids, epoch=batch.epoch, key=batch.key))
        assert torch.equal(again.images, batch.images) and again.key == batch.key
        params = policy.draw(batch.ids, epoch=batch.epoch, size=(6, 6), key=batch.key, dtype=torch.float32)
        assert params.seed == numbering.mix(policy.seed, batch.key) and torch.equal(
            policy.replay(loaded.GREY, params), batch.images
        )


@pytest.mark.parametrize(
    ("place", "method", "persistent"),
    [EVERYWHERE[0], EVERYWHERE[-1], SPAWNED_ANEW],
)
def test_workers_draw_the_same_again_from_torchs_seed(place, method, persistent):
    def numbers(seed: int) -> list[tuple]:
        return [
            (w, b.key, b.ids.tolist(), b.images.numpy().tobytes())
            for rows in epochs(place, method, persistent, seed, count=2)
            for w, b in rows
        ]

    first = numbers(5)
    assert numbers(5) == first
    assert not {key for _, key, _, _ in first} & {key for _, key, _, _ in numbers(6)}


def test_a_loader_without_workers_counts_on_in_the_main_process():
    policy = loaded.policy()
    rows = list(loaded.loader("data set", policy, "fork", False, workers=0)) * 1
    assert [i for _, b in rows for i in b.ids.tolist()] == list(range(SAMPLES * SIZE)) and {b.key for _, b in rows} == {
        None
    }
    assert int(policy.next_id) == SAMPLES * SIZE


# the last is started as the workers of a script are where nothing forks: what it draws is what the forked one draws
RANKS = ((0, "fork"), (1, "fork"), (1, "spawn"))


def check_ranks(found: list[list[loaded.Row]]) -> None:
    """Of `RANKS`, in that order; the last may be left out."""
    keys = [{b.key for _, b in rows} for rows in found]
    assert not keys[0] & keys[1] and not pixels(found[0]) & pixels(found[1])
    if len(found) == len(RANKS):
        assert keys[2] == keys[1] and pixels(found[2]) == pixels(found[1])


@pytest.mark.parametrize("ranks", [RANKS[:2], pytest.param(RANKS, marks=pytest.mark.slow)], ids=["forked", "spawned"])
def test_ranks_differ_in_their_workers_by_the_environment(ranks, monkeypatch):
    """As torchrun starts them, with one seed for torch in both."""
    found = []
    for rank, method in ranks:
        monkeypatch.setenv("RANK", str(rank))
        found.append([row for rows in epochs("data set", method, False, count=1, workers=1) for row in rows])
    check_ranks(found)


def test_ranks_differ_in_their_workers_by_the_parents_process_group(monkeypatch):
    """A spawned worker is in no process group: its parent wrote down the rank."""
    found = []
    monkeypatch.setenv("RANK", "5")
    for rank, method in RANKS:
        # a group without a network
        torch.distributed.init_process_group("fake", rank=rank, world_size=2, store=FakeStore())
        try:
            found.append([row for rows in epochs("collate", method, False, count=1, workers=1) for row in rows])
        finally:
            torch.distributed.destroy_process_group()
    check_ranks(found)


def keys_of(seeds: list[int], policies: list[int], ranks: list[int], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    out = []
    for seed in seeds:
        monkeypatch.setattr(workers, "_worker_info", SimpleNamespace(seed=seed, id=0, num_workers=2))
        for p in policies:
            for rank in ranks:
                monkeypatch.setenv("RANK", str(rank))
                out.append(numbering.mix(p, numbering.origin(None).key))
    return out


def test_neighbouring_seeds_workers_and_ranks_never_share_a_key(monkeypatch):
    """They differ by one in each of three numbers, so that keys which added them would meet."""
    keys = keys_of([2**63 - 9 + k for k in range(8)] + list(range(8)), list(range(8)), list(range(8)), monkeypatch)
    assert len(set(keys)) == len(keys) == 1024
    bits = torch.tensor([[k >> b & 1 for b in range(64)] for k in keys]).double().mean(0)
    assert (bits - 0.5).abs().max() < 0.08, "each bit depends on all of them"


def test_two_policies_of_one_seed_draw_alike_in_a_worker_as_in_the_main_process(monkeypatch):
    monkeypatch.setattr(workers, "_worker_info", SimpleNamespace(seed=3, id=0, num_workers=2))
    (_, a), (_, b), (_, c) = (loaded.call(p) for p in (loaded.policy(), loaded.policy(), loaded.policy(seed=8)))
    assert a.key == b.key == c.key and torch.equal(a.images, b.images) and not torch.equal(a.images, c.images)


def test_a_deep_copy_in_a_worker_counts_on(monkeypatch):
    monkeypatch.setattr(workers, "_worker_info", SimpleNamespace(seed=3, id=0, num_workers=2))
    policy = loaded.policy()
    loaded.call(policy)
    twin = copy.deepcopy(policy)
    assert loaded.call(twin)[1].ids.tolist() == loaded.call(policy)[1].ids.tolist() == list(range(SIZE, 2 * SIZE))


def test_a_key_goes_with_ids():
    policy = loaded.policy()
    with pytest.raises(ValueError, match="key came without ids"):
        policy(ga.Batch(loaded.GREY, key=5))
    ids = torch.arange(SIZE)
    for wrong, error in ((-1, ValueError), (2**64, ValueError), ("5", TypeError)):
        with pytest.raises(error, match="key"):
            policy(ga.Batch(loaded.GREY, ids=ids, key=wrong))
    seed = numbering.mix(policy.seed, 9)
    assert torch.equal(
        policy(ga.Batch(loaded.GREY, ids=ids, key=9)).images, loaded.policy(seed=seed)(loaded.GREY, ids=ids)
    )


def test_a_batch_of_a_worker_that_goes_through_two_policies_is_drawn_for_apart(monkeypatch):
    monkeypatch.setattr(workers, "_worker_info", SimpleNamespace(seed=3, id=0, num_workers=2))
    batch = loaded.policy()(ga.Batch(loaded.GREY))
    first, second = (loaded.policy(seed=s)(batch.replace(images=loaded.GREY)) for s in (loaded.policy().seed, 77))
    assert torch.equal(first.images, batch.images) and first.key == second.key == batch.key
    assert changed(second.images, first.images) > 0.1, "the second policy's own seed is not heard"


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton"])
def test_a_recipe_serves_every_key_and_bakes_none_in(backend):
    policy, ids = (
        ga.Policy([ga.RandomResizedCrop(5), ga.SaltAndPepper(0.5), ga.CutMix(num_classes=4)], seed=3),
        torch.arange(SIZE),
    )
    labels, seen = torch.eye(SIZE, 4), []
    for key in (3, 2**64 - 1, 3, 5, 2**31, 2**63 + 7, 5):
        got = policy(ga.Batch(loaded.GREY, labels, ids, key=key), backend=backend)
        want = ga.Policy(policy.transforms, seed=numbering.mix(policy.seed, key))(
            ga.Batch(loaded.GREY, labels, ids), backend=backend
        )
        assert torch.equal(got.images, want.images) and torch.equal(got.labels, want.labels), f"key {key}"
        seen.append(got.images.numpy().tobytes())
    assert len(set(seen)) == 5, "vacuous"
    assert len(policy._recipes._known) == (0 if backend == "reference" else 1), "one recipe for all keys"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_that_are_no_workers_draw_apart_and_the_same_in_every_run(method):
    context = multiprocessing.get_context(method)
    policy, found = loaded.policy(), []
    loaded.call(policy)
    for _ in range(2):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=loaded.child, args=(policy, there))
        process.start()
        try:
            assert here.poll(200), "the child says nothing"
            found.append([here.recv() for _ in range(2)])
        finally:
            process.kill()
            process.join(60)
    (a, more), (b, _) = found
    assert a[0] != b[0] and None not in (a[0], b[0]) and a[2] != b[2], "two children drew alike"
    assert a[0] == more[0] and (a[1], more[1]) == ([3, 4, 5], [6, 7, 8]), "a child counts on from its copy of next_id"
    assert int(policy.next_id) == SIZE


FORKS = """
import os, sys, threading, torch
import gpuaug as ga
from gpuaug import numbering
policy, x = ga.Policy([ga.SaltAndPepper(0.5)], seed=2), torch.full((2, 3, 4, 4), 0.5)

def forked():
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        batch = policy(ga.Batch(x), backend="reference")
        os.write(write, f"{batch.key} {batch.ids.tolist()} {hash(batch.images.numpy().tobytes())}\\n".encode())
        os._exit(0)
    os.waitpid(process, 0)
    print(os.read(read, 1000).decode().strip(), flush=True)

held = threading.Event()
def hold():
    with numbering._here.lock:
        held.set()
        threading.Event().wait(60)
if sys.argv[1] == "held":
    threading.Thread(target=hold, daemon=True).start()
    held.wait()
forked()
forked()
os._exit(0)
"""


def test_a_forked_process_draws_apart_and_never_waits_for_a_thread_that_is_not_there():
    """In one run a thread holds the lock of the counters, which is not forked with it."""
    root = Path(ga.__file__).parent.parent
    env = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'kernels'}", "PYTHONHASHSEED": "0"}
    runs = [
        children.run([sys.executable, "-W", "ignore", "-c", FORKS, lock], env=env, timeout=100).stdout
        for lock in ("free", "held")
    ]
    first, second = runs[0].splitlines()
    assert first.split()[0] != second.split()[0] != "None" and first.split()[-1] != second.split()[-1], (
        "two children drew alike"
    )
    assert runs[0] == runs[1], "children are the same from run to run"


@pytest.mark.parametrize("dumps", [pickle.dumps, ForkingPickler.dumps])
def test_a_pickled_policy_shares_nothing(dumps):
    policy = loaded.policy()
    loaded.call(policy)
    policy.set_epoch(2)
    other = pickle.loads(dumps(policy))
    assert not policy.next_id.is_shared() and not other.next_id.is_shared()
    loaded.call(other)
    assert (int(policy.next_id), int(other.next_id), other.epoch) == (SIZE, 2 * SIZE, 2)
    policy.share_memory()
    assert not policy.next_id.is_shared() and int(policy.next_id) == SIZE
