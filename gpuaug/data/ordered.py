"""The order of a source's samples, from what a loader is asked for and what the source knows."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpuaug.data import order as orders
from gpuaug.data.order import Order
from gpuaug.data.source import Source


def order_of(source: Source, *, shuffle: bool, order: str, weights: Any) -> Order:
    """As `gpuaug.data.BatchSampler` takes them; the labels and shards are the source's."""
    labels = shards = None
    if weights is not None:
        labels = source.labels
        if (labels is None or labels.ndim != 1 or labels.dtype.kind == "f") and shuffle and order == "samples":
            raise ValueError(
                "weights need the class of every sample before it is read, and this source has none; pass a folder of "
                "class folders, a list of (path, label), or a data set with `targets`"
            )
        if isinstance(weights, Mapping) and source.classes is not None:
            number = {name: k for k, name in enumerate(source.classes)}
            unknown = [name for name in weights if isinstance(name, str) and name not in number]
            if unknown:
                raise ValueError(
                    f"weights name the class {unknown[0]!r}, and there are {', '.join(source.classes[:20])}"
                )
            twice = [name for name in weights if isinstance(name, str) and number[name] in weights]
            if twice:
                raise ValueError(f"weights have class {twice[0]!r} twice, as {number[twice[0]]} too; leave out one")
            weights = {number.get(name, name): weight for name, weight in weights.items()}
    if order == "shards":
        starts = getattr(source, "starts", None)
        if starts is None:
            raise ValueError("order='shards' is for tar shards, and this source has none; pass order='samples'")
        shards = np.diff(starts)
    return orders.make(
        len(source),
        shuffle=shuffle,
        order=order,
        shards=shards,
        weights=weights,
        labels=labels,
        names=None if weights is None else source.classes,
    )
