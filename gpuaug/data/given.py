"""What both loaders are given alike, checked once, and what they ask of a policy."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import torch

from gpuaug import arguments
from gpuaug.batch import Batch
from gpuaug.data.device import place as device_place
from gpuaug.data.share import Share, check_place, place
from gpuaug.data.source import digest

# of which frameworks make a plain DataLoader, that would neither decode nor augment
_NOT_HERE = ("dataset", "sampler", "batch_sampler", "collate_fn")

Policy = Callable[[Batch], Batch | list[Batch]]


class Given(NamedTuple):
    """Arguments of a loader, as it keeps them."""

    policy: Policy | None
    batch_size: int
    epochs: int | None
    drop_last: bool
    device: torch.device
    rank: int | None
    world_size: int | None
    target_transform: Callable[[Any], Any] | None

    def share(self) -> Share:
        """What this rank takes, which torch.distributed may know only later."""
        return Share(*place(self.rank, self.world_size), self.batch_size, self.drop_last)


def checked(
    policy: Any,
    batch_size: Any,
    epochs: Any,
    drop_last: Any,
    device: Any,
    rank: Any,
    world_size: Any,
    target_transform: Any,
) -> Given:
    """Raise ValueError or TypeError for an argument that is none."""
    if policy is not None and not callable(policy):
        raise TypeError(f"policy must be callable with a gpuaug.Batch, or None, got {type(policy).__name__}")
    if target_transform is not None and not callable(target_transform):
        raise TypeError(f"target_transform must be callable, or None, got {type(target_transform).__name__}")
    size = arguments.integer("batch_size", batch_size, 1)
    number = None if epochs is None else arguments.integer("epochs", epochs, 1)
    last = arguments.flag("drop_last", drop_last)
    check_place(rank, world_size)
    return Given(policy, size, number, last, device_place(device), rank, world_size, target_transform)


def augmented(policy: Policy, batch: Batch) -> Batch | list[Batch]:
    """What a policy makes of a batch, a batch or a list of views; TypeError where that is neither."""
    out = policy(batch)
    if isinstance(out, Batch) or (isinstance(out, list) and out and all(isinstance(v, Batch) for v in out)):
        return out
    raise TypeError(
        f"policy must give a gpuaug.Batch for a gpuaug.Batch, or a list of views, got {type(out).__name__}; return "
        "batch.replace(images=...)"
    )


def fingerprint(policy: Any) -> str | None:
    """Sixteen hexadecimal digits of what a policy is; of what can't be written down, its name."""
    if policy is None:
        return None
    # a transform of one's own may not be written down
    with suppress(TypeError, ValueError, AttributeError):
        return digest("policy", json.dumps(policy.to_dict(), sort_keys=True))
    return str(getattr(policy, "__qualname__", type(policy).__qualname__))


class Whole:
    """A loader that is no DataLoader, and has no parts to make one of."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            known = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name in _NOT_HERE:
                known += (
                    ": order, ranks and decoding are its own, and no DataLoader can be made of it; set_epoch() and "
                    "load_state_dict() say where it goes on"
                )
            raise AttributeError(known, name=name, obj=self)
