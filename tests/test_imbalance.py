"""Counts and weights of unequal classes, and the samplers that even them out."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset
from torchvision.datasets import FakeData, ImageFolder

import gpuaug as ga
from gpuaug import imbalance
from gpuaug.data import as_source
from gpuaug.imbalance import BalancedBatchSampler, WeightedSampler, class_counts, labels_of, loss_weights

LABELS = [0] * 12 + [1] * 3 + [2] * 6
COUNTS = {0: 12, 1: 3, 2: 6}
N = len(LABELS)


class Pairs(Dataset[Any]):
    """(x, y) by number, and nothing else."""

    def __init__(self, labels: list[Any], form: Any = lambda x, y: (x, y)):
        self.pairs, self.form = labels, form

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> Any:
        return self.form(torch.zeros(3, 4, 4), self.pairs[i])


class Targets(Pairs):
    """As torchvision's data sets are: what is asked for would be decoded."""

    target_transform = None

    def __init__(self, name: str, labels: Any):
        super().__init__(list(labels))
        setattr(self, name, labels)

    def __getitem__(self, i: int) -> Any:
        raise AssertionError("a sample was decoded to be counted")


def batches() -> list[ga.Batch]:
    return [ga.Batch(torch.zeros(3, 3, 4, 4), labels=torch.tensor(LABELS[i : i + 3])) for i in range(0, N, 3)]


SOURCES: dict[str, Any] = {
    "a list": LABELS,
    "an array": np.array(LABELS, np.uint8),
    "a tensor": torch.tensor(LABELS),
    "targets, a list": Targets("targets", LABELS),
    "targets, a tensor": Targets("targets", torch.tensor(LABELS)),
    "labels, an array": Targets("labels", np.array(LABELS)),
    "pairs": Pairs(LABELS),
    "pairs of tensors": Pairs([torch.tensor(y) for y in LABELS]),
    "mappings": Pairs(LABELS, lambda x, y: {"image": x, "label": y}),
    "a list of pairs": [(torch.zeros(1), y) for y in LABELS],
    "a TensorDataset": TensorDataset(torch.zeros(N, 2), torch.tensor(LABELS)),
    "a Subset": Subset(Targets("targets", [7, *LABELS, 7]), range(1, N + 1)),
    "a ConcatDataset": ConcatDataset([Targets("targets", LABELS[:5]), Pairs(LABELS[5:])]),
    "a Batch": ga.Batch(torch.zeros(N, 3, 4, 4), labels=torch.tensor(LABELS)),
}
STREAMS: dict[str, Any] = {
    "a list of batches": batches,
    "an iterator of batches": lambda: iter(batches()),
    "a DataLoader": lambda: DataLoader(Pairs(LABELS), 4),
    "a list of pairs of batches": lambda: [(b.images, b.labels) for b in batches()],
    "an iterator of samples": lambda: ((torch.zeros(1), y) for y in LABELS),
}


@pytest.mark.parametrize("name", SOURCES)
def test_labels_are_found_where_they_are(name):
    assert labels_of(SOURCES[name]).tolist() == LABELS
    assert class_counts(SOURCES[name]) == COUNTS


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_counted(name):
    assert class_counts(STREAMS[name]()) == COUNTS


def test_what_is_not_valid_is_not_counted_and_soft_rows_count_by_their_shares():
    valid = torch.tensor([True, True, False])
    batch = ga.Batch(torch.zeros(3, 3, 4, 4), labels=torch.tensor([0, 1, 1]), valid=valid)
    assert class_counts(batch) == class_counts([batch]) == {0: 1, 1: 1}
    soft = ga.Batch(torch.zeros(2, 3, 4, 4), labels=torch.tensor([[0.75, 0.25], [0.5, 0.5]]))
    assert class_counts(iter([soft])) == {0: 1.25, 1: 0.75}


def test_a_folder_a_source_and_torchvision_agree(tmp_path):
    for name, many in (("cat", 3), ("dog", 1), ("emu", 2)):
        (tmp_path / name).mkdir()
        for n in range(many):
            Image.new("RGB", (9, 8)).save(tmp_path / name / f"{n}.png")
    want = {0: 3, 1: 1, 2: 2}
    for data in (tmp_path, str(tmp_path), as_source(str(tmp_path)), ImageFolder(str(tmp_path))):
        assert class_counts(data) == want
    loader = ga.data.Loader(str(tmp_path), ga.Policy([ga.Resize((8, 8))]), 2)
    assert class_counts(loader) == want


def test_a_transform_of_targets_counts():
    data = FakeData(6, (3, 4, 4), 3, target_transform=lambda y: torch.tensor(5))
    assert class_counts(data) == {5: 6}
    given = Targets("targets", LABELS)
    given.target_transform = lambda y: y // 2
    assert class_counts(given) == {0: 15, 1: 6}


def test_names_are_classes_too():
    assert class_counts(["b", "a", "b"]) == {"a": 1, "b": 2}


def test_classes_without_samples_are_zero_where_their_number_is_known():
    assert class_counts([0, 2, 2], 4) == {0: 1, 1: 0, 2: 2, 3: 0}
    with pytest.raises(ValueError, match=r"class numbers in \[0, 2\), got 2"):
        class_counts([0, 2, 2], 2)


# ---- weights


def test_inverse_weights_let_every_class_count_alike():
    weights = loss_weights(LABELS)
    torch.testing.assert_close(weights, torch.tensor([21 / 36, 21 / 9, 21 / 18]))
    shares = weights * torch.tensor([12.0, 3, 6])
    torch.testing.assert_close(shares, shares[:1].expand(3))


@pytest.mark.parametrize("beta", [0.9, 0.999, 0.9999999])
def test_effective_weights_follow_their_formula(beta):
    raw = [(1 - beta) / (1 - beta**n) for n in (12, 3, 6)]
    want = torch.tensor([w / (sum(raw) / 3) for w in raw])
    torch.testing.assert_close(loss_weights(COUNTS, method="effective", beta=beta), want, rtol=1e-5, atol=0)


def test_effective_weights_run_from_alike_to_inverse():
    assert torch.equal(loss_weights(COUNTS, method="effective", beta=0.0), torch.ones(3))
    inverse = loss_weights(COUNTS)
    torch.testing.assert_close(loss_weights(COUNTS, method="effective", beta=1 - 1e-9), inverse / inverse.mean())


def test_a_class_without_samples_weighs_nothing():
    assert loss_weights({0: 4, 2: 1}, 4).tolist() == [0.625, 0.0, 2.5, 0.0]


def test_weights_go_into_the_loss():
    weight = loss_weights(LABELS)
    logits = torch.randn(N, 3, generator=torch.Generator().manual_seed(1))
    want = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS), weight)
    assert torch.equal(ga.soft_cross_entropy(logits, torch.tensor(LABELS), weight=weight), want)


def test_weights_of_samples_are_those_that_torch_takes():
    assert imbalance.sample_weights(LABELS).tolist() == [1 / COUNTS[y] for y in LABELS]


def test_the_minority_is_named_for_by_class():
    assert imbalance.minority(LABELS) == (1,) and imbalance.minority(COUNTS, 0.6) == (1, 2)
    ga.ByClass({imbalance.minority(LABELS): ga.RandomInvert(1.0)})
    with pytest.raises(ValueError, match="no class has fewer than"):
        imbalance.minority(LABELS, 0.1)


# ---- samplers

SAMPLERS = {
    "weighted": lambda **options: WeightedSampler(LABELS, batch_size=6, **options),
    "by class": lambda **options: WeightedSampler(LABELS, {0: 1, 1: 1, 2: 2}, 6, **options),
    "by sample": lambda **options: WeightedSampler(LABELS, [1.0] * 12 + [4.0] * 9, 6, **options),
    "balanced": lambda **options: BalancedBatchSampler(LABELS, 6, **options),
}


def keys(sampler: Any) -> list[ga.data.Key]:
    """Of one pass."""
    return [k for item in sampler for k in ([item] if isinstance(item, ga.data.Key) else item)]


def test_shares_of_classes_are_exact():
    many = 600
    got = {name: Counter(LABELS[k.id] for k in keys(make(num_samples=many, seed=4))) for name, make in SAMPLERS.items()}
    assert got["weighted"] == got["balanced"] == {0: 200, 1: 200, 2: 200}
    assert got["by class"] == {0: 150, 1: 150, 2: 300}
    assert got["by sample"] == {0: 150, 1: 150, 2: 300}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_key_comes_once_and_rounds_go_through_all_of_a_class(name):
    found = keys(SAMPLERS[name](num_samples=600, seed=1))
    assert len(set(found)) == len(found) == 600
    for label in COUNTS:
        mine = [k for k in found if LABELS[k.id] == label]
        times = Counter(k.id for k in mine)
        assert len(times) == COUNTS[label] and max(times.values()) - min(times.values()) <= 1
        for i in times:
            assert sorted(k.occurrence for k in mine if k.id == i) == list(range(times[i]))


@pytest.mark.parametrize("name", SAMPLERS)
def test_ranks_share_one_sequence(name):
    whole = keys(SAMPLERS[name](num_samples=120, seed=2))
    parts = [
        [keys(SAMPLERS[name](num_samples=120, seed=2, rank=r, world_size=2))[i : i + 6] for i in range(0, 60, 6)]
        for r in range(2)
    ]
    joined = [k for step in zip(*parts, strict=True) for part in step for k in part]
    assert joined == whole


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_state_goes_on_where_it_stood(name):
    sampler = SAMPLERS[name](num_samples=60, seed=3)
    run = iter(sampler)
    # a batch of 6, which is what is counted
    begun = [next(run) for _ in range(1 if name == "balanced" else 6)]
    again = SAMPLERS[name](num_samples=60, seed=99)
    again.load_state_dict(sampler.state_dict())
    rest = list(again)
    assert begun + rest == list(SAMPLERS[name](num_samples=60, seed=3))
    assert list(again) != begun + rest, "the next epoch is another"


def test_a_state_of_other_labels_is_refused():
    state = BalancedBatchSampler(LABELS, 6).state_dict()
    with pytest.raises(ValueError, match="labels was"):
        BalancedBatchSampler(LABELS[::-1], 6).load_state_dict(state)
    with pytest.raises(ValueError, match="order was"):
        WeightedSampler(LABELS, batch_size=6).load_state_dict(state)


@pytest.mark.parametrize("world", [1, 3])
def test_every_batch_of_every_rank_has_every_class_alike(world):
    for rank in range(world):
        sampler = BalancedBatchSampler(LABELS, 6, num_samples=180, rank=rank, world_size=world)
        steps = list(sampler)
        assert len(steps) == 180 // 6 // world == len(sampler)
        for batch in steps:
            assert Counter(LABELS[k.id] for k in batch) == {0: 2, 1: 2, 2: 2}


@pytest.mark.parametrize("size", [1, 2, 4, 5, 7, 8])
def test_batches_of_any_size_are_as_even_as_can_be(size):
    for batch in BalancedBatchSampler(LABELS, size, num_samples=280, seed=5):
        times = Counter(LABELS[k.id] for k in batch)
        found = [times.get(c, 0) for c in COUNTS]
        assert max(found) - min(found) <= 2


def test_places_in_a_block_are_dealt_anew():
    firsts = Counter(LABELS[batch[0].id] for batch in BalancedBatchSampler(LABELS, 3, num_samples=900, seed=5))
    assert set(firsts) == {0, 1, 2} and min(firsts.values()) > 60


def test_a_data_loader_takes_them():
    class Keyed(Dataset[Any]):
        def __getitem__(self, key: Any) -> Any:
            return key.id, key.occurrence, LABELS[key.id]

    for options in (
        {"batch_sampler": BalancedBatchSampler(LABELS, 3, num_samples=30)},
        {"sampler": WeightedSampler(LABELS, batch_size=3, num_samples=30), "batch_size": 3},
    ):
        seen = [y for _, _, labels in DataLoader(Keyed(), **options) for y in labels.tolist()]
        assert Counter(seen) == {0: 10, 1: 10, 2: 10}


def test_views_of_a_key_are_apart():
    found = keys(BalancedBatchSampler(LABELS, 3, num_samples=30, views=4))
    assert all(k.occurrence % 4 == 0 for k in found) and max(k.occurrence for k in found) >= 12


# ---- bad input


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (3, "labelled data set, got int"),
        ([], "no samples"),
        (torch.zeros(4, 3), "one class for each sample"),
        (torch.tensor([0.5, 1.5]), "one class for each sample"),
        ([(1, [1, 2])], "one class, a number or a name"),
        ([(1, None)], "one class, a number or a name"),
        (Pairs([1, 2], lambda x, y: x), "one class, a number or a name"),
        ([torch.zeros(1)], "one class, a number or a name"),
    ],
)
def test_what_has_no_labels_is_refused(data, says):
    with pytest.raises((ValueError, TypeError), match=says):
        labels_of(data)


def test_batches_without_labels_are_refused():
    with pytest.raises(ValueError, match="must have labels"):
        class_counts([ga.Batch(torch.zeros(1, 3, 4, 4))])


def test_an_iterator_that_was_used_up_is_refused():
    with pytest.raises(ValueError, match="no batches"):
        class_counts(iter([]))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: loss_weights(LABELS, method="root"), "method must be one of"),
        (lambda: loss_weights(LABELS, beta=1.0), "beta must be"),
        (lambda: loss_weights(LABELS, 2), r"in \[0, 2\)"),
        (lambda: loss_weights({0: -1}), "count of class 0"),
        (lambda: loss_weights({0: 0}), "no class with a sample"),
        (lambda: loss_weights(["a", "b"]), "number the names"),
        (lambda: imbalance.minority(LABELS, 2.0), "below must be"),
        (lambda: WeightedSampler(LABELS, "root"), "balanced"),
        (lambda: WeightedSampler(LABELS, [0.0] * 5 + [1.0] * 16), "hold a 0"),
        (lambda: WeightedSampler(LABELS, [1.0, 2.0]), "classes 0 to 1"),
        (lambda: BalancedBatchSampler(LABELS, 0), "batch_size must be"),
        (lambda: BalancedBatchSampler(LABELS, 3, num_samples=10**6), "repeats of a sample"),
        (lambda: BalancedBatchSampler(LABELS, 3, rank=1), "rank and world_size"),
    ],
)
def test_bad_arguments_are_refused(call, says):
    with pytest.raises((ValueError, TypeError), match=says):
        call()
