"""What a source has beside each image, as a batch has it."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug.arrays import is_tv
from gpuaug.batch import Batch

# what of a Batch is no target
_OWN = {"images", "ids", "epoch", "occurrence", "key", "valid", "params"}
FIELDS = frozenset(f.name for f in fields(Batch)) - _OWN


def as_targets(targets: Any, transform: Callable[[Any], Any] | None = None) -> Any:
    """Class numbers and rows of numbers as one tensor, None as it is, and all else as a list, one for each sample; of
    dicts by the names of a Batch's fields, such as "labels", each field so.

    transform: called with every target that there is.  A sample without one has the class 0, or a row of zeros, where
    others have numbers: it is no sample that counts."""
    if targets is None:
        return None
    if transform is not None:
        targets = [None if t is None else transform(t) for t in targets]
    if isinstance(targets, np.ndarray):
        # of its own: rows that a source holds are not given away
        return torch.from_numpy(np.array(targets))
    there = [t for t in targets if t is not None]
    if not there:
        return None
    if all(isinstance(t, dict) and t and t.keys() <= FIELDS for t in there):
        names = dict.fromkeys(name for t in there for name in t)
        return {name: as_targets([None if t is None else t.get(name) for t in targets]) for name in names}
    if all(isinstance(t, Integral) for t in there):
        return torch.tensor([0 if t is None else int(t) for t in targets], dtype=torch.int64)
    if all(isinstance(t, Real) for t in there):
        return torch.tensor([0.0 if t is None else float(t) for t in targets], dtype=torch.float32)
    return _rows(targets, there)


def _rows(targets: Sequence[Any], there: Sequence[Any]) -> Any:
    """Tensors and arrays of one shape of at most one axis in one tensor; else the list."""
    if not all((isinstance(t, Tensor) and not is_tv(t)) or isinstance(t, np.ndarray) for t in there):
        return list(targets)
    tensors = [t if isinstance(t, Tensor) else torch.from_numpy(np.array(t)) for t in there]
    kinds = {(tuple(t.shape), t.dtype) for t in tensors}
    if len(kinds) > 1 or tensors[0].ndim > 1:
        return list(targets)
    rows, blank = iter(tensors), torch.zeros_like(tensors[0])
    return torch.stack([blank if t is None else next(rows) for t in targets])


def given(targets: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a Batch that targets become: those that a policy must see, and those that go past it.

    It sees numbers, which a mix mixes, and whatever may lie among the pixels; not names and captions."""
    named = targets if isinstance(targets, dict) else {} if targets is None else {"labels": targets}
    past = {
        name: value
        for name, value in named.items()
        if isinstance(value, list) and all(isinstance(v, str | None) for v in value)
    }
    return {name: value for name, value in named.items() if name not in past}, past
