"""On a card, windows give what whole images give, and nothing beside them is read."""

import pytest
import torch
from build import quick
from on_card import DEVICE, pictures, put

import gpuaug as ga

SIZES = ((31, 42), (58, 40), (45, 45), (60, 37), (33, 90), (64, 64), (37, 51))
IDS = torch.arange(len(SIZES)) * 1237
ENDS = (ga.ToDtype(torch.float32, scale=True), ga.Normalize((0.5,) * 3, (0.2,) * 3))
POLICIES = {
    "crop": (ga.RandomResizedCrop(24), ga.RandomHorizontalFlip(), ga.ColorJitter(0.3, 0.3, 0.3, 0.1), *ENDS),
    "middle": (ga.Resize(30), ga.CenterCrop(24), *ENDS),
    "padded": (ga.RandomCrop((30, 30), 6, True, padding_mode="reflect"), ga.RandomErasing(), *ENDS),
    "turned": (ga.RandomRot90(), ga.RandomCrop(30), ga.RandomRotation(20.0, "bilinear")),
    "mixed": (ga.RandomResizedCrop(24), *ENDS, ga.CutMix(num_classes=5)),
}


def poisoned(found: ga.Windows) -> ga.Ragged:
    """The windows one after the other, with poison between them."""
    parts = []
    for image, (t, l, h, w) in zip(pictures(SIZES), found.windows.tolist(), strict=True):
        room = torch.full((h * w * 3 + 6 * w,), 255, dtype=torch.uint8, device=DEVICE)
        part = room[3 * w : 3 * w + h * w * 3].view(h, w, 3)
        parts.append(part.copy_(put(image)[t : t + h, l : l + w]))
    return ga.Ragged.windowed(parts, SIZES, found.windows)


@pytest.mark.parametrize("name", quick(POLICIES, "crop", "padded", "mixed"))
def test_windows_give_what_whole_images_give(name):
    policy = ga.Policy(POLICIES[name], 4)
    whole = ga.Ragged([put(i) for i in pictures(SIZES)], "hwc")
    labels = put(torch.arange(len(SIZES)) % 5) if policy._mixes else None
    for epoch in range(3):
        found = policy.windows(IDS, SIZES, epoch=epoch, device=DEVICE)
        want = policy(ga.Batch(whole, labels, epoch=epoch, params=found.params))
        got = policy(ga.Batch(poisoned(found), labels, epoch=epoch, params=found.params))
        assert torch.equal(got.images, want.images)
        assert labels is None or torch.equal(got.labels, want.labels)
        # drawn on the card, a rectangle may be another by a rounding, and is cut to the window
        drawn = policy(ga.Batch(poisoned(found), labels, put(IDS), epoch)).images
        alike = [bool(torch.allclose(a, b, atol=1e-3)) for a, b in zip(drawn, want.images, strict=True)]
        assert sum(alike) >= len(alike) - 1, alike


def test_who_is_valid_is_known_beforehand():
    policy = ga.Policy(POLICIES["mixed"], 4)
    valid = torch.arange(len(SIZES)) % 3 != 1
    found = policy.windows(IDS, SIZES, epoch=1, device=DEVICE)
    labels = put(torch.arange(len(SIZES)) % 5)
    got = policy(ga.Batch(poisoned(found), labels, epoch=1, valid=put(valid), params=found.params.among(valid)))
    assert torch.allclose(got.labels.sum(1).cpu(), valid.float())
