"""A run of the loader goes on from its state: the same samples, in the same order, with the same pixels, whatever changes
around it."""

import copy
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import loading
import numpy as np
import pytest
import torch
from loading import N, folder, loader, policy, rows, samples, steps, whole

import gpuaug as ga


@pytest.fixture(autouse=True)
def _limit():
    with loading.within(200):
        yield


def test_every_place_goes_on_with_any_world_and_batch_size():
    """Every resume point of ranks of 2 x 3, gone on from by others."""
    expected, others = list(whole()), [(1, 1), (1, 64), (2, 3), (3, 4), (8, 2)]
    first = [loader(batch_size=3, drop_last=False, rank=r, world_size=2) for r in range(2)]
    iterators, done = [iter(each) for each in first], 0
    for k in range(len(first[0]) + 1):
        states = [each.state_dict() for each in first]
        assert states[0] == states[1], "ranks have different states"
        world, batch_size = others[k % len(others)]
        ranks = [
            loader(batch_size=batch_size, drop_last=False, rank=r, world_size=world, num_threads=1 + k % 3, seed=99)
            for r in range(world)
        ]
        for each in ranks:
            each.load_state_dict(copy.deepcopy(states[0]))
        assert steps(ranks) == (expected[done:] if done < N else list(whole(1))), (k, world, batch_size)
        if k < len(first[0]):
            done = min(done + 6, N)
            for it in iterators:
                next(it)


def test_what_drop_last_drops_does_not_depend_on_restarts_within_an_epoch():
    with loader(batch_size=5) as one:
        it = iter(one)
        seen = rows([next(it), next(it)])
        state = one.state_dict()
    with loader(batch_size=3) as two:
        two.load_state_dict(state)
        seen += rows(two)
    assert seen == list(whole()[: 10 + (N - 10) // 3 * 3])


def test_a_state_is_pure_tiny_and_plain_and_counts_what_was_delivered():
    with loader(prefetch=8) as one:
        it = iter(one)
        assert one.state_dict()["consumed"] == 0
        for k in range(1, 5):
            next(it)
            time.sleep(0.02)
            state = one.state_dict()
            assert state["consumed"] == 4 * k, "what is ahead is counted"
            assert one.state_dict() == state == json.loads(json.dumps(state))
            assert len(json.dumps(state)) < 1000
        assert one.state_dict(batches=2)["consumed"] == 8
        changed = one.state_dict()
        changed["consumed"] = 0
        assert one.state_dict() == state, "a state is the loader's own memory"


@pytest.mark.parametrize("epochs", [None, 2])
def test_the_end_of_an_epoch_is_the_beginning_of_the_next(epochs):
    length = N // 4
    with loader(epochs=epochs) as one:
        it = iter(one)
        for _ in range(length):
            next(it)
        state = one.state_dict()
        if epochs is None:
            with pytest.raises(StopIteration):
                next(it)
            assert one.state_dict()["epoch"] == 1 and one.state_dict()["consumed"] == 0
            with pytest.raises(StopIteration):
                next(it)
        else:
            assert next(it).epoch == 1
            assert one.state_dict()["epoch"] == 1 and one.state_dict()["consumed"] == 4
    with loader(epochs=epochs) as two:
        two.load_state_dict(state)
        assert rows(two) == list(whole(1)[: 4 * length])


def test_several_epochs_go_on_to_the_end_of_them_all():
    with loader(epochs=3) as one:
        it = iter(one)
        seen = [next(it) for _ in range(N // 4 + 3)]
        state = one.state_dict()
    with loader(epochs=3) as two:
        two.load_state_dict(state)
        seen += list(two)
    assert rows(seen) == [r for e in range(3) for r in whole(e)[: N // 4 * 4]]


def test_iterators_that_nobody_takes_from_change_nothing():
    with loader() as one:
        it = iter(one)
        next(it)
        state = one.state_dict()
    with loader() as two:
        # as Lightning does
        iter(two)
        two.load_state_dict(state)
        iter(two)
        two.set_epoch(0)
        iter(two)
        assert two.state_dict() == state
        assert rows(iter(two)) == list(whole()[4:36])


def test_a_second_resume_and_repeated_saves_are_right():
    with loader() as one:
        it = iter(one)
        seen = [next(it), next(it)]
        states = [one.state_dict() for _ in range(3)]
    for _ in range(2):
        with loader() as again:
            again.load_state_dict(states[-1])
            assert again.state_dict() == states[-1]
            it = iter(again)
            seen += [next(it), next(it)]
            states = [again.state_dict() for _ in range(2)]
    with loader() as last:
        last.load_state_dict(states[0])
        assert rows(seen) + rows(last) == list(whole()[:36])
        assert rows(last) == list(whole(1)[:36])


def test_set_epoch_of_the_same_epoch_keeps_the_place_and_of_another_leaves_it():
    with loader() as one:
        it = iter(one)
        next(it)
        state = one.state_dict()
    with loader() as two:
        two.load_state_dict(state)
        two.set_epoch(0)
        assert rows(two) == list(whole()[4:36])
        two.load_state_dict(state)
        two.set_epoch(1)
        assert rows(two) == list(whole(1)[:36])


def test_a_loader_that_is_left_in_the_middle_begins_the_next_epoch():
    with loader() as one:
        for _ in one:
            break
        assert rows(one) == list(whole(1)[:36])


def test_another_policy_data_set_or_order_is_refused_by_name_unless_told_otherwise(tmp_path):
    with loader() as one:
        next(iter(one))
        state = one.state_dict()
    more = [*samples(), samples()[0]]
    for changed, name in (
        ({"its_policy": policy(seed=6)}, "policy"),
        ({"its_policy": ga.Policy([ga.Resize((8, 8))])}, "policy"),
        ({"its_policy": None}, "policy"),
        ({"source": more}, "source"),
        ({"source": folder(tmp_path)}, "source"),
        ({"shuffle": False}, "shuffle"),
    ):
        with loader(**changed) as other:
            with pytest.raises(ValueError, match=f"{name} was"):
                other.load_state_dict(state)
            assert other.state_dict()["consumed"] == 0, "a state that was refused was loaded"
            other.load_state_dict(state, strict=False)
            assert len(rows(other)) == 32
    for broken in ({}, {k: v for k, v in state.items() if k != "seed"}, {**state, "order_version": 0}, 3):
        with loader() as other, pytest.raises(ValueError, match="state"):
            other.load_state_dict(broken)
    with loader(its_policy=None) as other, pytest.raises(ValueError, match="order_version 0, and this gpuaug knows"):
        other.load_state_dict({**state, "order_version": 0})
    for value in (-1, 2.5, "x"):
        with loader() as other, pytest.raises((ValueError, TypeError), match="consumed"):
            other.load_state_dict({**state, "consumed": value})


def test_a_state_without_what_is_compared_is_refused():
    with loader() as one:
        state = one.state_dict()
        for name in ("source", "policy"):
            with pytest.raises(ValueError, match=name):
                one.load_state_dict({k: v for k, v in state.items() if k != name})


def test_a_changed_number_of_threads_device_name_or_way_with_bad_files_is_no_other_run():
    with loader() as one:
        it = iter(one)
        next(it)
        state = one.state_dict()
    with loader(num_threads=3, on_error="skip", prefetch=7, decoder="auto", drop_last=False) as other:
        other.load_state_dict(state)
        assert rows(other) == list(whole()[4:])


def test_weights_go_on(tmp_path):
    options = {"weights": {"class_0": 1, "class_1": 1, "class_2": 1, "class_3": 6}}
    root = folder(tmp_path)
    with loader(root, **options) as one:
        expected = rows(one)
    with loader(root, **options) as one:
        it = iter(one)
        seen = rows([next(it), next(it)])
        state = one.state_dict()
    with loader(root, batch_size=2, **options) as two:
        two.load_state_dict(state)
        seen += rows(two)
    assert seen == expected
    with loader(root, weights="balanced") as other, pytest.raises(ValueError, match="labels_and_weights"):
        other.load_state_dict(state)


def test_the_middle_of_a_million_samples_is_found_at_once():
    class Many:
        """As long as ImageNet's training set."""

        targets = np.arange(1_281_167) % 1000

        def __len__(self):
            return 1_281_167

        def __getitem__(self, i):
            return samples()[i % N][0], int(i) % 1000

    state = None
    for _ in range(2):
        begin = time.perf_counter()
        one = loader(Many(), batch_size=64)
        if state is not None:
            one.load_state_dict(state)
        batch = next(iter(one))
        taken = time.perf_counter() - begin
        if state is None:
            state = {**one.state_dict(), "consumed": 640_000}
        one.close()
    assert one.state_dict()["consumed"] == 640_064 and len(batch.ids.unique()) == 64
    assert taken < 2.0, f"{taken:.2f} s until the first batch"
    begin = time.perf_counter()
    with loader(Many(), batch_size=64) as again:
        begin = time.perf_counter()
        again.load_state_dict(state)
        assert time.perf_counter() - begin < 1.0


# ---- processes that are killed

WORKER = Path(__file__).parent / "support" / "loader_worker.py"


def run(*arguments: str, ranks: int = 1, kill_after: float | None = None) -> int:
    """The training loop of support/loader_worker.py; by torchrun with gloo where there are several ranks."""
    command = [sys.executable, str(WORKER), *arguments]
    if ranks > 1:
        launch = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--master-port=0", "--standalone"]
        command = [sys.executable, *launch, str(WORKER), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = process.communicate(timeout=kill_after or 150)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert kill_after, "the run hangs"
        return -signal.SIGKILL
    assert process.returncode in (0, 9, -9) or "SIGKILL" in errors or "exitcode: -9" in errors, errors[-3000:]
    return process.returncode


def log(out: Path) -> list[tuple[int, int, int, str]]:
    """(epoch, id, occurrence, digest of pixels) as the ranks wrote them, up to the last saved state."""
    lines = []
    for file in sorted(out.glob("log-*.jsonl")):
        for line in file.read_text().splitlines():
            if line.endswith("}"):
                lines.append(json.loads(line))
    best: dict[tuple[int, int], tuple[int, str]] = {}
    for line in lines:
        for epoch, id, occurrence, pixels in line["rows"]:
            key = (epoch, id)
            old = best.get(key)
            assert old is None or old == (occurrence, pixels), f"sample {id} of epoch {epoch} is not what it was"
            best[key] = (occurrence, pixels)
    return [(e, i, *v) for (e, i), v in best.items()]


def expected(epochs: int) -> set[tuple[int, int, int, str]]:
    return {(e, i, o, hashlib.sha256(p).hexdigest()[:16]) for n in range(epochs) for e, i, o, p in whole(n)}


def test_two_ranks_that_are_killed_go_on_as_one(tmp_path):
    """torchrun with gloo: the second rank is killed after 3 steps, and one process goes on from the last state."""
    data = folder(tmp_path / "data")
    assert run(str(data), str(tmp_path), "--steps=3", "--kill", ranks=2) != 0
    state = json.loads((tmp_path / "state.json").read_text())
    assert 0 < state["consumed"] <= 12, "vacuous"
    with loader(data, batch_size=3, drop_last=False) as one:
        one.load_state_dict(state)
        rest = {(e, i, o, hashlib.sha256(p).hexdigest()[:16]) for e, i, o, p in rows(one)}
    seen = set(log(tmp_path))
    assert len(rest) == N - state["consumed"] and seen | rest == expected(1)


@pytest.mark.slow
@pytest.mark.parametrize("worlds", [(2, 3, 1), (1, 2, 2), (3, 1, 2)])
def test_worlds_that_change_at_every_kill_lose_nothing_and_repeat_nothing(tmp_path, worlds):
    data = folder(tmp_path / "data")
    for k, world in enumerate(worlds[:-1]):
        run(str(data), str(tmp_path), f"--steps={2 + k}", "--kill", ranks=world)
    run(str(data), str(tmp_path), "--epochs=2", ranks=worlds[-1])
    assert set(log(tmp_path)) == expected(2)


@pytest.mark.slow
def test_a_process_that_is_killed_at_any_moment_goes_on_from_its_last_state(tmp_path):
    data = folder(tmp_path / "data")
    random = np.random.Generator(np.random.Philox(5))
    kills = 0
    for _ in range(8):
        kills += run(str(data), str(tmp_path), "--epochs=6", "--pause=0.2", kill_after=random.uniform(3, 6)) != 0
    assert kills >= 3, "vacuous"
    assert run(str(data), str(tmp_path), "--epochs=6") == 0
    assert set(log(tmp_path)) == expected(6)


def test_gathered_ranks_agree_about_their_state():
    """The state holds nothing of the rank."""
    ranks = [loader(rank=r, world_size=3, batch_size=2) for r in range(3)]
    for each in ranks:
        next(iter(each))
    assert len({json.dumps(each.state_dict(), sort_keys=True) for each in ranks}) == 1
    assert torch.is_tensor(next(iter(ranks[0])).images)
