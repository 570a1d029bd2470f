"""Orders of shards and of weighted classes: what a rank reads, how evenly classes and samples are drawn, and what they
repeat."""

import itertools
import time
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.bench_order import IDS, orders
from gpuaug.data import BatchSampler, order, weights

EPOCHS = 12


def at(made: order.Order, epoch: int = 0, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Ids and occurrences of a whole epoch."""
    return made.epoch(seed, epoch).at(np.arange(made.length))


def test_an_id_of_any_order_costs_at_most_a_microsecond():
    """Of this process's time, and of the best try: the machine may have other work."""
    for name, made in orders().items():
        epoch, positions = made.epoch(1, 2), np.arange(IDS)
        taken = []
        for _ in range(15):
            start = time.process_time()
            epoch.at(positions)
            taken.append((time.process_time() - start) / IDS)
        assert min(taken) < 1e-6, f"{name}: {1e9 * min(taken):.0f} ns"


# ---- shards

SIZES = [37, 1, 0, 64, 29, 50, 8, 71, 40, 33, 2, 90]
N = sum(SIZES)
SHARD = np.repeat(np.arange(len(SIZES)), SIZES)


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=20).filter(sum),
    streams=st.integers(1, 70),
    window=st.integers(1, 300),
)
def test_every_sample_of_any_shards_comes_once(sizes, streams, window):
    n = sum(sizes)
    made = order.make(n, order="shards", shards=sizes, streams=streams, window=window)
    ids, occurrence = at(made)
    assert np.array_equal(np.sort(ids), np.arange(n)) and not occurrence.any()
    epoch = made.epoch(5, 0)
    for stream in range(streams):
        own = ids[stream::streams]
        for w in range(-(-len(own) // window)):
            held = [i for r in epoch.ranges(stream, w) for i in r]
            assert sorted(own[w * window : (w + 1) * window].tolist()) == sorted(held), (
                "a window holds other samples than it says"
            )
        assert epoch.ranges(stream, -(-len(own) // window)) == []


@pytest.mark.parametrize("world", [1, 2, 4, 8])
@pytest.mark.parametrize("consumed", [0, 24, 37])
def test_a_world_that_divides_the_streams_reads_its_own_streams(world, consumed):
    k = 8
    position = {i: p for p, i in enumerate(at(order.make(N, order="shards", shards=SIZES, streams=k, window=16))[0])}
    for rank in range(world):
        one = BatchSampler(
            N, 6, seed=5, order="shards", shards=SIZES, streams=k, window=16, rank=rank, world_size=world
        )
        one.load_state_dict({**one.state_dict(), "consumed": consumed})
        read = {position[i] % k for batch in one for i, _ in batch}
        assert read == set(range(rank, k, world)), f"rank {rank} reads the streams {read}"


def test_few_shards_are_open_at_a_time_and_each_is_read_by_one_or_two_ranks():
    sizes, k, world = [1000] * 64, 16, 8
    n = sum(sizes)
    ids, _ = at(order.make(n, order="shards", shards=sizes, streams=k, window=250))
    for start in range(0, n, k * 250):
        assert len(set(ids[start : start + k * 250] // 1000)) <= 2 * k
    readers = [{int(s) for s in ids[rank::world] // 1000} for rank in range(world)]
    assert max(sum(shard in r for r in readers) for shard in range(64)) <= 2 and sum(map(len, readers)) <= 64 + k


def test_streams_read_samples_in_large_ranges():
    made = order.make(64_000, order="shards", shards=[1000] * 64, streams=16, window=250)
    ranges = [r for stream in range(16) for w in range(16) for r in made.epoch(5, 0).ranges(stream, w)]
    assert sum(map(len, ranges)) == 64_000 and len(ranges) <= 2 * 16 * 16


def test_epochs_of_shards_differ_in_shards_and_in_windows():
    made = order.make(6400, order="shards", shards=[100] * 64, streams=4, window=100)
    epochs = [at(made, e)[0] for e in range(EPOCHS)]
    for a, b in itertools.combinations(epochs, 2):
        assert np.count_nonzero(a == b) < 12 and np.count_nonzero(a // 100 == b // 100) < 6400 / 6
        assert np.count_nonzero(a % 100 == b % 100) < 6400 / 50, "windows are shuffled alike"


def test_a_window_is_shuffled():
    ids, _ = at(order.make(64_000, order="shards", shards=[1000] * 64, streams=16, window=250))
    windows = ids.reshape(-1, 250, 16).transpose(2, 0, 1).reshape(-1, 250)
    places = np.argsort(np.argsort(windows, 1), 1)
    correlation = [np.corrcoef(p, np.arange(250))[0, 1] for p in places]
    assert abs(np.mean(correlation)) < 4 / np.sqrt(250 * len(places)) and len(set(map(tuple, places.tolist()))) == len(
        places
    )


def test_a_loaded_state_brings_its_streams_and_windows():
    one, other = (BatchSampler(N, 5, order="shards", shards=SIZES, streams=k, window=w) for k, w in ((8, 16), (4, 99)))
    running = iter(one)
    assert next(running) != next(iter(other))
    other.load_state_dict(one.state_dict())
    assert other.state_dict() == one.state_dict() and list(other) == list(running)


def test_a_million_shards_take_memory_by_shard_and_not_by_sample():
    sizes = np.full(100_000, 10_000)
    tracemalloc.start()
    made = order.make(10**9, order="shards", shards=sizes)
    ids, _ = made.epoch(1, 2).at(np.arange(10**9 - 4096, 10**9))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(np.unique(ids // 10_000)) >= 64 and peak < 100_000 * 120


# ---- weights


@settings(max_examples=100, deadline=None)
@given(shares=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30), length=st.integers(1, 10**6))
def test_a_quota_is_within_one_draw_of_its_share_and_all_are_given(shares, length):
    got, exact = weights.quotas(shares, length), np.array(shares) / sum(shares) * length
    assert got.sum() == length and (got >= 0).all() and np.abs(got - exact).max() < 1 + 1e-6
    assert all(
        got[i] == got[j] or abs(got[i] - got[j]) == 1
        for i, j in itertools.combinations(range(len(shares)), 2)
        if shares[i] == shares[j]
    )


LABELS = np.array([0] * 700 + [1] * 250 + [2] * 40 + [3] * 10)[np.argsort(np.arange(1000) * 7919 % 1000)]


@pytest.mark.parametrize(
    ("given_weights", "want"),
    [
        ("balanced", [250, 250, 250, 250]),
        ([4, 3, 2, 1], [400, 300, 200, 100]),
        ({3: 1, 0: 0.5, 1: 0.25, 2: 0.25}, [250, 125, 125, 500]),
        (np.array([1.0, 1.0, 1.0, 0.5]), [286, 286, 285, 143]),
    ],
    ids=["balanced", "sequence", "mapping", "array"],
)
def test_every_epoch_has_the_quota_of_every_class_and_draws_it_evenly(given_weights, want):
    made = order.make(1000, weights=given_weights, labels=LABELS)
    for epoch in range(3):
        ids, occurrence = at(made, epoch)
        assert np.bincount(LABELS[ids]).tolist() == want
        drawn = Counter(ids.tolist())
        for c in range(4):
            times = [drawn[i] for i in np.flatnonzero(LABELS == c)]
            assert max(times) - min(times) <= 1, f"class {c} draws one sample more often than another"
        for i, times in drawn.items():
            assert sorted(occurrence[ids == i].tolist()) == list(range(times)), "a repeat has the occurrence of another"


def test_what_a_class_draws_once_more_is_another_part_in_every_epoch():
    made = order.make(1000, weights=[4, 3, 2, 1], labels=LABELS)
    more = np.zeros(1000)
    for epoch in range(400):
        more[np.unique(at(made, epoch)[0])] += 1
    majority = more[LABELS == 0]
    assert abs(majority.mean() - 400 * 400 / 700) < 1e-9
    chi_square = ((majority - majority.mean()) ** 2).sum() / (400 * (4 / 7) * (3 / 7))
    assert abs(chi_square - 700) < 5 * np.sqrt(2 * 700)


def test_the_classes_in_a_batch_vary_as_those_of_a_random_order():
    n, b, labels = 60_000, 250, np.repeat(np.arange(6), [20_000, 15_000, 12_000, 10_000, 2_500, 500])
    made = order.make(n, weights="balanced", labels=labels)
    counts = np.stack([np.bincount(c, minlength=6) for e in range(8) for c in labels[at(made, e)[0]].reshape(-1, b)])
    theory = b / 6 * (5 / 6) * (n - b) / (n - 1)
    assert abs(((counts - b / 6) ** 2).mean() / theory - 1) < 4 * np.sqrt(2 / (len(counts) * 5))


def test_labels_may_be_strings_or_tensors_and_classes_may_be_missing():
    import torch

    names = np.array(["cat", "dog", "eel", "fox"])[LABELS]
    want = at(order.make(1000, weights=[4, 3, 2, 1], labels=LABELS))
    for labels, by_class in [
        (torch.from_numpy(LABELS), torch.tensor([4, 3, 2, 1])),
        (LABELS.tolist(), {0: 4, 1: 3, 2: 2, 3: 1}),
        (names.tolist(), {"cat": 4, "dog": 3, "eel": 2, "fox": 1}),
        (LABELS * 2, [4, 0, 3, 0, 2, 0, 1]),
    ]:
        assert all(map(np.array_equal, at(order.make(1000, weights=by_class, labels=labels)), want))


def test_views_share_the_field_of_occurrences():
    one, two = (at(order.make(1000, weights="balanced", labels=LABELS, views=v)) for v in (1, 3))
    assert np.array_equal(one[0], two[0]) and np.array_equal(one[1] * 3, two[1]) and one[1].max() == 24


def test_as_many_repeats_as_the_field_holds_are_drawn_and_one_more_is_refused():
    labels = np.array(["many"] * 9000 + ["rare"])

    def make(draws: int, views: int = 1) -> order.Order:
        return order.make(
            9001, weights={"many": 9000, "rare": draws}, labels=labels, num_samples=9000 + draws, views=views
        )

    ids, occurrence = at(make(4096))
    assert np.array_equal(np.sort(occurrence[ids == 9000]), np.arange(4096))
    with pytest.raises(ValueError, match="class 'rare' has 1 samples for 4097 draws: more than 4095 repeats"):
        make(4097)
    assert at(make(2048, views=2))[1].max() == 4094
    with pytest.raises(ValueError, match=r"class 'rare' .* more than 2047 repeats of a sample with 2 views"):
        make(2049, views=2)


def test_num_samples_is_the_length_of_an_epoch():
    one = BatchSampler(
        1000, 64, weights="balanced", labels=LABELS, num_samples=2800, drop_last=False, rank=0, world_size=1
    )
    drawn = Counter(LABELS[k.id] for batch in one for k in batch if k.valid)
    assert drawn == {c: 700 for c in range(4)} and len(one) == 44


def test_many_small_classes_are_drawn_without_a_list_of_draws():
    labels = np.repeat(np.arange(100_000), 10)
    made = order.make(10**6, weights="balanced", labels=labels)
    tracemalloc.start()
    epoch = made.epoch(3, 1)
    ids, occurrence = epoch.at(np.arange(999_000, 10**6))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(np.unique(ids)) == 1000 and not occurrence.any() and peak < 2 << 20
