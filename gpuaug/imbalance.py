"""For classes of unequal size: their counts, weights for the loss, samplers that even them out, and policies by class.

    counts = ga.imbalance.class_counts(dataset)                 # {0: 5000, 1: 120, ...}
    weight = ga.imbalance.loss_weights(dataset, method="effective")
    sampler = ga.imbalance.WeightedSampler(dataset, batch_size=64, seed=1)
    batches = ga.imbalance.BalancedBatchSampler(dataset, batch_size=64, seed=1)
    rare = ga.imbalance.minority(dataset)                       # (1,)
    policy = ga.Policy([ga.ByClass({rare: strong}, default=weak)])

`dataset` is whatever has labels: class numbers or names, [N], as a list, array or tensor; a data set with `targets` or
`labels`, as torchvision's have them; a Subset, ConcatDataset or TensorDataset; one that gives (x, y) or a mapping with
"label" for every number; what `gpuaug.data.as_source` takes, such as a folder; or, for counts, a loader or any other
iterable of `Batch` or (x, y)."""

import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug import arguments, rng
from gpuaug.batch import Batch
from gpuaug.data import BatchSampler, Sampler
from gpuaug.data.balanced import Balanced
from gpuaug.data.weights import as_classes
from gpuaug.transforms import ByClass

__all__ = [
    "BalancedBatchSampler",
    "ByClass",
    "WeightedSampler",
    "class_counts",
    "labels_of",
    "loss_weights",
    "minority",
    "sample_weights",
]

METHODS = ("inverse", "effective")
# samples of a source that are read at a time, where labels come with them
_AT_ONCE = 256
# what the label of a sample is called in a mapping
_NAMES = ("label", "labels", "target", "targets", "y", "class")


# ---- labels


def labels_of(data: Any) -> np.ndarray[Any, Any]:
    """The class of every sample, [N] integers or names; raises where a sample has none, or more than one.

    Nothing is decoded where the data set knows its labels; else every sample is asked for."""
    found = _known(data)
    if found is None:
        found = _asked(data)
    values = found.detach().cpu().numpy() if isinstance(found, Tensor) else np.asarray(found)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype == object and all(isinstance(v, Integral) for v in values.flat):
        values = values.astype(np.int64)
    if values.dtype.kind == "f" and values.ndim == 1 and values.size and (values == np.round(values)).all():
        values = values.astype(np.int64)
    if not values.size:
        raise ValueError(f"the {type(data).__name__} has no samples to count")
    return as_classes(values, len(values) if values.ndim else 0)


def _known(data: Any) -> Any:
    """The labels that somebody wrote down; None where each sample must be asked."""
    if isinstance(data, str | PathLike) or type(data).__module__.startswith("gpuaug.data.source"):
        return _of_source(data)
    if isinstance(data, Tensor | np.ndarray):
        return data
    if isinstance(data, Batch):
        return data.labels if data.valid is None or data.labels is None else data.labels[data.valid]
    if isinstance(data, list | tuple):
        plain = bool(data) and all(isinstance(v, Real | str | np.generic) for v in data)
        return data if plain else None
    tensors = getattr(data, "tensors", None)
    if isinstance(tensors, tuple) and len(tensors) > 1:
        return tensors[-1]
    inner, indices = getattr(data, "dataset", None), getattr(data, "indices", None)
    if inner is not None and indices is not None and hasattr(data, "__getitem__"):
        return labels_of(inner)[np.asarray(indices, np.int64)]
    parts = getattr(data, "datasets", None)
    if isinstance(parts, list | tuple) and parts:
        return np.concatenate([labels_of(p) for p in parts])
    columns = getattr(data, "column_names", None)
    if isinstance(columns, list):
        name = next((n for n in _NAMES if n in columns), None)
        if name is None:
            raise ValueError(f"the data set has no column of labels, got {columns}; name one {_NAMES[0]!r}")
        return list(data[name])
    for name in ("targets", "labels", "_labels"):
        found = getattr(data, name, None)
        if isinstance(found, Tensor | np.ndarray | list | tuple) and len(found) == _length(data) is not None:
            change = getattr(data, "target_transform", None)
            return found if change is None else [change(t) for t in found]
    return None


def _of_source(data: Any) -> Any:
    from gpuaug.data import as_source

    source = as_source(data)
    if source.labels is not None:
        return source.labels
    out: list[Any] = []
    for first in range(0, len(source), _AT_ONCE):
        targets = source.samples(range(first, min(first + _AT_ONCE, len(source))))[1]
        out += [None] * min(_AT_ONCE, len(source) - first) if targets is None else list(targets)
    return [_label(t, n) for n, t in enumerate(out)]


def _length(data: Any) -> int | None:
    return len(data) if hasattr(data, "__len__") else None


def _asked(data: Any) -> list[Any]:
    """The label of every sample, asked for one by one."""
    n = _length(data)
    if n is None or not hasattr(data, "__getitem__"):
        raise TypeError(
            f"labels must come from a labelled data set, got {type(data).__name__}; pass the class of each sample, [N]"
        )
    keys: Iterable[Any] = sorted(data) if isinstance(data, Mapping) else range(n)
    return [_label(_target(data[k]), i) for i, k in enumerate(keys)]


def _target(sample: Any) -> Any:
    """What stands beside the image of a sample."""
    if isinstance(sample, Mapping):
        return next((sample[n] for n in _NAMES if n in sample), None)
    return sample[1] if isinstance(sample, tuple | list) and len(sample) > 1 else None


def _label(target: Any, n: int) -> Any:
    """One class number or name."""
    if isinstance(target, Mapping):
        target = next((target[k] for k in _NAMES if k in target), None)
    if isinstance(target, Tensor | np.ndarray | np.generic) and getattr(target, "size", 1) is not None:
        target = target.item() if np.ndim(target) == 0 else target
    if isinstance(target, str) or (isinstance(target, Integral) and not isinstance(target, bool)):
        return target if isinstance(target, str) else int(target)
    raise TypeError(
        f"every sample must have one class, a number or a name, got {str(target)[:60]!r} of type "
        f"{type(target).__name__} for sample {n}; pass the class of each sample, [N]"
    )


# ---- counts and weights


def class_counts(data: Any, num_classes: int | None = None) -> dict[Any, float]:
    """Samples of each class, in the order of the classes.

    data: as the module says; of batches all that is not valid is left out, and soft rows count by their shares, so
    that counts may be fractions.  num_classes: with every class number below it, 0 where there is no sample; a label
    beyond it raises ValueError."""
    if _is_stream(data):
        found = _streamed(data)
    elif isinstance(data, Tensor | np.ndarray) and data.ndim == 2 and data.shape[1] > 1:
        found = _counted(data)
    elif isinstance(data, Batch):
        found = _of_batch(data)
    else:
        classes, many = np.unique(labels_of(data), return_counts=True)
        found = dict(zip(classes.tolist(), many.tolist(), strict=True))
    if num_classes is None:
        return dict(sorted(found.items()))
    limit = arguments.integer("num_classes", num_classes, 1)
    for c in found:
        if not isinstance(c, int) or not 0 <= c < limit:
            raise ValueError(f"labels must be class numbers in [0, {limit}), got {c!r}; check num_classes")
    return {c: found.get(c, 0) for c in range(limit)}


def _is_stream(data: Any) -> bool:
    """Whether something is a loader, or another iterable of batches."""
    if isinstance(data, Batch | Tensor | np.ndarray | str | PathLike | Mapping):
        return False
    if isinstance(data, list | tuple):
        return bool(data) and (isinstance(data[0], Batch) or _is_pair_of_batches(data[0]))
    return hasattr(data, "__iter__") and (not hasattr(data, "__getitem__") or hasattr(data, "state_dict"))


def _is_pair_of_batches(item: Any) -> bool:
    return isinstance(item, tuple | list) and len(item) > 1 and getattr(item[1], "ndim", 0) > 0


def _streamed(data: Iterable[Any]) -> dict[Any, float]:
    """Counts of a stream, each item of which is a Batch, (x, y) or a mapping, of samples or of batches."""
    total: dict[Any, float] = {}
    for item in data:
        if isinstance(item, Batch):
            part = _of_batch(item)
        else:
            target = _target(item)
            rows = isinstance(target, Tensor | np.ndarray | list | tuple) and np.ndim(target) > 0
            part = _counted(target) if rows else {_label(target, 0): 1}
        for c, many in part.items():
            total[c] = total.get(c, 0) + many
    if not total:
        raise ValueError("there were no batches to count; pass a loader that was not used up")
    return total


def _of_batch(batch: Batch) -> dict[Any, float]:
    if batch.labels is None:
        raise ValueError("a Batch must have labels to be counted, got none; pass Batch(images, labels=...)")
    return _counted(batch.labels, batch.valid)


def _counted(labels: Any, valid: Any = None) -> dict[Any, float]:
    """Counts of class numbers, names, or soft rows."""
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if valid is not None:
        values = values[np.asarray(valid.cpu() if isinstance(valid, Tensor) else valid, bool)]
    if values.ndim == 2 and values.dtype.kind == "f":
        return {c: float(v) for c, v in enumerate(values.astype(np.float64).sum(0))}
    classes, many = np.unique(as_classes(values, len(values) if values.ndim else 0), return_counts=True)
    return dict(zip(classes.tolist(), many.tolist(), strict=True))


def loss_weights(data: Any, num_classes: int | None = None, *, method: str = "inverse", beta: float = 0.9999) -> Tensor:
    """The weight of each class in the loss, [K] float32, for `soft_cross_entropy(weight=)` or torch's.

    method: "inverse", N / (K n) of N samples in all, of n in the class and of K classes (King and Zeng, Logistic
    Regression in Rare Events Data, 2001; scikit-learn's "balanced"), so that every class counts as much in all;
    "effective", the inverse of the effective number (1 - beta^n) / (1 - beta), scaled to a mean of 1 over the classes
    (Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019), which is milder: beta = 0 weighs
    all alike, beta near 1 as "inverse".  A class without samples has the weight 0 and counts for nothing.

    data: what has labels, or the counts themselves, as `class_counts` gives them.  num_classes: by default the largest
    class number and one."""
    arguments.one_of("method", method, METHODS)
    beta = arguments.number("beta", beta, 0.0, 1.0 - 1e-12)
    counts = dict(_counts(data))
    for c in counts:
        if not isinstance(c, Integral) or isinstance(c, bool) or c < 0:
            raise TypeError(f"classes must be numbers from 0 to have weights in a loss, got {c!r}; number the names")
    size = max(counts) + 1 if num_classes is None else arguments.integer("num_classes", num_classes, 1)
    if max(counts) >= size:
        raise ValueError(f"labels must be class numbers in [0, {size}), got {max(counts)}; check num_classes")
    n = np.array([float(counts.get(c, 0)) for c in range(size)])
    there = n > 0
    if not there.any():
        raise ValueError("there is no class with a sample, and so nothing to weigh")
    safe = np.where(there, n, 1.0)
    if method == "inverse":
        weights = n.sum() / (there.sum() * safe)
    else:
        # -expm1 keeps the digits that 1 - beta^n loses for beta near 1
        weights = np.ones(size) if beta == 0.0 else (1.0 - beta) / -np.expm1(safe * math.log(beta))
        weights = weights / weights[there].mean()
    return torch.from_numpy(np.where(there, weights, 0.0)).float()


def sample_weights(data: Any) -> Tensor:
    """The inverse count of each sample's class, [N] float64, which sum to the number of classes: the weights that
    torch's WeightedRandomSampler takes."""
    _, member, many = np.unique(labels_of(data), return_inverse=True, return_counts=True)
    return torch.from_numpy(1.0 / many[member])


def minority(data: Any, below: float = 0.5) -> tuple[Any, ...]:
    """The classes with fewer than `below` times the samples of the largest, such as `ByClass` takes them.

    data: as for `loss_weights`.  Raises ValueError where there is none, since a policy for no class would never run."""
    below = arguments.number("below", below, 0.0, 1.0)
    counts = dict(_counts(data))
    most = max(counts.values())
    found = tuple(c for c, n in counts.items() if 0 < n < below * most)
    if not found:
        raise ValueError(
            f"no class has fewer than {below:g} times the samples of the largest, got {min(counts.values())} to "
            f"{most}; raise below, or name the classes"
        )
    return found


def _counts(data: Any) -> Mapping[Any, float]:
    """Counts as they are given, or those of what has labels."""
    plain = isinstance(data, Mapping) and bool(data)
    if plain and all(isinstance(v, Real) and not isinstance(v, bool) for v in data.values()):
        for c, n in data.items():
            arguments.number(f"the count of class {c!r}", n, 0.0)
        return dict(data)
    return class_counts(data)


# ---- samplers


class WeightedSampler(Sampler):
    """Keys for `DataLoader(dataset, batch_size, sampler=...)` in which rare classes come as often as others.

    data: what has labels; its length is that of the data set.  weights: "balanced", the share of each class in an
    epoch's draws as a mapping or a sequence by class, or a weight for each sample, [N], as torch's
    WeightedRandomSampler has it.  Shares are kept exactly, to a draw; a sample comes for the second time once all of
    its class, or of its weight, have come once.  batch_size: the DataLoader's.  All else is as
    `gpuaug.data.BatchSampler` has it: one sequence for all ranks, `occurrence` that tells repeats apart, a state that
    goes on from anywhere."""

    def __init__(
        self,
        data: Any,
        weights: Any = "balanced",
        batch_size: int = 1,
        *,
        num_samples: int | None = None,
        seed: int = 0,
        drop_last: bool = True,
        views: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
    ):
        labels = labels_of(data)
        weights, labels = _by_sample(weights, labels)
        super().__init__(
            len(labels),
            batch_size,
            seed=seed,
            drop_last=drop_last,
            weights=weights,
            labels=labels,
            num_samples=num_samples,
            views=views,
            rank=rank,
            world_size=world_size,
        )


def _by_sample(weights: Any, labels: np.ndarray[Any, Any]) -> tuple[Any, np.ndarray[Any, Any]]:
    """Weights by class; of weights by sample, those of one weight are a class of their own."""
    if isinstance(weights, str | Mapping):
        return weights, labels
    values = arguments.numbers("weights", weights.detach().cpu() if isinstance(weights, Tensor) else weights, low=0.0)
    if len(values) != len(labels) or len(values) == len(np.unique(labels)):
        return weights, labels
    found, member, many = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    if found[0] == 0.0:
        raise ValueError("weights hold a 0, so that a sample would never be drawn; leave it out of the data set")
    return (found * many).tolist(), member


class BalancedBatchSampler(BatchSampler):
    """Batches of keys for `DataLoader(dataset, batch_sampler=...)` with as many samples of every class.

    Of K classes, K keys in a row are one of each.  So a batch_size that is a multiple of K has every class the same
    number of times in each batch of each rank; another has them even but for two samples, and a smaller one has no
    class twice in a whole block.  data: what has labels.  num_samples: keys in an epoch; as many as there are samples
    by default.  All else is as `gpuaug.data.BatchSampler` has it: one sequence for all ranks, a function of seed and
    epoch alone, `occurrence` that tells repeats apart, a state that goes on from anywhere."""

    def __init__(
        self,
        data: Any,
        batch_size: int = 1,
        *,
        num_samples: int | None = None,
        seed: int = 0,
        drop_last: bool = True,
        views: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
    ):
        labels = labels_of(data)
        n = len(labels)
        length = n if num_samples is None else arguments.integer("num_samples", num_samples, 1, rng.MAX_ID)
        views = arguments.integer("views", views, 1, rng.MAX_OCCURRENCE)
        self._keep(Balanced(labels, n, length, views), batch_size, seed, drop_last, rank, world_size)
