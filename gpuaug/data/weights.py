"""The order of weighted classes: every class has a quota of an epoch's draws, exactly, and goes through its samples as
evenly as can be.

Position p is the draw v = perm(p) of the epoch.  The draws of a class lie next to each other, and the k-th is the
sample perm(k mod N) of its N samples, in an order of its own for every round k // N, which is the sample's occurrence
too: a sample that is drawn four times is augmented four ways.  Nothing is listed but the ids by class."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from gpuaug import arguments, rng
from gpuaug.data import permutation
from gpuaug.data.permutation import Ints, Permutation, Permutations


class Weighted:
    """Draws by class.

    names: of classes 0, 1, ..., for messages.
    labels: [n], the class of each sample, integers or strings.  weights: the share of each class, as a mapping from
    classes, as a sequence for classes 0, 1, ..., or "balanced", which is the same share for all.  length: draws in an
    epoch."""

    striped = False

    def __init__(
        self, labels: Any, weights: Any, n: int, length: int, views: int = 1, names: Sequence[str] | None = None
    ):
        self.length, self.views, self.samples = length, views, n
        self.classes, member = np.unique(as_classes(labels, n), return_inverse=True)
        self.counts = np.bincount(member).astype(np.int64)
        # the ids of each class lie together, in ascending order
        self.ids = np.argsort(member, kind="stable").astype(np.int32 if n < 1 << 31 else np.int64)
        self.first = np.cumsum(self.counts) - self.counts
        called = partial(_called, names)
        self.quotas = quotas(_shares(weights, self.classes, n, called), length)
        self._check(called)
        self.ends = np.cumsum(self.quotas)
        self._digest = hashlib.sha256(b"".join(x.astype("<i8").tobytes() for x in (member, self.quotas))).hexdigest()[
            :16
        ]

    def _check(self, called: Callable[[Any], str]) -> None:
        for c in np.flatnonzero(self.quotas < 1)[:1]:
            short = f"class {called(self.classes[c].item())} would have none of the {self.length} draws of an epoch"
            raise ValueError(
                f"{short}; give it a larger weight, give num_samples more, or leave its samples out of the data set"
            )
        most = rng.MAX_OCCURRENCE // self.views
        c = int(np.argmax(self.quotas / self.counts))
        if self.quotas[c] > self.counts[c] * most:
            asked = f"class {called(self.classes[c].item())} has {self.counts[c]} samples for {self.quotas[c]} draws"
            views = f" with {self.views} views" if self.views > 1 else ""
            raise ValueError(
                f"{asked}: more than {most - 1} repeats of a sample{views} in an epoch; give it less weight, or "
                "more samples"
            )

    def epoch(self, seed: int, epoch: int) -> "WeightedEpoch":
        return WeightedEpoch(self, seed, epoch)

    def about(self) -> dict[str, Any]:
        classes = {"classes": len(self.classes), "labels_and_weights": self._digest, "views": self.views}
        return {"order": "samples", "samples": self.samples, "shuffle": True, "draws": self.length, **classes}

    def adopt(self, about: dict[str, Any]) -> "Weighted":
        return self


class WeightedEpoch:
    """The draws of one epoch."""

    def __init__(self, of: Weighted, seed: int, epoch: int):
        self._of = of
        self._draws = Permutation(seed, epoch, permutation.DRAWS, of.length)
        self._members = Permutations(seed, epoch, permutation.CLASSES)

    def at(self, positions: Ints) -> tuple[Ints, Ints]:
        """Ids and occurrences at positions in [0, length), of any shape."""
        of, draw = self._of, self._draws(np.asarray(positions).reshape(-1))
        c = np.searchsorted(of.ends, draw, "right")
        size = of.counts[c]
        occurrence, index = np.divmod(draw - (of.ends[c] - of.quotas[c]), size)
        ids = of.ids[of.first[c] + self._members(c * rng.MAX_OCCURRENCE + occurrence, size, index)].astype(np.int64)
        return ids.reshape(positions.shape), (occurrence * of.views).reshape(positions.shape)


def quotas(shares: Sequence[float], length: int) -> Ints:
    """`length` draws by largest remainder (Hamilton's method): integers, within one of the exact share.  Equal
    remainders go by class."""
    exact = np.asarray(shares, np.float64) / math.fsum(shares) * length
    whole = np.floor(exact)
    by_remainder = np.argsort(whole - exact, kind="stable")
    short = length - int(whole.sum())
    # rounding can make a sum of whole parts too large by a draw
    whole[by_remainder[:short] if short >= 0 else by_remainder[short:]] += np.sign(short)
    return whole.astype(np.int64)


def as_classes(labels: Any, n: int) -> np.ndarray[Any, Any]:
    """The class of each of n samples, integers or strings: [n]."""
    if hasattr(labels, "detach"):
        labels = labels.detach().cpu().numpy()
    values = np.asarray(labels)
    if values.ndim != 1 or values.dtype.kind not in "iubU":
        raise TypeError(
            f"labels must be one class for each sample, integers or strings, got {values.dtype} of shape {values.shape}"
        )
    if len(values) != n:
        raise ValueError(f"labels must be one for each of {n} samples, got {len(values)}")
    return values


def _called(names: Sequence[str] | None, c: Any) -> str:
    """What people call a class."""
    return repr(c) if names is None or not isinstance(c, int) or not 0 <= c < len(names) else f"{c} ({names[c]})"


def _shares(weights: Any, classes: np.ndarray[Any, Any], n: int, called: Callable[[Any], str] = repr) -> list[float]:
    """One weight for each class that occurs, in their order."""
    names = classes.tolist()
    known = set(names)
    if isinstance(weights, str):
        if weights != "balanced":
            raise ValueError(f"weights must be 'balanced' or a weight for each class, got {weights!r}")
        return [1.0] * len(names)
    if isinstance(weights, Mapping):
        given = dict(weights)
    else:
        values = arguments.numbers("weights", weights.detach().cpu() if hasattr(weights, "detach") else weights)
        if len(values) == n != len(names):
            by_class = "give samples of one weight a label of their own, and the label a weight"
            raise ValueError(
                f"weights are by class, and {n} were given for {n} samples of {len(names)} classes; {by_class}"
            )
        if not all(isinstance(c, int) and 0 <= c < len(values) for c in names):
            raise ValueError(
                f"weights of classes 0 to {len(values) - 1} were given, and labels run from {names[0]!r} to "
                f"{names[-1]!r}; pass a mapping"
            )
        # a class without samples may have the weight 0, because it has a place in the sequence all the same
        given = {c: w for c, w in enumerate(values) if c in known or w}
    missing, unknown = [c for c in names if c not in given], [c for c in given if c not in known]
    if missing:
        raise ValueError(f"weights have none for class {called(missing[0])}; give every class of the labels a weight")
    if unknown:
        raise ValueError(f"weights name class {called(unknown[0])}, of which there is no sample")
    for c in names:
        if arguments.number(f"the weight of class {called(c)}", given[c], 0.0) == 0.0:
            raise ValueError(
                f"the weight of class {called(c)} is 0, so it would never be drawn; leave its samples out of the data "
                "set"
            )
    return [float(given[c]) for c in names]
