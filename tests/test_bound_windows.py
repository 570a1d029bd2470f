"""Calls with what was drawn ahead, as a loader makes them, are bound like others: to the same bits, whatever windows of
the images are there, and nothing is read beyond them."""

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from build import quick
from gpuaug_kernels.calls import BoundCall
from policies import CROP, ENDS, FLIP, JITTER
from torch import Tensor
from waits import CARD, card

import gpuaug as ga
import gpuaug.ahead
import gpuaug.images
from gpuaug.pieces import Pieces
from gpuaug.trace.recipe import Recipe

N, CLASSES = 3, 7
# drawn step by step; then by a recipe that is found; then watched: the next one is bound
BEFORE = 3
WAYS: dict[str, tuple[ga.Transform, ...]] = {
    "weak": (ga.RandomResizedCrop(16), FLIP, *ENDS),
    "moderate": (CROP, FLIP, JITTER, *ENDS, ga.RandomErasing(0.5)),
    "mixed": (ga.RandomResizedCrop(16), *ENDS, ga.CutMix(1.0, CLASSES)),
    "mixed twice": (ga.RandomResizedCrop(16), *ENDS, ga.CutMix(1.0, CLASSES), ga.MixUp(0.7, CLASSES)),
    "middle": (ga.Resize(18), ga.CenterCrop(14), *ENDS),
    "reflected": (ga.RandomCrop((20, 22), 6, True, padding_mode="reflect"), *ENDS),
    "symmetric": (ga.RandomCrop((20, 22), 6, True, padding_mode="symmetric"), FLIP),
    "at the edge": (ga.RandomCrop((20, 22), 6, True, padding_mode="edge"), FLIP),
    "padded": (ga.RandomCrop((20, 22), 6, True, 0.25), FLIP),
    "nearest": (ga.Resize((20, 24), "nearest"), ga.RandomCrop(12), ga.RandomRot90()),
    "then turned": (ga.RandomResizedCrop(16), ga.RandomRotation(20.0, "bilinear")),
}


def photographs(turn: int) -> list[Tensor]:
    """Of other sizes in another turn."""
    made = torch.Generator().manual_seed(turn)
    sizes = [(26 + k + turn, 35 - 2 * k) for k in range(N)]
    return [torch.randint(0, 256, (*s, 3), dtype=torch.uint8, generator=made) for s in sizes]


def decoded(images: list[Tensor], windows: np.ndarray, form: str) -> Any:
    """Windows of images as decoders leave them, or all of them."""
    full = np.array([i.shape[:2] for i in images])
    if form == "whole":
        return ga.Ragged(images, "hwc")
    parts = [i[t : t + h, l : l + w] for i, (t, l, h, w) in zip(images, windows.tolist(), strict=True)]
    if form == "in rows of images":
        return ga.Ragged.windowed(parts, full, windows)
    if form == "in planes":
        return ga.Ragged.windowed([p.permute(2, 0, 1).contiguous().permute(1, 2, 0) for p in parts], full, windows)
    shapes = np.array([p.shape for p in parts])
    return ga.Ragged.of(Pieces.in_turn(torch.cat([p.reshape(-1) for p in parts]), shapes), full, windows)


def given(policy: ga.Policy, turn: int, form: str, room: int = 0) -> ga.Batch:
    """A batch as a loader makes it.  room: how much more is decoded than is read"""
    images = photographs(turn)
    ids = torch.arange(N) + 7 * turn
    found = policy.windows(ids, [i.shape[:2] for i in images], epoch=turn)
    windows = found.windows.copy()
    for (height, width), row in zip([i.shape[:2] for i in images], windows, strict=True):
        top, left = max(row[0] - room, 0), max(row[1] - room, 0)
        far = min(row[0] + row[2] + room, height), min(row[1] + row[3] + room, width)
        row[:] = top, left, far[0] - top, far[1] - left
    labels = torch.rand(N, CLASSES, generator=torch.Generator().manual_seed(turn)) if policy._mixes else None
    return ga.Batch(decoded(images, windows, form), labels, ids, turn, params=found.params)


def bound(policy: ga.Policy) -> int:
    return sum(isinstance(v, BoundCall) for v in policy._recipes.calls.values())


def unbound(policy: ga.Policy, batch: ga.Batch) -> ga.Batch:
    """The same call as one that is never bound: on tables as they were drawn, cut by operations of torch."""
    with mock.patch.object(ga.Policy, "_send_ahead", return_value=None):
        return policy(batch, backend="triton")


def alike(got: ga.Batch, want: ga.Batch) -> None:
    assert got.images.dtype == want.images.dtype and got.images.stride() == want.images.stride()
    assert torch.equal(got.images, want.images)
    assert (got.labels is None) == (want.labels is None)
    assert got.labels is None or torch.equal(got.labels, want.labels)


FORMS = ("in one piece", "in rows of images", "in planes", "whole")
EVERY = [(name, form) for name in WAYS for form in FORMS]


@pytest.mark.parametrize(
    ("name", "form"),
    quick(
        EVERY,
        *(("weak", f) for f in FORMS),
        *((n, "in one piece") for n in ("mixed", "reflected", "nearest", "middle")),
    ),
)
def test_a_bound_call_of_windows_gives_the_bits_of_one_that_is_not(name, form):
    policy = ga.Policy(WAYS[name], seed=2**63 + 5)
    for turn in range(BEFORE + 2):
        batch = given(policy, turn, form, room=turn % 2)
        got = policy(batch, backend="triton")
        if turn >= BEFORE:
            alike(got, unbound(policy, batch))
            whole = batch.replace(images=decoded(photographs(turn), None, "whole"), params=None)
            alike(got, policy(whole, backend="triton"))
    assert sum(isinstance(v, BoundCall) for k, v in policy._recipes.calls.items() if isinstance(k[2], Recipe)) == 1


def test_windows_and_whole_images_of_one_batch_take_turns():
    """What is written for windows is of that call alone."""
    policy = ga.Policy(WAYS["weak"], 3)
    for turn in range(BEFORE + 2):
        batch = given(policy, turn, "in one piece")
        other = batch.replace(images=decoded(photographs(turn), None, "whole"))
        wide = batch.replace(images=given(policy, turn, "in one piece", room=3).images)
        made = [policy(b, backend="triton") for b in (batch, other, wide, other, batch)]
        for one in made[1:]:
            alike(made[0], one)
    assert bound(policy) >= 1


def test_a_bound_call_draws_nothing_and_puts_nothing_together():
    policy = ga.Policy(WAYS["mixed"], 3)
    for turn in range(BEFORE + 1):
        policy(given(policy, turn, "in one piece"), backend="triton")
    assert bound(policy) == 1
    batch = given(policy, 9, "in one piece")
    # whose tables for this backend are drawn when they are first asked for
    want = unbound(policy, batch)
    wrong = mock.Mock(side_effect=AssertionError("more than launches"))
    with mock.patch.object(ga.Policy, "_draw", wrong), mock.patch.object(gpuaug.ahead.Sent, "made", wrong):
        alike(policy(batch, backend="triton"), want)


@pytest.mark.parametrize("name", ["weak", "reflected", "nearest"])
def test_a_bound_call_refuses_what_it_would_read_beyond_a_window(name):
    policy = ga.Policy(WAYS[name], 3)
    for turn in range(BEFORE + 1):
        policy(given(policy, turn, "in one piece"), backend="triton")
    before, batch = bound(policy), given(policy, 5, "in one piece")
    windows = batch.images.windows.copy()
    # at least two pixels are read in one direction
    axis = 0 if windows[1, 2] > 1 else 1
    for side in range(2):
        less = windows.copy()
        less[1, axis] += side
        less[1, 2 + axis] -= 1
        images = decoded(photographs(5), less, "in one piece")
        with pytest.raises(ValueError, match="window 1 must hold what the policy reads of its image"):
            policy(batch.replace(images=images), backend="triton")
    alike(policy(batch, backend="triton"), unbound(policy, batch))
    assert bound(policy) == before == 1


def test_another_number_of_images_is_bound_anew():
    policy = ga.Policy(WAYS["weak"], 3)
    for turn in range(BEFORE + 1):
        for few in (slice(None), slice(0, 2), slice(1, 2)):
            batch = given(policy, turn, "in one piece")[few]
            got = policy(batch, backend="triton")
            alike(got, unbound(policy, batch))
    assert bound(policy) == 3


def test_what_was_drawn_may_be_used_again():
    """A statistic is gathered in zeros of each call's own."""
    policy = ga.Policy((CROP, ga.ColorJitter(contrast=0.4), *ENDS), 3)
    for turn in range(BEFORE + 1):
        batch = given(policy, turn, "in one piece")
        want = unbound(policy, batch)
        for _ in range(2):
            alike(policy(batch, backend="triton"), want)
            alike(unbound(policy, batch), want)


def test_a_capture_repeats_what_a_call_has_sent():
    """Nothing is copied from memory of the host, which may be another's when the graph is replayed."""
    policy = ga.Policy((CROP, ga.ColorJitter(contrast=0.4), *ENDS), 3)
    sizes = [(31, 45), (44, 33), (38, 38)]
    with card() as on:
        on.refuses = False
        for turn in range(3):
            found = policy.windows(torch.arange(N), sizes, epoch=turn, device=CARD)
            parts = [torch.zeros(h, w, 3, dtype=torch.uint8, device=CARD) for _, _, h, w in found.windows.tolist()]
            images = ga.Ragged.windowed(parts, sizes, found.windows)
            ids = torch.zeros(N, dtype=torch.int64, device=CARD)
            batch = ga.Batch(images, ids=ids, epoch=turn, occurrence=ids, params=found.params)
            policy(batch)
        on.refuses = True
        on.work.clear()
        wrong = mock.Mock(side_effect=AssertionError("memory of the host is copied"))
        with (
            mock.patch.object(torch.cuda, "is_current_stream_capturing", return_value=True),
            mock.patch.object(gpuaug.ahead, "put", wrong),
            mock.patch.object(gpuaug.images, "put", wrong),
            mock.patch.object(gpuaug.ahead, "torch", mock.Mock(wraps=torch, empty=wrong)),
        ):
            policy(batch)
        assert "kernel" in on.work, "vacuous"


def test_a_mix_of_samples_of_which_some_are_not_valid_is_bound():
    policy = ga.Policy(WAYS["mixed"], 3)
    for turn in range(BEFORE + 2):
        valid = torch.arange(N) != turn % N
        batch = given(policy, turn, "in one piece")
        batch = batch.replace(valid=valid, params=batch.params.among(valid))
        got = policy(batch, backend="triton")
        alike(got, unbound(policy, batch))
        assert got.labels.sum(1).gt(0).tolist() == valid.tolist()
    assert bound(policy) == 1


def test_samples_that_turn_out_invalid_are_drawn_for_where_that_is_said():
    """By the thread that decodes, and not in the call."""
    policy, sizes = ga.Policy(WAYS["mixed"], 3), [(31, 45), (44, 33), (38, 38)]
    with card() as on:
        on.refuses = False
        for turn in range(3):
            found = policy.windows(torch.arange(N), sizes, epoch=turn, device=CARD)
            params = found.params.among(torch.arange(N) != turn)
            parts = [torch.zeros(h, w, 3, dtype=torch.uint8, device=CARD) for _, _, h, w in found.windows.tolist()]
            images = ga.Ragged.windowed(parts, sizes, found.windows)
            ids, valid = (torch.zeros(N, dtype=d, device=CARD) for d in (torch.int64, torch.bool))
            batch = ga.Batch(images, ids, ids, turn, occurrence=ids, valid=valid, params=params)
            with mock.patch.object(gpuaug.ahead, "_draw", side_effect=AssertionError("it was drawn again")):
                policy(batch)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [1, N])
def test_a_call_tells_a_card_what_is_known_of_its_images(form, n):
    """Odd numbers leave gaps, which nobody reads."""
    policy = ga.Policy(WAYS["weak"], 3)
    for turn in range(BEFORE):
        batch = given(policy, turn, form)[:n]
        policy(batch, backend="triton")
    images = batch.images
    told, parts = dict(images._sent), ("addresses", "size", "pitches", "corners", "places")
    got = [getattr(images, part).clone() for part in parts]
    images._sent.clear()
    assert told and all(map(torch.equal, got, (getattr(images, part) for part in parts)))
    assert images._sent[0] is not told[0], "vacuous"


@pytest.mark.parametrize("kind", ["dense", "rows of a store"])
def test_images_of_one_size_with_what_was_drawn_for_them_are_bound(kind):
    policy = ga.Policy((FLIP, ga.ColorJitter(contrast=0.4), *ENDS), 3)
    for turn in range(BEFORE + 2):
        store = torch.randint(0, 256, (9, 21, 26, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        index = torch.arange(N) + turn
        images = store[index] if kind == "dense" else ga.gathered.Gathered(store, index)
        found = policy.windows(index, (21, 26), epoch=turn)
        batch = ga.Batch(images, ids=index, epoch=turn, params=found.params)
        alike(policy(batch, backend="triton"), unbound(policy, batch))
    assert bound(policy) == 1


@pytest.mark.parametrize("form", ["in one piece", pytest.param("whole", marks=pytest.mark.slow)])
def test_a_bound_call_of_windows_has_its_targets_too(form):
    """Boxes, keypoints and masks follow what was drawn before the images were decoded."""
    policy = ga.Policy((ga.RandomResizedCrop(16), FLIP, ga.RandomRotation(20.0), *ENDS), seed=2**63 + 5)
    for turn in range(BEFORE + 2):
        batch = given(policy, turn, form, room=turn % 2)
        made = torch.Generator().manual_seed(turn)
        near = torch.rand(N, 4, 2, generator=made) * 20
        batch = batch.replace(
            boxes=torch.cat([near, 2 + torch.rand(N, 4, 2, generator=made) * 10], 2),
            box_format="XYWH",
            keypoints=torch.rand(N, 5, 2, generator=made) * 30,
            masks=[torch.randint(0, 2**40, i.shape[:2], generator=made) for i in photographs(turn)],
        )
        got = policy(batch, backend="triton")
        if turn >= BEFORE:
            alike(got, unbound(policy, batch))
            want = policy(batch.replace(images=decoded(photographs(turn), None, "whole"), params=None), backend="cpu")
            for name in ("boxes", "box_valid", "keypoints", "visible", "masks"):
                assert torch.equal(getattr(got, name), getattr(want, name)), name
            assert got.box_valid.any() and not got.visible.all(), "vacuous"
    assert sum(isinstance(v, BoundCall) for k, v in policy._recipes.calls.items() if isinstance(k[2], Recipe)) == 1
