"""The dtypes that images may have, their ranges, and how those that no executor holds go through one as float32.

An integer stands for its share of the largest of its dtype, as in torchvision: 255 of uint8, 32767 of int16 and 65535
of uint16 are 1."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug import ir

# what executors read and write
NATIVE = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)
DTYPES = (*NATIVE, torch.float64, torch.int16, torch.uint16)
_NUMPY = {torch.float64: np.float64, torch.int16: np.int16, torch.uint16: np.uint16}


@cache
def largest(dtype: torch.dtype) -> float:
    """The value that stands for 1."""
    return 1.0 if dtype.is_floating_point else float(torch.iinfo(dtype).max)


def unit(images: Tensor) -> Tensor:
    """float32, integers taken to [0, 1]; always a copy, so that nothing that follows can reach the input."""
    return images.to(torch.float32, copy=True) if images.is_floating_point() else images.float() / largest(images.dtype)


def converted(images: Tensor, dtype: torch.dtype, scale: bool) -> Tensor:
    """Another dtype, and with `scale` another range, as torchvision's `to_dtype` computes it."""
    if images.dtype == dtype or not scale or (images.is_floating_point() and dtype.is_floating_point):
        return images.to(dtype)
    if dtype.is_floating_point:
        # float16 cannot represent 65535
        return (images.to(torch.promote_types(dtype, torch.float32)) * (1.0 / largest(images.dtype))).to(dtype)
    if images.is_floating_point():
        return _rounded(images, dtype)
    shift = _bits(dtype) - _bits(images.dtype)
    # in int32, for torch has no arithmetic of uint16
    whole = images.to(torch.int32)
    return (whole << shift if shift > 0 else whole >> -shift).to(dtype)


def _bits(dtype: torch.dtype) -> int:
    return torch.iinfo(dtype).max.bit_length()


def _rounded(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Values up to 1 as integers: every one has an equal share of the range.  In float64, because
    float32 cannot represent 65535.999."""
    lowest = torch.iinfo(dtype).min / largest(dtype)
    return (images.double().clamp(lowest, 1) * (largest(dtype) + 0.999)).to(torch.int32).to(dtype)


# ---- through an executor


@dataclass(frozen=True)
class Through:
    """How images of a dtype that no executor holds go through one, and what becomes of them.

    way: "bits": pixels that only move, as planes of 16 bits each, to the last bit; "native": the same once they are of
    a dtype that executors hold; "numbers": integers that are resampled, as the numbers that they are, rounded to the
    nearest; "unit": float32 in [0, 1]."""

    way: str
    steps: tuple[tuple[torch.dtype, bool], ...]  # dtypes that they are converted to beforehand, and whether by range
    dtype: torch.dtype  # of what comes out
    channels: int  # of what comes in
    memory_format: torch.memory_format

    @property
    def planes(self) -> int:
        """How many each channel becomes."""
        return self.dtype.itemsize // 2 if self.way == "bits" else 1

    def passes(self, passes: ir.Sequence) -> ir.Sequence:
        """The passes for the images as they go in, with the end of the policy."""
        bits = self.way == "bits"
        # what is taken together again lies side by side then
        layout = torch.channels_last if bits else self.memory_format
        end = ir.Finish(self.dtype if self.dtype in NATIVE else torch.float32, layout)
        return (*(_painted(p, self._fill) for p in passes), end)

    def _fill(self, values: tuple[float, ...]) -> tuple[float, ...]:
        """What a border is painted with."""
        if self.way == "numbers":
            return tuple(v * largest(self.dtype) for v in values)
        if self.way != "bits":
            return values
        exact = torch.tensor(values if len(values) > 1 else values * self.channels, dtype=torch.float64, device="cpu")
        numbers = (
            (exact if self.dtype.is_floating_point else _rounded(exact, self.dtype)).numpy().astype(_NUMPY[self.dtype])
        )
        return tuple(float(v) for v in numbers.view(np.int16))

    def frame(self, frame: ir.Frame) -> ir.Frame:
        """The frame of the images as they go in."""
        return replace(frame, channels=frame.channels * self.planes)

    def before(self, images: Tensor) -> Tensor:
        """Images as they go in: [..., C] of any dtype to [..., planes * C] of one that executors hold."""
        for dtype, scale in self.steps:
            images = converted(images, dtype, scale)
        if self.way == "bits":
            return images.contiguous().view(torch.int16).float()
        if self.way == "numbers":
            return images.float()
        return images if images.dtype in NATIVE else unit(images)

    def dense(self, images: Tensor) -> Tensor:
        """`before` of [N, C, H, W], laid out as they were where their channels stay."""
        return self.before(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def after(self, out: Tensor) -> Tensor:
        """What they are as they come out.  out: [N, planes * C, H, W]"""
        if self.way == "bits":
            values = out.permute(0, 2, 3, 1).to(torch.int16).contiguous().view(self.dtype)
            return values.permute(0, 3, 1, 2).contiguous(memory_format=self.memory_format)
        if self.way == "numbers":
            limits = torch.iinfo(self.dtype)
            out = out.round().clamp(limits.min, limits.max).to(torch.int32)
        elif self.dtype not in NATIVE and not self.dtype.is_floating_point:
            return _rounded(out, self.dtype)
        return out.to(self.dtype)


def through(
    passes: ir.Sequence,
    moves: ir.Sequence,
    steps: tuple[tuple[torch.dtype, bool], ...],
    frame: ir.Frame,
    end: torch.dtype,
    memory_format: torch.memory_format,
) -> tuple[ir.Sequence, Through | None]:
    """The passes that an executor runs, and how images go through it, None where it holds their dtypes itself.

    moves: the passes without those that `steps` stand for.  frame: of the input.  end: the dtype of what comes out
    """
    start = frame.dtype
    if start in NATIVE and end in NATIVE:
        return (*passes, ir.Finish(end, memory_format)), None
    if all(ir.is_move(p) for p in moves):
        way, passes = "native" if end in NATIVE else "bits", moves
    else:
        numbers = not steps and start == end and not end.is_floating_point and all(ir.is_linear(p) for p in passes)
        way, steps = "numbers" if numbers else "unit", ()
    made = Through(way, steps, end, frame.channels, memory_format)
    return made.passes(passes), made


def _painted(p: Any, fill: Callable[[tuple[float, ...]], tuple[float, ...]]) -> Any:
    """A pass with other borders."""
    if isinstance(p, ir.Choice):
        return replace(p, branches=tuple(tuple(_painted(q, fill) for q in branch) for branch in p.branches))
    return p if getattr(p, "fill", None) is None else replace(p, fill=fill(p.fill))
