"""A sample that is not valid takes no part in its batch: whatever stands in its place, the others come out the same."""

import numpy as np
import pytest
import torch
from build import build, case, cases, spec
from waits import CARD, card

import gpuaug as ga

BACKENDS = ("reference", "cpu", "triton")
N = 6
IDS = torch.tensor([3, 1, 4, 15, 9, 26])
VALID = torch.tensor([True, False, True, True, False, True])
BAD = (~VALID).nonzero()[:, 0]
NOISE = np.random.default_rng(0)
X = torch.from_numpy(NOISE.integers(0, 256, (N, 3, 20, 24), np.uint8))
LABELS = torch.tensor([0, 1, 2, 3, 4, 1])
FLOAT = ga.ToDtype(torch.float32, scale=True)
MIXES: dict[str, list[ga.Transform]] = {
    "a cut": [ga.CutMix(num_classes=5)],
    "a cut of crops": [ga.RandomResizedCrop((10, 12)), ga.CutMix(num_classes=5), ga.ColorJitter(0.3, 0.3)],
    "two cuts": [ga.CutMix(num_classes=5), ga.RandomHorizontalFlip(), ga.CutMix(0.5, num_classes=5)],
    "a cut for some": [ga.RandomApply([ga.CutMix(num_classes=5), ga.RandomInvert()], 0.7)],
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MIXES)
def test_what_stands_in_the_place_of_an_invalid_sample_is_not_seen(name, backend):
    other = X.clone()
    other[BAD] = 255 - X[BAD]
    policy = ga.Policy([*MIXES[name], FLOAT], 3)
    mixed = 0.0
    # the third by a recipe
    for epoch in range(1 if backend == "triton" else 3):
        labels = LABELS.clone()
        # no class: a sample without an image may have no label either
        labels[BAD] = -1
        a, b = (
            policy(ga.Batch(x, y, IDS, epoch, valid=VALID), backend=backend) for x, y in ((X, LABELS), (other, labels))
        )
        assert torch.equal(a.images[VALID], b.images[VALID]) and torch.equal(a.labels, b.labels)
        assert torch.allclose(a.labels.sum(1), VALID.float()) and torch.equal(a.valid, VALID)
        seen = policy(ga.Batch(other, LABELS, IDS, epoch), backend=backend).images
        mixed += float((seen[VALID] != b.images[VALID]).any())
    assert mixed or backend == "triton", "vacuous: no sample would have had an invalid partner"


def test_who_would_get_an_invalid_partner_is_its_own_and_others_keep_theirs():
    policy = ga.Policy([ga.CutMix(num_classes=5)], 3)
    changed = 0
    for epoch in range(8):
        before = policy.draw(IDS, epoch=epoch, size=(20, 24))[0]["partner"]
        after = policy.draw(IDS, epoch=epoch, size=(20, 24), valid=VALID)[0]["partner"]
        own = torch.arange(N)
        assert torch.equal(after, torch.where(VALID & VALID[before], before, own))
        changed += int((before != after).sum())
        batch = ga.Batch(X, LABELS, IDS, epoch, valid=VALID)
        params = policy.draw(IDS, epoch=epoch, size=(20, 24), valid=VALID)
        want = policy(batch)
        got = policy.replay(batch, params, LABELS)
        assert torch.equal(got[0], want.images) and torch.equal(got[1], want.labels)
    assert changed, "vacuous"


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(("name", "i"), [c for c in cases() if not spec(c.values[0]).mixes][::7])
def test_validity_changes_no_image_where_nothing_mixes(name, i, backend):
    policy = ga.Policy([ga.Resize((41, 53)), FLOAT, build(name, case(name, i))], 3)
    a = policy(ga.Batch(X, LABELS, IDS, 1, valid=VALID), backend=backend)
    assert torch.equal(a.images, policy(X, ids=IDS, epoch=1, backend=backend)) and torch.equal(a.labels, LABELS)


def test_soft_rows_of_invalid_samples_are_zeros_and_class_numbers_stay():
    policy = ga.Policy([ga.RandomHorizontalFlip()])
    rows = torch.eye(5)[LABELS]
    rows[1] = torch.nan
    got = policy(ga.Batch(X, rows, IDS, valid=VALID)).labels
    assert torch.equal(got[VALID], rows[VALID]) and not got[BAD].any()
    assert torch.equal(policy(ga.Batch(X, LABELS, IDS, valid=VALID)).labels, LABELS)
    many = torch.ones(N, 4, dtype=torch.int64)
    assert torch.equal(policy(ga.Batch(X, many, IDS, valid=VALID)).labels, many)


@pytest.mark.parametrize("valid", [torch.ones(N, dtype=torch.bool), torch.zeros(N, dtype=torch.bool)])
def test_all_may_be_valid_and_none(valid):
    policy = ga.Policy([ga.CutMix(num_classes=5)], 3)
    got = policy(ga.Batch(X, LABELS, IDS, 0, valid=valid))
    if valid.all():
        want = policy(X, LABELS, ids=IDS, epoch=0)
        assert torch.equal(got.images, want[0]) and torch.equal(got.labels, want[1])
    else:
        assert torch.equal(got.images, X) and not got.labels.any()


@pytest.mark.parametrize(
    ("valid", "match"),
    [
        (torch.ones(N), r"valid must be \[6\] bool, one per image, got torch.float32"),
        (torch.ones(3, dtype=torch.bool), r"valid must be \[6\] bool"),
        ([1, 0, 1, 1, 0, 1], "bool"),
        ("all", "valid must"),
    ],
)
def test_what_says_nothing_about_every_sample_is_refused(valid, match):
    with pytest.raises((ValueError, TypeError), match=match):
        ga.Policy([ga.RandomInvert()])(ga.Batch(X, LABELS, IDS, valid=valid))


def test_validity_may_be_a_list_or_an_array():
    policy = ga.Policy([ga.CutMix(num_classes=5)], 3)
    want = policy(ga.Batch(X, LABELS, IDS, 0, valid=VALID))
    for valid in (VALID.tolist(), VALID.numpy()):
        assert torch.equal(policy(ga.Batch(X, LABELS, IDS, 0, valid=valid)).labels, want.labels)


def test_validity_is_taken_apart_with_the_batch():
    batch = ga.Batch(X, LABELS, IDS, 0, valid=VALID)
    assert torch.equal(batch[1:3].valid, VALID[1:3]) and torch.equal(batch[VALID].valid, VALID[VALID])
    assert "valid=bool[6]" in repr(batch) and torch.equal(batch.to("cpu").pin_memory().valid, VALID)
    policy = ga.Policy([ga.CutMix(num_classes=5)], 3)
    for n in range(N):
        got = policy(batch[n])
        assert bool(got.valid) == bool(VALID[n]) and torch.equal(got.labels, torch.eye(5)[LABELS[n]] * VALID[n])


# ---- what was drawn ahead

SIZES = [(31, 45), (44, 33), (38, 38), (25, 61), (40, 40), (52, 33)]
IMAGES = [torch.from_numpy(NOISE.integers(0, 256, (h, w, 3), np.uint8)) for h, w in SIZES]
POLICY = ga.Policy([ga.RandomResizedCrop((10, 12)), FLOAT, ga.CutMix(num_classes=5)], 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_samples_that_turn_out_invalid_after_the_draw_take_no_part(backend):
    for epoch in range(1 if backend == "triton" else 3):
        found = POLICY.windows(IDS, SIZES, epoch=epoch)
        images = [
            i[t : t + h, l : l + w].clone() if ok else torch.zeros(h, w, 3, dtype=torch.uint8)
            for i, (t, l, h, w), ok in zip(IMAGES, found.windows.tolist(), VALID, strict=True)
        ]
        given = ga.Batch(ga.Ragged.windowed(images, SIZES, found.windows), LABELS, IDS, epoch, valid=VALID)
        want = POLICY(ga.Batch(ga.Ragged(IMAGES, "hwc"), LABELS, IDS, epoch, valid=VALID), backend=backend)
        told = [found.params, found.params.among(VALID), found.params.among(~VALID)]
        batches = [given.replace(params=params) for params in told]
        # the interpreter takes its time
        for batch in batches[:1] if backend == "triton" else [*batches, batches[0].to("cpu").pin_memory()]:
            got = POLICY(batch, backend=backend)
            assert torch.equal(got.images[VALID], want.images[VALID]) and torch.equal(got.labels, want.labels)
        alike = POLICY(given.replace(valid=None, params=found.params.among(VALID)), backend=backend)
        assert torch.equal(alike.labels, POLICY(given.replace(valid=None), backend=backend).labels)


def test_a_card_must_be_told_beforehand_who_is_valid_and_nobody_waits():
    def batch(found: ga.Windows, params: object) -> ga.Batch:
        parts = [torch.zeros(h, w, 3, dtype=torch.uint8, device=CARD) for _, _, h, w in found.windows.tolist()]
        zeros = torch.zeros(N, dtype=torch.int64, device=CARD)
        valid = torch.zeros(N, dtype=torch.bool, device=CARD)
        images = ga.Ragged.windowed(parts, SIZES, found.windows)
        return ga.Batch(images, zeros, zeros, 0, valid=valid, params=params)

    with card() as on:
        found = POLICY.windows(IDS, SIZES, epoch=0, device=CARD)
        for refuses in (False, True):
            on.refuses = refuses
            POLICY(batch(found, found.params.among(VALID)))
            POLICY(batch(found, found.params.among(torch.ones(N, dtype=torch.bool))))
            POLICY(batch(found, None))
        given = batch(found, found.params)
        with pytest.raises(ValueError, match="params must be told which samples are valid"):
            POLICY(given)


# ---- what stands in the place of an image that is not there


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(
    "transforms",
    [
        [ga.RandomCrop(20)],
        [ga.RandomCrop(30, 9, padding_mode="reflect")],
        [ga.Pad(24, padding_mode="reflect"), ga.CenterCrop(30)],
        [ga.Resize(24), ga.RandomCrop(20)],
        [ga.RandomResizedCrop(12)],
    ],
)
def test_a_black_image_of_the_size_of_another_is_always_taken(transforms, backend):
    policy = ga.Policy([*transforms, ga.CutMix(num_classes=5)], 3)
    black = torch.zeros(1, 1, 1, dtype=torch.uint8)
    images = [i if ok else black.expand(*SIZES[0], 3) for i, ok in zip(IMAGES, VALID, strict=True)]
    got = policy(ga.Batch(ga.Ragged(images, "hwc"), LABELS, IDS, 0, valid=VALID), backend=backend)
    assert not got.images[BAD].any() and not got.labels[BAD].any() and got.images[VALID].any()


def test_a_pixel_in_the_place_of_an_image_is_refused_as_any_image_of_that_size():
    images = [i if ok else torch.zeros(1, 1, 3, dtype=torch.uint8) for i, ok in zip(IMAGES, VALID, strict=True)]
    batch = ga.Batch(ga.Ragged(images, "hwc"), LABELS, IDS, 0, valid=VALID)
    with pytest.raises(ValueError, match=r"larger than the padded image \(1, 1\)"):
        ga.Policy([ga.RandomCrop(20)])(batch)
    assert ga.Policy([ga.RandomResizedCrop(12)])(batch).images.shape == (N, 3, 12, 12)
