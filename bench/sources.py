"""The images that every contender gets, in the form that it takes, made before the clock runs."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def photographs(n: int, height: int, width: int, channels: int, seed: int = 7) -> list[np.ndarray]:
    """Pictures with the spectrum of photographs, a horizon of its own brightness each and a little grain: [H, W, C]
    uint8 arrays."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    falloff = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width))
    pictures = []
    for _ in range(n):
        phases = np.exp(2j * np.pi * rng.random((channels + 1, *falloff.shape)))
        waves = np.fft.irfft2(phases * falloff, (height, width))
        waves = 0.7 * waves[-1] / waves[-1].std() + 0.3 * waves[:-1] / waves[:-1].std((1, 2), keepdims=True)
        light = rng.uniform(0.35, 0.65) + rng.uniform(-0.2, 0.2) * np.linspace(-1, 1, height)[:, None]
        values = light + 0.18 * waves + rng.normal(0, 0.015, waves.shape)
        pictures.append(np.ascontiguousarray((values.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)))
    return pictures


@dataclass(frozen=True, eq=False)
class Source:
    """One batch, the same pixels in every form.  Each form is made when first asked for and kept."""

    arrays: list[np.ndarray]  # [H, W, C] uint8
    floats: bool
    device: torch.device

    def __len__(self) -> int:
        return len(self.arrays)

    @cached_property
    def channels_last(self) -> Tensor:
        """[N, C, H, W] in channels_last memory, as a decoder's batch is: uint8, or float32 in [0, 1]."""
        stacked = torch.from_numpy(np.stack(self.arrays)).to(self.device).permute(0, 3, 1, 2)
        return (stacked / 255).contiguous() if self.floats else stacked

    @cached_property
    def planar(self) -> Tensor:
        """[N, C, H, W] contiguous."""
        return self.channels_last.contiguous()

    @cached_property
    def images(self) -> list[Tensor]:
        """[C, H, W] contiguous, one tensor an image."""
        return [i.clone() for i in self.planar]

    @cached_property
    def hwc(self) -> list[np.ndarray]:
        """[H, W, C] arrays: uint8, or float32 in [0, 1]."""
        return [a.astype(np.float32) / 255 for a in self.arrays] if self.floats else self.arrays

    @cached_property
    def hwc_on_device(self) -> list[Tensor]:
        """[H, W, C] contiguous tensors on the device."""
        return list(self.channels_last.permute(0, 2, 3, 1).contiguous())

    @cached_property
    def pil(self) -> list[Image.Image]:
        """Pillow images."""
        return [Image.fromarray(a if a.shape[2] == 3 else a[:, :, 0]) for a in self.arrays]

    @cached_property
    def labels(self) -> Tensor:
        """Class numbers for what mixes them."""
        return torch.arange(len(self.arrays), device=self.device) % 5

    def take(self, i: int) -> "Source":
        """A batch of one image."""
        return Source([self.arrays[i]], self.floats, self.device)


def make(workload: Any, device: torch.device) -> Source:
    """The batch of a workload; large batches repeat 64 pictures."""
    own = photographs(min(workload.batch, 64), *workload.size, workload.channels)
    return Source([own[i % len(own)] for i in range(workload.batch)], workload.floats, device)
