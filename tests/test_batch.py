"""A Batch travels, is indexed and printed; labels, ids and epochs may have every dtype of integers; what lies among
pixels is no label."""

import pickle
from dataclasses import fields

import numpy as np
import pytest
import torch
from build import build, case, cases, spec
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors

import gpuaug as ga

N = 5
X = torch.randint(0, 256, (N, 3, 12, 11), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MANY = [X[0], X[1, :, :9], X[2, :, 2:, :8], X[3], X[4, :, :, 3:]]
IDS = torch.tensor([3, 1, 2**40, 7, 9])
FLIP = ga.Policy([ga.RandomCrop(6), ga.RandomHorizontalFlip(), ga.ColorJitter(0.3)], seed=1)
INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64)


def whole(images: object = X) -> ga.Batch:
    return ga.Batch(images, labels=torch.arange(N), ids=IDS, epoch=3, occurrence=torch.zeros(N, dtype=torch.int64))


# ---- a Batch as a container

KINDS = {"tensor": lambda: X, "list": lambda: MANY, "ragged": lambda: ga.Ragged(MANY), "array": lambda: X.numpy(), "PIL": lambda: [
    Image.fromarray(i.permute(1, 2, 0).numpy()) for i in MANY
]}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_takes_the_same_rows_of_all_that_belongs_to_samples(kind):
    batch = whole(KINDS[kind]())
    out = FLIP(batch)
    assert len(batch) == N
    for index, rows in (
        (slice(1, 4), [1, 2, 3]),
        (torch.tensor([4, 0, 0]), [4, 0, 0]),
        ([2, 1], [2, 1]),
        (np.array([3, -1]), [3, 4]),
        (torch.tensor([True, False, True, True, False]), [0, 2, 3]),
        (np.array([False, False, True, False, True]), [2, 4]),
        ([False, True, False, False, False], [1]),
    ):
        part = batch[index]
        assert (
            isinstance(part, ga.Batch)
            and len(part) == len(rows)
            and part.epoch == 3
            and torch.equal(part.labels, torch.tensor(rows))
        )
        assert torch.equal(FLIP(part).images, out.images[rows])
    for n, sample in enumerate(batch):
        assert int(sample.labels) == n and sample.labels.ndim == sample.ids.ndim == 0
        assert torch.equal(FLIP(sample).images, out.images[n])
        assert torch.equal(FLIP(batch[n - N]).images, out.images[n])
    assert len(list(batch)) == N
    for wrong in (N, -N - 1, [True] * 3, [0.5], "a", torch.tensor([[1]])):
        with pytest.raises((IndexError, TypeError, ValueError)):
            batch[wrong]


def test_an_index_takes_rows_of_unsigned_integers():
    batch = ga.Batch(X.to(torch.uint16), labels=torch.arange(N).to(torch.uint32), ids=IDS.to(torch.uint64))
    for index in ([2, 1], torch.tensor([False, True, True, False, False]), torch.tensor([1, 2])):
        part = batch[index]
        assert (
            part.images.dtype == torch.uint16
            and part.labels.dtype == torch.uint32
            and sorted(part.ids.tolist()) == [1, 2**40]
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_travels_whole(kind):
    batch = whole(KINDS[kind]())
    there = batch.to("meta", non_blocking=True)
    assert there.images.device.type == "meta" and len(there) == N
    for f in fields(ga.Batch):
        value = getattr(there, f.name)
        assert not isinstance(value, torch.Tensor) or value.device.type == "meta", f.name
    for same in (batch.to("cpu"), batch.to(torch.device("cpu")), batch.pin_memory(), pickle.loads(pickle.dumps(batch))):
        assert torch.equal(FLIP(same).images, FLIP(batch).images) and torch.equal(same.ids, batch.ids)
    one = batch[1].to("meta").images
    assert one.device.type == "meta" and (not isinstance(one, torch.Tensor) or one.ndim == 3)


def test_pinning_reaches_every_tensor(monkeypatch):
    """As a GPU has it: here a pinned tensor is one that counts."""
    pinned = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    whole().pin_memory()
    assert len(pinned) == 4
    pinned.clear()
    ga.Batch(MANY).replace(images=X, epoch=torch.tensor(3)).pin_memory()
    assert len(pinned) == 2


class Loaded(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, n: int):
        return torch.full((12 + n, 9, 3), n, dtype=torch.uint8), n


def collate(samples):
    images, labels = zip(*samples, strict=True)
    return ga.Batch(ga.Ragged(images), labels=torch.tensor(labels), ids=torch.tensor(labels))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_comes_out_of_a_loader(workers):
    loader = DataLoader(Loaded(), batch_size=4, collate_fn=collate, num_workers=workers)
    seen = [b for b in loader]
    assert [type(b) for b in seen] == [ga.Batch] * 2 and [type(b.images) for b in seen] == [ga.Ragged] * 2
    out = ga.Policy([ga.Resize((4, 4))])(seen[1])
    assert out.images[:, 0, 0, 0].tolist() == [4, 5, 6, 7]
    pin = torch.utils.data._utils.pin_memory.pin_memory
    assert isinstance(pin(seen[0]), ga.Batch) and isinstance(pin([seen[0], 3])[0].images, ga.Ragged)


def test_a_batch_is_moved_as_lightning_moves_one():
    """It moves whatever has `to`, by that alone, and takes no dataclass apart that is frozen; a size it looks for in
    fields, but where it can iterate."""
    from collections.abc import Iterable, Mapping, Sequence

    batch = whole()
    assert callable(getattr(type(batch), "to", None)) and callable(getattr(ga.Ragged, "to", None))
    assert isinstance(batch.to(torch.device("meta")), ga.Batch), "a move that gives None is taken for none"
    assert not isinstance(batch, Iterable | Mapping | Sequence) and not isinstance(
        ga.Ragged(MANY), Iterable | Mapping | Sequence
    )
    assert next(getattr(batch, f.name).size(0) for f in fields(batch)) == N


def test_a_repr_is_short_and_looks_at_nothing():
    big = ga.Batch(
        torch.zeros(256, 3, 64, 64), labels=torch.zeros(256, 10), ids=torch.arange(256), epoch=torch.tensor(3)
    )
    assert repr(big) == "Batch(images=float32[256, 3, 64, 64], labels=float32[256, 10], ids=int64[256], epoch=int64[])"
    assert repr(big.to("meta")).count("on meta") == 4
    assert repr(ga.Batch(MANY)) == "Batch(images=list of 5)" and "Ragged(5 images" in repr(whole(ga.Ragged(MANY)))


# ---- integers


def of(values: torch.Tensor, dtype: torch.dtype, way: str):
    given = values.to(dtype)
    return (
        given
        if way == "tensor"
        else given.numpy()
        if way == "array"
        else given.numpy().astype(given.numpy().dtype.newbyteorder(">"))
    )


@pytest.mark.parametrize("way", ["tensor", "array", "array of the other byte order"])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_ids_occurrences_epochs_and_labels_are_any_integers(dtype, way):
    ids, times = torch.tensor([3, 1, 100, 7, 9]), torch.tensor([0, 1, 0, 2, 0])
    mixing = ga.Policy([ga.RandomCrop(6), ga.CutMix(1.0, 6)], seed=3)
    want = mixing(X, torch.arange(N), ids=ids, epoch=4, occurrence=times)
    given = {"ids": of(ids, dtype, way), "occurrence": of(times, dtype, way), "epoch": of(torch.tensor(4), dtype, way)}
    got = mixing(X, of(torch.arange(N), dtype, way), **given)
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
    out = mixing(ga.Batch(X, labels=of(torch.arange(N), dtype, way), **given))
    assert torch.equal(out.images, want[0]) and out.ids.dtype == out.occurrence.dtype == torch.int64
    params = mixing.draw(given.pop("ids"), size=(12, 11), **given)
    assert torch.equal(mixing.replay(X, params), want[0])
    plain = FLIP(X, of(torch.arange(N), dtype, way), ids=ids)[1]
    assert plain.dtype == dtype and plain.tolist() == list(range(N)), "labels that nothing mixes stay as they are"
    partner = of(torch.tensor([1, 2, 3, 4, 0]), dtype, way)
    assert torch.equal(ga.functional.mixup(X, partner, torch.ones(N)), X)
    assert (
        ga.functional.salt_and_pepper(
            X, 0.1, seed=0, ids=of(ids, dtype, way), epoch=of(torch.tensor(4), dtype, way)
        ).shape
        == X.shape
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ids", np.array([2**63] * N, np.uint64), f"ids must be in .*got {2**63} to {2**63}"),
        ("ids", torch.tensor([2**64 - 1] * N, dtype=torch.uint64), f"got {2**64 - 1}"),
        ("ids", [2**70] * N, f"ids must be in .*got {2**70}"),
        ("ids", [2**63] * N, f"got {2**63}"),
        ("ids", np.array([-1] * N, np.int8), "got -1"),
        ("occurrence", np.array([5000] * N, np.uint16), "got 5000"),
        ("epoch", np.array(2**18, np.uint32), str(2**18)),
        ("epoch", torch.tensor(2**63, dtype=torch.uint64), str(2**63)),
        ("epoch", torch.tensor(1.0), "float32"),
        ("epoch", np.array(1.5), "1.5"),
        ("labels", np.array([7] * N, np.uint16), r"labels must be in \[0, 6\), got 7 to 7"),
        ("labels", torch.tensor([2**63] * N, dtype=torch.uint64), f"got {2**63}"),
    ],
)
def test_integers_that_do_not_fit_are_said(name, value, words):
    given = {"labels": torch.arange(N), name: value}
    with pytest.raises((TypeError, ValueError), match=words):
        ga.Policy([ga.CutMix(1.0, 6)])(X, **given)


def test_an_empty_list_names_no_sample():
    assert FLIP(X[:0], [], ids=[], occurrence=[])[0].shape == (0, 3, 6, 6)


# ---- values as they lie in memory


def negated(shape: tuple[int, ...]) -> torch.Tensor:
    """A view whose bit says that its values are to be read with the other sign."""
    x = torch.complex(torch.zeros(shape), -torch.rand(shape)).conj().imag
    assert x.is_neg() and x.min() >= 0
    return x


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton"])
def test_a_negative_bit_is_resolved_at_the_door(backend):
    x = negated((N, 3, 12, 11))
    for images in (x, list(x), [x[0], x[1, :, :9], *x[2:]]):
        plain = images.clone().resolve_neg() if isinstance(images, torch.Tensor) else [i.resolve_neg() for i in images]
        assert torch.equal(FLIP(images, ids=IDS, backend=backend), FLIP(plain, ids=IDS, backend=backend))
    assert torch.equal(FLIP(x[0], ids=3, backend=backend), FLIP(x[0].resolve_neg(), ids=3, backend=backend))
    rows = negated((N, 6))
    mixing = ga.Policy([ga.CutMix(1.0, 6)], seed=3)
    assert torch.equal(
        mixing(x, rows, ids=IDS, backend=backend)[1], mixing(x, rows.resolve_neg(), ids=IDS, backend=backend)[1]
    )


def test_a_negative_bit_is_resolved_in_single_operations():
    x, lam, out = negated((N, 3, 12, 11)), negated((N,)), negated((N, 3, 12, 11)).clone()
    partner, boxes, target = torch.tensor([1, 2, 3, 4, 0]), torch.tensor([[0, 0, 5, 6]] * N), negated((N, 3, 12, 11))
    F, plain = ga.functional, x.resolve_neg()
    assert torch.equal(F.mixup(x, partner, lam), F.mixup(plain, partner, lam.resolve_neg()))
    want = F.cutmix(plain, partner, boxes)
    for to in (out, target):
        assert F.cutmix(x, partner, boxes, out=to) is to and torch.equal(to, want)
    assert torch.equal(F.erase(x, boxes, negated((N, 3))), F.erase(plain, boxes, 0.0)) is False
    assert torch.equal(F.normalize(x, [0.5], [0.5]), F.normalize(plain, [0.5], [0.5]))


# ---- what lies among pixels is no label

WITHIN = {
    "Mask": tv_tensors.Mask(torch.zeros(N, 12, 11, dtype=torch.uint8)),
    "BoundingBoxes": tv_tensors.BoundingBoxes(torch.ones(N, 4), format="XYXY", canvas_size=(12, 11)),
    "KeyPoints": tv_tensors.KeyPoints(torch.ones(N, 2), canvas_size=(12, 11)),
    "a list of boxes": [tv_tensors.BoundingBoxes(torch.ones(n + 1, 4), format="XYXY", canvas_size=(12, 11)) for n in range(N)],
    "a dict of boxes": {"boxes": tv_tensors.BoundingBoxes(torch.ones(N, 4), format="XYXY", canvas_size=(12, 11)), "labels": torch.arange(N)},
    "masks": torch.zeros(N, 12, 11),
    "an array of masks": np.zeros((N, 12, 11), np.uint8),
    "boxes of every image": torch.zeros(N, 3, 4),
}  # fmt: skip


@pytest.mark.parametrize(("name", "i"), cases(quick=1))
def test_what_lies_among_pixels_is_refused_where_they_move(name, i):
    policy = ga.Policy([ga.ToTensor(), build(name, case(name, i))])
    x = torch.rand(N, 3, 41, 41)
    for what, labels in WITHIN.items():
        if isinstance(labels, list | dict) and not moving(policy):
            # none of them is a tensor
            continue
        calls = [lambda v=labels: policy(x, v), lambda v=labels: policy(ga.Batch(x, labels=v)).labels]
        if not spec(name).mixes:
            calls.append(lambda v=labels: policy.replay(x, policy.draw(IDS, size=(41, 41), dtype=torch.float32), v))
        for call in calls:
            if moving(policy):
                with pytest.raises((TypeError, ValueError), match=r"labels must .*(masks|Mask|Boxes|KeyPoints)"):
                    call()
            else:
                out = call()
                assert torch.equal(out[1] if isinstance(out, tuple) else out, torch.as_tensor(labels)), what


def moving(policy: ga.Policy) -> bool:
    """Whether a transform of the policy, or one inside it, changes the places of pixels."""
    return any(spec(type(c).__name__).moves for t in policy.transforms for c in (t, *t.children))


def test_some_transforms_move_and_some_do_not():
    assert (
        moving(FLIP)
        and not moving(ga.Policy([ga.RandomApply([ga.RandomInvert()])]))
        and moving(ga.Policy([ga.RandomApply([ga.RandomHorizontalFlip()])]))
    )


def test_rows_of_four_floats_stay_legal_labels():
    rows = torch.rand(N, 4)
    assert torch.equal(FLIP(X, rows)[1], rows)


def test_one_image_with_its_boxes_is_refused_too():
    for labels in (
        WITHIN["Mask"][0],
        tv_tensors.Mask(torch.zeros(12, 11)),
        WITHIN["a list of boxes"][1],
        torch.zeros(12, 11),
    ):
        with pytest.raises((TypeError, ValueError), match="labels must"):
            FLIP(X[0], labels)
