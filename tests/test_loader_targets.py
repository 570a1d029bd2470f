"""Boxes, masks and keypoints of a source go through the loader as they go through a policy, sample by sample, whoever
else is in the batch."""

import io

import loading
import numpy as np
import pytest
import torch
from loading import N, files, loader
from PIL import Image

import gpuaug as ga

POLICY = ga.Policy([ga.RandomResizedCrop(12, scale=(0.3, 1.0)), ga.RandomHorizontalFlip()], seed=4)
BAD = (3, 10, 11, 36)


@pytest.fixture(autouse=True)
def _limit():
    with loading.within(120):
        yield


def size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        return image.height, image.width


def target(i: int, data: bytes) -> dict:
    """None to three boxes and points, and masks of two planes."""
    h, w = size(data)
    count, grid = i % 4, np.random.default_rng(i)
    corner = grid.uniform(0, [w / 2, h / 2], (count, 2))
    boxes = np.concatenate([corner, corner + grid.uniform(2, [w / 2, h / 2], (count, 2))], 1)
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "box_format": "XYXY",
        "keypoints": torch.tensor(corner, dtype=torch.float32).reshape(-1, 2),
        "masks": torch.tensor(grid.integers(0, 3, (2, h, w)), dtype=torch.uint8),
        "labels": i % 5,
    }


def data_set(bad=()) -> list:
    return [(b"no image" if i in bad else data, target(i, data)) for i, data in enumerate(files())]


def alone(i: int, epoch: int, occurrence: int) -> ga.Batch:
    """A sample by itself, without a loader."""
    data = files()[i]
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.array(image.convert("RGB"))
    given = target(i, data)
    lists = {name: [given[name]] for name in ("boxes", "keypoints", "masks")}
    return POLICY(
        ga.Batch(
            [pixels],
            ids=torch.tensor([i]),
            epoch=epoch,
            occurrence=torch.tensor([occurrence]),
            box_format="XYXY",
            **lists,
        )
    )


def compare(batch: ga.Batch) -> int:
    """A loader's batch with its samples alone; how many boxes there are."""
    found = 0
    assert batch.boxes.shape[0] == batch.masks.shape[0] == batch.keypoints.shape[0] == len(batch)
    for k, (i, valid) in enumerate(zip(batch.ids.tolist(), batch.valid.tolist(), strict=True)):
        if not valid:
            assert not batch.box_valid[k].any() and not batch.visible[k].any(), "of a sample that does not count"
            continue
        own, many = alone(i, batch.epoch, int(batch.occurrence[k])), i % 4
        assert torch.equal(batch.images[k], own.images[0]) and torch.equal(batch.masks[k], own.masks[0])
        assert int(batch.labels[k]) == i % 5
        for name, marks in (("boxes", "box_valid"), ("keypoints", "visible")):
            assert torch.equal(getattr(batch, name)[k, :many], getattr(own, name)[0])
            assert torch.equal(getattr(batch, marks)[k, :many].bool(), getattr(own, marks)[0].bool())
            assert not getattr(batch, marks)[k, many:].any()
        found += int(batch.box_valid[k].sum())
    return found


@pytest.mark.parametrize(
    ("bad", "workers"),
    # a process takes seconds to start
    [((), "threads"), (BAD, "threads"), (BAD, "process"), pytest.param((), "process", marks=pytest.mark.slow)],
)
def test_targets_of_different_counts_follow_their_images(bad, workers):
    with loader(data_set(bad), POLICY, 8, drop_last=False, on_error="skip", workers=workers) as one:
        batches = list(one)
    assert sum(map(compare, batches)) > 15, "vacuous"
    assert sum(int(b.valid.sum()) for b in batches) == N - len(bad)
    assert not batches[-1].valid.all(), "vacuous: nothing is padded"


def test_substitutes_bring_their_own_targets():
    with loader(data_set(BAD), POLICY, 8, on_error="substitute", shuffle=False) as one:
        batches = list(one)
    assert sum(map(compare, batches)) > 15 and all(b.valid.all() for b in batches)
    assert not {int(i) for b in batches for i in b.ids} & set(BAD)


def test_a_batch_of_bad_images_alone_has_empty_targets():
    with loader(data_set(range(4)), POLICY, 4, on_error="skip", shuffle=False) as one:
        batch = next(iter(one))
    assert not batch.valid.any() and not batch.box_valid.any() and not batch.masks.any()


def test_samples_without_a_target_have_no_boxes():
    data = [(d, None if i % 3 else t) for i, (d, t) in enumerate(data_set())]
    kept = ("boxes", "box_format", "labels")
    data = [(d, None if t is None else {name: t[name] for name in kept}) for d, t in data]
    with loader(data, POLICY, 6, shuffle=False) as one:
        for batch in one:
            none = batch.ids % 3 != 0
            assert not batch.box_valid[none].any() and not batch.labels[none].any()


def test_formats_that_differ_within_a_batch_are_refused_in_words():
    data = data_set()
    data[2][1]["box_format"] = "XYWH"
    with loader(data, POLICY, 4, shuffle=False) as one, pytest.raises(ValueError, match="box_format holds for a whole"):
        next(iter(one))


@pytest.mark.parametrize("form", [torch.tensor, np.array, list])
def test_labels_of_boxes_stand_where_the_boxes_do(form):
    data = [
        (d, {**{n: t[n] for n in ("boxes", "box_format")}, "labels": form([10 * i + k for k in range(i % 4)])})
        for i, (d, t) in enumerate(data_set())
    ]
    with loader(data, POLICY, 6, shuffle=False, drop_last=False) as one:
        for b in one:
            assert b.labels.shape == b.boxes.shape[:2] and b.labels.dtype == torch.int64
            for i, valid, labels in zip(b.ids.tolist(), b.valid.tolist(), b.labels.tolist(), strict=True):
                assert not valid or labels == [10 * i + k for k in range(i % 4)] + [0] * (len(labels) - i % 4)
