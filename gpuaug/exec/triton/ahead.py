"""The kernels of a call, compiled side by side before it is made."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from typing import Any

import torch
from gpuaug_kernels import bind, launch, named_card
from torch import Tensor

from gpuaug.images import Images, Ragged

# a device of tensors without memory: nothing that a call does there reaches the card
_NOWHERE = torch.device("meta")


def compile_ahead(
    run: Callable[[Any, Any, Tensor], None],
    images: Images,
    labels: Any,
    progress: Callable[[int, int], Any] | None = None,
) -> int:
    """Compile what a call with such images launches, in as many threads as there are cores: how many kernels.

    run: the call, of images, labels and ids.  What it would do only with values at hand is left to the first real
    call."""
    with bind.collecting() as launches:
        # a transform of a user may look at values, which are not there: the real call says what is wrong, if it is
        with suppress(Exception):
            _on_nothing(run, images, labels)
    return _compile(launches, progress)


def compile_for(
    target: str,
    run: Callable[[Any, Any, Tensor], None],
    images: Images,
    labels: Any,
    progress: Callable[[int, int], Any] | None = None,
) -> int:
    """The same for a card that need not be here, "cuda:90" for compute capability 9.0, into Triton's cache.

    Raises RuntimeError where kernels are interpreted; and whatever the call raises, since no real call follows"""
    if launch.interpreted():
        raise RuntimeError(
            "kernels are interpreted and not compiled, got TRITON_INTERPRET=1; unset it and start Python again"
        )
    with named_card.compiling_for(target), bind.collecting() as launches:
        _on_nothing(run, images, labels)
        return _compile(launches, progress)


def _on_nothing(run: Callable[[Any, Any, Tensor], None], images: Images, labels: Any) -> None:
    """A call with such images, of which none has memory."""
    run(_blank(images), _blank(labels), torch.empty(len(images), dtype=torch.int64, device=_NOWHERE))


def _compile(launches: list[bind.Bound.Job], progress: Callable[[int, int], Any] | None) -> int:
    """What launches need, side by side: how many kernels."""
    jobs = list({(id(one), _kind(arguments)): (one, grid, arguments) for one, grid, arguments in launches}.values())
    if progress is not None:
        progress(0, len(jobs))
    with ThreadPoolExecutor(min(len(jobs), os.cpu_count() or 1) or 1) as pool:
        # the longest first: the draws, which come first anyway
        waiting = [pool.submit(one.compile, grid, arguments) for one, grid, arguments in jobs]
        for done, one in enumerate(as_completed(waiting), 1):
            one.result()
            if progress is not None:
                progress(done, len(jobs))
    return len(jobs)


def _kind(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What tells two launches of one kernel apart."""
    return tuple(a.dtype if isinstance(a, Tensor) else a for a in arguments)


def _blank(value: Any) -> Any:
    """The same without memory."""
    if isinstance(value, Ragged):
        return value.mapped(_blank)
    if isinstance(value, Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=_NOWHERE)
    return value
