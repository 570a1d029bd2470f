"""Targets on a CUDA device: nothing makes the host wait, audited without a card."""

import pytest
import torch
from build import build, case, cases, quick, spec
from test_syncs import dense, ragged, watched, whole
from waits import CARD, card

import gpuaug as ga

N = 5
MOVES = [
    p
    for p in cases()
    if p.values[1] == 0
    and spec(p.values[0]).moves
    and not spec(p.values[0]).mixes
    and p.values[0] not in ("AugMix", "ElasticTransform")
]


def targets(height: int = 41, width: int = 41) -> dict[str, object]:
    return {
        "masks": torch.zeros(N, 2, height, width, dtype=torch.int64, device=CARD),
        "boxes": torch.ones(N, 3, 4, device=CARD),
        "box_format": "CXCYWH",
        "keypoints": torch.ones(N, 3, 2, device=CARD),
    }


# targets follow passes, of which many transforms have the same
@pytest.mark.parametrize(("name", "i"), quick([p.values for p in MOVES], *(p.values for p in MOVES[::2])))
def test_targets_of_a_call_wait_for_nothing(name, i):
    with card() as on:
        batch = ga.Batch(dense(41, 41), ids=whole(3), **targets())
        policy = ga.Policy([build(name, case(name, i))])
        watched(lambda: policy(batch), on)


def test_lists_of_targets_wait_for_nothing():
    with card() as on:
        images = ragged()
        given = {
            "masks": [torch.zeros(i.shape[:2], dtype=torch.uint8, device=CARD) for i in images],
            "boxes": [torch.ones(n, 4, device=CARD) for n in range(N)],
            "box_format": "XYXY",
            "visible": [torch.ones(n, dtype=torch.bool, device=CARD) for n in range(N)],
            "keypoints": [torch.ones(n, 2, device=CARD) for n in range(N)],
        }
        policy = ga.Policy([ga.RandomResizedCrop((9, 12)), ga.RandomHorizontalFlip()])
        watched(lambda: policy(ga.Batch(images, ids=whole(3), **given)), on)


def test_what_comes_later_waits_for_nothing():
    policy = ga.Policy([ga.RandomResizedCrop((9, 12)), ga.RandomRotation(30), ga.RandAugment()])
    with card() as on:
        # a first draw copies the table of its words
        on.refuses = False
        params = policy.draw(whole(3), size=(41, 41))
        given = targets()
        watched(lambda: policy.replay(given["masks"], params, like="mask"), on)
        watched(lambda: policy.replay(given["boxes"], params, like="boxes", box_format="XYXY"), on)
        watched(lambda: policy.replay(given["keypoints"], params, like="points"), on)
        watched(lambda: policy.replay(dense(41, 41), params, like="image"), on)
        watched(lambda: policy.undo(dense(9, 12), params), on)


def test_views_and_videos_wait_for_nothing():
    policy = ga.Policy([ga.RandomCrop((9, 12)), ga.RandomHorizontalFlip(), ga.GaussianNoise()])
    crops, five = ga.MultiCrop(1, 2, (9, 5)), ga.Policy([ga.FiveCrop(7)])
    mixing = ga.Policy([ga.CutMix(num_classes=5)])
    with card() as on:
        video = dense(21, 22)[:, None].expand(-1, 3, -1, -1, -1).contiguous()
        labels = whole(0)
        bytes_too = dense(21, 22, dtype=torch.uint8)
        for x in (dense(21, 22), bytes_too, video):
            watched(lambda x=x: policy.views(x, n=2, ids=whole(3)), on)
        watched(lambda: crops(ga.Ragged(ragged()), ids=whole(3)), on)
        watched(lambda: five(dense(21, 22)), on)
        watched(lambda: policy(video, ids=whole(3), per_frame=True), on)
        watched(lambda: mixing(video, labels, ids=whole(3)), on)
