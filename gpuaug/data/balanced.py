"""The order of balanced classes: of K classes, K positions in a row have one sample of each.

Position p is place p modulo K of block p // K; a permutation of the block says which class stands there.  Block b takes
the b-th draw of every class, and the k-th draw of a class is the sample perm(k mod N) of its N samples, in an order of
its own for every round k // N, which is the sample's occurrence too.  So no batch is known here: any B positions in a
row have every class B // K times at least where they begin a block, and at most twice more than that anywhere."""

import hashlib
from typing import Any

import numpy as np

from gpuaug import rng
from gpuaug.data import permutation
from gpuaug.data.permutation import Ints, Permutations
from gpuaug.data.weights import as_classes


class Balanced:
    """As many draws of every class, in every stretch of positions.

    labels: [n], the class of each sample, integers or strings.  length: draws in an epoch."""

    striped = False

    def __init__(self, labels: Any, n: int, length: int, views: int = 1):
        self.length, self.views, self.samples = length, views, n
        self.classes, member = np.unique(as_classes(labels, n), return_inverse=True)
        self.counts = np.bincount(member).astype(np.int64)
        # the ids of each class lie together, in ascending order
        self.ids = np.argsort(member, kind="stable").astype(np.int64)
        self.first = np.cumsum(self.counts) - self.counts
        few, most = int(self.counts.min()), rng.MAX_OCCURRENCE // views
        draws = -(-length // len(self.counts))
        if draws > few * most:
            name = self.classes[int(np.argmin(self.counts))].item()
            raise ValueError(
                f"class {name!r} has {few} samples for {draws} draws: more than {most - 1} repeats of a sample in an "
                "epoch; give num_samples less, or the class more samples"
            )
        self._digest = hashlib.sha256(member.astype("<i8").tobytes()).hexdigest()[:16]

    def epoch(self, seed: int, epoch: int) -> "BalancedEpoch":
        return BalancedEpoch(self, seed, epoch)

    def about(self) -> dict[str, Any]:
        classes = {"classes": len(self.classes), "labels": self._digest, "views": self.views}
        return {"order": "balanced", "samples": self.samples, "shuffle": True, "draws": self.length, **classes}

    def adopt(self, about: dict[str, Any]) -> "Balanced":
        return self


class BalancedEpoch:
    """The draws of one epoch."""

    def __init__(self, of: Balanced, seed: int, epoch: int):
        self._of = of
        self._blocks = Permutations(seed, epoch, permutation.BLOCKS)
        self._members = Permutations(seed, epoch, permutation.CLASSES)

    def at(self, positions: Ints) -> tuple[Ints, Ints]:
        """Ids and occurrences at positions in [0, length), of any shape."""
        of, k = self._of, len(self._of.counts)
        block, place = np.divmod(np.asarray(positions, np.int64).reshape(-1), k)
        c = self._blocks(block, np.full_like(block, k), place)
        size = of.counts[c]
        occurrence, index = np.divmod(block, size)
        ids = of.ids[of.first[c] + self._members(c * rng.MAX_OCCURRENCE + occurrence, size, index)]
        return ids.reshape(positions.shape), (occurrence * of.views).reshape(positions.shape)
