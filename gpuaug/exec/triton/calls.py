"""Calls of a kind that came before, made again by their launches alone (`gpuaug_kernels.calls`).

A kind is all that a call's launches depend on but addresses, the epoch and the words of the seed: read at every call,
so that whatever changes is another kind."""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from gpuaug_kernels import bind
from gpuaug_kernels.calls import Binding, BoundCall
from gpuaug_kernels.draws import words
from torch import Tensor

from gpuaug.gathered import Gathered
from gpuaug.images import Images, Ragged
from gpuaug.rng import Keys

# kinds that are remembered, and how often one that came again is watched until it is left as it is
_MOST, _TRIES = 256, 3


def again(
    known: dict[Hashable, Any],
    source: Images,
    labels: Tensor | None,
    keys: Keys,
    run: Callable[[Images], tuple[Tensor | None, ...]],
    sent: Any = None,
    more: tuple[Hashable, list[Tensor | None], Ragged | None] | None = None,
) -> tuple[Tensor | None, ...]:
    """Images, labels and more of a call, as `run` makes them of its source: by the launches of the call of this kind
    that was watched.

    known: of one policy, by kind: a BoundCall, or how often the kind came before there was one.  sent: an `ahead.Sent`,
    where the call draws nothing.  more: what `run` reads beside: values, tensors, and images"""
    if bind.watched():
        return run(source)
    device, epoch = source.device, keys.epoch
    # a card for which Triton compiles, where the device says none
    kind: list[Any] = [bind.current(device), torch.get_default_dtype()]
    given: list[Tensor] = []
    optional: tuple[Tensor | None, ...]
    if sent is not None:
        # all that was drawn is in memory, for windows too
        kind += (sent.filled.recipe, len(keys))
        given.append(sent.memory)
        optional, epoch = (keys.valid, labels), 0
    else:
        optional = (keys.ids, keys.occurrence, keys.labels, keys.valid, labels)
    if type(source) is Tensor:
        given.append(source)
    elif isinstance(source, Ragged):
        kind += (len(source), source.channels, source.dtype, source.way, source.windows is None)
        if sent is None:
            given.append(source.known())
    elif isinstance(source, Gathered) and source.packed:
        source = source.placed()
        kind += (source.shape, source.dtype)
        given.append(source.addresses)
    else:
        return run(source)
    if more is not None:
        values, tensors, masks = more
        kind.append(values)
        optional += (*tensors,)
        if masks is not None:
            kind += (len(masks), masks.channels, masks.dtype, masks.way)
            given.append(masks.known())
    for t in optional:
        if t is None:
            kind.append(None)
        else:
            kind.append(True)
            given.append(t)
    if isinstance(epoch, Tensor):
        given.append(epoch)
        epoch = 0
    for t in given:
        kind += (t.dtype, t.shape, t.stride(), t.data_ptr() & 15, t.requires_grad)
    key = tuple(kind)
    made = known.get(key, 0)
    numbers = (epoch, *words(keys.seed))
    if type(made) is BoundCall:
        done = made(device, given, numbers) if made.may_run else None
        return run(source) if done is None else tuple(done)
    return _watched(known, key, made, (device, given, numbers), lambda: run(source))


def _watched(
    known: dict[Hashable, Any],
    key: Hashable,
    times: int,
    about: tuple[torch.device, list[Tensor], tuple[int, ...]],
    run: Callable[[], tuple[Tensor | None, ...]],
) -> tuple[Tensor | None, ...]:
    """A call of a kind that is not bound: watched from the second of its kind on, when all is compiled."""
    if times > _TRIES:
        return run()
    for oldest in list(known)[: len(known) + 1 - _MOST] if not times else ():
        known.pop(oldest, None)
    known[key] = times + 1
    if not times or not bind.BOUND:
        return run()
    with Binding(*about) as binding:
        out = run()
    made = binding.bound(out)
    if made is not None:
        known[key] = made
    return out
