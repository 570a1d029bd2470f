"""What samplers refuse, in words: what, got, expected, do."""

import re

import numpy as np
import pytest

from gpuaug.data import BatchSampler, Sampler

LABELS = [0, 0, 0, 1, 1, 2]
SHARDED = {"order": "shards", "shards": [2, 4]}


def weighted(weights, labels=LABELS, **more) -> dict:
    return {"weights": weights, "labels": labels, **more}


BAD = [
    (0, {}, ValueError, "there are no samples"),
    ([], {}, ValueError, "there are no samples"),
    (-1, {}, ValueError, "the number of samples must be in [0, "),
    (1 << 47, {}, ValueError, "the number of samples must be in [0, "),
    (2.5, {}, TypeError, "the number of samples must be an integer"),
    (iter([1]), {}, TypeError, "samples must be a number or a Dataset with a length, got list_iterator"),
    (None, {}, TypeError, "samples must be a number or a Dataset with a length, got NoneType"),
    (6, {"batch_size": 0}, ValueError, "batch_size must be >= 1, got 0"),
    (6, {"batch_size": True}, TypeError, "batch_size must be an integer"),
    (6, {"seed": -1}, ValueError, "seed must be in [0, "),
    (6, {"shuffle": 1}, TypeError, "shuffle must be True or False"),
    (6, {"drop_last": None}, TypeError, "drop_last must be True or False"),
    (6, {"rank": 2, "world_size": 2}, ValueError, "rank must be below world_size, got rank=2, world_size=2"),
    (6, {"rank": -1, "world_size": 2}, ValueError, "rank must be >= 0"),
    (6, {"rank": 0, "world_size": 0}, ValueError, "world_size must be >= 1"),
    (6, {"rank": 1}, ValueError, "rank and world_size go together"),
    (6, {"world_size": 2}, ValueError, "rank and world_size go together"),
    (6, {"order": "random"}, ValueError, "order must be 'samples' or 'shards', got 'random'"),
    (6, {"order": "shards"}, ValueError, "order='shards' needs the number of samples in each shard"),
    (6, {"shards": [2, 4]}, ValueError, "shards=[2, 4] is for order='shards'"),
    (6, {"streams": 4}, ValueError, "streams=4 is for order='shards'"),
    (6, {"window": 4}, ValueError, "window=4 is for order='shards'"),
    (6, {**SHARDED, "shards": [2, 3]}, ValueError, "shards hold 5 samples together, and there are 6"),
    (6, {**SHARDED, "shards": [7, -1]}, ValueError, "shards must hold 0 samples or more, got -1 in shard 1"),
    (6, {**SHARDED, "shards": [2.0, 4.0]}, TypeError, "shards must be a sequence of numbers of samples"),
    (6, {**SHARDED, "shards": "ab"}, TypeError, "shards must be a sequence of numbers of samples"),
    (6, {**SHARDED, "streams": 0}, ValueError, "streams must be >= 1"),
    (6, {**SHARDED, "window": 0}, ValueError, "window must be >= 1"),
    (6, {**SHARDED, **weighted("balanced")}, ValueError, "pass order='samples' with weights"),
    (6, {"labels": LABELS}, ValueError, "labels without weights would be used by nothing"),
    (6, {"num_samples": 6}, ValueError, "num_samples without weights would be used by nothing"),
    (6, {"weights": "balanced"}, ValueError, "weights need the class of every sample; pass labels="),
    (6, weighted("balanced", shuffle=False), ValueError, "got shuffle=False"),
    (6, weighted("equal"), ValueError, "weights must be 'balanced' or a weight for each class, got 'equal'"),
    (6, weighted("balanced", LABELS[:5]), ValueError, "labels must be one for each of 6 samples, got 5"),
    (6, weighted("balanced", [0.5] * 6), TypeError, "labels must be one class for each sample"),
    (6, weighted("balanced", np.zeros((6, 3), int)), TypeError, "labels must be one class for each sample"),
    (6, weighted([1, 1, 0]), ValueError, "the weight of class 2 is 0, so it would never be drawn"),
    (6, weighted({0: 1, 1: 0, 2: 1}), ValueError, "the weight of class 1 is 0"),
    (6, weighted([1, 1, -1]), ValueError, "the weight of class 2 must be a finite number >= 0, got -1"),
    (6, weighted([1, float("nan"), 1]), ValueError, "weights[1] must be a finite number, got nan"),
    (
        6,
        weighted({0: 1, 1: float("inf"), 2: 1}),
        ValueError,
        "the weight of class 1 must be a finite number >= 0, got inf",
    ),
    (6, weighted({0: 1, 1: "a", 2: 1}), TypeError, "the weight of class 1 must be a number"),
    (6, weighted([1, 1]), ValueError, "weights of classes 0 to 1 were given, and labels run from 0 to 2"),
    (6, weighted([1, 1, 1, 1]), ValueError, "weights name class 3, of which there is no sample"),
    (6, weighted({0: 1, 1: 1}), ValueError, "weights have none for class 2"),
    (6, weighted({0: 1, 1: 1, 2: 1, 7: 1}), ValueError, "weights name class 7, of which there is no sample"),
    (6, weighted([0.1] * 6), ValueError, "weights are by class, and 6 were given for 6 samples of 3 classes"),
    (6, weighted({0: 100, 1: 100, 2: 1}), ValueError, "class 2 would have none of the 6 draws of an epoch"),
    (6, weighted("balanced", num_samples=0), ValueError, "num_samples must be in [1, "),
    (
        6,
        weighted("balanced", num_samples=50_000),
        ValueError,
        "class 2 has 1 samples for 16666 draws: more than 4095 repeats",
    ),
    (6, weighted("balanced", views=0), ValueError, "views must be in [1, 4096]"),
]


@pytest.mark.parametrize("kind", [Sampler, BatchSampler])
@pytest.mark.parametrize(("samples", "given", "error", "words"), BAD, ids=[b[3][:50] for b in BAD])
def test_a_bad_argument_is_refused_in_words(kind, samples, given, error, words):
    with pytest.raises(error, match=re.escape(words)):
        kind(samples, **given)


def test_fewer_samples_than_a_step_of_all_ranks_are_refused_or_padded():
    few = {"rank": 7, "world_size": 8}
    with pytest.raises(
        ValueError,
        match=r"an epoch of 100 samples has no whole step of 256 \(8 ranks with batches of 32\); pass drop_last=False",
    ):
        next(iter(BatchSampler(100, 32, **few)))
    (batch,) = BatchSampler(100, 32, drop_last=False, **few)
    assert len(batch) == 32 and not any(k.valid for k in batch) and {k.id for k in batch} <= set(range(100))
    assert [k.valid for b in BatchSampler(100, 32, drop_last=False, rank=3, world_size=8) for k in b] == [True] * 4 + [
        False
    ] * 28


@pytest.mark.parametrize(
    "order", [{}, {"shuffle": False}, {"order": "shards", "shards": [1]}, {"weights": "balanced", "labels": [4]}]
)
def test_one_sample_is_an_epoch(order):
    one = BatchSampler(1, 1, rank=0, world_size=1, **order)
    assert list(one) == list(one) == [[(0, 0)]] and len(one) == 1
    (batch,) = BatchSampler(1, 3, rank=1, world_size=2, drop_last=False, **order)
    assert batch == [(0, 0)] * 3 and not any(k.valid for k in batch)


def test_bad_epochs_are_refused():
    for epoch, error in ((-1, ValueError), (1 << 18, ValueError), (1.5, TypeError), (None, TypeError)):
        with pytest.raises(error, match="epoch must be"):
            Sampler(6).set_epoch(epoch)
    last = Sampler(6)
    last.set_epoch((1 << 18) - 1)
    assert len(list(last)) == 6
    with pytest.raises(ValueError, match="epoch must be in"):
        list(last)


# ---- states

STATE = Sampler(6).state_dict()
CHANGED = [
    (
        {"draws_version": 2},
        "the state has draws_version 2, and this gpuaug knows 1; go on with the gpuaug that saved it",
    ),
    ({"order_version": 0}, "the state has order_version 0, and this gpuaug knows 1"),
    ({"epoch": -1}, "the state's epoch must be in"),
    ({"consumed": -1}, "the state's consumed must be in"),
    ({"seed": 1 << 64}, "the state's seed must be in"),
]


@pytest.mark.parametrize(("change", "words"), CHANGED, ids=[next(iter(c)) for c, _ in CHANGED])
@pytest.mark.parametrize("strict", [True, False])
def test_a_state_that_cannot_be_read_is_refused(change, words, strict):
    with pytest.raises(ValueError, match=re.escape(words)):
        Sampler(6).load_state_dict({**STATE, **change}, strict=strict)


@pytest.mark.parametrize("missing", sorted(STATE))
def test_a_state_that_lacks_something_is_refused(missing):
    with pytest.raises(ValueError, match=f"'{missing}' is missing; pass what state_dict"):
        Sampler(6).load_state_dict({k: v for k, v in STATE.items() if k != missing})


def test_what_is_no_state_is_refused():
    for state in (None, {}, [1], "state"):
        with pytest.raises(ValueError, match="pass what state_dict"):
            Sampler(6).load_state_dict(state)


OTHERS = [
    (Sampler(7), "samples was 6 when the state was saved, and is 7 now"),
    (Sampler(6, shuffle=False), "shuffle was True when the state was saved, and is False now"),
    (Sampler(6, **SHARDED), "order was 'samples' when the state was saved, and is 'shards' now"),
    (Sampler(6, **weighted("balanced")), "draws was None when the state was saved, and is 6 now"),
]


@pytest.mark.parametrize(("other", "words"), OTHERS, ids=[w[:20] for _, w in OTHERS])
def test_a_changed_order_is_refused_by_name_unless_not_strict(other, words):
    with pytest.raises(ValueError, match=re.escape(words) + ".*pass strict=False"):
        other.load_state_dict({**STATE, "consumed": 4})
    before = other.state_dict()
    assert (before["epoch"], before["consumed"]) == (0, 0), "a refused state leaves everything as it was"
    other.load_state_dict({**STATE, "consumed": 4, "seed": 9}, strict=False)
    assert (other.state_dict()["consumed"], other.state_dict()["seed"]) == (4, 9)
    assert other.state_dict()["data"] == before["data"] and len(list(other)) == len(other) - 4


def test_changed_shards_labels_and_weights_are_found_out():
    for given, changed in [
        (SHARDED, {**SHARDED, "shards": [4, 2]}),
        (weighted("balanced"), weighted("balanced", LABELS[::-1])),
        (weighted("balanced", num_samples=60), weighted([1, 1, 2], num_samples=60)),
    ]:
        with pytest.raises(ValueError, match="when the state was saved"):
            Sampler(6, **changed).load_state_dict(Sampler(6, **given).state_dict())


def test_a_state_beyond_a_smaller_data_set_begins_the_next_epoch_if_not_strict():
    small = Sampler(4)
    small.load_state_dict({**STATE, "epoch": 3, "consumed": 5}, strict=False)
    assert len(list(small)) == 4 and small.state_dict()["epoch"] == 5
    with pytest.raises(ValueError, match="the state counts 9 samples of an epoch that has 6"):
        Sampler(6).load_state_dict({**STATE, "consumed": 9})
