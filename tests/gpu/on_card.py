"""What the tests on a card share: where they run, their images, and how engines are compared."""

import os
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from build import cases
from compare import compare
from torch import Tensor

import gpuaug as ga
from bench.sources import photographs
from gpuaug import ir, rng
from gpuaug.exec import triton

DEVICE = torch.device(os.environ.get("GPUAUG_DEVICE", "cuda"))
IDS = torch.tensor([3, 2**33 + 141, 59, 26, 2**45, 5, 8])
DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)
SIZES = ((31, 22), (18, 40), (1, 1), (25, 25), (60, 7))
MANY = 300 if DEVICE.type == "cuda" else 8  # samples of a large batch; few for the interpreter

# policies that stand for the others where each needs kernels of its own for what is looked at
SOME = ("flip and normalise", "moderate and erasing", "very strong")

# policies whose peak of memory is measured
MEMORY = {
    "flip": (ga.RandomHorizontalFlip(),),
    # its crop is written before the statistic of Contrast reads it
    "moderate": (
        ga.RandomResizedCrop(224),
        ga.RandomHorizontalFlip(),
        ga.ColorJitter(0.2, 0.2, 0.2, 0.05),
        ga.RandomErasing(0.25),
    ),
    # a crop is written before it is turned
    "turned": (ga.RandomResizedCrop(224), ga.RandomRotation(20, "bilinear")),
}


def between(policy: ga.Policy, size: tuple[int, int]) -> int:
    """Bytes of a sample that the kernels write and read again in a call: an image after each step but the last."""
    zero = torch.zeros(1, dtype=torch.int64)
    keys, frame = rng.Keys(0, 0, zero, zero), ir.Frame(torch.tensor([size]), size, 3, torch.uint8)
    steps = triton.steps(policy._plan(keys, frame, policy._draw(keys, frame)))
    assert len(steps) < 3, "of two such images the first may be free before the second is made"
    return sum(step.writes for step in steps[:-1])


def slow_unless(quick: bool, *values: Any) -> Any:
    """A set of parameters, which waits for the slow tests unless it is quick: what takes time on a card is to compile
    the kernels that nothing else needs."""
    return pytest.param(*values, marks=[] if quick else [pytest.mark.slow], id="-".join(map(str, values)))


def size_of(name: str) -> tuple[int, int]:
    """(H, W) of a policy's images: one for all tests, since constants of a draw that are alike are one, and a kernel is
    another with them."""
    return (41, 41) if name == "quarter turns" else (41, 53)


def first_cases() -> list[Any]:
    """Every transform with every set of arguments, of which all but the first are slow."""
    return [slow_unless(c.values[1] == 0, *c.values) for c in cases()]


@cache
def _arrays(n: int, height: int, width: int, channels: int) -> Tensor:
    own = photographs(min(n, 16), max(height, 8), max(width, 8), channels)
    out = (
        torch.from_numpy(np.stack([own[i % len(own)][:height, :width] for i in range(n)]))
        .permute(0, 3, 1, 2)
        .contiguous()
        .float()
        / 255
    )
    # every third is noise, off the grid of 1/255
    noise = np.random.default_rng(5).random((n, channels, height, width), dtype=np.float32)
    out[2::3] = torch.from_numpy(noise)[2::3]
    return out


def images(n: int, height: int, width: int, channels: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    """[n, C, H, W] on the host: pictures, and every third one noise.  Floats are in [0, 1]."""
    out = _arrays(n, height, width, channels)
    return (out * 255).round().to(torch.uint8) if dtype == torch.uint8 else out.to(dtype)


def pictures(sizes: Any = SIZES) -> list[Tensor]:
    """[H, W, 3] uint8 on the host."""
    return [images(3, h, w, dtype=torch.uint8)[k % 3].permute(1, 2, 0).contiguous() for k, (h, w) in enumerate(sizes)]


def put(x: Any) -> Any:
    """To the card."""
    return [put(i) for i in x] if isinstance(x, list) else None if x is None else x.to(DEVICE)


def run(
    policy: ga.Policy, x: Any, labels: Any = None, backend: str = "triton", **given: Any
) -> tuple[Tensor, Tensor | None]:
    """Images and labels of a call on the card, on the host."""
    out = policy(
        put(x), put(labels), backend=backend, **{k: put(v) if isinstance(v, Tensor) else v for k, v in given.items()}
    )
    return (out.cpu(), None) if labels is None else (out[0].cpu(), out[1].cpu())


def agree(
    policy: ga.Policy,
    x: Any,
    kind: str,
    what: str,
    labels: Any = None,
    scale: float = 1.0,
    reference: bool = False,
    **given: Any,
) -> Tensor:
    """The kernels and the reference on the host have the same images and labels: those of the kernels.

    reference: and so has the reference on the card, whose draws take a kernel of their own"""
    given = {"ids": IDS[: len(x)] if len(x) <= len(IDS) else torch.arange(len(x)) * 2**29, "epoch": 2, **given}
    got, soft = run(policy, x, labels, **given)
    out = policy(x, labels, backend="reference", **given)
    want, wanted = out if labels is not None else (out, None)
    assert got.is_contiguous(memory_format=policy.memory_format), what
    compare(got, want, kind, f"{what}: kernels and host", scale)
    if labels is not None:
        assert torch.equal(soft, wanted), f"{what}: labels"
    if reference:
        there, rows = run(policy, x, labels, "reference", **given)
        compare(there, want, kind, f"{what}: reference on the card and on the host", scale)
        assert labels is None or torch.equal(soft, rows), f"{what}: labels"
    return got
