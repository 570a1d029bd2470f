"""Policies inside the workers of a loader, for tests that start some: what is pickled must be found by name."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

import gpuaug as ga

SAMPLES, WORKERS, SIZE = 4, 2, 3
GREY = torch.full((SIZE, 3, 6, 6), 0.5)
Row = tuple[int, Any]


def policy(seed: int = 7) -> ga.Policy:
    return ga.Policy([ga.RandomHorizontalFlip(), ga.SaltAndPepper(0.5)], seed=seed)


def call(p: ga.Policy) -> Row:
    """The worker, and the batch that it made without ids."""
    worker = get_worker_info()
    return (-1 if worker is None else worker.id), p(ga.Batch(GREY), backend="reference")


class Rows(Dataset):
    """Augments in the data set."""

    def __init__(self, p: ga.Policy):
        self.policy = p

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Row:
        return call(self.policy)


class Stream(IterableDataset):
    """Augments in a stream, of which every worker has a copy."""

    def __init__(self, p: ga.Policy):
        self.policy = p

    def __iter__(self) -> Iterator[Row]:
        for _ in range(SAMPLES // WORKERS):
            yield call(self.policy)


class Collated:
    """Augments where samples become a batch."""

    def __init__(self, p: ga.Policy):
        self.policy = p

    def __call__(self, samples: list[Any]) -> Row:
        return call(self.policy)


class First(Dataset):
    """Samples that say nothing."""

    def __len__(self) -> int:
        return SAMPLES * SIZE

    def __getitem__(self, index: int) -> int:
        return index


def loader(place: str, p: ga.Policy, method: str, persistent: bool, workers: int = WORKERS) -> DataLoader:
    """A loader that augments in a place: "data set", "stream" or "collate"."""
    options: dict[str, Any] = {"num_workers": workers}
    if workers:
        options |= {"multiprocessing_context": method, "persistent_workers": persistent}
    if place == "collate":
        return DataLoader(First(), batch_size=SIZE, collate_fn=Collated(p), **options)
    return DataLoader((Rows if place == "data set" else Stream)(p), batch_size=None, **options)


def child(p: ga.Policy, pipe: Any) -> None:
    """What a process that is no worker makes by two calls, in plain numbers."""
    # as a loader's workers do: torch's threads are not forked with the process
    torch.set_num_threads(1)
    for _ in range(2):
        _, batch = call(p)
        pipe.send((batch.key, batch.ids.tolist(), batch.images.numpy().tobytes()))
