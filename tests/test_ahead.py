"""What was drawn for windows is what the call uses, on any backend, and is refused where it belongs to something else."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
import pytest
import torch
from waits import CARD, card

import gpuaug as ga
from gpuaug import drawn

BACKENDS = ("reference", "cpu", "triton")
SIZES = [(31, 45), (44, 33), (38, 38), (25, 61)]
N = len(SIZES)
IDS = torch.tensor([3, 1, 4, 15])
NOISE = np.random.default_rng(0)
IMAGES = [torch.from_numpy(NOISE.integers(0, 256, (h, w, 3), np.uint8)) for h, w in SIZES]
LABELS = torch.tensor([0, 2, 1, 1])
CROP = ga.RandomResizedCrop((10, 12))
ENDS = (ga.ToDtype(torch.float32, scale=True), ga.Normalize((0.5,) * 3, (0.2,) * 3))
POLICY = ga.Policy([CROP, ga.RandomHorizontalFlip(), ga.ColorJitter(0.3, 0.3), *ENDS, ga.CutMix(num_classes=3)], 7)


def decoded(found: ga.Windows) -> ga.Ragged:
    parts = [i[t : t + h, l : l + w] for i, (t, l, h, w) in zip(IMAGES, found.windows.tolist(), strict=True)]
    return ga.Ragged.windowed(parts, SIZES, found.windows)


def batch(epoch: int = 2, policy: ga.Policy = POLICY, **more) -> ga.Batch:
    found = policy.windows(IDS, SIZES, epoch=epoch)
    return ga.Batch(decoded(found), LABELS, **{"ids": IDS, "epoch": epoch, "params": found.params, **more})


def whole(epoch: int = 2, **more) -> ga.Batch:
    return ga.Batch(ga.Ragged(IMAGES, "hwc"), LABELS, **{"ids": IDS, "epoch": epoch, **more})


def equal(a: ga.Batch, b: ga.Batch) -> bool:
    return torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and torch.equal(a.ids, b.ids)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_call_uses_what_was_drawn_for_the_windows_and_draws_nothing(backend):
    for epoch in range(3):
        given = batch(epoch)
        # as prepared for another backend it is prepared again, from the same keys
        want = POLICY(whole(epoch), backend=backend)
        POLICY(given, backend=backend)
        with mock.patch.object(ga.Policy, "_draw", side_effect=AssertionError("it was drawn again")):
            got = POLICY(given, backend=backend)
        assert equal(got, want) and got.params is None and int(got.epoch) == epoch


def test_the_numbers_of_samples_come_with_what_was_drawn():
    given = batch().replace(ids=None, epoch=None)
    got = POLICY(given)
    assert equal(got, POLICY(whole())) and int(got.epoch) == 2 and int(POLICY.next_id) == 0


@pytest.mark.parametrize("key", [None, 2**63 + 5])
def test_the_key_of_a_process_and_occurrences_count(key):
    occurrence = torch.tensor([0, 3, 1, 0])
    found = POLICY.windows(IDS, SIZES, epoch=1, occurrence=occurrence, key=key)
    want = POLICY(whole(1, occurrence=occurrence, key=key))
    got = POLICY(ga.Batch(decoded(found), LABELS, IDS, 1, occurrence, key, params=found.params))
    assert equal(got, want) and torch.equal(got.occurrence, occurrence) and got.key == key
    other = POLICY.windows(IDS, SIZES, epoch=1)
    assert not np.array_equal(found.windows, other.windows)


@pytest.mark.parametrize(
    "form", [list, np.asarray, lambda v: np.asarray(v, np.uint64), lambda v: torch.as_tensor(v).int()]
)
def test_ids_and_sizes_may_come_in_any_form(form):
    want = POLICY.windows(IDS, SIZES, epoch=2)
    got = POLICY.windows(form(IDS.tolist()), form(SIZES), epoch=2)
    assert np.array_equal(got.windows, want.windows)
    assert POLICY.windows(form(IDS.tolist()), (40, 50)).windows.shape == (N, 4)


def test_windows_of_nobody_are_none():
    found = POLICY.windows([], torch.zeros(0, 2, dtype=torch.int64))
    assert found.windows.shape == (0, 4) and len(found.params) == 0


def test_windows_and_what_was_drawn_print_no_numbers_of_many_samples():
    found = POLICY.windows(IDS, SIZES, epoch=2)
    assert "samples=4" in repr(found) and "% of the pixels" in repr(found)
    assert repr(found.params) == "DrawnAhead(samples=4, epoch=2)" and "DrawnAhead" in repr(batch())


def test_sizes_that_the_policy_refuses_are_refused():
    with pytest.raises(ValueError, match="larger than the padded image"):
        ga.Policy([ga.RandomCrop(40)]).windows(IDS, SIZES)
    with pytest.raises(ValueError, match="one size"):
        ga.Policy([ga.ColorJitter(0.1)]).windows(IDS, SIZES)
    with pytest.raises(ValueError, match="different sizes"):
        ga.Policy([ga.RandomRot90()]).windows(IDS, SIZES)


WRONG = {
    "another policy": (lambda: ga.Policy([*POLICY.transforms[:-1], ga.CutMix(0.5, 3)], 7), {}, "of this policy"),
    "another seed": (lambda: ga.Policy(POLICY.transforms, 8), {}, "of this policy"),
    "fewer images": (lambda: POLICY, {"images": ga.Ragged(IMAGES[:3], "hwc"), "labels": LABELS[:3], "ids": IDS[:3]}, "this batch"),
    "other sizes": (lambda: POLICY, {"images": ga.Ragged(IMAGES[::-1], "hwc")}, "of images of these sizes, got image 0"),
    "other channels": (lambda: POLICY, {"images": ga.Ragged([i[:, :, :1] for i in IMAGES], "hwc")}, "these sizes"),
    "images of one size": (lambda: POLICY, {"images": torch.zeros(N, 3, 30, 30)}, "these sizes"),
    "other ids": (lambda: POLICY, {"ids": IDS.flip(0)}, "the same ids"),
    "another epoch": (lambda: POLICY, {"epoch": 3}, "the same epoch, got 3, drawn for 2"),
    "another epoch, a tensor": (lambda: POLICY, {"epoch": torch.tensor(3)}, "the same epoch"),
    "other occurrences": (lambda: POLICY, {"occurrence": torch.ones(N, dtype=torch.int64)}, "the same occurrence"),
    "another key": (lambda: POLICY, {"key": 5}, "the same key"),
    "a dict": (lambda: POLICY, {"params": {"top": 1}}, "those of Policy.windows"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_was_drawn_for_something_else_is_refused(name):
    policy, changes, match = WRONG[name]
    with pytest.raises((ValueError, TypeError), match=f"params.*{match}"):
        policy()(batch().replace(**changes))


def test_an_equal_policy_and_a_pickled_one_take_what_was_drawn():
    given = batch()
    for policy in (ga.Policy(POLICY.transforms, 7), pickle.loads(pickle.dumps(POLICY))):
        assert equal(policy(given), POLICY(whole()))
    other = pickle.loads(pickle.dumps(given))
    assert equal(POLICY(other), POLICY(whole()))


@pytest.mark.parametrize("index", [slice(1, 3), [2, 0], torch.tensor([False, True, True, False])])
def test_a_part_of_a_batch_takes_its_part_of_what_was_drawn(index):
    assert equal(POLICY(batch()[index]), POLICY(whole()[index]))


def test_one_sample_of_a_batch_takes_its_part_too():
    found = POLICY.windows(IDS, SIZES, epoch=2)
    given = ga.Batch(ga.Ragged(IMAGES, "hwc"), LABELS, IDS, 2, params=found.params)
    got = POLICY(given[-1])
    assert torch.equal(got.images, POLICY(whole()[-1]).images) and len(given[1].params) == 1


def test_a_loader_draws_in_a_thread_while_the_loop_augments():
    policy = ga.Policy(POLICY.transforms, 7)
    with ThreadPoolExecutor(2) as pool:
        made = [pool.submit(batch, epoch, policy) for epoch in range(12)]
        got = [policy(m.result()) for m in made]
    assert all(equal(g, POLICY(whole(epoch))) for epoch, g in enumerate(got))


def test_what_a_loader_writes_into_its_tensors_changes_nothing_that_was_drawn():
    ids, sizes = IDS.clone(), torch.tensor(SIZES)
    found = POLICY.windows(ids, sizes, epoch=2)
    given = decoded(found)
    ids += 1
    sizes += 1
    assert equal(POLICY(ga.Batch(given, LABELS, IDS, 2, params=found.params)), POLICY(whole()))


def test_a_warmup_takes_a_batch_with_what_was_drawn():
    given = batch()
    want = POLICY(given).images
    assert POLICY.warmup(given) is POLICY and torch.equal(POLICY(batch()).images, want)


def test_a_replay_takes_windows_with_the_parameters_of_a_draw():
    params = POLICY.draw(IDS, epoch=2, size=torch.tensor(SIZES))
    found = POLICY.windows(IDS, SIZES, epoch=2)
    assert torch.equal(POLICY.replay(decoded(found), params), POLICY.replay(ga.Ragged(IMAGES, "hwc"), params))


@pytest.mark.parametrize("backend", BACKENDS)
def test_tables_travel_in_one_piece_and_are_the_same_there(backend):
    found = POLICY.windows(IDS, SIZES, epoch=2)
    made = POLICY._prepared_ahead(found.params, backend, decoded(found))
    kinds, there = [], []
    drawn.mapped(made, lambda t: (kinds.append(t), t)[1])
    drawn.mapped(drawn.sent(made, torch.device("cpu")), lambda t: (there.append(t), t)[1])
    assert len(kinds) == len(there) > 3 and all(map(torch.equal, kinds, there))
    assert len({t.untyped_storage().data_ptr() for t in there}) == 1


# ---- on a card


def on_the_card(found: ga.Windows, **more) -> ga.Batch:
    parts = [torch.zeros(h, w, 3, dtype=torch.uint8, device=CARD) for _, _, h, w in found.windows.tolist()]
    images = ga.Ragged.windowed(parts, SIZES, found.windows)
    zeros = torch.zeros(N, dtype=torch.int64, device=CARD)
    return ga.Batch(images, **{"labels": zeros, "ids": zeros, "epoch": 2, "params": found.params, **more})


def test_a_card_is_sent_what_the_host_drew_and_nobody_waits():
    with card() as on:
        found = [POLICY.windows(IDS, SIZES, epoch=2, device=CARD) for _ in range(3)]
        on.refuses = False
        POLICY(on_the_card(found[0]))
        on.refuses = True
        given = on_the_card(found[1])
        on.work.clear()
        got = POLICY(given)
        assert got.images.device == CARD and got.images.shape == (N, 3, 10, 12)
        # nothing is drawn there
        assert on.work.count("kernel") <= 5, on.work
        # for its images, in one piece
        assert ("triton", CARD) not in found[2].params.to(CARD).made
        POLICY(on_the_card(found[2]))


def test_what_no_recipe_has_drawn_may_be_sent_beforehand():
    """By a thread of a loader, of the first batch of a policy."""
    policy = ga.Policy(POLICY.transforms, 7)
    with card() as on:
        found = policy.windows(IDS, SIZES, epoch=2, device=CARD)
        assert ("triton", CARD) in found.params.to(CARD).made
        on.work.clear()
        policy(on_the_card(found))
        assert on.work.count("kernel") <= 5, on.work


def test_windows_without_what_was_drawn_make_nobody_wait_on_a_card():
    with card() as on:
        found = POLICY.windows(IDS, SIZES, epoch=2)
        for refuses in (False, True):
            on.refuses = refuses
            POLICY(on_the_card(found, params=None))


def test_whole_images_are_asked_for_without_a_wait_on_a_card():
    policy = ga.Policy([ga.ColorJitter(0.4)])
    found = policy.windows(IDS, (31, 45))
    with card():
        parts = [torch.zeros(9, 9, 3, dtype=torch.uint8, device=CARD) for _ in range(N)]
        images = ga.Ragged.windowed(parts, [(31, 45)] * N, [(0, 0, 9, 9)] * N)
        ids = torch.zeros(N, dtype=torch.int64, device=CARD)
        with pytest.raises(ValueError, match="whole"):
            policy(images, ids=ids)
    assert found.windows.tolist() == [[0, 0, 31, 45]] * N
