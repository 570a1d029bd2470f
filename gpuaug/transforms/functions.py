"""Functions of a user's own.  All lower to `ir.Custom`, which every executor runs as it is, on the whole batch.

They are not in the registry of transforms: a function has no arguments that a file could hold."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gpuaug import ir
from gpuaug.transforms.base import Drawn, Transform

__all__ = ["Custom", "Lambda"]


def wrapping(value: Any) -> str:
    """What to do with a function or module where a transform is expected; empty for anything else."""
    if isinstance(value, type) or not callable(value):
        return ""
    if type(value).__module__.split(".")[0] == "torchvision":
        return "gpuaug.from_torchvision takes a pipeline of torchvision's"
    return (
        "write gpuaug.Custom(function) for a function or module of the whole batch, gpuaug.Lambda(function) for one of "
        "an image"
    )


def _callable(name: str, value: Any) -> Callable[..., Any]:
    if isinstance(value, type) or not callable(value):
        raise TypeError(f"{name} must be a function or a torch module, got {value!r}")
    function: Callable[..., Any] = value
    return function


def _named(function: Any) -> str:
    """What a function is called."""
    return getattr(function, "__qualname__", None) or type(function).__name__


def _same_shape(name: str, got: Any, images: Tensor) -> Tensor:
    if not isinstance(got, Tensor) or got.shape != images.shape:
        shown = f"shape {tuple(got.shape)}" if isinstance(got, Tensor) else type(got).__name__
        raise ValueError(f"{name} must return images of the shape that it got, {tuple(images.shape)}, got {shown}")
    return got.to(images.dtype)


@dataclass(frozen=True)
class Custom(Transform):
    """A function or torch module of the whole batch: float32 [N, C, H, W], values in [0, 1] of uint8 images, to the
    same shape.

    It has no random numbers of gpuaug: what it draws by itself depends on the batch.  For draws keyed by the sample
    write a `Transform`."""

    function: Callable[[Tensor], Tensor]
    checks = {"function": _callable}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        name = _named(self.function)
        return (ir.Custom(lambda images: _same_shape(name, self.function(images), images), name),)


@dataclass(frozen=True)
class Lambda(Transform):
    """A function of one image, as torchvision's Lambda has it: it gets each image as a tensor [C, H, W] of the dtype
    that it has there, and returns one of the same shape and dtype.

    Slower than `Custom`, which gets the whole batch at once.  Types, which torchvision's takes after the function, mean
    nothing here: a policy applies it to images."""

    lambd: Callable[[Tensor], Tensor]
    types: tuple[type, ...] = field(default=(), repr=False)
    checks = {"lambd": _callable}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        name, dtype = _named(self.lambd), frame.dtype
        # what an integer image would hold here; executors have it as floats
        largest = None if dtype.is_floating_point else torch.iinfo(dtype).max

        def each(images: Tensor) -> Tensor:
            out = []
            for image in images:
                given = image.to(dtype) if largest is None else (image * largest).round().to(dtype)
                made = _same_shape(name, self.lambd(given), given)
                out.append(made.float() if largest is None else made.float() / largest)
            return torch.stack(out) if out else images

        return (ir.Custom(each, name),)


def functions_in(transform: Transform) -> list[Transform]:
    """The functions of a user's own that a transform is or holds."""
    own: list[Transform] = [transform] if isinstance(transform, Custom | Lambda) else []
    return own + [f for c in transform.children for f in functions_in(c)]
