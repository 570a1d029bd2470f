"""A policy in parts, with the draws that the whole has: its first transforms, and all but some.

Draws are keyed by a transform's slot, so that the first k transforms draw as in the whole policy, and so do those that
stay where others are left out, once something takes the slots of these."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from gpuaug import ir
from gpuaug.batch import Batch
from gpuaug.images import Ragged, as_images
from gpuaug.policy import Policy
from gpuaug.rng import Draw
from gpuaug.transforms import Normalize, Resize, Transform
from gpuaug.transforms.base import Drawn


@dataclass(frozen=True)
class Instead(Transform):
    """Stands in the slots of another transform and does nothing, or resizes where that one fixed the size."""

    of: Transform
    size: tuple[int, int] | None = None

    @property
    def children(self) -> tuple[Transform, ...]:
        return self.of.children

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        return {}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return () if self.size is None else Resize(self.size).lower(params, frame, slot)

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        return frame if self.size is None else Resize(self.size).after(frame, params)


def of(policy: Policy, transforms: Any) -> Policy:
    """A policy of other transforms with the seed and the options of this one."""
    return Policy(
        transforms,
        seed=policy.seed,
        memory_format=policy.memory_format,
        single_resample=policy.single_resample,
    )


def one_view(policy: Policy, what: str) -> None:
    """Raise ValueError for a policy of several fixed views, of which `what` would have to be said one by one."""
    if policy.fixed_views:
        raise ValueError(
            f"{what} is of one view, and this policy has {policy.fixed_views} fixed ones; leave out what makes them, "
            "such as FiveCrop"
        )


def switchable(policy: Policy, batch: Batch) -> dict[int, Instead]:
    """Place of each transform that can be left out, and what stands for it: all but those that convert values, number
    the channels otherwise, or only resize."""
    one_view(policy, "what a transform does")
    source = as_images(batch.images)
    params = draws(policy, batch, 0)
    frame = ir.Frame(params.size[:1], params.fixed, _channels(source), source.dtype)
    out: dict[int, Instead] = {}
    for i, (t, values) in enumerate(zip(policy.transforms, params, strict=True)):
        after = t.after(frame, _first(values))
        kept = (after.channels, after.dtype) == (frame.channels, frame.dtype)
        if kept and not isinstance(t, Normalize | Resize):
            out[i] = Instead(t, after.fixed if after.fixed != frame.fixed else None)
        frame = after
    return out


def _first(values: Any) -> Any:
    """What was drawn, for the first sample alone."""
    if isinstance(values, dict):
        return {k: _first(v) for k, v in values.items()}
    if isinstance(values, list):
        return [_first(v) for v in values]
    return values[:1] if isinstance(values, torch.Tensor) and values.ndim else values


def _channels(source: Any) -> int:
    return int(source.channels if isinstance(source, Ragged) else source.shape[1])


def without(policy: Policy, places: Collection[int], stand: dict[int, Instead]) -> Policy:
    """The policy without the transforms of some places, as `switchable` has them."""
    return of(policy, [stand[i] if i in places else t for i, t in enumerate(policy.transforms)])


def draws(policy: Policy, batch: Batch, epoch: int) -> Any:
    """What a policy draws for a batch."""
    source = as_images(batch.images)
    n = len(source)
    size: Any = source.size if isinstance(source, Ragged) else (int(source.shape[2]), int(source.shape[3]))
    who = {name: None if value is None else torch.as_tensor(value).to(source.device) for name, value in (
        ("occurrence", batch.occurrence), ("valid", batch.valid), ("labels", batch.labels if policy._by_class else None)
    )}  # fmt: skip
    ids = torch.arange(n, device="cpu") if batch.ids is None else torch.as_tensor(batch.ids)
    return policy.draw(
        ids.to(source.device),
        epoch=epoch,
        size=size,
        channels=_channels(source),
        dtype=source.dtype,
        key=batch.key,
        **who,
    )


def prefixes(policy: Policy, batch: Batch, epoch: int) -> Iterator[tuple[int, list[Batch] | None]]:
    """(k, what the first k transforms make of each sample, a Batch of one each), from 1 on; None while they leave
    images of a size that nothing fixes."""
    one_view(policy, "a column a transform")
    whole = batch.replace(epoch=epoch)
    for k in range(1, len(policy.transforms) + 1):
        first = of(policy, policy.transforms[:k])
        yield k, _made(first, whole)


def _made(policy: Policy, batch: Batch) -> list[Batch] | None:
    n = len(batch)
    try:
        out = policy(batch)
    except ValueError as error:
        if "different sizes" not in str(error):
            raise
    else:
        return [out[i : i + 1] for i in range(n)]
    # one by one each has a size of its own
    alone = []
    for i in range(n):
        one = batch[i : i + 1]
        images = one.images.dense() if isinstance(one.images, Ragged) else one.images
        try:
            alone.append(policy(one.replace(images=images)))
        except ValueError as error:
            if "different sizes" not in str(error):
                raise
            return None
    return alone
