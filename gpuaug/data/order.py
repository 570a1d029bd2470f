"""The order of an epoch: one sequence of ids for all ranks, a function of (seed, epoch) from position to (id,
occurrence).

It knows no batch, rank or world, so it stays the same when they change.
"""

from collections.abc import Sequence
from numbers import Real
from typing import Any, Protocol

import numpy as np

from gpuaug import arguments, rng
from gpuaug.data import permutation
from gpuaug.data.permutation import Ints, Permutation
from gpuaug.data.shards import STREAMS, WINDOW, Shards, Unshuffled, checked
from gpuaug.data.weights import Weighted


class Epoch(Protocol):
    """One epoch of an order."""

    def at(self, positions: Ints) -> tuple[Ints, Ints]:
        """Ids and occurrences at positions in [0, length), of any shape."""


class Order(Protocol):
    """The orders of all epochs."""

    @property
    def length(self) -> int:
        """Positions in an epoch."""

    @property
    def striped(self) -> bool:
        """True: rank r of W takes the positions r modulo W of a global batch, for those are its own streams.  False: it
        takes the r-th block."""

    def epoch(self, seed: int, epoch: int) -> Epoch:
        """The order of one epoch."""

    def about(self) -> dict[str, Any]:
        """What the order depends on beside seed and epoch, as plain data of a few hundred bytes."""

    def adopt(self, about: dict[str, Any]) -> "Order":
        """The order that a saved run had, as far as that is a choice and not a property of the data."""


class Samples:
    """Every id once: shuffled, or as they are numbered."""

    striped = False

    def __init__(self, n: int, shuffle: bool = True):
        self.length, self.shuffle = n, shuffle

    def epoch(self, seed: int, epoch: int) -> Epoch:
        return _Samples(Permutation(seed, epoch, permutation.SAMPLES, self.length) if self.shuffle else None)

    def about(self) -> dict[str, Any]:
        return {"order": "samples", "samples": self.length, "shuffle": self.shuffle}

    def adopt(self, about: dict[str, Any]) -> "Samples":
        return self


class _Samples:
    def __init__(self, ids: Permutation | None):
        self._ids = ids

    def at(self, positions: Ints) -> tuple[Ints, Ints]:
        return self._ids(positions) if self._ids else positions, np.zeros_like(positions)


def make(
    samples: Any,
    *,
    shuffle: bool = True,
    order: str = "samples",
    shards: Sequence[int] | None = None,
    streams: int | None = None,
    window: int | None = None,
    weights: Any = None,
    labels: Any = None,
    num_samples: int | None = None,
    views: int = 1,
    names: Sequence[str] | None = None,
) -> Order:
    """The order that a sampler or loader is asked for: the arguments are those of `gpuaug.data.BatchSampler`.  Refuses
    what does not go together.  names: of classes that are numbers, for messages."""
    n = _count(samples)
    shuffle = arguments.flag("shuffle", shuffle)
    views = arguments.integer("views", views, 1, rng.MAX_OCCURRENCE)
    if order not in ("samples", "shards"):
        raise ValueError(f"order must be 'samples' or 'shards', got {order!r}")
    for name, value in {"shards": shards, "streams": streams, "window": window}.items():
        if value is not None and order != "shards":
            raise ValueError(
                f"{name}={value!r:.60} is for order='shards', got order='samples'; pass order='shards', or leave it out"
            )
    if weights is None:
        for name, value in {"labels": labels, "num_samples": num_samples}.items():
            if value is not None:
                raise ValueError(
                    f"{name} without weights would be used by nothing; pass weights='balanced', or a weight for "
                    "each class"
                )
    elif order == "shards":
        raise ValueError(
            "weights draw each class from everywhere, and order='shards' reads a few shards at a time; pass "
            "order='samples' with weights"
        )
    elif not shuffle:
        raise ValueError("weights repeat samples in a drawn order, got shuffle=False; leave out one of the two")
    elif labels is None:
        raise ValueError("weights need the class of every sample; pass labels=, one for each")
    else:
        length = n if num_samples is None else arguments.integer("num_samples", num_samples, 1, rng.MAX_ID)
        return Weighted(labels, weights, n, length, views, names)
    if order == "samples":
        return Samples(n, shuffle)
    if shards is None:
        raise ValueError(
            "order='shards' needs the number of samples in each shard; pass shards=, a sequence of numbers"
        )
    k, m = (
        arguments.integer(*given, 1)
        for given in (
            ("streams", STREAMS if streams is None else streams),
            ("window", WINDOW if window is None else window),
        )
    )
    made = Shards(checked(shards, n), k, m)
    return made if shuffle else Unshuffled(made)


def _count(samples: Any) -> int:
    if hasattr(samples, "__len__"):
        n = len(samples)
    elif isinstance(samples, Real):
        n = arguments.integer("the number of samples", samples, 0, rng.MAX_ID)
    else:
        raise TypeError(
            f"samples must be a number or a Dataset with a length, got {type(samples).__name__}; give the number"
        )
    if n == 0:
        raise ValueError("there are no samples: an epoch needs at least one")
    return n
