"""Single operations for people with a pipeline of their own: on CUDA by the Triton kernels, on a CPU by the same bits.

images: [N, C, H, W] of any strides and dtype that `gpuaug.Policy` takes, values as it reads them (uint8 0 to 255 is 0
to 1). Nothing is written to but a given `out`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpuaug import arguments, fuse, ir, rng, torch_compile
from gpuaug.arrays import from_array, put, resolved
from gpuaug.batch import as_epoch, as_integers
from gpuaug.dtypes import DTYPES, through
from gpuaug.exec import choose, load
from gpuaug.images import as_images

__all__ = ["cutmix", "erase", "mixup", "normalize", "salt_and_pepper"]


@torch_compile.eagerly
def salt_and_pepper(
    images: Tensor,
    amount: float,
    salt_vs_pepper: float = 0.5,
    per_channel: bool = False,
    *,
    seed: int,
    ids: Tensor,
    epoch: int | Tensor = 0,
) -> Tensor:
    """Replace pixels with probability `amount`: by 1 with probability `salt_vs_pepper`, else by 0.

    ids: [N] int64; a sample's mask depends on (seed, epoch, id) alone.  The same mask as `SaltAndPepper` in first place
    of a policy."""
    images = _dense(images)
    amount, share = (
        arguments.number("amount", amount, 0.0, 1.0),
        arguments.number("salt_vs_pepper", salt_vs_pepper, 0.0, 1.0),
    )
    ids = as_integers("ids", ids, len(images), images.device, rng.MAX_ID)
    salt, both = ir.rows((amount * share, amount), ids, torch.float32).unbind(1)
    noise = ir.SaltPepper(0, salt, both, arguments.flag("per_channel", per_channel))
    keys = rng.Keys(
        arguments.integer("seed", seed, 0, 2**64 - 1), as_epoch(epoch, images.device), ids, torch.zeros_like(ids)
    )
    return _run((noise,), images, keys)


@torch_compile.eagerly
def cutmix(images: Tensor, partner: Tensor, boxes: Tensor, out: Tensor | None = None) -> Tensor:
    """The partner's pixels inside a rectangle.

    partner: [N] int64 rows of this batch.  boxes: [N, 4] integers x1 y1 x2 y2, far edges exclusive.  out: written and
    returned, if given; it must not share memory with images.  On CUDA one launch, straight into an `out` that is
    contiguous or channels_last."""
    images = _dense(images)
    if out is not None:
        _check_out(out, images)
    partner, boxes = (
        _rows("partner", partner, images, (), integers=True),
        _rows("boxes", boxes, images, (4,), integers=True),
    )
    return _run((ir.CutMix(partner, boxes, ir.rows(tuple(images.shape[2:]), partner)),), images, out=out)


@torch_compile.eagerly
def mixup(images: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
    """lam x + (1 - lam) partner.  partner: [N] int64 rows of this batch; lam: [N] floats, the weight of the sample
    itself."""
    images = _dense(images)
    partner, lam = _rows("partner", partner, images, (), integers=True), _rows("lam", lam, images, (), integers=False)
    return _run((ir.MixUp(partner, lam.float()),), images)


@torch_compile.eagerly
def erase(images: Tensor, boxes: Tensor, value: float | Sequence[float] | Tensor = 0.0) -> Tensor:
    """`value` inside a rectangle.  boxes: [N, 4] integers x1 y1 x2 y2, far edges exclusive; value: a number, one per
    channel, or [N, C]."""
    images = _dense(images)
    boxes = _rows("boxes", boxes, images, (4,), integers=True)
    channels = images.shape[1]
    if isinstance(value, Tensor):
        values = _rows("value", value, images, (channels,), integers=False).float()
    else:
        row = arguments.numbers("value", [value] if isinstance(value, int | float) else value, (1, channels))
        values = ir.rows(row, boxes, torch.float32)
    return _run((ir.Erase(0, boxes, values.expand(-1, channels)),), images)


@torch_compile.eagerly
def normalize(
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """(x - mean) / std per channel, cast and laid out in the same pass.  dtype: float; by default that of float images,
    float32 of uint8."""
    images = _dense(images)
    mean, std = (
        arguments.numbers("mean", mean, (1, images.shape[1])),
        arguments.numbers("std", std, (1, images.shape[1])),
    )
    if len(mean) != len(std) or not all(std):
        raise ValueError(f"mean and std must have the same length and std no 0, got {mean} and {std}")
    dtype = dtype or (images.dtype if images.is_floating_point() else torch.float32)
    if dtype not in DTYPES or not dtype.is_floating_point:
        raise ValueError(f"dtype must be torch.float64, torch.float32, torch.float16 or torch.bfloat16, got {dtype}")
    return _run((ir.Normalize(tuple(mean), tuple(std)),), images, dtype=dtype, memory_format=memory_format)


def _dense(images: Any) -> Tensor:
    checked = as_images(images)
    if not isinstance(checked, Tensor):
        raise TypeError("images must be a tensor [N, C, H, W], got a list; stack it, or use a gpuaug.Policy")
    return checked


def _rows(name: str, values: Any, images: Tensor, shape: tuple[int, ...], integers: bool) -> Tensor:
    """A tensor [N, *shape] on the device of the images."""
    given = (
        values if isinstance(values, Tensor) else put(from_array(name, arguments.array(name, values)), images.device)
    )
    given = resolved(given.as_subclass(Tensor))
    if given.shape != (len(images), *shape):
        raise ValueError(f"{name} must have shape {[len(images), *shape]}, got {list(given.shape)}")
    if given.device != images.device:
        raise ValueError(f"{name} must be on the device of the images, got {given.device} and {images.device}")
    if given.is_complex() or (integers and (given.is_floating_point() or given.dtype == torch.bool)):
        raise TypeError(f"{name} must be {'integers' if integers else 'numbers'}, got {given.dtype}")
    return given.long() if integers else given


def _run(
    passes: ir.Sequence, images: Tensor, keys: rng.Keys | None = None, out: Tensor | None = None, **finish: Any
) -> Tensor:
    """The passes by the best executor of the device."""
    n = len(images)
    blank = ir.Frame(torch.zeros((n, 2), dtype=torch.int64, device=images.device), None, images.shape[1], images.dtype)
    frame = blank.resized((images.shape[2], images.shape[3]))
    layout = torch.contiguous_format if out is None or out.is_contiguous() else torch.channels_last
    every, how = through(
        passes, passes, (), frame, finish.get("dtype", images.dtype), finish.get("memory_format", layout)
    )
    zero = torch.zeros(n, dtype=torch.int64, device=images.device)
    plan = fuse.Plan(every, keys or rng.Keys(0, 0, zero, zero), frame if how is None else how.frame(frame), how)
    backend = choose("auto", images.device)
    # only the Triton executor writes into memory that it is given
    straight = (
        out is not None
        and how is None
        and backend == "triton"
        and out.is_contiguous(memory_format=layout)
        and not out.is_neg()
    )
    source = images if how is None else how.dense(images)
    result: Tensor = load(backend).run(plan, source, **{"out": out} if straight else {})
    result = result if how is None else how.after(result)
    return result if out is None or straight else out.copy_(result)


def _check_out(out: Tensor, images: Tensor) -> None:
    if out.shape != images.shape or out.dtype != images.dtype or out.device != images.device:
        raise ValueError(
            f"out must be {images.dtype} {tuple(images.shape)} on {images.device}, "
            f"got {out.dtype} {tuple(out.shape)} on {out.device}"
        )
    (a, b), (c, d) = _extent(out), _extent(images)
    if a < d and c < b:
        raise ValueError(
            "out must not share memory with images, got overlapping tensors; "
            "pass another, such as torch.empty_like(images)"
        )


def _extent(x: Tensor) -> tuple[int, int]:
    """The first address that a tensor uses and the first beyond it."""
    first = x.data_ptr()
    reach = sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True)) + 1
    return first, first + (reach * x.element_size() if x.numel() else 0)
