"""Augmentations of Kornia inside a policy.  All lower to `ir.Custom`.

Kornia draws from torch's global generator and a whole batch at a time.  Here every sample has its own call of the
module, under the generator seeded by a keyed draw, and the global state is put back: what a sample gets does not depend
on its batch, and nobody else's random numbers move."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gpuaug import ir
from gpuaug.rng import Draw
from gpuaug.transforms.base import Drawn, Transform

__all__ = ["Kornia"]


def _module(name: str, value: Any) -> nn.Module:
    if not isinstance(value, nn.Module):
        raise TypeError(
            f"{name} must be a module of kornia.augmentation, got {value!r}; pass an instance, such as "
            "kornia.augmentation.RandomMotionBlur(5, 35.0, 0.5)"
        )
    for part in value.modules():
        classes = {c.__name__ for c in type(part).__mro__}
        called = type(part).__name__
        # RandomJigsaw is one by its class, and moves pieces of one image
        if "MixAugmentationBaseV2" in classes and called != "RandomJigsaw":
            raise ValueError(
                f"{called} puts several samples together, and here each is by itself; use gpuaug.MixUp or gpuaug.CutMix"
            )
        if classes & {"AugmentationBase3D", "RigidAffineAugmentationBase3D", "VideoSequential"}:
            raise ValueError(f"{called} is for volumes or videos, and here are images; a policy takes videos itself")
    return value


@dataclass(frozen=True)
class Kornia(Transform):
    """A module of kornia.augmentation, or an nn.Sequential or AugmentationSequential of such, drawn for each sample by
    its key.

    It gets float32 images, [1, C, H, W], one after the other, values in [0, 1] of uint8 images, and must keep their
    size and channels.  On a GPU the host waits for the seeds.  Masks, boxes and keypoints stay as they are where every
    part of the module is one of Kornia's for intensities, and are refused otherwise."""

    module: nn.Module
    checks = {"module": _module}

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        """The seed of each sample, [N] int64."""
        return {"seed": draw.words(1)[:, 0]}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        # read here, so that no recipe is made of a function that holds them
        seeds = params["seed"].tolist()
        return (ir.Custom(lambda images: self._each(images, seeds), repr(self), not _of_intensity(self.module)),)

    def _each(self, images: Tensor, seeds: list[int]) -> Tensor:
        out = torch.empty_like(images, memory_format=torch.contiguous_format)
        with _generators(images.device) as seeded, torch.no_grad():
            for n, seed in enumerate(seeds):
                seeded(seed)
                made = self.module(images[n : n + 1].clone())
                if not isinstance(made, Tensor) or made.shape != images[n : n + 1].shape:
                    got = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
                    raise ValueError(
                        f"{type(self.module).__name__} must keep the shape of an image, {(1, *images.shape[1:])}, got "
                        f"{got}; crop and resize by gpuaug, such as RandomResizedCrop"
                    )
                out[n] = made[0]
        return out

    def __repr__(self) -> str:
        return f"Kornia({' '.join(repr(self.module).split())})"


def _of_intensity(module: nn.Module) -> bool:
    """Whether no part of a module moves a pixel, by Kornia's own classes."""
    leaves = [m for m in module.modules() if any(c.__name__ == "_AugmentationBase" for c in type(m).__mro__)]
    return bool(leaves) and all(
        any(c.__name__ == "IntensityAugmentationBase2D" for c in type(m).__mro__) for m in leaves
    )


@contextmanager
def _generators(device: torch.device) -> Iterator[Any]:
    """A function that seeds torch's generators, of the host and of a device, whose states come back at the end."""
    own = [torch.default_generator]
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        own.append(torch.cuda.default_generators[device.index or 0])
    states = [g.get_state() for g in own]

    def seeded(seed: int) -> None:
        for g in own:
            g.manual_seed(seed)

    try:
        yield seeded
    finally:
        for g, state in zip(own, states, strict=True):
            g.set_state(state)
