"""Samplers for a Dataset and torch's DataLoader: (id, occurrence) pairs in an order that a restart, a rank or another
world does not change."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from gpuaug import arguments
from gpuaug.data import order as orders
from gpuaug.data.cursor import Cursor
from gpuaug.data.share import Share, check_place, place

# positions that are computed at a time
_AHEAD = 1 << 13


class _Pair(NamedTuple):
    id: int
    occurrence: int


class Key(_Pair):
    """What a Dataset's `__getitem__` is given: the sample's id, and how often it came before in this epoch."""

    __slots__ = ()
    valid = True


class Padding(Key):
    """A key that fills up the last batch of an epoch, so that all ranks take as many: a sample of the epoch's beginning
    once more."""

    __slots__ = ()
    valid = False


# without a call of Python for every sample
_key, _padding = partial(tuple.__new__, Key), partial(tuple.__new__, Padding)


class BatchSampler:
    """Batches of keys for `DataLoader(dataset, batch_sampler=...)`.

    An epoch is one global sequence of ids, a pure function of seed and epoch.  batch_size is for each rank: at a step,
    rank r of W takes batch_size keys after the first r * batch_size of the next W * batch_size.  With order="shards" it
    takes every W-th, which are its own streams.

    samples: how many there are, or a Dataset with a length. drop_last: leave out what is no whole step of all ranks;
    False: fill it up with keys whose `valid` is False. order: "samples", or "shards" with shards=, the number of
    samples in each shard of contiguous ids: `streams` shards are read side by side, and shuffled within windows of
    `window` samples.  A number of ranks that divides `streams` has each shard read by one or two ranks.
    weights, labels: the share of each class in an epoch's draws, as a mapping or a sequence by class, or "balanced",
    and the class of each sample.  Quotas are exact.  num_samples: draws in an epoch; as many as there are samples by
    default.
    views: how many views of a sample are augmented apart: occurrences come multiplied by it, and view v of a sample is
    occurrence + v. rank, world_size: by default torch.distributed's where it is initialised, or torchrun's environment,
    looked up whenever a pass begins.

    Every pass goes through the next epoch, the first one after `load_state_dict` through what was left.  A pass begins
    with its first batch, which a DataLoader with workers takes as soon as it is iterated over; `set_epoch` goes back to
    where that began.  `len()` is that of a whole epoch."""

    def __init__(
        self,
        samples: Any,
        batch_size: int = 1,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        order: str = "samples",
        shards: Sequence[int] | None = None,
        streams: int | None = None,
        window: int | None = None,
        weights: Any = None,
        labels: Any = None,
        num_samples: int | None = None,
        views: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
    ):
        made = orders.make(
            samples,
            shuffle=shuffle,
            order=order,
            shards=shards,
            streams=streams,
            window=window,
            weights=weights,
            labels=labels,
            num_samples=num_samples,
            views=views,
        )
        self._keep(made, batch_size, seed, drop_last, rank, world_size)

    def _keep(
        self, order: Any, batch_size: int, seed: int, drop_last: bool, rank: int | None, world_size: int | None
    ) -> None:
        """Go through an order, in batches of a rank."""
        self.batch_size = arguments.integer("batch_size", batch_size, 1)
        self.drop_last = arguments.flag("drop_last", drop_last)
        self._place = (rank, world_size)
        check_place(rank, world_size)
        self._cursor = Cursor(seed, order)

    def _share(self) -> Share:
        return Share(*place(*self._place), self.batch_size, self.drop_last)

    def _steps(self) -> int:
        return self._share().steps(self._cursor.order.length)

    def __len__(self) -> int:
        return self._steps()

    def __iter__(self) -> Iterator[Any]:
        return self._batches()

    def _batches(self) -> Iterator[list[Key]]:
        # runs at the first next(), so that an iterator that nobody uses begins nothing
        share = self._share()
        run = self._cursor.begin(share)
        order, start = self._cursor.order, run.start
        epoch = order.epoch(self._cursor.seed, start.epoch)
        ahead = max(1, _AHEAD // self.batch_size)
        for first in range(0, run.steps, ahead):
            positions, valid = share.positions(
                start.consumed, first, min(first + ahead, run.steps), order.length, order.striped
            )
            pairs = zip(*(x.ravel().tolist() for x in epoch.at(positions)), strict=True)
            keys = map(_key, pairs)
            for real in valid.sum(1).tolist():
                batch: list[Key] = list(islice(keys, real))
                # padding is at the end of a batch, or all of it
                if real < self.batch_size:
                    batch += map(_padding, islice(pairs, self.batch_size - real))
                run.deliver()
                yield batch
        run.end()

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass go through this epoch.  The epoch of a loaded state goes on from where it stood."""
        self._cursor.set_epoch(epoch)

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Where to go on: a few numbers, the same on all ranks, which any world and batch size can load.

        It counts what was taken from the sampler.  A DataLoader with workers takes batches ahead of the loop that it
        feeds: give it the number of batches that the loop has had from this pass."""
        return self._cursor.state(self._share(), batches)

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        """Go on from a state, with its seed.  Another data set, order or weighting is refused by name, unless strict is
        False."""
        self._cursor.load(state, strict)


class Sampler(BatchSampler):
    """Single keys for `DataLoader(dataset, batch_size, sampler=...)`, as `BatchSampler` has them in batches, with the
    same arguments.

    Give it the DataLoader's batch_size, so that ranks share a step as they would there, and what is dropped is no whole
    step."""

    def __len__(self) -> int:
        return self._steps() * self.batch_size

    def __iter__(self) -> Iterator[Any]:
        for batch in self._batches():
            yield from batch
