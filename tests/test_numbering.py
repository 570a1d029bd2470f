"""A policy as a module: without ids it numbers samples, no two threads, workers or ranks alike, and that is its only
state."""

import os
import socket
import sys
import threading
from pathlib import Path

import children
import pytest
import torch
from compare import compare
from torch import nn

import gpuaug as ga

N = 6


@pytest.fixture
def x(images) -> torch.Tensor:
    return images(N, 40, 33, dtype=torch.uint8)


def example() -> ga.Policy:
    return ga.Policy(
        [
            ga.RandomResizedCrop(24),
            ga.RandomHorizontalFlip(),
            ga.SaltAndPepper(0.2),
            ga.ToDtype(torch.float32, scale=True),
        ]
    )


def test_without_ids_samples_are_numbered_on(x):
    policy, ids = example(), torch.arange(2 * N)
    both = torch.cat([policy(x), policy(x)])
    compare(both, example()(torch.cat([x, x]), ids=ids), "exact", "0 to 11")
    assert int(policy.next_id) == 2 * N
    assert policy(ga.Batch(x[:2])).ids.tolist() == [12, 13]


def test_next_id_is_an_int64_buffer_beside_the_epoch_and_the_version_of_the_draws():
    policy = example()
    assert policy.next_id.dtype == torch.int64 and policy.next_id.ndim == 0
    assert list(policy.state_dict()) == ["next_id", "epoch", "draws"] and not list(policy.parameters())
    assert dict(policy.named_buffers()) == {"next_id": policy.next_id} and list(policy.buffers()) == [policy.next_id]
    model = nn.Sequential(policy, nn.Flatten())
    assert list(model.state_dict()) == ["0.next_id", "0.epoch", "0.draws"]
    assert not list(model.named_buffers()), "what DistributedDataParallel would broadcast"


def test_next_id_is_saved_and_loaded(x):
    a, b = example(), example()
    a(x)
    state = a.state_dict()
    a(x)
    assert int(state["next_id"]) == N, "a state dict is a snapshot"
    b.load_state_dict(state)
    assert int(b.next_id) == N
    compare(b(x), example()(x, ids=torch.arange(N) + N), "exact", "resumed")
    assert int(state["next_id"]) == N
    outer, again = nn.Sequential(nn.Flatten(), a), nn.Sequential(nn.Flatten(), example())
    again.load_state_dict(outer.state_dict())
    assert int(again[1].next_id) == 2 * N
    with pytest.raises(RuntimeError, match="other"):
        b.load_state_dict({"next_id": torch.tensor(1), "other": torch.zeros(1)})
    missing, unexpected = b.load_state_dict({"other": torch.zeros(1)}, strict=False)
    assert missing == [] and unexpected == ["other"]


def test_a_checkpoint_from_before_the_policy_numbers_from_0(x):
    """Strictly, alone and inside a model; what is there is still looked at."""
    policy = example()
    policy.set_epoch(4)
    policy(x)
    model = nn.Sequential(policy, nn.BatchNorm2d(3))
    older = {k: v for k, v in model.state_dict().items() if k.startswith("1.")}
    assert older, "vacuous"
    model.load_state_dict(older)
    assert int(policy.next_id) == policy.epoch == 0
    policy(x)
    policy.load_state_dict({})
    assert int(policy.next_id) == 0
    policy.load_state_dict({"next_id": torch.tensor(7)})
    assert (int(policy.next_id), policy.epoch) == (7, 0)
    for wrong, said in (
        ({"next_id": torch.tensor(-1)}, "next_id"),
        ({"epoch": torch.tensor(2**18)}, "epoch"),
        ({"next_id": torch.zeros(2)}, "loading"),
    ):
        with pytest.raises(RuntimeError, match=said):
            policy.load_state_dict(wrong)


def test_next_id_follows_the_module_and_stays_int64():
    policy = nn.Sequential(example())
    policy.half().double().to(torch.bfloat16)
    assert policy[0].next_id.dtype == torch.int64
    assert policy.to("meta")[0].next_id.device.type == "meta"


def test_train_and_eval_change_nothing(x):
    policy, ids = example(), torch.arange(N)
    want = policy(x, ids=ids)
    compare(policy.eval()(x, ids=ids), want, "exact", "eval")
    with torch.inference_mode():
        compare(policy(x, ids=ids), want, "exact", "inference mode")
        policy(x)
    policy(x)
    assert int(policy.next_id) == 2 * N
    with torch.autocast("cpu", torch.bfloat16):
        compare(policy(x, ids=ids), want, "exact", "autocast")


def test_threads_of_one_policy_number_apart(images):
    policy, seen, lock = ga.Policy([ga.RandomInvert()]), [], threading.Lock()
    x = images(7, 4, 4)

    def work() -> None:
        for _ in range(40):
            ids = policy(ga.Batch(x)).ids.tolist()
            with lock:
                seen.append(ids)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    numbers = sorted(i for ids in seen for i in ids)
    assert numbers == list(range(6 * 40 * 7)), "an id was given twice or left out"
    assert all(ids == list(range(ids[0], ids[0] + 7)) for ids in seen)


def test_threads_of_one_policy_do_not_disturb_each_other(images):
    policy = ga.Policy(
        [ga.RandomResizedCrop(16), ga.ColorJitter(0.4, 0.4, 0.4, 0.1), ga.SaltAndPepper(0.2), ga.RandAugment()]
    )
    x, wrong = images(4, 30, 30), []
    want = [policy(x, ids=torch.arange(4) + 4 * k) for k in range(6)]

    def work(k: int) -> None:
        for _ in range(15):
            if not torch.equal(policy(x, ids=torch.arange(4) + 4 * k), want[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


RANKS = """
import os, pathlib, sys, time, torch, torch.distributed as dist
from torch import nn
import gpuaug as ga

rank = int(sys.argv[1])
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[2], RANK=str(rank), WORLD_SIZE="2")
dist.init_process_group("gloo")
policy = ga.Policy([ga.RandomHorizontalFlip()], seed=3)
with torch.no_grad():
    policy.next_id += 100 * (rank + 1)
model = nn.parallel.DistributedDataParallel(nn.Sequential(policy, nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 2)), broadcast_buffers=True)
for _ in range(3):
    model(torch.ones(5, 3, 4, 4)).sum().backward()
ids = policy(ga.Batch(torch.ones(2, 3, 4, 4))).ids.tolist()
assert "module.0.next_id" in model.state_dict()
print("RESULT", int(policy.next_id), ids, flush=True)
dist.barrier()
# gloo's threads may abort a process that winds down, so both end at once, the one that keeps the store last
done = pathlib.Path(__file__).with_name("done")
if rank == 1:
    done.touch()
while not done.exists():
    time.sleep(0.01)
os._exit(0)
"""


def test_ddp_leaves_each_rank_its_own_numbers(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    script = tmp_path / "rank.py"
    script.write_text(RANKS)
    root = Path(ga.__file__).parent.parent
    command = [sys.executable, str(script)]
    runs = [children.Child([*command, r, port], environment(root)) for r in range(2)]
    try:
        outputs = [r.communicate(timeout=120) for r in runs]
    finally:
        for r in runs:
            r.kill()
    results = []
    for r, (out, err) in zip(runs, outputs, strict=True):
        assert r.returncode == 0, err[-2000:]
        results.append(next(line for line in out.splitlines() if line.startswith("RESULT")))
    assert results[0] == "RESULT 117 [115, 116]"
    assert results[1] == f"RESULT 217 [{2**32 + 215}, {2**32 + 216}]"


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'kernels'}", "OMP_NUM_THREADS": "1"}
