"""Code that runs twice: on tensors that hold values, and on symbols of tensors that do not exist yet.

A policy runs `sample` and `lower` of its transforms once with symbols in place of a batch, to record a program that
draws every later batch (`gpuaug.trace`).  A symbol has a shape and a dtype but no values, so code that both kinds of
tensor reach must not look at values.  Where it has to, it goes through this module:

    is_symbolic(x)          whether x has no values to look at
    require(holds, refuse)  a check of values: now for a tensor, by the recorded program for a symbol
    smooth("exp", x)        exp, log, sin, cos, sqrt and round, with the same bits on either

This is the lowest module that knows of tracing, so that rng, transforms and executors can ask without importing the
tracer.  `gpuaug.trace` derives its symbols from `Symbolic`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Symbolic:
    """Base of everything that stands for a batch while it is traced: tensors and keys without values."""

    __slots__ = ()

    def require(self) -> None:
        """Make the trace check, for every batch to come, that this, [N] bool, holds for each sample."""
        raise TypeError(f"a {type(self).__name__} is no truth value")


def is_symbolic(value: Any) -> bool:
    """Whether a value stands for those of any batch, and has none of its own."""
    return isinstance(value, Symbolic)


def require(holds: Any, refuse: Callable[[], Exception]) -> None:
    """Raise what `refuse` makes unless `holds`, [N] bool, is true everywhere.

    A symbol is written down instead: the recorded program finds the value for each batch, and where one is false the
    batch is drawn step by step, which comes back here.  Values on a GPU are not looked at: that would make the host
    wait for the device."""
    if is_symbolic(holds):
        holds.require()
    elif holds.device.type == "cpu" and not bool(holds.all()):
        raise refuse()


def smooth(function: str, x: Tensor) -> Tensor:
    """sqrt, round, exp, log, sin or cos of float64, in one thread and with the same bits wherever a value stands.

    Not torch's own on a host: its vectorised exp, log, sin and cos differ in the last bit with a value's place in the
    tensor, and so with the batch; and for a few hundred values it wakes a team of threads that wait for one another by
    spinning, which takes as long as augmenting the images where other work has the cores.  The interpreter of traces
    calls the same library, so that both agree to the last bit."""
    if is_symbolic(x) or x.device.type != "cpu":
        out: Tensor = getattr(torch, function)(x)
        return out
    if function in ("sqrt", "round"):
        with np.errstate(all="ignore"):
            return torch.from_numpy(getattr(np, function)(x.numpy()))
    # imports Numba: only when something is computed
    from gpuaug.rng import host

    return torch.from_numpy(host.apply(function, x.numpy()))
