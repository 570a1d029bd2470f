"""Samplers: any world, batch size and restart goes through the same sequence, each sample once, and counts what it has
delivered."""

import copy
import itertools
import json
import time
from itertools import islice

import numpy as np
import pytest
import torch
from build import quick
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpuaug.data import BatchSampler, Key, Sampler

N = 103
SHARDS = {"order": "shards", "shards": [20, 13, 0, 30, 1, 39], "streams": 8, "window": 10}
WEIGHTED = {"weights": [1.0, 2.0, 4.0], "labels": np.arange(N) % 40 // 16}
ORDERS = {
    "samples": {},
    "not shuffled": {"shuffle": False},
    "shards": SHARDS,
    "shards not shuffled": {**SHARDS, "shuffle": False},
    "weighted": WEIGHTED,
}
EACH = pytest.mark.parametrize("order", sorted(ORDERS))


def ranks(
    world: int, batch_size: int, order: str, state: dict | None = None, n: int = N, **options
) -> list[BatchSampler]:
    """One sampler for every rank of a world, each of which has loaded the state."""
    made = [
        BatchSampler(n, batch_size, seed=3, rank=r, world_size=world, **ORDERS[order], **options) for r in range(world)
    ]
    for sampler in made if state else ():
        sampler.load_state_dict(state)
    return made


def sequence(order: str, epoch: int = 0, n: int = N) -> list[Key]:
    """The global sequence of an epoch."""
    (one,) = ranks(1, 1, order, n=n)
    one.set_epoch(epoch)
    return [key for (key,) in one]


def steps(samplers: list[BatchSampler]) -> list[list[list[Key]]]:
    """[step][rank] batches of what is left of an epoch: every rank has as many."""
    taken = [list(s) for s in samplers]
    assert len({len(t) for t in taken}) == 1, "ranks take different numbers of batches"
    return [list(batches) for batches in zip(*taken, strict=True)]


def real(batches: list[list[Key]]) -> list[Key]:
    return [key for batch in batches for key in batch if key.valid]


# ---- worlds and batches


@EACH
def test_an_epoch_has_every_sample_once(order):
    ids = [i for i, _ in sequence(order)]
    assert len(ids) == N and (order == "weighted" or sorted(ids) == list(range(N)))
    assert ("not shuffled" in order) == (ids == list(range(N)))
    assert len(set(sequence(order))) == N, "a draw comes twice"


@EACH
@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("world", [1, 2, 3, 5, 8, 64])
def test_every_world_and_batch_size_goes_through_one_sequence(order, world, batch_size):
    want, together = sequence(order), world * batch_size
    padded = steps(ranks(world, batch_size, order, drop_last=False))
    assert len(padded) == -(-N // together) == len(ranks(world, batch_size, order, drop_last=False)[0])
    for i, batches in enumerate(padded):
        assert all(len(b) == batch_size for b in batches)
        assert sorted(real(batches)) == sorted(want[i * together : (i + 1) * together]), (
            "a step takes the next of the sequence"
        )
        if not order == "shards":
            assert real(batches) == want[i * together : (i + 1) * together], "rank r takes the r-th block"
    padding = [key for batches in padded for batch in batches for key in batch if not key.valid]
    assert len(padding) == len(padded) * together - N and {k.id for k in padding} <= set(range(N))
    if together <= N:
        whole = steps(ranks(world, batch_size, order))
        assert whole == padded[: N // together] and len(whole) == N // together


EITHER = [(order, drop) for order in sorted(ORDERS) for drop in (True, False)]


# each order, and both ways to end, in the fast suite
@pytest.mark.parametrize(("order", "drop_last"), quick(EITHER, *EITHER[::4], *EITHER[3::4]))
def test_every_point_of_an_epoch_resumes_with_another_world_and_batch_size(order, drop_last):
    want, then = sequence(order), sequence(order, 1)
    for world, batch_size in [(1, 4), (3, 2), (2, 8)]:
        for batches in range(N // (world * batch_size)):
            before = ranks(world, batch_size, order, drop_last=drop_last)
            seen = steps([itertools.islice(s, batches) for s in before])
            states = [s.state_dict() for s in before]
            assert all(s == states[0] for s in states), "ranks save different states"
            consumed = world * batch_size * batches
            assert states[0]["consumed"] == consumed
            for other, size in [(1, 1), (4, 3), (8, 1), (world, batch_size)]:
                left = steps(ranks(other, size, order, states[0], drop_last=drop_last))
                together = other * size
                if drop_last and N - consumed < together:
                    assert sorted(k for b in left for k in real(b)) == sorted(then[: N // together * together]), (
                        "what is left is dropped"
                    )
                    continue
                end = consumed + (N - consumed) // together * together if drop_last else N
                assert sorted(k for b in seen + left for k in real(b)) == sorted(want[:end])
                assert all(
                    sorted(real(b)) == sorted(want[consumed + i * together :][:together]) for i, b in enumerate(left)
                )


@settings(max_examples=40, deadline=None)
@example(order="not shuffled", worlds=[(5, 11, 1), (6, 8, 1)], epoch=2**18 - 1)
@given(
    order=st.sampled_from(sorted(ORDERS)),
    worlds=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 17), st.integers(0, 4)), min_size=1, max_size=5),
    epoch=st.integers(0, 2**18 - 1),
)
def test_any_history_of_worlds_goes_through_one_sequence(order, worlds, epoch):
    state, got = {**ranks(1, 1, order)[0].state_dict(), "epoch": epoch}, []
    for world, batch_size, count in worlds:
        left = N - state["consumed"]
        count = min(count, left // (world * batch_size))
        # whatever was there before, it is saved and loaded twice over
        all_ranks = ranks(world, batch_size, order, json.loads(json.dumps(state)), drop_last=False)
        seen = steps([itertools.islice(s, count) for s in all_ranks])
        got += sorted(k for b in seen for k in real(b))
        state = all_ranks[-1].state_dict()
        assert (state["epoch"], state["consumed"]) == (epoch, N - left + count * world * batch_size) or left == 0
    # of an epoch that is over nothing is left: the pass after it is the next epoch's
    rest = steps(ranks(2, 8, order, state, drop_last=False)) if state["consumed"] < N else []
    assert sorted(got + [k for b in rest for k in real(b)]) == sorted(sequence(order, epoch))


# ---- epochs


@EACH
def test_each_pass_is_the_next_epoch(order):
    one = ranks(1, 7, order)[0]
    epochs = [list(one) for _ in range(3)]
    assert [len(e) for e in epochs] == [len(one)] * 3 == [N // 7] * 3
    for e, batches in enumerate(epochs):
        assert [k for b in batches for k in b] == sequence(order, e)[: N // 7 * 7]
    if "not shuffled" not in order:
        assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_a_pass_that_was_left_early_is_followed_by_the_next_epoch():
    one = ranks(1, 7, "samples")[0]
    assert next(iter(one)) == sequence("samples", 0)[:7]
    assert next(iter(one)) == sequence("samples", 1)[:7]
    assert one.state_dict()["epoch"] == 1 and one.state_dict()["consumed"] == 7


def test_an_iterator_that_nobody_used_begins_nothing():
    one = ranks(1, 7, "samples")[0]
    unused = [iter(one) for _ in range(3)]
    one.set_epoch(0)
    unused.append(iter(one))
    assert one.state_dict()["consumed"] == 0 and next(iter(one)) == sequence("samples", 0)[:7]
    one = ranks(1, 7, "samples", one.state_dict())[0]
    unused += [iter(one), iter(one)]
    assert one.state_dict()["consumed"] == 7 and next(iter(one)) == sequence("samples", 0)[7:14]


def test_set_epoch_goes_to_the_beginning_of_any_epoch():
    one = ranks(1, 7, "samples")[0]
    for epoch in (5, 5, 2, 2**18 - 1, 0):
        one.set_epoch(epoch)
        assert (one.state_dict()["epoch"], one.state_dict()["consumed"]) == (epoch, 0)
        assert [k for b in one for k in b] == sequence("samples", epoch)[: N // 7 * 7]


def test_set_epoch_of_the_loaded_epoch_keeps_the_place():
    one = ranks(1, 7, "samples")[0]
    one.set_epoch(4)
    next(iter(one))
    again = ranks(1, 7, "samples", one.state_dict())[0]
    again.set_epoch(4)
    again.set_epoch(4)
    assert again.state_dict() == one.state_dict()
    assert [k for b in again for k in b] == sequence("samples", 4)[7 : N // 7 * 7]
    assert next(iter(again)) == sequence("samples", 5)[:7], "the next pass is whole"


def test_set_epoch_goes_back_to_where_a_pass_began_that_nobody_had_a_batch_of():
    """As a DataLoader with workers is iterated over twice: it takes batches at once."""
    one = ranks(1, 7, "samples")[0]
    one.set_epoch(4)
    next(iter(one))
    again = ranks(1, 7, "samples", one.state_dict())[0]
    ahead = list(itertools.islice(again, 3))
    again.set_epoch(4)
    assert list(itertools.islice(again, 3)) == ahead and again.state_dict(1) == {**one.state_dict(), "consumed": 14}
    again.set_epoch(5)
    assert next(iter(again)) == sequence("samples", 5)[:7]


@EACH
@pytest.mark.parametrize("drop_last", [True, False])
def test_a_state_of_the_last_batch_begins_the_next_epoch(order, drop_last):
    one = ranks(2, 9, order, drop_last=drop_last)[0]
    *_, state = (one.state_dict() for _ in one)
    assert (state["epoch"], state["consumed"]) == (0, N), "what is dropped is consumed too"
    after = one.state_dict()
    assert (after["epoch"], after["consumed"]) == (1, 0)
    for saved in (state, after):
        got = steps(ranks(1, 5, order, saved, drop_last=drop_last))
        assert [k for b in got for k in real(b)] == sequence(order, 1)[: N // 5 * 5 if drop_last else N]
    finished = ranks(2, 9, order, state, drop_last=drop_last)[0]
    finished.set_epoch(0)
    assert list(finished) == [] and next(iter(finished))[0] == sequence(order, 1)[0], (
        "asked for by name, a finished epoch is over"
    )


def test_repeated_saves_and_second_resumes_count_on():
    state, got = None, []
    for _ in range(4):
        one = ranks(1, 6, "samples", state)[0]
        for batch in itertools.islice(one, 4):
            got += batch
            assert one.state_dict() == one.state_dict()
        state = one.state_dict()
    assert got == sequence("samples")[:96] and state["consumed"] == 96


def test_an_abandoned_iterator_does_not_move_the_state():
    one = ranks(1, 7, "samples")[0]
    old = iter(one)
    next(old)
    state = one.state_dict()
    one.load_state_dict(state)
    new = iter(one)
    assert next(new) == sequence("samples")[7:14]
    next(old), list(old)
    assert one.state_dict()["consumed"] == 14 and next(new) == sequence("samples")[14:21]


def test_a_state_counts_the_batches_that_a_loop_has_had():
    """A DataLoader with workers takes batches ahead, so the sampler cannot know."""
    one = ranks(2, 7, "samples")[1]
    loader = iter(one)
    ahead = list(itertools.islice(loader, 6))
    assert one.state_dict()["consumed"] == 84 and len(ahead) == 6
    assert [one.state_dict(k)["consumed"] for k in range(8)] == [0, 14, 28, 42, 56, 70, 84, N]
    again = ranks(2, 7, "samples", one.state_dict(2))[1]
    assert next(iter(again)) == ahead[2]
    assert [again.state_dict(k)["consumed"] for k in (0, 1, 2)] == [28, 42, 56]
    assert len(list(loader)) == 1 and one.state_dict()["epoch"] == 1
    assert one.state_dict(6) == {**one.state_dict(), "epoch": 0, "consumed": 84}, (
        "the loop has not had the last one yet"
    )
    with pytest.raises(ValueError, match=r"batches must be in \[0, 7\], got 8"):
        one.state_dict(8)


def test_a_state_is_pure_tiny_and_stands_in_json():
    for order in ORDERS:
        one = ranks(8, 3, order)[5]
        before = copy.deepcopy(one.state_dict())
        saved = json.dumps(one.state_dict())
        assert len(saved) < 400 and json.loads(saved) == before == one.state_dict()
        next(iter(one))
        assert json.loads(saved) == before != one.state_dict(), "a state is a snapshot"


def test_the_middle_of_a_large_epoch_is_as_near_as_its_beginning():
    one = BatchSampler(10**9, 256, rank=3, world_size=8, seed=9)
    state = {**one.state_dict(), "epoch": 7, "consumed": 8 * 256 * 200_000}
    one.load_state_dict(state)
    first = next(iter(one))
    assert len({k.id for k in first}) == 256 and max(k.id for k in first) > 9 * 10**8
    assert one.state_dict()["consumed"] == 8 * 256 * 200_001


FROZEN: dict[str, list[tuple[int, int]]] = {
    "not shuffled": [(90, 0), (91, 0), (92, 0), (93, 0), (94, 0), (95, 0)],
    "samples": [(40, 0), (85, 0), (94, 0), (102, 0), (99, 0), (61, 0)],
    "shards": [(71, 0), (83, 0), (97, 0), (6, 0), (19, 0), (63, 0)],
    "shards not shuffled": [(90, 0), (91, 0), (92, 0), (93, 0), (94, 0), (95, 0)],
    "weighted": [(0, 0), (36, 3), (78, 2), (73, 2), (76, 1), (33, 0)],
}


@EACH
def test_orders_are_those_of_earlier_versions(order):
    assert [tuple(k) for k in sequence(order, 6)[90:96]] == FROZEN[order]


# ---- rank and world


def test_rank_and_world_come_from_the_environment_of_torchrun(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    one = Sampler(20, shuffle=False)
    assert [i for i, _ in one] == [1, 5, 9, 13, 17] and len(one) == 5
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(ValueError, match="rank must be below world_size, got rank=4, world_size=4"):
        Sampler(20)
    for rank in ("", "one"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(ValueError, match="must have RANK and WORLD_SIZE as integers, or neither"):
            Sampler(20)
    monkeypatch.setenv("WORLD_SIZE", "")
    monkeypatch.setenv("RANK", "")
    assert len(Sampler(20)) == 20


def test_a_process_of_lightnings_has_its_rank_on_the_first_node_and_elsewhere_once_it_trains(monkeypatch):
    """Its launcher says node, process and world, and no rank."""
    monkeypatch.delenv("RANK", raising=False)
    for name, value in (("WORLD_SIZE", "4"), ("NODE_RANK", "0"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert [i for i, _ in Sampler(20, shuffle=False)] == [1, 5, 9, 13, 17]
    monkeypatch.setenv("NODE_RANK", "1")
    late = Sampler(20, shuffle=False)
    with pytest.raises(ValueError, match=r"must have RANK and WORLD_SIZE.*or initialise torch.distributed first"):
        next(iter(late))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 3)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    assert [i for i, _ in late] == [3, 7, 11, 15, 19]


def test_torch_distributed_comes_before_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    one = Sampler(20, shuffle=False)
    assert len(one) == 5
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        assert [i for i, _ in one] == list(range(20))
    finally:
        torch.distributed.destroy_process_group()


def test_rank_and_world_come_from_torch_distributed_even_if_it_is_initialised_later(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    late, given = Sampler(20, shuffle=False), Sampler(20, shuffle=False, rank=0, world_size=2)
    assert len(late) == 20
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 5)
    assert [i for i, _ in late] == [2, 7, 12, 17] and len(late) == 4
    assert [i for i, _ in given] == list(range(0, 20, 2)), "arguments come first"


@pytest.mark.parametrize("kind", [Sampler, BatchSampler])
def test_a_key_costs_at_most_a_few_microseconds_in_batches_of_one_too(kind):
    """Of this process's time, and of the best try: the machine may have other work."""
    keys, taken = iter(kind(10**9, seed=1)), []
    for _ in range(8):
        start = time.process_time()
        assert len(list(islice(keys, 20_000))) == 20_000
        taken.append((time.process_time() - start) / 20_000)
    assert min(taken) < 1.5e-6, f"{1e6 * min(taken):.1f} us"
