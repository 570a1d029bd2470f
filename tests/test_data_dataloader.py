"""The samplers in torch's DataLoader, with workers, for people who keep their Dataset."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import gpuaug as ga
from gpuaug.data import BatchSampler, Key, Padding, Sampler

N = 60
LABELS = np.array([0] * 50 + [1] * 10)


class Keyed(Dataset):
    """A Dataset as users have one, whose key says which copy of a sample is wanted."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, key: Key) -> dict[str, object]:
        index, occurrence = key
        image = torch.full((3, 4, 4), index, dtype=torch.uint8)
        return {"image": image, "label": LABELS[index], "id": index, "occurrence": occurrence, "valid": key.valid}


def epoch(loader: DataLoader) -> list[dict[str, torch.Tensor]]:
    batches = list(loader)
    for b in batches:
        assert torch.equal(b["image"][:, 0, 0, 0].long(), b["id"]), "images and ids belong together"
    return batches


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("how", ["sampler", "batch_sampler"])
def test_a_dataloader_gives_what_the_sampler_says(workers, how):
    kept = {"weights": "balanced", "labels": LABELS, "num_samples": 80, "seed": 4, "rank": 1, "world_size": 2}
    one, want = (BatchSampler(Keyed(), 8, **kept) for _ in range(2))
    if how == "sampler":
        loader = DataLoader(Keyed(), 8, sampler=Sampler(Keyed(), batch_size=8, **kept), num_workers=workers)
    else:
        loader = DataLoader(Keyed(), batch_sampler=one, num_workers=workers)
    assert len(loader) == 5
    for _ in range(2):
        got = [list(zip(b["id"].tolist(), b["occurrence"].tolist(), strict=True)) for b in epoch(loader)]
        assert got == list(want)
        assert max(o for batch in got for _, o in batch) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_of_dataloaders_go_through_the_data_set_together(workers):
    loaders = [
        DataLoader(
            Keyed(), batch_sampler=BatchSampler(Keyed(), 7, drop_last=False, rank=r, world_size=4), num_workers=workers
        )
        for r in range(4)
    ]
    ids = torch.cat([b["id"][b["valid"]] for loader in loaders for b in epoch(loader)])
    assert {len(loader) for loader in loaders} == {3} and sorted(ids.tolist()) == list(range(N))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataloader_resumes_after_the_batches_that_the_loop_has_had(workers):
    def make() -> tuple[BatchSampler, DataLoader]:
        one = BatchSampler(Keyed(), 8, seed=6)
        return one, DataLoader(Keyed(), batch_sampler=one, num_workers=workers)

    whole = [b["id"].tolist() for b in epoch(make()[1])]
    for had in (0, 1, 3, 7):
        one, loader = make()
        before = [b["id"].tolist() for b in itertools.islice(loader, had)]
        state = one.state_dict(had)
        one, loader = make()
        one.load_state_dict(state)
        one.set_epoch(state["epoch"])
        assert before + [b["id"].tolist() for b in epoch(loader)] == whole, had


def test_policies_take_ids_and_occurrences_of_a_dataloader():
    policy = ga.Policy([ga.RandomCrop(2), ga.SaltAndPepper(0.5)], seed=1)
    one = BatchSampler(Keyed(), 10, weights="balanced", labels=LABELS)
    made = [
        (b["id"], b["occurrence"], policy(b["image"], ids=b["id"], occurrence=b["occurrence"], backend="reference"))
        for b in DataLoader(Keyed(), batch_sampler=one)
    ]
    ids, occurrence, pixels = (torch.cat(x) for x in zip(*made, strict=True))
    minority = LABELS[ids] == 1
    assert minority.sum() == 30 and occurrence[minority].max() == 2
    for i in range(50, 60):
        assert len({p.numpy().tobytes() for p in pixels[ids == i]}) == 3, (
            "a sample that is drawn three times is augmented three ways"
        )


def test_keys_are_pairs_that_travel_to_other_processes():
    for kind, valid in ((Key, True), (Padding, False)):
        key = pickle.loads(pickle.dumps(kind(7, 2)))
        assert type(key) is kind and key == (7, 2) and (key.id, key.occurrence, key.valid) == (7, 2, valid)
