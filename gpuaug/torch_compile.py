"""A policy inside `torch.compile`: one opaque operator, so that the user's graph does not break.

The operator takes tensors and an integer that stands for the policy; what it makes is known from the policy and the input's shape.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

# handles are never used twice in a process, and a policy that is gone is forgotten
_handles = count(1)
_policies: WeakValueDictionary[int, Any] = WeakValueDictionary()


def register(policy: Any) -> int:
    """A new handle for a policy."""
    handle = next(_handles)
    _policies[handle] = policy
    return handle


@torch.library.custom_op("gpuaug::policy", mutates_args=("next_id",))
def run(
    images: Tensor,
    labels: Tensor | None,
    ids: Tensor | None,
    epoch: Tensor | None,
    occurrence: Tensor | None,
    next_id: Tensor,
    handle: int,
    epoch_number: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Augmented images and labels; without labels the second is empty."""
    policy = _policies[handle]
    out, soft = policy.augment(images, labels, ids, epoch_number if epoch is None else epoch, occurrence, backend, next_id)
    # an operator may not give back what it was given
    out = out.clone() if out.data_ptr() == images.data_ptr() else out
    rows = images.new_empty(0) if soft is None else soft
    given = rows is labels
    return out, rows.clone() if given else rows


@run.register_fake
def _(
    images: Tensor,
    labels: Tensor | None,
    ids: Tensor | None,
    epoch: Tensor | None,
    occurrence: Tensor | None,
    next_id: Tensor,
    handle: int,
    epoch_number: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    policy = _policies[handle]
    n, c, h, w = images.shape
    # while torch traces, tensors of this thread are fake; those of a new one are real
    with ThreadPoolExecutor(1) as pool:
        shape, dtype, classes = pool.submit(policy.outline, (int(c), int(h), int(w)), images.dtype).result()
    out = images.new_empty((n, *shape), dtype=dtype).contiguous(memory_format=policy.memory_format)
    if labels is None:
        return out, images.new_empty(0)
    if classes is None or labels.ndim == 2:
        return out, torch.empty_like(labels)
    return out, labels.new_empty((n, classes), dtype=torch.float32)


def call(policy: Any, images: Tensor, labels: Any, ids: Any, epoch: Any, occurrence: Any, backend: str) -> Any:
    """What `policy(...)` is while torch traces."""
    held, number = (epoch, 0) if isinstance(epoch, Tensor) else (None, epoch or 0)
    out, soft = run(images, labels, ids, held, occurrence, policy.next_id, policy.handle, number, backend)
    return out if labels is None else (out, soft)
